//! Encoded values that are compressed in the store: `codec = "json+zstd"`, and
//! `CACHE_COMPRESS_OVER`.
//!
//! The header of a compressed payload names the codec inside. A value is compressed after it has
//! been encoded and checked, and decompressed before it is decoded, so the codecs need not know. A
//! value that would not become smaller is stored uncompressed. For a process that was built without
//! the feature `zstd`, a compressed entry is a miss.

use std::borrow::Cow;

use bytes::Bytes;

#[cfg(feature = "zstd")]
use super::MOST_BYTES;
use crate::protocol::codec_id::CodecId;

/// zstd's own default level: three times as fast as gzip, and smaller.
#[cfg(feature = "zstd")]
const LEVEL: i32 = 3;

/// The payload as it is stored, and its codec.
pub(crate) fn compress(codec: CodecId, bytes: Bytes, over: Option<usize>) -> (CodecId, Bytes) {
    #[cfg(feature = "zstd")]
    if over.is_some_and(|over| bytes.len() > over)
        && let Ok(smaller) = zstd::bulk::compress(&bytes, LEVEL)
        && smaller.len() < bytes.len()
    {
        return (codec.compressed(), smaller.into());
    }
    let _ = over;
    (codec, bytes)
}

/// The encoded value in a payload, and its codec; `None` if it is damaged or this build can't read
/// it.
pub(crate) fn decompress(codec: CodecId, bytes: &Bytes) -> Option<(CodecId, Cow<'_, Bytes>)> {
    if !codec.is_compressed() {
        return Some((codec, Cow::Borrowed(bytes)));
    }
    #[cfg(feature = "zstd")]
    {
        let size = told_length(bytes).filter(|size| *size <= MOST_BYTES)?;
        let plain = zstd::bulk::decompress(bytes, size).ok()?;
        // Nothing at all would be decompressed to nothing.
        (plain.len() == size).then(|| (codec.plain(), Cow::Owned(plain.into())))
    }
    #[cfg(not(feature = "zstd"))]
    None
}

/// The length of the encoded value.
pub(crate) fn length(codec: CodecId, bytes: &[u8]) -> usize {
    #[cfg(feature = "zstd")]
    if codec.is_compressed() {
        return told_length(bytes).unwrap_or(MOST_BYTES);
    }
    let _ = codec;
    bytes.len()
}

/// The length that zstd has written at the start; `None` if it is missing, as in no value of ours.
#[cfg(feature = "zstd")]
fn told_length(bytes: &[u8]) -> Option<usize> {
    let length = zstd::zstd_safe::get_frame_content_size(bytes);
    usize::try_from(length.ok()??).ok()
}

#[cfg(all(test, feature = "zstd"))]
mod tests {
    use super::*;

    #[test]
    fn compressed_values_come_back() {
        let text = Bytes::from("[1,2,3],".repeat(1_000));
        for codec in [CodecId::Json, CodecId::MsgPack, CodecId::Postcard] {
            let (compressed, bytes) = compress(codec, text.clone(), Some(100));
            assert!(compressed.is_compressed() && compressed.plain() == codec);
            assert!(bytes.len() < text.len() / 10);
            assert_eq!(length(compressed, &bytes), text.len());
            let plain = decompress(compressed, &bytes);
            assert_eq!(plain, Some((codec, Cow::Owned(text.clone()))));
            assert_eq!(compress(codec, text.clone(), None), (codec, text.clone()));
            let own = compress(codec, text.clone(), Some(text.len()));
            assert_eq!(own, (codec, text.clone()), "it is not over that");
        }
        let random: Bytes = (0..1_000).map(|_| fastrand::u8(..)).collect();
        let kept = compress(CodecId::Json, random.clone(), Some(0));
        assert_eq!(kept, (CodecId::Json, random), "it would grow");
    }

    #[test]
    fn damaged_bytes_are_no_value() {
        let (codec, bytes) = compress(CodecId::Json, "null".repeat(100).into(), Some(0));
        for cut in 0..bytes.len() {
            assert_eq!(decompress(codec, &bytes.slice(..cut)), None, "{cut}");
        }
        assert_eq!(decompress(codec, &Bytes::from_static(b"null")), None);
    }

    #[test]
    fn a_bomb_is_not_opened() {
        let zeros = vec![0; MOST_BYTES + 1];
        let bomb = zstd::bulk::compress(&zeros, LEVEL).expect("compressed");
        assert_eq!(decompress(CodecId::JsonZstd, &bomb.into()), None);
    }
}
