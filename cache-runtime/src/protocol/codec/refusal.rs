//! Why a value is not stored.

use std::fmt;

use crate::base::error::{Error, ErrorKind};
use crate::protocol::codec_id::CodecId;

/// A value that a codec can't hold, or would give back as a different one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The path in the value, such as `users[3].score`; empty for the value as a whole, or if
    /// unknown.
    pub(crate) path: String,
    /// The fault.
    pub(crate) reason: String,
    /// The fix, for the author of the function.
    pub(crate) remedy: &'static str,
}

impl Refusal {
    pub(crate) fn new(path: String, reason: impl Into<String>, remedy: &'static str) -> Self {
        Self {
            path,
            reason: reason.into(),
            remedy,
        }
    }

    /// The path for a log.
    pub(crate) fn place(&self) -> &str {
        match self.path.is_empty() {
            true => "the value",
            false => &self.path,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.is_empty() {
            true => write!(f, "the value {}; {}", self.reason, self.remedy),
            false => write!(f, "`{}` {}; {}", self.path, self.reason, self.remedy),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(ErrorKind::Unstorable, refusal.to_string())
    }
}

/// The codec's usual name.
pub(super) fn name(codec: CodecId) -> &'static str {
    match codec {
        CodecId::Json | CodecId::JsonZstd => "JSON",
        CodecId::MsgPack | CodecId::MsgPackZstd => "MessagePack",
        CodecId::Postcard | CodecId::PostcardZstd => "postcard",
    }
}
