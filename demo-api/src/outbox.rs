//! The database invalidates: what any program commits to PostgreSQL reaches the cache.

use cache_runtime::outbox::{self, OutboxConfig, Status, Triggers, table};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Error};

use crate::resources::RESOURCES;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where the outbox is: in the demo's own database.
///
/// # Errors
/// When the URL is none of PostgreSQL.
pub fn config(database_url: &str) -> Result<OutboxConfig, cache_runtime::Error> {
    OutboxConfig::postgres(database_url)
}

/// Each table of the demo has the name of its resource.
fn triggers() -> Result<Triggers, cache_runtime::Error> {
    let tables = RESOURCES.map(|name| table(name).resource(name).id("id"));
    outbox::triggers(&crate::cache_map(), tables)
}

/// The SQL that installs the outbox and its triggers.
///
/// # Errors
/// When the tables don't fit the annotated functions.
pub fn sql() -> Result<String, cache_runtime::Error> {
    let migration = outbox::migration(outbox::DEFAULT_TABLE)?;
    Ok(format!("BEGIN;\n{migration}{}COMMIT;\n", triggers()?))
}

/// Runs that SQL.
///
/// # Errors
/// When the database can't be reached or refuses.
pub async fn install(database_url: &str) -> Result<(), Failure> {
    let config = config(database_url)?;
    let mut connection = connect(database_url).await?;
    outbox::install(&mut connection, &config, Some(&triggers()?)).await?;
    Ok(connection.close().await?)
}

/// The same, unless it is there: to replace triggers waits for those who write.
///
/// # Errors
/// When the database can't be reached or refuses.
pub async fn install_if_missing(database_url: &str) -> Result<(), Failure> {
    let status = status(database_url).await?;
    let is_there = status.version == Some(outbox::VERSION)
        && status.not_followed.is_empty()
        && status.followed.len() >= RESOURCES.len();
    if is_there {
        return Ok(());
    }
    install(database_url).await
}

/// Takes the triggers and the outbox away.
///
/// # Errors
/// When the database can't be reached or refuses.
pub async fn remove(database_url: &str) -> Result<(), Failure> {
    let config = config(database_url)?;
    let mut connection = connect(database_url).await?;
    outbox::remove(&mut connection, &config, Some(&triggers()?)).await?;
    Ok(connection.close().await?)
}

/// What the outbox looks like.
///
/// # Errors
/// When the database can't be reached or refuses.
pub async fn status(database_url: &str) -> Result<Status, Failure> {
    let config = config(database_url)?;
    let mut connection = connect(database_url).await?;
    let status = outbox::status(&mut connection, &config).await?;
    connection.close().await?;
    Ok(status)
}

async fn connect(database_url: &str) -> Result<PgConnection, Error> {
    PgConnection::connect(database_url).await
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_triggers_fit_the_program() {
        let sql = super::sql().unwrap();
        for name in super::RESOURCES {
            assert!(sql.contains(&format!("'\"{name}\"'")), "{sql}");
        }
    }
}
