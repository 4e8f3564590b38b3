//! What an entry depends on besides its own resource.

use std::borrow::Cow;

/// One more thing an entry depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dependency {
    /// Everything of another resource.
    Resource(Cow<'static, str>),
    Tag(String),
}
