//! The statement of a trigger that writes to the outbox.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::row::MOST_ROWS;
use crate::config::outbox::quote_text;

/// The parts of the statement that writes to the outbox.
#[derive(Debug, Default)]
pub(super) struct OutboxStatement {
    pub(super) names: String,
    pub(super) selects: Vec<String>,
}

impl OutboxStatement {
    /// Names the distinct values of something, up to one more than are written; returns the name.
    fn values(&mut self, value: &str, condition: &str) -> String {
        let name = format!("n{}", self.names.matches(" AS MATERIALIZED").count());
        let _ = write!(
            self.names,
            ",\n        {name} AS MATERIALIZED (SELECT DISTINCT {value} AS v FROM changed{condition} LIMIT {limit})",
            limit = MOST_ROWS + 1
        );
        name
    }

    /// A resource as a whole, if anything has changed.
    pub(super) fn whole(&mut self, resource: &str) {
        self.selects.push(format!(
            "SELECT 'all', {resource}, NULL WHERE EXISTS (SELECT FROM changed)",
            resource = quote_text(resource)
        ));
    }

    /// Rows, or the whole resource if they are too many, or if their ids don't fit.
    pub(super) fn row(&mut self, resource: &str, value: &str, fits: Option<String>) {
        let name = self.values(value, "");
        let (mut is_row, mut is_whole) = (String::new(), String::new());
        if let Some(fits) = fits {
            let known = format!("f{name}");
            let _ = write!(
                self.names,
                ",\n        {known} AS MATERIALIZED (SELECT {fits} AS fits FROM changed LIMIT 1)"
            );
            is_row = format!(" AND (SELECT fits FROM {known})");
            is_whole = format!(" OR NOT (SELECT fits FROM {known})");
        }
        let resource = quote_text(resource);
        self.selects.push(format!(
            "SELECT 'row', {resource}, v FROM {name} WHERE (SELECT count(*) FROM {name}) <= {MOST_ROWS}{is_row}"
        ));
        self.selects.push(format!(
            "SELECT 'all', {resource}, NULL WHERE (SELECT count(*) FROM {name}) > {MOST_ROWS}{is_whole}"
        ));
    }

    /// Tags, or the resources that carry them if they are too many.
    pub(super) fn tag(&mut self, value: &str, condition: &str, carriers: &BTreeSet<String>) {
        let name = self.values(value, condition);
        self.selects.push(format!(
            "SELECT 'tag', NULL, v FROM {name} WHERE (SELECT count(*) FROM {name}) <= {MOST_ROWS}"
        ));
        for resource in carriers {
            self.selects.push(format!(
                "SELECT 'all', {resource}, NULL WHERE (SELECT count(*) FROM {name}) > {MOST_ROWS}",
                resource = quote_text(resource)
            ));
        }
    }
}
