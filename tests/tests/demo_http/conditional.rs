//! Requests of clients that name what they have.

use cache_tests::Demo;
use reqwest::Method;
use serde_json::json;

/// Asks for a list again, with these lines of `If-None-Match`.
async fn ask_again(demo: &Demo, method: Method, lines: &[&str]) -> reqwest::Response {
    let request = demo.client().request(method, demo.url("/users?limit=5"));
    let request = lines.iter().fold(request, |request, line| {
        request.header("if-none-match", *line)
    });
    request.send().await.expect("answered")
}

pub(super) async fn a_list_that_the_client_has_is_not_sent_again(demo: &Demo) {
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

pub(super) async fn a_client_names_what_it_has_as_rfc_9110_lets_it(demo: &Demo) {
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
