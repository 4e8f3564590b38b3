//! When the triggers run, their names, and the SQL of each.

use super::quoting::{dollars, quote_pattern};
use crate::config::outbox::{OutboxTable, quote_text};

/// When a trigger runs, and which rows it sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct TriggerEvent {
    event: &'static str,
    rows: &'static str,
    level: &'static str,
    /// `ALWAYS`, or only where `session_replication_role` is `replica`. By its first letter in the
    /// database's catalog.
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

pub(super) const EVENTS: [TriggerEvent; 4] = [
    statement("INSERT", "REFERENCING NEW TABLE AS new_rows"),
    statement(
        "UPDATE",
        "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    ),
    statement("DELETE", "REFERENCING OLD TABLE AS old_rows"),
    statement("TRUNCATE", ""),
];

/// Logical replication runs no triggers of statements but that of TRUNCATE. Only tables that a
/// subscription writes to have this one: elsewhere a bulk load with
/// `session_replication_role = replica` would write each row twice.
pub(super) const REPLICA: TriggerEvent = TriggerEvent {
    event: "INSERT OR UPDATE OR DELETE",
    rows: "",
    level: "ROW",
    mode: "REPLICA",
};

/// For each row, whichever table the statement has named.
pub(super) const ROW: TriggerEvent = TriggerEvent {
    mode: "ALWAYS",
    ..REPLICA
};

/// The triggers' names, the same on each table. The last one is that of TRUNCATE.
pub(in crate::outbox) fn trigger_names(outbox: &OutboxTable) -> [String; 4] {
    ["_insert", "_update", "_delete", "_truncate"].map(|suffix| outbox.trigger(suffix))
}

/// The name of the trigger of a table whose changes are seen row by row.
pub(in crate::outbox) fn row_trigger_name(outbox: &OutboxTable) -> String {
    outbox.trigger("_row")
}

/// The name of the trigger for rows that a subscription brings.
pub(in crate::outbox) fn replica_trigger_name(outbox: &OutboxTable) -> String {
    outbox.trigger("_replica")
}

/// One trigger of the table `target`, in a block of PL/pgSQL. One that is there stays: to replace
/// it would wait for all who read the table, and make others wait.
pub(super) fn trigger_sql(name: &str, event: TriggerEvent, function: &str) -> String {
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
pub(super) fn drop_sql(name: &str) -> String {
    let bare = name.trim_matches('"').replace("\"\"", "\"");
    format!(
        "            IF EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = target AND t.tgname = {}) THEN
                EXECUTE format('DROP TRIGGER %s ON %s', {}, target);
            END IF;\n",
        quote_text(&bare),
        quote_text(name)
    )
}

/// Which functions are those of the triggers of an outbox, of the function `p` in the schema `n`.
pub(in crate::outbox) fn is_function_sql(outbox: &OutboxTable) -> String {
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
pub(in crate::outbox) fn removal_of_triggers(outbox: &OutboxTable) -> String {
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
