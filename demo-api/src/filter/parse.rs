//! From a JSON body to a [`Filter`]: rejects unknown names, wrong types and unlimited sizes.

use serde_json::{Map, Value as Json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{
    Case, Compare, Condition, DEFAULT_LIMIT, Direction, Filter, MAX_CONDITIONS, MAX_DEPTH,
    MAX_PATTERN, MAX_VALUES, Order, checked_limit, checked_skip,
};
use crate::error::Invalid;
use crate::input::{self, describe};
use crate::mutation;
use crate::resource::{Column, Kind, Resource};
use crate::sql::{Value, to_micros};

// SQLite binds 32,766 values at most.
const MAX_VALUES_IN_ALL: usize = 5_000;

const OPERATORS: &str = "eq, ne, lt, lte, gt, gte, in, like, ilike, between or is_null";

impl Filter {
    /// Reads the body of a filter request about the resource `R`.
    ///
    /// # Errors
    /// Names the part of the body that can't be used.
    pub fn parse<R: Resource>(body: Json) -> Result<Self, Invalid> {
        Self::parse_for(R::COLUMNS, body)
    }

    pub(super) fn parse_for(columns: &'static [Column], body: Json) -> Result<Self, Invalid> {
        let mut body = object("body", body)?;
        let mut parser = Parser {
            columns,
            conditions: 0,
            values: 0,
        };
        let filter = Self {
            condition: match take(&mut body, "conditions") {
                Some(conditions) => Condition::All(parser.group("conditions", conditions, 1)?),
                None => Condition::All(Vec::new()),
            },
            order_by: match take(&mut body, "order_by") {
                Some(order_by) => parser.order_by(order_by)?,
                None => Vec::new(),
            },
            skip: checked_skip(take_integer(&mut body, "skip", 0)?)?,
            limit: checked_limit(take_integer(&mut body, "limit", DEFAULT_LIMIT)?)?,
        };
        nothing_left("", &body)?;
        Ok(filter.normalised())
    }
}

struct Parser {
    columns: &'static [Column],
    /// The number of conditions so far, over all groups.
    conditions: usize,
    /// The number of values so far, in all `in` lists.
    values: usize,
}

impl Parser {
    fn group(&mut self, path: &str, group: Json, depth: usize) -> Result<Vec<Condition>, Invalid> {
        if depth > MAX_DEPTH {
            return Err(Invalid::new(
                path,
                format!("groups may be nested {MAX_DEPTH} deep"),
            ));
        }
        array(path, group)?
            .into_iter()
            .enumerate()
            .map(|(index, condition)| self.condition(&format!("{path}[{index}]"), condition, depth))
            .collect()
    }

    fn condition(
        &mut self,
        path: &str,
        condition: Json,
        depth: usize,
    ) -> Result<Condition, Invalid> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return Err(Invalid::new(
                "conditions",
                format!("there may be {MAX_CONDITIONS} conditions at most"),
            ));
        }
        let mut condition = object(path, condition)?;
        for (name, make) in [
            ("and", Condition::All as fn(Vec<Condition>) -> Condition),
            ("or", Condition::Any),
        ] {
            if let Some(group) = take(&mut condition, name) {
                nothing_left(path, &condition)?;
                let path = format!("{path}.{name}");
                let group = self.group(&path, group, depth + 1)?;
                if group.is_empty() {
                    return Err(Invalid::new(path, "must hold at least one condition"));
                }
                return Ok(make(group));
            }
        }
        let column = self.column(path, &mut condition)?;
        let op = required_text(path, &mut condition, "op")?;
        let at = format!("{path}.value");
        // A field that is null is not treated as missing here, so that the message can name the
        // alternative.
        let value = condition
            .remove("value")
            .ok_or_else(|| Invalid::new(at.clone(), "is missing"))?;
        nothing_left(path, &condition)?;
        let condition = operation(column, &op, value, &format!("{path}.op"), &at)?;
        if let Condition::In { values, .. } = &condition {
            self.values += values.len();
            if self.values > MAX_VALUES_IN_ALL {
                let reason =
                    format!("all lists together may hold {MAX_VALUES_IN_ALL} values at most");
                return Err(Invalid::new(at, reason));
            }
        }
        Ok(condition)
    }

    fn column(&self, path: &str, object: &mut Map<String, Json>) -> Result<Column, Invalid> {
        let name = required_text(path, object, "field")?;
        self.columns
            .iter()
            .find(|column| column.name == name)
            .copied()
            .ok_or_else(|| {
                let known: Vec<_> = self.columns.iter().map(|column| column.name).collect();
                Invalid::new(
                    join(path, "field"),
                    format!("unknown column; use {}", known.join(", ")),
                )
            })
    }

    fn order_by(&self, order_by: Json) -> Result<Vec<Order>, Invalid> {
        let order_by = array("order_by", order_by)?;
        if order_by.len() > self.columns.len() {
            return Err(Invalid::new(
                "order_by",
                format!(
                    "names more than the {} columns there are",
                    self.columns.len()
                ),
            ));
        }
        order_by
            .into_iter()
            .enumerate()
            .map(|(index, order)| {
                let path = format!("order_by[{index}]");
                let mut order = object(&path, order)?;
                let column = self.column(&path, &mut order)?.name;
                let at = join(&path, "direction");
                let direction = match take(&mut order, "direction") {
                    None => Direction::Ascending,
                    Some(direction) => match input::text(&at, direction, 20)?
                        .to_ascii_lowercase()
                        .as_str()
                    {
                        "asc" => Direction::Ascending,
                        "desc" => Direction::Descending,
                        _ => return Err(Invalid::new(at, "must be `asc` or `desc`")),
                    },
                };
                nothing_left(&path, &order)?;
                Ok(Order { column, direction })
            })
            .collect()
    }
}

