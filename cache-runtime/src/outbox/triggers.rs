//! The SQL of the triggers, through which changes of any writer reach the outbox.
//!
//! Each table gets four statement-level triggers, since a trigger with transition tables can have
//! only one event. They run once for a statement that changes many rows, and read these tables. An
//! UPDATE is a difference of two sets of whole rows, as text: a row that is on one side only has
//! changed, by its old id or by its new one. This needs no primary key, and its cost is
//! proportional to the rows, whatever plan is chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use super::checked_table::{Followed, IdKind, Tag, TagPart};
use super::migration::LOCK;
use super::statement::OutboxStatement;
use super::table::{Table, table};
use super::trigger_notes::{Notes, is_subscribed};
use crate::base::error::{Error, ErrorKind, shortened};
use crate::base::nonce::hash128;
use crate::config::outbox::{DEFAULT_TABLE, OutboxTable, quote_name, quote_text};
use crate::registry::catalog::CacheMap;

/// The triggers of some tables, as SQL; see [`triggers`]. Prints as the SQL that installs them.
#[derive(Debug, Clone)]
pub struct Triggers {
    pub(super) outbox: OutboxTable,
    pub(super) followed: Vec<Followed>,
}

impl Triggers {
    /// Writes to another outbox than [`DEFAULT_TABLE`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if it is not `schema.name`.
    pub fn outbox(mut self, table: &str) -> Result<Self, Error> {
        self.outbox = OutboxTable::parse(table)?;
        Ok(self)
    }

    /// The SQL that installs the triggers, or those that are missing. It belongs in one transaction with the
    /// [migration](super::migration) of the outbox. It raises an error if a column is missing, or of a type whose text may
    /// differ from what a program has in its keys. A new trigger waits for the transactions that write to its table, and later
    /// ones wait behind it: set a `lock_timeout`.
    #[must_use]
    pub fn install_sql(&self) -> String {
        self.install_into(&self.outbox)
    }

    pub(super) fn install_into(&self, outbox: &OutboxTable) -> String {
        let mut sql = LOCK.to_owned() + &self.twice_sql();
        // Always in the same order, so that two installations don't wait for each other.
        let mut followed: Vec<&Followed> = self.followed.iter().collect();
        followed.sort_by_key(|it| it.table.quoted());
        for followed in followed {
            sql.push_str(&followed.install_sql(outbox));
        }
        sql
    }

    /// Refuses two names of one table, or a table and one of its partitions: the triggers of the
    /// second would replace those of the first.
    fn twice_sql(&self) -> String {
        if self.followed.len() < 2 {
            return String::new();
        }
        let names = self.followed.iter().map(|it| {
            let name = quote_text(&it.table.quoted());
            format!("({name}, {name}::pg_catalog.regclass::oid)")
        });
        let names: Vec<String> = names.collect();
        let block = format!(
            "DECLARE\n    twice text;\nBEGIN
    WITH RECURSIVE tree(name, oid) AS (
        SELECT asked.name, asked.oid FROM (VALUES {}) AS asked(name, oid)
        UNION SELECT tree.name, i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
    ), found AS (
        SELECT oid, string_agg(DISTINCT name, ' and as ') AS names FROM tree GROUP BY oid HAVING count(DISTINCT name) > 1
    )
    SELECT string_agg(format('%s, as %s', oid::pg_catalog.regclass, names), '; ') INTO twice FROM found;
    IF twice IS NOT NULL THEN
        RAISE EXCEPTION 'a table is given twice: %', twice USING HINT = 'give it once, and chain .resource(..) and .tag(..)';
    END IF;
END\n",
            names.join(", ")
        );
        format!("DO {};\n", dollars(&block))
    }

    /// The SQL that removes the triggers.
    #[must_use]
    pub fn remove_sql(&self) -> String {
        self.remove_from(&self.outbox)
    }

    pub(super) fn remove_from(&self, outbox: &OutboxTable) -> String {
        let mut sql = String::new();
        for followed in &self.followed {
            followed.write_remove(&mut sql, outbox);
        }
        sql
    }
}

impl fmt::Display for Triggers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.install_sql())
    }
}

