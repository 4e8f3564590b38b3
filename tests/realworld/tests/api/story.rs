//! One story through all routes. Every read is made twice, so that the second one may come from the
//! cache, and by both processes where there are two.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::backend::{Answer, Backend, Mode};

/// `CACHE_LOCAL_MAX_STALENESS` unless it is set.
const MAX_STALENESS: Duration = Duration::from_secs(1);

struct Person<'a> {
    backend: &'a Backend,
    token: Option<String>,
}

impl Person<'_> {
    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.backend
            .send(method, path, self.token.as_deref(), body)
            .await
    }

    /// Reads it until both processes have been asked twice; all say the same. With local entries
    /// the other process may serve for a moment what one has replaced.
    async fn get(&self, path: &str) -> Value {
        let began = Instant::now();
        loop {
            let is_late = !self.backend.is_spread() || began.elapsed() > MAX_STALENESS;
            let first = self.send(Method::GET, path, None).await;
            assert_eq!(first.status, 200, "{path}: {first:?}");
            let mut others = Vec::new();
            for _ in 0..3 {
                others.push(self.send(Method::GET, path, None).await);
            }
            if others.iter().all(|other| *other == first) {
                return first.body;
            }
            assert!(!is_late, "{path}: {first:?}, then {others:?}");
        }
    }

    async fn status(&self, method: Method, path: &str, body: Option<Value>) -> u16 {
        self.send(method, path, body).await.status.as_u16()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.send(Method::POST, path, Some(body)).await;
        assert!(answer.status.is_success(), "{path}: {answer:?}");
        answer.body
    }
}

async fn register<'a>(backend: &'a Backend, name: &str) -> Person<'a> {
    let mut person = Person {
        backend,
        token: None,
    };
    let user = json!({ "user": { "username": name, "email": format!("{name}@example.org"), "password": "secret" } });
    let body = person.post("/users", user).await;
    assert_eq!(body["user"]["username"], name);
    person.token = body["user"]["token"].as_str().map(str::to_owned);
    person
}

