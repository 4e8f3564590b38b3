//! The errors below the HTTP layer.

use thiserror::Error;

/// Input that can't be used: the field, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The field, as the client wrote it: `age`, `conditions[0].value`.
    pub field: String,
    /// The problem, as text for people.
    pub reason: String,
}

impl Invalid {
    /// Names the field and the problem.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// Why a [`CrudService`](crate::service::CrudService) refused or failed.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// There is no row with this id.
    #[error("there is no row {id} in {resource}")]
    NotFound {
        /// The resource that was asked for.
        resource: &'static str,
        /// The id nobody has.
        id: i64,
    },
    /// Another row already has this value, which must be unique.
    #[error("another row already has this {field}")]
    Conflict {
        /// The column that must be unique.
        field: &'static str,
    },
    /// The input cannot be used.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The database failed, or could not be reached.
    #[error("database error")]
    Db(#[from] sqlx::Error),
    /// A row could not be written as JSON. No type of this API causes that.
    #[error("the answer could not be encoded")]
    Encoding(#[from] cache_runtime::Error),
}

impl ServiceError {
    /// Whether the database is certain to be unchanged. A refused write changes nothing, so it need
    /// not empty the cache. A failure of the database may hide a commit, so it must.
    #[must_use]
    pub fn wrote_nothing(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::Conflict { .. } | Self::Invalid(_) => true,
            Self::Db(_) | Self::Encoding(_) => false,
        }
    }
}
