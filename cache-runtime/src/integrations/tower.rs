//! A layer for services of the `tower` library, and so for axum, tonic and hyper.

#[cfg(feature = "axum")]
use std::any::Any;
#[cfg(feature = "axum")]
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use ::http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use tower_layer::Layer;
use tower_service::Service;

use crate::call::ambient;
use crate::integrations::http;
use crate::integrations::layer_options::{LayerOptions, option_methods};
use crate::integrations::request_parts::RequestParts;

/// Writes into each response what the cache did for it, and answers conditional requests.
///
/// - `Cache-Status` ([RFC 9211](https://www.rfc-editor.org/rfc/rfc9211)), for each call of a cached
///   function, up to 16. It contains keys, with their ids. If clients must not see them, turn it
///   off with [`status(false)`](Self::status).
/// - `Cache-Invalidation: delivered` after a write whose invalidations have reached the store, and
///   `pending` while the store is down: then other processes may serve older data for a while.
/// - `304 Not Modified` instead of a `200` whose `ETag` the client sends in `If-None-Match`, for
///   `GET` and `HEAD`. An [`Encoded`](crate::Encoded) has an `ETag`.
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{Router, routing::get};
/// use cache_runtime::Encoded;
/// use cache_runtime::tower::CacheLayer;
///
/// async fn list() -> Encoded<Vec<u8>> {
///     Encoded::new(&vec![1, 2, 3]).expect("JSON")
/// }
///
/// let app: Router = Router::new().route("/list", get(list)).layer(CacheLayer::new());
/// # drop(app);
/// # }
/// ```
///
/// It does not see calls in tasks that a handler spawns, nor calls while a body is streamed.
#[derive(Debug, Clone, Default)]
pub struct CacheLayer {
    options: LayerOptions,
}

option_methods!(CacheLayer);

impl<S> Layer<S> for CacheLayer {
    type Service = CacheService<S>;

    fn layer(&self, inner: S) -> CacheService<S> {
        CacheService {
            inner,
            options: self.options.clone(),
        }
    }
}

/// The service that [`CacheLayer`] makes.
#[derive(Debug, Clone)]
pub struct CacheService<S> {
    inner: S,
    options: LayerOptions,
}

impl<S, B, C> Service<Request<B>> for CacheService<S>
where
    S: Service<Request<B>, Response = Response<C>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    C: Default + 'static,
{
    type Response = Response<C>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<C>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request.method().clone();
        let known: Vec<HeaderValue> = match self.options.conditional {
            true => {
                let lines = request.headers().get_all(IF_NONE_MATCH);
                lines.iter().cloned().collect()
            }
            false => Vec::new(),
        };
        let options = self.options.clone();
        let values = options.values(&RequestParts::of_tower(&request));
        // A handler may do work when it is called, before its future is polled.
        let answer: Pin<Box<dyn Future<Output = _> + Send>> = match &options.cache {
            Some(cache) => {
                let call = || cache.scope_now(|| self.inner.call(request));
                let answer = ambient::around_now(&values, call);
                Box::pin(cache.scope(answer))
            }
            None => {
                let call = || self.inner.call(request);
                Box::pin(ambient::around_now(&values, call))
            }
        };
        Box::pin(async move {
            let (response, outcomes) = options.answered(values, answer).await;
            let mut response = response?;
            for (name, value) in http::headers(&outcomes) {
                if options.writes(name) {
                    add_header(response.headers_mut(), name, value);
                }
            }
            let etag = response.headers().get(ETAG);
            let etag = etag.and_then(|etag| etag.to_str().ok());
            let known = known.iter().filter_map(|line| line.to_str().ok());
            let code = response.status().as_u16();
            Ok(
                match http::is_not_modified(method.as_str(), known, code, etag) {
                    true => not_modified(response),
                    false => response,
                },
            )
        })
    }
}

/// Of `Cache-Invalidation` a response has one line, also with a layer around a layer.
fn add_header(headers: &mut HeaderMap, name: &'static str, value: String) {
    let is_single = name == http::CACHE_INVALIDATION;
    let written = headers.get(name).filter(|_| is_single);
    let written = written.and_then(|written| written.to_str().ok());
    let Ok(value) = HeaderValue::try_from(http::worse(written, value)) else {
        return;
    };
    let name = HeaderName::from_static(name);
    if is_single {
        headers.insert(name, value);
    } else {
        headers.append(name, value);
    }
}

fn not_modified<C: Default + 'static>(response: Response<C>) -> Response<C> {
    let (mut head, _) = response.into_parts();
    head.status = StatusCode::NOT_MODIFIED;
    let names = head.headers.keys();
    let names = names.filter(|name| !http::goes_with_not_modified(name.as_str()));
    let names: Vec<_> = names.cloned().collect();
    for name in names {
        head.headers.remove(name);
    }
    Response::from_parts(head, no_body())
}

/// A body without content. Of one that is known to be empty, axum writes `Content-Length: 0`, though
/// with `304` that would be the length of the `200` (RFC 9110, section 8.6). So axum gets one of
/// unknown length.
fn no_body<C: Default + 'static>() -> C {
    #[cfg(feature = "axum")]
    {
        let nothing = futures_util::stream::empty::<Result<bytes::Bytes, Infallible>>();
        let mut body = Some(axum_core::body::Body::from_stream(nothing));
        let body: Option<&mut Option<C>> = (&mut body as &mut dyn Any).downcast_mut();
        if let Some(body) = body.and_then(Option::take) {
            return body;
        }
    }
    C::default()
}
