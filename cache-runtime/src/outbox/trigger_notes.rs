//! Notes of the triggers in the database's catalog, and queries of them.

use serde::{Deserialize, Serialize};

/// Notes in the comment of a trigger function, for a later look at the table.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Notes {
    /// The table, when the triggers were installed. An earlier release did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) schema: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// The columns that the function reads.
    pub(super) columns: Vec<String>,
    /// The resources that are invalidated in place of rows that are not known.
    pub(super) resources: Vec<String>,
}

/// Whether rows of a table arrive by logical replication, under its own name or that of a table
/// that it is a partition of.
pub(super) fn is_subscribed(oid: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = {oid}
            OR s.srrelid IN (SELECT relid FROM pg_catalog.pg_partition_ancestors({oid})))"
    )
}
