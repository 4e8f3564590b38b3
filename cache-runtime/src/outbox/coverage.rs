//! Which tables are followed, and whether they have changed since the last check.
//!
//! A table whose triggers are switched off, that has a new partition, or that was restored from a
//! dump changes without a row in the outbox. So each relay reads the database's catalog every few
//! seconds. Tables that are not followed are in the statistics. If the triggers, columns or
//! partitions of a followed table differ from before, its resources are invalidated as a whole,
//! since its rows may have changed meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use ::sqlx::Row as _;
use ::sqlx::postgres::PgRow;

use super::delivery::deliver;
use super::relay::{Connection, Relay, RelayError};
use super::row::{Row, meaning};
use super::trigger_notes::{Notes, is_subscribed};
use super::triggers::{
    by_row_sql, is_function_sql, replica_trigger_name, row_trigger_name, signature, trigger_names,
};
use super::walk::WALK_INTERVAL;
use crate::base::clock::{self, Instant};
use crate::config::outbox::{OutboxTable, quote_text};
use crate::invalidation::outbox::Shapes;

/// The pause after a check that failed.
const FAILED_LOOK_PAUSE: Duration = Duration::from_secs(60);
/// A check may use 1/200 of the relay's time, since new rows wait meanwhile.
const LOOK_SHARE: u32 = 200;

/// A table whose changes are followed, or should be.
#[derive(Debug)]
pub(super) struct CoveredTable {
    /// Its number, which no other table has.
    pub(super) oid: i64,
    pub(super) name: String,
    /// Why some of its changes are not followed.
    pub(super) problem: Option<String>,
    /// Whether its rows are in another server.
    pub(super) is_foreign: bool,
    /// Whether another version of this crate has written its triggers.
    pub(super) is_older: bool,
    /// Changes whenever anything about the table does.
    pub(super) shape: String,
    /// The resources that depend on it; `None` if they are not known.
    pub(super) resources: Option<Vec<String>>,
}

/// The rows of [`CoveredTable::read`]: tables with triggers, those that are below them, and those
/// that have lost all their triggers, or that others took the place of: their function still names
/// them.
pub(super) fn coverage_sql(table: &OutboxTable) -> String {
    let name = |name: &String| quote_text(&name.trim_matches('"').replace("\"\"", "\""));
    let names = trigger_names(table);
    let statements: Vec<String> = names.iter().map(name).collect();
    let (row, replica) = (
        name(&row_trigger_name(table)),
        name(&replica_trigger_name(table)),
    );
    let lost = match crate::base::mutation::is_active("outbox-lost-triggers-unnoticed") {
        true => "false",
        false => "true",
    };
    format!(
        "WITH RECURSIVE functions AS (
            SELECT p.oid, obj_description(p.oid, 'pg_proc') AS told
            FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {is_function}
        ), known AS (
            SELECT t.tgrelid AS oid, count(*) FILTER (WHERE t.tgenabled = 'A' AND t.tgname::text IN ({statements})) AS events,
                bool_or(t.tgenabled = 'A' AND t.tgname::text = {truncate}) AS is_truncate_seen,
                bool_or(t.tgenabled = 'A' AND t.tgname::text = {row}) AS are_rows_seen,
                bool_or(t.tgenabled = 'R') AS is_replicated, min(f.told) AS told,
                string_agg(t.oid::text || ':' || t.xmin::text, ' ' ORDER BY t.oid) AS triggers
            FROM pg_trigger t JOIN functions f ON f.oid = t.tgfoid
            WHERE t.tgname::text IN ({statements}, {row}, {replica}) GROUP BY 1
        ), below AS (
            SELECT oid AS top, oid, told FROM known
            UNION SELECT below.top, i.inhrelid, below.told FROM pg_inherits i JOIN below ON i.inhparent = below.oid
        ), modes AS (
            SELECT below.top, {by_row} AS by_row FROM below JOIN pg_class c ON c.oid = below.oid
            WHERE NOT EXISTS (SELECT FROM below AS above WHERE above.oid = below.top AND above.top <> below.top) GROUP BY 1
        ), tables AS (
            SELECT below.oid, bool_or(modes.by_row) AS by_row, min(below.told) AS told
            FROM below JOIN modes ON modes.top = below.top GROUP BY 1
        )
        SELECT c.oid::bigint, c.oid::regclass::text, c.relkind::text, CASE
                WHEN tables.by_row THEN (c.relkind = 'p' OR coalesce(known.are_rows_seen, false))
                    AND (c.relkind = 'f' OR coalesce(known.is_truncate_seen, false))
                    AND coalesce(known.events, 0) <= coalesce(known.is_truncate_seen, false)::int
                ELSE coalesce(known.events, 0) >= {events} END,
            coalesce(known.told, tables.told), known.triggers,
            CASE WHEN NOT c.relispartition THEN (SELECT json_object_agg(a.attname, a.xmin::text ORDER BY a.attnum)::text FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END,
            c.relkind = 'r' AND NOT tables.by_row AND NOT coalesce(known.is_replicated, false) AND {is_subscribed},
            tables.by_row, false AS is_lost
        FROM tables JOIN pg_class c ON c.oid = tables.oid LEFT JOIN known ON known.oid = tables.oid
        UNION ALL
        SELECT c.oid::bigint, c.oid::regclass::text, c.relkind::text, false, min(f.told), NULL, NULL, false, false, true
        FROM functions f JOIN LATERAL (
                SELECT CASE WHEN f.told ~ '^cache-runtime outbox [0-9a-f]+; [{{]' THEN substr(f.told, position('; ' IN f.told) + 2)::json END AS it
            ) AS notes ON true
            JOIN pg_namespace n ON n.nspname = notes.it ->> 'schema'
            JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = notes.it ->> 'name' AND c.relkind IN ('r', 'p')
        WHERE {lost} AND NOT EXISTS (SELECT FROM tables WHERE tables.oid = c.oid) GROUP BY c.oid, c.relkind
        ORDER BY 1",
        is_function = is_function_sql(table),
        statements = statements.join(", "),
        truncate = statements[statements.len() - 1],
        by_row = by_row_sql("below.top"),
        events = names.len(),
        is_subscribed = is_subscribed("c.oid"),
    )
}

