//! Requests that are refused.

use cache_tests::{Answer, Demo};
use reqwest::Method;
use serde_json::json;

use super::{ok, product, refused, rows, user};

pub(super) async fn bad_input_is_a_4xx_that_names_the_field(demo: &Demo) {
    for (path, field) in [
        ("/users?limit=-1", "limit"),
        ("/users?limit=0", "limit"),
        ("/users?limit=1001", "limit"),
        ("/users?limit=99999999999999999999", "limit"),
        ("/users?limit=ten", "limit"),
        ("/users?skip=-1", "skip"),
        ("/users?skip=4294967296", "skip"),
        ("/users?skip=%ff", "skip"),
        ("/users?limit=1&limit=2", "limit"),
        ("/users?ids=1&skip=0&ids=2", "ids"),
        ("/users?Limit=1", "Limit"),
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
        (
            json!({"conditions": [{"field": "created_at", "op": "gt", "value": "2024-01-01_00:00:00Z"}]}),
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

pub(super) async fn nothing_is_a_plain_text_error(demo: &Demo) {
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

pub(super) async fn a_refused_method_comes_with_those_there_are(demo: &Demo) {
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
