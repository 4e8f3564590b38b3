//! Transactions with [SQLx](https://docs.rs/sqlx) that apply their invalidations on commit.
//!
//! With this feature `#[invalidates]` recognises a connection or transaction by its type, whatever
//! its name, and refuses it like one that it recognises by name:
//!
//! ```compile_fail
//! type Link = sqlx::AnyConnection;
//!
//! #[cache_runtime::invalidates("users")]
//! async fn rename(link: &mut Link) {}
//! ```
//!
//! ```
//! type Link = sqlx::AnyConnection;
//!
//! #[cache_runtime::invalidates("users", autocommit(link))]
//! async fn rename(link: &mut Link) {}
//! ```
//!
//! The same holds for traits of the program's own, and for the fields of `self`:
//!
//! ```compile_fail
//! trait Db: sqlx::Connection {}
//!
//! #[cache_runtime::invalidates("users")]
//! async fn rename(db: &mut impl Db) {}
//! ```
//!
//! ```compile_fail
//! struct Users<'a> { tx: &'a mut sqlx::Transaction<'a, sqlx::Any> }
//!
//! impl Users<'_> {
//!     #[cache_runtime::invalidates("users")]
//!     async fn rename(&mut self) { let _ = &mut self.tx; }
//! }
//! ```
//!
//! It holds inside of containers and locks, for parameters of the `impl` block, and where `self` is
//! the connection:
//!
//! ```compile_fail
//! type Shared = std::sync::Arc<tokio::sync::Mutex<Option<sqlx::Transaction<'static, sqlx::Any>>>>;
//!
//! #[cache_runtime::invalidates("users")]
//! async fn rename(shared: Shared) {}
//! ```
//!
//! ```compile_fail
//! struct Users<E>(E);
//!
//! impl<'e, E: sqlx::Executor<'e>> Users<E> {
//!     #[cache_runtime::invalidates("users")]
//!     async fn rename(&self, with: E) {}
//! }
//! ```
//!
//! ```compile_fail
//! trait Users { async fn rename(&mut self); }
//!
//! impl Users for sqlx::AnyConnection {
//!     #[cache_runtime::invalidates("users")]
//!     async fn rename(&mut self) {}
//! }
//! ```
//!
//! ```
//! type Shared = std::sync::Arc<tokio::sync::Mutex<Option<sqlx::Transaction<'static, sqlx::Any>>>>;
//! struct Users<E>(E);
//! trait Renames { async fn rename(&mut self); }
//!
//! #[cache_runtime::invalidates("users", autocommit(shared))]
//! async fn rename(shared: Shared) {}
//!
//! impl<'e, E: sqlx::Executor<'e>> Users<E> {
//!     #[cache_runtime::invalidates("users", autocommit(with))]
//!     async fn rename(&self, with: E) {}
//! }
//!
//! impl Renames for sqlx::AnyConnection {
//!     #[cache_runtime::invalidates("users", autocommit(self))]
//!     async fn rename(&mut self) {}
//! }
//! ```
//!
//! ```
//! trait Db {}
//! impl Db for sqlx::AnyPool {}
//! struct Users<'a> { conn: &'a sqlx::AnyPool }
//!
//! impl Users<'_> {
//!     #[cache_runtime::invalidates("users")]
//!     async fn rename(&self, db: impl Db, other: &impl Db, name: &mut Vec<u8>) { let _ = &self.conn; }
//! }
//! ```

use sqlx_core::acquire::Acquire;
use sqlx_core::database::Database;
use sqlx_core::pool::{Pool, PoolConnection};

use crate::cache::Cache;
use crate::call::transaction::TransactionOutcome;

