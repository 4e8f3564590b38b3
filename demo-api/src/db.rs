//! Opens the database: connections, tables, first rows.

use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Connection};

use crate::seed;
use crate::sql::is_sqlite;

/// Each migration with its text for SQLite and for PostgreSQL, in the order of application.
const MIGRATIONS: [(&str, &str, &str); 2] = [
    (
        "0001_users",
        include_str!("../migrations/sqlite/0001_users.sql"),
        include_str!("../migrations/postgres/0001_users.sql"),
    ),
    (
        "0002_products",
        include_str!("../migrations/sqlite/0002_products.sql"),
        include_str!("../migrations/postgres/0002_products.sql"),
    ),
];

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the database at `url`, creates what is missing and fills it the first time.
///
/// # Errors
/// When the database can't be reached or refuses.
pub async fn open(url: &str) -> Result<AnyPool, sqlx::Error> {
    sqlx::any::install_default_drivers();
    // The pool would try again until its own timeout, and report a timeout instead of the reason.
    let first = tokio::time::timeout(CONNECT_TIMEOUT, AnyConnection::connect(url)).await;
    first
        .map_err(|_| sqlx::Error::PoolTimedOut)??
        .close()
        .await?;

    // Each connection to an in-memory database would open a database of its own.
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    let options = AnyPoolOptions::new()
        .acquire_timeout(CONNECT_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                if is_sqlite(connection) {
                    // LIKE ignores case by default in SQLite and never in PostgreSQL.
                    run(
                        connection,
                        "PRAGMA case_sensitive_like = ON; PRAGMA synchronous = NORMAL",
                    )
                    .await?;
                }
                Ok(())
            })
        });
    let options = if in_memory {
        options
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
    } else {
        options.max_connections(8)
    };
    let pool = options.connect(url).await?;
    prepare(&pool).await?;
    Ok(pool)
}

/// Applies what has not been applied, all in one transaction that excludes every other process: two
/// of them may well be started at the same moment on the same empty database. (sqlx's own migrator
/// takes such a lock on PostgreSQL but not on SQLite.)
async fn prepare(pool: &AnyPool) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let sqlite = is_sqlite(&connection);
    if sqlite {
        write_ahead_log(&mut connection).await?;
    }
    drop(connection);

    let mut transaction = pool
        .begin_with(if sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" })
        .await?;
    if !sqlite {
        run(&mut transaction, "SELECT pg_advisory_xact_lock(7236118)").await?;
    }
    run(
        &mut transaction,
        "CREATE TABLE IF NOT EXISTS applied (step TEXT PRIMARY KEY)",
    )
    .await?;
    for (step, for_sqlite, for_postgres) in MIGRATIONS {
        if first_time(&mut transaction, step).await? {
            run(
                &mut transaction,
                if sqlite { for_sqlite } else { for_postgres },
            )
            .await?;
        }
    }
    if first_time(&mut transaction, "seed").await? {
        seed::fill(&mut transaction).await?;
    }
    transaction.commit().await
}

/// Records `step` as applied; `false` if it was.
async fn first_time(connection: &mut AnyConnection, step: &str) -> Result<bool, sqlx::Error> {
    let record = sqlx::query("INSERT INTO applied (step) VALUES ($1) ON CONFLICT DO NOTHING");
    let done = record.bind(step.to_owned()).execute(connection).await?;
    Ok(done.rows_affected() == 1)
}

/// Lets readers continue while somebody writes. SQLite stores this setting in the file, and does
/// not wait for the lock that the change needs, so this function does.
async fn write_ahead_log(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let mut attempts = 50;
    loop {
        match run(connection, "PRAGMA journal_mode = WAL").await {
            Err(sqlx::Error::Database(error))
                if error.message().contains("locked") && attempts > 0 =>
            {
                attempts -= 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
}

/// Whether the database answers.
pub async fn is_available(pool: &AnyPool) -> bool {
    let answer = sqlx::query("SELECT 1").fetch_all(pool);
    matches!(
        tokio::time::timeout(Duration::from_secs(2), answer).await,
        Ok(Ok(_))
    )
}

/// The name of the database system.
#[must_use]
pub fn system(pool: &AnyPool) -> &'static str {
    if pool.connect_options().database_url.scheme() == "sqlite" {
        "SQLite"
    } else {
        "PostgreSQL"
    }
}

/// Runs statements that take no values.
async fn run(connection: &mut AnyConnection, statements: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await?;
    Ok(())
}
