//! JSON request and response bodies, with the errors of this API.

use std::sync::Arc;
use std::time::Duration;

use poem::error::ResponseError;
use poem::http::StatusCode;
use poem::{IntoResponse, Request, RequestBody, Response};
use poem_openapi::ApiResponse;
use poem_openapi::payload::{ParsePayload, Payload};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseFromJSON, ToJSON, Type};
use serde::Serialize;
use tokio::io::AsyncReadExt;

use crate::error::Invalid;
use crate::input::Fields;
use crate::resource::Input;

/// The largest body that is read, 2 MiB; a filter with every bound reached stays below it.
const MAX_BODY: u64 = 2 << 20;
/// How much more is read and dropped, so that the client can finish writing and reads the answer.
/// If it sends even more, the connection is closed.
const MAX_DISCARDED: u64 = 64 << 20;

/// How long a client may take to send a whole body. A limit for each piece would let a client hold
/// the connection by sending a byte now and then.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyTimeout(pub(super) Duration);

impl Default for BodyTimeout {
    fn default() -> Self {
        Self(Duration::from_secs(10))
    }
}

pub(super) const CONTENT_TYPE: &str = "application/json; charset=utf-8";

/// Why a body is refused before its fields are checked.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("must be at most 2 MiB")]
    TooLarge,
    #[error("could not be read")]
    Unreadable,
    #[error("did not come within {} s", .0.as_secs())]
    Late(Duration),
    #[error("is empty; send a JSON object")]
    Empty,
    #[error("is not JSON: {0}")]
    NotJson(serde_json::Error),
}

impl ResponseError for BodyError {
    fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Late(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Unreadable | Self::Empty | Self::NotJson(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// A request body: any JSON, documented as a `T`.
///
/// Its fields are checked by [`into_input`](Self::into_input) or by the filter's parser, which
/// name the field that is wrong; poem-openapi's own parser would not.
#[derive(Debug)]
pub(super) struct Body<T> {
    value: serde_json::Value,
    documented_as: std::marker::PhantomData<fn() -> T>,
}

impl<T> Body<T> {
    pub(super) fn into_value(self) -> serde_json::Value {
        self.value
    }
}

impl<T: Input> Body<T> {
    pub(super) fn into_input(self) -> Result<T, Invalid> {
        let mut fields = Fields::new(self.value)?;
        let input = T::parse(&mut fields)?;
        fields.finish()?;
        Ok(input)
    }
}

impl<T: Type> Payload for Body<T> {
    const CONTENT_TYPE: &'static str = CONTENT_TYPE;

    fn check_content_type(content_type: &str) -> bool {
        poem_openapi::payload::Json::<T>::check_content_type(content_type)
    }
    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }
    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: ParseFromJSON> ParsePayload for Body<T> {
    const IS_REQUIRED: bool = true;

    async fn from_request(request: &Request, body: &mut RequestBody) -> poem::Result<Self> {
        let BodyTimeout(limit) = request.data().copied().unwrap_or_default();
        let read = tokio::time::timeout(limit, read(body.take()?));
        let bytes = read.await.map_err(|_| BodyError::Late(limit))??;
        if bytes.is_empty() {
            return Err(BodyError::Empty.into());
        }
        let value = serde_json::from_slice(&bytes).map_err(BodyError::NotJson)?;
        Ok(Self {
            value,
            documented_as: std::marker::PhantomData,
        })
    }
}

poem_openapi::impl_apirequest_for_payload!(Body<T>, T: ParseFromJSON);

async fn read(body: poem::Body) -> Result<Vec<u8>, BodyError> {
    let mut reader = body.into_async_read();
    let mut bytes = Vec::new();
    (&mut reader)
        .take(MAX_BODY + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|_| BodyError::Unreadable)?;
    if bytes.len() as u64 <= MAX_BODY {
        return Ok(bytes);
    }
    drop(bytes);
    let discarded = tokio::io::copy(&mut reader.take(MAX_DISCARDED), &mut tokio::io::sink()).await;
    discarded.map_err(|_| BodyError::Unreadable)?;
    Err(BodyError::TooLarge)
}

/// A successful response, written by serde straight from the value that the cache shares.
///
/// poem-openapi's `Json` would build a `serde_json::Value` first, which costs more than a cache
/// hit.
#[derive(Debug)]
pub(super) struct Answer<T, const STATUS: u16>(Arc<T>);

/// The requested data.
pub(super) type Found<T> = Answer<T, 200>;
/// The row as it was stored.
pub(super) type Created<T> = Answer<T, 201>;

impl<T, const STATUS: u16> Answer<T, STATUS> {
    pub(super) fn new(value: impl Into<Arc<T>>) -> Self {
        Self(value.into())
    }
}

impl<T: Serialize + Send + Sync, const STATUS: u16> IntoResponse for Answer<T, STATUS> {
    fn into_response(self) -> Response {
        respond(StatusCode::from_u16(STATUS).unwrap_or_default(), &*self.0)
    }
}

impl<T: ToJSON + Serialize, const STATUS: u16> ApiResponse for Answer<T, STATUS> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "",
                status: Some(STATUS),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: CONTENT_TYPE,
                    schema: T::schema_ref(),
                }],
                headers: vec![],
            }],
        }
    }
    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// `value` as a JSON response.
pub(super) fn respond(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => Response::builder()
            .status(status)
            .content_type(CONTENT_TYPE)
            .body(bytes),
        // No type of this API fails to serialise; one that did would be a bug here.
        Err(error) => {
            tracing::error!(%error, "a response could not be serialised");
            StatusCode::INTERNAL_SERVER_ERROR.into()
        }
    }
}
