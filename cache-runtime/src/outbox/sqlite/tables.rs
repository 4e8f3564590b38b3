//! The tables of the outbox in SQLite.

use ::sqlx::AssertSqlSafe;
use ::sqlx::sqlite::SqliteConnection;

use crate::base::error::Error;
use crate::config::outbox::{OutboxTable, quote_sqlite_text};

/// The version of the tables that this crate reads and writes.
pub const VERSION: i64 = 1;

/// Milliseconds since 1970.
pub(in crate::outbox) const NOW: &str =
    "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";

/// The SQL that creates the outbox in a file of SQLite. It can be run again. Needs SQLite 3.38 or
/// later, with its JSON functions.
///
/// # Errors
/// Like [`migration`](crate::outbox::migration()); the table's schema is ignored.
pub fn migration(table: &str) -> Result<String, Error> {
    Ok(migration_of(&OutboxTable::parse(table)?))
}

pub(super) fn migration_of(table: &OutboxTable) -> String {
    let (outbox, set_aside, state) = names(table);
    format!(
        "-- The outbox of cache-runtime in SQLite, version {VERSION}.
CREATE TABLE IF NOT EXISTS {outbox} (
    -- Never given twice: relays without Redis read on from the last one.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- 'row', 'tag' or 'all'; 'all' without a resource is everything.
    kind TEXT NOT NULL,
    resource TEXT,
    -- JSON: the id of a row, or the text of a tag.
    value TEXT,
    created INTEGER NOT NULL DEFAULT ({NOW}),
    -- Before this time its writer invalidates by itself, and deletes it.
    due INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS {set_aside} (
    id INTEGER PRIMARY KEY,
    kind TEXT,
    resource TEXT,
    value TEXT,
    reason TEXT NOT NULL,
    set_aside INTEGER NOT NULL DEFAULT ({NOW})
);
CREATE TABLE IF NOT EXISTS {state} (
    only_row INTEGER PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    version INTEGER NOT NULL,
    -- How the relays share the rows; the first one that connects says it.
    relay TEXT,
    -- Rows up to this id have been deleted by time.
    deleted INTEGER NOT NULL DEFAULT 0,
    -- Rows that were set aside, and dropped past the limit.
    dropped INTEGER NOT NULL DEFAULT 0
);
INSERT INTO {state} (only_row, version) VALUES (1, {VERSION}) ON CONFLICT (only_row) DO UPDATE SET version = max(version, {VERSION});
"
    )
}

/// The table, the set-aside table, and the state.
pub(super) fn names(table: &OutboxTable) -> (String, String, String) {
    (
        table.bare(""),
        table.bare("_set_aside"),
        table.bare("_state"),
    )
}

pub(super) async fn exists(
    connection: &mut SqliteConnection,
    table: &OutboxTable,
) -> Result<bool, ::sqlx::Error> {
    let state = quote_sqlite_text(&format!("{}_state", table.name()));
    let sql = format!("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = {state}");
    let count: i64 = ::sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await?;
    Ok(count > 0)
}

pub(super) fn natural(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