fn operation(
    column: Column,
    op: &str,
    value: Json,
    op_at: &str,
    at: &str,
) -> Result<Condition, Invalid> {
    let Column { name, kind } = column;
    let compare = |op, value| {
        Ok(Condition::Compare {
            column: name,
            op,
            value: scalar(column, value, at)?,
        })
    };
    let ordered = |op, value| {
        if kind == Kind::Boolean {
            return Err(Invalid::new(
                op_at,
                format!("`{name}` is a boolean; use eq, ne, in or is_null"),
            ));
        }
        compare(op, value)
    };
    match op {
        "eq" => compare(Compare::Eq, value),
        "ne" => compare(Compare::Ne, value),
        "lt" => ordered(Compare::Lt, value),
        "lte" => ordered(Compare::Lte, value),
        "gt" => ordered(Compare::Gt, value),
        "gte" => ordered(Compare::Gte, value),
        "between" => {
            let [low, high] = <[Json; 2]>::try_from(array(at, value)?).map_err(|_| {
                Invalid::new(at, "must be an array of two values, the lower one first")
            })?;
            Ok(Condition::All(vec![
                ordered(Compare::Gte, low)?,
                ordered(Compare::Lte, high)?,
            ]))
        }
        "in" => {
            let values = array(at, value)?;
            if values.is_empty() || values.len() > MAX_VALUES {
                return Err(Invalid::new(
                    at,
                    format!("must hold 1 to {MAX_VALUES} values"),
                ));
            }
            let values = values
                .into_iter()
                .enumerate()
                .map(|(index, value)| scalar(column, value, &format!("{at}[{index}]")))
                .collect::<Result<_, _>>()?;
            Ok(Condition::In {
                column: name,
                values,
            })
        }
        "like" | "ilike" => {
            if kind != Kind::Text {
                return Err(Invalid::new(
                    op_at,
                    format!("`{name}` is no text; {op} compares texts"),
                ));
            }
            let pattern = input::text(at, value, MAX_PATTERN)?;
            if ends_in_lone_escape(&pattern) {
                return Err(Invalid::new(
                    at,
                    "must not end in a single `\\`; write `\\\\` for a backslash",
                ));
            }
            let case = if op == "like" {
                Case::Sensitive
            } else {
                Case::Ignored
            };
            Ok(Condition::Like {
                column: name,
                pattern,
                case,
            })
        }
        "is_null" => Ok(Condition::IsNull {
            column: name,
            is_null: input::boolean(at, &value)?,
        }),
        _ => Err(Invalid::new(
            op_at,
            format!("unknown operator; use {OPERATORS}"),
        )),
    }
}

/// PostgreSQL refuses such a pattern when it compares a row with it.
fn ends_in_lone_escape(pattern: &str) -> bool {
    pattern.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1
}

fn scalar(column: Column, value: Json, at: &str) -> Result<Value, Invalid> {
    if value.is_null() {
        return Err(Invalid::new(
            at,
            "must not be null; use is_null to look for nothing",
        ));
    }
    match column.kind {
        Kind::Boolean => input::boolean(at, &value).map(Value::Boolean),
        Kind::Integer => input::integer(at, &value).map(Value::Integer),
        Kind::Number => input::number(at, &value).map(Value::Number),
        Kind::Text => input::text(at, value, input::MAX_TEXT).map(Value::Text),
        Kind::Time => time(at, value).map(Value::Integer),
    }
    .map_err(|invalid| Invalid {
        reason: format!("{} (`{}`)", invalid.reason, column.name),
        ..invalid
    })
}

