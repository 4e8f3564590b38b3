//! What an entry depends on besides its own resource.

use std::borrow::Cow;

/// One more dependency of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dependency {
    /// Everything under another resource.
    Resource(Cow<'static, str>),
    Tag(String),
}
