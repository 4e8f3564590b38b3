//! Manual operations on the cache: statistics, and invalidation.

use cache_runtime::{Acknowledgement, Stats};
use poem::http::{HeaderMap, StatusCode};
use poem::{IntoResponse, Response};
use poem_openapi::auth::Bearer;
use poem_openapi::param::Path;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiResponse, OpenApi, SecurityScheme};

use super::error::{Failure, refusal};
use super::json::{CONTENT_TYPE, respond};
use crate::access::{CacheAccess, Denied};
use crate::resources::RESOURCES;
use crate::tag::ApiTag;

/// The right to change the cache by hand.
pub(super) struct CacheApi(pub(super) CacheAccess);

/// `Authorization: Bearer` and the token, or nothing.
#[derive(SecurityScheme)]
enum Credentials {
    Given(AdminToken),
    #[oai(fallback)]
    None,
}

/// The server's `CACHE_ADMIN_TOKEN`. A server that has no token and that only its own machine
/// reaches needs none.
#[derive(SecurityScheme)]
#[oai(ty = "bearer", key_in = "header")]
struct AdminToken(Bearer);

impl CacheApi {
    fn check(&self, credentials: &Credentials, headers: &HeaderMap) -> Result<(), Denied> {
        let token = match credentials {
            Credentials::Given(AdminToken(bearer)) => Some(bearer.token.as_str()),
            Credentials::None => None,
        };
        self.0.check(token, headers)
    }
}

type Refused = Failure<{ refusal::ACCESS }>;
type RefusedOrAbsent = Failure<{ refusal::ACCESS | refusal::ABSENT }>;

#[OpenApi(prefix_path = "/cache", tag = ApiTag::Cache)]
impl CacheApi {
    /// The statistics of the cache
    #[oai(path = "/stats", method = "get")]
    async fn stats(&self) -> Statistics {
        Statistics(cache_runtime::cache().get_stats().await)
    }

    /// Remove everything cached of a resource
    #[oai(path = "/:resource", method = "delete")]
    async fn forget(
        &self,
        credentials: Credentials,
        headers: &HeaderMap,
        /// `users` or `products`.
        resource: Path<String>,
    ) -> Result<ClearResponse, RefusedOrAbsent> {
        self.check(&credentials, headers)?;
        let Some(resource) = RESOURCES.into_iter().find(|known| *known == resource.0) else {
            return Err(RefusedOrAbsent::not_found(format!(
                "there is no such resource; use {}",
                RESOURCES.join(" or ")
            )));
        };
        Ok(
            match cache_runtime::cache().invalidate_all(resource).await {
                Acknowledgement::Pending | Acknowledgement::Lost => ClearResponse::Pending,
                _ => ClearResponse::Done,
            },
        )
    }

    /// Remove everything
    #[oai(path = "/", method = "delete")]
    async fn forget_all(
        &self,
        credentials: Credentials,
        headers: &HeaderMap,
    ) -> Result<ClearResponse, Refused> {
        self.check(&credentials, headers)?;
        Ok(match cache_runtime::cache().clear_all().await {
            Ok(_) => ClearResponse::Done,
            Err(error) => {
                tracing::warn!(%error, "the cache is not cleared yet");
                ClearResponse::Pending
            }
        })
    }
}

#[derive(ApiResponse)]
enum ClearResponse {
    /// No later read is answered with anything cached so far.
    #[oai(status = 204)]
    Done,
    /// Redis can't be reached: the invalidation is sent when it can, unless this process is stopped
    /// before. Until then this process reads without the cache.
    #[oai(status = 202)]
    Pending,
}

/// `Stats` serialises itself, in a documented order.
struct Statistics(Stats);

impl IntoResponse for Statistics {
    fn into_response(self) -> Response {
        respond(StatusCode::OK, &self.0)
    }
}

impl ApiResponse for Statistics {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "Counters since the start, and the state of Redis if there is one.",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: CONTENT_TYPE,
                    schema: serde_json::Value::schema_ref(),
                }],
                headers: vec![],
            }],
        }
    }
    fn register(_: &mut Registry) {}
}
