//! Finds what an argument's `Serialize` leaves out.
//!
//! A key is made of what is serialised. A field under `#[serde(skip)]`, variants of an untagged enum
//! that look alike, or a `Serialize` that rounds, give two different arguments one key. serde does
//! not tell a serialiser of it, so this compares with two things that know more:
//!
//! - The text of `Debug`, if the type has it: `derive(Debug)` writes each field and the variant's
//!   name. Where it shows more than was serialised, a hash of the text tells the entries apart
//!   ([`Finding::Apart`]).
//! - The size of each value, which no trait is needed for. The fields of a struct fill it but for
//!   its alignment. If the fields that were serialised do not, one is missing. Without a `Debug` to
//!   tell its values apart, a hash of `Hash` does; without either the call bypasses the cache
//!   ([`Finding::Unknown`]).
//!
//! A hash of the text becomes part of the entry's fingerprint, and never of its key: writes and
//! manual operations name the key alone. So arguments that differ in what is left out replace each
//! other's entries, and never get each other's values.
//!
//! Most types are looked at once: what holds for all values of a type, or of a variant, is kept
//! in [`facts`]. Later calls walk over a value only to see which types and variants it has.

mod debug_text;
mod facts;
mod hash;
mod judge;
mod record;
mod walk;

use std::fmt;
use std::hash::Hash;
use std::ops::Deref;

use serde::Serialize;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use self::debug_text::Shown;
use self::hash::hash64;
use self::judge::{Judge, Reason};
use self::record::Node;

/// An argument of a call, with what its type tells of itself beside `Serialize`.
pub struct Argument<'a, T: ?Sized> {
    pub(crate) value: &'a T,
    text: Option<fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result>,
    hash: Option<fn(&T, &mut SipHasher13)>,
    elements: Option<Elements<T>>,
}

/// Hands out the elements of a list.
type Elements<T> = fn(&T, &mut dyn FnMut(Node));

impl<T: ?Sized> fmt::Debug for Argument<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Argument").finish_non_exhaustive()
    }
}

/// The first link of a chain whose method `known` is found by what the type of `value` implements:
/// `Debug`, else `Hash`, else neither. The elements of a list are looked at one by one: serde hands
/// out references to them, which have another size.
pub fn argument<T: ?Sized>(value: &T) -> ByText<'_, T> {
    ByText(ByHashes(ByHash(Plains(Plain(value)))))
}

macro_rules! links {
    ($($(#[$doc:meta])* $link:ident => $next:ident;)*) => {$(
        #[doc(hidden)]
        #[derive(Clone, Copy)]
        pub struct $link<'a, T: ?Sized>($next<'a, T>);

        impl<'a, T: ?Sized> Deref for $link<'a, T> {
            type Target = $next<'a, T>;

            fn deref(&self) -> &$next<'a, T> {
                &self.0
            }
        }
    )*};
}

links! {
    ByText => ByHashes;
    ByHashes => ByHash;
    ByHash => Plains;
    Plains => Plain;
}

#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Plain<'a, T: ?Sized>(&'a T);

impl<'a, T: fmt::Debug + ?Sized> ByText<'a, T> {
    /// With the text of its `Debug`.
    #[must_use]
    pub fn known(&self) -> Argument<'a, T> {
        Argument {
            text: Some(<T as fmt::Debug>::fmt),
            ..Plain::known(self)
        }
    }
}

impl<'a, X: Hash + Serialize> ByHashes<'a, [X]> {
    /// With the `Hash` of its elements.
    #[must_use]
    pub fn known(&self) -> Argument<'a, [X]> {
        Argument {
            hash: Some(|value, hasher| value.hash(hasher)),
            ..Plains::<[X]>::known(self)
        }
    }
}

impl<'a, X: Hash + Serialize> ByHashes<'a, Vec<X>> {
    /// With the `Hash` of its elements.
    #[must_use]
    pub fn known(&self) -> Argument<'a, Vec<X>> {
        Argument {
            hash: Some(|value, hasher| value.hash(hasher)),
            ..Plains::<Vec<X>>::known(self)
        }
    }
}

impl<'a, T: Hash + ?Sized> ByHash<'a, T> {
    /// With its `Hash`.
    #[must_use]
    pub fn known(&self) -> Argument<'a, T> {
        Argument {
            hash: Some(|value, hasher| value.hash(hasher)),
            ..Plain::known(self)
        }
    }
}

impl<'a, X: Serialize> Plains<'a, [X]> {
    /// With its elements.
    #[must_use]
    pub fn known(&self) -> Argument<'a, [X]> {
        Argument {
            elements: Some(|value, each| value.iter().filter_map(record::record).for_each(each)),
            ..Plain::known(self)
        }
    }
}

impl<'a, X: Serialize> Plains<'a, Vec<X>> {
    /// With its elements.
    #[must_use]
    pub fn known(&self) -> Argument<'a, Vec<X>> {
        Argument {
            elements: Some(|value, each| value.iter().filter_map(record::record).for_each(each)),
            ..Plain::known(self)
        }
    }
}

impl<'a, T: ?Sized> Plain<'a, T> {
    /// With its `Serialize` only.
    #[must_use]
    pub fn known(&self) -> Argument<'a, T> {
        Argument {
            value: self.0,
            text: None,
            hash: None,
            elements: None,
        }
    }
}

/// What was found of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Nothing that tells it apart is left out, as far as can be seen.
    Whole,
    /// Something may be left out; this hash covers it. With a text if a field is known to be.
    Apart(u64, Option<String>),
    /// Something is left out, and nothing tells its values apart.
    Unknown(String),
}

