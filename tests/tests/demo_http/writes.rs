//! Writes, and the reads that follow them.

use cache_tests::{Answer, Demo};
use serde_json::json;

use super::{hit, ids, ok, product, refused, rows, user};

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

pub(super) async fn a_write_is_seen_by_every_read_that_follows(demo: &Demo) {
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

    let written = demo.put("/users/3", &user("amara@example.com")).await;
    ok(&written);
    assert_eq!(written.headers["cache-invalidation"], "delivered");
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

pub(super) async fn a_product_write_leaves_other_products_cached(demo: &Demo) {
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

pub(super) async fn a_purchase_writes_both_or_neither(demo: &Demo) {
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

pub(super) async fn the_cache_forgets_on_request(demo: &Demo) {
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
