//! Payloads: values to bytes and back.
//!
//! JSON is always built in, since people read entries with `redis-cli`. An entry's header names its
//! codec, so instances with different codecs read each other's entries. Where a codec is not built
//! in, its entries are misses.
//!
//! [`checked`] watches each encoding and refuses values that the codec would lose. Where [`verify`]
//! asks for it, the bytes are decoded again at once.

mod check;
mod checked;
mod compare;
mod compressed;
mod footprint;
mod kind;
mod path;
mod refusal;
mod undecodable;
mod verify;

use std::fmt::{self, Display};
use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::check::Check;
pub(crate) use self::compare::{AsEncoded, AsEqual, AsShown, AsText, Compare};
pub(crate) use self::compressed::{compress, decompress, length};
pub(crate) use self::footprint::Footprint;
pub(crate) use self::refusal::Refusal;
pub(crate) use self::undecodable::undecodable;
pub(crate) use self::verify::{Trust, verify, verify_clone};
use crate::base::error::{Error, ErrorKind};
use crate::key::{self, Node, WrittenFor};
use crate::protocol::codec_id::CodecId;

/// The longest encoded value that is read: no process stores more.
#[cfg(feature = "zstd")]
const MOST_BYTES: usize = crate::base::policy::MOST_VALUE_BYTES;

/// Takes the place of a codec whose feature is off.
#[derive(Debug)]
pub struct NotBuiltIn;

/// A codec that this build has.
#[diagnostic::on_unimplemented(
    message = "this codec is not built in",
    label = "cache-runtime's feature of this name is off",
    note = "turn it on where you depend on cache-runtime: `features = [\"msgpack\"]`, `features = [\"postcard\"]` or `features = [\"zstd\"]`"
)]
pub trait BuiltIn {
    /// The codec.
    fn id(self) -> CodecId;
}

#[diagnostic::do_not_recommend]
impl BuiltIn for CodecId {
    fn id(self) -> CodecId {
        self
    }
}

/// What serde writes of a value, for code that does not know the value's type. That code is
/// compiled once: for each type of its values, a program would otherwise get a copy.
pub(crate) trait Writable {
    /// Writes the value, as its codec does, and has it checked.
    fn write(&self, check: &Check, into: &mut Written) -> Result<(), WriteError>;
    /// The value's parts, with their types and sizes. `None` if it can't be serialised.
    fn record(&self, form: WrittenFor) -> Option<Node>;
}

impl<V: Serialize> Writable for V {
    fn write(&self, check: &Check, into: &mut Written) -> Result<(), WriteError> {
        write(check.codec, &check.whole(self), into)
    }

    fn record(&self, form: WrittenFor) -> Option<Node> {
        key::record(self, form)
    }
}

/// Encodes a value, and returns which parts of its type it has used.
pub(crate) fn encode(
    codec: CodecId,
    value: &dyn Writable,
) -> Result<(Vec<u8>, Footprint), Refusal> {
    let mut written = Written {
        bytes: Some(Vec::new()),
        len: 0,
    };
    let footprint = write_checked(codec, value, &mut written)?;
    Ok((written.bytes.unwrap_or_default(), footprint))
}

/// Like [`encode`], but returns only the length and keeps no bytes.
pub(crate) fn measure(codec: CodecId, value: &dyn Writable) -> Result<(usize, Footprint), Refusal> {
    let mut written = Written::default();
    let footprint = write_checked(codec, value, &mut written)?;
    Ok((written.len, footprint))
}

fn write_checked(
    codec: CodecId,
    value: &dyn Writable,
    into: &mut Written,
) -> Result<Footprint, Refusal> {
    let check = Check::new(codec);
    match value.write(&check, into) {
        Ok(()) => Ok(check.footprint()),
        Err(error) => Err(check.into_refusal(error)),
    }
}

/// A hash of a value's contents, independent of the order of its maps and sets, and of its lists
/// unless `is_ordered`; `None` if the value can't be encoded.
pub(crate) fn digest(codec: CodecId, value: &dyn Writable, is_ordered: bool) -> Option<u64> {
    let check = Check::with_digest(codec, is_ordered);
    value.write(&check, &mut Written::default()).ok()?;
    Some(check.digest())
}

/// The path where two values differ in what serde sees of them.
pub(crate) fn difference(
    codec: CodecId,
    one: &dyn Writable,
    other: &dyn Writable,
) -> Option<String> {
    let leaves = |value: &dyn Writable| {
        let check = Check::with_leaves(codec);
        value.write(&check, &mut Written::default()).ok()?;
        Some(check.into_leaves())
    };
    first_difference(&leaves(one)?, &leaves(other)?)
}

/// The path of the first leaf that only one of two sorted lists has.
fn first_difference(one: &[(String, String)], other: &[(String, String)]) -> Option<String> {
    let first = one.iter().find(|leaf| other.binary_search(leaf).is_err());
    let first = first.or_else(|| other.iter().find(|leaf| one.binary_search(leaf).is_err()));
    first.map(|(path, _)| path.clone())
}

/// How deeply a value may be nested, as in JSON. Malicious bytes with deeper nesting would exhaust
/// the stack where a type contains itself.
#[cfg(feature = "msgpack")]
const MAX_DEPTH: usize = 128;

