//! Cached values as responses of the Poem framework.

use std::sync::Arc;

use poem::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
};
use poem::http::{Method, StatusCode};
use poem::{Endpoint, Error, IntoResponse, Middleware, PathPattern, Request, Response};

use crate::integrations::encoded::Encoded;
use crate::integrations::http::{self, JSON, REVALIDATE};
use crate::integrations::layer_options::{LayerOptions, option_methods};
use crate::integrations::request_parts::RequestParts;

/// The stored JSON with its `ETag` and `Cache-Control: no-cache`: clients must revalidate before
/// they reuse it, because an invalidation does not reach a browser.
impl<T> IntoResponse for Encoded<T> {
    fn into_response(self) -> Response {
        Response::builder()
            .header(CONTENT_TYPE, HeaderValue::from_static(JSON))
            .header(CACHE_CONTROL, HeaderValue::from_static(REVALIDATE))
            .header(ETAG, self.etag_of_response())
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

/// Answers `304 Not Modified` if the client already has the body, according to its `If-None-Match`.
/// This applies to `GET` and `HEAD` and to responses that are `200` and have an `ETag`, as an
/// [`Encoded`] has.
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
        let (method, known) = (request.method().clone(), known_tags(&request));
        let response = self.0.call(request).await?.into_response();
        Ok(unless_known(&method, &known, response))
    }
}

/// The header may have several lines.
fn known_tags(request: &Request) -> Vec<HeaderValue> {
    let lines = request.headers().get_all(IF_NONE_MATCH);
    lines.iter().cloned().collect()
}

/// The response, or `304` if the client has it. Its data stay, such as the pattern of the path,
/// by which metrics count it.
fn unless_known(method: &Method, known: &[HeaderValue], mut response: Response) -> Response {
    let etag = response.headers().get(ETAG);
    let etag = etag.and_then(|etag| etag.to_str().ok());
    let known = known.iter().filter_map(|line| line.to_str().ok());
    let status = response.status().as_u16();
    if !http::is_not_modified(method.as_str(), known, status, etag) {
        return response;
    }
    response.set_status(StatusCode::NOT_MODIFIED);
    drop(response.take_body());
    let names = response.headers().keys();
    let names = names.filter(|name| !http::goes_with_not_modified(name.as_str()));
    let names: Vec<_> = names.cloned().collect();
    for name in names {
        response.headers_mut().remove(name);
    }
    response
}

/// The error as the response that it stands for, with these headers. It stays an error, for the
/// middleware around this one: with its message, and with the pattern of the path.
fn error_with_headers(error: Error, headers: Vec<(&'static str, String)>) -> Error {
    let (message, pattern) = (error.to_string(), error.data::<PathPattern>().cloned());
    let response = with_headers(error.into_response(), headers);
    let mut error = Error::from_response(response);
    error.set_error_message(message);
    if let Some(pattern) = pattern {
        error.set_data(pattern);
    }
    error
}

/// Of `Cache-Invalidation` a response has one line, also with a layer around a layer.
fn with_headers(mut response: Response, headers: Vec<(&'static str, String)>) -> Response {
    let all = response.headers_mut();
    for (name, value) in headers {
        let is_single = name == http::CACHE_INVALIDATION;
        let written = all.get(name).filter(|_| is_single);
        let written = written.and_then(|written| written.to_str().ok());
        let Ok(value) = HeaderValue::try_from(http::worse(written, value)) else {
            continue;
        };
        let name = HeaderName::from_static(name);
        if is_single {
            all.insert(name, value);
        } else {
            all.append(name, value);
        }
    }
    response
}

/// Writes into each response what the cache did for it, and answers conditional requests. The
/// headers are those of `cache_runtime::tower::CacheLayer`.
///
/// An error of the endpoint gets the headers too: it becomes the response that it stands for. So
/// `catch_error` for an error's type belongs inside of this middleware.
///
/// ```
/// use cache_runtime::Encoded;
/// use cache_runtime::poem::CacheMiddleware;
/// use poem::{EndpointExt, Route, get, handler};
///
/// #[handler]
/// fn list() -> poem::Result<Encoded<Vec<u8>>> {
///     Encoded::new(&vec![1, 2, 3]).map_err(poem::error::InternalServerError)
/// }
///
/// let app = Route::new().at("/list", get(list)).with(CacheMiddleware::new());
/// # drop(app);
/// ```
#[derive(Debug, Clone, Default)]
pub struct CacheMiddleware {
    options: LayerOptions,
}

option_methods!(CacheMiddleware);

impl<E: Endpoint> Middleware<E> for CacheMiddleware {
    type Output = CacheEndpoint<E>;

    fn transform(&self, endpoint: E) -> CacheEndpoint<E> {
        CacheEndpoint {
            endpoint,
            options: self.options.clone(),
        }
    }
}

/// The endpoint that [`CacheMiddleware`] makes.
#[derive(Debug)]
pub struct CacheEndpoint<E> {
    endpoint: E,
    options: LayerOptions,
}

impl<E: Endpoint> Endpoint for CacheEndpoint<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let (method, known) = (request.method().clone(), known_tags(&request));
        let values = self.options.values(&RequestParts::of_poem(&request));
        // Boxed, because each layer around it would hold a copy of what may be large.
        let answer = Box::pin(async {
            let answer = self.endpoint.call(request).await;
            answer.map(IntoResponse::into_response)
        });
        let (response, outcomes) = match &self.options.cache {
            Some(cache) => self.options.answered(values, cache.scope(answer)).await,
            None => self.options.answered(values, answer).await,
        };
        let headers: Vec<_> = http::headers(&outcomes)
            .filter(|(name, _)| self.options.writes(name))
            .collect();
        let response = match response {
            Ok(response) => with_headers(response, headers),
            Err(error) if !headers.is_empty() => return Err(error_with_headers(error, headers)),
            Err(error) => return Err(error),
        };
        Ok(match self.options.conditional {
            true => unless_known(&method, &known, response),
            false => response,
        })
    }
}
