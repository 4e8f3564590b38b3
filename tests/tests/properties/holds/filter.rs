//! The demo's filters: from any JSON to SQL.

use arbitrary::{Result, Unstructured};
use cache_runtime::Key;
use demo_api::filter::Filter;
use demo_api::products::Product;
use demo_api::resource::Resource;
use demo_api::users::User;
use sea_query::{PostgresQueryBuilder, Query, Value};
use serde_json::{Value as Json, json};

use super::text;

const FIELDS: [&str; 14] = [
    "id",
    "name",
    "email",
    "age",
    "active",
    "created_at",
    "price",
    "stock",
    "description",
    "category",
    "password",
    "",
    "ID",
    "id; --",
];
const OPERATORS: [&str; 14] = [
    "eq", "ne", "lt", "lte", "gt", "gte", "in", "like", "ilike", "between", "is_null", "EQ", "",
    "or 1=1",
];
const TEXTS: [&str; 16] = [
    "",
    "ada",
    "Ada",
    "ADA%",
    "a_a",
    "\\",
    "\\\\",
    "a\\%",
    "'; DROP TABLE users; --",
    "$1",
    "é",
    "2024-01-01T00:00:00Z",
    "2024-01-01T01:00:00+01:00",
    "2024-01-01T00:00:00.1234567Z",
    "-9999-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999-23:59",
];

/// Whatever a client sends.
pub fn holds(bytes: &[u8]) {
    if let Ok(body) = serde_json::from_slice::<Json>(bytes) {
        parsed(&body);
    }
    let mut input = Unstructured::new(bytes);
    let _ = bodies(&mut input);
}

fn bodies(input: &mut Unstructured<'_>) -> Result<()> {
    let (a, b) = (body(input)?, body(input)?);
    let shuffled = shuffled(&a, input)?;
    let (a_filters, b_filters) = (parsed(&a), parsed(&b));
    assert_eq!(
        parsed(&shuffled),
        a_filters,
        "another order: {a} {shuffled}"
    );
    for (a, b) in a_filters
        .into_iter()
        .flatten()
        .zip(b_filters.into_iter().flatten())
    {
        assert_eq!(key(&a) == key(&b), a == b, "{a:?} {b:?}");
    }
    Ok(())
}

fn key(filter: &Filter) -> Key {
    Key::args("users", "filter", &(filter,)).expect("a filter is an argument")
}

/// What becomes of a body.
fn parsed(body: &Json) -> [Option<Filter>; 2] {
    [one::<User>(body), one::<Product>(body)]
}

fn one<R: Resource>(body: &Json) -> Option<Filter> {
    let filter = match Filter::parse::<R>(body.clone()) {
        Ok(filter) => filter,
        Err(invalid) => {
            assert!(!invalid.reason.is_empty());
            return None;
        }
    };
    let again = filter.clone().normalised();
    assert_eq!(again, filter, "{body}");
    assert_eq!(key(&again), key(&filter));
    written::<R>(&filter);
    Some(filter)
}

/// As many placeholders as values, in their order, and nothing of the client's besides.
fn written<R: Resource>(filter: &Filter) {
    let mut select = Query::select();
    filter.restrict(select.from("t"));
    filter.paginate(&mut select);
    let (text, values) = select.build(PostgresQueryBuilder);
    let text = text.replace(r"ESCAPE E'\\'", "");
    let mut rest = text.as_str();
    for number in 1..=values.0.len() {
        let placeholder = format!("${number}");
        let (before, after) = rest.split_once(&placeholder).expect("in order");
        assert!(!before.contains('$') && !after.starts_with(|c: char| c.is_ascii_digit()));
        rest = after;
    }
    assert!(!rest.contains('$'), "{text}");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '"'));
    const KNOWN: [&str; 21] = [
        "", "SELECT", "FROM", "\"t\"", "WHERE", "AND", "OR", "IN", "LIKE", "LOWER", "IS", "NOT",
        "NULL", "ORDER", "BY", "ASC", "DESC", "NULLS", "FIRST", "LAST", "LIMIT",
    ];
    for word in words {
        let is_column = R::COLUMNS
            .iter()
            .any(|column| word == format!("\"{}\"", column.name));
        let is_number = word.bytes().all(|b| b.is_ascii_digit());
        assert!(
            is_column || is_number || word == "OFFSET" || KNOWN.contains(&word),
            "{word}: {text}"
        );
    }
    assert!(!text.contains(['\'', ';', '\\', '-']), "{text}");
    for value in values.0 {
        if let Value::Double(Some(number)) = value {
            assert!(number.is_finite() && (number != 0.0 || number.is_sign_positive()));
        }
    }
}

