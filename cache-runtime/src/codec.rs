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

/// Decodes what [`encode`] wrote; `None` if the bytes are not that, or more than that.
pub(crate) fn decode<V: DeserializeOwned>(codec: CodecId, bytes: &[u8]) -> Option<V> {
    match codec {
        CodecId::Json => serde_json::from_slice(bytes).ok(),
        #[cfg(feature = "msgpack")]
        CodecId::MsgPack => {
            let mut rest = bytes;
            let value = rmp_serde::from_read(&mut rest).ok()?;
            rest.is_empty().then_some(value)
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
        }
    }
}
