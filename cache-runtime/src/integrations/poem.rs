//! Cached values as responses of the Poem framework.

use std::sync::Arc;

use poem::http::header::{
    CACHE_CONTROL, CONTENT_LOCATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH,
};
use poem::http::{Method, StatusCode};
use poem::{Endpoint, IntoResponse, Middleware, Request, Response};

use crate::integrations::encoded::{Encoded, is_known_by};

const JSON: &str = "application/json; charset=utf-8";

/// Responds with the stored JSON and its `ETag`. `no-cache` makes browsers revalidate before reuse,
/// so that they don't show what an invalidation here has made stale.
impl<T> IntoResponse for Encoded<T> {
    fn into_response(self) -> Response {
        Response::builder()
            .header(CONTENT_TYPE, HeaderValue::from_static(JSON))
            .header(CACHE_CONTROL, HeaderValue::from_static("no-cache"))
            .header(ETAG, self.etag())
            .body(self.into_bytes())
    }
}

#[cfg(feature = "poem-openapi")]
impl<T: poem_openapi::types::Type> poem_openapi::ApiResponse for Encoded<T> {
    fn meta() -> poem_openapi::registry::MetaResponses {
        use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses};

        MetaResponses {
            responses: vec![MetaResponse {
                description: "",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: JSON,
                    schema: T::schema_ref(),
                }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut poem_openapi::registry::Registry) {
        T::register(registry);
    }
}

/// Answers `304 Not Modified` instead of sending a body that the client already has, as its
/// `If-None-Match` says. It acts on `GET` and `HEAD`, on responses with status `200` and an `ETag`,
/// such as an [`Encoded`].
///
/// ```
/// use cache_runtime::Encoded;
/// use cache_runtime::poem::NotModified;
/// use poem::{EndpointExt, Route, get, handler};
///
/// #[handler]
/// fn list() -> poem::Result<Encoded<Vec<u8>>> {
///     Encoded::new(&vec![1, 2, 3]).map_err(poem::error::InternalServerError)
/// }
///
/// let app = Route::new().at("/list", get(list)).with(NotModified);
/// # drop(app);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct NotModified;

impl<E: Endpoint> Middleware<E> for NotModified {
    type Output = Conditional<E>;

    fn transform(&self, endpoint: E) -> Conditional<E> {
        Conditional(Arc::new(endpoint))
    }
}

/// The endpoint that [`NotModified`] creates.
#[derive(Debug)]
pub struct Conditional<E>(Arc<E>);

impl<E: Endpoint> Endpoint for Conditional<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        // The list may be split over several header lines.
        let known: Vec<HeaderValue> = match is_read {
            true => request
                .headers()
                .get_all(IF_NONE_MATCH)
                .iter()
                .cloned()
                .collect(),
            false => Vec::new(),
        };
        let response = self.0.call(request).await?.into_response();
        if known.is_empty() || response.status() != StatusCode::OK {
            return Ok(response);
        }
        let etag = response
            .headers()
            .get(ETAG)
            .and_then(|etag| etag.to_str().ok());
        let is_known = etag.is_some_and(|etag| {
            let mut lines = known.iter().filter_map(|line| line.to_str().ok());
            lines.any(|line| is_known_by(etag, line))
        });
        if is_known {
            return Ok(not_modified(response.headers()));
        }
        Ok(response)
    }
}

/// Copies all headers except those about the missing body. RFC 9110 requires `Cache-Control`,
/// `Content-Location`, `Date`, `ETag`, `Expires` and `Vary`, if the `200` had them.
fn not_modified(headers: &HeaderMap) -> Response {
    let mut response = Response::builder()
        .status(StatusCode::NOT_MODIFIED)
        .finish();
    for (name, value) in headers {
        if name == CONTENT_LOCATION || !name.as_str().starts_with("content-") {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}
