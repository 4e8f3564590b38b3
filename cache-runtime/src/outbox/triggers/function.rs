//! The function that the triggers of a table run: it writes what a statement has changed into the
//! outbox.

use std::collections::{BTreeMap, BTreeSet};

use super::quoting::dollars;
use crate::config::outbox::{OutboxTable, quote_name, quote_text};
use crate::outbox::checked_table::{Followed, IdKind, Tag, TagPart};
use crate::outbox::statement::OutboxStatement;
use crate::outbox::table::table;

impl Followed {
    /// Some table, with everything that triggers can be made of.
    pub(in crate::outbox) fn any() -> Self {
        let tag = Tag {
            parts: vec![TagPart::Text("t".into()), TagPart::Column("c".into())],
            resources: BTreeSet::from(["r".into()]),
        };
        Self {
            table: table("t").resource("r").id("c").resource("w"),
            columns: vec!["c".into()],
            plain: BTreeMap::from([("r".into(), IdKind::Integer)]),
            tags: vec![tag],
        }
    }

    /// The invalidation in place of rows and tags that are too many, or not known.
    pub(in crate::outbox) fn wholes(&self) -> BTreeSet<&String> {
        let own = self.table.resources.iter().map(|(resource, _)| resource);
        own.chain(self.tags.iter().flat_map(|tag| &tag.resources))
            .collect()
    }

    /// The columns without which the function can't tell what has changed.
    pub(super) fn needed_columns(&self) -> BTreeSet<&String> {
        let compared = self.table.compared.iter().flatten();
        self.columns.iter().chain(compared).collect()
    }

    pub(super) fn function(&self, outbox: &OutboxTable) -> String {
        outbox.side_table(&self.table.function_suffix())
    }

    /// The function. It has the search path and the forms of values that it needs, whoever runs it:
    /// rows are compared as texts, and in another form than ISO's two points of time may have the
    /// same text.
    pub(super) fn create_sql(&self, outbox: &OutboxTable) -> String {
        format!(
            "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1{datestyle} AS {body};",
            function = self.function(outbox),
            datestyle = match crate::base::mutation::is_active("outbox-dates-by-the-session") {
                true => "",
                false => " SET datestyle = 'ISO'",
            },
            body = dollars(&self.body(outbox)),
        )
    }

    /// The body of the function.
    fn body(&self, outbox: &OutboxTable) -> String {
        let wholes = self.wholes().into_iter();
        let wholes = wholes.map(|resource| format!("('all', {})", quote_text(resource)));
        format!(
            "
DECLARE
    lacks_columns boolean := false;
BEGIN
{lacks_columns}    IF lacks_columns OR TG_OP = 'TRUNCATE' THEN
        INSERT INTO {outbox} (kind, resource) VALUES {wholes};
    ELSIF TG_LEVEL = 'ROW' THEN
        {of_row}
    ELSIF TG_OP = 'INSERT' THEN
        {inserted}
    ELSIF TG_OP = 'UPDATE' THEN
        {updated}
    ELSE
        {deleted}
    END IF;
    RETURN NULL;
END
",
            lacks_columns = self.lacks_columns(),
            of_row = self.insert(outbox, &self.of_row()),
            inserted = self.insert(outbox, &self.selected("1 AS c", "new_rows")),
            updated = self.insert(outbox, &self.difference()),
            deleted = self.insert(outbox, &self.selected("1 AS c", "old_rows")),
            outbox = outbox.quoted(),
            wholes = wholes.collect::<Vec<_>>().join(", "),
        )
    }

    /// Whether a column has been renamed or dropped since the triggers were installed. Then nobody
    /// can tell which rows have changed, but that is no reason to let a write fail. The function
    /// sees the columns as they are now. A query for them would not, if the transaction's snapshot
    /// is older than the change (REPEATABLE READ).
    fn lacks_columns(&self) -> String {
        let columns = self.needed_columns();
        if columns.is_empty() || crate::base::mutation::is_active("outbox-renamed-columns-fail") {
            return String::new();
        }
        if crate::base::mutation::is_active("outbox-columns-of-the-snapshot") {
            let (number, columns) = (columns.len(), columns.into_iter());
            let columns: Vec<String> = columns.map(|column| quote_text(column)).collect();
            return format!(
                "    lacks_columns := (SELECT count(*) FROM pg_attribute WHERE attrelid = TG_RELID AND NOT attisdropped AND attname IN ({})) < {number};\n",
                columns.join(", ")
            );
        }
        let columns = columns.into_iter().map(|column| {
            format!(
                "has_column_privilege(TG_RELID, {}::text, 'SELECT') IS NULL",
                quote_text(column)
            )
        });
        format!(
            "    BEGIN
        lacks_columns := {};
    EXCEPTION WHEN undefined_column THEN
        lacks_columns := true;
    END;\n",
            columns.collect::<Vec<_>>().join(" OR ")
        )
    }

