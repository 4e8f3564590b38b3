//! The codec of a payload.

use crate::key::WrittenFor;

/// The codec of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CodecId {
    /// JSON, which people can read.
    #[default]
    Json,
    /// MessagePack with the names of fields.
    MsgPack,
    /// postcard: small and fast, without field names. Only the fingerprint tells an entry of
    /// another shape. Don't use it for a type that contains itself if other programs may write to
    /// Redis: postcard does not limit the depth, and malicious bytes exhaust the stack.
    Postcard,
    /// JSON, compressed with zstd.
    JsonZstd,
    /// MessagePack, compressed with zstd.
    MsgPackZstd,
    /// postcard, compressed with zstd.
    PostcardZstd,
}

impl CodecId {
    /// The reader that serde writes for in this codec.
    pub(super) fn written_for(self) -> WrittenFor {
        match self.plain() {
            Self::Json => WrittenFor::People,
            _ => WrittenFor::Programs,
        }
    }

    pub(super) fn letter(self) -> char {
        match self {
            Self::Json => 'j',
            Self::MsgPack => 'm',
            Self::Postcard => 'p',
            Self::JsonZstd => 'J',
            Self::MsgPackZstd => 'M',
            Self::PostcardZstd => 'P',
        }
    }

    /// The codec without compression.
    pub(crate) fn plain(self) -> Self {
        match self {
            Self::Json | Self::JsonZstd => Self::Json,
            Self::MsgPack | Self::MsgPackZstd => Self::MsgPack,
            Self::Postcard | Self::PostcardZstd => Self::Postcard,
        }
    }

    /// The codec with compression.
    #[cfg(feature = "zstd")]
    pub(crate) fn compressed(self) -> Self {
        match self {
            Self::Json | Self::JsonZstd => Self::JsonZstd,
            Self::MsgPack | Self::MsgPackZstd => Self::MsgPackZstd,
            Self::Postcard | Self::PostcardZstd => Self::PostcardZstd,
        }
    }

    pub(crate) fn is_compressed(self) -> bool {
        self != self.plain()
    }

    pub(super) fn of_letter(letter: u8) -> Option<Self> {
        match letter {
            b'j' => Some(Self::Json),
            b'm' => Some(Self::MsgPack),
            b'p' => Some(Self::Postcard),
            b'J' => Some(Self::JsonZstd),
            b'M' => Some(Self::MsgPackZstd),
            b'P' => Some(Self::PostcardZstd),
            _ => None,
        }
    }
}