/// Decodes what [`encode`] wrote; `None` if the bytes are something else, or longer.
pub(crate) fn decode<V: DeserializeOwned>(codec: CodecId, bytes: &[u8]) -> Option<V> {
    match codec {
        CodecId::Json => from_json(bytes).ok(),
        #[cfg(feature = "msgpack")]
        CodecId::MsgPack => {
            let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
            reader.set_max_depth(MAX_DEPTH);
            let value = V::deserialize(&mut reader).ok()?;
            // The reader does not tell whether bytes are left. If none are, another value fails at
            // its first byte. With a depth of 0, no other failure looks like that one: it never
            // gets as far as a part's first byte.
            reader.set_max_depth(0);
            let rest = <serde::de::IgnoredAny as serde::Deserialize>::deserialize(&mut reader);
            let is_over = matches!(rest, Err(rmp_serde::decode::Error::InvalidMarkerRead(_)));
            is_over.then_some(value)
        }
        #[cfg(feature = "postcard")]
        CodecId::Postcard => {
            let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
            rest.is_empty().then_some(value)
        }
        // Also for compressed values, which have been decompressed before.
        _ => None,
    }
}

/// Decodes JSON. That it is UTF-8 is checked once for the whole text, where `from_slice` would check
/// each string by itself: 100 instructions in place of 760 for a row with eight strings, of the
/// 14,000 of its hit in Redis.
fn from_json<V: DeserializeOwned>(bytes: &[u8]) -> Result<V, serde_json::Error> {
    let text = std::str::from_utf8(bytes).map_err(serde::de::Error::custom)?;
    serde_json::from_str(text)
}

/// Why a serializer failed, before the place is known.
pub(crate) enum WriteError {
    Json(serde_json::Error),
    #[cfg(feature = "msgpack")]
    MsgPack(rmp_serde::encode::Error),
    #[cfg(feature = "postcard")]
    Postcard(postcard::Error),
    NotBuiltIn,
}

impl Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => error.fmt(f),
            #[cfg(feature = "msgpack")]
            Self::MsgPack(error) => error.fmt(f),
            #[cfg(feature = "postcard")]
            Self::Postcard(error) => error.fmt(f),
            Self::NotBuiltIn => f.write_str("cache-runtime was built without this codec"),
        }
    }
}

fn write<V: Serialize>(codec: CodecId, value: &V, into: &mut Written) -> Result<(), WriteError> {
    match codec {
        CodecId::Json => serde_json::to_writer(into, value).map_err(WriteError::Json),
        // With the names of fields, so that adding a field does not turn all entries into misses.
        #[cfg(feature = "msgpack")]
        CodecId::MsgPack => {
            rmp_serde::encode::write_named(into, value).map_err(WriteError::MsgPack)
        }
        #[cfg(feature = "postcard")]
        CodecId::Postcard => postcard::to_io(value, into)
            .map(drop)
            .map_err(WriteError::Postcard),
        _ => Err(WriteError::NotBuiltIn),
    }
}

/// Writes JSON even where that loses something, for values that go to a client as they are.
pub(crate) fn write_json<V: Serialize>(value: &V, into: &mut impl io::Write) -> Result<(), Error> {
    serde_json::to_writer(into, value).map_err(|error| {
        let text = format!("the value has no JSON form: {error}");
        Error::new(ErrorKind::Unstorable, text)
    })
}

/// The output of a serializer: how many bytes, and the bytes if they are wanted. One type for
/// both, so that each type of values is compiled with each codec once.
#[derive(Default)]
pub(crate) struct Written {
    bytes: Option<Vec<u8>>,
    len: usize,
}

impl io::Write for Written {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(written) = &mut self.bytes {
            written.extend_from_slice(bytes);
        }
        self.len += bytes.len();
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn all() -> Vec<CodecId> {
        vec![
            CodecId::Json,
            #[cfg(feature = "msgpack")]
            CodecId::MsgPack,
            #[cfg(feature = "postcard")]
            CodecId::Postcard,
        ]
    }

    fn bytes_of<V: Serialize>(codec: CodecId, value: &V) -> Vec<u8> {
        encode(codec, value).expect("encodes").0
    }

    #[test]
    fn every_codec_reads_what_it_wrote() {
        let value = (7u64, String::from("Ada"), Some(vec![1.5f64]));
        for codec in all() {
            let bytes = bytes_of(codec, &value);
            let (len, _) = measure(codec, &value).expect("encodes");
            assert_eq!(len, bytes.len());
            assert_eq!(decode(codec, &bytes).as_ref(), Some(&value), "{codec:?}");
            assert_eq!(decode::<u8>(codec, &[]), None, "{codec:?}");
            let shared: (Arc<str>, Arc<[u8]>) = ("Ada".into(), [1, 2].into());
            let bytes = bytes_of(codec, &shared);
            assert_eq!(decode(codec, &bytes).as_ref(), Some(&shared), "{codec:?}");
        }
    }

    #[cfg(feature = "msgpack")]
    #[test]
    fn values_too_deep_for_the_stack_are_none() {
        #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
        struct Tree(Vec<Tree>);

        let tree = (0..20).fold(Tree(Vec::new()), |inner, _| Tree(vec![inner]));
        let bytes = bytes_of(CodecId::MsgPack, &tree);
        assert_eq!(decode(CodecId::MsgPack, &bytes), Some(tree));
        for (codec, opening) in [(CodecId::Json, b'['), (CodecId::MsgPack, 0x91)] {
            let bytes = vec![opening; 1 << 20];
            assert_eq!(decode::<Tree>(codec, &bytes), None, "{codec:?}");
        }
    }

    #[test]
    fn more_than_a_value_is_none() {
        for codec in all() {
            let mut bytes = bytes_of(codec, &vec![1u8, 2]);
            bytes.push(b'1');
            assert_eq!(decode::<Vec<u8>>(codec, &bytes), None, "{codec:?}");
        }
    }

    #[test]
    fn a_float_is_the_one_that_was_written() {
        for codec in all() {
            let float = 1.230193677418416e-163_f64;
            let bytes = bytes_of(codec, &float);
            assert_eq!(decode(codec, &bytes), Some(float), "{codec:?}");
        }
    }
}
