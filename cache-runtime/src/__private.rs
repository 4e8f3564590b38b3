//! All that generated code may name. Nothing here is for people, and none of it follows semantic versioning.

pub use crate::read::{Batch, Read, ReadPlan};
use crate::registry::Role;
#[cfg(feature = "map")]
pub use crate::registry::SITES;
pub use crate::registry::Site;
pub use crate::shape::{BatchShape, Shape};
pub use crate::write::{Write, WritePlan};

/// The site of a function under `#[cached]`, at the caller's place; `words` are for the map.
#[must_use]
#[track_caller]
pub const fn cached(function: &'static str, words: &'static str) -> Site {
    Site::new(Role::Reads, function, words)
}

/// The site of a function under `#[invalidates]`.
#[must_use]
#[track_caller]
pub const fn invalidates(function: &'static str, words: &'static str) -> Site {
    Site::new(Role::Writes, function, words)
}

/// The codecs that `codec = ".."` may name.
#[expect(
    non_upper_case_globals,
    reason = "spelled as the attribute spells them"
)]
pub mod codec {
    use crate::entry::CodecId;

    pub const json: CodecId = CodecId::Json;
    #[cfg(feature = "msgpack")]
    pub const msgpack: CodecId = CodecId::MsgPack;
    #[cfg(feature = "postcard")]
    pub const postcard: CodecId = CodecId::Postcard;
}
