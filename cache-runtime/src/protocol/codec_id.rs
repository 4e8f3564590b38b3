//! The codec of a payload.

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
}

impl CodecId {
    pub(super) fn letter(self) -> char {
        match self {
            Self::Json => 'j',
            Self::MsgPack => 'm',
            Self::Postcard => 'p',
        }
    }

    pub(super) fn of_letter(letter: u8) -> Option<Self> {
        match letter {
            b'j' => Some(Self::Json),
            b'm' => Some(Self::MsgPack),
            b'p' => Some(Self::Postcard),
            _ => None,
        }
    }
}
