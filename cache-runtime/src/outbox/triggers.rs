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
        compared: None,
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
    /// The columns that an UPDATE is looked at for; `None` are all of them.
    pub(super) compared: Option<Vec<String>>,
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

    /// Looks only at these columns, and at those of ids and tags, to tell whether an `UPDATE` has changed a row: those that cached
    /// functions read. Without it all columns are compared, which costs much where they are large. A column that cached functions
    /// read and that is not named here makes them stale, also one that is added later.
    ///
    /// ```
    /// use cache_runtime::outbox::table;
    ///
    /// // `body` has megabytes, and no cached function reads it:
    /// let documents = table("documents").resource("documents").id("id").columns(["title", "owner"]);
    /// ```
    pub fn columns(mut self, columns: impl Into<Columns>) -> Self {
        let Columns(columns) = columns.into();
        self.compared = Some(columns);
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

    /// The SQL that installs the triggers, or those that are missing. It belongs in one transaction with the
    /// [migration](super::migration) of the outbox. It raises an error if a column is missing, or of a type whose text may
    /// differ from what a program has in its keys. A new trigger waits for the transactions that write to its table, and later
    /// ones wait behind it: set a `lock_timeout`.
    #[must_use]
    pub fn install_sql(&self) -> String {
        self.install_into(&self.outbox)
    }

    pub(super) fn install_into(&self, outbox: &OutboxTable) -> String {
        let mut sql = self.twice_sql();
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

/// A table whose options have been checked.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub(super) table: Table,
    /// The columns that ids and tags are made of, each once.
    pub(super) columns: Vec<String>,
    /// The resources whose ids look alike in keys and in the database, if their column is of a type that fits.
    pub(super) plain: BTreeMap<String, IdKind>,
    pub(super) tags: Vec<Tag>,
}

/// What the ids of a resource are in a program, where their text in a key is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdKind {
    Integer,
    Text,
    Uuid,
    /// One function takes them as this, another as that: no column fits both.
    Mixed,
    /// No function reads rows, so none of them is in a key.
    Unread,
}

impl IdKind {
    /// By the type's name in the program.
    fn of(name: &str) -> Option<Self> {
        match name {
            "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" => Some(Self::Integer),
            "String" | "str" | "&str" => Some(Self::Text),
            "Uuid" => Some(Self::Uuid),
            _ => None,
        }
    }