impl CoveredTable {
    pub(super) fn read(row: &PgRow) -> Result<Self, ::sqlx::Error> {
        let told: Option<String> = row.try_get(4)?;
        let (version, notes) = match told.as_deref().map(|told| told.split_once("; ")) {
            Some(Some((version, notes))) => (version, serde_json::from_str::<Notes>(notes).ok()),
            _ => ("", None),
        };
        let triggers: Option<String> = row.try_get(5)?;
        let columns: Option<String> = row.try_get(6)?;
        let is_foreign = row.try_get::<String, _>(2)? == "f";
        let (has_triggers, by_row, is_lost): (bool, bool, bool) =
            (row.try_get(3)?, row.try_get(8)?, row.try_get(9)?);
        let mut table = Self {
            oid: row.try_get(0)?,
            name: row.try_get(1)?,
            problem: None,
            is_foreign,
            // A partition without triggers of its own has none of another version.
            is_older: triggers.is_some() && version != signature(),
            shape: format!("{triggers:?} {columns:?}"),
            resources: notes.as_ref().map(|notes| notes.resources.clone()),
        };
        let there: Option<BTreeMap<String, String>> =
            columns.and_then(|columns| serde_json::from_str(&columns).ok());
        let gone = notes.zip(there).and_then(|(notes, there)| {
            let mut gone = notes.columns.into_iter();
            gone.find(|column| !there.contains_key(column))
        });
        table.problem = match (has_triggers, gone, row.try_get(7)?) {
            (false, ..) if is_lost => Some(" (it has none of its triggers)".to_owned()),
            (false, ..) if is_foreign => Some(
                " (a foreign table: writes to it through the table that it is a part of may fail)"
                    .to_owned(),
            ),
            (false, ..) if by_row => Some(
                " (it has a foreign partition, or is itself one of a table that is not followed)"
                    .to_owned(),
            ),
            (false, ..) => Some(String::new()),
            (_, Some(column), _) => Some(format!(
                " (there is no column {column} any more, so each change invalidates the whole resource)"
            )),
            (.., true) => Some(" (what a subscription brings)".to_owned()),
            _ => None,
        };
        Ok(table)
    }

    /// With the reason why it is not followed.
    pub(super) fn with_problem(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        Some(format!("{}{problem}", self.name))
    }
}

