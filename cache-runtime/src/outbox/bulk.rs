//! Very many new rows at once, as after a bulk write in many statements.
//!
//! Taken one after another, they would delay all later rows. So they are counted first. A resource
//! with very many rows is invalidated as a whole, at once, as the triggers do for one statement.
//! Its rows need no delivery then, and are deleted when nothing else is to be done. The few rows of
//! other resources come first.

use ::sqlx::Row as _;

use super::relay::{Connection, Relay, RelayError};
use super::row::{BATCH, MOST_ROWS, Row, ids_of, lossy};
use super::walk::MOST_IDS;
use crate::key::is_resource;

/// From how many new rows on they are counted.
pub(super) const MANY: usize = 2 * BATCH;

/// The most groups of rows. With more, the rows are taken one after another.
pub(super) const MOST_GROUPS: usize = 1_000;

/// New rows, divided.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// One row for each resource that is invalidated as a whole.
    pub(super) whole: Vec<Row>,
    /// The rows that `whole` replaces. They were there when they were counted, so the invalidation
    /// is newer.
    pub(super) covered: Vec<i64>,
    /// The other rows, those of small groups first.
    pub(super) others: Vec<i64>,
    /// Whether there are more rows than these lists may hold.
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

/// Divides the rows that were committed since the snapshot `position`; `None` if there are too many
/// groups, or no large one.
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

/// One statement, so that counts and ids are of one snapshot.
fn sql(relay: &Relay) -> String {
    let columns = format!("{}, {} AS age", Row::group_columns(), Row::AGE_MS);
    format!(
        "SELECT resource, kind, count(*), max(age), (array_agg(id ORDER BY id))[1:{MOST_IDS}]::text
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

    /// The next walk finds the ids that are left out here.
    fn limit(&mut self) {
        for ids in [&mut self.covered, &mut self.others] {
            self.has_more |= ids.len() > MOST_IDS;
            ids.truncate(MOST_IDS);
        }
    }
}

/// The row that replaces many rows of a kind; `None` if their meaning is not known.
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
    fn rows_beyond_the_limit_are_left_to_a_walk() {
        let mut bulk = Bulk::default();
        for of in 0..11 {
            let name = format!("of{of}");
            bulk.add(group(Some(&name), "row", of * 2_000..of * 2_000 + 1_001));
        }
        bulk.limit();
        assert_eq!(bulk.covered.len(), super::MOST_IDS);
        assert!(bulk.has_more);
    }
}
