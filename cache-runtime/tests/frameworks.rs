//! The examples, over HTTP: each framework says what the cache did, and answers conditional requests, in the same words.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "each example is a program of its own, whose `main` does not run here"
)]

#[path = "../examples/actix.rs"]
mod actix_app;
#[path = "../examples/axum.rs"]
mod axum_app;
#[path = "../examples/poem.rs"]
mod poem_app;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use cache_runtime::Cache;
use cache_runtime::testing::{Fault, TestCache};
use cache_runtime::tower::CacheLayer;

/// A response: its status, its headers with names in lower case, its body.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let first = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "`{name}` is there twice");
        first
    }

    fn etag(&self) -> String {
        self.header("etag").expect("it has an ETag").to_owned()
    }
}

/// One request on a connection of its own.
async fn send(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    let answered = tokio::task::spawn_blocking(move || {
        let mut connection = TcpStream::connect(to).expect("it listens");
        let limit = Some(Duration::from_secs(20));
        connection.set_read_timeout(limit).expect("a limit");
        connection.write_all(request.as_bytes()).expect("sent");
        let mut text = String::new();
        connection.read_to_string(&mut text).expect("answered");
        text
    });
    let text = answered.await.expect("answered");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.and_then(|it| it.parse().ok()).expect("a status"),
        headers: headers
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
    }
}

async fn checks(at: SocketAddr, cache: &TestCache) {
    let get = async |headers: &str| send(at, "GET", "/notes", headers, "").await;
    let put = async |text: &str| send(at, "PUT", "/notes/1", "", text).await;

    let written = put("one").await;
    assert_eq!(written.status, 204);
    assert_eq!(written.header("cache-invalidation"), Some("delivered"));
    assert_eq!(written.header("cache-status"), None);

    let first = get("").await;
    assert_eq!(
        (first.status, first.body.as_str()),
        (200, r#"[{"id":1,"text":"one"}]"#)
    );
    assert_eq!(
        first.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    assert_eq!(first.header("cache-invalidation"), None);
    let status = first.header("cache-status").expect("it was cached");
    assert!(
        status.starts_with("cache-runtime; fwd=miss; stored; key=\"notes:list:"),
        "{status}"
    );

    let second = get("").await;
    assert_eq!(second.body, first.body);
    assert_eq!(second.etag(), first.etag());
    let status = second.header("cache-status").expect("it was cached");
    assert!(status.starts_with("cache-runtime; hit; ttl="), "{status}");

    let etag = first.etag();
    let marked = format!("{}-gzip\"", etag.trim_end_matches('"'));
    for known in [
        etag.clone(),
        format!("W/{etag}"),
        format!("\"other\", {etag}"),
        format!("\"other\"\r\nIf-None-Match: {etag}"),
        marked,
        "*".to_owned(),
    ] {
        let header = format!("If-None-Match: {known}\r\n");
        for method in ["GET", "HEAD"] {
            let answer = send(at, method, "/notes", &header, "").await;
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (304, ""),
                "{method} {known}"
            );
            assert_eq!(answer.etag(), etag);
            assert_eq!(answer.header("cache-control"), Some("no-cache"));
            assert_eq!(answer.header("content-type"), None);
            assert!(
                answer
                    .header("cache-status")
                    .is_some_and(|it| it.contains("; hit;"))
            );
        }
    }
    let head = send(at, "HEAD", "/notes", "", "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.etag(), etag);
    let other = get("If-None-Match: \"other\"\r\n").await;
    assert_eq!((other.status, other.body), (200, first.body));

    assert_eq!(put("two").await.status, 204);
    let changed = get(&format!("If-None-Match: {etag}\r\n")).await;
    assert_eq!(
        (changed.status, changed.body.as_str()),
        (200, r#"[{"id":1,"text":"two"}]"#)
    );
    assert_ne!(changed.etag(), etag);

    let one = send(at, "GET", "/notes/1", "", "").await;
    assert_eq!(
        (one.status, one.body.as_str()),
        (200, r#"{"id":1,"text":"two"}"#)
    );
    let absent = send(at, "GET", "/notes/2", "If-None-Match: *\r\n", "").await;
    assert_eq!(absent.status, 404);
    let status = absent.header("cache-status");
    assert!(
        status.is_some_and(|it| it.contains("notes:2")),
        "{status:?}"
    );

    cache.fail(Fault::Away);
    assert_eq!(
        put("three").await.header("cache-invalidation"),
        Some("pending")
    );
    let bypassed = get("").await;
    assert!(bypassed.body.contains("three"));
    let status = bypassed.header("cache-status");
    assert!(
        status.is_some_and(|it| it.contains("fwd=bypass")),
        "{status:?}"
    );
}

/// Two servers with a cache each: what one has is not the other's.
async fn apart(serve: impl AsyncFn(Cache) -> SocketAddr) {
    for _ in 0..2 {
        let cache = TestCache::new();
        let at = serve(cache.clone()).await;
        checks(at, &cache).await;
    }
}

fn port() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("not blocking");
    listener
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum() {
    apart(async |cache| {
        let listener = tokio::net::TcpListener::from_std(port()).expect("a listener");
        let at = listener.local_addr().expect("an address");
        let app = axum_app::app(CacheLayer::new().cache(cache));
        tokio::spawn(async move { axum::serve(listener, app).await });
        at
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actix() {
    use actix_web::{App, HttpServer};
    use cache_runtime::actix::CacheMiddleware;

    apart(async |cache| {
        let listener = port();
        let at = listener.local_addr().expect("an address");
        let notes = actix_app::notes::Notes::default();
        let serve = async move {
            let app = move || {
                App::new()
                    .wrap(CacheMiddleware::new().cache(cache.clone()))
                    .configure(actix_app::routes(notes.clone()))
            };
            let server = HttpServer::new(app).workers(2).disable_signals();
            server.listen(listener).expect("it listens").run().await
        };
        std::thread::spawn(move || actix_web::rt::System::new().block_on(serve));
        at
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poem() {
    use cache_runtime::poem::CacheMiddleware;
    use poem::Server;
    use poem::listener::TcpAcceptor;

    apart(async |cache| {
        let listener = port();
        let at = listener.local_addr().expect("an address");
        let acceptor = TcpAcceptor::from_std(listener).expect("a listener");
        let app = poem_app::app(CacheMiddleware::new().cache(cache));
        tokio::spawn(async move { Server::new_with_acceptor(acceptor).run(app).await });
        at
    })
    .await;
}
