//! Installs the outbox, shows its status, and removes it, over one connection.

use std::fmt;
use std::time::Duration;

use ::sqlx::postgres::{PgConnection, PgRow};
use ::sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::coverage::{CoveredTable, coverage_sql};
use super::migration::{LOCK, migration_of, removal_of, reset_of};
use super::relay::{EACH, NAME};
use super::row::Row;
use super::triggers::{Triggers, removal_of_triggers};
use super::walk::OPEN_TRANSACTIONS;
use crate::config::outbox::{OutboxConfig, OutboxTable, quote_text};

/// A long lock on a table is not waited for, since all later statements would wait
/// behind the installation.
const BEGIN: &str = "SET LOCAL lock_timeout = '2s';\n";

/// Runs the [migration](super::migration), and the triggers if there are any, in one transaction.
/// The triggers write to the outbox of this configuration. Triggers of tables that have left the
/// list stay.
///
/// Existing objects are left as they are, and take no lock. A new trigger waits for the
/// transactions that write to its table, but not for those that read it: for 2 s at most.
///
/// # Errors
/// The error of the database: a table or column is missing, the user lacks a permission, a part of
/// the outbox belongs to another user, a later release has installed its version of the table, or a
/// table is in use for too long (`55P03`, with the table's name).
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
    // The outbox comes last: each writer of a followed table needs it, and each relay.
    let sql = format!("{LOCK}{BEGIN}{triggers}{}", migration_of(&config.table));
    run(connection, sql).await
}

/// Lets the relays share the rows in another way than before: with Redis in place of without, or
/// under another namespace. Whoever connects first says how. Start no process of the old kind
/// afterwards.
///
/// # Errors
/// The error of the database.
///
/// # Cancel safety
/// Dropped, it has taken place or not.
pub async fn reset(
    connection: &mut PgConnection,
    config: &OutboxConfig,
) -> Result<(), ::sqlx::Error> {
    run(connection, reset_of(&config.table)).await
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
    let sql = format!("{LOCK}{BEGIN}{triggers}{all}{}", removal_of(&config.table));
    run(connection, sql).await
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
    /// Of these, how many have been at one statement for more than a second.
    pub slow_relays: u64,
    knows_relays: bool,
    /// Rows that are deleted and can't be cleaned up yet, as far as PostgreSQL knows.
    pub dead: u64,
    /// For how long the oldest transaction has been open that keeps them; `None` also if the user
    /// may not know.
    pub oldest_transaction: Option<Duration>,
    /// Transactions that are prepared and not committed: what they have changed is invalidated when
    /// they are.
    pub prepared: u64,
    /// Whether new rows are notified. Otherwise the relays find them by polling; those of SQLite
    /// always do.
    pub notifies: bool,
    /// Tables whose changes are followed.
    pub followed: Vec<String>,
    /// Partitions of these tables that are not followed: a statement that names one of them writes
    /// nothing to the outbox. Also tables some of whose triggers are missing or switched off, or
    /// not `ENABLE ALWAYS`; those of a subscription whose rows are not followed; and those that
    /// lack a column.
    pub not_followed: Vec<String>,
    /// Foreign tables among them. What this database changes in them is followed, but for
    /// `TRUNCATE`; what is changed in the server that they are on is not, and needs an invalidation
    /// there.
    pub foreign: Vec<String>,
    /// Followed tables whose triggers another version of this crate has written: install again.
    pub older: Vec<String>,
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
            slow_relays: 0,
            dead: 0,
            oldest_transaction: None,
            prepared: 0,
            notifies: false,
            knows_relays: false,
            followed: Vec::new(),
            not_followed: Vec::new(),
            foreign: Vec::new(),
            older: Vec::new(),
        }
    }
}

