//! The demo API over HTTP: the same requests get the same answers whichever database is below.

mod conditional;
mod documents;
mod lists;
mod refusals;
mod rows;
mod writes;

use cache_tests::{Answer, Demo, Postgres};
use serde_json::{Value, json};

/// Each test once per database, each with a process and a database of its own.
macro_rules! on_each_database {
    ($($module:ident { $($test:ident)* })*) => {
        mod sqlite {
            $($(#[tokio::test]
            async fn $test() {
                super::$module::$test(&cache_tests::Demo::start([])).await;
            })*)*
        }
        mod postgres {
            $($(#[tokio::test]
            async fn $test() {
                super::$module::$test(&super::on_postgres()).await;
            })*)*
        }
    };
}

on_each_database! {
    rows {
        the_first_start_fills_the_tables
        a_user_is_created_read_replaced_and_removed
        a_product_is_created_read_replaced_and_removed
        an_email_is_unique_whatever_its_case
        absence_is_cached_until_somebody_appears
        many_rows_are_read_with_those_that_are_cached_left_out
    }
    lists {
        every_operator_filters
        pages_are_stable_and_add_up
        bodies_that_mean_the_same_share_an_entry
    }
    writes {
        a_write_is_seen_by_every_read_that_follows
        a_product_write_leaves_other_products_cached
        a_purchase_writes_both_or_neither
        the_cache_forgets_on_request
    }
    conditional {
        a_list_that_the_client_has_is_not_sent_again
        a_client_names_what_it_has_as_rfc_9110_lets_it
    }
    refusals {
        bad_input_is_a_4xx_that_names_the_field
        nothing_is_a_plain_text_error
        a_refused_method_comes_with_those_there_are
    }
    documents {
        the_documentation_says_what_is_taken
        documentation_and_health
    }
}

fn on_postgres() -> Demo {
    let url = Postgres::shared().database();
    Demo::start([("DATABASE_URL", url.as_str())])
}

fn ok(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn rows(answer: &Answer) -> Vec<Value> {
    let body = ok(answer);
    body.as_array()
        .unwrap_or_else(|| panic!("no array: {body}"))
        .clone()
}

fn ids(rows: &[Value]) -> Vec<i64> {
    rows.iter()
        .map(|row| row["id"].as_i64().expect("an id"))
        .collect()
}

/// Asserts an error of the one shape, and returns it.
fn refused(answer: &Answer, status: u16, field: Option<&str>) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    let content_type = answer
        .headers
        .get("content-type")
        .and_then(|value| value.to_str().ok());
    assert!(
        content_type.is_some_and(|value| value.starts_with("application/json")),
        "{answer:?}"
    );
    let body = answer.json();
    assert!(
        body["error"]
            .as_str()
            .is_some_and(|error| !error.is_empty()),
        "{answer:?}"
    );
    assert_eq!(
        body.get("field").and_then(Value::as_str),
        field,
        "{answer:?}"
    );
    body
}

fn hit(answer: &Answer) -> bool {
    answer.cache_status().hit
}

fn user(email: &str) -> Value {
    json!({"name": "Rosa Test", "email": email, "age": 41, "active": true})
}

fn product(name: &str) -> Value {
    json!({"name": name, "category": "testing", "price": 12.5, "stock": 3})
}
