//! The cached service: written once, and annotated once, for every resource.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use cache_runtime::{Encoded, cached, invalidates};
use poem_openapi::Object;
use poem_openapi::types::{ParseFromJSON, ToJSON};
use sea_query::{Asterisk, Expr, ExprTrait as _, Order, Query, SelectStatement};
use sea_query_sqlx::SqlxBinder;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyPool, Row};
use time::OffsetDateTime;

use crate::error::ServiceError;
use crate::filter::Filter;
use crate::resource::{Input, Invalidation, Resource};
use crate::sql::{self, Value, to_micros};

/// Create, read, update and delete the rows of `R`.
///
/// Lists are sent as they are stored: a hit neither decodes nor encodes them. Rows are shared
/// behind an `Arc`, so that a hit in the local tier copies a pointer.
#[derive(Debug)]
pub struct CrudService<R> {
    pool: AnyPool,
    resource: PhantomData<fn() -> R>,
}

impl<R: Resource> CrudService<R> {
    /// A service on the given database.
    #[must_use]
    pub fn new(pool: AnyPool) -> Self {
        Self {
            pool,
            resource: PhantomData,
        }
    }

    /// The row `id`, cached as `users:1`. An absence is cached too.
    ///
    /// # Errors
    /// When the database fails.
    #[cached(resource = R::RESOURCE)]
    pub async fn get(&self, id: i64) -> Result<Option<Arc<R>>, ServiceError> {
        let mut select = select::<R>();
        select.and_where(Expr::col("id").eq(id));
        let rows = rows::<R>(sql::fetch_all(&self.pool, &select).await?)?;
        Ok(rows.into_iter().next().map(Arc::new))
    }

    /// The rows with these ids, by id, each cached as `users:1` like the one above. Cached rows are
    /// not read again; the others are read with one statement.
    ///
    /// # Errors
    /// When the database fails.
    #[cached(resource = R::RESOURCE, batch = ids)]
    pub async fn get_many(&self, ids: &[i64]) -> Result<HashMap<i64, Arc<R>>, ServiceError> {
        let mut select = select::<R>();
        select.and_where(Expr::col("id").is_in(ids.iter().copied()));
        let rows = rows::<R>(sql::fetch_all(&self.pool, &select).await?)?;
        Ok(rows
            .into_iter()
            .map(|row| (row.id(), Arc::new(row)))
            .collect())
    }

    /// Rows in the order of their ids, cached as `users:list:<hash>`.
    ///
    /// # Errors
    /// When the database fails.
    #[cached(resource = R::RESOURCE, op = "list")]
    pub async fn list(&self, skip: u32, limit: u32) -> Result<Encoded<Vec<R>>, ServiceError> {
        let mut select = select::<R>();
        select.order_by("id", Order::Asc);
        select.limit(limit.into()).offset(skip.into());
        let rows = sql::fetch_all(&self.pool, &select).await?;
        Ok(Encoded::new(&self::rows(rows)?)?)
    }

    /// The rows that a filter lets through, cached as `users:filter:<hash>`.
    ///
    /// # Errors
    /// When the database fails.
    #[cached(resource = R::RESOURCE, op = "filter")]
    pub async fn filter(&self, filter: &Filter) -> Result<Encoded<Vec<R>>, ServiceError> {
        Ok(Encoded::new(&self.select_filtered(filter).await?)?)
    }