fn body(input: &mut Unstructured<'_>) -> Result<Json> {
    let mut body = serde_json::Map::new();
    if input.ratio(7, 8)? {
        body.insert("conditions".into(), group(input, 4)?);
    }
    if input.ratio(1, 3)? {
        let orders = (0..input.int_in_range(0..=3)?).map(|_| {
            let field = input.choose(&FIELDS)?;
            Ok(match input.int_in_range(0..=2)? {
                0 => json!({ "field": field }),
                1 => json!({ "field": field, "direction": "DESC" }),
                _ => json!({ "field": field, "direction": "asc" }),
            })
        });
        body.insert("order_by".into(), orders.collect::<Result<_>>()?);
    }
    for name in ["limit", "skip"] {
        if input.ratio(1, 8)? {
            body.insert(name.into(), scalar(input)?);
        }
    }
    Ok(Json::Object(body))
}

fn group(input: &mut Unstructured<'_>, depth: usize) -> Result<Json> {
    (0..input.int_in_range(0..=3)?)
        .map(|_| condition(input, depth))
        .collect()
}

fn condition(input: &mut Unstructured<'_>, depth: usize) -> Result<Json> {
    if depth > 0 && input.ratio(1, 3)? {
        let name = *input.choose(&["and", "or"])?;
        return Ok(json!({ name: group(input, depth - 1)? }));
    }
    // Mostly what fits, so that there is something left to be put in order.
    if input.ratio(3, 4)? {
        let (field, op, value) = match input.int_in_range(0..=7)? {
            0 => ("id", "eq", input.int_in_range(0..=3i64)?.into()),
            1 => (
                "id",
                "in",
                json!([input.int_in_range(0..=3i64)?, input.int_in_range(0..=3i64)?]),
            ),
            2 => ("id", "between", json!([scalar(input)?, scalar(input)?])),
            3 => ("name", "ilike", text(input, &TEXTS)?.into()),
            4 => ("name", "like", text(input, &TEXTS)?.into()),
            5 => (
                "name",
                "in",
                json!([text(input, &TEXTS)?, text(input, &TEXTS)?]),
            ),
            6 => ("price", "lt", scalar(input)?),
            _ => ("created_at", "gt", text(input, &TEXTS)?.into()),
        };
        return Ok(json!({ "field": field, "op": op, "value": value }));
    }
    let (field, op) = (*input.choose(&FIELDS)?, *input.choose(&OPERATORS)?);
    let value = match input.int_in_range(0..=3)? {
        0 => (0..input.int_in_range(0..=3)?)
            .map(|_| scalar(input))
            .collect::<Result<_>>()?,
        _ => scalar(input)?,
    };
    Ok(json!({ "field": field, "op": op, "value": value }))
}

fn scalar(input: &mut Unstructured<'_>) -> Result<Json> {
    Ok(match input.int_in_range(0..=6)? {
        0 => Json::Null,
        1 => input.arbitrary::<bool>()?.into(),
        2 => input.int_in_range(-1i64..=3)?.into(),
        3 => input.arbitrary::<u64>()?.into(),
        4 => input.arbitrary::<f64>()?.into(),
        5 => (-0.0).into(),
        _ => text(input, &TEXTS)?.into(),
    })
}

/// The same groups, their conditions and the values of their lists in another order.
fn shuffled(body: &Json, input: &mut Unstructured<'_>) -> Result<Json> {
    let mut body = body.clone();
    if let Some(conditions) = body.get_mut("conditions") {
        shuffle(conditions, input)?;
    }
    Ok(body)
}

fn shuffle(group: &mut Json, input: &mut Unstructured<'_>) -> Result<()> {
    let Json::Array(conditions) = group else {
        return Ok(());
    };
    for condition in conditions.iter_mut() {
        for name in ["and", "or"] {
            if let Some(inner) = condition.get_mut(name) {
                shuffle(inner, input)?;
            }
        }
        if condition.get("op") == Some(&"in".into())
            && let Some(Json::Array(values)) = condition.get_mut("value")
        {
            values.reverse();
        }
    }
    if let Some(last) = conditions.len().checked_sub(1) {
        let at = input.int_in_range(0..=last)?;
        conditions.swap(0, at);
        conditions.rotate_left(at);
    }
    Ok(())
}
