//! A table and what its changes invalidate, as a program names them.

use crate::base::nonce::hash128;
use crate::config::outbox::quote_name;

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
    pub(super) name: String,
    pub(super) schema: Option<String>,
    pub(super) resources: Vec<(String, Vec<String>)>,
    pub(super) tags: Vec<String>,
    /// The columns that an UPDATE is looked at for; `None` are all of them.
    pub(super) compared: Option<Vec<String>>,
    pub(super) problem: Option<&'static str>,
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

    /// Looks only at these columns, and at those of ids and tags, to tell whether an `UPDATE` has
    /// changed a row: those that cached functions read. Without it all columns are compared, which
    /// costs much where they are large. A column that cached functions read and that is not named
    /// here makes them stale, also one that is added later.
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

    pub(super) fn quoted(&self) -> String {
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
