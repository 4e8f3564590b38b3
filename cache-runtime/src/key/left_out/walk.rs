//! Walks over a value to see whether all that it contains is known to be whole. No memory, no lock.

use serde::ser::{self, Serialize, Serializer};

use super::facts::{Fact, Kind, Subject, fact, of_variant};
use super::written_for::WrittenFor;

/// Whether it is known that the value's `Serialize` leaves out nothing.
#[inline]
pub(super) fn is_whole<T: Serialize + ?Sized>(value: &T, has_text: bool, form: WrittenFor) -> bool {
    step(value, has_text, form).is_ok()
}

#[inline]
fn step<T: Serialize + ?Sized>(value: &T, has_text: bool, form: WrittenFor) -> Result<(), Stop> {
    // The record drops it: it is a type without a value.
    if std::any::type_name::<T>().starts_with("core::marker::PhantomData<") {
        return Ok(());
    }
    let of = Subject::of::<T>(has_text, form);
    if fact(of) == Some(Fact::All) {
        return Ok(());
    }
    match value.serialize(Walk { of, has_text, form }) {
        Err(Stop::Whole) => Ok(()),
        end => end,
    }
}

/// Why the walk over a value ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Nothing in it has to be looked at.
    Whole,
    /// It has to be looked at closely.
    Unknown,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stop {}

impl ser::Error for Stop {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self::Unknown
    }
}

#[derive(Clone, Copy)]
struct Walk {
    of: Subject,
    has_text: bool,
    form: WrittenFor,
}

impl Walk {
    fn enter(self, kind: Kind, name: &'static str, len: usize) -> Result<Inside, Stop> {
        match fact(self.of.kind(kind, name, len)) {
            Some(Fact::All) => Err(Stop::Whole),
            Some(Fact::Itself) => Ok(Inside {
                has_text: self.has_text,
                form: self.form,
            }),
            None => Err(Stop::Unknown),
        }
    }

    fn around<T: Serialize + ?Sized>(
        self,
        kind: Kind,
        name: &'static str,
        len: usize,
        value: &T,
    ) -> Result<(), Stop> {
        match fact(self.of.kind(kind, name, len)) {
            Some(Fact::All) => Ok(()),
            Some(Fact::Itself) => step(value, self.has_text, self.form),
            None => Err(Stop::Unknown),
        }
    }
}

/// A number of a type that is not all known: it may stand for anything.
macro_rules! leaves {
    ($($method:ident($type:ty);)*) => {$(
        fn $method(self, _: $type) -> Result<(), Stop> {
            self.enter(Kind::Leaf, "", size_of::<$type>()).map(drop)
        }
    )*};
}

impl Serializer for Walk {
    type Ok = ();
    type Error = Stop;
    type SerializeSeq = Inside;
    type SerializeTuple = Inside;
    type SerializeTupleStruct = Inside;
    type SerializeTupleVariant = Inside;
    type SerializeMap = Inside;
    type SerializeStruct = Inside;
    type SerializeStructVariant = Inside;

    leaves! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
    }

    fn serialize_str(self, _: &str) -> Result<(), Stop> {
        self.enter(Kind::Leaf, "", 0).map(drop)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Stop> {
        self.enter(Kind::Leaf, "", 0).map(drop)
    }

    fn is_human_readable(&self) -> bool {
        self.form.is_readable()
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, _: &T) -> Result<(), Stop> {
        self.enter(Kind::Leaf, "", 0).map(drop)
    }

    fn serialize_none(self) -> Result<(), Stop> {
        // An `Option`, or another type that was seen to be `Some`.
        self.enter(Kind::Some, "", 1).map(drop)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Stop> {
        self.around(Kind::Some, "", 1, value)
    }

    fn serialize_unit(self) -> Result<(), Stop> {
        Err(Stop::Unknown)
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), Stop> {
        self.enter(Kind::UnitStruct, name, 0).map(drop)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<(), Stop> {
        // The variant is in the key. What it holds may be left out.
        let len = of_variant(index, 0);
        self.enter(Kind::UnitVariant, variant, len).map(drop)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Stop> {
        self.around(Kind::Newtype, name, 1, value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Stop> {
        self.around(Kind::NewtypeVariant, variant, of_variant(index, 1), value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Inside, Stop> {
        self.enter(Kind::Items, "", 0)
    }

    fn serialize_tuple(self, _: usize) -> Result<Inside, Stop> {
        self.enter(Kind::Items, "", 0)
    }

    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Inside, Stop> {
        self.enter(Kind::TupleStruct, name, len)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Inside, Stop> {
        self.enter(Kind::TupleVariant, variant, of_variant(index, len))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Inside, Stop> {
        self.enter(Kind::Map, "", 0)
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Inside, Stop> {
        self.enter(Kind::Struct, name, len)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Inside, Stop> {
        self.enter(Kind::StructVariant, variant, of_variant(index, len))
    }
}

struct Inside {
    has_text: bool,
    form: WrittenFor,
}

macro_rules! items {
    ($($trait:ident::$method:ident;)*) => {$(
        impl ser::$trait for Inside {
            type Ok = ();
            type Error = Stop;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stop> {
                step(value, self.has_text, self.form)
            }

            fn end(self) -> Result<(), Stop> {
                Ok(())
            }
        }
    )*};
}

items! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

macro_rules! fields {
    ($($trait:ident;)*) => {$(
        impl ser::$trait for Inside {
            type Ok = ();
            type Error = Stop;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), Stop> {
                step(value, self.has_text, self.form)
            }

            /// Whether this value has to be told apart depends on the field that it leaves out.
            fn skip_field(&mut self, _: &'static str) -> Result<(), Stop> {
                Err(Stop::Unknown)
            }

            fn end(self) -> Result<(), Stop> {
                Ok(())
            }
        }
    )*};
}

fields! {
    SerializeStruct;
    SerializeStructVariant;
}

impl ser::SerializeMap for Inside {
    type Ok = ();
    type Error = Stop;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Stop> {
        step(key, self.has_text, self.form)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stop> {
        step(value, self.has_text, self.form)
    }

    fn end(self) -> Result<(), Stop> {
        Ok(())
    }
}
