//! The page as a `tower` service, for axum.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use http_body::Body;
use tower_service::Service;

use super::{Admin, Rights};

/// The page as a service; see [`Admin::into_axum`].
#[derive(Debug)]
pub struct AdminService<F> {
    admin: Admin,
    rights: Arc<F>,
}

impl<F> Clone for AdminService<F> {
    fn clone(&self) -> Self {
        Self {
            admin: self.admin.clone(),
            rights: Arc::clone(&self.rights),
        }
    }
}

impl Admin {
    /// A service for axum's `Router::nest_service`; `rights` returns what the sender of a request
    /// may do. It can read what layers have put into the request's extensions.
    ///
    /// ```
    /// # async fn example(cache: cache_runtime::Cache) {
    /// use axum::Router;
    /// use cache_runtime::admin::{Admin, Rights};
    ///
    /// let page = Admin::new(&cache).into_axum(|request| match request.headers.get("x-user") {
    ///     Some(user) if user == "operator" => Rights::Change,
    ///     _ => Rights::Read,
    /// });
    /// let routes: Router = Router::new().nest_service("/cache/ui", page);
    /// # drop(routes);
    /// # }
    /// ```
    ///
    /// It takes any body and uses no type of axum, so it also works in hyper and tonic, as long as
    /// the path is relative to where it is mounted.
    pub fn into_axum<F>(self, rights: F) -> AdminService<F>
    where
        F: Fn(&Parts) -> Rights + Send + Sync,
    {
        AdminService {
            admin: self,
            rights: Arc::new(rights),
        }
    }
}

impl<F, B> Service<http::Request<B>> for AdminService<F>
where
    F: Fn(&Parts) -> Rights + Send + Sync + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<String>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let rights = (self.rights)(&head);
        let admin = self.admin.clone();
        let request = http::Request::from_parts(head, body);
        Box::pin(async move { Ok(admin.respond(request, rights).await) })
    }
}