/// The same instant in any time zone is the same value.
fn time(at: &str, value: Json) -> Result<i64, Invalid> {
    let text = input::text(at, value, 64)?;
    // The library takes any character there, and a leap second for the last one before it.
    let is_written_so = matches!(text.as_bytes().get(10), Some(b'T' | b't'))
        && text.get(17..19) != Some("60")
        || mutation::is_active("demo-times-of-any-form");
    let moment = OffsetDateTime::parse(&text, &Rfc3339).ok();
    let moment = moment
        .filter(|_| is_written_so)
        .ok_or_else(|| Invalid::new(at, "must be an RFC 3339 time such as 2024-05-01T09:30:00Z"))?;
    if moment.nanosecond() % 1_000 != 0 {
        return Err(Invalid::new(
            at,
            "may have 6 decimals of a second at most, which is what is stored",
        ));
    }
    Ok(to_micros(moment))
}

fn take_integer(body: &mut Map<String, Json>, name: &str, default: u32) -> Result<i64, Invalid> {
    take(body, name).map_or(Ok(default.into()), |value| input::integer(name, &value))
}

fn object(path: &str, value: Json) -> Result<Map<String, Json>, Invalid> {
    match value {
        Json::Object(object) => Ok(object),
        other => Err(Invalid::new(
            path,
            format!("must be an object, not {}", describe(&other)),
        )),
    }
}

fn array(path: &str, value: Json) -> Result<Vec<Json>, Invalid> {
    match value {
        Json::Array(array) => Ok(array),
        other => Err(Invalid::new(
            path,
            format!("must be an array, not {}", describe(&other)),
        )),
    }
}

fn take(object: &mut Map<String, Json>, name: &str) -> Option<Json> {
    object.remove(name).filter(|value| !value.is_null())
}

fn required_text(
    path: &str,
    object: &mut Map<String, Json>,
    name: &str,
) -> Result<String, Invalid> {
    let at = join(path, name);
    let value = take(object, name).ok_or_else(|| Invalid::new(at.clone(), "is missing"))?;
    input::text(&at, value, 100)
}

