//! SQL that SQLite and PostgreSQL both understand.
//!
//! sqlx's `Any` driver picks the database at run time but hands the text on as it is, and its
//! `QueryBuilder` writes `?`, which PostgreSQL refuses. Both accept `$1`, so [`Sql`] writes that.

use serde::Serialize;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyExecutor, AssertSqlSafe, Row};
use time::OffsetDateTime;

/// A value to bind.
///
/// It is part of a filter and so of a cache key. Floats are finite and never `-0.0` (JSON can't say the
/// one, the filter's parser turns the other), which makes the derived comparison a total order.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize)]
pub enum Value {
    /// A boolean.
    Boolean(bool),
    /// An integer, or a moment in microseconds since 1970.
    Integer(i64),
    /// A finite float.
    Number(f64),
    /// A string.
    Text(String),
    /// The NULL of a text column; PostgreSQL wants NULLs typed.
    NoText,
}

/// An SQL text in the making, with the values bound to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    /// Starts a statement.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            values: Vec::new(),
        }
    }

    /// Appends text. It must not come from a client: names come from the whitelist, values are bound.
    pub fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends a placeholder for `value`.
    pub fn bind(&mut self, value: Value) -> &mut Self {
        self.values.push(value);
        self.text.push('$');
        self.text.push_str(&self.values.len().to_string());
        self
    }

    /// Appends `items`, each written by `write`, with `separator` between them.
    pub fn join<T>(
        &mut self,
        separator: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.push(separator);
            }
            write(self, item);
        }
        self
    }

    /// The text so far.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The values so far, `$1` first.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Runs the statement to its end and returns its rows.
    ///
    /// Writes with `RETURNING` come here too: `fetch_one` would stop at the first row, and an error that
    /// SQLite reports only at the end of the statement would be lost.
    ///
    /// # Errors
    /// What the database says.
    pub async fn fetch_all<'c>(
        self,
        executor: impl AnyExecutor<'c>,
    ) -> Result<Vec<AnyRow>, sqlx::Error> {
        self.into_query().fetch_all(executor).await
    }

    /// Runs the statement and returns how many rows it changed.
    ///
    /// # Errors
    /// What the database says.
    pub async fn execute<'c>(self, executor: impl AnyExecutor<'c>) -> Result<u64, sqlx::Error> {
        Ok(self.into_query().execute(executor).await?.rows_affected())
    }

    fn into_query(self) -> Query<'static, Any, AnyArguments> {
        let mut query = sqlx::query(AssertSqlSafe(self.text));
        for value in self.values {
            query = match value {
                Value::Boolean(value) => query.bind(value),
                Value::Integer(value) => query.bind(value),
                Value::Number(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::NoText => query.bind(None::<String>),
            };
        }
        query
    }
}

/// Reads a boolean, which SQLite stores as an integer.
///
/// # Errors
/// When the column holds neither.
pub fn get_bool(row: &AnyRow, column: &str) -> Result<bool, sqlx::Error> {
    row.try_get::<bool, _>(column)
        .or_else(|_| Ok(row.try_get::<i64, _>(column)? != 0))
}

/// Reads a moment.
///
/// # Errors
/// When the column does not hold microseconds since 1970.
pub fn get_time(row: &AnyRow, column: &str) -> Result<OffsetDateTime, sqlx::Error> {
    let micros: i64 = row.try_get(column)?;
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).map_err(|error| {
        sqlx::Error::ColumnDecode {
            index: column.to_owned(),
            source: error.into(),
        }
    })
}

/// A moment as it is stored: microseconds since 1970, PostgreSQL's own resolution.
///
/// `TIMESTAMPTZ` is beyond sqlx's `Any` driver, and SQLite has no such type; an integer is equal, and
/// ordered alike, in both.
#[must_use]
pub fn to_micros(moment: OffsetDateTime) -> i64 {
    // A four-digit year is at most 2.6e17 microseconds away.
    i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000)).unwrap_or(i64::MAX)
}
