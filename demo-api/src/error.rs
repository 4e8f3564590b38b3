//! What can go wrong below the HTTP layer.

use thiserror::Error;

/// Input that cannot be used: which part of it, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The field, as the client wrote it: `age`, `conditions[0].value`.
    pub field: String,
    /// What is wrong with it, for people.
    pub reason: String,
}

impl Invalid {
    /// Names the field and what is wrong with it.
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
    /// Rows have no JSON. No type of this API does that.
    #[error("the answer could not be encoded")]
    Encoding(#[from] cache_runtime::Error),
}

impl ServiceError {
    /// Whether the database is sure to be unchanged. A refused write says nothing new about the data, so it
    /// need not empty the cache; a failure of the database may hide a commit, so it must.
    #[must_use]
    pub fn wrote_nothing(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::Conflict { .. } | Self::Invalid(_) => true,
            Self::Db(_) | Self::Encoding(_) => false,
        }
    }
}
