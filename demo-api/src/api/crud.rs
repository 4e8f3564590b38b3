//! The endpoints of a resource, written once.

use std::collections::HashSet;
use std::sync::Arc;

use cache_runtime::Encoded;
use poem::Request;
use poem_openapi::param::{Path, Query};
use poem_openapi::{ApiResponse, OpenApi};
use serde_json::Value;
use sqlx::AnyPool;

use super::error::{Failure, refusal};
use super::json::{Body, Created, Found};
use crate::error::{Invalid, ServiceError};
use crate::filter::{DEFAULT_LIMIT, Filter, checked_limit, checked_skip};
use crate::input::parse_ids;
use crate::mutation;
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

use refusal::{ABSENT, BODY, CONFLICT, DATABASE, INPUT};

type ListRefused = Failure<{ INPUT | DATABASE }>;
type FilterRefused = Failure<{ INPUT | BODY | DATABASE }>;
type RowRefused = Failure<{ INPUT | ABSENT | DATABASE }>;
type CreateRefused = Failure<{ INPUT | BODY | CONFLICT | DATABASE }>;
type UpdateRefused = Failure<{ INPUT | BODY | ABSENT | CONFLICT | DATABASE }>;

#[OpenApi(prefix_path = R::RESOURCE, tag = R::TAG)]
impl<R: Resource> CrudApi<R> {
    /// A page in the order of ids, or the rows with the ids given
    #[oai(path = "/", method = "get")]
    async fn list(
        &self,
        request: &Request,
        /// Ids with commas between them, 100 at most: `1,2,3`. The answer has those that exist, in
        /// this order; `skip` and `limit` do not change it.
        ids: Query<Option<String>>,
        /// How many rows to leave out.
        #[oai(default)]
        skip: Query<i64>,
        /// How many rows to return at most, 1 to 1000.
        #[oai(default = "default_limit")]
        limit: Query<i64>,
    ) -> Result<Encoded<Vec<R>>, ListRefused> {
        check_names(request)?;
        let (skip, limit) = (checked_skip(skip.0)?, checked_limit(limit.0)?);
        if let Some(ids) = ids.0 {
            let ids = parse_ids(&ids)?;
            let mut rows = self.service.get_many(&ids).await?;
            let found = ids.iter().filter_map(|id| rows.remove(id));
            let found: Vec<R> = found.map(Arc::unwrap_or_clone).collect();
            return Ok(Encoded::new(&found).map_err(ServiceError::from)?);
        }
        Ok(self.service.list(skip, limit).await?)
    }

    /// One row
    #[oai(path = "/:id", method = "get")]
    async fn get(&self, id: Path<i64>) -> Result<Found<R>, RowRefused> {
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
    async fn filter(&self, body: Body<Value>) -> Result<Encoded<Vec<R>>, FilterRefused> {
        let filter = Filter::parse::<R>(body.into_value())?;
        Ok(self.service.filter(&filter).await?)
    }

    /// The rows that meet conditions, and how many there are
    #[oai(path = "/filter-paginated", method = "post")]
    async fn filter_paginated(&self, body: Body<Value>) -> Result<Encoded<Page<R>>, FilterRefused> {
        let filter = Filter::parse::<R>(body.into_value())?;
        Ok(self.service.filter_paginated(&filter).await?)
    }

    /// Add a row
    #[oai(path = "/", method = "post")]
    async fn create(&self, body: Body<R::Input>) -> Result<Created<R>, CreateRefused> {
        Ok(Created::new(self.service.create(body.into_input()?).await?))
    }

    /// Replace a row
    #[oai(path = "/:id", method = "put")]
    async fn update(&self, id: Path<i64>, body: Body<R::Input>) -> Result<Found<R>, UpdateRefused> {
        Ok(Found::new(
            self.service.update(id.0, body.into_input()?).await?,
        ))
    }

    /// Remove a row
    #[oai(path = "/:id", method = "delete")]
    async fn delete(&self, id: Path<i64>) -> Result<DeleteResponse, RowRefused> {
        self.service.delete(id.0).await?;
        Ok(DeleteResponse::Gone)
    }
}

/// Refuses misspelt parameters, and those that are given twice, which would be ignored otherwise.
fn check_names(request: &Request) -> Result<(), Invalid> {
    const KNOWN: [&str; 3] = ["ids", "skip", "limit"];
    let given: Vec<(String, String)> = request.params().unwrap_or_default();
    let mut seen = HashSet::new();
    for (name, _) in &given {
        if !KNOWN.contains(&name.as_str()) {
            let reason = format!("unknown parameter; use {}", KNOWN.join(", "));
            return Err(Invalid::new(name, reason));
        }
        if !seen.insert(name) && !mutation::is_active("demo-parameters-given-twice") {
            return Err(Invalid::new(name, "is given more than once"));
        }
    }
    Ok(())
}

fn default_limit() -> i64 {
    DEFAULT_LIMIT.into()
}

#[derive(ApiResponse)]
enum DeleteResponse {
    /// The row is gone.
    #[oai(status = 204)]
    Gone,
}