impl Status {
    /// Adds a table that is followed, or should be.
    pub(super) fn add(&mut self, table: CoveredTable) {
        if table.is_older {
            self.older.push(table.name.clone());
        }
        if table.is_foreign {
            self.foreign.push(table.name.clone());
        }
        match table.with_problem() {
            None => self.followed.push(table.name),
            Some(problem) => self.not_followed.push(problem),
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
    let (outbox, state) = (table.quoted(), table.side_table("_state"));
    let mut status = Status::none(table.channel());
    status.knows_relays = true;
    let exists = one(connection, "SELECT to_regclass($1) IS NOT NULL", &state).await?;
    if !exists.try_get(0)? {
        return Ok(status);
    }
    let sql = format!(
        "SELECT version, relay, (SELECT count(*) FROM {outbox}),
            (SELECT {age} FROM {outbox} AS r ORDER BY id LIMIT 1),
            (SELECT count(*) FROM {set_aside}),
            (SELECT count(*) FROM {relays}),
            (to_jsonb(state) ->> 'dropped')::bigint,
            (SELECT count(*) FROM {relays} AND state = 'active' AND query_start < clock_timestamp() - interval '1 s'),
            pg_stat_get_dead_tuples({outbox_text}::regclass),
            (SELECT oldest_ms FROM ({OPEN_TRANSACTIONS}) AS open), (SELECT prepared FROM ({OPEN_TRANSACTIONS}) AS open),
            coalesce((SELECT tgenabled = 'A' FROM pg_trigger WHERE tgrelid = {outbox_text}::regclass AND tgname = {notify}), false)
        FROM {state} AS state WHERE $1 IS NOT NULL",
        age = Row::AGE_MS,
        set_aside = table.side_table("_set_aside"),
        outbox_text = quote_text(&outbox),
        notify = quote_text(&format!("{}_notify", table.name())),
        relays = format_args!("pg_stat_activity WHERE application_name = '{NAME}' AND datname = current_database()"),
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
    status.slow_relays = natural(row.try_get(7)?);
    status.dead = natural(row.try_get::<Option<i64>, _>(8)?.unwrap_or(0));
    let oldest: Option<i64> = row.try_get(9)?;
    status.oldest_transaction = oldest.map(|ms| Duration::from_millis(natural(ms)));
    status.prepared = natural(row.try_get(10)?);
    status.notifies = row.try_get(11)?;
    tables_of(connection, table, &mut status).await?;
    Ok(status)
}

/// Which tables are followed, and which are not and should be.
async fn tables_of(
    connection: &mut PgConnection,
    table: &OutboxTable,
    status: &mut Status,
) -> Result<(), ::sqlx::Error> {
    let read = ::sqlx::query(AssertSqlSafe(coverage_sql(table)))
        .fetch_all(connection)
        .await?;
    let tables = read.iter().map(CoveredTable::read);
    let mut tables = tables.collect::<Result<Vec<_>, _>>()?;
    tables.sort_by(|one, other| one.name.cmp(&other.name));
    for table in tables {
        status.add(table);
    }
    Ok(())
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
            write!(f, "Relays:     {}", self.relays)?;
            match self.slow_relays {
                0 => writeln!(f)?,
                slow => writeln!(
                    f,
                    ", of which {slow} wait for the database for more than 1 s"
                )?,
            }
            if !self.notifies {
                writeln!(f, "Notified:   no, the relays poll")?;
            }
            if self.prepared > 0 {
                writeln!(
                    f,
                    "Prepared:   {} transactions wait for COMMIT PREPARED or ROLLBACK PREPARED, see pg_prepared_xacts",
                    self.prepared
                )?;
            }
            write!(f, "Dead rows:  {}", self.dead)?;
            match self.oldest_transaction {
                Some(age) if self.dead > 0 => writeln!(
                    f,
                    "; the oldest open transaction keeps what was deleted for {:.0} s",
                    age.as_secs_f64()
                )?,
                _ => writeln!(f)?,
            }
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
        if !self.foreign.is_empty() {
            let names = names(&self.foreign);
            writeln!(
                f,
                "Foreign:    {names}; what their own servers change is not followed"
            )?;
        }
        if !self.older.is_empty() {
            let names = names(&self.older);
            writeln!(f, "Of another version, install again: {names}")?;
        }
        Ok(())
    }
}
