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

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::hash::Hash;

use serde::Serialize;
use serde::ser::{self, Serializer};

use super::footprint::Footprint;
use super::path::{Step, ValuePath, hash_of, mix};
use super::refusal::{Refusal, name};
use crate::key::ElementOrder;
use crate::protocol::codec_id::CodecId;

const FLOAT_REMEDY: &str = "use an `Option` or an enum for such numbers, or `codec = \"msgpack\"`";
const SOME_REMEDY: &str =
    "use an enum instead of the inner `Option` or unit, or `codec = \"postcard\"`";
const FIELD_REMEDY: &str = "remove `skip_serializing_if`, or leave `codec` out";

/// The record of one serialization.
pub(super) struct Check {
    codec: CodecId,
    footprint: RefCell<Footprint>,
    /// Why it failed, if the check refused the value.
    refusal: RefCell<Option<Refusal>>,
    failed: RefCell<Option<String>>,
    /// A hash of all scalars with their places.
    digest: Option<Cell<u64>>,
    /// Whether order counts in it where it may be a part of the value: in lists, tuples and ordered
    /// maps.
    is_ordered: bool,
    /// The scalars themselves, with their paths.
    leaves: Option<RefCell<Vec<(String, String)>>>,
}

impl Check {
    pub(super) fn new(codec: CodecId) -> Self {
        Self {
            codec,
            footprint: RefCell::default(),
            refusal: RefCell::default(),
            failed: RefCell::default(),
            digest: None,
            is_ordered: false,
            leaves: None,
        }
    }

    pub(super) fn with_digest(codec: CodecId, is_ordered: bool) -> Self {
        Self {
            digest: Some(Cell::new(0)),
            is_ordered,
            ..Self::new(codec)
        }
    }

    pub(super) fn with_leaves(codec: CodecId) -> Self {
        Self {
            leaves: Some(RefCell::default()),
            ..Self::new(codec)
        }
    }

    /// `value`, wrapped so that this check sees its serialization.
    pub(super) fn whole<'e, T: ?Sized>(&'e self, value: &'e T) -> Part<'e, T> {
        Part {
            value,
            path: ValuePath::ROOT,
            check: self,
        }
    }

    pub(super) fn footprint(&self) -> Footprint {
        *self.footprint.borrow()
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest.as_ref().map_or(0, Cell::get)
    }

    pub(super) fn into_leaves(self) -> Vec<(String, String)> {
        self.leaves.map(RefCell::into_inner).unwrap_or_default()
    }

    /// Why a serialization failed that ended with `error`.
    pub(super) fn into_refusal(self, error: impl Display) -> Refusal {
        let path = self.failed.into_inner().unwrap_or_default();
        self.refusal.into_inner().unwrap_or_else(|| {
            Refusal::new(
                path,
                format!("has no {} form: {error}", name(self.codec)),
                "store a type that has one, or use another `codec`",
            )
        })
    }

    fn note(&self, path: &ValuePath<'_>, kind: u64) {
        let mut footprint = self.footprint.borrow_mut();
        footprint.note(path.hash, kind);
        footprint.depth = footprint.depth.max(path.depth);
    }

    fn leaf<L: Hash + ToString + ?Sized>(&self, path: &ValuePath<'_>, kind: u64, value: &L) {
        self.note(path, kind);
        if let Some(digest) = &self.digest {
            let leaf = mix(path.exact, hash_of(&(kind, value)));
            digest.set(digest.get().wrapping_add(leaf));
        }
        if let Some(leaves) = &self.leaves {
            let leaf = (path.path(), format!("{kind} {}", value.to_string()));
            leaves.borrow_mut().push(leaf);
        }
    }

    fn refuse<E: ser::Error>(
        &self,
        path: &ValuePath<'_>,
        reason: String,
        remedy: &'static str,
    ) -> E {
        let mut refusal = self.refusal.borrow_mut();
        refusal.get_or_insert_with(|| Refusal::new(path.path(), reason, remedy));
        E::custom("refused")
    }

    fn float<E: ser::Error>(&self, path: &ValuePath<'_>, is_finite: bool) -> Result<(), E> {
        if self.codec != CodecId::Json
            || is_finite
            || crate::base::mutation::is_active("encoder-loses")
        {
            return Ok(());
        }
        let reason = "is infinite or NaN, which JSON can't represent".to_owned();
        Err(self.refuse(path, reason, FLOAT_REMEDY))
    }

    fn null<E: ser::Error>(&self, path: &ValuePath<'_>) -> Result<(), E> {
        let is_lost = path.is_in_some && self.codec != CodecId::Postcard;
        if !is_lost || crate::base::mutation::is_active("encoder-loses") {
            return Ok(());
        }
        let reason = format!(
            "is `Some` of a value that {} would read back as `None`",
            name(self.codec)
        );
        Err(self.refuse(path, reason, SOME_REMEDY))
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
        let checked = Checked {
            inner: serializer,
            path: self.path,
            check: self.check,
        };
        self.value.serialize(checked).inspect_err(|_| {
            let mut failed = self.check.failed.borrow_mut();
            failed.get_or_insert_with(|| self.path.path());
        })
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

    fn length(&self, kind: u64, len: Option<usize>) {
        let kind = kind + u64::from(len == Some(0));
        self.check.leaf(&self.path, kind, &len.unwrap_or_default());
    }
}

/// The kinds of a leaf, for the footprint.
mod kind {
    pub(super) const UNIT: u64 = 1;
    pub(super) const NONE: u64 = 2;
    pub(super) const SOME: u64 = 3;
    pub(super) const BOOL: u64 = 4;
    pub(super) const CHAR: u64 = 5;
    pub(super) const TEXT: u64 = 6;
    pub(super) const BYTES: u64 = 7;
    pub(super) const VARIANT: u64 = 8;
    pub(super) const LIST: u64 = 10;
    pub(super) const MAP: u64 = 12;
    pub(super) const INTEGER: u64 = 20;
    pub(super) const F32: u64 = 40;
    pub(super) const F64: u64 = 41;
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
        self.inner.serialize_str(v)
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<S::Ok, S::Error> {
        self.check.leaf(&self.path, kind::BYTES, &hash_of(&v));
        self.inner.serialize_bytes(v)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        if self.check.digest.is_some() || self.check.leaves.is_some() {
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
        let compound = self.compound(()).ordered();
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
        let compound = self.compound(());
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

    /// What tells this part from its neighbours.
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
        write: impl FnOnce(&mut C, ValuePath<'_>, &Check) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.path;
        let path = path.step(Step::Index(self.at)).at(self.exactly());
        self.at += 1;
        write(&mut self.inner, path, self.check)
    }

    /// Notes a field that this value leaves out, though others of its type have it.
    fn skip<E: ser::Error>(&self, field: &'static str) -> Result<(), E> {
        let path = self.path.step(Step::Field(field));
        self.check.note(&path, kind::NONE);
        if self.check.codec != CodecId::Postcard
            || crate::base::mutation::is_active("encoder-loses")
        {
            return Ok(());
        }
        let reason = "is left out, and postcard would read the next field in its place".to_owned();
        Err(self.check.refuse(&path, reason, FIELD_REMEDY))
    }
}

macro_rules! elements {
    ($($trait:ident $method:ident;)*) => {$(
        impl<C: ser::$trait> ser::$trait for Compound<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.next(|inner, path, check| inner.$method(&Part { value, path, check }))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}

elements! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
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
        if self.check.digest.is_some() {
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
