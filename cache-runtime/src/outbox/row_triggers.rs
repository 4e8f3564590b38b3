//! The triggers of SQLite, which run for each row that a statement changes.
//!
//! An UPDATE writes its row whether or not it changes something: a list of the columns to compare
//! would not hold those that are added later, unless the table names [those that
//! matter](super::Table::columns). Columns have no types that are binding, so a value whose text in
//! a key may be another one, by its own type and that of the ids in the program, invalidates the
//! whole resource.
//!
//! The rows are plain INSERTs, and no constraint can conflict with them: the conflict clause of the
//! statement that fires a trigger, such as `INSERT OR IGNORE`, replaces those in the trigger.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::checked_table::{Followed, IdKind, Tag, TagPart};
use super::file_coverage::{list_sql, listed_sql};
use super::triggers::Triggers;
use crate::base::nonce::hash128;
use crate::config::outbox::{OutboxTable, quote_name, quote_sqlite_text};

impl Triggers {
    /// The SQL that installs the triggers in SQLite, or replaces earlier ones, to be run after
    /// [`sqlite::migration`](super::sqlite::migration). A table's schema is ignored: everything is
    /// in the main database.
    #[must_use]
    pub fn sqlite_sql(&self) -> String {
        self.sqlite_into(&self.outbox)
    }

    pub(super) fn sqlite_into(&self, outbox: &OutboxTable) -> String {
        let mut sql = list_sql(outbox);
        for followed in &self.followed {
            let (_, name) = followed.table.names();
            let suffix = followed.table.function_suffix();
            sql.push_str(&listed_sql(outbox, &suffix, name, &followed.wholes()));
            write(&mut sql, followed, outbox);
        }
        sql
    }

    /// By which words of this crate triggers are made.
    pub(super) fn sqlite_signature() -> &'static str {
        static SIGNATURE: LazyLock<String> = LazyLock::new(|| {
            let mut words = String::new();
            write(&mut words, &Followed::any(), &OutboxTable::default());
            let hash = hash128(b"cache-runtime 20", words.as_bytes()) as u32;
            format!("cache-runtime outbox {hash:08x}")
        });
        &SIGNATURE
    }
}

fn write(sql: &mut String, followed: &Followed, outbox: &OutboxTable) {
    let (_, table) = followed.table.names();
    for (event, sides) in [
        ("INSERT", &["NEW"][..]),
        ("UPDATE", &["NEW", "OLD"]),
        ("DELETE", &["OLD"]),
    ] {
        let suffix = format!(
            "{}_{}",
            followed.table.function_suffix(),
            event.to_ascii_lowercase()
        );
        let name = outbox.bare(&suffix);
        let _ = write!(
            sql,
            "DROP TRIGGER IF EXISTS {name};\nCREATE TRIGGER {name} AFTER {event} ON {table}{condition} BEGIN\n",
            table = quote_name(table),
            condition = match event {
                "UPDATE" => compared(followed),
                _ => String::new(),
            },
        );
        for side in sides {
            // The old values only if they differ.
            let is_again = *side == "OLD" && event == "UPDATE";
            for (resource, id) in &followed.table.resources {
                let kind = followed.plain.get(resource).copied();
                sql.push_str(&row(outbox, resource, id, kind, side, is_again));
            }
            for tag in &followed.tags {
                sql.push_str(&tagged(outbox, tag, side, is_again));
            }
        }
        sql.push_str("END;\n");
    }
}

/// Whether columns have values of these types.
fn are(columns: &[String], side: &str, types: &str) -> String {
    let tests = columns
        .iter()
        .map(|column| format!("typeof({side}.{}) IN ({types})", quote_name(column)));
    tests.collect::<Vec<_>>().join(" AND ")
}

