//! Cache-aside for async Rust services, by two attributes.
//!
//! [`#[cached]`](macro@cached) answers a call from the cache, or runs the function and stores its
//! result; [`#[invalidates]`](macro@invalidates) runs the function, then invalidates entries.
//!
//! ```
//! use std::{collections::HashMap, sync::Mutex};
//! use cache_runtime::{CacheConfig, cached, invalidates};
//!
//! #[derive(Default)]
//! struct Users { rows: Mutex<HashMap<i64, String>> }
//!
//! impl Users {
//!     #[cached(resource = "users", ttl = 300)] // kept as users:1 for five minutes
//!     async fn get(&self, id: i64) -> Option<String> {
//!         self.rows.lock().unwrap().get(&id).cloned()
//!     }
//!
//!     #[invalidates("users", id = id)] // users:1, and every list and count of users
//!     async fn rename(&self, id: i64, name: &str) {
//!         self.rows.lock().unwrap().insert(id, name.to_owned());
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() {
//!     let cache = cache_runtime::init(CacheConfig::default().local_mb(16)).await;
//!     let users = Users::default();
//!     users.rename(1, "Ada").await;
//!     assert_eq!(users.get(1).await.as_deref(), Some("Ada")); // runs the function
//!     assert_eq!(users.get(1).await.as_deref(), Some("Ada")); // does not
//!     assert_eq!(cache.get_stats().await.counters.hits, 1);
//! }
//! ```
//!
//! [`init`] installs the process-wide cache that annotated functions use; [`CacheConfig::from_env`]
//! reads its settings from the environment. [`Cache::new`] makes one of your own, for `cache = ..`
//! and for tests:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), cache_runtime::Error> {
//! use cache_runtime::{Cache, CacheConfig};
//!
//! let cache = Cache::new(CacheConfig::default().local_mb(16)).await;
//! cache.set("users:1", &String::from("Ada"), 300).await?;
//! assert_eq!(cache.get::<String>("users:1").await.as_deref(), Some("Ada"));
//! # Ok(()) }
//! ```
//!
//! A read that starts after an invalidation was acknowledged never gets older data: across
//! processes, with loads in flight, callers hanging up and bodies panicking. The one exception is
//! bounded in time: a local entry in front of Redis may lag behind a write of another process
//! ([`CacheConfig::local_max_staleness`]). With Redis off, away, hung or wrong, annotated functions
//! simply run. The book in the repository (`docs/book`) explains how this works.
//!
//! # Getting started
//!
//! - Cached types are `Clone` and implement serde's `Serialize` and `Deserialize`. Functions run on
//!   tokio.
//! - A service calls [`init`] with [`CacheConfig::from_env`] once. `REDIS_ENABLED=True` with
//!   `REDIS_HOST` or `REDIS_URL` turns on Redis (6.2 or later, or Valkey). `CACHE_LOCAL_MB` turns
//!   on the process's own memory. With neither, all calls simply run.
//! - Log lines go to `tracing`. [`observe`] reports the outcome of single calls, and
//!   [`Cache::get_stats`] counts them.
//! - If the commit comes after the function, see [`Cache::after_commit`].
//! - Tests use `testing::TestCache`, with the feature `testing`.
//!
//! **`self` is not in the key.** A service with several tenants must name the tenant, with
//! `include(self.tenant)` or in `id`.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `redis` | yes | the shared tier |
//! | `map` | yes | [`map`]: every annotated function registers itself at link time (Linux, macOS, Windows, the BSDs) |
//! | `outbox-postgres` | no | `outbox`: what any program commits to PostgreSQL is invalidated, by triggers or by hand |
//! | `outbox-sqlite` | no | the same for a file of SQLite that several processes share |
//! | `admin` | no | [`admin`]: a page to look at a cache with, and to act on it |
//! | `metrics` | no | [`metrics`]: figures for Prometheus, OpenTelemetry and others |
//! | `sqlx` | no | `sqlx::transaction`: begin, run, commit, then invalidate |
//! | `axum` | no | [`Encoded`] as a response, and the layer of `tower` |
//! | `actix` | no | [`Encoded`] as a response of actix-web, and `actix::CacheMiddleware` |
//! | `poem` | no | [`Encoded`] as a response, `poem::CacheMiddleware` and `poem::NotModified` |
//! | `tower` | no | `tower::CacheLayer`: `Cache-Status`, `Cache-Invalidation` and conditional requests |
//! | `poem-openapi` | no | [`Encoded`] as a documented response |
//! | `msgpack` | no | `codec = "msgpack"` |
//! | `postcard` | no | `codec = "postcard"` |
//! | `zstd` | no | `codec = "json+zstd"`, and values compressed in Redis (`CACHE_COMPRESS_OVER`) |
//! | `redis-tls` | no | TLS to Redis, with rustls |
//! | `memcached` | no | Memcached in place of Redis, which can promise less |
//! | `testing` | no | `testing::TestCache`, with a clock and faults, and the contract suite for your own stores |

// The modules, from the top layer down. A module imports only from those below it;
// `docs/layers.txt` has the order, and CI checks it.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[doc(hidden)]
pub mod __private;
mod renamed;
mod shape;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

mod cache;
mod integrations;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "outbox-postgres")]
pub mod outbox;

