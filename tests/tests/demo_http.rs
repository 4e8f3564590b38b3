//! The demo API over HTTP: the same requests get the same answers whichever database is below.

use cache_tests::{Answer, Demo, Postgres};
use reqwest::Method;
use serde_json::{Value, json};

/// Each test once per database, each with a process and a database of its own.
macro_rules! on_each_database {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&cache_tests::Demo::start([])).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&super::on_postgres()).await;
            })*
        }
    };
}

on_each_database! {
    the_first_start_fills_the_tables
    a_user_is_created_read_replaced_and_removed
    a_product_is_created_read_replaced_and_removed
    an_email_is_unique_whatever_its_case
    absence_is_cached_until_somebody_appears
    many_rows_are_read_with_those_that_are_cached_left_out
    every_operator_filters
    pages_are_stable_and_add_up
    a_write_is_seen_by_every_read_that_follows
    a_product_write_leaves_other_products_cached
    bodies_that_mean_the_same_share_an_entry
    a_purchase_writes_both_or_neither
    a_list_that_the_client_has_is_not_sent_again
    a_client_names_what_it_has_as_rfc_9110_lets_it
    the_cache_forgets_on_request
    bad_input_is_a_4xx_that_names_the_field
    nothing_is_a_plain_text_error
    a_refused_method_comes_with_those_there_are
    the_documentation_says_what_is_taken
    documentation_and_health
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

async fn the_first_start_fills_the_tables(demo: &Demo) {
    let users = rows(&demo.get("/users?limit=1000").await);
    let products = rows(&demo.get("/products?limit=1000").await);
    assert_eq!((users.len(), products.len()), (1_000, 200));
    assert_eq!(ids(&users), (1..=1_000).collect::<Vec<_>>());
    assert_eq!(
        users[0],
        json!({
            "id": 1, "name": "Ada Lovelace", "email": "ada.lovelace@example.com",
            "age": 21, "active": true, "created_at": "2024-01-01T16:43:00Z",
        }),
        "the same rows everywhere and each time"
    );
    assert_eq!(
        rows(&demo.get("/users").await).len(),
        100,
        "the default limit"
    );
    assert_eq!(ids(&rows(&demo.get("/users?skip=5&limit=2").await)), [6, 7]);
    assert!(rows(&demo.get("/users?skip=1000").await).is_empty());
}

async fn a_user_is_created_read_replaced_and_removed(demo: &Demo) {
    let created = demo.post("/users", &user("rosa@example.com")).await;
    assert_eq!(created.status, 201, "{created:?}");
    let created = created.json();
    let path = format!("/users/{}", created["id"]);
    assert_eq!(created["name"], "Rosa Test");
    assert!(
        created["created_at"]
            .as_str()
            .is_some_and(|at| at.ends_with('Z')),
        "{created}"
    );
    assert_eq!(
        ok(&demo.get(&path).await),
        created,
        "what was answered is what is stored"
    );

    let change =
        json!({"name": "Rosa Tést", "email": "rosa@example.org", "age": 0, "active": false});
    let replaced = ok(&demo.put(&path, &change).await);
    assert_eq!(replaced["created_at"], created["created_at"]);
    for (field, value) in change.as_object().expect("an object") {
        assert_eq!(&replaced[field], value);
    }
    assert_eq!(ok(&demo.get(&path).await), replaced);
    // What was read may be sent back: `id` and `created_at` are ignored.
    assert_eq!(ok(&demo.put(&path, &replaced).await), replaced);

    let removed = demo.delete(&path).await;
    assert_eq!((removed.status, removed.body.as_str()), (204, ""));
    refused(&demo.get(&path).await, 404, None);
    refused(&demo.delete(&path).await, 404, None);
    refused(&demo.put(&path, &change).await, 404, None);
    let next = demo.post("/users", &user("rosa@example.com")).await.json();
    assert_ne!(next["id"], created["id"], "an id is never given out again");
}

async fn a_product_is_created_read_replaced_and_removed(demo: &Demo) {
    let created = demo.post("/products", &product("Test Bench")).await;
    assert_eq!(created.status, 201, "{created:?}");
    let created = created.json();
    assert_eq!(
        (&created["price"], &created["description"]),
        (&json!(12.5), &Value::Null)
    );
    let path = format!("/products/{}", created["id"]);
    assert_eq!(ok(&demo.get(&path).await), created);

    let mut change = product("Test Bench");
    change["description"] = json!("Sturdy.");
    change["price"] = json!(0.1);
    let replaced = ok(&demo.put(&path, &change).await);
    assert_eq!(
        (&replaced["price"], &replaced["description"]),
        (&json!(0.1), &json!("Sturdy."))
    );
    assert_eq!(ok(&demo.get(&path).await), replaced);
    assert_eq!(demo.delete(&path).await.status, 204);
    refused(&demo.get(&path).await, 404, None);
}

async fn an_email_is_unique_whatever_its_case(demo: &Demo) {
    refused(
        &demo.post("/users", &user("ADA.Lovelace@example.com")).await,
        409,
        Some("email"),
    );
    refused(
        &demo
            .put("/users/2", &user("ada.lovelace@example.com"))
            .await,
        409,
        Some("email"),
    );
    // Its own address is no conflict.
    assert_eq!(
        demo.put("/users/1", &user("ada.lovelace@example.com"))
            .await
            .status,
        200
    );
}

async fn absence_is_cached_until_somebody_appears(demo: &Demo) {
    // PostgreSQL spends an id on a row that is refused, SQLite does not.
    for path in ["/users/1001", "/users/1002"] {
        refused(&demo.get(path).await, 404, None);
        let again = demo.get(path).await;
        refused(&again, 404, None);
        assert!(hit(&again), "{again:?}");
    }
    refused(
        &demo.post("/users", &user("ada.lovelace@example.com")).await,
        409,
        Some("email"),
    );
    assert!(
        hit(&demo.get("/users/1001").await),
        "a refused write says nothing new"
    );

    let created = demo.post("/users", &user("rosa@example.com")).await.json();
    let answer = demo.get(&format!("/users/{}", created["id"])).await;
    assert!(!hit(&answer) && ok(&answer) == created, "{answer:?}");
}

async fn many_rows_are_read_with_those_that_are_cached_left_out(demo: &Demo) {
    let read = async |path: &str| demo.get(path).await;
    assert!(!hit(&read("/users/2").await));

    let many = read("/users?ids=3,2,999999,1").await;
    assert_eq!(ids(&rows(&many)), [3, 2, 1]);
    assert!(!hit(&many), "three of them were not cached");

    // All four are: also that there is no 999999, and each for whoever reads it alone.
    let again = read("/users?ids=1,2,3,999999").await;
    assert_eq!(ids(&rows(&again)), [1, 2, 3]);
    assert!(hit(&again));
    assert!(hit(&read("/users/3").await));
    assert!(hit(&read("/users/999999").await));

    // A write to one of them leaves none behind.
    let renamed = demo.put("/users/2", &user("many@example.com")).await;
    assert_eq!(renamed.status, 200, "{renamed:?}");
    let rows = rows(&read("/users?ids=1,2").await);
    assert_eq!(rows[1]["email"], "many@example.com");

    for (query, field) in [("ids=", "ids"), ("ids=1,x", "ids"), ("ids=1,,2", "ids")] {
        refused(&read(&format!("/users?{query}")).await, 400, Some(field));
    }
    let too_many: Vec<String> = (1..=101).map(|id| id.to_string()).collect();
    let query = format!("/users?ids={}", too_many.join(","));
    refused(&read(&query).await, 400, Some("ids"));
}

async fn every_operator_filters(demo: &Demo) {
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

    // `%`, `_` and `\` are ordinary characters behind a `\`, and case is ignored in ASCII only, on both.
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

async fn pages_are_stable_and_add_up(demo: &Demo) {
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

/// Every cached read of users and what it answers now.
async fn every_read(demo: &Demo) -> Vec<Answer> {
    let filter = json!({"order_by": [{"field": "id", "direction": "desc"}], "limit": 2});
    vec![
        demo.get("/users/3").await,
        demo.get("/users?skip=0&limit=5").await,
        demo.post("/users/filter", &filter).await,
        demo.post("/users/filter-paginated", &filter).await,
    ]
}

async fn a_write_is_seen_by_every_read_that_follows(demo: &Demo) {
    for answer in every_read(demo).await {
        ok(&answer);
        let status = answer.cache_status();
        assert_eq!(
            (status.fwd.as_deref(), status.stored),
            (Some("miss"), true),
            "{answer:?}"
        );
    }
    let before = every_read(demo).await;
    for (answer, key) in before.iter().zip([
        "users:3",
        "users:list:",
        "users:filter:",
        "users:filter:paginated:",
    ]) {
        let status = answer.cache_status();
        assert!(
            status.hit && status.ttl.is_some_and(|ttl| (1..=300).contains(&ttl)),
            "{answer:?}"
        );
        assert!(
            status.key.is_some_and(|found| found.starts_with(key)),
            "{answer:?}"
        );
    }

    ok(&demo.put("/users/3", &user("amara@example.com")).await);
    let after = every_read(demo).await;
    assert!(
        after.iter().all(|answer| !hit(answer)),
        "users forget everything at every write"
    );
    assert_eq!(ok(&after[0])["email"], "amara@example.com");
    assert_eq!(rows(&after[1])[2]["email"], "amara@example.com");

    let id = demo.post("/users", &user("new@example.com")).await.json()["id"].clone();
    assert_eq!(rows(&every_read(demo).await[2])[0]["id"], id);
    assert_eq!(demo.delete(&format!("/users/{id}")).await.status, 204);
    let page = ok(&every_read(demo).await[3]);
    assert_eq!(
        (&page["total"], &page["items"][0]["id"]),
        (&json!(1_000), &json!(1_000))
    );
}

async fn a_product_write_leaves_other_products_cached(demo: &Demo) {
    for path in ["/products/1", "/products/2", "/products?limit=5"] {
        demo.get(path).await;
        assert!(hit(&demo.get(path).await), "{path}");
    }
    ok(&demo.put("/products/1", &product("Changed")).await);
    assert!(hit(&demo.get("/products/2").await), "another row stays");
    let (row, list) = (
        demo.get("/products/1").await,
        demo.get("/products?limit=5").await,
    );
    assert!(!hit(&row) && !hit(&list));
    assert_eq!(
        (&ok(&row)["name"], &rows(&list)[0]["name"]),
        (&json!("Changed"), &json!("Changed"))
    );

    assert!(hit(&demo.get("/products?limit=5").await));
    assert_eq!(demo.delete("/products/1").await.status, 204);
    assert!(hit(&demo.get("/products/2").await));
    refused(&demo.get("/products/1").await, 404, None);
    assert_eq!(ids(&rows(&demo.get("/products?limit=5").await))[0], 2);
}

async fn bodies_that_mean_the_same_share_an_entry(demo: &Demo) {
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

/// Asks for a list again, with these lines of `If-None-Match`.
async fn ask_again(demo: &Demo, method: Method, lines: &[&str]) -> reqwest::Response {
    let request = demo.client().request(method, demo.url("/users?limit=5"));
    let request = lines.iter().fold(request, |request, line| {
        request.header("if-none-match", *line)
    });
    request.send().await.expect("answered")
}

async fn a_list_that_the_client_has_is_not_sent_again(demo: &Demo) {
    let list = demo.get("/users?limit=5").await;
    let etag = list.headers["etag"].to_str().expect("text").to_owned();
    assert_eq!(list.headers["cache-control"], "no-cache");
    for method in [Method::GET, Method::HEAD] {
        let known = ask_again(demo, method, &[&etag]).await;
        assert_eq!(known.status(), 304);
        for name in ["etag", "cache-control"] {
            assert_eq!(known.headers()[name], list.headers[name], "{known:?}");
        }
        assert!(known.headers().contains_key("cache-status"), "{known:?}");
        for name in ["content-type", "content-length"] {
            assert!(!known.headers().contains_key(name), "{known:?}");
        }
        assert_eq!(known.text().await.expect("read"), "");
    }

    // Another body has another tag, with and without a cache in between.
    let user = json!({"name": "Tag", "email": "tag@example.com", "age": 30, "active": true});
    let first = list.json()[0]["id"].clone();
    let changed = demo.put(&format!("/users/{first}"), &user).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let new = ask_again(demo, Method::GET, &[&etag]).await;
    assert_eq!(new.status(), 200);
    assert_ne!(new.headers()["etag"], list.headers["etag"]);
}

async fn a_client_names_what_it_has_as_rfc_9110_lets_it(demo: &Demo) {
    let list = demo.get("/users?limit=5").await;
    let etag = list.headers["etag"].to_str().expect("text").to_owned();
    let strong = etag.strip_prefix("W/").expect("it is weak");
    let among = format!("\"a,b\", W/\"c\" , {etag}");
    for known in [&[strong][..], &[&among], &["\"other\"", &etag], &["*"]] {
        let answer = ask_again(demo, Method::GET, known).await;
        assert_eq!(answer.status(), 304, "{known:?}");
    }
    let unquoted = strong.trim_matches('"');
    for unknown in ["\"other\"", "W/\"other\"", unquoted, "\"*\"", ""] {
        let answer = ask_again(demo, Method::GET, &[unknown]).await;
        assert_eq!(answer.status(), 200, "{unknown:?}");
        assert_eq!(answer.text().await.expect("read"), list.body);
    }
    // Without a condition, and where the answer is none that could be known.
    let head = ask_again(demo, Method::HEAD, &[]).await;
    assert_eq!(
        (head.status().as_u16(), &head.headers()["etag"]),
        (200, &list.headers["etag"])
    );
    let refused = demo.client().get(demo.url("/users?limit=0"));
    let refused = refused
        .header("if-none-match", "*")
        .send()
        .await
        .expect("answered");
    assert_eq!(refused.status(), 400);
    // What is sent to be looked at is no read that a client could have.
    let filter = demo
        .client()
        .post(demo.url("/users/filter"))
        .json(&json!({"limit": 5}));
    let filter = filter
        .header("if-none-match", "*")
        .send()
        .await
        .expect("answered");
    assert_eq!(filter.status(), 200);
}

async fn a_purchase_writes_both_or_neither(demo: &Demo) {
    let created = demo
        .post(
            "/users",
            &json!({"name": "Eve", "email": "eve@example.com", "age": 30, "active": false}),
        )
        .await;
    let user = created.json()["id"].as_i64().expect("an id");
    let mut desk = product("Desk");
    desk["stock"] = json!(5);
    let product = demo.post("/products", &desk).await.json()["id"]
        .as_i64()
        .expect("an id");
    let (user_path, product_path) = (format!("/users/{user}"), format!("/products/{product}"));
    let read = async || {
        let (user, product) = (demo.get(&user_path).await, demo.get(&product_path).await);
        let cached = hit(&user) && hit(&product);
        (
            (ok(&user)["active"].clone(), ok(&product)["stock"].clone()),
            cached,
        )
    };
    read().await;
    assert_eq!(read().await, ((json!(false), json!(5)), true));

    let buy = async |user: i64, product: i64, quantity: i64| {
        let purchase = json!({"user_id": user, "product_id": product, "quantity": quantity});
        demo.post("/purchases", &purchase).await
    };
    // Rolled back: nothing is written, and nothing invalidated.
    refused(&buy(user, product, 6).await, 400, Some("quantity"));
    refused(&buy(user, 999_999, 1).await, 404, None);
    refused(&buy(999_999, product, 1).await, 404, None);
    assert_eq!(read().await, ((json!(false), json!(5)), true));

    assert_eq!(buy(user, product, 2).await.status, 204);
    assert_eq!(read().await, ((json!(true), json!(3)), false));
    assert_eq!(read().await, ((json!(true), json!(3)), true));
}

async fn the_cache_forgets_on_request(demo: &Demo) {
    let cached = async || {
        let (user, product) = (demo.get("/users/1").await, demo.get("/products/1").await);
        (hit(&user), hit(&product))
    };
    cached().await;
    assert_eq!(cached().await, (true, true));
    assert_eq!(demo.delete("/cache/users").await.status, 204);
    assert_eq!(cached().await, (false, true));
    assert_eq!(demo.delete("/cache").await.status, 204);
    assert_eq!(cached().await, (false, false));
    refused(&demo.delete("/cache/passwords").await, 404, None);
    // Behind a proxy every client comes from this machine.
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.9"),
        ("host", "other.example"),
    ] {
        let request = demo.client().delete(demo.url("/cache")).header(name, value);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 403, "{name}");
    }

    let stats = ok(&demo.get("/cache/stats").await);
    assert_eq!(stats["enabled"], true);
    assert!(stats["hits"].as_u64() >= Some(3), "{stats}");
}

async fn bad_input_is_a_4xx_that_names_the_field(demo: &Demo) {
    for (path, field) in [
        ("/users?limit=-1", "limit"),
        ("/users?limit=0", "limit"),
        ("/users?limit=1001", "limit"),
        ("/users?limit=99999999999999999999", "limit"),
        ("/users?limit=ten", "limit"),
        ("/users?skip=-1", "skip"),
        ("/users?skip=4294967296", "skip"),
        ("/users?skip=%ff", "skip"),
        ("/users/9223372036854775808", "id"),
        ("/users/-9223372036854775809", "id"),
        ("/users/one", "id"),
        ("/users/1.5", "id"),
        ("/users/1%00", "id"),
    ] {
        refused(&demo.get(path).await, 400, Some(field));
    }
    refused(&demo.get("/users/9223372036854775807").await, 404, None);
    refused(&demo.get("/users/-1").await, 404, None);

    for (change, field) in [
        (json!({"name": ""}), "name"),
        (json!({"name": " \t"}), "name"),
        (json!({"name": "x".repeat(101)}), "name"),
        (json!({"name": "a\u{0}b"}), "name"),
        (json!({"name": 1}), "name"),
        (json!({"name": null}), "name"),
        (json!({"email": "nobody"}), "email"),
        (json!({"email": "a@b@c.de"}), "email"),
        (json!({"age": -1}), "age"),
        (json!({"age": 151}), "age"),
        (json!({"age": 1.5}), "age"),
        (json!({"age": "41"}), "age"),
        (json!({"age": 1e300}), "age"),
        (json!({"active": "yes"}), "active"),
        (json!({"admin": true}), "admin"),
    ] {
        let mut body = user("rosa@example.com");
        body.as_object_mut()
            .expect("an object")
            .extend(change.as_object().expect("an object").clone());
        refused(&demo.post("/users", &body).await, 400, Some(field));
        refused(&demo.put("/users/1", &body).await, 400, Some(field));
    }
    for (change, field) in [
        (json!(-0.01), "price"),
        (json!(1e7), "price"),
        (json!("1"), "price"),
        (json!(-1), "stock"),
    ] {
        let mut body = product("Bad");
        body[field] = change;
        refused(&demo.post("/products", &body).await, 400, Some(field));
    }

    for (body, field) in [
        (json!([]), "body"),
        (json!("x"), "body"),
        (json!({"limit": 1_001}), "limit"),
        (json!({"limit": -1}), "limit"),
        (json!({"skip": -1}), "skip"),
        (json!({"filters": []}), "filters"),
        (
            json!({"conditions": [{"field": "password", "op": "eq", "value": 1}]}),
            "conditions[0].field",
        ),
        (
            json!({"conditions": [{"field": "1=1; --", "op": "eq", "value": 1}]}),
            "conditions[0].field",
        ),
        (
            json!({"conditions": [{"field": "age", "op": "~", "value": 1}]}),
            "conditions[0].op",
        ),
        (
            json!({"conditions": [{"field": "age", "op": "eq", "value": "1"}]}),
            "conditions[0].value",
        ),
        (
            json!({"conditions": [{"field": "id", "op": "eq", "value": u64::MAX}]}),
            "conditions[0].value",
        ),
        (
            json!({"conditions": [{"field": "name", "op": "eq", "value": "\u{0}"}]}),
            "conditions[0].value",
        ),
        (
            json!({"conditions": [{"field": "name", "op": "like", "value": "a\\"}]}),
            "conditions[0].value",
        ),
        (
            json!({"conditions": [{"field": "age", "op": "between", "value": [1]}]}),
            "conditions[0].value",
        ),
        (
            json!({"conditions": [{"field": "age", "op": "is_null", "value": 1}]}),
            "conditions[0].value",
        ),
        (json!({"conditions": [{"or": []}]}), "conditions[0].or"),
        (
            json!({"order_by": [{"field": "name; DROP TABLE users"}]}),
            "order_by[0].field",
        ),
        (
            json!({"order_by": [{"field": "name", "direction": "sideways"}]}),
            "order_by[0].direction",
        ),
    ] {
        for path in ["/users/filter", "/users/filter-paginated"] {
            refused(&demo.post(path, &body).await, 400, Some(field));
        }
    }
    assert_eq!(
        rows(&demo.get("/users?limit=1000").await).len(),
        1_000,
        "nothing of this was written"
    );
}

async fn nothing_is_a_plain_text_error(demo: &Demo) {
    refused(&demo.get("/nowhere").await, 404, None);
    refused(&demo.get("/users/1/posts").await, 404, None);
    refused(
        &demo.send(Method::PATCH, "/users/1", Some(&json!({}))).await,
        405,
        None,
    );
    refused(&demo.get("/users/filter").await, 405, None);
    refused(&demo.post("/users/1", &json!({})).await, 405, None);

    let send = async |path: &str, content_type: Option<&str>, body: Vec<u8>| {
        let mut request = demo.client().post(demo.url(path)).body(body);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer {
            status,
            headers,
            body: response.text().await.expect("a text"),
        }
    };
    let json = Some("application/json");
    for path in ["/users", "/users/filter", "/users/filter-paginated"] {
        refused(
            &send(path, None, b"{}".to_vec()).await,
            415,
            Some("content-type"),
        );
        refused(
            &send(path, Some("text/plain"), b"{}".to_vec()).await,
            415,
            Some("content-type"),
        );
        refused(&send(path, json, Vec::new()).await, 400, Some("body"));
        refused(&send(path, json, b"{".to_vec()).await, 400, Some("body"));
        refused(
            &send(path, json, b"{\"name\": \"\xff\"}".to_vec()).await,
            400,
            Some("body"),
        );
        refused(
            &send(path, json, "[".repeat(100_000).into_bytes()).await,
            400,
            Some("body"),
        );
        refused(
            &send(path, json, vec![b' '; 10 << 20]).await,
            413,
            Some("body"),
        );
    }
    ok(&demo.get("/users/1").await);
}

async fn a_refused_method_comes_with_those_there_are(demo: &Demo) {
    for (path, allow) in [
        ("/", "GET, HEAD, OPTIONS"),
        ("/docs", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
        ("/users", "GET, HEAD, OPTIONS, POST"),
        ("/users/1", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("/products/filter", "OPTIONS, POST"),
        ("/cache", "DELETE, OPTIONS"),
        ("/cache/users", "DELETE, OPTIONS"),
    ] {
        let answer = demo.send(Method::PATCH, path, None).await;
        refused(&answer, 405, None);
        assert_eq!(answer.headers["allow"], allow, "{path}");

        let answer = demo.send(Method::OPTIONS, path, None).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{path}");
        assert_eq!(answer.headers["allow"], allow, "{path}");
    }
    refused(
        &demo.send(Method::OPTIONS, "/nowhere", None).await,
        404,
        None,
    );

    // HEAD is GET without the body, and refused where GET is.
    for (path, status) in [("/users/1", 200), ("/users/0", 404), ("/purchases", 405)] {
        let answer = demo.send(Method::HEAD, path, None).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, ""),
            "{path}"
        );
        assert!(answer.headers.contains_key("content-type"), "{answer:?}");
    }
}

/// What is checked at random by `scripts/test --all`, in examples.
async fn the_documentation_says_what_is_taken(demo: &Demo) {
    let document = ok(&demo.get("/openapi.json").await);
    let statuses = |path: &str, method: &str| {
        let responses = document["paths"][path][method]["responses"].as_object();
        let statuses = responses.unwrap_or_else(|| panic!("no {method} {path}"));
        statuses.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(statuses("/users", "get"), ["200", "304", "400", "500"]);
    assert_eq!(statuses("/users/{id}", "get"), ["200", "400", "404", "500"]);
    assert_eq!(
        statuses("/products/{id}", "put"),
        ["200", "400", "404", "408", "409", "413", "415", "500"]
    );
    assert_eq!(
        statuses("/cache/{resource}", "delete"),
        ["202", "204", "401", "403", "404"]
    );

    let schemas = &document["components"]["schemas"];
    let nullable = &schemas["Product"]["properties"]["description"]["nullable"];
    assert_eq!(nullable, &json!(true), "{}", schemas["Product"]);
    for input in ["UserInput", "ProductInput", "Purchase", "UserFilter"] {
        assert_eq!(schemas[input]["additionalProperties"], false, "{input}");
    }
    let security = &document["paths"]["/cache"]["delete"]["security"];
    assert_eq!(security.as_array().map(Vec::len), Some(2), "{security}");
    refused(&demo.get("/users?limt=5").await, 400, Some("limt"));
    refused(&demo.get("/users?ids=1&limit=0").await, 400, Some("limit"));
}

async fn documentation_and_health(demo: &Demo) {
    let docs = demo.get("/docs").await;
    assert_eq!(docs.status, 200);
    assert!(docs.body.contains("SwaggerUIBundle"));
    assert!(!docs.body.contains("src=\"http"), "the page works offline");
    assert!(
        docs.body.contains("UserFilterCondition"),
        "the page shows the whole document"
    );
    assert_eq!(
        demo.get("/").await.body,
        docs.body,
        "the bare address leads there"
    );
    let paths = ok(&demo.get("/openapi.json").await)["paths"].clone();
    for path in [
        "/users/{id}",
        "/users/filter-paginated",
        "/products",
        "/cache/stats",
        "/cache/{resource}",
        "/health",
    ] {
        assert!(paths.get(path).is_some(), "{path}");
    }
    let health = ok(&demo.get("/health").await);
    assert_eq!(
        (&health["status"], &health["database"]["available"]),
        (&json!("ok"), &json!(true))
    );
    assert_eq!(health["cache"]["available"], true);
}
