//! The same random requests get the same answers in all modes.

use fastrand::Rng;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::backend::{Answer, Backend, Mode};

const PEOPLE: usize = 4;
const TITLES: [&str; 5] = ["Bread", "Soup", "Cake", "Tea", "Rice"];
const TAGS: [&str; 3] = ["food", "drink", "sweet"];

/// One request; who makes it is an index, since tokens differ.
#[derive(Clone, Debug)]
struct Request {
    method: Method,
    path: String,
    person: Option<usize>,
    body: Option<Value>,
}

fn variable(name: &str, usual: u64) -> u64 {
    let Ok(text) = std::env::var(name) else {
        return usual;
    };
    let number = text.parse();
    number.unwrap_or_else(|_| panic!("{name} is a number, not `{text}`"))
}

fn slug(rng: &mut Rng) -> String {
    rng.choice(TITLES).unwrap_or("Bread").to_lowercase()
}

/// People have one of two names, so that one may take what another had.
fn name(rng: &mut Rng) -> String {
    format!("p{}", rng.usize(..PEOPLE + 2))
}

fn request(rng: &mut Rng) -> Request {
    let someone = Some(rng.usize(..PEOPLE));
    let reader = if rng.bool() { someone } else { None };
    let read = |path: String| Request {
        method: Method::GET,
        path,
        person: reader,
        body: None,
    };
    let write = |method: Method, path: String, body: Option<Value>| Request {
        method,
        path,
        person: someone,
        body,
    };
    match rng.u32(..28) {
        0..3 => read(format!("/articles/{}", slug(rng))),
        3..5 => read("/articles".to_owned()),
        5 => read(format!(
            "/articles?tag={}",
            rng.choice(TAGS).unwrap_or_default()
        )),
        6 => read(format!("/articles?author={}", name(rng))),
        7 => read(format!("/articles?favorited={}&limit=2", name(rng))),
        8..10 => read("/articles/feed".to_owned()),
        10..12 => read(format!("/profiles/{}", name(rng))),
        12..14 => read(format!("/articles/{}/comments", slug(rng))),
        14 => read("/tags".to_owned()),
        15 => read("/user".to_owned()),
        16..18 => {
            let title = rng.choice(TITLES).unwrap_or_default();
            let tags = [rng.choice(TAGS).unwrap_or_default()];
            let article =
                json!({ "title": title, "description": "d", "body": rng.u8(..), "tagList": tags });
            let mut article = json!({ "article": article });
            article["article"]["body"] = json!(rng.u8(..).to_string());
            write(Method::POST, "/articles".to_owned(), Some(article))
        }
        18 => {
            let change = json!({ "article": { "body": rng.u8(..).to_string() } });
            write(
                Method::PUT,
                format!("/articles/{}", slug(rng)),
                Some(change),
            )
        }
        19 => {
            let change = json!({ "article": { "title": rng.choice(TITLES) } });
            write(
                Method::PUT,
                format!("/articles/{}", slug(rng)),
                Some(change),
            )
        }
        20 => write(Method::DELETE, format!("/articles/{}", slug(rng)), None),
        21 => write(
            Method::POST,
            format!("/articles/{}/favorite", slug(rng)),
            None,
        ),
        22 => write(
            Method::DELETE,
            format!("/articles/{}/favorite", slug(rng)),
            None,
        ),
        23 => write(
            Method::POST,
            format!("/profiles/{}/follow", name(rng)),
            None,
        ),
        24 => write(
            Method::DELETE,
            format!("/profiles/{}/follow", name(rng)),
            None,
        ),
        25 => {
            let comment = json!({ "comment": { "body": rng.u8(..).to_string() } });
            write(
                Method::POST,
                format!("/articles/{}/comments", slug(rng)),
                Some(comment),
            )
        }
        26 => {
            let path = format!("/articles/{}/comments/{}", slug(rng), rng.u32(1..30));
            write(Method::DELETE, path, None)
        }
        _ => {
            let change =
                json!({ "user": { "username": name(rng), "bio": rng.u8(..).to_string() } });
            write(Method::PUT, "/user".to_owned(), Some(change))
        }
    }
}

/// What differs between two databases though nothing is wrong.
fn without_times_and_tokens(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["createdAt", "updatedAt", "token"] {
                fields.remove(name);
            }
            fields.values_mut().for_each(without_times_and_tokens);
        }
        Value::Array(items) => items.iter_mut().for_each(without_times_and_tokens),
        _ => {}
    }
}

struct Subject {
    mode: Mode,
    backend: Backend,
    tokens: Vec<String>,
}

impl Subject {
    async fn start(mode: Mode) -> Self {
        let backend = Backend::start(mode);
        let mut tokens = Vec::new();
        for person in 0..PEOPLE {
            let user = json!({ "username": format!("p{person}"), "email": format!("{person}@example.org"), "password": "secret" });
            let body = Some(json!({ "user": user }));
            let answer = backend.send(Method::POST, "/users", None, body).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
            tokens.push(
                answer.body["user"]["token"]
                    .as_str()
                    .expect("a token")
                    .to_owned(),
            );
        }
        Self {
            mode,
            backend,
            tokens,
        }
    }

    async fn send(&self, request: Request) -> Answer {
        let token = request.person.map(|person| self.tokens[person].as_str());
        let Request {
            method, path, body, ..
        } = request;
        let mut answer = self.backend.send(method, &path, token, body).await;
        without_times_and_tokens(&mut answer.body);
        answer
    }
}

#[tokio::test]
async fn all_modes_answer_alike() {
    let mut subjects = Vec::new();
    for mode in Mode::ALL {
        subjects.push(Subject::start(mode).await);
    }
    let seed = variable("REALWORLD_SEED", 1);
    let mut rng = Rng::with_seed(seed);
    let requests = variable("REALWORLD_REQUESTS", 400);
    let mut succeeded = 0;
    for number in 0..requests {
        let request = request(&mut rng);
        let expected = subjects[0].send(request.clone()).await;
        succeeded += u64::from(expected.status.is_success());
        for subject in &subjects[1..] {
            let answer = subject.send(request.clone()).await;
            let mode = subject.mode;
            assert_eq!(
                answer, expected,
                "seed {seed}, request {number}, {mode:?}: {request:?}"
            );
        }
    }
    assert!(
        succeeded > requests / 3,
        "{succeeded} of {requests} succeeded"
    );
    for subject in &subjects[1..] {
        let hits = subject.backend.hits();
        assert!(hits > requests / 20, "{:?}: {hits} hits", subject.mode);
    }
}