/// Begins a transaction, runs `body` in it, commits, and then applies the invalidations made in it.
/// It is [`Cache::after_commit`] for a database that reports whether the commit succeeded.
///
/// | `body` | the database | the cache |
/// |---|---|---|
/// | returned `Ok` | committed | invalidated, before the caller gets the value |
/// | returned `Ok` | no answer to the commit | invalidated at once, and once more at the end of the in-doubt window |
/// | returned `Err` | rolled back | untouched |
/// | panicked, or was dropped | rolled back, or not known | not cached until the end of the in-doubt window, then invalidated |
///
/// With an [outbox](crate::CacheConfig::outbox) in the same database, it also writes rows to the
/// outbox in the transaction, right before the commit. Then committed writes are invalidated even
/// if the process dies before it has invalidated them, within about a second. An error of the
/// database while writing these rows ends the transaction.
///
/// ```no_run
/// # use cache_runtime::{Cache, invalidates};
/// # use sqlx::{AnyConnection, AnyPool};
/// struct Shop { pool: AnyPool, cache: Cache }
///
/// impl Shop {
///     #[invalidates("products", id = id, after_commit, cache = self.cache)]
///     async fn take(&self, tx: &mut AnyConnection, id: i64) -> Result<(), sqlx::Error> {
///         sqlx::query("UPDATE products SET stock = stock - 1 WHERE id = $1").bind(id).execute(tx).await?;
///         Ok(())
///     }
///
///     async fn buy(&self, id: i64) -> Result<(), sqlx::Error> {
///         cache_runtime::sqlx::transaction(&self.cache, &self.pool, async |tx| self.take(tx, id).await).await
///     }
/// }
/// ```
///
/// # Errors
/// The error of `body`, or the database's error on `BEGIN` or `COMMIT`.
///
/// # Cancel safety
/// If dropped while it runs, nobody knows whether it has committed: the last row of the table
/// applies.
pub async fn transaction<DB, T, E>(
    cache: &Cache,
    pool: &Pool<DB>,
    body: impl AsyncFnOnce(&mut DB::Connection) -> Result<T, E>,
) -> Result<T, E>
where
    DB: Database,
    E: From<sqlx_core::Error>,
{
    #[cfg(feature = "outbox-postgres")]
    let covered = cache
        .handle()
        .filter(|cache| crate::outbox::covers(cache, pool));
    #[cfg(feature = "outbox-postgres")]
    let mut written = None;
    let (output, is_acknowledged) = cache
        .transaction(Box::pin(async {
            let mut session = match pool.acquire().await {
                Ok(connection) => Session {
                    connection,
                    begins: !crate::base::mutation::is_active("beginning-connection-kept"),
                },
                Err(error) => return (Err(error.into()), TransactionOutcome::RolledBack),
            };
            let begun = session.connection.begin().await;
            session.begins = false;
            let mut transaction = match begun {
                Ok(transaction) => transaction,
                Err(error) => return (Err(error.into()), TransactionOutcome::RolledBack),
            };
            match body(&mut transaction).await {
                Ok(value) => {
                    #[cfg(feature = "outbox-postgres")]
                    if let Some(cache) = &covered {
                        match crate::outbox::write_collected(cache, &mut *transaction).await {
                            Ok(rows) => written = Some(rows),
                            Err(error) => {
                                let _ = transaction.rollback().await;
                                return (Err(error.into()), TransactionOutcome::RolledBack);
                            }
                        }
                    }
                    match transaction.commit().await {
                        Ok(()) => (Ok(value), TransactionOutcome::Committed),
                        Err(error) => (Err(error.into()), TransactionOutcome::Unknown),
                    }
                }
                Err(error) => {
                    // If that fails too, the database rolls back when it loses the connection.
                    let _ = transaction.rollback().await;
                    (Err(error), TransactionOutcome::RolledBack)
                }
            }
        }))
        .await;
    #[cfg(feature = "outbox-postgres")]
    if let (Some(cache), Some(rows), Ok(_), true) = (covered, written, &output, is_acknowledged) {
        rows.done(&cache);
    }
    let _ = is_acknowledged;
    output
}

/// A connection that does not return to the pool while a transaction begins.
///
/// SQLx 0.9.0 loses track of a transaction if the future of `begin` is dropped (its issues 4385 and
/// 4393). The next user of the connection would write into that transaction and never commit, and
/// would read and cache uncommitted data.
struct Session<DB: Database> {
    connection: PoolConnection<DB>,
    begins: bool,
}

impl<DB: Database> Drop for Session<DB> {
    fn drop(&mut self) {
        if self.begins {
            self.connection.close_on_drop();
        }
    }
}
