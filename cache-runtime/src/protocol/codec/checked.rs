//! A serializer around a codec's own that refuses values which the codec would lose.
//!
//! It passes everything on and tracks its place in the value. Each refusal follows from the codec's
//! format alone, whatever the type:
//!
//! | | JSON | MessagePack | postcard |
//! |---|---|---|---|
//! | infinity, NaN | written as `null` | kept | kept |
//! | `Some(None)`, `Some(())` | written as `null`, read as `None` | as `nil`, read as `None` | kept |
//! | a field left out by `skip_serializing_if` | read by name | read by name | the next field is read in its place |
//!
//! Losses that depend on the type (untagged enums, `with`, `skip`) are found by decoding: see
//! [`verify`](super::verify).

use std::fmt::Display;

use serde::Serialize;
use serde::ser::{self, Serializer};

use super::check::Check;
use super::kind;
use super::path::{Step, ValuePath, hash_of, mix};
use crate::key::ElementOrder;
use crate::protocol::codec_id::CodecId;

impl Check {
    /// `value`, wrapped so that this check sees its serialization.
    pub(super) fn whole<'e, T: ?Sized>(&'e self, value: &'e T) -> Part<'e, T> {
        Part {
            value,
            path: ValuePath::ROOT,
            check: self,
        }
    }
}

/// A part of a value, with its place.
pub(super) struct Part<'e, T: ?Sized> {
    value: &'e T,
    path: ValuePath<'e>,
    check: &'e Check,
}

impl<T: Serialize + ?Sized> Serialize for Part<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.check.nested(&self.path)?;
        let checked = Checked {
            inner: serializer,
            path: self.path.inside(),
            check: self.check,
        };
        let result = self.value.serialize(checked);
        result.inspect_err(|_| self.check.failed_at(&self.path))
    }
}

struct Checked<'e, S> {
    inner: S,
    path: ValuePath<'e>,
    check: &'e Check,
}

impl<'e, S> Checked<'e, S> {
    fn compound<C>(&self, inner: C) -> Compound<'e, C> {
        Compound {
            inner,
            path: self.path,
            check: self.check,
            at: 0,
            is_ordered: false,
            key: 0,
        }
    }

    /// The parts of a variant.
    fn compound_variant(&self, variant: &'static str) -> Compound<'e, ()> {
        Compound {
            path: self.path.in_variant(variant),
            ..self.compound(())
        }
    }

    fn part<'p, T: ?Sized>(&self, value: &'p T, path: ValuePath<'p>) -> Part<'p, T>
    where
        'e: 'p,
    {
        Part {
            value,
            path,
            check: self.check,
        }
    }

    /// Notes how many parts a tuple struct has. One that leaves out a part has fewer, and the others
    /// are read in its place.
    fn parts(&self, path: &ValuePath<'_>, len: usize) {
        if !crate::base::mutation::is_active("short-tuples-unseen") {
            self.check.note(path, mix(kind::PARTS, len as u64));
        }
    }

    fn length(&self, kind: u64, len: Option<usize>) {
        let kind = kind + u64::from(len == Some(0));
        self.check.leaf(&self.path, kind, &len.unwrap_or_default());
    }
}

macro_rules! integers {
    ($($method:ident: $ty:ty, $at:expr;)*) => {$(
        fn $method(self, v: $ty) -> Result<S::Ok, S::Error> {
            self.check.leaf(&self.path, kind::INTEGER + $at, &v);
            self.inner.$method(v)
        }
    )*};
}

