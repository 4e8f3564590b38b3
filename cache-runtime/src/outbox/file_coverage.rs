//! Which tables of a file of SQLite are followed.
//!
//! `DROP TABLE` removes the triggers with their table, and so does SQLite's way of altering one: a
//! new table, a copy of the rows, `DROP`, `RENAME`. So the installation writes down which tables
//! are followed. The file counts the changes of its schema, and the relays read that number with
//! the rows. Where it is another one, they look at the triggers, and do as with
//! [PostgreSQL](super::coverage).

use std::collections::{BTreeMap, BTreeSet};

use ::sqlx::sqlite::{SqliteConnection, SqliteRow};
use ::sqlx::{AssertSqlSafe, Row as _};

use super::coverage::CoveredTable;
use super::triggers::Triggers;
use crate::base::nonce::hash128;
use crate::config::outbox::{OutboxTable, quote_sqlite_text};

/// How often the schema has been changed, in SQL.
pub(super) const SCHEMA_VERSION: &str = "(SELECT schema_version FROM pragma_schema_version)";

fn signature() -> &'static str {
    Triggers::sqlite_signature()
}

/// The table of those that are followed.
pub(super) fn list_name(outbox: &OutboxTable) -> String {
    outbox.bare("_tables")
}

/// A table as the installation has written it down.
#[derive(Debug)]
struct Listed {
    name: String,
    version: String,
    resources: Option<Vec<String>>,
    /// Another one each time its triggers were missing.
    made: String,
}

/// The triggers of one table.
#[derive(Debug, Default)]
struct Group {
    events: BTreeSet<String>,
    tables: BTreeSet<String>,
    sql: Vec<String>,
}

/// The contents of the file.
#[derive(Debug, Default)]
struct Schema {
    /// By their names in lower case, since SQLite does not tell them apart otherwise.
    tables: BTreeMap<String, String>,
    /// By what the triggers' names begin with.
    groups: BTreeMap<String, Group>,
    listed: BTreeMap<String, Listed>,
}

/// The names of the triggers of an outbox.
pub(super) async fn triggers_of(
    connection: &mut SqliteConnection,
    table: &OutboxTable,
) -> Result<Vec<String>, ::sqlx::Error> {
    let sql = "SELECT name FROM sqlite_master WHERE type = 'trigger'";
    let names = ::sqlx::query_scalar::<_, String>(sql).fetch_all(connection);
    let is_ours = |name: &String| parts_of(name, table.name()).is_some();
    Ok(names.await?.into_iter().filter(is_ours).collect())
}

/// The beginning of a trigger's name, and its event, if it writes to the outbox of this name, and
/// not to one whose name goes on. A name is a shown part, a hash, and the event.
fn parts_of<'n>(trigger: &'n str, outbox: &str) -> Option<(&'n str, &'n str)> {
    let (prefix, event) = trigger.rsplit_once('_')?;
    if !matches!(event, "insert" | "update" | "delete") {
        return None;
    }
    let rest = prefix.strip_prefix(outbox)?;
    if crate::base::mutation::is_active("outbox-sqlite-others-taken-away") {
        return Some((prefix, event));
    }
    let (shown, hash) = rest.strip_prefix('_')?.split_once('_')?;
    let is_hash = hash.len() == 8 && hash.bytes().all(|it| it.is_ascii_hexdigit());
    let is_ours = is_hash && shown.bytes().all(|it| it.is_ascii_alphanumeric());
    is_ours.then_some((prefix, event))
}

/// The tables that are followed, and those that should be.
pub(super) async fn covered_tables(
    connection: &mut SqliteConnection,
    outbox: &OutboxTable,
) -> Result<Vec<CoveredTable>, ::sqlx::Error> {
    Ok(judge(read(connection, outbox).await?))
}

async fn read(
    connection: &mut SqliteConnection,
    outbox: &OutboxTable,
) -> Result<Schema, ::sqlx::Error> {
    let mut schema = Schema::default();
    let sql = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master WHERE type IN ('table', 'trigger') ORDER BY name";
    for row in ::sqlx::query(sql).fetch_all(&mut *connection).await? {
        let (name, table): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        if row.try_get::<String, _>(0)? == "table" {
            schema
                .tables
                .insert(name.to_ascii_lowercase(), row.try_get(3)?);
        } else if let Some((prefix, event)) = parts_of(&name, outbox.name()) {
            let group = schema.groups.entry(prefix.to_owned()).or_default();
            group.events.insert(event.to_owned());
            group.tables.insert(table);
            group.sql.push(row.try_get(3)?);
        }
    }
    let list = list_name(outbox);
    let is_there = format!("{}_tables", outbox.name()).to_ascii_lowercase();
    // Triggers of an earlier release are not written down.
    if schema.tables.contains_key(&is_there)
        && !crate::base::mutation::is_active("outbox-lost-triggers-unnoticed")
    {
        let sql = format!("SELECT prefix, name, version, resources, made FROM {list}");
        let rows = ::sqlx::query(AssertSqlSafe(sql))
            .fetch_all(connection)
            .await?;
        let listed = rows.iter().map(listed);
        schema.listed = listed.collect::<Result<_, _>>()?;
    }
    Ok(schema)
}

