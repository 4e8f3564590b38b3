//! The SQL of the triggers, through which changes of any writer reach the outbox.
//!
//! Each table gets four statement-level triggers, since a trigger with transition tables can have
//! only one event. They run once for a statement that changes many rows, and read these tables. An
//! UPDATE is a difference of two sets of whole rows, as text: a row that is on one side only has
//! changed, by its old id or by its new one. This needs no primary key, and its cost is
//! proportional to the rows, whatever plan is chosen.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use super::row::MOST_ROWS;
use crate::base::error::{Error, ErrorKind, shortened};
use crate::base::nonce::hash128;
use crate::config::outbox::{DEFAULT_TABLE, OutboxTable, quote_name, quote_text};
use crate::key::is_resource;
use crate::registry::catalog::{CacheMap, Reader, blanked, is_constant, nearest};

/// A table whose changes are followed: `name`, or `schema.name`. The name is used as it is,
/// including upper case.
pub fn table(name: &str) -> Table {
    Table {
        name: name.to_owned(),
        schema: None,
        resources: Vec::new(),
        tags: Vec::new(),
        problem: None,
    }
}

/// A table and what its changes invalidate; see [`table`].
///
/// ```
/// use cache_runtime::outbox::table;
///
/// // A row of `users` is the entity `users:<id>`:
/// let users = table("users").resource("users").id("id");
/// // An id of two columns, `orders:7,1`, as of `#[cached(resource = "orders", id = (tenant, id))]`:
/// let orders = table("shop.orders").resource("orders").id(["tenant_id", "id"]);
/// // A row of `memberships` changes what carries a tag:
/// let memberships = table("memberships").tag("team:{team_id}");
/// // Any change of `settings` invalidates all of a resource:
/// let settings = table("settings").resource("settings");
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Table {
    name: String,
    schema: Option<String>,
    pub(super) resources: Vec<(String, Vec<String>)>,
    tags: Vec<String>,
    problem: Option<&'static str>,
}

impl Table {
    /// The table's schema, for a name that contains a dot, or to be independent of the search path.
    pub fn schema(mut self, schema: &str) -> Self {
        self.schema = Some(schema.to_owned());
        self
    }

    /// A resource that changes of the table invalidate: as a whole, unless an [id](Self::id)
    /// follows.
    pub fn resource(mut self, resource: &str) -> Self {
        self.resources.push((resource.to_owned(), Vec::new()));
        self
    }

    /// The column with the id of the last resource, or its columns in the order of the key. A
    /// change of a row then invalidates that row and everything derived from the resource.
    pub fn id(mut self, columns: impl Into<Columns>) -> Self {
        let Columns(columns) = columns.into();
        match self.resources.last_mut() {
            _ if columns.is_empty() => self.problem = Some("an id has no columns"),
            Some((_, id)) => *id = columns,
            None => self.problem = Some("an id comes before its resource"),
        }
        self
    }

    /// A tag that a changed row invalidates, with columns in braces: `team:{team_id}`. `{{` and
    /// `}}` are literal braces.
    pub fn tag(mut self, tag: &str) -> Self {
        self.tags.push(tag.to_owned());
        self
    }

    /// Schema and name.
    pub(super) fn names(&self) -> (Option<&str>, &str) {
        match (&self.schema, self.name.split_once('.')) {
            (Some(schema), _) => (Some(schema), &self.name),
            (None, Some((schema, name))) => (Some(schema), name),
            (None, None) => (None, &self.name),
        }
    }

    fn quoted(&self) -> String {
        match self.names() {
            (Some(schema), name) => format!("{}.{}", quote_name(schema), quote_name(name)),
            (None, name) => quote_name(name),
        }
    }

    /// The name of its function. The hash keeps shortened names apart.
    pub(super) fn function_suffix(&self) -> String {
        let (schema, name) = self.names();
        let whole = format!("{}\0{name}", schema.unwrap_or_default());
        let hash = hash128(b"cache-runtime 20", whole.as_bytes()) as u32;
        let shown: String = name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(8)
            .collect();
        format!("_{shown}_{hash:08x}")
    }
}

/// One or more columns of a table.
#[derive(Debug, Clone)]
pub struct Columns(Vec<String>);

impl From<&str> for Columns {
    fn from(column: &str) -> Self {
        Self(vec![column.to_owned()])
    }
}

