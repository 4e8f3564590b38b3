//! Whether the database and the cache can be reached.

use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use sqlx::AnyPool;

use crate::db;
use crate::tag::ApiTag;

pub(super) struct HealthApi {
    pool: AnyPool,
}

impl HealthApi {
    pub(super) fn new(pool: AnyPool) -> Self {
        Self { pool }
    }
}

#[OpenApi(tag = ApiTag::Health)]
impl HealthApi {
    /// The start page
    #[oai(path = "/", method = "get", hidden)]
    async fn root(&self) -> Redirect {
        Redirect::SeeOther("/docs".to_owned())
    }

    /// Whether the database and the cache answer
    ///
    /// The status is 200 whenever this process answers at all. Without the cache the API is
    /// complete but slower; without the database it can answer only what is cached.
    #[oai(path = "/health", method = "get")]
    async fn health(&self) -> Json<Health> {
        let cache = cache_runtime::cache();
        let (database, available) =
            tokio::join!(db::is_available(&self.pool), cache.is_available());
        let reason = cache.get_stats().await.reason;
        Json(Health {
            status: if database {
                Status::Ok
            } else {
                Status::Degraded
            },
            database: Database {
                system: db::system(&self.pool).to_owned(),
                available: database,
            },
            cache: Cache {
                enabled: cache.is_enabled(),
                available,
                reason,
            },
        })
    }
}

#[derive(ApiResponse)]
enum Redirect {
    #[oai(status = 303)]
    SeeOther(#[oai(header = "location")] String),
}

/// The state of the parts.
#[derive(Object)]
struct Health {
    status: Status,
    database: Database,
    cache: Cache,
}

#[derive(Enum)]
#[oai(rename_all = "lowercase")]
enum Status {
    /// Requests are served.
    Ok,
    /// The database is away.
    Degraded,
}

#[derive(Object)]
struct Database {
    /// `SQLite` or `PostgreSQL`.
    system: String,
    /// Whether it answered a query.
    available: bool,
}

#[derive(Object)]
struct Cache {
    /// Whether one is configured.
    enabled: bool,
    /// Whether it answered.
    available: bool,
    /// Why it is not asked, or stores nothing new, as far as that is known.
    #[oai(skip_serializing_if_is_none)]
    reason: Option<String>,
}
