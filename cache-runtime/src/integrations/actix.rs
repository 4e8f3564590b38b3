//! Cached values as responses of the actix-web framework, and its middleware.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
};
use actix_web::{HttpRequest, HttpResponse, Responder};

use crate::call::ambient;
use crate::integrations::encoded::Encoded;
use crate::integrations::http::{self, JSON, REVALIDATE};
use crate::integrations::layer_options::{LayerOptions, option_methods};
use crate::integrations::request_parts::RequestParts;

/// The stored JSON with its `ETag` and `Cache-Control: no-cache`: clients must revalidate before
/// they reuse it.
impl<T> Responder for Encoded<T> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, JSON))
            .insert_header((CACHE_CONTROL, REVALIDATE))
            .insert_header((ETAG, self.etag_of_response()))
            .body(self.into_bytes())
    }
}

/// Writes into each response what the cache did for it, and answers conditional requests. The
/// headers are those of `cache_runtime::tower::CacheLayer`.
///
/// An error of a middleware inside of this one gets the headers too: it becomes the response that it
/// stands for. So a middleware that asks for an error's type belongs inside of this one.
///
/// ```
/// use actix_web::{App, web};
/// use cache_runtime::Encoded;
/// use cache_runtime::actix::CacheMiddleware;
///
/// async fn list() -> Encoded<Vec<u8>> {
///     Encoded::new(&vec![1, 2, 3]).expect("JSON")
/// }
///
/// let app = App::new()
///     .wrap(CacheMiddleware::new())
///     .route("/list", web::get().to(list));
/// # drop(app);
/// ```
#[derive(Debug, Clone, Default)]
pub struct CacheMiddleware {
    options: LayerOptions,
}

option_methods!(CacheMiddleware);

impl<S, B> Transform<S, ServiceRequest> for CacheMiddleware
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Transform = CacheService<S>;
    type InitError = ();
    type Future = Ready<Result<CacheService<S>, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        ready(Ok(CacheService {
            inner,
            options: self.options.clone(),
        }))
    }
}

/// The service that [`CacheMiddleware`] makes.
#[derive(Debug)]
pub struct CacheService<S> {
    inner: S,
    options: LayerOptions,
}

impl<S, B> Service<ServiceRequest> for CacheService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, actix_web::Error>>>>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), actix_web::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let method = request.method().clone();
        let known: Vec<HeaderValue> = match self.options.conditional {
            true => {
                let lines = request.headers().get_all(IF_NONE_MATCH);
                lines.cloned().collect()
            }
            false => Vec::new(),
        };
        let options = self.options.clone();
        let values = options.values(&RequestParts::of_actix(&request));
        let answer: Pin<Box<dyn Future<Output = _>>> = match &options.cache {
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
            let headers = http::headers(&outcomes).filter(|(name, _)| options.writes(name));
            let headers: Vec<_> = headers.collect();
            let mut response = match response {
                Ok(response) => response,
                Err(error) if headers.is_empty() => return Err(error),
                Err(error) => return Err(error_with_headers(error, headers)),
            };
            add_headers(response.headers_mut(), headers);
            let etag = response.headers().get(ETAG);
            let etag = etag.and_then(|etag| etag.to_str().ok());
            let known = known.iter().filter_map(|line| line.to_str().ok());
            let code = response.status().as_u16();
            Ok(
                match http::is_not_modified(method.as_str(), known, code, etag) {
                    true => not_modified(response),
                    false => response.map_into_left_body(),
                },
            )
        })
    }
}

/// The error of a middleware inside of this one, as the response that it stands for, with these
/// headers. It stays an error, with its message. An error of a handler is a response already.
fn error_with_headers(
    error: actix_web::Error,
    headers: Vec<(&'static str, String)>,
) -> actix_web::Error {
    let mut response = error.error_response();
    add_headers(response.headers_mut(), headers);
    InternalError::from_response(error, response).into()
}

/// Of `Cache-Invalidation` a response has one line, also with a layer around a layer.
fn add_headers(all: &mut HeaderMap, headers: Vec<(&'static str, String)>) {
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
}

fn not_modified<B>(response: ServiceResponse<B>) -> ServiceResponse<EitherBody<B>> {
    response.map_body(|head, _| {
        head.status = StatusCode::NOT_MODIFIED;
        let headers = head.headers_mut();
        headers.retain(|name, _| http::goes_with_not_modified(name.as_str()));
        EitherBody::right(BoxBody::new(()))
    })
}