mod call;
mod diagnostics;

mod auditor;
mod engine;
mod monitor;

mod coalesce;
mod invalidation;

mod local;
mod registry;
mod stats;
pub mod store;
mod telemetry;

mod config;
mod protocol;

mod base;
mod key;

pub use cache_macros::{cache_defaults, cached, invalidates};

pub use crate::base::counters::CounterSnapshot;
pub use crate::base::error::{Error, ErrorKind};
pub use crate::base::policy::IntoTtl;
pub use crate::cache::{
    Cache, FunctionStats, Latency, Lease, Loader, Lookup, SwitchedOff, cache, inherit,
    inherit_blocking, init,
};
pub use crate::call::observe::{BypassReason, Outcome, Outcomes, StaleReason, Status, observe};
pub use crate::call::read::{AuditReport, AuditStats, LoadContext};
pub use crate::call::scope::{bypass, key_of, refresh};
pub use crate::call::tag::IntoTag;
pub use crate::config::resource::ResourceConfig;
pub use crate::config::{CacheConfig, ConfigError, MemcachedConfig, RedisConfig, SentinelConfig};
pub use crate::diagnostics::{Diagnostic, DiagnosticKind, DoctorReport};
#[cfg(feature = "actix")]
pub use crate::integrations::actix;
#[cfg(feature = "admin")]
pub use crate::integrations::admin;
pub use crate::integrations::encoded::Encoded;
#[cfg(feature = "poem")]
pub use crate::integrations::poem;
#[cfg(any(feature = "actix", feature = "poem", feature = "tower"))]
pub use crate::integrations::request_parts::RequestParts;
#[cfg(feature = "sqlx")]
pub use crate::integrations::sqlx;
#[cfg(feature = "tower")]
pub use crate::integrations::tower;
pub use crate::invalidation::Acknowledgement;
pub use crate::key::{EntryKind, IntoKey, Key, KeyPart};
pub use crate::local::LocalStats;
pub use crate::protocol::cacheable::Cacheable;
#[cfg(feature = "map")]
pub use crate::registry::catalog::{
    CachedFunction, Catalog, InvalidatingFunction, InvalidationTarget, Lint, LintKind,
    SourceLocation, catalog,
};
#[doc(hidden)]
#[allow(deprecated, reason = "for programs that use the former names")]
pub use crate::renamed::*;
pub use crate::stats::{OutboxStats, StatCounters, Stats, UnservedStats};
pub use crate::store::Circuit;
pub use crate::telemetry::audit::{AuditAction, AuditFinding, Verdict as AuditVerdict};
pub use crate::telemetry::events::{Event, EventKind, Events};
