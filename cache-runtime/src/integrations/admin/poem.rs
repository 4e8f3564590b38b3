//! The page as an endpoint of Poem.

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use poem::{Body, Endpoint, Request, Response, Result};

use super::{Admin, Rights};

/// The page as an endpoint; see [`Admin::into_poem`].
#[derive(Debug, Clone)]
pub struct AdminEndpoint<F> {
    admin: Admin,
    rights: F,
}

impl Admin {
    /// An endpoint for [`poem::Route::nest`]; `rights` returns what the sender of a request may do.
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
        let body: BoxBody<Bytes, std::io::Error> = request.take_body().into();
        let mut plain = http::Request::new(body);
        *plain.method_mut() = request.method().clone();
        *plain.uri_mut() = request.uri().clone();
        *plain.headers_mut() = request.headers().clone();
        let (head, body) = self.admin.respond(plain, rights).await.into_parts();
        let mut response = Response::from(Body::from_string(body));
        response.set_status(head.status);
        *response.headers_mut() = head.headers;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use poem::http::{Method, StatusCode};

    use super::*;
    use crate::cache::Cache;
    use crate::config::CacheConfig;

    #[tokio::test]
    async fn rights_come_from_the_request() {
        let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
        let page = Admin::new(&cache).into_poem(|request| match request.header("x-user") {
            Some("operator") => Rights::Change,
            _ => Rights::Read,
        });
        for (user, status) in [
            ("anybody", StatusCode::FORBIDDEN),
            ("operator", StatusCode::OK),
        ] {
            let request = Request::builder()
                .method(Method::POST)
                .uri_str("/api/act")
                .header("x-user", user)
                .content_type("application/json")
                .body(r#"{"action":"invalidate","resource":"users"}"#);
            let answer = page.call(request).await.expect("an answer");
            assert_eq!(answer.status(), status, "{user}");
            assert_eq!(answer.content_type(), Some("application/json"));
        }
    }
}
