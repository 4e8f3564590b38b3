//! Cached values as responses of the axum framework. Its layer is that of tower,
//! [`CacheLayer`](crate::tower::CacheLayer).

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue};
use axum_core::body::Body;
use axum_core::response::{IntoResponse, Response};

use crate::integrations::encoded::Encoded;
use crate::integrations::http::{JSON, REVALIDATE};

/// The stored JSON with its `ETag` and `Cache-Control: no-cache`: clients must revalidate before
/// they reuse it.
impl<T> IntoResponse for Encoded<T> {
    fn into_response(self) -> Response {
        let etag = HeaderValue::try_from(self.etag_of_response());
        let mut response = Response::new(Body::from(self.into_bytes()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(REVALIDATE));
        headers.extend(etag.ok().map(|etag| (ETAG, etag)));
        response
    }
}
