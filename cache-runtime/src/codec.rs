//! Payloads: values as bytes and back.
//!
//! JSON is always there, for people read entries with `redis-cli`. An entry's header says how it is encoded, so
//! instances that write in different ways read each other's entries; where one was built without a codec, an entry in it
//! is a miss.

use std::fmt::Display;
use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::entry::CodecId;
use crate::error::{Error, ErrorKind};

/// Stands for a codec whose feature is off.
#[derive(Debug)]
pub struct NotBuiltIn;

/// A codec that this build has.
#[diagnostic::on_unimplemented(
    message = "this codec is not built in",
    label = "cache-runtime's feature of this name is off",
    note = "turn it on where you depend on cache-runtime: `features = [\"msgpack\"]` or `features = [\"postcard\"]`"
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

/// Encodes a value.
pub(crate) fn encode<V: Serialize>(codec: CodecId, value: &V) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    write(codec, value, &mut bytes)?;
    Ok(bytes)
}

/// The length of a value's encoding, without keeping the encoding.
pub(crate) fn encoded_len<V: Serialize>(codec: CodecId, value: &V) -> Result<usize, Error> {
    let mut counter = Counter(0);
    write(codec, value, &mut counter)?;
    Ok(counter.0)
}

/// How deep a value may be, as in JSON: bytes that were made to be deeper would exhaust the stack, where a type contains itself.
#[cfg(feature = "msgpack")]
const MAX_DEPTH: usize = 128;

/// Decodes what [`encode`] wrote; `None` if the bytes are not that, or more than that.
pub(crate) fn decode<V: DeserializeOwned>(codec: CodecId, bytes: &[u8]) -> Option<V> {
    match codec {
        CodecId::Json => serde_json::from_slice(bytes).ok(),
        #[cfg(feature = "msgpack")]
        CodecId::MsgPack => {
            let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
            reader.set_max_depth(MAX_DEPTH);
            let value = V::deserialize(&mut reader).ok()?;
            // The reader does not say what is left. Where nothing is, a further value lacks its first byte, and without
            // any depth none gets as far as to lack that of a part.
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
        #[cfg(not(all(feature = "msgpack", feature = "postcard")))]
        _ => None,
    }
}

fn write<V: Serialize>(codec: CodecId, value: &V, into: &mut impl io::Write) -> Result<(), Error> {
    match codec {
        CodecId::Json => write_json(value, into),
        // With the names of fields, so that one may be added without all entries being misses.
        #[cfg(feature = "msgpack")]
        CodecId::MsgPack => rmp_serde::encode::write_named(into, value)
            .map_err(|error| unstorable("MessagePack", error)),
        #[cfg(feature = "postcard")]
        CodecId::Postcard => postcard::to_io(value, into)
            .map(drop)
            .map_err(|error| unstorable("postcard", error)),
        #[cfg(not(all(feature = "msgpack", feature = "postcard")))]
        _ => Err(unstorable(
            "such",
            "cache-runtime was built without this codec",
        )),
    }
}

pub(crate) fn write_json<V: Serialize>(value: &V, into: &mut impl io::Write) -> Result<(), Error> {
    serde_json::to_writer(into, value).map_err(|error| unstorable("JSON", error))
}

fn unstorable(form: &str, why: impl Display) -> Error {
    let text = format!("the value has no {form} form: {why}");
    Error::new(ErrorKind::Unstorable, text)
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
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

    #[test]
    fn every_codec_reads_what_it_wrote() {
        let value = (7u64, String::from("Ada"), Some(vec![1.5f64]));
        for codec in all() {
            let bytes = encode(codec, &value).expect("encodes");
            assert_eq!(encoded_len(codec, &value).expect("encodes"), bytes.len());
            assert_eq!(decode(codec, &bytes).as_ref(), Some(&value), "{codec:?}");
            assert_eq!(decode::<u8>(codec, &[]), None, "{codec:?}");
            let shared: (Arc<str>, Arc<[u8]>) = ("Ada".into(), [1, 2].into());
            let bytes = encode(codec, &shared).expect("encodes");
            assert_eq!(decode(codec, &bytes).as_ref(), Some(&shared), "{codec:?}");
        }
    }

    #[cfg(feature = "msgpack")]
    #[test]
    fn what_is_too_deep_for_the_stack_is_none() {
        #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
        struct Tree(Vec<Tree>);

        let tree = (0..20).fold(Tree(Vec::new()), |inner, _| Tree(vec![inner]));
        let bytes = encode(CodecId::MsgPack, &tree).expect("encodes");
        assert_eq!(decode(CodecId::MsgPack, &bytes), Some(tree));
        for (codec, opening) in [(CodecId::Json, b'['), (CodecId::MsgPack, 0x91)] {
            let bytes = vec![opening; 1 << 20];
            assert_eq!(decode::<Tree>(codec, &bytes), None, "{codec:?}");
        }
    }

    #[test]
    fn more_than_a_value_is_none() {
        for codec in all() {
            let mut bytes = encode(codec, &vec![1u8, 2]).expect("encodes");
            bytes.push(b'1');
            assert_eq!(decode::<Vec<u8>>(codec, &bytes), None, "{codec:?}");
        }
    }

    #[test]
    fn a_float_is_the_one_that_was_written() {
        for codec in all() {
            let float = 1.230193677418416e-163_f64;
            let bytes = encode(codec, &float).expect("encodes");
            assert_eq!(decode(codec, &bytes), Some(float), "{codec:?}");
        }
    }
}