/// Triggers for these tables. The catalog, [`map()`](crate::map()), tells which resources and tags
/// are cached, so that a typo is found. It also tells which resources have a tag: with more than
/// 1,000 tags, and at a TRUNCATE, these are invalidated as a whole.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] if a table follows nothing or is given twice, a resource or tag is
/// cached by no function, an id has another number of columns than that of the function, or a tag's
/// braces don't match.
pub fn triggers(
    catalog: &CacheMap,
    tables: impl IntoIterator<Item = Table>,
) -> Result<Triggers, Error> {
    let mut followed: Vec<Followed> = Vec::new();
    for table in tables {
        if followed.iter().any(|it| it.table.names() == table.names()) {
            let name = shortened(&table.name);
            let text =
                format!("table `{name}` is given twice; chain `.resource(..)` and `.tag(..)`");
            return Err(Error::new(ErrorKind::InvalidConfig, text));
        }
        followed.push(Followed::of(table, catalog)?);
    }
    Ok(Triggers {
        outbox: OutboxTable::parse(DEFAULT_TABLE)?,
        followed,
    })
}

impl Followed {
    /// Some table, with everything that triggers can be made of.
    pub(super) fn any() -> Self {
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

    fn column(&self, name: &str) -> String {
        let at = self.columns.iter().position(|column| column == name);
        format!("c{}", at.unwrap_or_default())
    }

    /// The SQL of the function, and of the triggers where they are missing.
    fn install_sql(&self, outbox: &OutboxTable) -> String {
        let target = self.table.quoted();
        let shown: String = target.chars().filter(|it| !it.is_control()).collect();
        let notes = Notes {
            schema: None,
            name: None,
            columns: self.needed_columns().into_iter().cloned().collect(),
            resources: self.wholes().into_iter().cloned().collect(),
        };
        // Which table that is depends on the search path, and is said as it is now.
        let comment = format!(
            "BEGIN
    EXECUTE (SELECT format('COMMENT ON FUNCTION %s() IS %L', {function}, {signature} ||
            ({notes}::jsonb || jsonb_build_object('schema', n.nspname, 'name', c.relname))::text)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = {table}::pg_catalog.regclass);
END\n",
            function = quote_text(&self.function(outbox)),
            signature = quote_text(&format!("{}; ", signature())),
            notes = quote_text(&serde_json::to_string(&notes).unwrap_or_default()),
            table = quote_text(&target),
        );
        format!(
            "-- Changes of {shown}.
{create}
REVOKE ALL ON FUNCTION {function}() FROM PUBLIC;
DO {block};
DO {comment};\n",
            create = self.create_sql(outbox),
            function = self.function(outbox),
            comment = dollars(&comment),
            block = dollars(&self.install_block(outbox)),
        )
    }

    /// The function. It has the search path and the forms of values that it needs, whoever runs it: rows are compared as texts, and
    /// in another form than ISO's two points of time may have the same text.
    fn create_sql(&self, outbox: &OutboxTable) -> String {
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

    /// The columns without which the function can't tell what has changed.
    fn needed_columns(&self) -> BTreeSet<&String> {
        let compared = self.table.compared.iter().flatten();
        self.columns.iter().chain(compared).collect()
    }

    /// What is invalidated in place of rows and tags that are too many, or not known.
    pub(super) fn wholes(&self) -> BTreeSet<&String> {
        let own = self.table.resources.iter().map(|(resource, _)| resource);
        own.chain(self.tags.iter().flat_map(|tag| &tag.resources))
            .collect()
    }

    fn function(&self, outbox: &OutboxTable) -> String {
        outbox.beside(&self.table.function_suffix())
    }

    /// What is to be looked at before, and the triggers of the table and its partitions.
    ///
    /// A table with a foreign partition, or one that is a partition of a table that is not followed, gets triggers of rows. PostgreSQL
    /// collects no rows of a foreign table for a statement, and lets the statement fail. And triggers of statements run only where
    /// the statement names their table.
    fn install_block(&self, outbox: &OutboxTable) -> String {
        let function = quote_text(&self.function(outbox));
        let names = trigger_names(outbox);
        let truncate = names.len() - 1;
        let install = |name: &String, event| trigger_sql(name, event, &function);
        let events = names[..truncate].iter().zip(EVENTS);
        let events: String = events.map(|(name, event)| install(name, event)).collect();
        let (row, replica) = (row_trigger_name(outbox), replica_trigger_name(outbox));
        let drop = |names: &[String]| names.iter().map(|it| drop_sql(it)).collect::<String>();
        format!(
            "DECLARE
    target pg_catalog.regclass;
    kind \"char\";
    by_row boolean;
    mine CONSTANT oid := ({function} || '()')::pg_catalog.regprocedure;
    wrong text;
BEGIN
    SELECT relkind INTO kind FROM pg_catalog.pg_class WHERE oid = {target}::pg_catalog.regclass;
    IF kind = 'f' THEN
        RAISE EXCEPTION '% is a foreign table: its changes are not seen here', {target}
            USING HINT = 'follow it in the database that it is in';
    ELSIF kind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is no table: its rows change with those of others', {target}
            USING HINT = 'follow the tables that a view is made of; after a REFRESH of a materialized view, insert a row for ''all'' into the outbox';
    END IF;
{columns}{fits}    SELECT pg_get_userbyid(proowner) INTO wrong FROM pg_catalog.pg_proc
    WHERE oid = mine
        AND proowner <> (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the trigger function of % belongs to %', {target}, wrong
            USING HINT = 'install it as its owner, or drop it';
    END IF;
    WITH RECURSIVE {tree}
    SELECT {by_row} INTO by_row FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid;
    FOR target, kind IN
        WITH RECURSIVE {tree} SELECT c.oid::pg_catalog.regclass, c.relkind FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
    LOOP
        IF by_row THEN
{drop_statements}        ELSE
{drop_row}{events}        END IF;
        IF by_row AND kind <> 'p' THEN
{of_rows}        END IF;
        IF kind <> 'f' THEN
{truncated}        END IF;
        IF NOT by_row AND kind = 'r' AND {is_subscribed} THEN
{replicated}        END IF;
    END LOOP;
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'the triggers of % are not installed: a transaction that is open holds it for more than %',
        {target}, current_setting('lock_timeout')
        USING ERRCODE = 'lock_not_available', HINT = 'end that transaction, which pg_stat_activity or pg_prepared_xacts shows, or install later';
END
",
            target = quote_text(&self.table.quoted()),
            columns = self.check_columns(),
            fits = self.check_fits(),
            tree = tree_sql(&quote_text(&self.table.quoted())),
            by_row = match crate::base::mutation::is_active("outbox-statements-alone") {
                true => "false".to_owned(),
                false => by_row_sql(&format!("{}::pg_catalog.regclass", quote_text(&self.table.quoted()))),
            },
            drop_statements = drop(&names[..truncate]) + &drop_sql(&replica),
            drop_row = drop_sql(&row),
            of_rows = install(&row, ROW),
            truncated = install(&names[truncate], EVENTS[truncate]),
            is_subscribed = is_subscribed("target"),
            replicated = install(&replica, REPLICA),
        )
    }

    /// Refuses columns that are missing, and ids and tags of a type whose text may differ from the one in a key.
    fn check_columns(&self) -> String {
        let listed = |columns: &[String], is_text: bool| {
            let listed = columns
                .iter()
                .map(|it| format!("({}, {is_text})", quote_text(it)));
            listed.collect::<Vec<_>>()
        };
        let mut asked = listed(&self.columns, true);
        asked.extend(listed(
            self.table.compared.as_deref().unwrap_or_default(),
            false,
        ));
        if asked.is_empty() {
            return String::new();
        }
        format!(
            "    SELECT string_agg(DISTINCT format('column %I %s', asked.name, CASE WHEN a.attname IS NULL THEN 'does not exist'
            WHEN c.collisdeterministic = false THEN format('is of type %s with a collation in which different texts are equal', format_type(a.atttypid, a.atttypmod))
            ELSE format('is of type %s', format_type(a.atttypid, a.atttypmod)) END), ', ') INTO wrong
    FROM (VALUES {asked}) AS asked(name, is_text)
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = {target}::pg_catalog.regclass
        AND a.attname = asked.name AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
    WHERE a.attname IS NULL OR asked.is_text AND (c.collisdeterministic = false
        OR coalesce(nullif(t.typbasetype, 0), t.oid) NOT IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype,
            'text'::regtype, 'varchar'::regtype, 'uuid'::regtype, 'bool'::regtype));
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%: %', {target}, wrong USING HINT = 'an id or a tag of the cache is made of whole numbers, text, uuid or boolean; leave the id out to invalidate the whole resource';
    END IF;\n",
            asked = asked.join(", "),
            target = quote_text(&self.table.quoted()),
        )
    }

