//! The outbox in a file of SQLite, which the processes of one machine share.
//!
//! SQLite has no notifications, no statement-level triggers and no snapshot functions, and needs
//! none of them. Reading one table by its key is cheap enough to do it every 20 ms. Only one
//! transaction writes at a time, so ids are in the order of commits. [The
//! triggers](super::Triggers::sqlite_sql) run for each row.
//!
//! - With Redis each process delivers the rows that it finds, and deletes them when Redis has
//!   acknowledged. Nobody holds the file's lock meanwhile, so two processes may deliver the same
//!   row, which is harmless.
//! - Without Redis each process reads on from the last id. Rows are deleted after a time, and the
//!   state says up to which id: a process that has not read that far starts with an empty cache.

mod session;
mod tables;

use ::sqlx::sqlite::SqliteConnection;
use ::sqlx::{AssertSqlSafe, Connection as _, Row as _};

pub(super) use self::session::session;
pub(super) use self::tables::NOW;
pub use self::tables::{VERSION, migration};
use self::tables::{exists, migration_of, names, natural};
use super::file_coverage::{covered_tables, list_name, triggers_of};
use super::install::Status;
use super::migration::later_text;
use super::triggers::Triggers;
use crate::config::outbox::OutboxConfig;

/// Runs the [migration](migration()), and the triggers if there are any, in one transaction.
/// Triggers of tables that have left the list stay.
///
/// # Errors
/// The database's error: a table or a column is missing, or another process holds the lock for too
/// long. [`sqlx::Error::InvalidArgument`] if a later release has installed its version of the
/// tables.
///
/// # Cancel safety
/// If dropped, everything is installed or nothing is.
pub async fn install(
    connection: &mut SqliteConnection,
    config: &OutboxConfig,
    triggers: Option<&Triggers>,
) -> Result<(), ::sqlx::Error> {
    if exists(connection, &config.table).await? {
        let (_, _, state) = names(&config.table);
        let sql = format!("SELECT version FROM {state}");
        let there = ::sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql))
            .fetch_optional(&mut *connection)
            .await?;
        if there.is_some_and(|there| there > VERSION) {
            return Err(::sqlx::Error::InvalidArgument(later_text(
                config.table.name(),
                there.unwrap_or_default(),
                VERSION,
            )));
        }
    }
    let triggers = triggers.map(|it| it.sqlite_into(&config.table));
    let triggers = triggers.unwrap_or_default();
    run(
        connection,
        format!("{}{triggers}", migration_of(&config.table)),
    )
    .await
}

/// Lets the relays share the rows in another way than before, as [`reset`](super::reset()) does.
///
/// # Errors
/// The error of the database.
///
/// # Cancel safety
/// Dropped, it has taken place or not.
pub async fn reset(
    connection: &mut SqliteConnection,
    config: &OutboxConfig,
) -> Result<(), ::sqlx::Error> {
    let (_, _, state) = names(&config.table);
    run(connection, format!("UPDATE {state} SET relay = NULL;\n")).await
}

/// Takes the outbox away and all triggers that write to it, in one transaction.
///
/// # Errors
/// The database's error.
///
/// # Cancel safety
/// If dropped, everything is removed or nothing is.
pub async fn remove(
    connection: &mut SqliteConnection,
    config: &OutboxConfig,
) -> Result<(), ::sqlx::Error> {
    let mut sql = String::new();
    for trigger in triggers_of(connection, &config.table).await? {
        let name = crate::config::outbox::quote_name(&trigger);
        sql.push_str(&format!("DROP TRIGGER IF EXISTS {name};\n"));
    }
    let (outbox, set_aside, state) = names(&config.table);
    for table in [outbox, set_aside, state, list_name(&config.table)] {
        sql.push_str(&format!("DROP TABLE IF EXISTS {table};\n"));
    }
    run(connection, sql).await
}

async fn run(connection: &mut SqliteConnection, sql: String) -> Result<(), ::sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    ::sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// Reads the status of the outbox. SQLite does not know its connections, so the relays are not
/// counted.
///
/// # Errors
/// The database's error. A missing outbox is no error.
///
/// # Cancel safety
/// It changes nothing.
pub async fn status(
    connection: &mut SqliteConnection,
    config: &OutboxConfig,
) -> Result<Status, ::sqlx::Error> {
    let table = &config.table;
    let mut status = Status::none(table.name().to_owned());
    if !exists(connection, table).await? {
        return Ok(status);
    }
    let (outbox, set_aside, state) = names(table);
    let sql = format!(
        "SELECT version, relay, (SELECT count(*) FROM {outbox}),
            (SELECT {NOW} - created FROM {outbox} ORDER BY id LIMIT 1),
            (SELECT count(*) FROM {set_aside}), dropped FROM {state}"
    );
    let row = ::sqlx::query(AssertSqlSafe(sql))
        .fetch_one(&mut *connection)
        .await?;
    let version: i64 = row.try_get(0)?;
    status.version = Some(i32::try_from(version).unwrap_or(i32::MAX));
    status.relay = row.try_get(1)?;
    status.rows = natural(row.try_get(2)?);
    let oldest: Option<i64> = row.try_get(3)?;
    status.oldest = oldest.map(|ms| std::time::Duration::from_millis(natural(ms)));
    status.set_aside = natural(row.try_get(4)?);
    status.set_aside_dropped = natural(row.try_get(5)?);
    for table in covered_tables(connection, table).await? {
        status.add(table);
    }
    Ok(status)
}
