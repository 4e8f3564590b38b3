//! An id as it was given, from before its text is written.
//!
//! Most hits are found in memory of their thread (the *thread cache*), and nobody reads the text of
//! their key. To write it took a fifth of a hit. So a number or a short text is only noted here,
//! and is written once the text is needed. Two ids with equal drafts have equal texts in a key,
//! since the text is written from the draft. An id of any other form is written at once.

use std::fmt::{self, Display, Write as _};

use serde::ser::{Impossible, Serialize, Serializer};

use super::bound::ID_LIMIT;

/// An id as it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Draft {
    /// There is none, or it is written already.
    #[default]
    None,
    Natural(u64),
    Negative(i64),
    /// A text, which is noted elsewhere.
    Text,
}

impl Draft {
    /// Notes the id; appends its text to `text`, if it is one. Returns [`Draft::None`] for an id
    /// that has to be written at once.
    #[inline]
    pub(super) fn of<T: Serialize + ?Sized>(id: &T, text: &mut String) -> Self {
        id.serialize(Drafter(text)).unwrap_or(Self::None)
    }
}

/// Takes numbers and short texts, and nothing else.
struct Drafter<'a>(&'a mut String);

/// The id has another form.
#[derive(Debug)]
struct OtherForm;

impl Display for OtherForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the id is neither a number nor a short text")
    }
}

impl std::error::Error for OtherForm {}

impl serde::ser::Error for OtherForm {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

/// Zero and above are natural numbers in any type, since they are written alike.
#[inline]
fn number<T: TryInto<u64> + TryInto<i64> + Copy>(n: T) -> Result<Draft, OtherForm> {
    match n.try_into() {
        Ok(n) => Ok(Draft::Natural(n)),
        Err(_) => n.try_into().map(Draft::Negative).map_err(|_| OtherForm),
    }
}

type Never = Impossible<Draft, OtherForm>;

macro_rules! numbers {
    ($($method:ident($int:ty);)*) => {$(
        #[inline]
        fn $method(self, n: $int) -> Result<Draft, OtherForm> {
            number(n)
        }
    )*};
}

macro_rules! others {
    ($($method:ident($($argument:ty),*) -> $result:ty;)*) => {$(
        #[inline]
        fn $method(self, $(_: $argument),*) -> Result<$result, OtherForm> {
            Err(OtherForm)
        }
    )*};
}

impl Serializer for Drafter<'_> {
    type Ok = Draft;
    type Error = OtherForm;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    numbers! {
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
    }

    others! {
        serialize_bool(bool) -> Draft;
        serialize_f32(f32) -> Draft;
        serialize_f64(f64) -> Draft;
        serialize_bytes(&[u8]) -> Draft;
        serialize_none() -> Draft;
        serialize_unit() -> Draft;
        serialize_unit_struct(&'static str) -> Draft;
        serialize_unit_variant(&'static str, u32, &'static str) -> Draft;
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple(usize) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
        serialize_struct(&'static str, usize) -> Never;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
    }

    #[inline]
    fn serialize_char(self, v: char) -> Result<Draft, OtherForm> {
        self.0.push(v);
        Ok(Draft::Text)
    }

    #[inline]
    fn serialize_str(self, v: &str) -> Result<Draft, OtherForm> {
        if v.len() > ID_LIMIT {
            return Err(OtherForm);
        }
        self.0.push_str(v);
        Ok(Draft::Text)
    }

    /// Without the `String` that serde would make.
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<Draft, OtherForm> {
        let mut text = Short(self.0);
        write!(text, "{value}").map_err(|_| OtherForm)?;
        Ok(Draft::Text)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Draft, OtherForm> {
        // Written like the value itself, except `Some(None)`, which has no draft.
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Draft, OtherForm> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Draft, OtherForm> {
        Err(OtherForm)
    }
}

/// Takes a text up to the limit.
struct Short<'a>(&'a mut String);

impl fmt::Write for Short<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > ID_LIMIT {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use serde::Serialize;

    use super::super::id::{self, render};
    use super::*;

    #[derive(Serialize)]
    struct Wrapped<T>(T);

    #[derive(Serialize)]
    enum Colour {
        Red,
        Other(u8),
    }

    /// Whether the id has a draft. If so, its text and form have to be those of the id.
    fn is_drafted<T: Serialize + ?Sized>(given: &T) -> bool {
        let mut text = String::new();
        let draft = Draft::of(given, &mut text);
        if draft == Draft::None {
            return false;
        }
        let (mut at_once, mut later) = (String::new(), String::new());
        let form = render(given, &mut at_once).expect("it can be in a key");
        let of = std::any::type_name::<T>();
        let drafted = id::render_draft(draft, &text, of, &mut later);
        assert_eq!((&later, drafted), (&at_once, form), "{draft:?}");
        true
    }

    #[test]
    fn a_draft_is_written_like_its_id() {
        for n in [0, 1, -1, 7, i64::MAX, i64::MIN] {
            assert!(is_drafted(&n) && is_drafted(&Wrapped(n)) && is_drafted(&Some(n)));
        }
        assert!(is_drafted(&u64::MAX) && is_drafted(&7_u8) && is_drafted(&-7_i128));
        for text in ["", "ada", "a:b", "~", "1", "-1", "true", "é\u{2028}", "%41"] {
            assert!(is_drafted(text) && is_drafted(&text.to_owned()));
            assert!(is_drafted(&Wrapped(Some(text))));
            assert!(is_drafted(&serde_json::Value::from(text)));
        }
        assert!(is_drafted(&'~') && is_drafted(&Ipv4Addr::LOCALHOST));
        assert!(is_drafted("a".repeat(ID_LIMIT).as_str()));
    }

    #[test]
    fn any_other_id_has_none() {
        assert!(!is_drafted("a".repeat(ID_LIMIT + 1).as_str()));
        assert!(!is_drafted(&i128::MIN) && !is_drafted(&u128::MAX));
        assert!(!is_drafted(&(1, 2)) && !is_drafted(&[1]) && !is_drafted(&()));
        assert!(!is_drafted(&None::<u8>) && !is_drafted(&Some(None::<u8>)));
        assert!(!is_drafted(&true) && !is_drafted(&1.5) && !is_drafted(&Colour::Red));
        assert!(!is_drafted(&Colour::Other(1)) && !is_drafted(&BTreeMap::<u8, u8>::new()));
    }

    #[test]
    fn a_text_that_is_too_long_leaves_nothing_behind_that_counts() {
        struct Long;
        impl Serialize for Long {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&format_args!("{:>1$}", 7, ID_LIMIT + 1))
            }
        }
        assert_eq!(Draft::of(&Long, &mut String::new()), Draft::None);
    }
}
