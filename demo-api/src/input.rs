//! The fields of a JSON body, taken out one by one and checked.
//!
//! serde's messages name a wrong value but not always its field; a client wants the field.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::Invalid;

/// Fields that responses contain and writes ignore, so that a client may send back what it
/// received.
pub const READ_ONLY: [&str; 2] = ["id", "created_at"];

/// The longest text accepted where nothing shorter is asked for.
pub const MAX_TEXT: usize = 2_000;

/// Matches a text without NUL, for the documentation.
pub const NO_NUL: &str = r"^[^\u0000]*$";

/// Matches a text that is more than white space (as Unicode has it) and has no NUL.
pub const NOT_BLANK: &str = concat!(
    r"^[^\u0000]*",
    r"[^\u0000\u0009-\u000d\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]",
    r"[^\u0000]*$"
);

/// The fields of a JSON object that have not been taken yet.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of `body`.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn new(body: Value) -> Result<Self, Invalid> {
        match body {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(Invalid::new(
                "body",
                format!("must be a JSON object, not {}", describe(&other)),
            )),
        }
    }

    /// Takes a field that may be missing; `null` counts as missing.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a text of 1 to `max` characters that is more than white space.
    ///
    /// # Errors
    /// When it is missing or anything else.
    pub fn text(&mut self, name: &str, max: usize) -> Result<String, Invalid> {
        self.optional_text(name, max)?.ok_or_else(|| missing(name))
    }

    /// Like [`text`](Self::text), or `None` when it is missing.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn optional_text(&mut self, name: &str, max: usize) -> Result<Option<String>, Invalid> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let text = text(name, value, max)?;
        if text.trim().is_empty() {
            return Err(Invalid::new(name, "must not be empty"));
        }
        Ok(Some(text))
    }

    /// Takes an integer within `range`.
    ///
    /// # Errors
    /// When it is missing, no integer, or out of range.
    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<i64, Invalid> {
        let value = self.take(name).ok_or_else(|| missing(name))?;
        let number = integer(name, &value)?;
        if !range.contains(&number) {
            return Err(Invalid::new(
                name,
                format!("must be from {} to {}", range.start(), range.end()),
            ));
        }
        Ok(number)
    }

    /// Takes a number within `range`.
    ///
    /// # Errors
    /// When it is missing, no number, or out of range.
    pub fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<f64, Invalid> {
        let value = self.take(name).ok_or_else(|| missing(name))?;
        let number = number(name, &value)?;
        if !range.contains(&number) {
            return Err(Invalid::new(
                name,
                format!("must be from {} to {}", range.start(), range.end()),
            ));
        }
        Ok(number)
    }

    /// Takes a boolean, `default` when it is missing.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn boolean(&mut self, name: &str, default: bool) -> Result<bool, Invalid> {
        self.take(name)
            .map_or(Ok(default), |value| boolean(name, &value))
    }

    /// Checks that no field is left: a misspelt one would be ignored otherwise.
    ///
    /// # Errors
    /// Names the first field that is left.
    pub fn finish(self) -> Result<(), Invalid> {
        match self
            .0
            .keys()
            .find(|name| !READ_ONLY.contains(&name.as_str()))
        {
            Some(name) => Err(Invalid::new(name, "unknown field")),
            None => Ok(()),
        }
    }
}

fn missing(name: &str) -> Invalid {
    Invalid::new(name, "is missing")
}

/// A text of at most `max` characters.
///
/// # Errors
/// When `value` is anything else, or holds a NUL, which PostgreSQL can't store.
pub fn text(field: &str, value: Value, max: usize) -> Result<String, Invalid> {
    let Value::String(text) = value else {
        return Err(Invalid::new(
            field,
            format!("must be a string, not {}", describe(&value)),
        ));
    };
    if text.contains('\0') {
        return Err(Invalid::new(field, "must not contain a NUL character"));
    }
    if text.chars().count() > max {
        return Err(Invalid::new(
            field,
            format!("must have at most {max} characters"),
        ));
    }
    Ok(text)
}