    /// The same with the number of all matching rows, cached as `users:filter:paginated:<hash>`.
    ///
    /// # Errors
    /// When the database fails.
    #[cached(resource = R::RESOURCE, op = "filter:paginated")]
    pub async fn filter_paginated(
        &self,
        filter: &Filter,
    ) -> Result<Encoded<Page<R>>, ServiceError> {
        // A write between the two statements gives a page that never existed, but no stale entry:
        // the invalidation of that write prevents this result from being stored.
        let mut count = Query::select();
        count.expr_as(Expr::col(Asterisk).count(), "total");
        filter.restrict(count.from(R::RESOURCE));
        let total = match sql::fetch_all(&self.pool, &count).await?.first() {
            Some(row) => row.try_get::<i64, _>("total")?,
            None => 0,
        };
        let items = self.select_filtered(filter).await?;
        Ok(Encoded::new(&Page::new(
            items,
            total.unsigned_abs(),
            filter,
        ))?)
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When a value must be unique and is not, or the database fails.
    #[invalidates(R::RESOURCE, rejected = |error: &ServiceError| error.wrote_nothing())]
    pub async fn create(&self, input: R::Input) -> Result<R, ServiceError> {
        let mut columns = input.into_columns();
        columns.push((
            "created_at",
            Value::Integer(to_micros(OffsetDateTime::now_utc())),
        ));
        let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let mut insert = Query::insert();
        insert.into_table(R::RESOURCE).columns(names);
        insert.values_panic(values.into_iter().map(Expr::from));
        insert.returning(Query::returning().columns(column_names::<R>()));
        let written = self.write(&insert).await?;
        written.ok_or(ServiceError::Db(sqlx::Error::RowNotFound))
    }

    /// Replaces a row.
    ///
    /// # Errors
    /// When there is no such row, a value must be unique and is not, or the database fails.
    pub async fn update(&self, id: i64, input: R::Input) -> Result<R, ServiceError> {
        match R::INVALIDATION {
            Invalidation::Everything => self.update_forgetting_everything(id, input).await,
            Invalidation::Row => self.update_forgetting_row(id, input).await,
        }
    }

    /// Removes a row.
    ///
    /// # Errors
    /// When there is no such row, or the database fails.
    pub async fn delete(&self, id: i64) -> Result<(), ServiceError> {
        match R::INVALIDATION {
            Invalidation::Everything => self.delete_forgetting_everything(id).await,
            Invalidation::Row => self.delete_forgetting_row(id).await,
        }
    }

    #[invalidates(R::RESOURCE, rejected = |error: &ServiceError| error.wrote_nothing())]
    async fn update_forgetting_everything(
        &self,
        id: i64,
        input: R::Input,
    ) -> Result<R, ServiceError> {
        self.update_row(id, input).await
    }

    #[invalidates(R::RESOURCE, id = id, rejected = |error: &ServiceError| error.wrote_nothing())]
    async fn update_forgetting_row(&self, id: i64, input: R::Input) -> Result<R, ServiceError> {
        self.update_row(id, input).await
    }

    #[invalidates(R::RESOURCE, rejected = |error: &ServiceError| error.wrote_nothing())]
    async fn delete_forgetting_everything(&self, id: i64) -> Result<(), ServiceError> {
        self.delete_row(id).await
    }

    #[invalidates(R::RESOURCE, id = id, rejected = |error: &ServiceError| error.wrote_nothing())]
    async fn delete_forgetting_row(&self, id: i64) -> Result<(), ServiceError> {
        self.delete_row(id).await
    }

    async fn update_row(&self, id: i64, input: R::Input) -> Result<R, ServiceError> {
        let mut update = Query::update();
        update.table(R::RESOURCE);
        for (name, value) in input.into_columns() {
            update.value(name, value);
        }
        update.and_where(Expr::col("id").eq(id));
        update.returning(Query::returning().columns(column_names::<R>()));
        self.write(&update).await?.ok_or(ServiceError::NotFound {
            resource: R::RESOURCE,
            id,
        })
    }

    async fn delete_row(&self, id: i64) -> Result<(), ServiceError> {
        let mut delete = Query::delete();
        delete.from_table(R::RESOURCE);
        delete.and_where(Expr::col("id").eq(id));
        match sql::execute(&self.pool, &delete).await? {
            0 => Err(ServiceError::NotFound {
                resource: R::RESOURCE,
                id,
            }),
            _ => Ok(()),
        }
    }

    async fn select_filtered(&self, filter: &Filter) -> Result<Vec<R>, ServiceError> {
        let mut select = select::<R>();
        filter.restrict(&mut select);
        filter.paginate(&mut select);
        rows(sql::fetch_all(&self.pool, &select).await?)
    }

    /// Runs a write that returns the row it wrote, if it wrote one.
    async fn write(&self, statement: &(impl SqlxBinder + Sync)) -> Result<Option<R>, ServiceError> {
        let written = sql::fetch_all(&self.pool, statement).await;
        let written = written.map_err(conflict::<R>)?;
        Ok(rows(written)?.into_iter().next())
    }
}

fn column_names<R: Resource>() -> impl Iterator<Item = &'static str> {
    R::COLUMNS.iter().map(|column| column.name)
}

fn select<R: Resource>() -> SelectStatement {
    let mut select = Query::select();
    select.columns(column_names::<R>()).from(R::RESOURCE);
    select
}

fn rows<R: Resource>(rows: Vec<AnyRow>) -> Result<Vec<R>, ServiceError> {
    Ok(rows.iter().map(R::from_row).collect::<Result<_, _>>()?)
}

/// Returns the unique column that a write has violated. SQLite reports it as text only; both
/// databases name the index.
fn conflict<R: Resource>(error: sqlx::Error) -> ServiceError {
    let violated = error
        .as_database_error()
        .filter(|error| error.is_unique_violation())
        .and_then(|error| {
            R::UNIQUE.iter().find(|unique| {
                error.message().contains(unique.index) || error.constraint() == Some(unique.index)
            })
        });
    match violated {
        Some(unique) => ServiceError::Conflict {
            field: unique.field,
        },
        None => ServiceError::Db(error),
    }
}

/// One page of what a filter lets through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Object)]
pub struct Page<T: ParseFromJSON + ToJSON> {
    /// The rows of this page.
    pub items: Vec<T>,
    /// How many rows match on all pages.
    pub total: u64,
    /// The number of this page, from 1.
    pub page: u64,
    /// How many pages of `limit` rows there are.
    pub pages: u64,
    /// How many rows come before this page.
    pub skip: u32,
    /// The most rows a page has.
    pub limit: u32,
    /// Whether rows come after this page.
    pub has_next: bool,
}

impl<T: ParseFromJSON + ToJSON> Page<T> {
    fn new(items: Vec<T>, total: u64, filter: &Filter) -> Self {
        let (skip, limit) = (filter.skip(), filter.limit());
        Self {
            page: u64::from(skip / limit) + 1,
            pages: total.div_ceil(limit.into()),
            has_next: u64::from(skip) + u64::from(limit) < total,
            items,
            total,
            skip,
            limit,
        }
    }
}
