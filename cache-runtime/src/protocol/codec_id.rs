//! How a payload is encoded.

/// How a payload is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CodecId {
    /// JSON, which people can read.
    #[default]
    Json,
    /// MessagePack with the names of fields.
    MsgPack,
    /// postcard: small and fast, without names: an entry of another shape is told by its fingerprint alone. Not for types that
    /// contain themselves where others may write to Redis: it has no bound on depth, and bytes made for it exhaust the stack.
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