    /// Says which ids are of another type in the program than their column.
    fn check_fits(&self) -> String {
        let ids = self.table.resources.iter().filter_map(|(resource, id)| {
            let (kind, [column]) = (self.plain.get(resource)?, &id[..]) else {
                return None;
            };
            (*kind != IdKind::Unread).then(|| format!(
                "    SELECT format_type(a.atttypid, a.atttypmod) INTO wrong
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = {target}::pg_catalog.regclass AND a.attname = {column}
        AND (coalesce(nullif(t.typbasetype, 0), t.oid) IN ({types})) IS NOT true;
    IF wrong IS NOT NULL THEN
        RAISE WARNING 'each change of % invalidates all of %: its ids are {shown} in the program, and column % is of type %',
            {target}, {resource}, {column}, wrong;
    END IF;\n",
                target = quote_text(&self.table.quoted()),
                column = quote_text(column),
                types = kind.column_types(),
                shown = kind.shown(),
                resource = quote_text(resource),
            ))
        });
        ids.collect()
    }

    fn write_remove(&self, sql: &mut String, outbox: &OutboxTable) {
        let (target, function) = (self.table.quoted(), self.function(outbox));
        let quoted_target = quote_text(&target);
        let mut block = format!(
            "DECLARE\n    target pg_catalog.regclass;\nBEGIN\n    FOR target IN
        WITH RECURSIVE tree AS (
            SELECT pg_catalog.to_regclass({quoted_target})::oid AS oid
            UNION ALL SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid
        ) SELECT tree.oid::pg_catalog.regclass FROM tree WHERE tree.oid IS NOT NULL
    LOOP\n"
        );
        let names = trigger_names(outbox).into_iter();
        for name in names.chain([row_trigger_name(outbox), replica_trigger_name(outbox)]) {
            let name = quote_text(&name);
            let _ = writeln!(
                block,
                "        EXECUTE format('DROP TRIGGER IF EXISTS %s ON %s', {name}, target);"
            );
        }
        block.push_str("    END LOOP;\nEND\n");
        let _ = write!(
            sql,
            "DO {};\nDROP FUNCTION IF EXISTS {function}();\n",
            dollars(&block)
        );
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

    /// Whether a column has been renamed or dropped since the triggers were installed. Then nobody can tell which rows have changed,
    /// but that is no reason to let a write fail. The function sees the columns as they are now. A query for them would not, if the
    /// transaction's snapshot is older than the change (REPEATABLE READ).
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

    /// The columns that ids and tags are made of, of one row, as it was and as it is, unless an UPDATE has changed nothing.
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

    /// What an UPDATE has changed, as it was and as it is.
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

    /// Whether the column's type is that of the ids in the program, so that a text in the one is that in the other. Looked at each
    /// time: the column may have been altered since. A domain is what it is made of.
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
}

/// One trigger of the table `target`, in a block of PL/pgSQL. One that is there stays: to replace it would wait for all who read
/// the table, and make others wait.
fn trigger_sql(name: &str, event: TriggerEvent, function: &str) -> String {
    let TriggerEvent {
        event,
        rows,
        level,
        mode,
    } = event;
    let bare = name.trim_matches('"').replace("\"\"", "\"");
    let enabled = &mode[..1];
    let there = format!("t.tgfoid = mine AND t.tgenabled = '{enabled}'");
    let (is_there, is_another) = match crate::base::mutation::is_active("outbox-installs-anew") {
        true => ("false", "true"),
        false => (there.as_str(), "t.tgfoid <> mine"),
    };
    format!(
        "        IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = target AND t.tgname = {bare} AND {is_there}) THEN
            IF kind <> 'f' THEN
                EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', target);
            END IF;
            IF EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = target AND t.tgname = {bare} AND {is_another}) THEN
                EXECUTE format('DROP TRIGGER %s ON %s', {name}, target);
            END IF;
            IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = target AND t.tgname = {bare}) THEN
                EXECUTE format('CREATE TRIGGER %s AFTER %s ON %s %s FOR EACH {level} EXECUTE FUNCTION %s()', {name}, {event}, target, {rows}, {function});
            END IF;
            EXECUTE format('ALTER TABLE %s ENABLE {mode} TRIGGER %s', target, {name});
        END IF;\n",
        bare = quote_text(&bare),
        name = quote_text(name),
        event = quote_text(event),
        rows = quote_text(rows),
    )
}