fn nothing_left(path: &str, object: &Map<String, Json>) -> Result<(), Invalid> {
    match object.keys().next() {
        Some(name) => Err(Invalid::new(join(path, name), "unknown field")),
        None => Ok(()),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::users::User;

    fn refused(body: Json) -> String {
        Filter::parse::<User>(body.clone())
            .expect_err(&body.to_string())
            .field
    }

    fn condition(field: &str, op: &str, value: Json) -> Json {
        json!({ "conditions": [{ "field": field, "op": op, "value": value }] })
    }

    #[test]
    fn an_empty_body_asks_for_everything() {
        let filter = Filter::parse::<User>(json!({})).unwrap();
        assert_eq!((filter.skip(), filter.limit()), (0, DEFAULT_LIMIT));
        assert_eq!(
            filter,
            Filter::parse::<User>(json!({ "conditions": [], "order_by": null, "limit": 100 }))
                .unwrap()
        );
    }

    #[test]
    fn each_mistake_is_named_where_it_was_made() {
        let value = "conditions[0].value";
        assert_eq!(refused(json!([])), "body");
        assert_eq!(refused(json!({ "condition": [] })), "condition");
        assert_eq!(refused(json!({ "conditions": {} })), "conditions");
        assert_eq!(refused(json!({ "conditions": [1] })), "conditions[0]");
        assert_eq!(
            refused(json!({ "conditions": [{ "op": "eq", "value": 1 }] })),
            "conditions[0].field"
        );
        assert_eq!(
            refused(json!({ "conditions": [{ "field": "id", "value": 1 }] })),
            "conditions[0].op"
        );
        assert_eq!(
            refused(json!({ "conditions": [{ "field": "id", "op": "eq" }] })),
            value
        );
        assert_eq!(
            refused(json!({ "conditions": [{ "or": [] }] })),
            "conditions[0].or"
        );
        assert_eq!(
            refused(
                json!({ "conditions": [{ "or": [{ "field": "id", "op": "eq", "value": "x" }] }] })
            ),
            "conditions[0].or[0].value"
        );
        assert_eq!(
            refused(condition("password", "eq", json!(1))),
            "conditions[0].field"
        );
        assert_eq!(
            refused(condition("id; --", "eq", json!(1))),
            "conditions[0].field"
        );
        assert_eq!(
            refused(condition("age", "contains", json!(1))),
            "conditions[0].op"
        );
        assert_eq!(
            refused(condition("age", "like", json!("1%"))),
            "conditions[0].op"
        );
        assert_eq!(
            refused(condition("active", "gt", json!(true))),
            "conditions[0].op"
        );
        assert_eq!(refused(condition("age", "eq", json!("30"))), value);
        assert_eq!(refused(condition("age", "eq", json!(1.5))), value);
        assert_eq!(refused(condition("age", "eq", json!(null))), value);
        assert_eq!(
            refused(condition("id", "eq", json!(9_223_372_036_854_775_808_u64))),
            value
        );
        assert_eq!(refused(condition("active", "eq", json!(1))), value);
        assert_eq!(refused(condition("name", "eq", json!("a\0"))), value);
        assert_eq!(refused(condition("name", "like", json!(1))), value);
        assert_eq!(refused(condition("name", "like", json!("ada\\"))), value);
        assert_eq!(refused(condition("name", "is_null", json!("yes"))), value);
        assert_eq!(refused(condition("age", "in", json!([]))), value);
        assert_eq!(
            refused(condition("age", "in", json!(vec![1; MAX_VALUES + 1]))),
            value
        );
        assert_eq!(
            refused(condition("age", "in", json!([1, "2"]))),
            "conditions[0].value[1]"
        );
        assert_eq!(refused(condition("age", "between", json!([1]))), value);
        assert_eq!(
            refused(condition("age", "between", json!([1, 2, 3]))),
            value
        );
        assert_eq!(
            refused(condition("created_at", "gt", json!("yesterday"))),
            value
        );
        assert_eq!(
            refused(condition(
                "created_at",
                "gt",
                json!("2024-01-01T00:00:00.1234567Z")
            )),
            value
        );
        for time in [
            "2024-01-01 00:00:00Z",
            "2024-01-01x00:00:00Z",
            "2016-12-31T23:59:60Z",
            "2024-01-01T00:00:00",
            "2024-01-01",
            "",
        ] {
            assert_eq!(refused(condition("created_at", "gt", json!(time))), value);
        }
        for time in [
            "2024-01-01t00:00:00z",
            "2024-01-01T00:00:00.123456000+01:00",
        ] {
            assert!(Filter::parse::<User>(condition("created_at", "gt", json!(time))).is_ok());
        }
        assert_eq!(
            refused(json!({ "order_by": [{ "field": "nam" }] })),
            "order_by[0].field"
        );
        assert_eq!(
            refused(json!({ "order_by": [{ "field": "name", "direction": "up" }] })),
            "order_by[0].direction"
        );
        for limit in [
            json!(-1),
            json!(0),
            json!(1_001),
            json!("10"),
            json!(1e18),
            json!(1.5),
        ] {
            assert_eq!(refused(json!({ "limit": limit })), "limit");
        }
        assert_eq!(refused(json!({ "skip": -1 })), "skip");
        assert_eq!(refused(json!({ "skip": 4_294_967_296_u64 })), "skip");
    }

    #[test]
    fn a_body_is_bounded_in_depth_and_in_number() {
        let list = json!({ "field": "id", "op": "in", "value": vec![1; MAX_VALUES] });
        let lists = |number| json!({ "conditions": vec![list.clone(); number] });
        let most = MAX_VALUES_IN_ALL / MAX_VALUES;
        assert!(Filter::parse::<User>(lists(most)).is_ok());
        assert_eq!(
            refused(lists(most + 1)),
            format!("conditions[{most}].value")
        );

        let leaf = json!({ "field": "id", "op": "eq", "value": 1 });
        let nested = |depth| (1..depth).fold(leaf.clone(), |inner, _| json!({ "and": [inner] }));
        assert!(Filter::parse::<User>(json!({ "conditions": [nested(MAX_DEPTH)] })).is_ok());
        assert!(
            refused(json!({ "conditions": [nested(MAX_DEPTH + 1)] }))
                .starts_with("conditions[0].and")
        );

        assert!(
            Filter::parse::<User>(json!({ "conditions": vec![leaf.clone(); MAX_CONDITIONS] }))
                .is_ok()
        );
        assert_eq!(
            refused(json!({ "conditions": vec![leaf; MAX_CONDITIONS + 1] })),
            "conditions"
        );
    }
}
