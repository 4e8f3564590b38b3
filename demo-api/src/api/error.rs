//! One shape for every error, whoever found it: `{"error": "...", "field": "limit"}`.

use std::any::Any;

use poem::Response;
use poem::error::{MethodNotAllowedError, NotFoundError};
use poem::http::StatusCode;
use poem_openapi::error::{ContentTypeError, ParseParamError, ParsePathError};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object};
use serde::Serialize;

use super::json::{BodyError, respond};
use crate::error::{Invalid, ServiceError};

/// What was wrong.
#[derive(Debug, Clone, Serialize, Object)]
pub(super) struct ErrorBody {
    /// For people.
    error: String,
    /// The parameter, or the part of the body, that was wrong.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl ErrorBody {
    fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            field: None,
        }
    }
    fn of_field(field: impl Into<String>, error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            field: Some(field.into()),
        }
    }
}

/// The errors that operations answer with.
#[derive(Debug, ApiResponse)]
pub(super) enum ApiError {
    /// The input can't be used; `field` says which part.
    #[oai(status = 400)]
    Invalid(Json<ErrorBody>),
    /// There is nothing of that name.
    #[oai(status = 404)]
    NotFound(Json<ErrorBody>),
    /// Another row has the value that `field` must not share.
    #[oai(status = 409)]
    Conflict(Json<ErrorBody>),
    /// The database failed. The log says how.
    #[oai(status = 500)]
    Internal(Json<ErrorBody>),
}

impl ApiError {
    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::NotFound(Json(ErrorBody::new(error)))
    }
}

impl From<Invalid> for ApiError {
    fn from(Invalid { field, reason }: Invalid) -> Self {
        let error = format!("`{field}` {reason}");
        Self::Invalid(Json(ErrorBody::of_field(field, error)))
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Invalid(invalid) => invalid.into(),
            ServiceError::NotFound { .. } => Self::not_found(error.to_string()),
            ServiceError::Conflict { field } => {
                Self::Conflict(Json(ErrorBody::of_field(field, error.to_string())))
            }
            ServiceError::Encoding(source) => {
                tracing::error!(error = %source, "an answer could not be encoded");
                Self::Internal(Json(ErrorBody::new("internal error")))
            }
            ServiceError::Db(source) => {
                tracing::error!(error = %source, "the database failed");
                Self::Internal(Json(ErrorBody::new("the database failed")))
            }
        }
    }
}

/// Turns the errors that poem and poem-openapi found into the same shape.
pub(super) async fn to_response(error: poem::Error) -> Response {
    if error.is_from_response() {
        return error.into_response();
    }
    let body = if let Some(ParseParamError { name, reason }) = error.downcast_ref() {
        ErrorBody::of_field(*name, unusable(name, reason))
    } else if let Some(ParsePathError { reason, .. }) = error.downcast_ref() {
        // poem-openapi numbers path parameters; of this API's, all numbers are ids.
        let name = if reason.contains("integer") {
            "id"
        } else {
            "resource"
        };
        ErrorBody::of_field(name, unusable(name, reason))
    } else if let Some(error) = error.downcast_ref::<BodyError>() {
        ErrorBody::of_field("body", format!("`body` {error}"))
    } else if error.is::<ContentTypeError>() {
        ErrorBody::of_field("content-type", "`content-type` must be application/json")
    } else if error.is::<NotFoundError>() {
        ErrorBody::new("there is nothing at this path; see /docs")
    } else if error.is::<MethodNotAllowedError>() {
        ErrorBody::new("this path does not take this method; see /docs")
    } else if error.status().is_server_error() {
        tracing::error!(%error, "a request failed");
        ErrorBody::new("internal error")
    } else {
        ErrorBody::new(error.to_string())
    };
    respond(error.status(), &body)
}

/// poem-openapi's reasons speak of Rust's types and come with quotes of their own.
fn unusable(name: &str, reason: &str) -> String {
    if reason.contains("integer") {
        format!("`{name}` must be a whole number of at most 64 bits")
    } else {
        format!("`{name}` cannot be used: {reason}")
    }
}

/// The answer to a request whose handler panicked.
pub(super) fn after_panic(_: Box<dyn Any + Send>) -> Response {
    respond(
        StatusCode::INTERNAL_SERVER_ERROR,
        &ErrorBody::new("internal error"),
    )
}
