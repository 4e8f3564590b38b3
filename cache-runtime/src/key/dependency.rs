//! The dependencies of an entry besides its own resource.

use std::any::TypeId;
use std::borrow::Cow;

use super::IdForm;

/// One more thing an entry depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamedDependency {
    /// Everything of another resource.
    Resource(Cow<'static, str>),
    /// One row of another resource.
    Row(Box<RowOf>),
    Tag(String),
}

/// A row of a resource, as its readers and writers name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowOf {
    pub(crate) resource: &'static str,
    pub(crate) id: String,
    pub(crate) form: IdForm,
    pub(crate) of: TypeId,
}
