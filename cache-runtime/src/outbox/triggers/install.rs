//! Checks before the triggers of a table are installed, their installation and removal.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::event::{
    EVENTS, REPLICA, ROW, drop_sql, replica_trigger_name, row_trigger_name, trigger_names,
    trigger_sql,
};
use super::quoting::dollars;
use crate::base::nonce::hash128;
use crate::config::outbox::{OutboxTable, quote_text};
use crate::outbox::checked_table::{Followed, IdKind};
use crate::outbox::trigger_notes::{Notes, is_subscribed};

impl Followed {
    /// The SQL of the function, and of the triggers where they are missing.
    pub(super) fn install_sql(&self, outbox: &OutboxTable) -> String {
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

    /// The checks before, and the triggers of the table and its partitions.
    ///
    /// A table with a foreign partition, or one that is a partition of a table that is not
    /// followed, gets triggers of rows. PostgreSQL collects no rows of a foreign table for a
    /// statement, and lets the statement fail. And triggers of statements run only where the
    /// statement names their table.
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

    /// Refuses columns that are missing, and ids and tags of a type whose text may differ from the
    /// one in a key.
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

    pub(super) fn write_remove(&self, sql: &mut String, outbox: &OutboxTable) {
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
pub(in crate::outbox) fn by_row_sql(table: &str) -> String {
    format!(
        "bool_or(c.relkind = 'f') OR EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = {table})"
    )
}

/// The version in the functions' comments: a hash of the SQL that this crate writes.
pub(in crate::outbox) fn signature() -> &'static str {
    static SIGNATURE: LazyLock<String> = LazyLock::new(|| {
        let any = Followed::any();
        let outbox = OutboxTable::default();
        let words = any.create_sql(&outbox) + &any.install_block(&outbox);
        let hash = hash128(b"cache-runtime 20", words.as_bytes()) as u32;
        format!("cache-runtime outbox {hash:08x}")
    });
    &SIGNATURE
}
