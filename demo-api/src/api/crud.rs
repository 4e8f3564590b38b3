//! The endpoints of a resource, written once.

use std::sync::Arc;

use cache_runtime::Encoded;
use poem_openapi::param::{Path, Query};
use poem_openapi::{ApiResponse, Object, OpenApi};
use sqlx::AnyPool;

use super::error::ApiError;
use super::json::{Body, Created, Found};
use crate::error::ServiceError;
use crate::filter::{DEFAULT_LIMIT, Filter, checked_limit, checked_skip};
use crate::input::parse_ids;
use crate::resource::Resource;
use crate::service::{CrudService, Page};

/// The endpoints of the resource `R`.
pub(super) struct CrudApi<R> {
    service: CrudService<R>,
}

impl<R: Resource> CrudApi<R> {
    pub(super) fn new(pool: AnyPool) -> Self {
        Self {
            service: CrudService::new(pool),
        }
    }
}

#[OpenApi(prefix_path = R::RESOURCE, tag = R::TAG)]
impl<R: Resource> CrudApi<R> {
    /// A page in the order of ids, or the rows with the ids given
    #[oai(path = "/", method = "get")]
    async fn list(
        &self,
        /// Ids with commas between them, 100 at most: `1,2,3`. The answer has those that exist, in this order, and `skip`
        /// and `limit` say nothing.
        ids: Query<Option<String>>,
        /// How many rows to leave out.
        #[oai(default)]
        skip: Query<i64>,
        /// How many rows to return at most, 1 to 1000.
        #[oai(default = "default_limit")]
        limit: Query<i64>,
    ) -> Result<Encoded<Vec<R>>, ApiError> {
        if let Some(ids) = ids.0 {
            let ids = parse_ids(&ids)?;
            let mut rows = self.service.get_many(&ids).await?;
            let found = ids.iter().filter_map(|id| rows.remove(id));
            let found: Vec<R> = found.map(Arc::unwrap_or_clone).collect();
            return Ok(Encoded::new(&found).map_err(ServiceError::from)?);
        }
        let (skip, limit) = (checked_skip(skip.0)?, checked_limit(limit.0)?);
        Ok(self.service.list(skip, limit).await?)
    }

    /// One row
    #[oai(path = "/:id", method = "get")]
    async fn get(&self, id: Path<i64>) -> Result<Found<R>, ApiError> {
        match self.service.get(id.0).await? {
            Some(row) => Ok(Found::new(row)),
            None => Err(ServiceError::NotFound {
                resource: R::RESOURCE,
                id: id.0,
            }
            .into()),
        }
    }

    /// The rows that meet conditions
    #[oai(path = "/filter", method = "post")]
    async fn filter(&self, body: Body<FilterBody>) -> Result<Encoded<Vec<R>>, ApiError> {
        let filter = Filter::parse::<R>(body.into_value())?;
        Ok(self.service.filter(&filter).await?)
    }

    /// The rows that meet conditions, and how many there are
    #[oai(path = "/filter-paginated", method = "post")]
    async fn filter_paginated(&self, body: Body<FilterBody>) -> Result<Encoded<Page<R>>, ApiError> {
        let filter = Filter::parse::<R>(body.into_value())?;
        Ok(self.service.filter_paginated(&filter).await?)
    }

    /// Add a row
    #[oai(path = "/", method = "post")]
    async fn create(&self, body: Body<R::Input>) -> Result<Created<R>, ApiError> {
        Ok(Created::new(self.service.create(body.into_input()?).await?))
    }

    /// Replace a row
    #[oai(path = "/:id", method = "put")]
    async fn update(&self, id: Path<i64>, body: Body<R::Input>) -> Result<Found<R>, ApiError> {
        Ok(Found::new(
            self.service.update(id.0, body.into_input()?).await?,
        ))
    }

    /// Remove a row
    #[oai(path = "/:id", method = "delete")]
    async fn delete(&self, id: Path<i64>) -> Result<Deleted, ApiError> {
        self.service.delete(id.0).await?;
        Ok(Deleted::Gone)
    }
}

fn default_limit() -> i64 {
    DEFAULT_LIMIT.into()
}

#[derive(ApiResponse)]
enum Deleted {
    /// The row is gone.
    #[oai(status = 204)]
    Gone,
}

/// What to look for. Everything may be left out.
#[derive(Object)]
#[oai(example)]
struct FilterBody {
    /// All of them must be met.
    conditions: Option<Vec<ConditionBody>>,
    /// The id comes last by itself.
    order_by: Option<Vec<OrderBody>>,
    /// How many rows to leave out, by default 0.
    skip: Option<u32>,
    /// How many rows to return at most, by default 100.
    #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
    limit: Option<u32>,
}

/// Either `field`, `op` and `value`, or one of `and` and `or`.
#[derive(Object)]
struct ConditionBody {
    /// A column.
    #[oai(skip_serializing_if_is_none)]
    field: Option<String>,
    /// `eq`, `ne`, `lt`, `lte`, `gt`, `gte`, `in`, `like`, `ilike`, `between` or `is_null`.
    #[oai(skip_serializing_if_is_none)]
    op: Option<String>,
    /// What to compare with: an array for `in` and `between`, a boolean for `is_null`.
    #[oai(skip_serializing_if_is_none)]
    value: Option<serde_json::Value>,
    /// All of these must be met.
    #[oai(skip_serializing_if_is_none)]
    and: Option<Vec<ConditionBody>>,
    /// At least one of these must be met.
    #[oai(skip_serializing_if_is_none)]
    or: Option<Vec<ConditionBody>>,
}

/// One column to order by.
#[derive(Object)]
struct OrderBody {
    /// A column.
    field: String,
    /// `asc`, the default, or `desc`.
    direction: Option<String>,
}

impl poem_openapi::types::Example for FilterBody {
    fn example() -> Self {
        Self {
            conditions: Some(vec![ConditionBody {
                field: Some("name".into()),
                op: Some("ilike".into()),
                value: Some("%a%".into()),
                and: None,
                or: None,
            }]),
            order_by: Some(vec![OrderBody {
                field: "created_at".into(),
                direction: Some("desc".into()),
            }]),
            skip: Some(0),
            limit: Some(10),
        }
    }
}
