//! The trait that makes a struct a resource of this API.

use poem_openapi::types::{ParseFromJSON, ToJSON};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::any::AnyRow;

use crate::error::Invalid;
use crate::input::Fields;
use crate::sql::Value;
use crate::tag::ApiTag;

/// A table that is served over HTTP and cached.
///
/// Another resource takes a struct that implements this, a migration that makes its table, and its
/// name in `api/mod.rs`. It brings no code for SQL, HTTP or caching.
pub trait Resource:
    Serialize + DeserializeOwned + ParseFromJSON + ToJSON + Clone + Send + Sync + Unpin + 'static
{
    /// The name of the table, of the cached resource (`users:1`) and of the path (`/users`).
    const RESOURCE: &'static str;
    /// The heading in the API documentation.
    const TAG: ApiTag;
    /// The targets that a write invalidates.
    const INVALIDATION: Invalidation;
    /// The columns that are read, filtered by and ordered by. No other name ever gets into an SQL
    /// text.
    const COLUMNS: &'static [Column];
    /// Which column each unique index guards, to name it when a write is refused.
    const UNIQUE: &'static [Unique];

    /// The body of `POST` and `PUT`.
    type Input: Input;

    /// The id, which the database gave.
    fn id(&self) -> i64;

    /// Reads one row.
    ///
    /// # Errors
    /// When the table has other columns than [`COLUMNS`](Self::COLUMNS) says.
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error>;
}

/// The body of a write.
pub trait Input: ParseFromJSON + ToJSON + Send + Sync + 'static {
    /// Regular expressions for the documentation: what [`parse`](Self::parse) accepts, by field.
    const PATTERNS: &'static [(&'static str, &'static str)] = &[];

    /// Takes the fields out of a JSON object and checks them.
    ///
    /// # Errors
    /// Names the first field that is missing or can't be used.
    fn parse(fields: &mut Fields) -> Result<Self, Invalid>;

    /// The columns to write.
    fn into_columns(self) -> Vec<(&'static str, Value)>;
}

/// The targets that a write to a resource invalidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation {
    /// Everything cached of the resource. The simple choice.
    Everything,
    /// The row that was written, and every list and filter. Other rows stay cached.
    Row,
}

/// A column that may be named in a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name, in JSON and in SQL.
    pub name: &'static str,
    /// The kind of its values.
    pub kind: Kind,
}

impl Column {
    /// A column `name` that holds `kind`.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind }
    }
}

/// The kind of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A 64-bit integer.
    Integer,
    /// A finite 64-bit float.
    Number,
    /// A string.
    Text,
    /// A point in time: RFC 3339 in JSON, microseconds since 1970 in the database.
    Time,
}

/// A unique index, and the column it guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unique {
    /// The name of the index.
    pub index: &'static str,
    /// The column.
    pub field: &'static str,
}
