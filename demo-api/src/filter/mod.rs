//! Filters: from a JSON body to SQL, through a normal form.
//!
//! The parser checks a body against a resource's list of allowed columns. The normaliser brings it
//! into a form that all bodies with the same meaning share. That form is written as a `WHERE`, and
//! is the argument of the cached functions, so it decides the cache key: two bodies that mean the
//! same in different words share one entry.

mod normalise;
mod parse;
mod schema;
mod sql;

use serde::Serialize;

pub use self::schema::schemas;
use crate::error::Invalid;
use crate::sql::Value;

// Limits on the work that one request may cause in a database.
const MAX_DEPTH: usize = 5;
const MAX_CONDITIONS: usize = 100;
const MAX_VALUES: usize = 500;
const MAX_PATTERN: usize = 200;

/// The most rows one request may ask for.
pub const MAX_LIMIT: u32 = 1_000;
/// The number of rows if a request gives none.
pub const DEFAULT_LIMIT: u32 = 100;

/// Checks how many rows a request skips.
///
/// # Errors
/// If the number is negative or too large.
pub fn checked_skip(skip: i64) -> Result<u32, Invalid> {
    u32::try_from(skip).map_err(|_| Invalid::new("skip", format!("must be from 0 to {}", u32::MAX)))
}

/// Checks how many rows a request asks for.
///
/// # Errors
/// If there would be none, or too many.
pub fn checked_limit(limit: i64) -> Result<u32, Invalid> {
    u32::try_from(limit)
        .ok()
        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
        .ok_or_else(|| Invalid::new("limit", format!("must be from 1 to {MAX_LIMIT}")))
}

/// A checked filter in its normal form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Filter {
    condition: Condition,
    order_by: Vec<Order>,
    skip: u32,
    limit: u32,
}

impl Filter {
    /// How many rows to leave out.
    #[must_use]
    pub fn skip(&self) -> u32 {
        self.skip
    }

    /// How many rows to return at most.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit
    }
}

/// The condition that a row must meet. Columns are `'static`: they can only come from the list of
/// allowed ones.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize)]
enum Condition {
    /// All of them; all rows if there are none.
    All(Vec<Condition>),
    /// At least one of them.
    Any(Vec<Condition>),
    /// The column compares to the value.
    Compare {
        column: &'static str,
        op: Compare,
        value: Value,
    },
    /// The column equals one of the values.
    In {
        column: &'static str,
        values: Vec<Value>,
    },
    /// The column matches the pattern, in which `%` and `_` are wildcards and `\` escapes.
    Like {
        column: &'static str,
        pattern: String,
        case: Case,
    },
    /// The column is NULL, or is not.
    IsNull { column: &'static str, is_null: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Serialize)]
enum Compare {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Serialize)]
enum Case {
    Sensitive,
    /// ASCII letters only: both databases change their case without a locale.
    Ignored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Order {
    column: &'static str,
    direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Direction {
    Ascending,
    Descending,
}
