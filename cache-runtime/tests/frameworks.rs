//! The examples, over HTTP: each framework says what the cache did, and answers conditional
//! requests, in the same words.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::duplicate_mod,
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
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache_runtime::testing::{Fault, TestCache};
use cache_runtime::tower::CacheLayer;
use cache_runtime::{Cache, CacheConfig, RequestParts, cached, invalidates};

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
        "{method} {path} HTTP/1.1\r\nHost: LocalHost.:80\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
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
    // A layer that compresses the body need not change it.
    let strong = etag.strip_prefix("W/").expect("it is weak").to_owned();
    let marked = format!("{}-gzip\"", strong.trim_end_matches('"'));
    for known in [
        etag.clone(),
        strong,
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
            // It would be that of the `200` (RFC 9110, section 8.6), which is not empty.
            assert_eq!(answer.header("content-length"), None, "{method} {known}");
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

/// How often the functions have run: each load has a number of its own.
static LOADS: AtomicU32 = AtomicU32::new(0);

#[cached(resource = "orders")]
async fn newest(limit: u32) -> u32 {
    let _ = limit;
    LOADS.fetch_add(1, Ordering::SeqCst)
}

#[cached(resource = "parts", id = id)]
async fn part(id: u32) -> u32 {
    id
}

#[invalidates("orders")]
async fn change() {}

/// Many hits of one request.
async fn parts() {
    for _ in 0..100 {
        part(1).await;
    }
}

/// A write that fails, which may have committed all the same.
const FAILED: u16 = 409;

/// The tenant that an outer layer has found out, else the one that the header names.
fn tenant(request: &RequestParts<'_>) -> Option<String> {
    assert_eq!(request.host().as_deref(), Some("localhost"));
    match request.path() {
        "/none" => None,
        _ => request.header("x-tenant").map(str::to_owned),
    }
}

fn tenants() -> TestCache {
    TestCache::with(CacheConfig::default().resource("orders").context("tenant"))
}

async fn checks_of_tenants(at: SocketAddr) {
    let get = async |path: &str, tenant: &str| {
        let header = match tenant {
            "" => String::new(),
            tenant => format!("X-Tenant: {tenant}\r\n"),
        };
        let answer = send(at, "GET", path, &header, "").await;
        let status = answer.header("cache-status").map(str::to_owned);
        (answer.body, status.expect("it was cached"))
    };
    let (seven, status) = get("/newest", "7").await;
    assert!(status.contains("orders:@7@newest:"), "{status}");
    let (eight, status) = get("/newest", "8").await;
    assert!(status.contains("fwd=miss; stored"), "{status}");
    assert_ne!(seven, eight);
    let (again, status) = get("/newest", "7").await;
    assert!(status.contains("; hit;"), "{status}");
    assert_eq!(again, seven);
    for (path, tenant) in [("/newest", ""), ("/none", "7")] {
        let (other, status) = get(path, tenant).await;
        assert!(status.contains("detail=no-context"), "{status}");
        assert!(other != seven && other != eight);
    }

    let failed = send(at, "GET", "/fail", "X-Tenant: 7\r\n", "").await;
    assert_eq!(failed.status, FAILED);
    assert_eq!(failed.header("cache-invalidation"), Some("delivered"));

    let many = send(at, "GET", "/parts", "", "").await;
    let lines: Vec<_> = many
        .headers
        .iter()
        .filter(|(name, _)| name == "cache-status")
        .collect();
    assert_eq!(lines.len(), 17);
    assert_eq!(lines[16].1, "cache-runtime; detail=\"84 more\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_takes_a_tenant_from_the_request() {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;

    let cache = tenants();
    let layer = CacheLayer::new()
        .cache(Cache::clone(&cache))
        .with_key("tenant", tenant);
    let app = Router::new()
        .route("/newest", get(async || newest(1).await.to_string()))
        .route("/none", get(async || newest(1).await.to_string()))
        .route("/parts", get(parts))
        .route(
            "/fail",
            get(async || {
                change().await;
                StatusCode::from_u16(FAILED).expect("a status")
            }),
        )
        .layer(layer);
    let listener = tokio::net::TcpListener::from_std(port()).expect("a listener");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    checks_of_tenants(at).await;
}

/// What is set around a service counts as well, and where its future runs.
#[tokio::test]
async fn a_layer_adds_its_values_to_those_around_it() {
    use axum::body::Body;
    use axum::http::Request;
    use axum::routing::{Router, get};
    use tower_layer::Layer as _;
    use tower_service::Service as _;

    let cache = tenants();
    let layer = CacheLayer::new()
        .cache(Cache::clone(&cache))
        .with_key("locale", |_: &RequestParts<'_>| Some("de"));
    let app = Router::new().route("/newest", get(async || newest(1).await.to_string()));
    let mut service = layer.layer(app);
    for status in ["fwd=miss", "hit"] {
        let request = Request::get("/newest")
            .body(Body::empty())
            .expect("a request");
        let answer = cache.with_key("tenant", 7, service.call(request)).await;
        let answer = answer.expect("answered");
        let told = answer.headers()["cache-status"]
            .to_str()
            .expect("text")
            .to_owned();
        assert!(told.contains(status), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actix_takes_a_tenant_from_the_request() {
    use actix_web::{App, HttpResponse, HttpServer, web};
    use cache_runtime::actix::CacheMiddleware;

    async fn list() -> String {
        newest(1).await.to_string()
    }
    async fn all() -> HttpResponse {
        parts().await;
        HttpResponse::Ok().finish()
    }
    async fn fail() -> Result<String, actix_web::Error> {
        change().await;
        Err(actix_web::error::ErrorConflict("failed"))
    }

    let cache = Cache::clone(&tenants());
    let listener = port();
    let at = listener.local_addr().expect("an address");
    let serve = async move {
        let app = move || {
            let middleware = CacheMiddleware::new()
                .cache(cache.clone())
                .with_key("tenant", tenant);
            App::new()
                .wrap(middleware)
                .route("/newest", web::get().to(list))
                .route("/none", web::get().to(list))
                .route("/parts", web::get().to(all))
                .route("/fail", web::get().to(fail))
        };
        let server = HttpServer::new(app).workers(1).disable_signals();
        server.listen(listener).expect("it listens").run().await
    };
    std::thread::spawn(move || actix_web::rt::System::new().block_on(serve));
    checks_of_tenants(at).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poem_takes_a_tenant_from_the_request() {
    use cache_runtime::poem::CacheMiddleware;
    use poem::listener::TcpAcceptor;
    use poem::{EndpointExt, Route, Server, get, handler};

    #[handler]
    async fn list() -> String {
        newest(1).await.to_string()
    }
    #[handler]
    async fn all() {
        parts().await;
    }
    #[handler]
    async fn fail() -> poem::Result<String> {
        change().await;
        let conflict = std::io::Error::other("failed");
        Err(poem::error::Conflict(conflict))
    }

    let cache = tenants();
    let middleware = CacheMiddleware::new()
        .cache(Cache::clone(&cache))
        .with_key("tenant", tenant);
    let app = Route::new()
        .at("/newest", get(list))
        .at("/none", get(list))
        .at("/parts", get(all))
        .at("/fail", get(fail))
        .with(middleware);
    let listener = port();
    let at = listener.local_addr().expect("an address");
    let acceptor = TcpAcceptor::from_std(listener).expect("a listener");
    tokio::spawn(async move { Server::new_with_acceptor(acceptor).run(app).await });
    checks_of_tenants(at).await;
}

/// What a handler says to the layers around it.
#[derive(Debug, Clone, PartialEq)]
struct Said(u32);

/// A `304` keeps what layers around this one look at, such as the pattern of the path, by which
/// metrics count a response.
#[tokio::test]
async fn axum_keeps_what_the_layers_around_it_look_at() {
    use axum::body::Body;
    use axum::http::Request;
    use axum::response::{AppendHeaders, IntoResponse as _};
    use axum::routing::{Router, get};
    use tower_service::Service as _;

    let one = async || {
        let headers = [
            ("etag", "\"a\""),
            ("vary", "accept"),
            ("vary", "cookie"),
            ("content-type", "text/plain"),
            ("content-language", "de"),
        ];
        let mut response = (AppendHeaders(headers), "text").into_response();
        response.extensions_mut().insert(Said(7));
        response
    };
    let mut app = Router::new()
        .route("/one", get(one))
        .layer(CacheLayer::new());
    let request = Request::get("/one").header("if-none-match", "\"a\"");
    let answer = app.call(request.body(Body::empty()).expect("a request"));
    let answer = answer.await.expect("answered");
    assert_eq!(answer.status(), 304);
    assert_eq!(answer.extensions().get(), Some(&Said(7)));
    let headers = answer.headers();
    let vary: Vec<_> = headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["accept", "cookie"]);
    for name in ["content-type", "content-language"] {
        assert!(!headers.contains_key(name), "{name}");
    }
}

#[test]
fn actix_keeps_what_the_layers_around_it_look_at() {
    use actix_web::{App, HttpResponse, test, web};
    use cache_runtime::actix::CacheMiddleware;

    async fn one() -> HttpResponse {
        let mut response = HttpResponse::Ok()
            .append_header(("etag", "\"a\""))
            .append_header(("vary", "accept"))
            .append_header(("vary", "cookie"))
            .append_header(("content-type", "text/plain"))
            .body("text");
        response.extensions_mut().insert(Said(7));
        response
    }
    actix_web::rt::System::new().block_on(async {
        let app = App::new()
            .wrap(CacheMiddleware::new())
            .route("/one", web::get().to(one));
        let app = test::init_service(app).await;
        let request = test::TestRequest::get().uri("/one");
        let request = request.insert_header(("if-none-match", "\"a\""));
        let answer = test::call_service(&app, request.to_request()).await;
        assert_eq!(answer.status(), 304);
        assert_eq!(answer.response().extensions().get(), Some(&Said(7)));
        let vary: Vec<_> = answer.headers().get_all("vary").collect();
        assert_eq!(vary, ["accept", "cookie"]);
        assert!(!answer.headers().contains_key("content-type"));
        assert!(test::read_body(answer).await.is_empty());
    });
}

/// Such as a limit on time, or a check of the answer.
#[test]
fn actix_writes_its_headers_to_the_errors_of_inner_middleware() {
    use actix_web::body::MessageBody;
    use actix_web::dev::{ServiceRequest, ServiceResponse};
    use actix_web::middleware::{Next, from_fn};
    use actix_web::{App, Error, test, web};
    use cache_runtime::actix::CacheMiddleware;

    async fn refuse(
        request: ServiceRequest,
        next: Next<impl MessageBody>,
    ) -> Result<ServiceResponse<impl MessageBody>, Error> {
        let answer = next.call(request).await?;
        match answer.status().is_success() {
            true => Err(actix_web::error::ErrorGatewayTimeout("too late")),
            false => Ok(answer),
        }
    }
    async fn write() -> String {
        change().await;
        newest(2).await.to_string()
    }
    async fn nothing() -> &'static str {
        ""
    }
    actix_web::rt::System::new().block_on(async {
        let middleware = CacheMiddleware::new().cache(Cache::clone(&TestCache::new()));
        let app = App::new()
            .wrap(from_fn(refuse))
            .wrap(middleware)
            .route("/write", web::get().to(write))
            .route("/nothing", web::get().to(nothing));
        let app = test::init_service(app).await;
        let call = async |uri: &str| {
            let request = test::TestRequest::get().uri(uri).to_request();
            match test::try_call_service(&app, request).await {
                Ok(_) => panic!("it was refused"),
                Err(error) => error,
            }
        };
        let error = call("/write").await;
        assert_eq!(error.to_string(), "too late");
        let answer = error.error_response();
        assert_eq!(answer.status(), 504);
        let header = |name| answer.headers().get(name).map(|it| it.to_str().unwrap());
        assert_eq!(header("cache-invalidation"), Some("delivered"));
        let status = header("cache-status").expect("a cached call");
        assert!(status.contains("orders:newest"), "{status}");
        let body = actix_web::body::to_bytes(answer.into_body()).await.unwrap();
        assert_eq!(&body[..], b"too late");

        // Without a header to write, it stays what it was.
        let error = call("/nothing").await;
        let answer = error.error_response();
        assert_eq!(
            (answer.status().as_u16(), error.to_string()),
            (504, "too late".to_owned())
        );
        assert!(!answer.headers().contains_key("cache-status"));
    });
}

#[tokio::test]
async fn poem_keeps_what_the_layers_around_it_look_at() {
    use cache_runtime::poem::{CacheMiddleware, NotModified};
    use poem::{Endpoint as _, EndpointExt as _, PathPattern, Route, get, handler};

    #[handler]
    fn one() -> poem::Response {
        let mut response = poem::Response::builder()
            .header("etag", "\"a\"")
            .header("vary", "accept")
            .header("vary", "cookie")
            .header("content-type", "text/plain")
            .body("text");
        response.set_data(Said(7));
        response
    }
    #[handler]
    async fn fail() -> poem::Result<String> {
        change().await;
        Err(poem::error::Conflict(std::io::Error::other("it failed")))
    }

    let cache = tenants();
    let routes = || {
        Route::new()
            .at("/one/:id", get(one))
            .at("/fail/:id", get(fail))
    };
    let middleware = CacheMiddleware::new().cache(Cache::clone(&cache));
    let request = |path: &'static str| {
        let request = poem::Request::builder().uri(path.parse().expect("a path"));
        request.header("if-none-match", "\"a\"").finish()
    };
    let whole = routes().with(middleware);
    for mut answer in [
        whole.call(request("/one/1")).await.expect("answered"),
        routes()
            .with(NotModified)
            .call(request("/one/1"))
            .await
            .expect("answered"),
    ] {
        assert_eq!(answer.status(), 304);
        assert_eq!(answer.data(), Some(&Said(7)));
        let pattern = answer.data().map(|PathPattern(it)| &**it);
        assert_eq!(pattern, Some("/one/:id"));
        let vary: Vec<_> = answer.headers().get_all("vary").iter().collect();
        assert_eq!(vary, ["accept", "cookie"]);
        assert!(!answer.headers().contains_key("content-type"));
        let body = answer.take_body().into_vec().await.expect("read");
        assert!(body.is_empty());
    }

    let error = whole.call(request("/fail/1")).await.expect_err("it failed");
    assert_eq!(
        (error.status().as_u16(), error.to_string()),
        (FAILED, "it failed".to_owned())
    );
    let pattern = error.data().map(|PathPattern(it)| &**it);
    assert_eq!(pattern, Some("/fail/:id"));
    let answer = error.into_response();
    assert_eq!(answer.header("cache-invalidation"), Some("delivered"));
    let pattern = answer.data().map(|PathPattern(it)| &**it);
    assert_eq!(pattern, Some("/fail/:id"));
}

/// A middleware between two layers, which writes and reads.
async fn between() {
    change().await;
    newest(2).await;
}

async fn write() -> String {
    change().await;
    newest(1).await.to_string()
}

/// With a layer around a layer, each response says once what became of the request: the inner layer
/// says it of the handler, and the outer one of what is between them.
#[tokio::test]
async fn axum_says_once_what_nested_layers_see() {
    use axum::body::Body;
    use axum::http::Request;
    use axum::middleware::{Next, from_fn};
    use axum::routing::{Router, get};
    use tower_service::Service as _;

    let around = async |request: Request<Body>, next: Next| {
        between().await;
        next.run(request).await
    };
    let cache: &TestCache = Box::leak(Box::new(TestCache::new()));
    let outer = CacheLayer::new().cache(Cache::clone(cache));
    // What an inner layer is told not to show, the outer one does not show either.
    for (inner, hidden) in [(CacheLayer::new(), 0), (CacheLayer::new().status(false), 1)] {
        let routes = || {
            let routes = Router::new().route("/write", get(write));
            routes.layer(inner.clone())
        };
        let plain = routes().layer(outer.clone());
        let both = routes().layer(from_fn(around)).layer(outer.clone());
        for (mut app, calls) in [(plain, 1), (both, 2)] {
            let request = Request::get("/write").body(Body::empty());
            let answer = app.call(request.expect("a request"));
            let answer = answer.await.expect("answered");
            let all = |name| answer.headers().get_all(name).iter().collect::<Vec<_>>();
            assert_eq!(all("cache-invalidation"), ["delivered"]);
            assert_eq!(all("cache-status").len(), calls - hidden, "{inner:?}");
        }
    }

    // The outer one's own writes may have become something worse.
    let away = async |request: Request<Body>, next: Next| {
        let answer = next.run(request).await;
        cache.fail(Fault::Away);
        between().await;
        answer
    };
    let layer = CacheLayer::new();
    let routes = Router::new().route("/write", get(write)).layer(layer);
    let mut app = routes.layer(from_fn(away)).layer(outer);
    let request = Request::get("/write").body(Body::empty());
    let answer = app.call(request.expect("a request"));
    let answer = answer.await.expect("answered");
    let all = answer.headers().get_all("cache-invalidation");
    assert_eq!(all.iter().collect::<Vec<_>>(), ["pending"]);
}

#[test]
fn actix_says_once_what_nested_layers_see() {
    use actix_web::body::MessageBody;
    use actix_web::dev::{ServiceRequest, ServiceResponse};
    use actix_web::middleware::{Next, from_fn};
    use actix_web::{App, Error, test, web};
    use cache_runtime::actix::CacheMiddleware;

    async fn around(
        request: ServiceRequest,
        next: Next<impl MessageBody>,
    ) -> Result<ServiceResponse<impl MessageBody>, Error> {
        between().await;
        next.call(request).await
    }
    actix_web::rt::System::new().block_on(async {
        let outer = CacheMiddleware::new().cache(Cache::clone(&TestCache::new()));
        let quiet = CacheMiddleware::new().status(false);
        for (inner, shown) in [(CacheMiddleware::new(), 2), (quiet, 1)] {
            let app = App::new()
                .wrap(inner.clone())
                .wrap(from_fn(around))
                .wrap(outer.clone())
                .route("/write", web::get().to(write));
            let app = test::init_service(app).await;
            let request = test::TestRequest::get().uri("/write").to_request();
            let answer = test::call_service(&app, request).await;
            let all = |name| answer.headers().get_all(name).collect::<Vec<_>>();
            assert_eq!(all("cache-invalidation"), ["delivered"]);
            assert_eq!(all("cache-status").len(), shown, "{inner:?}");
        }
    });
}

#[tokio::test]
async fn poem_says_once_what_nested_layers_see() {
    use cache_runtime::poem::CacheMiddleware;
    use poem::{Endpoint as _, EndpointExt as _, Route, get, handler};

    #[handler]
    async fn written() -> String {
        write().await
    }
    #[handler]
    async fn refused() -> poem::Result<String> {
        write().await;
        Err(poem::error::Conflict(std::io::Error::other("it failed")))
    }
    let outer = CacheMiddleware::new().cache(Cache::clone(&TestCache::new()));
    let quiet = CacheMiddleware::new().status(false);
    for (inner, shown) in [(CacheMiddleware::new(), 2), (quiet, 1)] {
        let routes = Route::new()
            .at("/write", get(written))
            .at("/fail", get(refused));
        let app = routes
            .with(inner.clone())
            .around(async |endpoint, request| {
                between().await;
                endpoint.call(request).await
            })
            .with(outer.clone());
        for path in ["/write", "/fail"] {
            let request = poem::Request::builder().uri(path.parse().expect("a path"));
            let answer = app.get_response(request.finish()).await;
            let all = |name| answer.headers().get_all(name).iter().collect::<Vec<_>>();
            assert_eq!(all("cache-invalidation"), ["delivered"], "{path}");
            assert_eq!(all("cache-status").len(), shown, "{path} {inner:?}");
        }
    }
}
