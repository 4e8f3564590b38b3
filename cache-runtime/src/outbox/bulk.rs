//! Very many new rows at once, as after a bulk write in many statements.
//!
//! One after another they would hold up all rows behind them. So they are counted first. A resource
//! with very many rows is invalidated as a whole, at once, as the triggers do for one statement.
//! These rows say nothing more then, and are deleted when nothing else is to be done. The few rows
//! of other resources come first.

use ::sqlx::Row as _;

use super::relay::{Connection, Relay, RelayError};
use super::row::{BATCH, MOST_ROWS, Row, ids_of, lossy};
use super::walk::MOST_TOLD;
use crate::key::is_resource;

/// From how many new rows on they are counted.
pub(super) const MANY: usize = 2 * BATCH;

/// So many kinds of rows are told apart. With more, the rows are taken one after another.
pub(super) const MOST_GROUPS: usize = 1_000;

/// New rows, divided.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// In place of the rows of one resource each: everything of it.
    pub(super) whole: Vec<Row>,
    /// The rows that `whole` stands for. They were there when they were counted, so what is
    /// invalidated after that is newer.
    pub(super) covered: Vec<i64>,
    /// The other rows, those of small groups first.
    pub(super) others: Vec<i64>,
    /// Whether there are more rows than could be told.
    pub(super) has_more: bool,
}

/// The rows with the same resource and kind.
struct Group {
    resource: Option<String>,
    kind: String,
    count: usize,
    age_ms: i64,
    ids: Vec<i64>,
}

/// Divides what has been committed since the snapshot `position`; `None` if that says too little.
pub(super) async fn divide(
    relay: &Relay,
    connection: &mut Connection,
    position: &str,
) -> Result<Option<Bulk>, RelayError> {
    if crate::base::mutation::is_active("outbox-bulk-in-order") {
        return Ok(None);
    }
    let read = connection.rows(&sql(relay), &[position]).await?;
    if read.len() == MOST_GROUPS {
        return Ok(None);
    }
    let mut bulk = Bulk::default();
    for row in &read {
        let bytes = |at: usize| row.try_get_unchecked::<Option<Vec<u8>>, _>(at);
        let ids: Option<String> = row.try_get(4)?;
        bulk.add(Group {
            resource: bytes(0)?.map(lossy),
            kind: bytes(1)?.map(lossy).unwrap_or_default(),
            count: usize::try_from(row.try_get::<i64, _>(2)?).unwrap_or(usize::MAX),
            age_ms: row.try_get::<Option<i64>, _>(3)?.unwrap_or(0),
            ids: ids_of(&ids.unwrap_or_default()),
        });
    }
    bulk.limit();
    Ok((!bulk.whole.is_empty()).then_some(bulk))
}

/// In one statement, so that what is counted and what is told is of one snapshot.
fn sql(relay: &Relay) -> String {
    let columns = format!("{}, {} AS age", Row::group_columns(), Row::AGE_MS);
    format!(
        "SELECT resource, kind, count(*), max(age), (array_agg(id ORDER BY id))[1:{MOST_TOLD}]::text
        FROM ({unseen}) AS new GROUP BY resource, kind ORDER BY count(*) LIMIT {MOST_GROUPS}",
        unseen = relay.unseen_sql(&columns),
    )
}

impl Bulk {
    fn add(&mut self, group: Group) {
        self.has_more |= group.count > group.ids.len();
        let whole = all_in_place_of(&group.kind, group.resource, group.age_ms);
        match whole.filter(|_| group.count > MOST_ROWS) {
            Some(whole) => {
                self.whole.push(whole);
                self.covered.extend(group.ids);
            }
            None => self.others.extend(group.ids),
        }
    }

    /// What is left out here is found by the next walk.
    fn limit(&mut self) {
        for ids in [&mut self.covered, &mut self.others] {
            self.has_more |= ids.len() > MOST_TOLD;
            ids.truncate(MOST_TOLD);
        }
    }
}

/// What may be said in place of many rows of a kind; `None` where that may be anything.
pub(super) fn all_in_place_of(kind: &str, resource: Option<String>, age_ms: i64) -> Option<Row> {
    let is_known = match (kind, &resource) {
        ("row" | "all", Some(resource)) => is_resource(resource),
        ("all", None) => true,
        _ => false,
    };
    is_known.then(|| Row {
        age_ms,
        ..Row::whole(resource)
    })
}

#[cfg(test)]
mod tests {
    use super::{Bulk, Group};

    fn group(resource: Option<&str>, kind: &str, ids: std::ops::Range<i64>) -> Group {
        Group {
            resource: resource.map(str::to_owned),
            kind: kind.to_owned(),
            count: ids.clone().count(),
            age_ms: 7,
            ids: ids.collect(),
        }
    }

    #[test]
    fn many_rows_of_a_resource_become_one() {
        let mut bulk = Bulk::default();
        bulk.add(group(Some("users"), "row", 5..7));
        bulk.add(group(Some("orders"), "row", 10..1_010));
        bulk.add(group(Some("products"), "row", 2_000..3_001));
        bulk.add(group(None, "all", 4_000..5_001));
        // A tag may be of any resource, and a name that is none is for whoever reads the row.
        bulk.add(group(None, "tag", 6_000..7_001));
        bulk.add(group(Some("No name"), "row", 8_000..9_001));
        let whole = bulk
            .whole
            .iter()
            .map(|row| (row.resource.as_deref(), row.kind.as_str()));
        let whole: Vec<_> = whole.collect();
        assert_eq!(whole, [(Some("products"), "all"), (None, "all")]);
        assert_eq!(bulk.covered.len(), 2_002);
        assert_eq!(bulk.others.len(), 2 + 1_000 + 1_001 + 1_001);
        assert_eq!(bulk.others[..2], [5, 6]);
        assert!(!bulk.has_more);
    }

    #[test]
    fn what_is_too_much_is_left_to_a_walk() {
        let mut bulk = Bulk::default();
        for of in 0..11 {
            let name = format!("of{of}");
            bulk.add(group(Some(&name), "row", of * 2_000..of * 2_000 + 1_001));
        }
        bulk.limit();
        assert_eq!(bulk.covered.len(), super::MOST_TOLD);
        assert!(bulk.has_more);
    }
}