impl<T: Serialize + ?Sized> Argument<'_, T> {
    /// Compares what is serialised with what else the type tells.
    #[inline]
    pub(crate) fn check(&self) -> Finding {
        let has_text = self.text.is_some();
        if crate::base::mutation::is_active("left-out-not-looked-for")
            || walk::is_whole(self.value, has_text)
        {
            return Finding::Whole;
        }
        self.look_closely()
    }

    #[cold]
    #[inline(never)]
    fn look_closely(&self) -> Finding {
        let text = self.text();
        let seen = match &text {
            Text::Of(text) => Some(facts::Subject::of::<T>(true).shown(hash64(text.as_bytes()))),
            Text::None | Text::TooLong => None,
        };
        if seen.is_some_and(facts::was_whole) {
            return Finding::Whole;
        }
        let found = self.compare(text);
        if let (Finding::Whole, Some(seen)) = (&found, seen) {
            facts::is_whole(seen);
        }
        found
    }

    fn compare(&self, text: Text) -> Finding {
        let Some(node) = record::record(self.value) else {
            // It can't be serialised, which the key says, or is nested too deeply to look at.
            return match text {
                Text::Of(text) => Finding::Apart(hash64(text.as_bytes()), None),
                Text::None => Finding::Unknown(not_looked_at::<T>("is nested too deeply")),
                Text::TooLong => Finding::Unknown(not_looked_at::<T>(TOO_LONG)),
            };
        };
        let mut judge = Judge::new(self.text.is_some());
        let text = match text {
            Text::Of(text) => Some(text),
            Text::None => None,
            Text::TooLong => return Finding::Unknown(not_looked_at::<T>(TOO_LONG)),
        };
        let Some(text) = text else {
            match self.elements {
                Some(elements) => elements(self.value, &mut |node| judge.by_size(&node)),
                None => {
                    judge.by_size(&node);
                }
            }
            let Some(reason) = judge.reason else {
                return Finding::Whole;
            };
            return match self.hash {
                Some(hash) => {
                    let mut hasher = SipHasher13::new();
                    hash(self.value, &mut hasher);
                    Finding::Apart(hasher.finish128().as_u128() as u64, reason.told())
                }
                None => Finding::Unknown(reason.unknown()),
            };
        };
        let shown = Shown::parse(&text);
        let is_whole = judge.by_text(&node, &shown);
        let shows_more = matches!(
            judge.reason,
            Some(Reason::Field { .. } | Reason::Variant { .. })
        );
        // Neither the text nor what is serialised has it.
        if !shows_more {
            let mut sizes = Judge::of_a_hint();
            sizes.by_size(&node);
            if let Some(reason) = sizes.reason.filter(Reason::is_of_a_struct) {
                return Finding::Unknown(reason.unknown());
            }
        }
        match is_whole {
            true => Finding::Whole,
            false => Finding::Apart(shown.hash(), judge.reason.and_then(|reason| reason.told())),
        }
    }

    /// What `Debug` writes.
    fn text(&self) -> Text {
        let Some(write) = self.text else {
            return Text::None;
        };
        let mut text = Limited::default();
        match fmt::write(&mut text, format_args!("{}", Show(self.value, write))) {
            Ok(()) => Text::Of(text.text),
            Err(_) if text.is_full => Text::TooLong,
            Err(_) => Text::None,
        }
    }
}

/// The text of a value's `Debug`.
enum Text {
    Of(String),
    /// There is none, or it fails.
    None,
    TooLong,
}

/// More than this of a `Debug` is not looked at: a field that is left out may be megabytes long, and
/// each call would have to read it.
const LONGEST_TEXT: usize = 256 * 1024;
const TOO_LONG: &str = "shows more than 256 KiB of itself";

fn not_looked_at<T: ?Sized>(why: &str) -> String {
    let ty = std::any::type_name::<T>();
    format!("`{ty}` {why}, so whether it is serialised as a whole is not known")
}

#[derive(Default)]
struct Limited {
    text: String,
    is_full: bool,
}

impl fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.is_full |= self.text.len() + text.len() > LONGEST_TEXT;
        if self.is_full {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// Writes a value as `Debug` does, or as its function says.
struct Show<'a, T: ?Sized>(&'a T, fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result);

impl<T: ?Sized> fmt::Display for Show<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.1)(self.0, f)
    }
}

/// Whether a struct, or one inside of it, has a field that is not serialised: as far as its size shows
/// it, or the text of its `Debug`.
pub(crate) fn leaves_out<T: Serialize + ?Sized>(value: &T, text: Option<&str>) -> bool {
    let Some(node) = record::record(value) else {
        return false;
    };
    let mut sizes = Judge::of_a_hint();
    sizes.by_size(&node);
    let by_size = sizes.reason.is_some_and(|reason| reason.is_of_a_struct());
    let by_text = || {
        let text = text.filter(|text| text.len() <= LONGEST_TEXT)?;
        let mut shown = Judge::of_a_hint();
        shown.by_text(&node, &Shown::parse(text));
        shown.reason
    };
    by_size || matches!(by_text(), Some(Reason::Field { .. }))
}

/// A hash of what `Debug` writes, in which the order of sets and maps does not count.
pub(crate) fn text_hash(text: &str) -> u64 {
    Shown::parse(text).hash()
}

#[cfg(test)]
mod tests;
