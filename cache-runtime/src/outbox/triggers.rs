//! The SQL of the triggers, through which changes of any writer reach the outbox.
//!
//! Each table gets four statement-level triggers, since a trigger with transition tables can have
//! only one event. They run once for a statement that changes many rows, and read these tables. An
//! UPDATE is a difference of two sets of whole rows, as text: a row that is on one side only has
//! changed, by its old id or by its new one. This needs no primary key, and its cost is
//! proportional to the rows, whatever plan is chosen.

mod event;
mod function;
mod install;
mod quoting;

use std::fmt;

pub(super) use self::event::{
    is_function_sql, removal_of_triggers, replica_trigger_name, row_trigger_name, trigger_names,
};
pub(super) use self::install::{by_row_sql, signature};
use self::quoting::dollars;
use super::checked_table::Followed;
use super::migration::LOCK;
use super::table::Table;
use crate::base::error::{Error, ErrorKind, shortened};
use crate::config::outbox::{DEFAULT_TABLE, OutboxTable, quote_text};
use crate::registry::catalog::Catalog;

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

    /// The SQL that installs the triggers, or those that are missing. It belongs in one transaction
    /// with the [migration](super::migration) of the outbox. It raises an error if a column is
    /// missing, or of a type whose text may differ from what a program has in its keys. A new
    /// trigger waits for the transactions that write to its table, and later ones wait behind it:
    /// set a `lock_timeout`.
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

/// Triggers for these tables. The [`catalog`](crate::catalog()) tells which resources and tags
/// are cached, so that a typo is found. It also tells which resources have a tag: with more than
/// 1,000 tags, and at a TRUNCATE, these are invalidated as a whole.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] if a table follows nothing or is given twice, a resource or tag is
/// cached by no function, an id has another number of columns than that of the function, or a tag's
/// braces don't match.
pub fn triggers(
    catalog: &Catalog,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::table::table;
    use crate::registry::catalog::test_map;
    use crate::registry::{Role, Site};

    fn catalog() -> Catalog {
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
    fn tables_that_do_not_fit_the_program_are_refused() {
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
}
