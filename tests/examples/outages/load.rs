//! Requests at a steady rate, whatever becomes of those before.

use std::time::{Duration, Instant};

use cache_tests::Demo;
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// Rows that are read and written.
const ROWS: usize = 200;
/// Requests in a second.
pub(crate) const RATE: u32 = 200;
/// Of a hundred requests, so many are writes of a row, and so many reads of a list; the others read
/// a row.
pub(crate) const WRITES: u32 = 3;
pub(crate) const LISTS: u32 = 10;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// When it was due, since the start.
    pub(crate) at: Duration,
    /// From then to the last byte of the answer: a request that had to queue has waited, too.
    pub(crate) took: Duration,
    /// `None` for a write.
    pub(crate) is_hit: Option<bool>,
    /// What was wrong with the answer.
    pub(crate) error: Option<String>,
}

/// The rows as they are at the start, by which answers are known to be right.
pub(crate) async fn rows(demo: &Demo) -> Vec<Value> {
    let mut rows = Vec::with_capacity(ROWS);
    for id in 1..=ROWS {
        rows.push(demo.get(&format!("/products/{id}")).await.json());
    }
    rows
}

/// Sends requests until `lasts` has passed since `start`, and returns when all are answered.
pub(crate) async fn run(
    demo: &Demo,
    rows: &[Value],
    start: Instant,
    lasts: Duration,
) -> Vec<Sample> {
    let mut under_way = Vec::new();
    let step = Duration::from_secs(1) / RATE;
    let mut at = Duration::ZERO;
    while at < lasts {
        tokio::time::sleep_until((start + at).into()).await;
        let request = Request::any(rows);
        let (client, url) = (demo.client().clone(), demo.url(&request.path));
        under_way.push(tokio::spawn(async move {
            let answered = request.send(&client, &url).await;
            let took = start.elapsed().saturating_sub(at);
            let (is_hit, error) = match answered {
                Ok(is_hit) => (is_hit, None),
                Err(error) => (
                    None,
                    Some(format!("{} {}: {error}", request.method, request.path)),
                ),
            };
            Sample {
                at,
                took,
                is_hit,
                error,
            }
        }));
        at += step;
    }
    let mut samples = Vec::with_capacity(under_way.len());
    for request in under_way {
        samples.push(request.await.expect("no request panics"));
    }
    samples
}

struct Request {
    method: Method,
    path: String,
    body: Option<Value>,
    /// The `id` of the answer, or of the first row of a list.
    expected: Value,
}

impl Request {
    fn any(rows: &[Value]) -> Self {
        let row = &rows[fastrand::usize(..rows.len())];
        let id = row["id"].clone();
        let (method, path, body) = match fastrand::u32(..100) {
            lot if lot < WRITES => {
                let mut body = row.clone();
                body["stock"] = json!(fastrand::u32(..1000));
                (Method::PUT, format!("/products/{id}"), Some(body))
            }
            lot if lot < WRITES + LISTS => {
                let page = fastrand::usize(..5);
                let expected = rows[page * 10]["id"].clone();
                let path = format!("/products?skip={}&limit=10", page * 10);
                return Self {
                    method: Method::GET,
                    path,
                    body: None,
                    expected,
                };
            }
            _ => (Method::GET, format!("/products/{id}"), None),
        };
        Self {
            method,
            path,
            body,
            expected: id,
        }
    }

    /// Whether it was a hit.
    async fn send(&self, client: &Client, url: &str) -> Result<Option<bool>, String> {
        let mut request = client.request(self.method.clone(), url);
        if let Some(body) = &self.body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let cache = answer
            .headers()
            .get("cache-status")
            .and_then(|value| value.to_str().ok());
        let is_hit = cache.map(|cache| cache.contains("; hit"));
        let body: Value = answer
            .json()
            .await
            .map_err(|error| format!("{status}, {error}"))?;
        let first = body.get(0).unwrap_or(&body);
        match status.is_success() && first["id"] == self.expected {
            true => Ok(is_hit.filter(|_| self.method == Method::GET)),
            false => Err(format!("{status} {body}")),
        }
    }
}
