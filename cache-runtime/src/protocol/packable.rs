//! A value that may be stored, for code that does not know its type.

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::{Compare, Refusal};
use crate::protocol::codec_id::CodecId;
use crate::protocol::contents::Contents;
use crate::protocol::schema::Schema;

/// A value that may be stored: what [`Cacheable`] and [`Compare`] say of it. What packs, verifies
/// and compares values is compiled once, not for each of their types.
pub(crate) trait Packable {
    fn type_id(&self) -> TypeId;
    /// The shape that the type's `Deserialize` asks for.
    fn schema(&self) -> Schema;
    fn value(&self) -> &dyn Any;
    fn contents(&self) -> Contents<'_>;
    /// The value behind a pointer.
    fn share(&self) -> Option<Arc<dyn Any + Send + Sync>>;
    /// The value of the same type that these bytes are.
    fn decoded(&self, codec: CodecId, bytes: &Bytes) -> Option<Box<dyn Packable>>;
    /// Why bytes that were just encoded don't decode.
    fn undecodable(&self, codec: CodecId, bytes: &Bytes) -> Refusal;
    fn cloned(&self) -> Box<dyn Packable>;
    /// Whether both are equal; `None` if the type has no `PartialEq`, or they are of two types.
    fn equal(&self, other: &dyn Packable) -> Option<bool>;
    /// The text of the value's `Debug`.
    fn text(&self) -> Option<String>;
    /// The same, one field per line.
    fn lines(&self) -> Option<String>;
    /// Another value, if it is of the same type.
    fn of_same_type<'o>(
        &self,
        other: &'o (dyn Any + Send + Sync),
    ) -> Option<Box<dyn Packable + 'o>>;
}

/// A value that is compared by `C`, with what puts it behind a pointer.
pub(crate) struct Packed<'v, V: Clone, C> {
    value: Cow<'v, V>,
    share: &'v dyn Fn() -> Option<Arc<V>>,
    compare: PhantomData<fn() -> C>,
}

impl<'v, V: Clone, C> Packed<'v, V, C> {
    pub(crate) fn new(value: &'v V, share: &'v dyn Fn() -> Option<Arc<V>>) -> Self {
        Self::of(Cow::Borrowed(value), share)
    }

    /// A value that is only looked at.
    pub(crate) fn unshared(value: &'v V) -> Self {
        Self::of(Cow::Borrowed(value), &|| None)
    }

    fn of(value: Cow<'v, V>, share: &'v dyn Fn() -> Option<Arc<V>>) -> Self {
        Self {
            value,
            share,
            compare: PhantomData,
        }
    }
}

impl<V: Cacheable, C: Compare<V>> Packable for Packed<'_, V, C> {
    fn type_id(&self) -> TypeId {
        TypeId::of::<V>()
    }

    fn schema(&self) -> Schema {
        V::find_schema().0
    }

    fn value(&self) -> &dyn Any {
        &*self.value
    }

    fn contents(&self) -> Contents<'_> {
        self.value.contents()
    }

    fn share(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        (self.share)().map(|value| value as _)
    }

    fn decoded(&self, codec: CodecId, bytes: &Bytes) -> Option<Box<dyn Packable>> {
        let value = V::from_bytes(codec, bytes)?;
        Some(Box::new(Packed::<V, C>::of(Cow::Owned(value), &|| None)))
    }

    fn undecodable(&self, codec: CodecId, bytes: &Bytes) -> Refusal {
        V::undecodable(codec, bytes)
    }

    fn cloned(&self) -> Box<dyn Packable> {
        let clone = V::clone(&self.value);
        Box::new(Packed::<V, C>::of(Cow::Owned(clone), &|| None))
    }

    fn equal(&self, other: &dyn Packable) -> Option<bool> {
        C::equal(&self.value, other.value().downcast_ref()?)
    }

    fn text(&self) -> Option<String> {
        C::text(&self.value)
    }

    fn lines(&self) -> Option<String> {
        C::lines(&self.value)
    }

    fn of_same_type<'o>(
        &self,
        other: &'o (dyn Any + Send + Sync),
    ) -> Option<Box<dyn Packable + 'o>> {
        let value = other.downcast_ref::<V>()?;
        Some(Box::new(Packed::<V, C>::unshared(value)))
    }
}
