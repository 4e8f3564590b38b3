//! Installs the outbox, shows its status, and removes it, over one connection.

use std::fmt;
use std::time::Duration;

use ::sqlx::postgres::{PgConnection, PgRow};
use ::sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::migration::{migration_of, removal_of};
use super::relay::EACH;
use super::row::Row;
use super::triggers::{Triggers, removal_of_triggers, trigger_names};
use crate::config::outbox::OutboxConfig;

/// Two processes that install at the same time do so one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('cache-runtime outbox', 0))";

/// Runs the [migration](super::migration), and the triggers if there are any, in one transaction.
/// The triggers write to the outbox of this configuration. Triggers of tables that have left the
/// list stay.
///
/// # Errors
/// The database's error: a table or column is missing, the user lacks a permission, or a part of
/// the outbox belongs to another user.
///
/// # Cancel safety
/// If dropped, everything is installed or nothing is.
pub async fn install(
    connection: &mut PgConnection,
    config: &OutboxConfig,
    triggers: Option<&Triggers>,
) -> Result<(), ::sqlx::Error> {
    let triggers = triggers.map(|it| it.install_into(&config.table));
    let triggers = triggers.unwrap_or_default();
    run(
        connection,
        format!("{LOCK};\n{}{triggers}", migration_of(&config.table)),
    )
    .await
}

/// Removes the outbox and all triggers that write to it, including those of tables that have left
/// the list and those of `triggers`, in one transaction.
///
/// # Errors
/// The database's error.
///
/// # Cancel safety
/// If dropped, everything is removed or nothing is.
pub async fn remove(
    connection: &mut PgConnection,
    config: &OutboxConfig,
    triggers: Option<&Triggers>,
) -> Result<(), ::sqlx::Error> {
    let triggers = triggers.map(|it| it.remove_from(&config.table));
    let triggers = triggers.unwrap_or_default();
    let all = removal_of_triggers(&config.table);
    run(
        connection,
        format!("{LOCK};\n{triggers}{all}{}", removal_of(&config.table)),
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

/// The status of an outbox. Prints as lines of text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The table.
    pub table: String,
    /// The version of the table; `None` if it does not exist.
    pub version: Option<i32>,
    /// How the relays share the rows: `redis/` and the namespace, or `each/` and the retention time
    /// in milliseconds; `None` before the first has connected.
    pub relay: Option<String>,
    /// Rows in the table.
    pub rows: u64,
    /// The age of the oldest one.
    pub oldest: Option<Duration>,
    /// Rows that no relay could read: the last 1,000, of the last 7 days.
    pub set_aside: u64,
    /// Rows that no relay could read, and that have been deleted since.
    pub set_aside_dropped: u64,
    /// Connections of relays. SQLite does not know them: always 0.
    pub relays: u64,
    knows_relays: bool,
    /// Tables whose changes are followed.
    pub followed: Vec<String>,
    /// Partitions of these tables that are not followed: a statement that names one of them writes
    /// nothing to the outbox. Also tables some of whose triggers are missing or switched off.
    pub not_followed: Vec<String>,
}

impl Status {
    /// The status of an outbox that does not exist.
    pub(super) fn none(table: String) -> Self {
        Self {
            table,
            version: None,
            relay: None,
            rows: 0,
            oldest: None,
            set_aside: 0,
            set_aside_dropped: 0,
            relays: 0,
            knows_relays: false,
            followed: Vec::new(),
            not_followed: Vec::new(),
        }
    }
}

/// Reads the status of the outbox.
///
/// # Errors
/// The database's error. A missing outbox is no error.
///
/// # Cancel safety
/// It changes nothing.
pub async fn status(
    connection: &mut PgConnection,
    config: &OutboxConfig,
) -> Result<Status, ::sqlx::Error> {
    let table = &config.table;
    let (outbox, state) = (table.quoted(), table.beside("_state"));
    let mut status = Status::none(table.channel());
    status.knows_relays = true;
    let exists = one(connection, "SELECT to_regclass($1) IS NOT NULL", &state).await?;
    if !exists.try_get(0)? {
        return Ok(status);
    }
    let sql = format!(
        "SELECT version, relay,
            (SELECT count(*) FROM {outbox}),
            (SELECT {} FROM {outbox} AS r ORDER BY id LIMIT 1),
            (SELECT count(*) FROM {}),
            (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cache-runtime outbox' AND datname = current_database()),
            (to_jsonb(state) ->> 'dropped')::bigint
        FROM {state} AS state WHERE $1 IS NOT NULL",
        Row::AGE_MS,
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
    // Version 1 has no such column.
    status.set_aside_dropped = natural(row.try_get::<Option<i64>, _>(6)?.unwrap_or(0));

    // A table of which one event is not followed counts as not followed.
    let followed = "WITH RECURSIVE known AS (
            SELECT t.tgrelid AS oid, count(*) FILTER (WHERE t.tgenabled <> 'D') AS events
            FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE t.tgname::text = ANY ($1) AND n.nspname = $2 AND starts_with(p.proname::text, $3)
            GROUP BY 1
        ), followed AS (
            SELECT oid FROM known WHERE events = cardinality($1)
        ), tree AS (
            SELECT oid FROM known
            UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid
        )
        SELECT tree.oid::regclass::text, tree.oid IN (SELECT oid FROM followed)
        FROM tree JOIN pg_class c ON c.oid = tree.oid WHERE c.relkind <> 'f' ORDER BY 1";
    for row in ::sqlx::query(followed)
        // As they are in the database's catalog, without quotes.
        .bind(
            trigger_names(table)
                .map(|name| name.trim_matches('"').replace("\"\"", "\""))
                .to_vec(),
        )
        .bind(table.schema())
        .bind(format!("{}_", table.name()))
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
            Some(each) if each.starts_with(EACH) => {
                let millis = &each[EACH.len()..];
                format!("each process reads the rows for itself; they stay for {millis} ms")
            }
            Some(shared) => format!("the processes share the rows ({shared})"),
        };
        writeln!(f, "Table:      {}, version {version}; {relay}", self.table)?;
        if self.knows_relays {
            writeln!(f, "Relays:     {}", self.relays)?;
        }
        let oldest = self.oldest.map_or_else(String::new, |it| {
            format!(", the oldest for {:.1} s", it.as_secs_f64())
        });
        writeln!(f, "Rows:       {}{oldest}", self.rows)?;
        write!(f, "Set aside:  {}", self.set_aside)?;
        match self.set_aside_dropped {
            0 => writeln!(f)?,
            dropped => writeln!(f, ", and {dropped} that are kept no longer")?,
        }
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
