//! What the parser accepts in a filter, as JSON schemas for the documentation.
//!
//! Three limits are only in the descriptions, since a schema can't count over all groups: the depth
//! of nested groups, the number of conditions in all, and the number of values in all lists.

use serde_json::{Map, Value, json};

use super::{DEFAULT_LIMIT, MAX_CONDITIONS, MAX_DEPTH, MAX_LIMIT, MAX_PATTERN, MAX_VALUES};
use crate::input::{MAX_TEXT, NO_NUL};
use crate::resource::{Kind, Resource};

/// A time with an offset, and as many decimals of a second as are stored. The second part of the date
/// is the last day of February in leap years.
const TIME: &str = concat!(
    "^([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|",
    "02-(0[1-9]|1[0-9]|2[0-8]))|",
    "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)",
    r"[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6}0*)?",
    "([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$",
);
/// A pattern whose last `\` escapes something.
const PATTERN: &str = r"^([^\\\u0000]|\\[^\u0000])*$";

/// The schema of a filter of `R`, and the schemas that it refers to, by name; the filter's comes
/// first.
#[must_use]
pub fn schemas<R: Resource>(name: &str) -> Vec<(String, Value)> {
    let columns = names::<R>(|_| true);
    let filter = json!({
        "type": "object",
        "description": "What to look for. Everything may be left out.",
        "additionalProperties": false,
        "properties": {
            "conditions": {
                "type": "array",
                "nullable": true,
                "description": format!(
                    "All of them must be met; {MAX_CONDITIONS} at most, with those in groups."
                ),
                "items": reference(&condition_name(name)),
            },
            "order_by": {
                "type": "array",
                "nullable": true,
                "description": "The id comes last by itself.",
                "maxItems": columns.len(),
                "items": {
                    "type": "object",
                    "required": ["field"],
                    "additionalProperties": false,
                    "properties": {
                        "field": {"type": "string", "enum": columns},
                        "direction": {
                            "type": "string",
                            "nullable": true,
                            "description": "`asc`, the default, or `desc`.",
                            "pattern": "^([aA][sS][cC]|[dD][eE][sS][cC])$",
                        },
                    },
                },
            },
            "skip": {
                "type": "integer",
                "nullable": true,
                "description": "How many rows to leave out.",
                "default": 0,
                "minimum": 0,
                "maximum": u32::MAX,
            },
            "limit": {
                "type": "integer",
                "nullable": true,
                "description": "How many rows to return at most.",
                "default": DEFAULT_LIMIT,
                "minimum": 1,
                "maximum": MAX_LIMIT,
            },
        },
        "example": {
            "conditions": [{"field": "name", "op": "ilike", "value": "%a%"}],
            "order_by": [{"field": "created_at", "direction": "desc"}],
            "skip": 0,
            "limit": 10,
        },
    });
    vec![
        (name.to_owned(), filter),
        (condition_name(name), condition::<R>(name)),
    ]
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn condition_name(filter: &str) -> String {
    format!("{filter}Condition")
}

/// A comparison, or a group of conditions.
fn condition<R: Resource>(name: &str) -> Value {
    let group = |of: &str, what: &str| {
        let conditions = json!({
            "type": "array",
            "description": format!(
                "{what} of these must be met. Groups are nested {MAX_DEPTH} deep at most, and hold \
                 {MAX_CONDITIONS} conditions at most in all."
            ),
            "minItems": 1,
            "items": reference(&condition_name(name)),
        });
        object(of, Map::from_iter([(of.to_owned(), conditions)]))
    };
    let mut forms = comparisons::<R>();
    forms.push(group("and", "All"));
    forms.push(group("or", "At least one"));
    json!({"anyOf": forms})
}

fn object(required: &str, properties: Map<String, Value>) -> Value {
    json!({
        "type": "object",
        "required": required.split(' ').collect::<Vec<_>>(),
        "additionalProperties": false,
        "properties": properties,
    })
}

/// Each kind of column with the operators it has, and `is_null` for all.
fn comparisons<R: Resource>() -> Vec<Value> {
    let mut all = Vec::new();
    for kind in [
        Kind::Boolean,
        Kind::Integer,
        Kind::Number,
        Kind::Text,
        Kind::Time,
    ] {
        let columns = names::<R>(|of| of == kind);
        if columns.is_empty() {
            continue;
        }
        let mut add = |ops: &[&str], value| all.push(comparison(&columns, ops, value));
        let scalar = scalar(kind);
        if kind == Kind::Boolean {
            add(&["eq", "ne"], scalar.clone());
        } else {
            add(&["eq", "ne", "lt", "lte", "gt", "gte"], scalar.clone());
            add(&["between"], list(&scalar, 2, 2));
        }
        if kind == Kind::Text {
            let pattern = json!({"type": "string", "maxLength": MAX_PATTERN, "pattern": PATTERN});
            add(&["like", "ilike"], pattern);
        }
        add(&["in"], list(&scalar, 1, MAX_VALUES));
    }
    let columns = names::<R>(|_| true);
    all.push(comparison(
        &columns,
        &["is_null"],
        json!({"type": "boolean"}),
    ));
    all
}

fn comparison(columns: &[&str], ops: &[&str], value: Value) -> Value {
    let properties = [
        ("field", json!({"type": "string", "enum": columns})),
        ("op", json!({"type": "string", "enum": ops})),
        ("value", value),
    ];
    let properties = properties.map(|(name, schema)| (name.to_owned(), schema));
    object("field op value", Map::from_iter(properties))
}

fn list(of: &Value, least: usize, most: usize) -> Value {
    json!({"type": "array", "items": of, "minItems": least, "maxItems": most})
}

fn scalar(kind: Kind) -> Value {
    match kind {
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Integer => {
            json!({"type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX})
        }
        Kind::Number => json!({"type": "number", "minimum": f64::MIN, "maximum": f64::MAX}),
        Kind::Text => json!({"type": "string", "maxLength": MAX_TEXT, "pattern": NO_NUL}),
        Kind::Time => json!({
            "type": "string",
            "description": "RFC 3339, with 6 decimals of a second at most.",
            "pattern": TIME,
        }),
    }
}

fn names<R: Resource>(wanted: impl Fn(Kind) -> bool) -> Vec<&'static str> {
    let columns = R::COLUMNS.iter().filter(|column| wanted(column.kind));
    columns.map(|column| column.name).collect()
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;
    use crate::filter::Filter;
    use crate::users::User;

    /// A client that follows the documentation may look for each day that there is.
    #[test]
    fn the_pattern_of_times_is_what_the_parser_accepts() {
        let pattern = Regex::new(TIME).unwrap();
        let takes = |time: &str| {
            let condition = json!({"field": "created_at", "op": "gt", "value": time});
            Filter::parse::<User>(json!({"conditions": [condition]})).is_ok()
        };
        for year in [0, 4, 1900, 1996, 2000, 2023, 2024, 2100, 2400] {
            for month in 0..=13 {
                for day in 0..=32 {
                    let time = format!("{year:04}-{month:02}-{day:02}T09:30:00Z");
                    assert_eq!(pattern.is_match(&time), takes(&time), "{time}");
                }
            }
        }
        for time in [
            "2024-02-29T23:59:59.123456000-23:59",
            "2024-02-29t00:00:00z",
            "2024-02-29 00:00:00Z",
            "2024-02-29T00:00:60Z",
            "2024-02-29T24:00:00Z",
            "2024-02-29T00:00:00.1234567Z",
            "2024-02-29T00:00:00+24:00",
            "2024-02-29T00:00:00",
            "2024-02-29",
            "",
        ] {
            assert_eq!(pattern.is_match(time), takes(time), "{time}");
        }
    }

    #[test]
    fn every_schema_that_is_referred_to_is_there() {
        let schemas = schemas::<User>("UserFilter");
        let text = serde_json::to_string(&Value::Object(schemas.into_iter().collect())).unwrap();
        let prefix = "#/components/schemas/";
        let mut referred = text.split(prefix).skip(1).peekable();
        assert!(referred.peek().is_some());
        for rest in referred {
            let name = &rest[..rest.find('"').unwrap()];
            assert!(text.contains(&format!("\"{name}\":")), "{name}");
        }
    }
}