/// Whether the value of an id has the text in a key that it has in the column.
fn fits(id: &[String], kind: Option<IdKind>, side: &str) -> String {
    let kind = kind.filter(|_| !crate::base::mutation::is_active("outbox-types-not-compared"));
    match kind {
        Some(IdKind::Integer) => are(id, side, "'integer', 'null'"),
        Some(IdKind::Text) => are(id, side, "'text', 'null'"),
        // Lower case and with hyphens; as bytes or without them it is the same id, and another
        // text.
        Some(IdKind::Uuid) => {
            let shape = [8, 4, 4, 4, 12].map(|length| "[0-9a-f]".repeat(length));
            let shape = shape.join("-");
            let tests = id.iter().map(|column| {
                let column = format!("{side}.{}", quote_name(column));
                format!("coalesce({column} GLOB '{shape}', true)")
            });
            tests.collect::<Vec<_>>().join(" AND ")
        }
        Some(IdKind::Mixed) => "false".to_owned(),
        Some(IdKind::Unread) | None => are(id, side, "'integer', 'text', 'null'"),
    }
}

/// On what condition an UPDATE is looked at.
fn compared(followed: &Followed) -> String {
    match &followed.table.compared {
        None => String::new(),
        Some(compared) => {
            let columns = [&compared[..], &followed.columns[..]].concat();
            match columns.is_empty() {
                true => String::new(),
                false => format!(" WHEN {}", changes(&columns)),
            }
        }
    }
}

/// Whether an UPDATE has changed one of these columns.
fn changes(columns: &[String]) -> String {
    let tests = columns.iter().map(|column| {
        let column = quote_name(column);
        format!("OLD.{column} IS NOT NEW.{column}")
    });
    format!("({})", tests.collect::<Vec<_>>().join(" OR "))
}

fn row(
    outbox: &OutboxTable,
    resource: &str,
    id: &[String],
    kind: Option<IdKind>,
    side: &str,
    is_again: bool,
) -> String {
    let (table, resource) = (outbox.bare(""), quote_sqlite_text(resource));
    if id.is_empty() {
        return match is_again {
            true => String::new(),
            false => {
                format!("    INSERT INTO {table} (kind, resource) VALUES ('all', {resource});\n")
            }
        };
    }
    let columns = id
        .iter()
        .map(|column| format!("{side}.{}", quote_name(column)));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let json = match id {
        [_] => format!("json_quote({columns})"),
        _ => format!("json_array({columns})"),
    };
    let json = match kind {
        Some(_) => json,
        None => format!("json_object('id', {json})"),
    };
    let is_known = fits(id, kind, side);
    let condition = match is_again {
        true => format!(" WHERE {}", changes(id)),
        false => String::new(),
    };
    format!(
        "    INSERT INTO {table} (kind, resource, value) SELECT CASE WHEN {is_known} THEN 'row' ELSE 'all' END, {resource},
        CASE WHEN {is_known} THEN {json} END{condition};\n"
    )
}

fn tagged(outbox: &OutboxTable, tag: &Tag, side: &str, is_again: bool) -> String {
    let table = outbox.bare("");
    let mut columns = Vec::new();
    let mut parts = Vec::new();
    for part in &tag.parts {
        match part {
            TagPart::Text(text) => parts.push(quote_sqlite_text(text)),
            TagPart::Column(column) => {
                parts.push(format!("{side}.{}", quote_name(column)));
                columns.push(column.clone());
            }
        }
    }
    let text = parts.join(" || ");
    if columns.is_empty() {
        return match is_again {
            true => String::new(),
            false => {
                format!(
                    "    INSERT INTO {table} (kind, value) VALUES ('tag', json_quote({text}));\n"
                )
            }
        };
    }
    let mut condition = String::new();
    if is_again {
        condition = format!(" AND {}", changes(&columns));
    }
    let mut sql = format!(
        "    INSERT INTO {table} (kind, value) SELECT 'tag', json_quote({text}) WHERE {}{condition};\n",
        are(&columns, side, "'integer', 'text'")
    );
    for resource in &tag.resources {
        let _ = writeln!(
            sql,
            "    INSERT INTO {table} (kind, resource) SELECT 'all', {} WHERE {} AND NOT ({}){condition};",
            quote_sqlite_text(resource),
            are(&columns, side, "'integer', 'text', 'real', 'blob'"),
            are(&columns, side, "'integer', 'text'"),
        );
    }
    sql
}