/// The resources that depend on tables that have changed.
fn changed(before: &Shapes, now: &Shapes) -> Vec<Row> {
    let is_another = |oid: &i64| match (before.get(oid), now.get(oid)) {
        (Some((before, _)), Some((now, _))) => before != now,
        _ => true,
    };
    let resources = |shapes: &Shapes| {
        let another = shapes.iter().filter(|(oid, _)| is_another(oid));
        let resources = another.map(|(_, (_, resources))| resources.clone());
        resources.collect::<Vec<_>>()
    };
    let mut rows = BTreeMap::new();
    for resources in resources(before).into_iter().chain(resources(now)) {
        let names = match resources {
            Some(resources) => resources.into_iter().map(Some).collect(),
            None => vec![None],
        };
        for name in names {
            rows.insert(name.clone(), Row::whole(name));
        }
    }
    rows.into_values().collect()
}

/// Checks the followed tables from time to time.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    last: Option<Instant>,
    pause: Duration,
    has_failed: bool,
}

impl Coverage {
    pub(super) async fn look(
        &mut self,
        relay: &Relay,
        connection: &mut Connection,
    ) -> Result<(), RelayError> {
        if self.last.is_some_and(|last| last.elapsed() < self.pause) {
            return Ok(());
        }
        let begun = clock::now();
        (self.last, self.pause) = (Some(begun), FAILED_LOOK_PAUSE);
        let read = match connection.rows(&coverage_sql(relay.table()), &[]).await {
            Err(RelayError::Database(error @ ::sqlx::Error::Database(_))) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::warn!(
                        table = relay.table().channel(),
                        %error,
                        "which tables the outbox follows is not known"
                    );
                }
                return Ok(());
            }
            read => read?,
        };
        let tables = read.iter().map(CoveredTable::read);
        let tables = tables.collect::<Result<Vec<_>, _>>()?;
        self.pause = WALK_INTERVAL.max(begun.elapsed() * LOOK_SHARE);
        noted(relay, tables).await
    }
}

/// Notes which tables are not followed, and invalidates what depends on tables that have changed.
pub(super) async fn noted(relay: &Relay, tables: Vec<CoveredTable>) -> Result<(), RelayError> {
    let problems = tables.iter().filter_map(CoveredTable::with_problem);
    relay.state.not_followed(problems.collect());
    let now: Shapes = tables
        .into_iter()
        .map(|table| (table.oid, (table.shape, table.resources)))
        .collect();
    let Some(before) = relay.state.shapes(now.clone()) else {
        return Ok(());
    };
    let rows = changed(&before, &now);
    if rows.is_empty() || crate::base::mutation::is_active("outbox-coverage-trusted") {
        return Ok(());
    }
    let resources: Vec<_> = rows.iter().map(|row| row.resource.as_deref()).collect();
    tracing::info!(
        table = relay.table().channel(),
        ?resources,
        "followed tables are not as they were: what depends on them is invalidated"
    );
    let cache = relay.cache()?;
    // If the store does not acknowledge it, this process's queue keeps it.
    let _delivered = deliver(&cache, meaning(&cache, rows)).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(tables: &[(i64, &str, &[&str])]) -> Shapes {
        let of = |(oid, shape, resources): &(i64, &str, &[&str])| {
            let resources = resources.iter().map(|it| (*it).to_owned()).collect();
            (*oid, ((*shape).to_owned(), Some(resources)))
        };
        tables.iter().map(of).collect()
    }

    #[test]
    fn dependents_of_a_changed_table_are_named_once() {
        let before = shapes(&[
            (1, "a", &["users", "teams"]),
            (2, "b", &["users"]),
            (3, "c", &["orders"]),
        ]);
        let names = |now: &Shapes| {
            let rows = changed(&before, now);
            let names = rows.into_iter().map(|row| row.resource.unwrap_or_default());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(&before), Vec::<String>::new());
        let mut now = before.clone();
        now.remove(&3);
        assert_eq!(names(&now), ["orders"]);
        now.extend(shapes(&[
            (1, "x", &["users", "teams"]),
            (4, "n", &["days"]),
        ]));
        assert_eq!(names(&now), ["days", "orders", "teams", "users"]);
        now.insert(5, (String::new(), None));
        assert_eq!(names(&now)[0], "", "everything");
    }
}
