//! A value that may be stored, for code that does not know its type.

use std::any::TypeId;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;

use crate::local::AnyValue;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::{self, Compare, Footprint, Refusal};
use crate::protocol::codec_id::CodecId;
use crate::protocol::schema::Schema;

/// A value that may be stored: what [`Cacheable`] and [`Compare`] say of it.
pub(crate) trait Packable {
    fn type_id(&self) -> TypeId;
    fn schema(&self) -> Schema;
    fn is_verbatim(&self) -> bool;
    fn to_bytes(&self, codec: CodecId) -> Result<(Bytes, Footprint), Refusal>;
    fn measure(&self, codec: CodecId) -> Result<(usize, Footprint), Refusal>;
    /// The value behind a pointer.
    fn share(&self) -> Option<AnyValue>;
    /// Decodes the bytes again, and compares.
    fn verify(&self, codec: CodecId, bytes: &Bytes) -> Result<(), Refusal>;
    /// Checks that a clone is the same value.
    fn verify_clone(&self, codec: CodecId) -> Result<(), Refusal>;
    /// The text of its `Debug`.
    fn text(&self) -> Option<String>;
    /// Whether its type has `PartialEq`.
    fn is_comparable(&self) -> bool;
    fn leaves_out(&self, text: Option<&str>, codec: CodecId) -> bool;
    fn may_lose(&self, text: Option<&str>, codec: CodecId) -> bool;
    fn hides(&self, text: &str, codec: CodecId) -> bool;
    fn shared_state(&self) -> Option<&'static str>;
}

/// A value that is compared by `C`, with what puts it behind a pointer.
pub(crate) struct Packed<'v, V, C> {
    value: &'v V,
    share: &'v dyn Fn() -> Option<Arc<V>>,
    compare: PhantomData<fn() -> C>,
}

impl<'v, V, C> Packed<'v, V, C> {
    pub(crate) fn new(value: &'v V, share: &'v dyn Fn() -> Option<Arc<V>>) -> Self {
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
        V::schema()
    }

    fn is_verbatim(&self) -> bool {
        V::is_verbatim()
    }

    fn to_bytes(&self, codec: CodecId) -> Result<(Bytes, Footprint), Refusal> {
        self.value.to_bytes(codec)
    }

    fn measure(&self, codec: CodecId) -> Result<(usize, Footprint), Refusal> {
        self.value.measure(codec)
    }

    fn share(&self) -> Option<AnyValue> {
        (self.share)().map(|value| value as AnyValue)
    }

    fn verify(&self, codec: CodecId, bytes: &Bytes) -> Result<(), Refusal> {
        codec::verify::<V, C>(codec, self.value, bytes)
    }

    fn verify_clone(&self, codec: CodecId) -> Result<(), Refusal> {
        codec::verify_clone::<V, C>(codec, self.value)
    }

    fn text(&self) -> Option<String> {
        C::text(self.value)
    }

    fn is_comparable(&self) -> bool {
        C::equal(self.value, self.value).is_some()
    }

    fn leaves_out(&self, text: Option<&str>, codec: CodecId) -> bool {
        self.value.leaves_out(text, codec)
    }

    fn may_lose(&self, text: Option<&str>, codec: CodecId) -> bool {
        self.value.may_lose(text, codec)
    }

    fn hides(&self, text: &str, codec: CodecId) -> bool {
        self.value.hides(text, codec)
    }

    fn shared_state(&self) -> Option<&'static str> {
        self.value.shared_state(C::text(self.value).as_deref())
    }
}