fn listed(row: &SqliteRow) -> Result<(String, Listed), ::sqlx::Error> {
    let resources: String = row.try_get(3)?;
    let listed = Listed {
        name: row.try_get(1)?,
        version: row.try_get(2)?,
        resources: serde_json::from_str(&resources).ok(),
        made: row.try_get(4)?,
    };
    Ok((row.try_get(0)?, listed))
}

fn judge(mut schema: Schema) -> Vec<CoveredTable> {
    let mut covered = Vec::new();
    for (prefix, listed) in &schema.listed {
        let group = schema.groups.remove(prefix).unwrap_or_default();
        let is_there = schema
            .tables
            .contains_key(&listed.name.to_ascii_lowercase());
        let is_on_it = |name: &String| name.eq_ignore_ascii_case(&listed.name);
        let is_listed = Some(listed);
        if is_there && !group.tables.iter().any(is_on_it) {
            let none = (&listed.name, &Group::default());
            let problem = Some(" (it has none of its triggers)");
            covered.push(table_of(&schema, prefix, none, problem, is_listed));
        }
        for table in &group.tables {
            let problem = (group.events.len() < 3).then_some("");
            let named = (table, &group);
            covered.push(table_of(&schema, prefix, named, problem, is_listed));
        }
    }
    for (prefix, group) in &schema.groups {
        for table in &group.tables {
            let problem = (group.events.len() < 3).then_some("");
            covered.push(table_of(&schema, prefix, (table, group), problem, None));
        }
    }
    covered
}

fn table_of(
    schema: &Schema,
    prefix: &str,
    (name, group): (&String, &Group),
    problem: Option<&str>,
    listed: Option<&Listed>,
) -> CoveredTable {
    let sql = schema.tables.get(&name.to_ascii_lowercase());
    let id = format!("{prefix}\0{name}");
    CoveredTable {
        oid: hash128(b"cache-runtime 20", id.as_bytes()) as i64,
        name: name.clone(),
        problem: problem.map(str::to_owned),
        is_foreign: false,
        is_older: !group.events.is_empty() && listed.is_none_or(|it| it.version != signature()),
        shape: format!("{sql:?} {:?} {:?}", group.sql, listed.map(|it| &it.made)),
        resources: listed.and_then(|it| it.resources.clone()),
    }
}

/// The SQL that makes the list.
pub(super) fn list_sql(outbox: &OutboxTable) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (
    -- What the names of its triggers begin with.
    prefix TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- By which words of the crate they were made.
    version TEXT NOT NULL,
    -- JSON: what depends on the table.
    resources TEXT NOT NULL,
    -- Another one each time its triggers were missing: rows may have changed meanwhile.
    made TEXT NOT NULL
);\n",
        list_name(outbox)
    )
}

/// The SQL that writes a table down, to be run before its triggers are replaced.
pub(super) fn listed_sql(
    outbox: &OutboxTable,
    suffix: &str,
    name: &str,
    resources: &BTreeSet<&String>,
) -> String {
    let prefix = format!("{}{suffix}", outbox.name());
    let triggers = ["insert", "update", "delete"]
        .map(|event| quote_sqlite_text(&format!("{prefix}_{event}")))
        .join(", ");
    format!(
        "INSERT INTO {list} AS listed (prefix, name, version, resources, made)
    VALUES ({prefix}, {name}, {version}, {resources}, hex(randomblob(16)))
    ON CONFLICT (prefix) DO UPDATE SET name = excluded.name, version = excluded.version, resources = excluded.resources,
        made = CASE (SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name IN ({triggers})
            AND lower(tbl_name) = lower(excluded.name)) WHEN 3 THEN listed.made ELSE excluded.made END;\n",
        list = list_name(outbox),
        prefix = quote_sqlite_text(&prefix),
        name = quote_sqlite_text(name),
        version = quote_sqlite_text(signature()),
        resources = quote_sqlite_text(&serde_json::to_string(resources).unwrap_or_default()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_known_by_their_names() {
        let prefix = "box_users_0123abcd";
        assert_eq!(
            parts_of("box_users_0123abcd_insert", "box"),
            Some((prefix, "insert"))
        );
        for other in [
            "box_users_0123abcd_x",
            "box_two_users_0123abcd_insert",
            "box_users_123_insert",
            "boxes_users_0123abcd_insert",
            "insert",
        ] {
            assert_eq!(parts_of(other, "box"), None, "{other}");
        }
    }
}
