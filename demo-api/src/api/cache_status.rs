//! Reports to every client what the cache did for its request, in one place for all operations.

use std::sync::Arc;

use cache_runtime::observe;
use poem::http::HeaderValue;
use poem::http::header::HeaderName;
use poem::{Endpoint, Request, Response};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Runs a request and adds `Cache-Status` (RFC 9211) if it read through the cache.
pub(super) async fn add_header<E>(endpoint: Arc<E>, request: Request) -> poem::Result<Response>
where
    E: Endpoint<Output = Response>,
{
    let (response, outcomes) = observe(endpoint.call(request)).await;
    let mut response = response?;
    for outcome in outcomes.iter() {
        if let Ok(value) = HeaderValue::try_from(outcome.cache_status()) {
            response.headers_mut().append(CACHE_STATUS, value);
        }
    }
    Ok(response)
}
