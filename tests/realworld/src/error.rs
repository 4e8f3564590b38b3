//! Errors of the services, and the responses that they stand for.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field holds what it may not hold: `422`.
    #[error("{field} {reason}")]
    Invalid {
        /// The field as clients call it.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no valid token: `401`.
    #[error("a valid token is required")]
    Unauthorized,
    /// The row belongs to somebody else: `403`.
    #[error("only its author may change it")]
    Forbidden,
    /// There is no such row: `404`.
    #[error("it was not found")]
    NotFound,
    /// The database failed: `500`.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl Error {
    /// Whether the database was certainly not changed: then nothing has to be invalidated.
    pub fn wrote_nothing(&self) -> bool {
        match self {
            Self::Invalid { .. } | Self::Unauthorized | Self::Forbidden | Self::NotFound => true,
            Self::Database(error) => error.as_database_error().is_some(),
        }
    }
}

/// A violated unique constraint as the error of its field.
pub(crate) fn taken(error: sqlx::Error) -> Error {
    let constraint = error
        .as_database_error()
        .and_then(|error| error.constraint());
    let field = match constraint {
        Some("users_username_key") => "username",
        Some("users_email_key") => "email",
        Some("articles_slug_key") => "title",
        _ => return Error::Database(error),
    };
    Error::Invalid {
        field,
        reason: "has already been taken",
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let errors = match self {
            Self::Invalid { field, reason } => json!({ field: [reason] }),
            // What the database says is no business of clients.
            Self::Database(_) => json!({ "server": ["failed"] }),
            other => json!({ "request": [other.to_string()] }),
        };
        (status, Json(json!({ "errors": errors }))).into_response()
    }
}
