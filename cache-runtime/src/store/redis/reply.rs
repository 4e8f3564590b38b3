//! Helpers that read answers of the server.

use std::time::Duration;

use redis::Value;

use crate::base::clock::Millis;
use crate::base::error::{Error, ErrorKind};

pub(super) fn miscounted() -> Error {
    Error::new(
        ErrorKind::Store,
        "Redis returned the wrong number of values",
    )
}

pub(super) fn counted<T>(answers: Vec<T>, asked: usize) -> Result<Vec<T>, Error> {
    (answers.len() == asked)
        .then_some(answers)
        .ok_or_else(miscounted)
}

pub(super) fn millis(duration: Duration) -> Vec<u8> {
    duration.as_millis().to_string().into_bytes()
}

/// The answer to `TIME`: seconds, and microseconds.
pub(super) fn reading((seconds, micros): (u64, u64)) -> Millis {
    Millis(seconds.saturating_mul(1000).saturating_add(micros / 1000))
}

/// The value of `name:value` in the answer to `INFO`.
pub(super) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim_end)
}

/// The bytes of a string; `None` for a missing key.
pub(super) fn text(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}
