//! What clients may take of the demo: time, connections, and the cache.

use std::time::Duration;

use cache_tests::{Answer, Demo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the demo may take for what it does after a second.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

async fn connect(demo: &Demo) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", demo.port())).await;
    stream.expect("the demo listens")
}

/// What comes until the server closes the connection.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(TEST_TIMEOUT, read).await;
    // A reset closes it too.
    let _length = read.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let demo = Demo::start([("CLIENT_TIMEOUT_SECS", "1")]);

    let mut silent = connect(&demo).await;
    assert_eq!(until_closed(&mut silent).await, "");

    let mut half = connect(&demo).await;
    let headers = b"GET /users/1 HTTP/1.1\r\nhost: here\r\n";
    half.write_all(headers).await.expect("written");
    assert_eq!(until_closed(&mut half).await, "");

    let mut idle = connect(&demo).await;
    let request = b"GET /users/1 HTTP/1.1\r\nhost: here\r\n\r\n";
    idle.write_all(request).await.expect("written");
    let answer = until_closed(&mut idle).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // The body has its own limit, however often a byte comes, and an answer that says so.
    let (mut reading, mut dripping) = connect(&demo).await.into_split();
    let headers = "POST /users HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n\
                   content-length: 1000\r\n\r\n{";
    dripping
        .write_all(headers.as_bytes())
        .await
        .expect("written");
    let drip = cache_tests::spawn(async move {
        while dripping.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut answer = Vec::new();
    let read = tokio::time::timeout(TEST_TIMEOUT, reading.read_to_end(&mut answer));
    let _length = read.await.expect("the connection is closed");
    drip.abort();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("application/json") && answer.contains("\"field\":\"body\""));

    // Nobody else was bothered.
    assert_eq!(demo.get("/users/1").await.status, 200);
}

#[tokio::test]
async fn running_out_of_files_costs_no_processor_time_and_passes() {
    let demo = Demo::start_with_files(64, [("CLIENT_TIMEOUT_SECS", "600")]);
    let mut connections = Vec::new();
    // More than it can have; the system takes those that the demo can't.
    for _ in 0..100 {
        connections.push(connect(&demo).await);
    }
    let told = "connections can't be accepted at the moment";
    let is_told = tokio::time::timeout(Duration::from_secs(30), async {
        while !demo.stderr().contains(told) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(is_told.await.is_ok(), "{:?}", demo.log());

    // Asking again at once would use a whole second of each, or what other programs leave of it.
    let before = demo.processor_time();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = demo.processor_time() - before;
    assert!(used < Duration::from_millis(150), "{used:?} in 2 s");
    assert!(demo.stderr().count(told) < 5, "{:?}", demo.log());

    drop(connections);
    assert_eq!(demo.get("/users/1").await.status, 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let demo = Demo::start([("MAX_CONNECTIONS", "2"), ("CLIENT_TIMEOUT_SECS", "600")]);
    let held = [connect(&demo).await, connect(&demo).await];
    // Their turn has come before that of the next, which is taken in order.
    let request = demo.client().get(demo.url("/health")).send();
    let mut request = std::pin::pin!(request);
    let waiting = tokio::time::timeout(Duration::from_millis(500), &mut request).await;
    assert!(waiting.is_err(), "a third was served: {waiting:?}");
    drop(held);
    assert_eq!(request.await.expect("answered").status(), 200);
}

async fn forget(demo: &Demo, path: &str, authorization: Option<&str>) -> Answer {
    let mut request = demo.client().delete(demo.url(path));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
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

#[tokio::test]
async fn other_machines_empty_the_cache_with_the_token_only() {
    let paths = ["/cache", "/cache/users", "/cache/nothing"];
    let open = Demo::start([("HOST", "0.0.0.0")]);
    open.stdout().wait_for("DELETE /cache is refused");
    open.stderr().wait_for("other machines may reach");
    for path in paths {
        let answer = forget(&open, path, Some("Bearer guess")).await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.json()["error"].is_string(), "{answer:?}");
    }
    assert_eq!(open.get("/cache/stats").await.status, 200);

    for host in ["0.0.0.0", "127.0.0.1"] {
        let demo = Demo::start([("HOST", host), ("CACHE_ADMIN_TOKEN", "s3cret")]);
        for path in paths {
            for wrong in [
                None,
                Some("Bearer guess"),
                Some("Bearer s3cret2"),
                Some("Basic s3cret"),
                Some("s3cret"),
            ] {
                let answer = forget(&demo, path, wrong).await;
                assert_eq!(answer.status, 401, "{host} {path} {wrong:?}");
                assert_eq!(answer.headers["www-authenticate"], "Bearer");
                assert_eq!(answer.json()["field"], "authorization");
            }
        }
        let right = Some("Bearer s3cret");
        assert_eq!(forget(&demo, "/cache", right).await.status, 204);
        assert_eq!(forget(&demo, "/cache/users", right).await.status, 204);
        assert_eq!(forget(&demo, "/cache/nothing", right).await.status, 404);
        assert!(!demo.log().join("\n").contains("s3cret"));
    }
}
