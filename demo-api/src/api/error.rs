//! One shape for every error, from whatever layer: `{"error": "...", "field": "limit"}`.

use std::any::Any;

use poem::error::{MethodNotAllowedError, NotFoundError};
use poem::http::StatusCode;
use poem::http::header::{HeaderValue, WWW_AUTHENTICATE};
use poem::{IntoResponse, Response};
use poem_openapi::error::{ContentTypeError, ParseParamError, ParsePathError};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiResponse, Object};
use serde::Serialize;

use super::json::{BodyError, CONTENT_TYPE, respond};
use crate::access::Denied;
use crate::error::{Invalid, ServiceError};

/// An error.
#[derive(Debug, Clone, Serialize, Object)]
pub(super) struct ErrorBody {
    /// The message.
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

/// The kinds of refusals of an operation; [`Failure`] lists those that apply.
pub(super) mod refusal {
    /// Input that can't be used: 400.
    pub(in crate::api) const INPUT: u8 = 1;
    /// A body that is late, too large or of another type: 408, 413, 415.
    pub(in crate::api) const BODY: u8 = 1 << 1;
    /// A row or a resource that does not exist: 404.
    pub(in crate::api) const ABSENT: u8 = 1 << 2;
    /// A value that another row has: 409.
    pub(in crate::api) const CONFLICT: u8 = 1 << 3;
    /// A caller without permission: 401, 403.
    pub(in crate::api) const ACCESS: u8 = 1 << 4;
    /// A database that failed: 500.
    pub(in crate::api) const DATABASE: u8 = 1 << 5;
}

/// Every error that is documented: of which refusal, with which status, and what it means.
const DOCUMENTED: [(u8, u16, &str); 9] = [
    (
        refusal::INPUT,
        400,
        "The input can't be used; `field` says which part.",
    ),
    (
        refusal::ACCESS,
        401,
        "The token in `Authorization: Bearer` is missing or wrong.",
    ),
    (
        refusal::ACCESS,
        403,
        "Nobody may: other machines reach this server, and it has no `CACHE_ADMIN_TOKEN`.",
    ),
    (refusal::ABSENT, 404, "There is nothing of that name."),
    (refusal::BODY, 408, "The body did not come in time."),
    (
        refusal::CONFLICT,
        409,
        "Another row has the value that `field` must not share.",
    ),
    (refusal::BODY, 413, "The body is larger than 2 MiB."),
    (refusal::BODY, 415, "The body is not `application/json`."),
    (
        refusal::DATABASE,
        500,
        "The database failed. The log says how.",
    ),
];

/// The error of an operation, documented with the statuses of its `REFUSALS` and no others.
#[derive(Debug)]
pub(super) struct Failure<const REFUSALS: u8> {
    status: StatusCode,
    body: ErrorBody,
}

impl<const REFUSALS: u8> Failure<REFUSALS> {
    fn new(status: StatusCode, body: ErrorBody) -> Self {
        Self { status, body }
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorBody::new(error))
    }
}

impl<const REFUSALS: u8> From<Invalid> for Failure<REFUSALS> {
    fn from(Invalid { field, reason }: Invalid) -> Self {
        let error = format!("`{field}` {reason}");
        Self::new(StatusCode::BAD_REQUEST, ErrorBody::of_field(field, error))
    }
}

impl<const REFUSALS: u8> From<ServiceError> for Failure<REFUSALS> {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Invalid(invalid) => invalid.into(),
            ServiceError::NotFound { .. } => Self::not_found(error.to_string()),
            ServiceError::Conflict { field } => Self::new(
                StatusCode::CONFLICT,
                ErrorBody::of_field(field, error.to_string()),
            ),
            ServiceError::Encoding(source) => {
                tracing::error!(error = %source, "an answer could not be encoded");
                Self::internal("internal error")
            }
            ServiceError::Db(source) => {
                tracing::error!(error = %source, "the database failed");
                Self::internal("the database failed")
            }
        }
    }
}

impl<const REFUSALS: u8> Failure<REFUSALS> {
    fn internal(error: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorBody::new(error))
    }
}

impl<const REFUSALS: u8> From<Denied> for Failure<REFUSALS> {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::WrongToken => Self::new(
                StatusCode::UNAUTHORIZED,
                ErrorBody::of_field(
                    "authorization",
                    "`authorization` must be `Bearer` and the server's CACHE_ADMIN_TOKEN",
                ),
            ),
            Denied::Forwarded => Self::new(
                StatusCode::FORBIDDEN,
                ErrorBody::new(
                    "this request came through a proxy or names another host; the server needs \
                     CACHE_ADMIN_TOKEN for it",
                ),
            ),
            Denied::Always => Self::new(
                StatusCode::FORBIDDEN,
                ErrorBody::new(
                    "the cache is not changed by hand here; the server needs CACHE_ADMIN_TOKEN, \
                     or to listen on a loopback address",
                ),
            ),
        }
    }
}

impl<const REFUSALS: u8> IntoResponse for Failure<REFUSALS> {
    fn into_response(self) -> Response {
        let mut response = respond(self.status, &self.body);
        if self.status == StatusCode::UNAUTHORIZED {
            let headers = response.headers_mut();
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl<const REFUSALS: u8> From<Failure<REFUSALS>> for poem::Error {
    fn from(failure: Failure<REFUSALS>) -> Self {
        Self::from_response(failure.into_response())
    }
}

impl<const REFUSALS: u8> ApiResponse for Failure<REFUSALS> {
    fn meta() -> MetaResponses {
        let documented = DOCUMENTED
            .iter()
            .filter(|(refusal, ..)| REFUSALS & refusal != 0);
        MetaResponses {
            responses: documented
                .map(|&(_, status, description)| MetaResponse {
                    description,
                    status: Some(status),
                    status_range: None,
                    content: vec![MetaMediaType {
                        content_type: CONTENT_TYPE,
                        schema: ErrorBody::schema_ref(),
                    }],
                    headers: vec![],
                })
                .collect(),
        }
    }
    fn register(registry: &mut Registry) {
        ErrorBody::register(registry);
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
