//! Writes a [`Filter`] as part of a statement: column names come from the list of allowed ones,
//! everything else is bound.

use sea_query::{Cond, Expr, ExprTrait as _, Func, LikeExpr, NullOrdering, SelectStatement};

use super::{Case, Compare, Condition, Direction, Filter};

impl Filter {
    /// Lets only the rows through that meet the condition.
    pub fn restrict(&self, select: &mut SelectStatement) {
        // Without conditions sea-query would write `WHERE TRUE`.
        if self.condition != Condition::All(Vec::new()) {
            select.cond_where(group(&self.condition));
        }
    }

    /// Orders the rows and takes one page of them.
    pub fn paginate(&self, select: &mut SelectStatement) {
        for order in &self.order_by {
            // NULLs first in ascending order, as SQLite does; PostgreSQL's default is the other way
            // round.
            let (direction, nulls) = match order.direction {
                Direction::Ascending => (sea_query::Order::Asc, NullOrdering::First),
                Direction::Descending => (sea_query::Order::Desc, NullOrdering::Last),
            };
            select.order_by_with_nulls(order.column, direction, nulls);
        }
        select.limit(self.limit.into()).offset(self.skip.into());
    }
}

/// A condition to which others can be added.
fn group(condition: &Condition) -> Cond {
    match condition {
        Condition::All(conditions) => conditions
            .iter()
            .fold(Cond::all(), |all, condition| all.add(group(condition))),
        Condition::Any(conditions) => conditions
            .iter()
            .fold(Cond::any(), |any, condition| any.add(group(condition))),
        Condition::Compare { column, op, value } => {
            let (column, value) = (Expr::col(*column), value.clone());
            Cond::all().add(match op {
                Compare::Eq => column.eq(value),
                Compare::Ne => column.ne(value),
                Compare::Lt => column.lt(value),
                Compare::Lte => column.lte(value),
                Compare::Gt => column.gt(value),
                Compare::Gte => column.gte(value),
            })
        }
        Condition::In { column, values } => {
            Cond::all().add(Expr::col(*column).is_in(values.iter().cloned()))
        }
        Condition::Like {
            column,
            pattern,
            case,
        } => {
            let column = match case {
                Case::Sensitive => Expr::col(*column),
                // The pattern is lower case already.
                Case::Ignored => Func::lower(Expr::col(*column)).into(),
            };
            Cond::all().add(column.like(LikeExpr::new(pattern.clone()).escape('\\')))
        }
        Condition::IsNull { column, is_null } => Cond::all().add(if *is_null {
            Expr::col(*column).is_null()
        } else {
            Expr::col(*column).is_not_null()
        }),
    }
}

#[cfg(test)]
mod tests {
    use sea_query::{PostgresQueryBuilder, Query, SqliteQueryBuilder};
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::products::Product;

    fn select(body: Json) -> SelectStatement {
        let filter = Filter::parse::<Product>(body).unwrap();
        let mut select = Query::select();
        select.column("id").from("products");
        filter.restrict(&mut select);
        filter.paginate(&mut select);
        select
    }

    #[test]
    fn everything_is_ordered_by_id_and_limited() {
        let (text, values) = select(json!({})).build(PostgresQueryBuilder);
        assert_eq!(
            text,
            r#"SELECT "id" FROM "products" ORDER BY "id" ASC NULLS FIRST LIMIT $1 OFFSET $2"#
        );
        assert_eq!(values.0, [100_u64.into(), 0_u64.into()]);
    }

    #[test]
    fn values_are_bound_and_never_written() {
        let select = select(json!({
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
        let (text, values) = select.build(SqliteQueryBuilder);
        assert_eq!(
            text,
            concat!(
                r#"SELECT "id" FROM "products" WHERE ("#,
                r#"("price" >= ? AND "price" <= ?) "#,
                r#"OR "stock" IN (?, ?) "#,
                r#"OR LOWER("category") LIKE ? ESCAPE '\' "#,
                r#"OR "description" IS NULL) "#,
                r#"AND "name" = ? "#,
                r#"ORDER BY "price" DESC NULLS LAST, "id" ASC NULLS FIRST LIMIT ? OFFSET ?"#,
            )
        );
        assert_eq!(values.0[4], "tool%".into());
        assert_eq!(values.0[5], "'; DROP TABLE products; --".into());
        let (text, _) = select.build(PostgresQueryBuilder);
        assert!(text.contains(r#"LIKE $5 ESCAPE E'\\'"#), "{text}");
    }
}
