//! The database invalidates: changes that any program commits to PostgreSQL, or to the file of
//! SQLite, reach the cache.

use cache_runtime::outbox::{self, OutboxConfig, Status, Triggers, sqlite, table};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, SqliteConnection};

use crate::config::ConfigError;
use crate::resources::RESOURCES;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn is_sqlite(database_url: &str) -> bool {
    database_url.starts_with("sqlite")
}

/// The place of the outbox: the demo's own database.
///
/// # Errors
/// If the URL is neither one of PostgreSQL nor one of a file of SQLite.
pub fn config(database_url: &str) -> Result<OutboxConfig, cache_runtime::Error> {
    match is_sqlite(database_url) {
        true => OutboxConfig::sqlite(database_url),
        false => OutboxConfig::postgres(database_url),
    }
}

/// Each table of the demo has the name of its resource.
fn triggers() -> Result<Triggers, cache_runtime::Error> {
    let tables = RESOURCES.map(|name| table(name).resource(name).id("id"));
    outbox::triggers(&crate::catalog(), tables)
}

/// The SQL that installs the outbox and its triggers.
///
/// # Errors
/// When the tables don't fit the annotated functions.
pub fn sql(database_url: &str) -> Result<String, cache_runtime::Error> {
    let triggers = triggers()?;
    Ok(match is_sqlite(database_url) {
        true => {
            let migration = sqlite::migration(outbox::DEFAULT_TABLE)?;
            format!(
                "BEGIN IMMEDIATE;\n{migration}{}COMMIT;\n",
                triggers.sqlite_sql()
            )
        }
        false => {
            let migration = outbox::migration(outbox::DEFAULT_TABLE)?;
            // The outbox comes last: each writer of a followed table needs it.
            format!("BEGIN;\nSET LOCAL lock_timeout = '2s';\n{triggers}{migration}COMMIT;\n")
        }
    })
}

/// Runs that SQL.
///
/// # Errors
/// When the database can't be reached or refuses.
pub async fn install(database_url: &str) -> Result<(), Failure> {
    let (config, triggers) = (config(database_url)?, triggers()?);
    if is_sqlite(database_url) {
        let mut connection = file(database_url).await?;
        sqlite::install(&mut connection, &config, Some(&triggers)).await?;
        return Ok(connection.close().await?);
    }
    let mut connection = server(database_url).await?;
    outbox::install(&mut connection, &config, Some(&triggers)).await?;
    Ok(connection.close().await?)
}

/// The same, unless all of it is there, as this version writes it: a process that serves need not
/// own the tables.
///
/// # Errors
/// When the database can't be reached or refuses.
pub async fn install_if_missing(database_url: &str) -> Result<(), Failure> {
    let status = status(database_url).await?;
    let version = match is_sqlite(database_url) {
        true => i32::try_from(sqlite::VERSION)?,
        false => outbox::VERSION,
    };
    let is_followed = |name: &&str| status.followed.iter().any(|table| table == *name);
    let is_there = status.version == Some(version)
        && status.not_followed.is_empty()
        && status.older.is_empty()
        && RESOURCES.iter().all(is_followed);
    if is_there {
        return Ok(());
    }
    install(database_url).await
}

/// Removes the triggers and the outbox.
///
/// # Errors
/// When the database can't be reached or refuses.
pub async fn remove(database_url: &str) -> Result<(), Failure> {
    let config = config(database_url)?;
    if is_sqlite(database_url) {
        let mut connection = file(database_url).await?;
        sqlite::remove(&mut connection, &config).await?;
        return Ok(connection.close().await?);
    }
    let mut connection = server(database_url).await?;
    outbox::remove(&mut connection, &config, Some(&triggers()?)).await?;
    Ok(connection.close().await?)
}

/// The state of the outbox.
///
/// # Errors
/// When the database can't be reached or refuses.
pub async fn status(database_url: &str) -> Result<Status, Failure> {
    let config = config(database_url)?;
    if is_sqlite(database_url) {
        let mut connection = file(database_url).await?;
        let status = sqlite::status(&mut connection, &config).await?;
        connection.close().await?;
        return Ok(status);
    }
    let mut connection = server(database_url).await?;
    let status = outbox::status(&mut connection, &config).await?;
    connection.close().await?;
    Ok(status)
}

async fn file(database_url: &str) -> Result<SqliteConnection, ConfigError> {
    let connection = SqliteConnection::connect(database_url).await;
    connection.map_err(|error| unusable(&error))
}

async fn server(database_url: &str) -> Result<PgConnection, ConfigError> {
    let connection = PgConnection::connect(database_url).await;
    connection.map_err(|error| unusable(&error))
}

fn unusable(error: &sqlx::Error) -> ConfigError {
    ConfigError::new(
        "DATABASE_URL",
        format!("the database can't be used: {error}"),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_triggers_fit_the_program() {
        let sql = super::sql("postgres://h/d").unwrap();
        for name in super::RESOURCES {
            assert!(sql.contains(&format!("'\"{name}\"'")), "{sql}");
        }
        let sql = super::sql("sqlite://demo.db").unwrap();
        for name in super::RESOURCES {
            assert!(
                sql.contains(&format!("AFTER UPDATE ON \"{name}\"")),
                "{sql}"
            );
        }
    }
}
