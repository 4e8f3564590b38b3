//! Which tables are followed, and what has become of them since the last look.
//!
//! A table whose triggers are switched off, that has a new partition, or that was restored from a dump changes without a row in the
//! outbox. So each relay looks at the database's catalog every few seconds. What is not followed is in the statistics. And where
//! anything about a followed table is another thing than before (its triggers, its columns, its partitions), what it is the source
//! of is invalidated as a whole, since nobody knows what has changed meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use ::sqlx::Row as _;
use ::sqlx::postgres::PgRow;

use super::delivery::deliver;
use super::relay::{Connection, Relay, RelayError};
use super::row::{Row, meaning};
use super::trigger_notes::{Notes, is_subscribed};
use super::triggers::{replica_trigger_name, signature, trigger_names};
use super::walk::SURVEY;
use crate::base::clock::{self, Instant};
use crate::config::outbox::{OutboxTable, quote_text};
use crate::invalidation::outbox::Shapes;

/// After a look that failed, the next one comes so much later.
const PAUSE: Duration = Duration::from_secs(60);
/// Of the relay's time it takes one part in so many, since new rows wait meanwhile.
const SHARE: u32 = 200;

/// A table whose changes are followed, or should be.
#[derive(Debug)]
pub(super) struct CoveredTable {
    oid: i64,
    pub(super) name: String,
    /// Why some of its changes are not followed.
    pub(super) problem: Option<String>,
    /// Whether another version of this crate has written its triggers.
    pub(super) is_older: bool,
    /// Changes whenever anything about the table does.
    shape: String,
    /// What depends on it; `None` if that is not known.
    resources: Option<Vec<String>>,
}

/// The rows of [`CoveredTable::read`].
pub(super) fn coverage_sql(table: &OutboxTable) -> String {
    let name = |name: &String| quote_text(&name.trim_matches('"').replace("\"\"", "\""));
    let names = trigger_names(table);
    let mut all: Vec<String> = names.iter().map(name).collect();
    all.push(name(&replica_trigger_name(table)));
    format!(
        "WITH RECURSIVE known AS (
            SELECT t.tgrelid AS oid, count(*) FILTER (WHERE t.tgenabled = 'A') AS events,
                bool_or(t.tgenabled = 'R') AS is_replicated, min(obj_description(p.oid, 'pg_proc')) AS told,
                string_agg(t.oid::text || ':' || t.xmin::text, ' ' ORDER BY t.oid) AS triggers
            FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE t.tgname::text IN ({names}) AND n.nspname = {schema} AND starts_with(p.proname::text, {prefix})
            GROUP BY 1
        ), tree AS (
            SELECT oid, told FROM known
            UNION SELECT i.inhrelid, tree.told FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid
        )
        SELECT DISTINCT ON (c.oid) c.oid::bigint, c.oid::regclass::text, c.relkind = 'f', coalesce(known.events, 0) >= {events},
            coalesce(known.told, tree.told), known.triggers,
            CASE WHEN NOT c.relispartition THEN (SELECT json_object_agg(a.attname, a.xmin::text ORDER BY a.attnum)::text FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END,
            c.relkind = 'r' AND NOT coalesce(known.is_replicated, false) AND {is_subscribed}
        FROM tree JOIN pg_class c ON c.oid = tree.oid LEFT JOIN known ON known.oid = tree.oid ORDER BY c.oid",
        names = all.join(", "),
        schema = quote_text(table.schema()),
        prefix = quote_text(&format!("{}_", table.name())),
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
        let mut table = Self {
            oid: row.try_get(0)?,
            name: row.try_get(1)?,
            problem: None,
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
        table.problem = match (row.try_get(2)?, row.try_get(3)?, gone, row.try_get(7)?) {
            (true, ..) => Some(" (a foreign table)".to_owned()),
            (_, false, ..) => Some(String::new()),
            (.., Some(column), _) => Some(format!(
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

/// What depends on the tables that are not as they were.
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

/// Looks from time to time.
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
        (self.last, self.pause) = (Some(begun), PAUSE);
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
        self.pause = SURVEY.max(begun.elapsed() * SHARE);
        let problems = tables.iter().filter_map(CoveredTable::with_problem);
        relay.state.not_followed(problems.collect());
        let shapes = tables.into_iter();
        let shapes = shapes.map(|table| (table.oid, (table.shape, table.resources)));
        self.compare(relay, shapes.collect()).await
    }

    async fn compare(&mut self, relay: &Relay, now: Shapes) -> Result<(), RelayError> {
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
    fn what_depends_on_a_table_that_is_not_as_it_was_is_named_once() {
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
