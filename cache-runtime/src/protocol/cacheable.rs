//! Values that can be cached.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::codec::{self, Footprint, Refusal};
use crate::protocol::codec_id::CodecId;
use crate::protocol::contents::Contents;
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
    /// What is stored of the value.
    #[doc(hidden)]
    fn contents(&self) -> Contents<'_>;
    /// The encoded value, and which parts of its type it has used.
    #[doc(hidden)]
    fn to_bytes(&self, codec: CodecId) -> Result<(Bytes, Footprint), Refusal> {
        self.contents().to_bytes(codec)
    }
    #[doc(hidden)]
    fn from_bytes(codec: CodecId, bytes: &Bytes) -> Option<Self>;
    /// Why bytes that were just encoded don't decode.
    #[doc(hidden)]
    fn undecodable(codec: CodecId, bytes: &Bytes) -> Refusal;
    /// The shape that the type's `Deserialize` asks for, and whether it was known already.
    #[doc(hidden)]
    fn find_schema() -> (Schema, bool);
    /// Whether the value is an error, which is never stored.
    #[doc(hidden)]
    fn is_error(&self) -> bool {
        false
    }
}

// The message of `Cacheable` is better than one that names a single missing bound.
#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Cacheable for T {
    fn contents(&self) -> Contents<'_> {
        Contents::of(self)
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

    fn is_error(&self) -> bool {
        error_value::is_error(self)
    }
}
