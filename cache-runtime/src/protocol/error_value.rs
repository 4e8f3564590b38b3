//! Errors inside of what a function returned: `Option<Result<T, E>>`, an `Arc` of a `Result`, the
//! `Result` that a batch has for an id.
//!
//! An error is never stored. The form of a return type finds a `Result` around it; here is one that
//! the form does not show, since it is deeper, or behind an alias that the attribute can't see.

use std::any::type_name;
use std::fmt::{self, Display};

use serde::Serialize;
use serde::ser::{self, Impossible, Serializer};

/// Whether the value is an `Err`, perhaps in an `Option`, an `Ok` or a pointer. One in a list, a
/// tuple or a field is data.
pub(super) fn is_error<T: Serialize>(value: &T) -> bool {
    may_be_error(type_name::<T>())
        && !crate::base::mutation::is_active("errors-in-values-stored")
        && matches!(value.serialize(Finder), Err(Found::Error))
}

/// Whether a type of this name is a `Result`, or one is directly in it.
fn may_be_error(mut name: &str) -> bool {
    const AROUND: [&str; 3] = [
        "core::option::Option<",
        "alloc::sync::Arc<",
        "alloc::boxed::Box<",
    ];
    while let Some(inside) = AROUND.iter().find_map(|it| name.strip_prefix(it)) {
        name = inside;
    }
    name.starts_with("core::result::Result<")
}

/// Looks for an `Err`, as serde writes that of the standard library.
struct Finder;

/// Why the search is over.
#[derive(Debug)]
enum Found {
    Error,
    /// Another value.
    Other,
}

impl Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("found")
    }
}

impl std::error::Error for Found {}

impl ser::Error for Found {
    fn custom<T: Display>(_: T) -> Self {
        Self::Other
    }
}

type Never = Impossible<(), Found>;

macro_rules! others {
    ($($method:ident($($argument:ty),*) -> $result:ty;)*) => {$(
        fn $method(self, $(_: $argument),*) -> Result<$result, Found> {
            Err(Found::Other)
        }
    )*};
}

impl Serializer for Finder {
    type Ok = ();
    type Error = Found;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    others! {
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_i128(i128) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_u128(u128) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple(usize) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
        serialize_struct(&'static str, usize) -> Never;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Result<(), Found> {
        Err(Found::Other)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Found> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<(), Found> {
        Err(Found::Other)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Found> {
        match (name, variant) {
            ("Result", "Err") => Err(Found::Error),
            ("Result", "Ok") if may_be_error(type_name::<T>().trim_start_matches('&')) => {
                value.serialize(self)
            }
            _ => Err(Found::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Report {
        outcome: Result<u8, String>,
    }

    /// An enum of the user's own, whose variants are values.
    #[derive(Serialize)]
    enum Outcome {
        #[serde(rename = "Err")]
        Failed(u8),
    }

    #[test]
    fn an_error_is_found_behind_options_pointers_and_results() {
        type Row = Result<u8, &'static str>;
        let failed: Row = Err("no");
        assert!(is_error(&failed) && is_error(&Some(failed)));
        assert!(is_error(&Some(Some(failed))) && is_error(&Box::new(Some(failed))));
        assert!(is_error(&Ok::<_, ()>(failed)) && is_error(&Ok::<_, ()>(Some(failed))));
        assert!(is_error(&Arc::new(Ok::<_, ()>(Ok::<_, ()>(failed)))));
    }

    #[test]
    fn values_are_none() {
        assert!(!is_error(&Ok::<u8, u8>(1)) && !is_error(&None::<Result<u8, u8>>));
        assert!(!is_error(&7) && !is_error(&vec![Err::<u8, u8>(1)]));
        assert!(!is_error(&(Err::<u8, u8>(1), 2)) && !is_error(&Outcome::Failed(1)));
        assert!(!is_error(&Ok::<_, ()>(Outcome::Failed(1))));
        let outcome = Err("no".to_owned());
        assert!(!is_error(&Report { outcome }));
        // An `Err` inside of the `Ok` of another type is data.
        let inside: Result<_, ()> = Ok(vec![Err::<u8, u8>(1)]);
        assert!(!is_error(&inside));
    }
}
