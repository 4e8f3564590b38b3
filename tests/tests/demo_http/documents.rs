//! The OpenAPI document, and the state of the service.

use cache_tests::Demo;
use serde_json::json;

use super::{ok, refused};

/// What is checked at random by `scripts/test --all`, in examples.
pub(super) async fn the_documentation_says_what_is_taken(demo: &Demo) {
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

pub(super) async fn documentation_and_health(demo: &Demo) {
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
