//! Tags that may be absent: if a value in `tags("team:{team_id}")` is an `Option`, `None` means
//! that there is no tag.
//!
//! A value in a tag is passed to [`part`]. Its methods exist once for `Option` and once for all
//! other types, as inherent methods on a chain of types that dereference into each other (like
//! `Shape`). While a part that is `None` is written, it notes that there is no tag.

use std::cell::Cell;
use std::fmt::{self, Display};
use std::ops::Deref;

thread_local! {
    /// Whether a part of the tag that is being written is `None`.
    static IS_ABSENT: Cell<bool> = const { Cell::new(false) };
}

/// A value in a tag.
#[must_use]
pub fn part<T: ?Sized>(value: &T) -> Part<'_, T> {
    Part(Plain(value))
}

/// A value in a tag. [`__text`](Part::__text) returns the text to write.
#[derive(Debug)]
pub struct Part<'a, T: ?Sized>(Plain<'a, T>);

/// A value that is always present.
#[derive(Debug)]
pub struct Plain<'a, T: ?Sized>(&'a T);

/// A value that may be absent.
#[derive(Debug)]
pub struct Optional<'a, T>(Option<&'a T>);

impl<'a, T> Part<'a, Option<T>> {
    /// The value, or a note that there is no tag.
    pub fn __text(&self) -> Optional<'a, T> {
        Optional(self.0.0.as_ref())
    }
}

impl<'a, T> Part<'a, &Option<T>> {
    /// Like that of the `Option`.
    pub fn __text(&self) -> Optional<'a, T> {
        Optional(self.0.0.as_ref())
    }
}

impl<'a, T: ?Sized> Deref for Part<'a, T> {
    type Target = Plain<'a, T>;

    fn deref(&self) -> &Plain<'a, T> {
        &self.0
    }
}

impl<'a, T: ?Sized> Plain<'a, T> {
    /// The value.
    pub fn __text(&self) -> &'a T {
        self.0
    }
}

impl<T: Display> Display for Optional<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => {
                IS_ABSENT.set(true);
                Ok(())
            }
        }
    }
}

/// The argument of `load.tag(..)`: a type that implements `Display`, or an `Option` of one.
///
/// `Kind` tells the implementations apart, and is inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a tag",
    label = "this can't be written as text",
    note = "a tag implements `Display`, or is an `Option` of a type that does"
)]
pub trait IntoTag<Kind> {
    /// The text of the tag; `None` for no tag.
    fn into_tag(self) -> Option<String>;
}

/// The [`IntoTag`] of what is always a tag.
#[derive(Debug)]
pub struct Always;

/// The [`IntoTag`] of what may be none.
#[derive(Debug)]
pub struct Perhaps;

impl<T: Display> IntoTag<Always> for T {
    fn into_tag(self) -> Option<String> {
        written(self)
    }
}

impl<T: Display> IntoTag<Perhaps> for Option<T> {
    fn into_tag(self) -> Option<String> {
        self.and_then(written)
    }
}

impl<T: Display> IntoTag<Perhaps> for &Option<T> {
    fn into_tag(self) -> Option<String> {
        self.as_ref().and_then(written)
    }
}

/// The text of the tag; `None` if a part of it is absent.
pub(crate) fn written(tag: impl Display) -> Option<String> {
    IS_ABSENT.set(false);
    let text = tag.to_string();
    (!IS_ABSENT.take()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_names_what_is_text_or_perhaps_none() {
        fn named<Kind>(tag: impl IntoTag<Kind>) -> Option<String> {
            tag.into_tag()
        }
        fn generic(tag: impl Display) -> Option<String> {
            named(tag)
        }
        let (there, absent) = (Some("team:7".to_owned()), None::<String>);
        for text in [
            named("team:7"),
            named(String::from("team:7")),
            named(format_args!("team:{}", 7)),
            named(&there),
            named(there.as_deref()),
            named(there),
            named(Some(format_args!("team:{}", 7))),
            generic("team:7"),
        ] {
            assert_eq!(text.as_deref(), Some("team:7"));
        }
        assert_eq!(named(&absent), None);
        assert_eq!(named(absent), None);
        assert_eq!(named(None::<i64>), None);
        assert_eq!(named(Some(7)).as_deref(), Some("7"));
        assert_eq!(named(part(&None::<i64>).__text()), None);
    }

    #[test]
    fn a_tag_of_none_is_none() {
        let (there, absent): (_, Option<i64>) = (Some(7), None);
        let of = |team: &Option<i64>| written(format_args!("team:{}", part(team).__text()));
        assert_eq!(of(&there).as_deref(), Some("team:7"));
        assert_eq!(of(&absent), None);
        // An absence does not affect the next tag.
        assert_eq!(
            written(format_args!("{}", part("a").__text())).as_deref(),
            Some("a")
        );
        assert_eq!(written(part(&there).__text()).as_deref(), Some("7"));
        assert_eq!(written(part(&&absent).__text()), None);
        assert_eq!(written(part(&7).__text()).as_deref(), Some("7"));
        assert_eq!(written(part("text").__text()).as_deref(), Some("text"));
        let own = String::from("own");
        assert_eq!(written(part(&own).__text()).as_deref(), Some("own"));
        assert_eq!(
            written(part(&own.as_str()).__text()).as_deref(),
            Some("own")
        );
    }
}