impl From<String> for Columns {
    fn from(column: String) -> Self {
        Self(vec![column])
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for Columns {
    fn from(columns: [S; N]) -> Self {
        Self(columns.into_iter().map(Into::into).collect())
    }
}

impl<S: Into<String>> From<Vec<S>> for Columns {
    fn from(columns: Vec<S>) -> Self {
        Self(columns.into_iter().map(Into::into).collect())
    }
}

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

    /// The SQL that installs the triggers, or replaces earlier ones. Run it in one transaction,
    /// after the [migration](super::migration) of the outbox. It raises an error if a column is
    /// missing, or has a type whose text may differ from the text in a program's keys.
    #[must_use]
    pub fn install_sql(&self) -> String {
        self.install_into(&self.outbox)
    }

    pub(super) fn install_into(&self, outbox: &OutboxTable) -> String {
        let mut sql = self.twice_sql();
        for followed in &self.followed {
            followed.write_install(&mut sql, outbox);
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

/// A table whose options have been checked.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub(super) table: Table,
    /// The columns of all ids and tags, each once.
    columns: Vec<String>,
    /// The resources whose ids are the same text in keys and in the database.
    pub(super) plain: BTreeSet<String>,
    pub(super) tags: Vec<Tag>,
}

#[derive(Debug, Clone)]
pub(super) struct Tag {
    pub(super) parts: Vec<Part>,
    /// The resources that are invalidated if there are too many tags.
    pub(super) resources: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Column(String),
}

impl Followed {
    fn of(table: Table, catalog: &CacheMap) -> Result<Self, Error> {
        let refuse = |what: String| {
            let name = shortened(&table.name);
            Error::new(ErrorKind::InvalidConfig, format!("table `{name}`: {what}"))
        };
        let (schema, name) = table.names();
        if [Some(name), schema]
            .into_iter()
            .flatten()
            .any(|name| name.is_empty() || name.contains('\0'))
        {
            return Err(refuse("this is no name of a table".into()));
        }
        if let Some(problem) = table.problem {
            return Err(refuse(problem.into()));
        }
        if table.resources.is_empty() && table.tags.is_empty() {
            return Err(refuse(
                "it follows nothing; give it a resource or a tag".into(),
            ));
        }
        let mut columns: BTreeSet<String> = BTreeSet::new();
        let mut plain = BTreeSet::new();
        for (resource, id) in &table.resources {
            check_resource(resource, id, catalog).map_err(&refuse)?;
            if has_plain_ids(resource, catalog) {
                plain.insert(resource.clone());
            }
            columns.extend(id.iter().cloned());
        }
        let mut tags = Vec::new();
        for text in &table.tags {
            let parts = parts_of(text).map_err(&refuse)?;
            let resources = carriers_of(text, catalog).map_err(&refuse)?;
            columns.extend(parts.iter().filter_map(|part| match part {
                Part::Column(column) => Some(column.clone()),
                Part::Text(_) => None,
            }));
            tags.push(Tag { parts, resources });
        }
        if let Some(column) = columns.iter().find(|it| it.is_empty() || it.contains('\0')) {
            return Err(refuse(format!("`{}` is no column", shortened(column))));
        }
        let columns = columns.into_iter().collect();
        Ok(Self {
            table,
            columns,
            plain,
            tags,
        })
    }

    fn column(&self, name: &str) -> String {
        let at = self.columns.iter().position(|column| column == name);
        format!("c{}", at.unwrap_or_default())
    }

    fn write_install(&self, sql: &mut String, outbox: &OutboxTable) {
        let (target, function) = (
            self.table.quoted(),
            outbox.beside(&self.table.function_suffix()),
        );
        let shown: String = target.chars().filter(|it| !it.is_control()).collect();
        let (quoted_target, names) = (quote_text(&target), trigger_names(outbox));
        let checks = self
            .columns
            .iter()
            .map(|column| format!("({})", quote_text(column)));
        let checks: Vec<String> = checks.collect();
        let mut block = String::new();
        let _ = write!(
            block,
            "DECLARE\n    target pg_catalog.regclass;\n    wrong text;\nBEGIN\n"
        );
        if !checks.is_empty() {
            let _ = write!(
                block,
                "    SELECT string_agg(format('column %I %s', asked.name, coalesce('is of type ' || format_type(a.atttypid, a.atttypmod) || coalesce(' with a collation in which different texts are equal' || nullif(c.collisdeterministic, true)::text, ''), 'does not exist')), ', ') INTO wrong
    FROM (VALUES {}) AS asked(name)
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = {quoted_target}::pg_catalog.regclass
        AND a.attname = asked.name AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
    WHERE a.attname IS NULL OR c.collisdeterministic = false
        OR coalesce(nullif(t.typbasetype, 0), t.oid) NOT IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype,
            'text'::regtype, 'varchar'::regtype, 'uuid'::regtype, 'bool'::regtype);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%: %', {quoted_target}, wrong USING HINT = 'an id or a tag of the cache is made of whole numbers, text, uuid or boolean; leave the id out to invalidate the whole resource';
    END IF;\n",
                checks.join(", "),
            );
        }
        let _ = write!(
            block,
            "    SELECT pg_get_userbyid(proowner) INTO wrong FROM pg_catalog.pg_proc
    WHERE oid = ({} || '()')::pg_catalog.regprocedure AND proowner <> (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the trigger function of % belongs to %', {quoted_target}, wrong USING HINT = 'install it as its owner, or drop it';
    END IF;\n",
            quote_text(&function),
        );
        let _ = write!(
            block,
            "    FOR target IN
        WITH RECURSIVE tree AS (
            SELECT {quoted_target}::pg_catalog.regclass::oid AS oid
            UNION ALL SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid
        ) SELECT tree.oid::pg_catalog.regclass FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relkind <> 'f'
    LOOP\n"
        );
        let function_text = quote_text(&function);
        for (name, (event, rows)) in names.iter().zip(EVENTS) {
            let name = quote_text(name);
            let rows = quote_text(rows);
            let event = quote_text(event);
            let _ = write!(
                block,
                "        EXECUTE format('DROP TRIGGER IF EXISTS %s ON %s', {name}, target);
        EXECUTE format('CREATE TRIGGER %s AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION %s()', {name}, {event}, target, {rows}, {function_text});
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %s', target, {name});\n"
            );
        }
        block.push_str("    END LOOP;\nEND\n");
        let body = self.body(outbox);
        let _ = write!(
            sql,
            "-- Changes of {shown}.
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 AS {};
REVOKE ALL ON FUNCTION {function}() FROM PUBLIC;
DO {};\n",
            dollars(&body),
            dollars(&block),
        );
    }

    fn write_remove(&self, sql: &mut String, outbox: &OutboxTable) {
        let (target, function) = (
            self.table.quoted(),
            outbox.beside(&self.table.function_suffix()),
        );
        let quoted_target = quote_text(&target);
        let mut block = format!(
            "DECLARE\n    target pg_catalog.regclass;\nBEGIN\n    FOR target IN
        WITH RECURSIVE tree AS (
            SELECT pg_catalog.to_regclass({quoted_target})::oid AS oid
            UNION ALL SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid
        ) SELECT tree.oid::pg_catalog.regclass FROM tree WHERE tree.oid IS NOT NULL
    LOOP\n"
        );
        for name in trigger_names(outbox) {
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
        let selected = |side: &str, rows: &str| {
            let columns = self.columns.iter().enumerate();
            let columns: String = columns
                .map(|(at, column)| format!(", r.{} AS c{at}", quote_name(column)))
                .collect();
            format!("SELECT {side}{columns} FROM {rows} r")
        };
        let columns: String = (0..self.columns.len())
            .map(|at| format!(", c{at}"))
            .collect();
        let difference = format!(
            "SELECT 1 AS c{columns} FROM ({} UNION ALL {}) AS sides\n            GROUP BY image{columns} HAVING sum(side) <> 0",
            selected("1 AS side, (r.*)::text AS image", "old_rows"),
            selected("-1 AS side, (r.*)::text AS image", "new_rows"),
        );
        let difference = match crate::base::mutation::is_active("outbox-old-ids-not-written") {
            true => selected("1 AS c", "new_rows"),
            false => difference,
        };
        let wholes: BTreeSet<&str> = self
            .table
            .resources
            .iter()
            .map(|(resource, _)| resource.as_str())
            .chain(
                self.tags
                    .iter()
                    .flat_map(|tag| tag.resources.iter().map(String::as_str)),
            )
            .collect();
        let wholes: Vec<String> = wholes
            .into_iter()
            .map(|resource| format!("('all', {})", quote_text(resource)))
            .collect();
        format!(
            "
BEGIN
    IF TG_OP = 'INSERT' THEN
        {}
    ELSIF TG_OP = 'UPDATE' THEN
        {}
    ELSIF TG_OP = 'DELETE' THEN
        {}
    ELSE
        INSERT INTO {} (kind, resource) VALUES {};
    END IF;
    RETURN NULL;
END
",
            self.insert(outbox, &selected("1 AS c", "new_rows")),
            self.insert(outbox, &difference),
            self.insert(outbox, &selected("1 AS c", "old_rows")),
            outbox.quoted(),
            wholes.join(", "),
        )
    }

    /// Writes the rows for the changed ones.
    fn insert(&self, outbox: &OutboxTable, changed: &str) -> String {
        let (mut names, mut rows) = (String::new(), Vec::new());
        let mut wholes = Vec::new();
        let mut listed = |value: String,
                          condition: String,
                          kind: &str,
                          resource: &str,
                          fallback: Vec<String>| {
            let at = rows.len() + wholes.len();
            let _ = write!(
                names,
                ",\n        n{at} AS MATERIALIZED (SELECT DISTINCT {value} AS v FROM changed{condition} LIMIT {})",
                MOST_ROWS + 1
            );
            rows.push(format!(
                "SELECT '{kind}', {resource}, v FROM n{at} WHERE (SELECT count(*) FROM n{at}) <= {MOST_ROWS}"
            ));
            for resource in fallback {
                wholes.push(format!(
                    "SELECT 'all', {resource}, NULL WHERE (SELECT count(*) FROM n{at}) > {MOST_ROWS}"
                ));
            }
        };
        let mut plain = Vec::new();
        for (name, id) in &self.table.resources {
            let resource = quote_text(name);
            let value = match &id[..] {
                [] => {
                    plain.push(format!(
                        "SELECT 'all', {resource}, NULL WHERE EXISTS (SELECT FROM changed)"
                    ));
                    continue;
                }
                [column] => format!("coalesce(to_jsonb({}), 'null')", self.column(column)),
                columns => {
                    let columns: Vec<String> = columns.iter().map(|it| self.column(it)).collect();
                    format!("jsonb_build_array({})", columns.join(", "))
                }
            };
            let value = match self.plain.contains(name) {
                true => format!("{value}::text"),
                false => format!("jsonb_build_object('id', {value})::text"),
            };
            listed(
                value,
                String::new(),
                "row",
                &resource,
                vec![resource.clone()],
            );
        }
        for tag in &self.tags {
            let parts = tag.parts.iter().map(|part| match part {
                Part::Text(text) => quote_text(text),
                Part::Column(column) => format!("{}::text", self.column(column)),
            });
            let parts: Vec<String> = parts.collect();
            let present = tag.parts.iter().filter_map(|part| match part {
                Part::Column(column) => Some(format!("{} IS NOT NULL", self.column(column))),
                Part::Text(_) => None,
            });
            let present: Vec<String> = present.collect();
            let condition = match present.is_empty() {
                true => String::new(),
                false => format!(" WHERE {}", present.join(" AND ")),
            };
            let fallback = tag.resources.iter().map(|it| quote_text(it)).collect();
            let value = format!("to_jsonb(({})::text)::text", parts.join(" || "));
            listed(value, condition, "tag", "NULL", fallback);
        }
        rows.extend(plain);
        rows.extend(wholes);
        format!(
            "INSERT INTO {} (kind, resource, value)
        WITH changed AS MATERIALIZED (
            {changed}
        ){names}
        SELECT * FROM (\n            {}\n        ) AS written(kind, resource, value);",
            outbox.quoted(),
            rows.join("\n            UNION ALL ")
        )
    }
}

/// The events, and which of their rows a trigger sees.
const EVENTS: [(&str, &str); 4] = [
    ("INSERT", "REFERENCING NEW TABLE AS new_rows"),
    (
        "UPDATE",
        "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    ),
    ("DELETE", "REFERENCING OLD TABLE AS old_rows"),
    ("TRUNCATE", ""),
];

/// The triggers' names, the same on each table.
pub(super) fn trigger_names(outbox: &OutboxTable) -> [String; 4] {
    ["_insert", "_update", "_delete", "_truncate"].map(|suffix| outbox.trigger(suffix))
}

/// Removes all triggers that write to an outbox, and their functions. Triggers of tables that have
/// left the list, or of detached partitions, would otherwise make each write to their table fail.
pub(super) fn removal_of_triggers(outbox: &OutboxTable) -> String {
    let functions = format!(
        "pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname = {} AND p.proname ~ {} AND p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype",
        quote_text(outbox.schema()),
        quote_text(&format!("^{}_[A-Za-z0-9]*_[0-9a-f]{{8}}$", quote_pattern(outbox.name()))),
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

fn parts_of(tag: &str) -> Result<Vec<Part>, String> {
    let refuse = || format!("the braces of the tag `{}` don't match", shortened(tag));
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut letters = tag.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '{' | '}' if letters.peek() == Some(&letter) => {
                letters.next();
                text.push(letter);
            }
            '{' => {
                parts.push(Part::Text(std::mem::take(&mut text)));
                let mut column = String::new();
                loop {
                    match letters.next() {
                        Some('}') => break,
                        Some('{') | None => return Err(refuse()),
                        Some(letter) => column.push(letter),
                    }
                }
                parts.push(Part::Column(column));
            }
            '}' => return Err(refuse()),
            letter => text.push(letter),
        }
    }
    parts.push(Part::Text(text));
    parts.retain(|part| *part != Part::Text(String::new()));
    if parts.is_empty() {
        return Err("a tag is empty".into());
    }
    Ok(parts)
}

/// Whether two tags with blanks may be the same text. A blank, `{}`, may be anything: a whole tag,
/// or several parts of one.
fn may_be_one(one: &str, other: &str) -> bool {
    /// A letter, or a blank.
    fn split(tag: &str) -> Option<(Option<char>, &str)> {
        let mut letters = tag.chars();
        match tag.strip_prefix("{}") {
            Some(rest) => Some((None, rest)),
            None => letters
                .next()
                .map(|letter| (Some(letter), letters.as_str())),
        }
    }
    // The pairs of remaining texts to compare, each once.
    let (mut open, mut seen) = (vec![(one, other)], BTreeSet::new());
    while let Some((one, other)) = open.pop() {
        if !seen.insert((one.len(), other.len())) {
            continue;
        }
        match (split(one), split(other)) {
            (None, None) => return true,
            (Some((Some(a), one)), Some((Some(b), other))) if a == b => open.push((one, other)),
            (a, b) => {
                // The blank ends, or covers one more letter of the other text.
                if let Some((None, rest)) = a {
                    open.push((rest, other));
                    open.extend(b.map(|(_, rest)| (one, rest)));
                }
                if let Some((None, rest)) = b {
                    open.push((one, rest));
                    open.extend(a.map(|(_, rest)| (rest, other)));
                }
            }
        }
    }
    false
}

/// The resources of the functions that have a tag.
fn carriers_of(tag: &str, catalog: &CacheMap) -> Result<BTreeSet<String>, String> {
    let blank = blanked(tag);
    let carries = |reader: &&Reader| {
        let mut tags = reader.tags.iter();
        tags.any(|tag| may_be_one(&blanked(tag), &blank))
    };
    let carriers = catalog.readers().iter().filter(carries);
    let carriers: BTreeSet<String> = carriers.map(|reader| reader.resource.clone()).collect();
    if let Some(unbound) = carriers.iter().find(|it| is_constant(it)) {
        let constant = unbound.trim_matches(['{', '}']);
        return Err(format!(
            "functions of the resource `{unbound}` carry the tag `{}`; say which resources that is with `bind(\"{constant}\", ..)` on the map",
            shortened(tag)
        ));
    }
    if carriers.is_empty() {
        let known: BTreeSet<String> = catalog
            .readers()
            .iter()
            .flat_map(|reader| reader.tags.iter().map(|tag| blanked(tag)))
            .collect();
        let hint = nearest(&blank, known.iter().map(String::as_str));
        return Err(format!(
            "no cached function carries the tag `{}`{}",
            shortened(tag),
            hint.map_or_else(String::new, |it| format!("; did you mean `{it}`?"))
        ));
    }
    Ok(carriers)
}

fn check_resource(resource: &str, id: &[String], catalog: &CacheMap) -> Result<(), String> {
    let shown = shortened(resource);
    if !is_resource(resource) {
        return Err(format!(
            "`{shown}` is no resource; use lower-case letters, digits, `-` and `_`"
        ));
    }
    let readers = catalog.readers();
    let reads = |reader: &&Reader| {
        reader.resource == resource || reader.depends.iter().any(|it| it == resource)
    };
    if !readers.iter().any(|reader| reads(&reader))
        && !readers.iter().any(|it| is_constant(&it.resource))
    {
        let names = readers.iter().map(|reader| reader.resource.as_str());
        let hint = nearest(resource, names);
        return Err(format!(
            "no cached function reads the resource `{shown}`{}",
            hint.map_or_else(String::new, |it| format!("; did you mean `{it}`?"))
        ));
    }
    let of_rows = readers
        .iter()
        .filter(|reader| reader.resource == resource && reader.is_entity());
    for reader in of_rows.filter(|_| !id.is_empty()) {
        if let Some(parts) = parts_of_id(&reader.key)
            && parts != id.len()
        {
            return Err(format!(
                "the id of `{shown}` has {} here, and {parts} in `{}`",
                id.len(),
                reader.function
            ));
        }
        let unclear = [
            "Vec<", "HashSet", "BTreeSet", "f32", "f64", "DateTime", "Decimal", "[",
        ];
        if let Some(unclear) = unclear.into_iter().find(|it| reader.key.contains(it)) {
            return Err(format!(
                "the id of `{}` is {}, and a column's text may differ from what `{unclear}` looks like in a key; leave the id out to invalidate all of `{shown}`",
                reader.function, reader.key
            ));
        }
    }
    Ok(())
}

/// Whether all functions that read rows of the resource have ids of a type whose text in a key
/// equals that of the column. For any other type, only a process that has called such a function
/// knows the text.
fn has_plain_ids(resource: &str, catalog: &CacheMap) -> bool {
    let readers = catalog.readers().iter();
    let mut of_rows = readers.filter(|it| it.resource == resource && it.is_entity());
    of_rows.all(|reader| parts_of_id(&reader.key) == Some(1))
        && !catalog.readers().iter().any(|it| is_constant(&it.resource))
}

/// The number of parts of an id that is written as a tuple; 1 for a plain parameter, `None` for any
/// other expression.
fn parts_of_id(key: &str) -> Option<usize> {
    let inside = key.strip_prefix('{')?.strip_suffix('}')?;
    let kind = inside.rsplit_once(": ").map(|(_, kind)| kind);
    let text = kind.unwrap_or(inside).trim();
    let Some(tuple) = text.strip_prefix('(').and_then(|it| it.strip_suffix(')')) else {
        let plain = [
            "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "String", "str", "&str", "Uuid",
        ];
        return kind.filter(|kind| plain.contains(kind)).map(|_| 1);
    };
    let (mut depth, mut parts) = (0u32, 1);
    for letter in tuple.trim_end_matches([',', ' ']).chars() {
        match letter {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => parts += 1,
            _ => {}
        }
    }
    Some(parts)
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

    /// A tag that is one expression may be any tag.
    #[test]
    fn all_that_may_carry_a_tag_goes_where_there_are_too_many() {
        let carriers = |tag: &str| {
            let map = test_map(&[
                Site::new(Role::Reads, "one", "users:one, tag team:{id}"),
                Site::new(Role::Reads, "two", "posts:two, tag {t}"),
                Site::new(Role::Reads, "three", "days:three, tag {kind}:{id}"),
                Site::new(Role::Reads, "four", "orders:four, tag teams"),
            ]);
            let carriers = carriers_of(tag, &map).expect("carried");
            carriers.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(carriers("team:{team_id}"), ["days", "posts", "users"]);
        assert_eq!(carriers("{whole}"), ["days", "orders", "posts", "users"]);
        assert_eq!(carriers("teams"), ["orders", "posts"]);
        for (one, other, may) in [
            ("a{}c", "abc", true),
            ("a{}c", "ac", true),
            ("a{}c", "ab", false),
            ("{}b", "a{}", true),
            ("x{}", "y{}", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(may_be_one(one, other), may, "{one} {other}");
            assert_eq!(may_be_one(other, one), may, "{other} {one}");
        }
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
    fn tags_are_read() {
        let column = |name: &str| Part::Column(name.into());
        let text = |text: &str| Part::Text(text.into());
        assert_eq!(
            parts_of("a{{b}}:{c}{d}"),
            Ok(vec![text("a{b}:"), column("c"), column("d")])
        );
        assert!(parts_of("a}b").is_err() && parts_of("").is_err());
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
