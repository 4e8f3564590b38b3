//! Values that can be cached.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::key;
use crate::protocol::codec::{self, Footprint, Refusal};
use crate::protocol::codec_id::CodecId;
use crate::protocol::error_value;
use crate::protocol::schema::{self, Schema};

/// A value that can be cached.
///
/// Implemented for every type that is
/// `Serialize + DeserializeOwned + Clone + Send + Sync + 'static`, and for
/// [`Encoded<T>`](crate::Encoded) where `T` is `DeserializeOwned`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    label = "this is what the function would store",
    note = "a cached value is `Clone + Send + Sync + 'static` and implements serde's `Serialize` and `Deserialize` without borrowing",
    note = "add `#[derive(Clone, serde::Serialize, serde::Deserialize)]` to it or to what it holds, or return an owned type"
)]
pub trait Cacheable: Clone + Send + Sync + 'static {
    /// The encoded value, and which parts of its type it has used.
    #[doc(hidden)]
    fn to_bytes(&self, codec: CodecId) -> Result<(Bytes, Footprint), Refusal>;
    /// Like [`to_bytes`](Self::to_bytes), with the length in place of the bytes.
    #[doc(hidden)]
    fn measure(&self, codec: CodecId) -> Result<(usize, Footprint), Refusal>;
    #[doc(hidden)]
    fn from_bytes(codec: CodecId, bytes: &Bytes) -> Option<Self>;
    /// Why bytes that were just encoded don't decode.
    #[doc(hidden)]
    fn undecodable(codec: CodecId, bytes: &Bytes) -> Refusal;
    /// Whether a hit hands out the stored bytes, so that nothing can be lost.
    #[doc(hidden)]
    fn is_verbatim() -> bool {
        false
    }
    /// The shape that the type's `Deserialize` asks for.
    #[doc(hidden)]
    fn schema() -> Schema {
        Self::find_schema().0
    }
    /// The same, and whether it was known already.
    #[doc(hidden)]
    fn find_schema() -> (Schema, bool);
    /// Whether a field is not serialised, as far as the size of a type or its `Debug` shows it.
    #[doc(hidden)]
    fn leaves_out(&self, _text: Option<&str>, _codec: CodecId) -> bool {
        false
    }
    /// Whether another value of the type may lose a part where this one does not.
    #[doc(hidden)]
    fn may_lose(&self, _text: Option<&str>, _codec: CodecId) -> bool {
        false
    }
    /// Whether `Debug`, which writes this text, shows a field that is not serialised, and hides
    /// what is in it.
    #[doc(hidden)]
    fn hides(&self, _text: &str, _codec: CodecId) -> bool {
        false
    }
    /// Whether the value is an error, which is never stored.
    #[doc(hidden)]
    fn is_error(&self) -> bool {
        false
    }
    /// The type of a lock or an atomic in the value that its clones share, if there is one.
    #[doc(hidden)]
    fn shared_state(&self, _text: Option<&str>) -> Option<&'static str> {
        None
    }
    /// A hash of the value's `Debug` text, in which only an order that counts does.
    #[doc(hidden)]
    fn hash_of_shown(&self, text: &str) -> u64 {
        key::text_hash(text)
    }
    /// A hash of the value's contents.
    #[doc(hidden)]
    fn digest(&self, codec: CodecId) -> Option<u64>;
    /// The same, in which the order of lists counts.
    #[doc(hidden)]
    fn ordered_digest(&self, codec: CodecId) -> Option<u64> {
        self.digest(codec)
    }
    /// The path at which the value differs from another one.
    #[doc(hidden)]
    fn difference(&self, codec: CodecId, other: &Self) -> Option<String>;
}

// The message of `Cacheable` is better than one that names a single missing bound.
#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Cacheable for T {
    fn to_bytes(&self, codec: CodecId) -> Result<(Bytes, Footprint), Refusal> {
        let (bytes, footprint) = codec::encode(codec, self)?;
        Ok((bytes.into(), footprint))
    }

    fn leaves_out(&self, text: Option<&str>, codec: CodecId) -> bool {
        key::leaves_out(self, text, codec.written_for())
    }

    fn may_lose(&self, text: Option<&str>, codec: CodecId) -> bool {
        key::may_lose(self, text, codec.written_for())
    }

    fn hides(&self, text: &str, codec: CodecId) -> bool {
        key::hides(self, text, codec.written_for())
    }

    fn is_error(&self) -> bool {
        error_value::is_error(self)
    }

    fn shared_state(&self, text: Option<&str>) -> Option<&'static str> {
        key::shared_state(self, text)
    }

    fn hash_of_shown(&self, text: &str) -> u64 {
        key::hash_of_shown(self, text)
    }

    fn measure(&self, codec: CodecId) -> Result<(usize, Footprint), Refusal> {
        codec::measure(codec, self)
    }

    fn from_bytes(codec: CodecId, bytes: &Bytes) -> Option<Self> {
        codec::decode(codec, bytes)
    }

    fn undecodable(codec: CodecId, bytes: &Bytes) -> Refusal {
        codec::undecodable::<T>(codec, bytes)
    }

    fn find_schema() -> (Schema, bool) {
        schema::find::<T>()
    }

    fn digest(&self, codec: CodecId) -> Option<u64> {
        codec::digest(codec, self, false)
    }

    fn ordered_digest(&self, codec: CodecId) -> Option<u64> {
        codec::digest(codec, self, true)
    }

    fn difference(&self, codec: CodecId, other: &Self) -> Option<String> {
        codec::difference(codec, self, other)
    }
}
