//! The normal form that filters with the same meaning share.
//!
//! Not all equivalent filters are found, which would be a hard problem, but those that clients do
//! write in several ways: another order, a group with one member, a repeated value, `in` with a
//! single value, `between` for two bounds, an `or` of equalities, a default that is written out.

use super::{Case, Compare, Condition, Direction, Filter, Order};
use crate::sql::Value;

impl Filter {
    /// The normal form, in which a [parsed](Filter::parse) filter is already.
    #[must_use]
    pub fn normalised(self) -> Self {
        Self {
            condition: self.condition.normalised(),
            order_by: normalised_order(self.order_by),
            ..self
        }
    }
}

/// Each column once, up to the id and always with the id: rows that are otherwise equal must have
/// the same order on every page.
fn normalised_order(order_by: Vec<Order>) -> Vec<Order> {
    let mut normal: Vec<Order> = Vec::new();
    for order in order_by {
        if !normal
            .iter()
            .any(|earlier| earlier.column == order.column || earlier.column == "id")
        {
            normal.push(order);
        }
    }
    if !normal.iter().any(|order| order.column == "id") {
        normal.push(Order {
            column: "id",
            direction: Direction::Ascending,
        });
    }
    normal
}

impl Condition {
    fn normalised(self) -> Self {
        match self {
            Self::All(conditions) => {
                let conditions =
                    conditions
                        .into_iter()
                        .flat_map(|condition| match condition.normalised() {
                            Self::All(inner) => inner,
                            other => vec![other],
                        });
                unwrapped(conditions.collect(), Self::All)
            }
            Self::Any(conditions) => {
                let conditions =
                    conditions
                        .into_iter()
                        .flat_map(|condition| match condition.normalised() {
                            Self::Any(inner) => inner,
                            other => vec![other],
                        });
                unwrapped(merged_equalities(conditions.collect()), Self::Any)
            }
            Self::In { column, values } => one_of(column, values),
            Self::Like {
                column,
                pattern,
                case: Case::Ignored,
            } => Self::Like {
                column,
                pattern: pattern.to_ascii_lowercase(),
                case: Case::Ignored,
            },
            other @ (Self::Compare { .. } | Self::Like { .. } | Self::IsNull { .. }) => other,
        }
    }
}

/// A group in order and without repetitions, or its only member.
fn unwrapped(mut conditions: Vec<Condition>, group: fn(Vec<Condition>) -> Condition) -> Condition {
    sort_and_dedup(&mut conditions);
    match <[Condition; 1]>::try_from(conditions) {
        Ok([only]) => only,
        Err(conditions) => group(conditions),
    }
}

