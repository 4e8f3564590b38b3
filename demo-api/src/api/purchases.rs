//! The endpoint of purchases.

use poem_openapi::{ApiResponse, OpenApi};
use sqlx::AnyPool;

use super::ApiTag;
use super::error::ApiError;
use super::json::Body;
use crate::purchases::{Purchase, PurchaseService};

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

#[OpenApi(prefix_path = "/purchases", tag = ApiTag::Purchases)]
impl PurchasesApi {
    /// Buy something: takes it from the stock and makes the buyer active, in one transaction
    #[oai(path = "/", method = "post")]
    async fn buy(&self, body: Body<Purchase>) -> Result<Bought, ApiError> {
        let cache = cache_runtime::cache();
        self.service.buy(&cache, body.into_input()?).await?;
        Ok(Bought::Done)
    }
}

#[derive(ApiResponse)]
enum Bought {
    /// Both are written.
    #[oai(status = 204)]
    Done,
}
