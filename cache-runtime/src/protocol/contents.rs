//! What is stored of a value.

use std::fmt;

use bytes::Bytes;

use crate::base::nonce::hash128;
use crate::key::{self, Node, WrittenFor};
use crate::protocol::codec::{self, Footprint, Refusal, Writable};
use crate::protocol::codec_id::CodecId;

/// What is stored of a value, for code that does not know the value's type.
#[derive(Clone, Copy)]
pub struct Contents<'v>(Form<'v>);

#[derive(Clone, Copy)]
enum Form<'v> {
    /// What serde writes of the value.
    Serialized(&'v dyn Writable),
    /// JSON that the value holds, and that a hit hands out as it is.
    Json(&'v Bytes),
}

impl fmt::Debug for Contents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

impl<'v> Contents<'v> {
    /// Those of a value that serde writes.
    pub(crate) fn of(value: &'v dyn Writable) -> Self {
        Self(Form::Serialized(value))
    }

    /// Those of a value that is JSON already.
    pub(crate) fn of_json(json: &'v Bytes) -> Self {
        Self(Form::Json(json))
    }

    /// Whether a hit hands out the stored bytes, so that nothing can be lost.
    pub(crate) fn is_verbatim(self) -> bool {
        matches!(self.0, Form::Json(_))
    }

    /// The encoded value, and which parts of its type it has used.
    pub(crate) fn to_bytes(self, codec: CodecId) -> Result<(Bytes, Footprint), Refusal> {
        match self.0 {
            Form::Serialized(value) => {
                let (bytes, footprint) = codec::encode(codec, value)?;
                Ok((bytes.into(), footprint))
            }
            Form::Json(json) => {
                is_json(codec)?;
                Ok((json.clone(), Footprint::default()))
            }
        }
    }

    /// Like [`to_bytes`](Self::to_bytes), with the length in place of the bytes.
    pub(crate) fn measure(self, codec: CodecId) -> Result<(usize, Footprint), Refusal> {
        match self.0 {
            Form::Serialized(value) => codec::measure(codec, value),
            Form::Json(json) => {
                is_json(codec)?;
                Ok((json.len(), Footprint::default()))
            }
        }
    }

    /// A hash of the value, independent of the order of its maps, sets and lists.
    pub(crate) fn digest(self, codec: CodecId) -> Option<u64> {
        self.hashed(codec, false)
    }

    /// The same, in which the order of lists counts.
    pub(crate) fn ordered_digest(self, codec: CodecId) -> Option<u64> {
        self.hashed(codec, true)
    }

    fn hashed(self, codec: CodecId, is_ordered: bool) -> Option<u64> {
        match self.0 {
            Form::Serialized(value) => codec::digest(codec, value, is_ordered),
            Form::Json(json) => Some(hash128(&[0; 16], json) as u64),
        }
    }

    /// The path at which the value differs from another one.
    pub(crate) fn difference(self, codec: CodecId, other: Self) -> Option<String> {
        match (self.0, other.0) {
            (Form::Serialized(one), Form::Serialized(other)) => {
                codec::difference(codec, one, other)
            }
            _ => None,
        }
    }

    /// Whether a field is not serialised, as far as the size of a type or its `Debug` shows it.
    pub(crate) fn leaves_out(self, text: Option<&str>, codec: CodecId) -> bool {
        self.recorded(codec.written_for())
            .is_some_and(|node| key::leaves_out(&node, text))
    }

    /// Whether another value of the type may lose a part where this one does not.
    pub(crate) fn may_lose(self, text: Option<&str>, codec: CodecId) -> bool {
        self.recorded(codec.written_for())
            .is_some_and(|node| key::may_lose(&node, text))
    }

    /// Whether `Debug`, which writes this text, shows a field that is not serialised, and hides
    /// what is in it.
    pub(crate) fn hides(self, text: &str, codec: CodecId) -> bool {
        self.recorded(codec.written_for())
            .is_some_and(|node| key::hides(&node, text))
    }

    /// The type of a lock or an atomic in the value that its clones share, if there is one.
    pub(crate) fn shared_state(self, text: Option<&str>) -> Option<&'static str> {
        key::shared_state(&self.recorded(WrittenFor::Programs)?, text)
    }

    /// A hash of the value's `Debug` text, in which only an order that counts does.
    pub(crate) fn hash_of_shown(self, text: &str) -> u64 {
        match self.recorded(WrittenFor::Programs) {
            Some(node) => key::hash_of_shown(&node, text),
            None => key::text_hash(text),
        }
    }

    fn recorded(self, form: WrittenFor) -> Option<Node> {
        match self.0 {
            Form::Serialized(value) => value.record(form),
            Form::Json(_) => None,
        }
    }
}

fn is_json(codec: CodecId) -> Result<(), Refusal> {
    match codec {
        CodecId::Json => Ok(()),
        _ => Err(Refusal::new(
            String::new(),
            "is an `Encoded`, which is JSON",
            "leave out the attribute's `codec`",
        )),
    }
}