/// Drops a trigger of the table `target` if it is there, in a block of PL/pgSQL.
fn drop_sql(name: &str) -> String {
    let bare = name.trim_matches('"').replace("\"\"", "\"");
    format!(
        "            IF EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = target AND t.tgname = {}) THEN
                EXECUTE format('DROP TRIGGER %s ON %s', {}, target);
            END IF;\n",
        quote_text(&bare),
        quote_text(name)
    )
}

/// A table with its partitions, and with the tables that inherit from it: `tree(oid)`.
fn tree_sql(table: &str) -> String {
    format!(
        "tree AS (
            SELECT {table}::pg_catalog.regclass::oid AS oid
            UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid
        )"
    )
}

/// Whether the changes of a table are seen row by row, from the classes `c` of it and all below it.
pub(super) fn by_row_sql(table: &str) -> String {
    format!(
        "bool_or(c.relkind = 'f') OR EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = {table})"
    )
}

/// What the functions' comments say: which words of this crate they are made of.
pub(super) fn signature() -> &'static str {
    static SIGNATURE: LazyLock<String> = LazyLock::new(|| {
        let any = Followed::any();
        let outbox = OutboxTable::default();
        let words = any.create_sql(&outbox) + &any.install_block(&outbox);
        let hash = hash128(b"cache-runtime 20", words.as_bytes()) as u32;
        format!("cache-runtime outbox {hash:08x}")
    });
    &SIGNATURE
}

