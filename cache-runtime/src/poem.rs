//! Cached values as responses of the Poem framework.

use std::sync::Arc;

use poem::http::header::{
    CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, IF_NONE_MATCH, VARY,
};
use poem::http::{HeaderMap, Method, StatusCode};
use poem::{Endpoint, IntoResponse, Middleware, Request, Response};

use crate::encoded::{Encoded, is_known_by};

const CONTENT_TYPE: &str = "application/json; charset=utf-8";

/// The JSON as it is stored, with its `ETag`.
impl<T> IntoResponse for Encoded<T> {
    fn into_response(self) -> Response {
        Response::builder()
            .content_type(CONTENT_TYPE)
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
                    content_type: CONTENT_TYPE,
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

/// Answers `304 Not Modified` in place of a body that the client names in `If-None-Match`: for `GET` and `HEAD`, where the
/// response is `200` and has an `ETag`, as that of an [`Encoded`] has.
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

/// The endpoint that [`NotModified`] makes.
#[derive(Debug)]
pub struct Conditional<E>(Arc<E>);

impl<E: Endpoint> Endpoint for Conditional<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let known = is_read.then(|| request.headers().get(IF_NONE_MATCH).cloned());
        let response = self.0.call(request).await?.into_response();
        let Some(known) = known.flatten() else {
            return Ok(response);
        };
        let is_known = response.status() == StatusCode::OK
            && response.headers().get(ETAG).is_some_and(|etag| {
                matches!((etag.to_str(), known.to_str()), (Ok(etag), Ok(known)) if is_known_by(etag, known))
            });
        if is_known {
            return Ok(not_modified(response.headers()));
        }
        Ok(response)
    }
}

/// With the headers that RFC 9110 wants of it, and those that are not about the body that is left out.
fn not_modified(headers: &HeaderMap) -> Response {
    let mut response = Response::builder()
        .status(StatusCode::NOT_MODIFIED)
        .finish();
    let kept = [CACHE_CONTROL, CONTENT_LOCATION, DATE, ETAG, EXPIRES, VARY];
    for (name, value) in headers {
        if kept.contains(name) || !name.as_str().starts_with("content-") {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}
