//! What is cached, and where it comes from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use hitbox_fn::CacheableResponse;
use serde::{Deserialize, Serialize};

/// A row as a users table has it, of about 130 bytes in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CacheableResponse)]
pub struct User {
    pub id: i64,
    pub name: String,
    pub email: String,
    pub age: i64,
    pub active: bool,
    pub created_at: String,
    /// Counts the writes of this row; the course reads it.
    pub version: u64,
}

impl User {
    /// The row `id` after `version` writes.
    pub fn new(id: i64, version: u64) -> Self {
        Self {
            id,
            name: format!("Ada Lovelace {id}"),
            email: format!("ada.lovelace.{id}@example.com"),
            age: 18 + id % 63,
            active: id % 10 > 0,
            created_at: "2024-01-01T16:43:00Z".to_owned(),
            version,
        }
    }
}

static LOADS: AtomicU64 = AtomicU64::new(0);

/// How often this process has asked the database: a benchmark of hits looks whether they were.
pub fn loads() -> u64 {
    LOADS.load(Ordering::Relaxed)
}

/// A page of a hundred rows.
pub fn page(number: i64) -> Vec<User> {
    LOADS.fetch_add(1, Ordering::Relaxed);
    (number * 100..number * 100 + 100)
        .map(|id| User::new(id, 0))
        .collect()
}

/// A text of `size` bytes.
pub fn text(size: i64) -> String {
    LOADS.fetch_add(1, Ordering::Relaxed);
    "0123456789abcdef"
        .chars()
        .cycle()
        .take(usize::try_from(size).unwrap_or(0))
        .collect()
}

/// The database: what the cached functions do when they run.
pub trait Source: Send + Sync + 'static {
    /// The version of row `id`, after as long as the query takes.
    fn load(&self, id: i64) -> BoxFuture<'_, u64>;
    /// Writes row `id`; its new version.
    fn commit(&self, id: i64) -> BoxFuture<'_, u64>;
}

/// One that takes no time.
#[derive(Debug)]
struct Immediate;

impl Source for Immediate {
    fn load(&self, _: i64) -> BoxFuture<'_, u64> {
        Box::pin(std::future::ready(0))
    }

    fn commit(&self, _: i64) -> BoxFuture<'_, u64> {
        Box::pin(std::future::ready(0))
    }
}

static SOURCE: OnceLock<Arc<dyn Source>> = OnceLock::new();

/// Makes `source` the database of this process. Global, because the functions that some rivals
/// annotate are free ones, and all their parameters are in the key.
///
/// # Panics
///
/// When there is one.
pub fn install(source: Arc<dyn Source>) {
    assert!(SOURCE.set(source).is_ok(), "the database is there already");
}

/// The database of this process.
pub fn source() -> &'static dyn Source {
    SOURCE.get_or_init(|| Arc::new(Immediate)).as_ref()
}

/// The row, from the database.
pub async fn load(id: i64) -> User {
    LOADS.fetch_add(1, Ordering::Relaxed);
    User::new(id, source().load(id).await)
}