/// When a trigger runs, and which rows it sees.
#[derive(Debug, Clone, Copy)]
struct TriggerEvent {
    event: &'static str,
    rows: &'static str,
    level: &'static str,
    /// `ALWAYS`, or only where `session_replication_role` is `replica`. By its first letter in the database's catalog.
    mode: &'static str,
}

const fn statement(event: &'static str, rows: &'static str) -> TriggerEvent {
    TriggerEvent {
        event,
        rows,
        level: "STATEMENT",
        mode: "ALWAYS",
    }
}

const EVENTS: [TriggerEvent; 4] = [
    statement("INSERT", "REFERENCING NEW TABLE AS new_rows"),
    statement(
        "UPDATE",
        "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    ),
    statement("DELETE", "REFERENCING OLD TABLE AS old_rows"),
    statement("TRUNCATE", ""),
];

/// Logical replication runs no triggers of statements but that of TRUNCATE. Only tables that a subscription writes to have this
/// one: elsewhere a bulk load with `session_replication_role = replica` would write each row twice.
const REPLICA: TriggerEvent = TriggerEvent {
    event: "INSERT OR UPDATE OR DELETE",
    rows: "",
    level: "ROW",
    mode: "REPLICA",
};

/// For each row, whichever table the statement has named.
const ROW: TriggerEvent = TriggerEvent {
    mode: "ALWAYS",
    ..REPLICA
};

/// The triggers' names, the same on each table. The last one is that of TRUNCATE.
pub(super) fn trigger_names(outbox: &OutboxTable) -> [String; 4] {
    ["_insert", "_update", "_delete", "_truncate"].map(|suffix| outbox.trigger(suffix))
}

/// That of a table whose changes are seen row by row.
pub(super) fn row_trigger_name(outbox: &OutboxTable) -> String {
    outbox.trigger("_row")
}

/// That of rows that a subscription brings.
pub(super) fn replica_trigger_name(outbox: &OutboxTable) -> String {
    outbox.trigger("_replica")
}

/// Which functions are those of the triggers of an outbox, of the function `p` in the schema `n`.
pub(super) fn is_function_sql(outbox: &OutboxTable) -> String {
    format!(
        "n.nspname = {} AND p.proname ~ {} AND p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype",
        quote_text(outbox.schema()),
        quote_text(&format!(
            "^{}_[A-Za-z0-9]*_[0-9a-f]{{8}}$",
            quote_pattern(outbox.name())
        )),
    )
}

/// Removes all triggers that write to an outbox, and their functions. Triggers of tables that have
/// left the list, or of detached partitions, would otherwise make each write to their table fail.
pub(super) fn removal_of_triggers(outbox: &OutboxTable) -> String {
    let functions = format!(
        "pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE {}",
        is_function_sql(outbox)
    );
    let block = format!(
        "DECLARE\n    found record;\nBEGIN
    FOR found IN SELECT t.tgname, t.tgrelid::pg_catalog.regclass AS target FROM pg_catalog.pg_trigger t
        WHERE t.tgparentid = 0 AND t.tgfoid IN (SELECT p.oid FROM {functions})
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', found.tgname, found.target);
    END LOOP;
    FOR found IN SELECT p.oid::pg_catalog.regprocedure AS function FROM {functions}
    LOOP
        EXECUTE format('DROP FUNCTION %s', found.function);
    END LOOP;
END\n"
    );
    format!("DO {};\n", dollars(&block))
}

/// A text, escaped for a regular expression.
fn quote_pattern(text: &str) -> String {
    let mut quoted = String::new();
    for letter in text.chars() {
        if letter.is_ascii_punctuation() && letter != '_' {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted
}

/// A text between delimiters that it does not contain.
fn dollars(text: &str) -> String {
    let mut mark = String::from("$cache_outbox$");
    while text.contains(&mark) {
        mark.insert(mark.len() - 1, '_');
    }
    format!("{mark}{text}{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::catalog::test_map;
    use crate::registry::{Role, Site};

    fn catalog() -> CacheMap {
        test_map(&[
            Site::new(Role::Reads, "get", "users:{id: i64}, ttl 300"),
            Site::new(
                Role::Reads,
                "teams",
                "users:teams:{id: i64}, tag team:{self.team}",
            ),
            Site::new(Role::Reads, "order", "orders:{(self.tenant, id)}"),
            Site::new(Role::Reads, "day", "days:{day: DateTime<Utc>}"),
        ])
    }

    fn refused(table: Table) -> String {
        triggers(&catalog(), [table])
            .expect_err("refused")
            .to_string()
    }

    #[test]
    fn what_does_not_fit_the_program_is_refused() {
        for (table, reason) in [
            (
                table("users"),
                "table `users`: it follows nothing; give it a resource or a tag",
            ),
            (
                table("users").id("id"),
                "table `users`: an id comes before its resource",
            ),
            (
                table("users").resource("usres"),
                "table `users`: no cached function reads the resource `usres`; did you mean `users`?",
            ),
            (
                table("m").tag("taem:{id}"),
                "table `m`: no cached function carries the tag `taem:{id}`; did you mean `team:{}`?",
            ),
            (
                table("m").tag("team:{id"),
                "table `m`: the braces of the tag `team:{id` don't match",
            ),
            (
                table("o").resource("orders").id("id"),
                "table `o`: the id of `orders` has 1 here, and 2 in `order`",
            ),
            (
                table("u").resource("users").id(["a", "b"]),
                "table `u`: the id of `users` has 2 here, and 1 in `get`",
            ),
            (
                table("").resource("users"),
                "table ``: this is no name of a table",
            ),
        ] {
            assert_eq!(refused(table), reason);
        }
        assert!(refused(table("d").resource("days").id("day")).contains("leave the id out"));
        for table in [
            table("o").resource("orders").id(["tenant", "id"]),
            table("o").resource("orders"),
            table("m").tag("team:{team_id}"),
        ] {
            triggers(&catalog(), [table]).expect("fits");
        }
    }

    #[test]
    fn a_table_is_given_once() {
        let tables = [
            table("users").resource("users").id("id"),
            table("users").tag("team:{team_id}"),
        ];
        let refused = triggers(&catalog(), tables).expect_err("refused");
        assert!(refused.to_string().contains("given twice"), "{refused}");
    }

    /// If the text of an id in keys may differ, only a process that has called the function knows
    /// it.
    #[test]
    fn ids_of_types_that_are_not_known_are_marked() {
        let map = test_map(&[
            Site::new(Role::Reads, "get", "users:{id: i64}"),
            Site::new(Role::Reads, "badge", "badges:{id: BadgeId}"),
        ]);
        for (resource, is_marked) in [("users", false), ("badges", true)] {
            let triggers = triggers(&map, [table("t").resource(resource).id("id")]);
            let sql = triggers.expect("fits").install_sql();
            assert_eq!(sql.contains("jsonb_build_object('id'"), is_marked, "{sql}");
        }
    }

    #[test]
    fn marks_are_found_that_do_not_stand_in_the_text() {
        assert_eq!(dollars("x"), "$cache_outbox$x$cache_outbox$");
        assert_eq!(
            dollars("$cache_outbox$"),
            "$cache_outbox_$$cache_outbox$$cache_outbox_$"
        );
    }
}