/// `age = 1 or age in (2, 3)` as `age in (1, 2, 3)`.
fn merged_equalities(conditions: Vec<Condition>) -> Vec<Condition> {
    let mut merged = Vec::new();
    let mut equalities: Vec<(&'static str, Vec<Value>)> = Vec::new();
    for condition in conditions {
        let (column, values) = match condition {
            Condition::Compare {
                column,
                op: Compare::Eq,
                value,
            } => (column, vec![value]),
            Condition::In { column, values } => (column, values),
            other => {
                merged.push(other);
                continue;
            }
        };
        match equalities.iter_mut().find(|(known, _)| *known == column) {
            Some((_, known)) => known.extend(values),
            None => equalities.push((column, values)),
        }
    }
    merged.extend(
        equalities
            .into_iter()
            .map(|(column, values)| one_of(column, values)),
    );
    merged
}

fn one_of(column: &'static str, mut values: Vec<Value>) -> Condition {
    sort_and_dedup(&mut values);
    match <[Value; 1]>::try_from(values) {
        Ok([value]) => Condition::Compare {
            column,
            op: Compare::Eq,
            value,
        },
        Err(values) => Condition::In { column, values },
    }
}

fn sort_and_dedup<T: PartialOrd>(items: &mut Vec<T>) {
    // Total, since floats are finite; see `Value`.
    items.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    items.dedup();
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::products::Product;
    use crate::resource::Resource;
    use crate::users::User;

    fn same<R: Resource>(bodies: &[Json]) {
        let filters: Vec<_> = bodies
            .iter()
            .map(|body| Filter::parse::<R>(body.clone()).unwrap())
            .collect();
        for (filter, body) in filters.iter().zip(bodies) {
            assert_eq!(*filter, filters[0], "{body} against {}", bodies[0]);
        }
    }

    fn different(a: Json, b: Json) {
        assert_ne!(
            Filter::parse::<User>(a.clone()),
            Filter::parse::<User>(b.clone()),
            "{a} and {b}"
        );
    }

    fn only(condition: Json) -> Json {
        json!({ "conditions": [condition] })
    }

    #[test]
    fn the_order_of_conditions_means_nothing() {
        let adult = json!({ "field": "age", "op": "gte", "value": 18 });
        let ada = json!({ "field": "name", "op": "like", "value": "Ada%" });
        same::<User>(&[
            json!({ "conditions": [adult, ada] }),
            json!({ "conditions": [ada, adult] }),
            json!({ "conditions": [ada, adult, ada] }),
            only(json!({ "and": [ada, adult] })),
            json!({ "conditions": [{ "and": [ada] }, { "or": [{ "and": [adult] }] }] }),
        ]);
        different(
            json!({ "conditions": [adult, ada] }),
            only(json!({ "or": [adult, ada] })),
        );
    }

    #[test]
    fn a_list_of_values_is_a_set() {
        same::<User>(&[
            only(json!({ "field": "age", "op": "in", "value": [1, 2, 3] })),
            only(json!({ "field": "age", "op": "in", "value": [3, 1.0, 2, 1] })),
            only(json!({ "or": [
                { "field": "age", "op": "eq", "value": 3 },
                { "or": [{ "field": "age", "op": "in", "value": [2, 1] }] },
            ] })),
        ]);
        same::<User>(&[
            only(json!({ "field": "age", "op": "in", "value": [1, 1] })),
            only(json!({ "field": "age", "op": "eq", "value": 1 })),
        ]);
    }

    #[test]
    fn values_are_compared_as_the_column_holds_them() {
        same::<User>(&[
            only(json!({ "field": "age", "op": "eq", "value": 1 })),
            only(json!({ "field": "age", "op": "eq", "value": 1.0 })),
        ]);
        same::<Product>(&[
            only(json!({ "field": "price", "op": "eq", "value": 0 })),
            only(json!({ "field": "price", "op": "eq", "value": 0.0 })),
            only(json!({ "field": "price", "op": "eq", "value": -0.0 })),
        ]);
        same::<User>(&[
            only(json!({ "field": "created_at", "op": "lt", "value": "2024-05-01T09:30:00Z" })),
            only(
                json!({ "field": "created_at", "op": "lt", "value": "2024-05-01T11:30:00.000+02:00" }),
            ),
        ]);
        same::<User>(&[
            only(json!({ "field": "name", "op": "ilike", "value": "%ada%" })),
            only(json!({ "field": "name", "op": "ilike", "value": "%ADA%" })),
        ]);
        different(
            only(json!({ "field": "name", "op": "like", "value": "%ada%" })),
            only(json!({ "field": "name", "op": "like", "value": "%ADA%" })),
        );
    }

    #[test]
    fn between_is_two_bounds() {
        same::<User>(&[
            only(json!({ "field": "age", "op": "between", "value": [18, 30] })),
            json!({ "conditions": [
                { "field": "age", "op": "lte", "value": 30 },
                { "field": "age", "op": "gte", "value": 18 },
            ] }),
        ]);
        different(
            only(json!({ "field": "age", "op": "between", "value": [18, 30] })),
            only(json!({ "field": "age", "op": "between", "value": [30, 18] })),
        );
    }

    #[test]
    fn an_ordering_ends_at_the_id() {
        let by = |columns: Json| json!({ "order_by": columns });
        same::<User>(&[
            by(json!([])),
            by(json!([{ "field": "id" }])),
            by(json!([{ "field": "id" }, { "field": "age" }])),
        ]);
        same::<User>(&[
            by(json!([{ "field": "name" }, { "field": "age", "direction": "desc" }])),
            by(
                json!([{ "field": "name", "direction": "ASC" }, { "field": "age", "direction": "desc" }, { "field": "name" }]),
            ),
        ]);
        different(
            by(json!([{ "field": "name" }, { "field": "age" }])),
            by(json!([{ "field": "age" }, { "field": "name" }])),
        );
        different(
            by(json!([{ "field": "id" }])),
            by(json!([{ "field": "id", "direction": "desc" }])),
        );
    }

    #[test]
    fn defaults_may_be_spelt_out() {
        same::<User>(&[
            json!({}),
            json!({ "conditions": [], "order_by": [], "skip": 0, "limit": 100 }),
            json!({ "skip": 0.0, "limit": null }),
        ]);
        different(json!({}), json!({ "limit": 99 }));
        different(json!({}), json!({ "skip": 1 }));
    }
}