async fn in_mode(mode: Mode) {
    let backend = Backend::start(mode);
    let anonymous = Person {
        backend: &backend,
        token: None,
    };
    assert_eq!(anonymous.status(Method::GET, "/user", None).await, 401);
    assert_eq!(
        anonymous.status(Method::GET, "/profiles/ann", None).await,
        404
    );
    let ann = register(&backend, "ann").await;
    let ben = register(&backend, "ben").await;
    // An absence that was read before is over.
    assert_eq!(
        anonymous.get("/profiles/ann").await["profile"]["username"],
        "ann"
    );
    let taken = json!({ "user": { "username": "ann", "email": "x@example.org", "password": "x" } });
    assert_eq!(
        anonymous.status(Method::POST, "/users", Some(taken)).await,
        422
    );
    let login = json!({ "user": { "email": "ann@example.org", "password": "wrong" } });
    assert_eq!(
        anonymous
            .status(Method::POST, "/users/login", Some(login))
            .await,
        422
    );
    let login = json!({ "user": { "email": "ann@example.org", "password": "secret" } });
    assert_eq!(
        anonymous.post("/users/login", login).await["user"]["username"],
        "ann"
    );

    // Articles, in lists and alone.
    assert_eq!(anonymous.get("/articles").await["articlesCount"], 0);
    assert_eq!(anonymous.get("/tags").await, json!({ "tags": [] }));
    let draft = json!({ "article": { "title": "Bread, at home", "description": "How", "body": "Flour", "tagList": ["food", "bread"] } });
    let article = ann.post("/articles", draft.clone()).await;
    assert_eq!(article["article"]["slug"], "bread-at-home");
    assert_eq!(article["article"]["tagList"], json!(["bread", "food"]));
    assert_eq!(
        ann.status(Method::POST, "/articles", Some(draft)).await,
        422
    );
    assert_eq!(
        anonymous.get("/tags").await,
        json!({ "tags": ["bread", "food"] })
    );
    assert_eq!(anonymous.get("/articles").await["articlesCount"], 1);
    assert_eq!(
        anonymous.get("/articles?tag=bread").await["articlesCount"],
        1
    );
    assert_eq!(
        anonymous.get("/articles?tag=soup").await["articlesCount"],
        0
    );
    assert_eq!(
        anonymous.get("/articles?author=ann").await["articlesCount"],
        1
    );
    assert_eq!(
        anonymous.get("/articles?limit=1&offset=1").await["articles"],
        json!([])
    );
    let change = json!({ "article": { "body": "Flour and water" } });
    let path = "/articles/bread-at-home";
    assert_eq!(
        ben.status(Method::PUT, path, Some(change.clone())).await,
        403
    );
    assert_eq!(ann.status(Method::PUT, path, Some(change)).await, 200);
    assert_eq!(
        anonymous.get(path).await["article"]["body"],
        "Flour and water"
    );

    // Following somebody changes what the follower sees, and nobody else.
    assert_eq!(ben.get("/articles/feed").await["articlesCount"], 0);
    assert_eq!(ben.get(path).await["article"]["author"]["following"], false);
    assert_eq!(
        ben.post("/profiles/ann/follow", json!({})).await["profile"]["following"],
        true
    );
    assert_eq!(ben.get("/profiles/ann").await["profile"]["following"], true);
    assert_eq!(ben.get(path).await["article"]["author"]["following"], true);
    assert_eq!(
        ben.get("/articles").await["articles"][0]["author"]["following"],
        true
    );
    assert_eq!(ben.get("/articles/feed").await["articlesCount"], 1);
    assert_eq!(
        ann.get("/profiles/ann").await["profile"]["following"],
        false
    );
    assert_eq!(
        anonymous.get(path).await["article"]["author"]["following"],
        false
    );

    // A favourite changes the count for all.
    assert_eq!(
        anonymous.get("/articles?favorited=ben").await["articlesCount"],
        0
    );
    let favorite = format!("{path}/favorite");
    assert_eq!(
        ben.post(&favorite, json!({})).await["article"]["favorited"],
        true
    );
    assert_eq!(ann.get(path).await["article"]["favoritesCount"], 1);
    assert_eq!(ann.get(path).await["article"]["favorited"], false);
    assert_eq!(
        ben.get("/articles/feed").await["articles"][0]["favorited"],
        true
    );
    assert_eq!(
        anonymous.get("/articles?favorited=ben").await["articlesCount"],
        1
    );

    // Comments.
    let comments = format!("{path}/comments");
    assert_eq!(anonymous.get(&comments).await, json!({ "comments": [] }));
    let comment = ben
        .post(&comments, json!({ "comment": { "body": "Tasty" } }))
        .await;
    assert_eq!(
        anonymous.get(&comments).await["comments"][0]["body"],
        "Tasty"
    );
    let one = format!("{comments}/{}", comment["comment"]["id"]);
    assert_eq!(ann.status(Method::DELETE, &one, None).await, 403);

    // A new name shows wherever its bearer does.
    for list in ["/articles", "/articles?author=ann"] {
        let articles = anonymous.get(list).await;
        assert_eq!(articles["articles"][0]["author"]["username"], "ann");
    }
    let feed = ben.get("/articles/feed").await;
    assert_eq!(feed["articles"][0]["author"]["username"], "ann");
    let change = json!({ "user": { "username": "benjamin", "bio": "Bakes" } });
    assert_eq!(ben.status(Method::PUT, "/user", Some(change)).await, 200);
    assert_eq!(ben.get("/user").await["user"]["bio"], "Bakes");
    assert_eq!(
        anonymous.get(&comments).await["comments"][0]["author"]["username"],
        "benjamin"
    );
    assert_eq!(
        anonymous.get("/articles?favorited=ben").await["articlesCount"],
        0
    );
    assert_eq!(
        anonymous.get("/articles?favorited=benjamin").await["articlesCount"],
        1
    );
    assert_eq!(
        anonymous.status(Method::GET, "/profiles/ben", None).await,
        404
    );
    let change = json!({ "user": { "username": "anna" } });
    assert_eq!(ann.status(Method::PUT, "/user", Some(change)).await, 200);
    assert_eq!(
        anonymous.get(path).await["article"]["author"]["username"],
        "anna"
    );
    assert_eq!(
        ben.get("/articles/feed").await["articles"][0]["author"]["username"],
        "anna"
    );
    assert_eq!(
        anonymous.get("/articles").await["articles"][0]["author"]["username"],
        "anna"
    );

    // And the end of all of it.
    assert_eq!(ben.status(Method::DELETE, &one, None).await, 204);
    assert_eq!(anonymous.get(&comments).await, json!({ "comments": [] }));
    assert_eq!(ben.status(Method::DELETE, &favorite, None).await, 200);
    assert_eq!(ann.get(path).await["article"]["favoritesCount"], 0);
    assert_eq!(
        ben.status(Method::DELETE, "/profiles/anna/follow", None)
            .await,
        200
    );
    assert_eq!(ben.get("/articles/feed").await["articlesCount"], 0);
    assert_eq!(ben.status(Method::DELETE, path, None).await, 403);
    assert_eq!(ann.status(Method::DELETE, path, None).await, 204);
    assert_eq!(anonymous.status(Method::GET, path, None).await, 404);
    assert_eq!(anonymous.status(Method::GET, &comments, None).await, 404);
    assert_eq!(anonymous.get("/articles").await["articlesCount"], 0);
    assert_eq!(anonymous.get("/tags").await, json!({ "tags": [] }));
    match mode {
        Mode::Off => assert_eq!(backend.hits(), 0),
        _ => assert!(backend.hits() > 50, "{mode:?}: {} hits", backend.hits()),
    }
}

#[tokio::test]
async fn with_the_cache_off() {
    in_mode(Mode::Off).await;
}

#[tokio::test]
async fn in_memory() {
    in_mode(Mode::Memory).await;
}

#[tokio::test]
async fn over_redis() {
    in_mode(Mode::Redis).await;
}

#[tokio::test]
async fn with_both_tiers() {
    in_mode(Mode::Both).await;
}

#[tokio::test]
async fn spread_over_two_processes() {
    in_mode(Mode::TwoProcesses).await;
}
