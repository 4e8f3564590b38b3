//! The page as an endpoint of Poem.

use poem::http::StatusCode;
use poem::{Body, Endpoint, Request, Response, Result};

use super::{Admin, Rights};

/// A request of the page is small.
const LARGEST_BODY: usize = 64 << 10;

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
        let body = request.take_body().into_bytes_limit(LARGEST_BODY).await?;
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
