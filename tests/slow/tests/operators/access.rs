//! The page of a running demo, for those without the right to change anything.

use cache_tests::{Answer, Demo};
use serde_json::json;

/// Names and values: of settings, or of headers.
type Pairs = &'static [(&'static str, &'static str)];

async fn send(demo: &Demo, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
    let client = demo.client();
    let mut request = match body {
        Some(body) => client
            .post(demo.url(path))
            .header("content-type", "application/json")
            .body(body.to_owned()),
        None => client.get(demo.url(path)),
    };
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.text().await.expect("a text");
    Answer {
        status,
        headers,
        body,
    }
}

/// An action without the right to it is refused, with the setting that gives the right.
#[tokio::test]
async fn actions_without_the_right_are_refused_and_say_what_is_needed() {
    const TOKEN: (&str, &str) = ("CACHE_ADMIN_TOKEN", "s3cret");
    let act = json!({"action": "switch", "target": "users", "enabled": false}).to_string();
    let elsewhere = ("x-forwarded-for", "203.0.113.9");
    let wrong = ("authorization", "Bearer guess");
    let cases: [(Pairs, &[Pairs]); 4] = [
        (
            &[],
            &[
                &[("x-forwarded-for", "203.0.113.9")],
                &[("host", "evil.example")],
            ],
        ),
        (
            &[TOKEN],
            &[
                &[],
                &[("authorization", "Bearer guess")],
                &[("authorization", "s3cret")],
            ],
        ),
        (
            &[("HOST", "0.0.0.0")],
            &[&[], &[("authorization", "Bearer guess")]],
        ),
        (
            &[("HOST", "0.0.0.0"), TOKEN],
            &[&[], &[("authorization", "Bearer guess")]],
        ),
    ];
    for (environment, requests) in cases {
        let demo = Demo::start(environment.iter().copied());
        for headers in requests {
            let refused = send(&demo, "/cache/ui/api/act", headers, Some(&act)).await;
            assert_eq!(
                refused.status, 403,
                "{environment:?} {headers:?}: {refused:?}"
            );
            let error = refused.json()["error"].to_string();
            assert!(error.contains("CACHE_ADMIN_TOKEN"), "{error}");
        }
        let state = send(&demo, "/cache/ui/api/state", &[], None).await.json();
        assert_eq!(state["switched_off"]["here"], json!([]), "{environment:?}");
        if environment.contains(&TOKEN) {
            let right = ("authorization", "Bearer s3cret");
            let done = send(&demo, "/cache/ui/api/act", &[right, elsewhere], Some(&act)).await;
            assert_eq!(done.status, 200, "{done:?}");
            let again = send(&demo, "/cache/ui/api/act", &[wrong], Some(&act)).await;
            assert_eq!(again.status, 403);
        }
    }
}

/// Another program may have the name, so it is done, and said.
#[tokio::test]
async fn a_resource_that_nothing_reads_is_invalidated_with_a_word_about_it() {
    let demo = Demo::start([]);
    for (resource, is_told) in [("users", false), ("usres", true)] {
        let act = json!({"action": "invalidate", "resource": resource}).to_string();
        let done = send(&demo, "/cache/ui/api/act", &[], Some(&act)).await;
        assert_eq!(done.status, 200);
        let said = done.json()["said"].to_string();
        let hint = "nothing here is called `usres`; `users` is";
        assert_eq!(said.contains(hint), is_told, "{said}");
    }
}

/// A page of another site, whose name was made to resolve to loopback, learns no key and no value:
/// neither where there is a token nor where there is none.
#[tokio::test]
async fn another_site_s_page_sees_figures_only() {
    let with_token: &[_] = &[("CACHE_ADMIN_TOKEN", "s3cret")];
    for environment in [&[][..], with_token] {
        let demo = Demo::start(environment.iter().copied());
        assert_eq!(demo.get("/users/1").await.status, 200);
        let evil = ("host", "evil.example");
        for path in ["/cache/ui/api/entry?key=users:1", "/cache/ui/api/doctor"] {
            let refused = send(&demo, path, &[evil], None).await;
            assert_eq!(refused.status, 403, "{environment:?} {path}: {refused:?}");
            let own = send(&demo, path, &[], None).await;
            assert_eq!(own.status, 200, "{environment:?} {path}");
        }
        let state = send(&demo, "/cache/ui/api/state", &[evil], None).await;
        assert_eq!(state.json()["token_helps"], !environment.is_empty());
        let events = send(&demo, "/cache/ui/api/events", &[evil], None).await;
        assert_eq!(events.json()["shown"], false);
        if !environment.is_empty() {
            let right = ("authorization", "Bearer s3cret");
            let path = "/cache/ui/api/entry?key=users:1";
            assert_eq!(send(&demo, path, &[evil, right], None).await.status, 200);
        }
    }
}
