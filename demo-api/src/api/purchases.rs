//! The endpoint of purchases.

use poem_openapi::{ApiResponse, OpenApi};
use sqlx::AnyPool;

use super::error::{Failure, refusal};
use super::json::Body;
use crate::purchases::{Purchase, PurchaseService};
use crate::tag::ApiTag;

pub(super) struct PurchasesApi {
    service: PurchaseService,
}

impl PurchasesApi {
    pub(super) fn new(pool: AnyPool) -> Self {
        Self {
            service: PurchaseService::new(pool),
        }
    }
}

type Refused = Failure<{ refusal::INPUT | refusal::BODY | refusal::ABSENT | refusal::DATABASE }>;

#[OpenApi(prefix_path = "/purchases", tag = ApiTag::Purchases)]
impl PurchasesApi {
    /// Buy something: takes it from the stock and makes the buyer active, in one transaction
    #[oai(path = "/", method = "post")]
    async fn buy(&self, body: Body<Purchase>) -> Result<PurchaseResponse, Refused> {
        let cache = cache_runtime::cache();
        self.service.buy(&cache, body.into_input()?).await?;
        Ok(PurchaseResponse::Done)
    }
}

#[derive(ApiResponse)]
enum PurchaseResponse {
    /// Both are written.
    #[oai(status = 204)]
    Done,
}
