//! A [`Filter`] as SQL: names from the whitelist, everything else bound.

use super::{Case, Compare, Condition, Direction, Filter};
use crate::sql::{Sql, Value};

impl Filter {
    /// Appends ` WHERE ..`, or nothing if every row will do.
    pub fn push_where(&self, sql: &mut Sql) {
        if self.condition != Condition::All(Vec::new()) {
            sql.push(" WHERE ");
            push_condition(sql, &self.condition);
        }
    }

    /// Appends ` ORDER BY .. LIMIT .. OFFSET ..`.
    pub fn push_page(&self, sql: &mut Sql) {
        sql.push(" ORDER BY ")
            .join(", ", &self.order_by, |sql, order| {
                // NULLs first in ascending order, as SQLite does; PostgreSQL's default is the other way round.
                sql.push(order.column).push(match order.direction {
                    Direction::Ascending => " ASC NULLS FIRST",
                    Direction::Descending => " DESC NULLS LAST",
                });
            });
        sql.push(" LIMIT ").bind(Value::Integer(self.limit.into()));
        sql.push(" OFFSET ").bind(Value::Integer(self.skip.into()));
    }
}

fn push_condition(sql: &mut Sql, condition: &Condition) {
    match condition {
        Condition::All(conditions) => push_group(sql, " AND ", conditions),
        Condition::Any(conditions) => push_group(sql, " OR ", conditions),
        Condition::Compare { column, op, value } => {
            let op = match op {
                Compare::Eq => " = ",
                Compare::Ne => " <> ",
                Compare::Lt => " < ",
                Compare::Lte => " <= ",
                Compare::Gt => " > ",
                Compare::Gte => " >= ",
            };
            sql.push(column).push(op).bind(value.clone());
        }
        Condition::In { column, values } => {
            sql.push(column)
                .push(" IN (")
                .join(", ", values, |sql, value| {
                    sql.bind(value.clone());
                });
            sql.push(")");
        }
        Condition::Like {
            column,
            pattern,
            case,
        } => {
            match case {
                Case::Sensitive => sql.push(column),
                // The pattern is in lower case already.
                Case::Ignored => sql.push("lower(").push(column).push(")"),
            };
            sql.push(" LIKE ")
                .bind(Value::Text(pattern.clone()))
                .push(r" ESCAPE '\'");
        }
        Condition::IsNull { column, is_null } => {
            sql.push(column)
                .push(if *is_null { " IS NULL" } else { " IS NOT NULL" });
        }
    }
}

fn push_group(sql: &mut Sql, separator: &str, conditions: &[Condition]) {
    sql.push("(")
        .join(separator, conditions, push_condition)
        .push(")");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::products::Product;

    fn written(body: Json) -> (String, Vec<Value>) {
        let filter = Filter::parse::<Product>(body).unwrap();
        let mut sql = Sql::new("");
        filter.push_where(&mut sql);
        filter.push_page(&mut sql);
        (sql.text().to_owned(), sql.values().to_vec())
    }

    #[test]
    fn everything_is_ordered_by_id_and_limited() {
        let (text, values) = written(json!({}));
        assert_eq!(text, " ORDER BY id ASC NULLS FIRST LIMIT $1 OFFSET $2");
        assert_eq!(values, [Value::Integer(100), Value::Integer(0)]);
    }

    #[test]
    fn values_are_bound_and_never_written() {
        let (text, values) = written(json!({
            "conditions": [
                { "field": "name", "op": "eq", "value": "'; DROP TABLE products; --" },
                { "or": [
                    { "field": "price", "op": "between", "value": [1, 2] },
                    { "field": "stock", "op": "in", "value": [5, 4] },
                    { "field": "description", "op": "is_null", "value": true },
                    { "field": "category", "op": "ilike", "value": "Tool%" },
                ] },
            ],
            "order_by": [{ "field": "price", "direction": "desc" }],
            "limit": 10,
        }));
        assert_eq!(
            text,
            " WHERE ((\
             (price >= $1 AND price <= $2) \
             OR stock IN ($3, $4) \
             OR lower(category) LIKE $5 ESCAPE '\\' \
             OR description IS NULL) \
             AND name = $6) \
             ORDER BY price DESC NULLS LAST, id ASC NULLS FIRST LIMIT $7 OFFSET $8"
        );
        assert_eq!(values[4], Value::Text("tool%".into()));
        assert_eq!(values[5], Value::Text("'; DROP TABLE products; --".into()));
    }
}