    /// The columns that ids and tags are made of, of one row, as it was and as it is, unless an
    /// UPDATE has changed nothing.
    fn of_row(&self) -> String {
        let of = |row: &str| {
            let columns = self.columns.iter().enumerate();
            columns
                .map(|(at, column)| format!(", {row}.{} AS c{at}", quote_name(column)))
                .collect::<String>()
        };
        let image = |row: &str| match &self.table.compared {
            None => format!("{row}::text"),
            Some(compared) => {
                let columns = compared.iter().chain(&self.columns);
                let columns = columns.map(|column| format!("{row}.{}", quote_name(column)));
                format!("ROW({})::text", columns.collect::<Vec<_>>().join(", "))
            }
        };
        let differs = format!(
            "(TG_OP <> 'UPDATE' OR {} IS DISTINCT FROM {})",
            image("OLD"),
            image("NEW")
        );
        format!(
            "SELECT 1 AS c{} WHERE TG_OP <> 'INSERT' AND {differs} UNION ALL SELECT 1{} WHERE TG_OP <> 'DELETE' AND {differs}",
            of("OLD"),
            of("NEW")
        )
    }

    /// The columns that ids and tags are made of, of some rows, behind something else.
    fn selected(&self, first: &str, rows: &str) -> String {
        let columns = self.columns.iter().enumerate();
        let columns: String = columns
            .map(|(at, column)| format!(", r.{} AS c{at}", quote_name(column)))
            .collect();
        format!("SELECT {first}{columns} FROM {rows} r")
    }

    /// The rows that an UPDATE has changed, before and after.
    fn difference(&self) -> String {
        if crate::base::mutation::is_active("outbox-old-ids-not-written") {
            return self.selected("1 AS c", "new_rows");
        }
        let image = match &self.table.compared {
            None => "(r.*)::text".to_owned(),
            Some(compared) => {
                let columns = compared.iter().map(|it| format!("r.{}", quote_name(it)));
                format!("ROW({})::text", columns.collect::<Vec<_>>().join(", "))
            }
        };
        let columns = (0..self.columns.len()).map(|at| format!(", c{at}"));
        format!(
            "SELECT 1 AS c{columns} FROM ({old} UNION ALL {new}) AS sides
            GROUP BY image{columns} HAVING sum(side) <> 0",
            columns = columns.collect::<String>(),
            old = self.selected(&format!("1 AS side, {image} AS image"), "old_rows"),
            new = self.selected(&format!("-1 AS side, {image} AS image"), "new_rows"),
        )
    }

    /// Writes the rows for the changed ones.
    fn insert(&self, outbox: &OutboxTable, changed: &str) -> String {
        let mut written = OutboxStatement::default();
        for (resource, id) in &self.table.resources {
            match (&id[..], self.plain.get(resource)) {
                ([], _) | (_, Some(IdKind::Mixed)) => written.whole(resource),
                (id, kind) => written.row(
                    resource,
                    &self.value_of(id, kind.is_some()),
                    self.fits(id, kind),
                ),
            }
        }
        for tag in &self.tags {
            let (value, condition) = self.tag_of(tag);
            written.tag(&value, &condition, &tag.resources);
        }
        let OutboxStatement { names, selects } = written;
        format!(
            "INSERT INTO {outbox} (kind, resource, value)
        WITH changed AS MATERIALIZED (
            {changed}
        ){names}
        SELECT * FROM (
            {selects}
        ) AS written(kind, resource, value);",
            outbox = outbox.quoted(),
            selects = selects.join("\n            UNION ALL "),
        )
    }

    /// The JSON of an id. One whose text in keys is not known is marked.
    fn value_of(&self, id: &[String], is_plain: bool) -> String {
        let columns: Vec<String> = id.iter().map(|it| self.column(it)).collect();
        let value = match &columns[..] {
            [column] => format!("coalesce(to_jsonb({column}), 'null')"),
            columns => format!("jsonb_build_array({})", columns.join(", ")),
        };
        match is_plain {
            true => format!("{value}::text"),
            false => format!("jsonb_build_object('id', {value})::text"),
        }
    }

    /// Whether the column's type is that of the ids in the program, so that a text in the one is
    /// that in the other. Looked at each time: the column may have been altered since. A domain is
    /// what it is made of.
    fn fits(&self, id: &[String], kind: Option<&IdKind>) -> Option<String> {
        let (kind, [column]) = (kind?, id) else {
            return None;
        };
        if *kind == IdKind::Unread || crate::base::mutation::is_active("outbox-types-not-compared")
        {
            return None;
        }
        Some(format!(
            "CASE WHEN pg_typeof({column}) IN ({types}) THEN true
                ELSE coalesce((SELECT typbasetype IN ({types}) FROM pg_type WHERE oid = pg_typeof({column})), false) END",
            column = self.column(column),
            types = kind.column_types(),
        ))
    }

    /// The JSON of a tag, and on what condition there is one.
    fn tag_of(&self, tag: &Tag) -> (String, String) {
        let parts = tag.parts.iter().map(|part| match part {
            TagPart::Text(text) => quote_text(text),
            TagPart::Column(column) => format!("{}::text", self.column(column)),
        });
        let parts: Vec<String> = parts.collect();
        let present = tag.parts.iter().filter_map(|part| match part {
            TagPart::Column(column) => Some(format!("{} IS NOT NULL", self.column(column))),
            TagPart::Text(_) => None,
        });
        let present: Vec<String> = present.collect();
        let condition = match present.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", present.join(" AND ")),
        };
        let value = format!("to_jsonb(({})::text)::text", parts.join(" || "));
        (value, condition)
    }

    fn column(&self, name: &str) -> String {
        let at = self.columns.iter().position(|column| column == name);
        format!("c{}", at.unwrap_or_default())
    }
}
