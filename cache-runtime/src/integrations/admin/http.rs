//! Answers requests of the `http` crate's types.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::{Admin, Response, Rights};

/// Requests of the page are small.
const LARGEST_BODY: usize = 64 << 10;
/// How long a client may take to send it.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

impl Admin {
    /// Answers a request of the `http` crate's type. Its path must be relative to where the page is
    /// mounted. Endpoints for other frameworks can be built on this.
    ///
    /// A body is only read if the user may change something: up to 64 KiB, within ten seconds.
    ///
    /// ```
    /// # async fn example(cache: cache_runtime::Cache) {
    /// use cache_runtime::admin::{Admin, Rights};
    ///
    /// let page = Admin::new(&cache);
    /// let request = http::Request::get("/api/state").body(String::new()).expect("a request");
    /// let response = page.respond(request, Rights::Read).await;
    /// assert_eq!(response.status(), 200);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// An action that has begun may or may not have been carried out.
    pub async fn respond<B>(
        &self,
        request: http::Request<B>,
        rights: Rights,
    ) -> http::Response<String>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let body = match head.method == Method::POST && rights == Rights::Change {
            true => match crate::base::time::timeout(BODY_TIMEOUT, read(body)).await {
                Ok(Ok(body)) => body,
                Ok(Err(refused)) => return plain(refused),
                Err(_) => return plain(Response::error(408, "the body did not come in time")),
            },
            // Other bodies are not read: a client that announces one and sends none would hold the
            // connection.
            false => Bytes::new(),
        };
        let content_type = head.headers.get(CONTENT_TYPE);
        let content_type = content_type.and_then(|it| it.to_str().ok());
        let request = super::Request {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            content_type: content_type.unwrap_or_default(),
            body: &body,
        };
        plain(self.answer(request, rights).await)
    }
}

async fn read<B>(body: B) -> Result<Bytes, Response>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match std::pin::pin!(Limited::new(body, LARGEST_BODY))
        .collect()
        .await
    {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Response::error(413, "send at most 64 KiB"))
        }
        Err(error) => Err(Response::error(400, &error.to_string())),
    }
}

fn plain(answer: Response) -> http::Response<String> {
    let mut response = http::Response::new(answer.body);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or_default();
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            let name = HeaderName::from_static(name);
            response.headers_mut().append(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::cache::Cache;
    use crate::config::CacheConfig;

    async fn admin() -> Admin {
        Admin::new(&Cache::new(CacheConfig::default().local_mb(1)).await)
    }

    fn request<B>(method: Method, body: B) -> http::Request<B> {
        let request = http::Request::builder().method(method).uri("/api/act");
        let request = request.header(CONTENT_TYPE, "application/json");
        request.body(body).expect("a request")
    }

    /// A client that announces a body and sends none does not hold the connection for long.
    #[tokio::test(start_paused = true)]
    async fn a_body_is_waited_for_only_where_it_is_needed() {
        let silent = || {
            let frames = futures_util::stream::pending::<std::io::Result<Frame<Bytes>>>();
            StreamBody::new(frames)
        };
        let admin = admin().await;
        for (method, status) in [(Method::POST, 403), (Method::GET, 405)] {
            let answer = admin.respond(request(method, silent()), Rights::Read).await;
            assert_eq!(answer.status(), status);
        }
        let late = request(Method::POST, silent());
        assert_eq!(admin.respond(late, Rights::Change).await.status(), 408);
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_a_limit() {
        let admin = admin().await;
        let action = r#"{"action":"invalidate","resource":"users"}"#.to_owned();
        let padded = |to: usize| format!("{action}{}", " ".repeat(to - action.len()));
        for (length, status) in [(action.len(), 200), (64 << 10, 200), ((64 << 10) + 1, 413)] {
            let request = request(Method::POST, padded(length));
            let answer = admin.respond(request, Rights::Change).await;
            assert_eq!(answer.status(), status, "{length} bytes: {}", answer.body());
        }
    }

    #[tokio::test]
    async fn the_page_comes_with_its_headers() {
        let request = http::Request::get("/")
            .body(String::new())
            .expect("a request");
        let page = admin().await.respond(request, Rights::Read).await;
        let header = |name| page.headers().get(name).and_then(|it| it.to_str().ok());
        assert_eq!(header("content-type"), Some("text/html; charset=utf-8"));
        assert!(header("content-security-policy").is_some_and(|it| it.contains("'none'")));
        assert!(page.body().contains("<html"));
    }
}
