//! Rows are created, read, replaced and removed.

use cache_tests::Demo;
use serde_json::{Value, json};

use super::{hit, ids, ok, product, refused, rows, user};

pub(super) async fn the_first_start_fills_the_tables(demo: &Demo) {
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

pub(super) async fn a_user_is_created_read_replaced_and_removed(demo: &Demo) {
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

pub(super) async fn a_product_is_created_read_replaced_and_removed(demo: &Demo) {
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

pub(super) async fn an_email_is_unique_whatever_its_case(demo: &Demo) {
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

pub(super) async fn absence_is_cached_until_somebody_appears(demo: &Demo) {
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

pub(super) async fn many_rows_are_read_with_those_that_are_cached_left_out(demo: &Demo) {
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