    /// The types of columns whose text is that in a key, as a list in SQL.
    fn column_types(self) -> &'static str {
        match self {
            Self::Integer => "'int8'::regtype, 'int4'::regtype, 'int2'::regtype",
            Self::Text => "'text'::regtype, 'varchar'::regtype",
            Self::Uuid => "'uuid'::regtype",
            Self::Mixed | Self::Unread => "NULL::regtype",
        }
    }

    /// In words, for people.
    fn shown(self) -> &'static str {
        match self {
            Self::Integer => "whole numbers",
            Self::Text => "texts",
            Self::Uuid => "UUIDs",
            Self::Mixed => "of several types",
            Self::Unread => "read by nobody",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Tag {
    pub(super) parts: Vec<TagPart>,
    /// The resources that are invalidated if there are too many tags.
    pub(super) resources: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TagPart {
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
        let mut plain = BTreeMap::new();
        for (resource, id) in &table.resources {
            check_resource(resource, id, catalog).map_err(&refuse)?;
            if let Some(kind) = plain_ids(resource, catalog) {
                plain.insert(resource.clone(), kind);
            }
            columns.extend(id.iter().cloned());
        }
        let mut tags = Vec::new();
        for text in &table.tags {
            let parts = parts_of(text).map_err(&refuse)?;
            let resources = carriers_of(text, catalog).map_err(&refuse)?;
            columns.extend(parts.iter().filter_map(|part| match part {
                TagPart::Column(column) => Some(column.clone()),
                TagPart::Text(_) => None,
            }));
            tags.push(Tag { parts, resources });
        }
        let compared = table.compared.iter().flatten();
        let mut named = columns.iter().chain(compared);
        if let Some(column) = named.find(|it| it.is_empty() || it.contains('\0')) {
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

    /// The SQL of the function, and of the triggers where they are missing.
    fn install_sql(&self, outbox: &OutboxTable) -> String {
        let target = self.table.quoted();
        let shown: String = target.chars().filter(|it| !it.is_control()).collect();
        format!(
            "-- Changes of {shown}.
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 AS {body};
REVOKE ALL ON FUNCTION {function}() FROM PUBLIC;
COMMENT ON FUNCTION {function}() IS {signature};
DO {block};\n",
            function = self.function(outbox),
            body = dollars(&self.body(outbox)),
            signature = quote_text(signature()),
            block = dollars(&self.install_block(outbox)),
        )
    }

    fn function(&self, outbox: &OutboxTable) -> String {
        outbox.beside(&self.table.function_suffix())
    }

    /// What is to be looked at before, and the triggers of the table and its partitions.
    fn install_block(&self, outbox: &OutboxTable) -> String {
        let function = quote_text(&self.function(outbox));
        let triggers = trigger_names(outbox);
        let triggers = triggers.iter().zip(EVENTS);
        let triggers = triggers.map(|(name, event)| trigger_sql(name, event, &function));
        format!(
            "DECLARE
    target pg_catalog.regclass;
    mine CONSTANT oid := ({function} || '()')::pg_catalog.regprocedure;
    wrong text;
BEGIN
    IF (SELECT relkind FROM pg_catalog.pg_class WHERE oid = {target}::pg_catalog.regclass) = 'f' THEN
        RAISE EXCEPTION '% is a foreign table: its changes are not seen here', {target}
            USING HINT = 'follow it in the database that it is in';
    END IF;
{columns}{fits}    SELECT pg_get_userbyid(proowner) INTO wrong FROM pg_catalog.pg_proc
    WHERE oid = mine
        AND proowner <> (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the trigger function of % belongs to %', {target}, wrong
            USING HINT = 'install it as its owner, or drop it';
    END IF;
    FOR target IN
        WITH RECURSIVE tree AS (
            SELECT {target}::pg_catalog.regclass::oid AS oid
            UNION ALL SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid
        ) SELECT tree.oid::pg_catalog.regclass FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
        WHERE c.relkind <> 'f'
    LOOP
{triggers}    END LOOP;
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'the triggers of % are not installed: a transaction that is open holds it for more than %',
        {target}, current_setting('lock_timeout')
        USING ERRCODE = 'lock_not_available', HINT = 'end that transaction, which pg_stat_activity shows, or install later';
END
",
            target = quote_text(&self.table.quoted()),
            columns = self.check_columns(),
            fits = self.check_fits(),
            triggers = triggers.collect::<String>(),
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
        let own = self.table.resources.iter().map(|(resource, _)| resource);
        let wholes: BTreeSet<&String> = own
            .chain(self.tags.iter().flat_map(|tag| &tag.resources))
            .collect();
        let wholes = wholes
            .into_iter()
            .map(|resource| format!("('all', {})", quote_text(resource)));
        format!(
            "
BEGIN
    IF TG_OP = 'INSERT' THEN
        {inserted}
    ELSIF TG_OP = 'UPDATE' THEN
        {updated}
    ELSIF TG_OP = 'DELETE' THEN
        {deleted}
    ELSE
        INSERT INTO {outbox} (kind, resource) VALUES {wholes};
    END IF;
    RETURN NULL;
END
",
            inserted = self.insert(outbox, &self.selected("1 AS c", "new_rows")),
            updated = self.insert(outbox, &self.difference()),
            deleted = self.insert(outbox, &self.selected("1 AS c", "old_rows")),
            outbox = outbox.quoted(),
            wholes = wholes.collect::<Vec<_>>().join(", "),
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

/// The parts of the statement that writes to the outbox.
#[derive(Debug, Default)]
struct OutboxStatement {
    names: String,
    selects: Vec<String>,
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
    fn whole(&mut self, resource: &str) {
        self.selects.push(format!(
            "SELECT 'all', {resource}, NULL WHERE EXISTS (SELECT FROM changed)",
            resource = quote_text(resource)
        ));
    }

    /// Rows, or the whole resource if they are too many, or if their ids don't fit.
    fn row(&mut self, resource: &str, value: &str, fits: Option<String>) {
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
    fn tag(&mut self, value: &str, condition: &str, carriers: &BTreeSet<String>) {
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

/// One trigger of the table `target`, in a block of PL/pgSQL. One that is there stays: to replace it would wait for all who read
/// the table, and make others wait.
fn trigger_sql(name: &str, (event, rows): (&str, &str), function: &str) -> String {
    let bare = name.trim_matches('"').replace("\"\"", "\"");
    let (is_there, is_another) = match crate::base::mutation::is_active("outbox-installs-anew") {
        true => ("false", "true"),
        false => ("t.tgfoid = mine AND t.tgenabled = 'A'", "t.tgfoid <> mine"),
    };
    format!(
        "        IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = target AND t.tgname = {bare} AND {is_there}) THEN
            EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', target);
            IF EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = target AND t.tgname = {bare} AND {is_another}) THEN
                EXECUTE format('DROP TRIGGER %s ON %s', {name}, target);
            END IF;
            IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = target AND t.tgname = {bare}) THEN
                EXECUTE format('CREATE TRIGGER %s AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION %s()', {name}, {event}, target, {rows}, {function});
            END IF;
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %s', target, {name});
        END IF;\n",
        bare = quote_text(&bare),
        name = quote_text(name),
        event = quote_text(event),
        rows = quote_text(rows),
    )
}

/// What the functions' comments say: which words of this crate they are made of.
pub(super) fn signature() -> &'static str {
    static SIGNATURE: LazyLock<String> = LazyLock::new(|| {
        let tag = Tag {
            parts: vec![TagPart::Text("t".into()), TagPart::Column("c".into())],
            resources: BTreeSet::from(["r".into()]),
        };
        let any = Followed {
            table: table("t").resource("r").id("c").resource("w"),
            columns: vec!["c".into()],
            plain: BTreeMap::from([("r".into(), IdKind::Integer)]),
            tags: vec![tag],
        };
        let body = any.body(&OutboxTable::default());
        let hash = hash128(b"cache-runtime 20", body.as_bytes()) as u32;
        format!("cache-runtime outbox {hash:08x}")
    });
    &SIGNATURE
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

fn parts_of(tag: &str) -> Result<Vec<TagPart>, String> {
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
                parts.push(TagPart::Text(std::mem::take(&mut text)));
                let mut column = String::new();
                loop {
                    match letters.next() {
                        Some('}') => break,
                        Some('{') | None => return Err(refuse()),
                        Some(letter) => column.push(letter),
                    }
                }
                parts.push(TagPart::Column(column));
            }
            '}' => return Err(refuse()),
            letter => text.push(letter),
        }
    }
    parts.push(TagPart::Text(text));
    parts.retain(|part| *part != TagPart::Text(String::new()));
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

/// What the ids of a resource are, if all functions that read its rows take them as a type whose text in a key is known.
/// Of any other only a process that has called such a function knows what it looks like.
fn plain_ids(resource: &str, catalog: &CacheMap) -> Option<IdKind> {
    if catalog.readers().iter().any(|it| is_constant(&it.resource)) {
        return None;
    }
    let readers = catalog.readers().iter();
    let of_rows = readers.filter(|it| it.resource == resource && it.is_entity());
    let mut kinds = of_rows.map(|reader| IdKind::of(type_of_id(&reader.key)?));
    let Some(first) = kinds.next() else {
        return Some(IdKind::Unread);
    };
    kinds.try_fold(first?, |known, kind| {
        let is_same = kind? == known;
        Some(if is_same { known } else { IdKind::Mixed })
    })
}

/// The type of an id that is a parameter; `None` for any other expression.
fn type_of_id(key: &str) -> Option<&str> {
    let inside = key.strip_prefix('{')?.strip_suffix('}')?;
    inside.rsplit_once(": ").map(|(_, kind)| kind.trim())
}

/// The number of parts of an id that is written as a tuple; 1 for a plain parameter, `None` for any
/// other expression.
fn parts_of_id(key: &str) -> Option<usize> {
    let inside = key.strip_prefix('{')?.strip_suffix('}')?;
    let kind = inside.rsplit_once(": ").map(|(_, kind)| kind);
    let text = kind.unwrap_or(inside).trim();
    let Some(tuple) = text.strip_prefix('(').and_then(|it| it.strip_suffix(')')) else {
        return IdKind::of(kind?).map(|_| 1);
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
        let column = |name: &str| TagPart::Column(name.into());
        let text = |text: &str| TagPart::Text(text.into());
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
