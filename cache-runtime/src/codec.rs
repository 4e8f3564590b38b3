//! Payloads: values as bytes and back.

use crate::entry::CodecId;
use crate::error::{Error, ErrorKind};
use crate::returns::Cacheable;

/// Encodes a value.
pub(crate) fn encode<V: Cacheable>(codec: CodecId, value: &V) -> Result<Vec<u8>, Error> {
    match codec {
        CodecId::Json => serde_json::to_vec(value).map_err(|error| {
            Error::new(
                ErrorKind::Unstorable,
                format!("the value has no JSON form: {error}"),
            )
        }),
    }
}

/// Decodes what [`encode`] wrote; `None` if the bytes are not that.
pub(crate) fn decode<V: Cacheable>(codec: CodecId, bytes: &[u8]) -> Option<V> {
    match codec {
        CodecId::Json => serde_json::from_slice(bytes).ok(),
    }
}

/// The length of a value's encoding, without keeping the encoding.
pub(crate) fn encoded_len<V: Cacheable>(value: &V) -> Result<usize, Error> {
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, value) {
        Ok(()) => Ok(counter.0),
        Err(error) => Err(Error::new(
            ErrorKind::Unstorable,
            format!("the value has no JSON form: {error}"),
        )),
    }
}

struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
