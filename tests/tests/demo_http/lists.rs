//! Filters and pages.

use cache_tests::Demo;
use serde_json::{Value, json};

use super::{hit, ok, product, rows};

pub(super) async fn every_operator_filters(demo: &Demo) {
    type Predicate = fn(&Value) -> bool;
    fn age(row: &Value) -> i64 {
        row["age"].as_i64().expect("an age")
    }
    fn text<'a>(row: &'a Value, field: &str) -> &'a str {
        row[field].as_str().expect("a text")
    }

    let all = rows(&demo.get("/users?limit=1000").await);
    let cases: [(Value, Predicate); 17] = [
        (json!([]), |_| true),
        (json!([{"field": "age", "op": "eq", "value": 30}]), |row| {
            age(row) == 30
        }),
        (
            json!([{"field": "age", "op": "ne", "value": 30.0}]),
            |row| age(row) != 30,
        ),
        (json!([{"field": "age", "op": "lt", "value": 30}]), |row| {
            age(row) < 30
        }),
        (json!([{"field": "age", "op": "lte", "value": 30}]), |row| {
            age(row) <= 30
        }),
        (json!([{"field": "age", "op": "gt", "value": 30}]), |row| {
            age(row) > 30
        }),
        (json!([{"field": "age", "op": "gte", "value": 30}]), |row| {
            age(row) >= 30
        }),
        (
            json!([{"field": "age", "op": "in", "value": [20, 30, 40]}]),
            |row| age(row) % 10 == 0 && age(row) < 50,
        ),
        (
            json!([{"field": "age", "op": "between", "value": [30, 40]}]),
            |row| (30..=40).contains(&age(row)),
        ),
        (
            json!([{"field": "name", "op": "like", "value": "A%"}]),
            |row| text(row, "name").starts_with('A'),
        ),
        (
            json!([{"field": "name", "op": "like", "value": "a%"}]),
            |_| false,
        ),
        (
            json!([{"field": "name", "op": "ilike", "value": "aDA %"}]),
            |row| text(row, "name").starts_with("Ada "),
        ),
        (
            json!([{"field": "name", "op": "gt", "value": "Z"}]),
            |row| text(row, "name") > "Z",
        ),
        (
            json!([{"field": "active", "op": "eq", "value": false}]),
            |row| row["active"] == false,
        ),
        (
            json!([{"field": "email", "op": "is_null", "value": true}]),
            |_| false,
        ),
        (
            json!([{"field": "created_at", "op": "lt", "value": "2024-03-01T01:00:00+01:00"}]),
            |row| text(row, "created_at") < "2024-03-01",
        ),
        (
            json!([
                {"field": "active", "op": "eq", "value": true},
                {"or": [
                    {"field": "age", "op": "lt", "value": 20},
                    {"and": [
                        {"field": "age", "op": "gt", "value": 70},
                        {"field": "name", "op": "like", "value": "%Turing"},
                    ]},
                ]},
            ]),
            |row| {
                row["active"] == true
                    && (age(row) < 20 || (age(row) > 70 && text(row, "name").ends_with("Turing")))
            },
        ),
    ];
    for (conditions, predicate) in cases {
        let expected: Vec<_> = all.iter().filter(|row| predicate(row)).cloned().collect();
        let body = json!({"conditions": conditions, "limit": 1_000});
        assert_eq!(
            rows(&demo.post("/users/filter", &body).await),
            expected,
            "{body}"
        );
        let page = ok(&demo.post("/users/filter-paginated", &body).await);
        assert_eq!(page["total"], json!(expected.len()), "{body}");
        assert_eq!(page["items"], json!(expected), "{body}");
    }

    let undescribed =
        json!({"conditions": [{"field": "description", "op": "is_null", "value": true}]});
    let undescribed = rows(&demo.post("/products/filter", &undescribed).await);
    assert!(!undescribed.is_empty() && undescribed.iter().all(|row| row["description"].is_null()));

    // `%`, `_` and `\` are ordinary characters behind a `\`, and case is ignored in ASCII only, on
    // both.
    let odd = product(r"100% Ünder_score\");
    assert_eq!(demo.post("/products", &odd).await.status, 201);
    for (op, pattern, found) in [
        ("like", r"100\% %", 1),
        ("like", r"1000\%%", 0),
        ("like", r"%nder\_score\\", 1),
        ("like", r"%nderxscore%", 0),
        ("ilike", r"100\% ÜNDER%", 1),
        ("ilike", r"100\% ünder%", 0),
    ] {
        let body = json!({"conditions": [{"field": "name", "op": op, "value": pattern}]});
        assert_eq!(
            rows(&demo.post("/products/filter", &body).await).len(),
            found,
            "{body}"
        );
    }
}

pub(super) async fn pages_are_stable_and_add_up(demo: &Demo) {
    // Ages repeat a lot; the ids behind them decide.
    let body = |skip| json!({"order_by": [{"field": "age", "direction": "desc"}], "skip": skip, "limit": 300});
    let mut seen = Vec::new();
    for (number, skip) in [(1, 0), (2, 300), (3, 600), (4, 900)] {
        let page = ok(&demo.post("/users/filter-paginated", &body(skip)).await);
        let fields = ["total", "page", "pages", "skip", "limit", "has_next"]
            .map(|field| page[field].clone());
        assert_eq!(
            json!(fields),
            json!([1_000, number, 4, skip, 300, number < 4])
        );
        seen.extend(page["items"].as_array().expect("items").iter().cloned());
    }
    let mut expected = rows(&demo.get("/users?limit=1000").await);
    expected.sort_by_key(|row| (-row["age"].as_i64().expect("an age"), row["id"].as_i64()));
    assert_eq!(seen, expected);

    // NULLs come first going up and last going down, on both.
    for (direction, first_is_null) in [("asc", true), ("desc", false)] {
        let body =
            json!({"order_by": [{"field": "description", "direction": direction}], "limit": 1});
        let first = &rows(&demo.post("/products/filter", &body).await)[0];
        assert_eq!(first["description"].is_null(), first_is_null, "{direction}");
    }
    let empty = json!({"conditions": [{"field": "age", "op": "gt", "value": 200}]});
    let empty = ok(&demo.post("/users/filter-paginated", &empty).await);
    assert_eq!(
        (&empty["total"], &empty["pages"], &empty["has_next"]),
        (&json!(0), &json!(0), &json!(false))
    );
}

pub(super) async fn bodies_that_mean_the_same_share_an_entry(demo: &Demo) {
    let first = json!({
        "conditions": [
            {"field": "age", "op": "in", "value": [30, 20, 20]},
            {"field": "active", "op": "eq", "value": true},
        ],
    });
    let second = json!({
        "skip": 0, "limit": 100, "order_by": [{"field": "id", "direction": "asc"}],
        "conditions": [{"and": [
            {"field": "active", "op": "eq", "value": true},
            {"or": [{"field": "age", "op": "eq", "value": 20.0}, {"field": "age", "op": "eq", "value": 30}]},
        ]}],
    });
    for path in ["/users/filter", "/users/filter-paginated"] {
        let (one, other) = (
            demo.post(path, &first).await,
            demo.post(path, &second).await,
        );
        assert_eq!(one.cache_status().key, other.cache_status().key);
        assert!(hit(&other) && ok(&one) == ok(&other), "{other:?}");
    }
    let different = json!({"conditions": first["conditions"], "limit": 99});
    assert!(!hit(&demo.post("/users/filter", &different).await));
}