/// An integer, also when it is written `1.0`.
///
/// # Errors
/// When `value` is anything else, or beyond 64 bits.
pub fn integer(field: &str, value: &Value) -> Result<i64, Invalid> {
    // Beyond this, a float no longer says which integer was meant.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let Value::Number(number) = value else {
        return Err(Invalid::new(
            field,
            format!("must be an integer, not {}", describe(value)),
        ));
    };
    if let Some(integer) = number.as_i64() {
        return Ok(integer);
    }
    match number.as_f64() {
        Some(float) if float.fract() == 0.0 && float.abs() < EXACT => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "whole, and within the range of exact integers"
            )]
            let integer = float as i64;
            Ok(integer)
        }
        Some(float) if float.fract() == 0.0 => {
            Err(Invalid::new(field, "must be an integer of at most 64 bits"))
        }
        _ => Err(Invalid::new(field, "must be a whole number")),
    }
}

/// A finite number; `-0.0` becomes `0.0`.
///
/// # Errors
/// When `value` is anything else.
pub fn number(field: &str, value: &Value) -> Result<f64, Invalid> {
    match value.as_f64() {
        Some(number) if number.is_finite() => Ok(number + 0.0),
        _ => Err(Invalid::new(
            field,
            format!("must be a number, not {}", describe(value)),
        )),
    }
}

/// A boolean.
///
/// # Errors
/// When `value` is anything else.
pub fn boolean(field: &str, value: &Value) -> Result<bool, Invalid> {
    value.as_bool().ok_or_else(|| {
        Invalid::new(
            field,
            format!("must be true or false, not {}", describe(value)),
        )
    })
}

/// The kind of JSON that `value` is, for a message.
#[must_use]
pub fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The most rows that can be asked for by their ids.
const MAX_IDS: usize = 100;

/// The ids in `1,2,3`.
///
/// # Errors
/// When there is none, one is no number, or there are more than 100.
pub fn parse_ids(text: &str) -> Result<Vec<i64>, Invalid> {
    let ids = text.split(',').map(|id| {
        let id = id.trim();
        id.parse()
            .map_err(|_| Invalid::new("ids", format!("`{id}` is no id; write e.g. `1,2,3`")))
    });
    let ids = ids.collect::<Result<Vec<i64>, _>>()?;
    if ids.len() > MAX_IDS {
        let reason = format!("holds {} ids, and may hold {MAX_IDS}", ids.len());
        return Err(Invalid::new("ids", reason));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_may_be_written_as_floats_and_stay_within_64_bits() {
        assert_eq!(integer("n", &json!(1)), Ok(1));
        assert_eq!(integer("n", &json!(1.0)), Ok(1));
        assert_eq!(integer("n", &json!(i64::MAX)), Ok(i64::MAX));
        assert!(integer("n", &json!(9_223_372_036_854_775_808_u64)).is_err());
        assert!(integer("n", &json!(1.5)).is_err());
        assert!(integer("n", &json!(1e300)).is_err());
        assert!(integer("n", &json!("1")).is_err());
    }

    #[test]
    fn commands_that_were_refused_are_named_unless_read_only() {
        let mut fields = Fields::new(json!({"id": 1, "name": "Ada", "created_at": "x"})).unwrap();
        assert_eq!(fields.text("name", 10), Ok("Ada".to_owned()));
        assert_eq!(fields.finish(), Ok(()));

        let fields = Fields::new(json!({"nam": "Ada"})).unwrap();
        assert_eq!(fields.finish(), Err(Invalid::new("nam", "unknown field")));
    }

    #[test]
    fn texts_are_not_empty_too_long_or_holding_a_nul() {
        for (text, wrong) in [
            ("", true),
            ("  ", true),
            ("abcd", true),
            ("a\0", true),
            ("äöü", false),
        ] {
            let mut fields = Fields::new(json!({ "name": text })).unwrap();
            assert_eq!(fields.text("name", 3).is_err(), wrong, "{text:?}");
        }
    }
}
