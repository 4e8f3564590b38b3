//! The page as an endpoint of Poem.

use std::time::Duration;

use bytes::Bytes;
use poem::http::{Method, StatusCode};
use poem::{Body, Endpoint, Request, Response, Result};

use super::{Admin, Rights};

/// A request of the page is small.
const LARGEST_BODY: usize = 64 << 10;
/// How long a client may take to send it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The page as an endpoint; see [`Admin::into_poem`].
#[derive(Debug, Clone)]
pub struct AdminEndpoint<F> {
    admin: Admin,
    rights: F,
}

impl Admin {
    /// An endpoint for [`poem::Route::nest`]; `rights` says what the sender of a request may do.
    pub fn into_poem<F>(self, rights: F) -> AdminEndpoint<F>
    where
        F: Fn(&Request) -> Rights + Send + Sync,
    {
        let admin = self;
        AdminEndpoint { admin, rights }
    }
}

impl<F: Fn(&Request) -> Rights + Send + Sync> Endpoint for AdminEndpoint<F> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let rights = (self.rights)(&request);
        // Nobody else's body is read: a client that sends none would hold the connection.
        let body = match request.method() == Method::POST && rights == Rights::Change {
            true => {
                let body = request.take_body().into_bytes_limit(LARGEST_BODY);
                match tokio::time::timeout(PATIENCE, body).await {
                    Ok(body) => body?,
                    Err(_) => return Err(StatusCode::REQUEST_TIMEOUT.into()),
                }
            }
            false => Bytes::new(),
        };
        let method = request.method().as_str().to_owned();
        let uri = request.uri().clone();
        let plain = super::Request {
            method: &method,
            path: uri.path(),
            query: uri.query().unwrap_or_default(),
            content_type: request.content_type().unwrap_or_default(),
            body: &body,
        };
        let answer = self.admin.answer(plain, rights).await;
        let status = StatusCode::from_u16(answer.status);
        let mut response = Response::builder().status(status.unwrap_or_default());
        for (name, value) in answer.headers {
            response = response.header(name, value);
        }
        Ok(response.body(Body::from_string(answer.body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::config::CacheConfig;

    fn silent(method: Method) -> Request {
        let body = futures_util::stream::pending::<std::io::Result<Bytes>>();
        let request = Request::builder()
            .method(method)
            .uri_str("/api/act")
            .content_type("application/json");
        request.body(Body::from_bytes_stream(body))
    }

    /// A client that announces a body and sends none holds nothing for long.
    #[tokio::test(start_paused = true)]
    async fn a_body_is_waited_for_only_where_it_is_needed() {
        let admin = Admin::new(&Cache::new(CacheConfig::default().local_mb(1)).await);
        let page = admin.clone().into_poem(|_| Rights::Read);
        for (method, status) in [
            (Method::POST, StatusCode::FORBIDDEN),
            (Method::GET, StatusCode::METHOD_NOT_ALLOWED),
        ] {
            let answer = page.call(silent(method)).await.expect("an answer");
            assert_eq!(answer.status(), status);
        }
        let page = admin.into_poem(|_| Rights::Change);
        let late = page.call(silent(Method::POST)).await.expect_err("too late");
        assert_eq!(late.status(), StatusCode::REQUEST_TIMEOUT);
    }
}
