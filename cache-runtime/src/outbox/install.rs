//! Installing the outbox, looking at it, and taking it away, over one connection.

use std::fmt;
use std::time::Duration;

use ::sqlx::postgres::{PgConnection, PgRow};
use ::sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::migration::{migration_of, removal_of};
use super::triggers::{Triggers, trigger_names};
use crate::config::outbox::OutboxConfig;

/// Two processes that install at the same time do so in turn.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('cache-runtime outbox', 0))";

/// Runs the [migration](super::migration), and the triggers if there are any, in one transaction.
///
/// # Errors
/// What the database says: a table or column is missing, or the user lacks a permission.
///
/// # Cancel safety
/// Dropped, everything is installed or nothing is.
pub async fn install(
    connection: &mut PgConnection,
    config: &OutboxConfig,
    triggers: Option<&Triggers>,
) -> Result<(), ::sqlx::Error> {
    let triggers = triggers.map(Triggers::install_sql).unwrap_or_default();
    run(
        connection,
        format!("{LOCK};\n{}{triggers}", migration_of(&config.table)),
    )
    .await
}

/// Takes the triggers and the outbox away, in one transaction.
///
/// # Errors
/// What the database says.
///
/// # Cancel safety
/// Dropped, everything is taken away or nothing is.
pub async fn remove(
    connection: &mut PgConnection,
    config: &OutboxConfig,
    triggers: Option<&Triggers>,
) -> Result<(), ::sqlx::Error> {
    let triggers = triggers.map(Triggers::remove_sql).unwrap_or_default();
    run(
        connection,
        format!("{LOCK};\n{triggers}{}", removal_of(&config.table)),
    )
    .await
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), ::sqlx::Error> {
    let mut transaction = connection.begin().await?;
    ::sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// What an outbox looks like. Prints as lines for people.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The table.
    pub table: String,
    /// The version of the table; `None` if it is not there.
    pub version: Option<i32>,
    /// How the relays share the rows: `redis/` and the namespace, or `each`; `None` before the first has connected.
    pub relay: Option<String>,
    /// Rows in the table.
    pub rows: u64,
    /// The age of the oldest one.
    pub oldest: Option<Duration>,
    /// Rows that no relay could read.
    pub set_aside: u64,
    /// Connections of relays.
    pub relays: u64,
    /// Tables whose changes are followed.
    pub followed: Vec<String>,
    /// Partitions of these that are not: a statement that names one of them writes nothing to the outbox.
    pub not_followed: Vec<String>,
}

/// Looks at the outbox.
///
/// # Errors
/// What the database says. That there is no outbox is no error.
///
/// # Cancel safety
/// It changes nothing.
pub async fn status(
    connection: &mut PgConnection,
    config: &OutboxConfig,
) -> Result<Status, ::sqlx::Error> {
    let table = &config.table;
    let (outbox, state) = (table.quoted(), table.beside("_state"));
    let mut status = Status {
        table: table.channel(),
        version: None,
        relay: None,
        rows: 0,
        oldest: None,
        set_aside: 0,
        relays: 0,
        followed: Vec::new(),
        not_followed: Vec::new(),
    };
    let exists = one(connection, "SELECT to_regclass($1) IS NOT NULL", &state).await?;
    if !exists.try_get(0)? {
        return Ok(status);
    }
    let sql = format!(
        "SELECT version, relay,
            (SELECT count(*) FROM {outbox}),
            (SELECT (extract(epoch FROM clock_timestamp() - created) * 1000)::bigint FROM {outbox} ORDER BY id LIMIT 1),
            (SELECT count(*) FROM {}),
            (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cache-runtime outbox' AND datname = current_database())
        FROM {state} WHERE $1 IS NOT NULL",
        table.beside("_set_aside")
    );
    let row = one(connection, &sql, "").await?;
    let natural = |n: i64| u64::try_from(n).unwrap_or(0);
    status.version = row.try_get(0)?;
    status.relay = row.try_get(1)?;
    status.rows = natural(row.try_get(2)?);
    let oldest: Option<i64> = row.try_get(3)?;
    status.oldest = oldest.map(|ms| Duration::from_millis(natural(ms)));
    status.set_aside = natural(row.try_get(4)?);
    status.relays = natural(row.try_get(5)?);

    let [insert, ..] = trigger_names(table);
    // As it stands in the catalog, without quotes.
    let name = insert.trim_matches('"').replace("\"\"", "\"");
    let followed = "WITH RECURSIVE followed AS (
            SELECT tgrelid AS oid FROM pg_trigger WHERE tgname = $1 AND tgenabled <> 'D'
        ), tree AS (
            SELECT oid FROM followed
            UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid
        )
        SELECT tree.oid::regclass::text, tree.oid IN (SELECT oid FROM followed)
        FROM tree JOIN pg_class c ON c.oid = tree.oid ORDER BY 1";
    for row in ::sqlx::query(followed)
        .bind(name)
        .fetch_all(connection)
        .await?
    {
        let table: String = row.try_get(0)?;
        match row.try_get(1)? {
            true => status.followed.push(table),
            false => status.not_followed.push(table),
        }
    }
    Ok(status)
}

async fn one(connection: &mut PgConnection, sql: &str, text: &str) -> Result<PgRow, ::sqlx::Error> {
    let query = ::sqlx::query(AssertSqlSafe(sql)).bind(text.to_owned());
    query.fetch_one(connection).await
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(version) = self.version else {
            return writeln!(f, "There is no outbox: no table {}.", self.table);
        };
        let relay = match self.relay.as_deref() {
            None => "no relay has connected yet".to_owned(),
            Some("each") => "each process reads the rows for itself".to_owned(),
            Some(shared) => format!("the processes share the rows ({shared})"),
        };
        writeln!(f, "Table:      {}, version {version}; {relay}", self.table)?;
        writeln!(f, "Relays:     {}", self.relays)?;
        let oldest = self.oldest.map_or_else(String::new, |it| {
            format!(", the oldest for {:.1} s", it.as_secs_f64())
        });
        writeln!(f, "Rows:       {}{oldest}", self.rows)?;
        writeln!(f, "Set aside:  {}", self.set_aside)?;
        let names = |names: &[String]| match names {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        writeln!(f, "Followed:   {}", names(&self.followed))?;
        if !self.not_followed.is_empty() {
            let names = names(&self.not_followed);
            writeln!(f, "NOT followed, install again: {names}")?;
        }
        Ok(())
    }
}
