//! Runs statements that sea-query builds, and reads the values of columns.
//!
//! sqlx's `Any` driver chooses the database at run time but passes the text on unchanged. SQLite
//! and PostgreSQL have different placeholders and string literals, so a statement is written as
//! text once its connection is known.

use sea_query::{PostgresQueryBuilder, SqliteQueryBuilder};
use sea_query_sqlx::{SqlxBinder, SqlxValues};
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{Acquire, Any, AnyConnection, AssertSqlSafe, Row};
use time::OffsetDateTime;

/// A value to bind.
///
/// It is part of a filter and so of a cache key. Floats are finite and never `-0.0` (JSON can't
/// express the former, and the filter's parser converts the latter), so the derived comparison is a
/// total order.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize)]
pub enum Value {
    /// A boolean.
    Boolean(bool),
    /// An integer, or a moment in microseconds since 1970.
    Integer(i64),
    /// A finite float.
    Number(f64),
    /// A text.
    Text(String),
    /// The NULL of a text column; PostgreSQL wants NULLs typed.
    NoText,
}

impl From<Value> for sea_query::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Boolean(value) => value.into(),
            Value::Integer(value) => value.into(),
            Value::Number(value) => value.into(),
            Value::Text(value) => value.into(),
            Value::NoText => Self::String(None),
        }
    }
}

/// Runs a statement to its end and returns its rows.
///
/// Statements with `RETURNING` need this: `fetch_one` would stop at the first row, and an error
/// that SQLite reports only at the end of the statement would be lost.
///
/// # Errors
/// The error of the database.
pub async fn fetch_all<'c>(
    database: impl Acquire<'c, Database = Any>,
    statement: &(impl SqlxBinder + Sync),
) -> Result<Vec<AnyRow>, sqlx::Error> {
    let mut connection = database.acquire().await?;
    let (text, values) = build(statement, &connection);
    sqlx::query_with(AssertSqlSafe(text), values)
        .fetch_all(&mut *connection)
        .await
}

/// Runs a statement and returns how many rows it changed.
///
/// # Errors
/// The error of the database.
pub async fn execute<'c>(
    database: impl Acquire<'c, Database = Any>,
    statement: &(impl SqlxBinder + Sync),
) -> Result<u64, sqlx::Error> {
    let mut connection = database.acquire().await?;
    let (text, values) = build(statement, &connection);
    let done = sqlx::query_with(AssertSqlSafe(text), values)
        .execute(&mut *connection)
        .await?;
    Ok(done.rows_affected())
}

/// The text for the database of `connection`, and the values to bind.
fn build(statement: &impl SqlxBinder, connection: &AnyConnection) -> (String, SqlxValues) {
    if is_sqlite(connection) {
        statement.build_sqlx(SqliteQueryBuilder)
    } else {
        statement.build_sqlx(PostgresQueryBuilder)
    }
}

/// Whether a connection is to SQLite; else it is to PostgreSQL.
#[must_use]
pub fn is_sqlite(connection: &AnyConnection) -> bool {
    connection.backend_name() == "SQLite"
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
/// sqlx's `Any` driver can't read `TIMESTAMPTZ`, and SQLite has no such type. An integer is equal
/// and ordered alike in both.
#[must_use]
pub fn to_micros(moment: OffsetDateTime) -> i64 {
    // A four-digit year is at most 2.6e17 microseconds away.
    i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000)).unwrap_or(i64::MAX)
}