impl<'e, S: Serializer> Serializer for Checked<'e, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Compound<'e, S::SerializeSeq>;
    type SerializeTuple = Compound<'e, S::SerializeTuple>;
    type SerializeTupleStruct = Compound<'e, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Compound<'e, S::SerializeTupleVariant>;
    type SerializeMap = Compound<'e, S::SerializeMap>;
    type SerializeStruct = Compound<'e, S::SerializeStruct>;
    type SerializeStructVariant = Compound<'e, S::SerializeStructVariant>;

    integers! {
        serialize_i8: i8, 0;
        serialize_i16: i16, 1;
        serialize_i32: i32, 2;
        serialize_i64: i64, 3;
        serialize_i128: i128, 4;
        serialize_u8: u8, 5;
        serialize_u16: u16, 6;
        serialize_u32: u32, 7;
        serialize_u64: u64, 8;
        serialize_u128: u128, 9;
    }

    fn serialize_bool(self, v: bool) -> Result<S::Ok, S::Error> {
        self.check.leaf(&self.path, kind::BOOL, &v);
        self.inner.serialize_bool(v)
    }

    fn serialize_f32(self, v: f32) -> Result<S::Ok, S::Error> {
        self.check.leaf(&self.path, kind::F32, &v.to_bits());
        self.check.float(&self.path, v.is_finite())?;
        self.inner.serialize_f32(v)
    }

    fn serialize_f64(self, v: f64) -> Result<S::Ok, S::Error> {
        self.check.leaf(&self.path, kind::F64, &v.to_bits());
        self.check.float(&self.path, v.is_finite())?;
        self.inner.serialize_f64(v)
    }

    fn serialize_char(self, v: char) -> Result<S::Ok, S::Error> {
        self.check.leaf(&self.path, kind::CHAR, &v);
        self.inner.serialize_char(v)
    }

    fn serialize_str(self, v: &str) -> Result<S::Ok, S::Error> {
        self.check.leaf(&self.path, kind::TEXT, v);
        if v == "null" && self.path.is_raw_in_some() {
            self.check.null(&self.path.around())?;
        }
        self.inner.serialize_str(v)
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<S::Ok, S::Error> {
        self.check.leaf(&self.path, kind::BYTES, &hash_of(&v));
        self.inner.serialize_bytes(v)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        if self.check.needs_scalars() {
            return self.serialize_str(&value.to_string());
        }
        self.check.note(&self.path, kind::TEXT);
        self.inner.collect_str(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.check.leaf(&self.path, kind::NONE, "None");
        self.check.null(&self.path)?;
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.check.leaf(&self.path, kind::SOME, "Some");
        // A `Some` directly inside a `Some` still counts as inside the outer one.
        let part = self.part(value, self.path.in_some());
        self.inner.serialize_some(&part)
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.check.leaf(&self.path, kind::UNIT, "()");
        self.check.null(&self.path)?;
        self.inner.serialize_unit()
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        self.check.leaf(&self.path, kind::UNIT, name);
        // MessagePack writes a unit struct as an empty list, so it is not lost.
        if self.check.codec == CodecId::Json {
            self.check.null(&self.path)?;
        }
        self.inner.serialize_unit_struct(name)
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        let kind = mix(kind::VARIANT, index.into());
        self.check.leaf(&self.path, kind, variant);
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        // All codecs write the inner value alone.
        let part = self.part(value, self.path);
        self.inner.serialize_newtype_struct(name, &part)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let kind = mix(kind::VARIANT, index.into());
        self.check.leaf(&self.path, kind, variant);
        let path = self.path.step(Step::Variant(variant));
        let part = self.part(value, path);
        let inner = self.inner;
        inner.serialize_newtype_variant(name, index, variant, &part)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.length(kind::LIST, len);
        let compound = self.compound(());
        Ok(compound.around(self.inner.serialize_seq(len)?))
    }

    fn collect_seq<I>(self, elements: I) -> Result<S::Ok, S::Error>
    where
        I: IntoIterator<Item: Serialize>,
    {
        let elements = elements.into_iter();
        let mut list = self.serialize_seq(length_of(&elements))?;
        list.is_ordered = is_ordered::<I>();
        for element in elements {
            ser::SerializeSeq::serialize_element(&mut list, &element)?;
        }
        ser::SerializeSeq::end(list)
    }

    fn collect_map<K, V, I>(self, entries: I) -> Result<S::Ok, S::Error>
    where
        K: Serialize,
        V: Serialize,
        I: IntoIterator<Item = (K, V)>,
    {
        let entries = entries.into_iter();
        let mut map = self.serialize_map(length_of(&entries))?;
        map.is_ordered = is_ordered::<I>();
        for (key, value) in entries {
            ser::SerializeMap::serialize_entry(&mut map, &key, &value)?;
        }
        ser::SerializeMap::end(map)
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        let compound = self.compound(()).ordered();
        Ok(compound.around(self.inner.serialize_tuple(len)?))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.parts(&self.path, len);
        let compound = self.compound(()).ordered();
        Ok(compound.around(self.inner.serialize_tuple_struct(name, len)?))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let kind = mix(kind::VARIANT, index.into());
        self.check.leaf(&self.path, kind, variant);
        let compound = self.compound_variant(variant).ordered();
        self.parts(&compound.path, len);
        let inner = self.inner;
        Ok(compound.around(inner.serialize_tuple_variant(name, index, variant, len)?))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.length(kind::MAP, len);
        let compound = self.compound(());
        Ok(compound.around(self.inner.serialize_map(len)?))
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        let compound = self.compound(());
        Ok(compound.around(self.inner.serialize_struct(name, len)?))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let kind = mix(kind::VARIANT, index.into());
        self.check.leaf(&self.path, kind, variant);
        let compound = self.compound_variant(variant);
        let inner = self.inner;
        Ok(compound.around(inner.serialize_struct_variant(name, index, variant, len)?))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A value of several parts, while they are written.
struct Compound<'e, C> {
    inner: C,
    path: ValuePath<'e>,
    check: &'e Check,
    /// How many parts have been written.
    at: usize,
    /// Whether their order counts.
    is_ordered: bool,
    /// A hash of the key whose value comes next, if a digest is made.
    key: u64,
}

/// Whether the order of a collection counts when two values are compared. That of an unknown type
/// may be arbitrary.
fn is_ordered<I>() -> bool {
    let name = std::any::type_name::<I>();
    let name = name.trim_start_matches('&');
    let is_list = name.starts_with('[')
        || [
            "alloc::vec::Vec<",
            "alloc::collections::",
            "core::slice::",
            "indexmap::",
        ]
        .iter()
        .any(|path| name.starts_with(path));
    is_list && ElementOrder::of::<I>() != ElementOrder::None
}

fn length_of(elements: &impl Iterator) -> Option<usize> {
    let (least, most) = elements.size_hint();
    most.filter(|most| *most == least)
}

impl<'e, C> Compound<'e, C> {
    fn around<D>(self, inner: D) -> Compound<'e, D> {
        Compound {
            inner,
            path: self.path,
            check: self.check,
            at: 0,
            is_ordered: self.is_ordered,
            key: 0,
        }
    }

    fn ordered(self) -> Self {
        Self {
            is_ordered: true,
            ..self
        }
    }

    /// The difference between this part and its neighbours.
    fn exactly(&self) -> u64 {
        let counts = self.is_ordered && self.check.is_ordered;
        mix(self.key, if counts { self.at as u64 } else { 0 })
    }

    /// Notes the key that is written meanwhile.
    fn note_key<E>(
        &mut self,
        write: impl FnOnce(&mut C, ValuePath<'_>, &Check) -> Result<(), E>,
    ) -> Result<(), E> {
        let (outer, before) = (self.path, self.check.digest());
        write(&mut self.inner, outer.step(Step::Key), self.check)?;
        self.key = self.check.digest().wrapping_sub(before);
        Ok(())
    }

    /// Writes the next part of a value whose parts have no names.
    fn next<E>(
        &mut self,
        step: fn(usize) -> Step<'static>,
        write: impl FnOnce(&mut C, ValuePath<'_>, &Check) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.path;
        let path = path.step(step(self.at)).at(self.exactly());
        self.at += 1;
        write(&mut self.inner, path, self.check)
    }

    /// Notes a field that this value leaves out, though others of its type have it.
    fn skip<E: ser::Error>(&self, field: &'static str) -> Result<(), E> {
        let path = self.path.step(Step::Field(field));
        self.check.note(&path, kind::NONE);
        self.check.skipped(&path)
    }
}

macro_rules! elements {
    ($($trait:ident $method:ident $step:ident;)*) => {$(
        impl<C: ser::$trait> ser::$trait for Compound<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.next(Step::$step, |inner, path, check| {
                    inner.$method(&Part { value, path, check })
                })
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}

elements! {
    SerializeSeq serialize_element Index;
    SerializeTuple serialize_element Part;
    SerializeTupleStruct serialize_field Part;
    SerializeTupleVariant serialize_field Part;
}

macro_rules! fields {
    ($($trait:ident)*) => {$(
        impl<C: ser::$trait> ser::$trait for Compound<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), C::Error> {
                let path = self.path;
                let path = path.step(Step::Field(key));
                let check = self.check;
                self.inner.serialize_field(key, &Part { value, path, check })
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
                self.skip(key)?;
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}

fields! { SerializeStruct SerializeStructVariant }

impl<C: ser::SerializeMap> ser::SerializeMap for Compound<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.note_key(|inner, path, check| inner.serialize_key(&Part { value, path, check }))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let (at, exactly) = (self.at, self.exactly());
        self.at += 1;
        let (outer, check) = (self.path, self.check);
        let key = || at.to_string();
        let path = outer.step(Step::Entry(&key)).at(exactly);
        self.inner.serialize_value(&Part { value, path, check })
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), C::Error> {
        if self.check.makes_digest() {
            // The value's place depends on its key, so the key comes first.
            self.serialize_key(key)?;
            return self.serialize_value(value);
        }
        self.at += 1;
        let (outer, check) = (self.path, self.check);
        let text = || serde_json::to_string(key).unwrap_or_else(|_| "..".to_owned());
        let key = Part {
            value: key,
            path: outer.step(Step::Key),
            check,
        };
        let path = outer.step(Step::Entry(&text));
        self.inner
            .serialize_entry(&key, &Part { value, path, check })
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.inner.end()
    }
}
