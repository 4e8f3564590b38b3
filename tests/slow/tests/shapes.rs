//! Annotated functions as other macros, other runtimes and other hands write them, compiled and run
//! on the in-process tier. What a plain `async fn` may look like is in `macros.rs`.

#[path = "../../tests/calls/mod.rs"]
mod calls;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cache_runtime::{Acknowledgement, Cache, Status, cached, invalidates};
use futures_util::future::{BoxFuture, FutureExt as _, LocalBoxFuture};
use poem::http::{Method, StatusCode};
use poem::web::{Data, Path};
use poem::{Endpoint, EndpointExt as _, Request, Route, handler};
use poem_openapi::{ApiResponse, OpenApi, OpenApiService};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;
use tracing::instrument;
use tracing_subscriber::registry::{LookupSpan as _, SpanRef};
use tracing_subscriber::util::SubscriberInitExt as _;

use calls::{cache, hit, miss, op_of, status};

/// Neither `Clone` nor `Sync`, and nothing turns into it.
#[derive(Debug, PartialEq)]
struct Opaque(Cell<u8>);

/// Not even `Send`.
#[derive(Debug, PartialEq)]
struct OfThisThread(Rc<str>);

/// What can't be in a key.
struct Pool;

/// Says at compile time that a future may be spawned.
fn sendable<F: Future + Send>(call: F) -> F {
    call
}

struct Service {
    cache: Cache,
    tenant: u8,
}

async fn service() -> Service {
    Service {
        cache: cache().await,
        tenant: 7,
    }
}

// Under `#[async_trait]`, which expands first.

#[async_trait]
trait Accounts {
    fn cache(&self) -> &Cache;

    async fn get(&self, id: i64) -> Result<Option<String>, Opaque>;
    async fn named<'a>(&'a self, name: &str, among: &'a [String], pool: &Pool) -> Vec<String>;
    async fn count(&mut self, by: u8) -> Result<u8, Opaque>;
    async fn repeated<T: Row, const N: usize>(&self, row: &T) -> Vec<T>
    where
        Self: Sized;
    async fn pair(&self, pair: (u8, u8), text: &mut String) -> u8;
    async fn taken(self: Arc<Self>, id: i64) -> Arc<u8>;
    async fn rename(&self, id: i64, name: String) -> Result<String, Opaque>;
    async fn create(&mut self, name: &str) -> Result<i64, Opaque>;

    #[cached(resource = "defaults", cache = self.cache())]
    async fn by_default(&self, id: i64) -> i64 {
        tokio::task::yield_now().await;
        id
    }

    #[invalidates("defaults", id = id, cache = self.cache())]
    async fn forget(&self, id: i64) {
        let _ = id;
    }
}

trait Row: Clone + Serialize + for<'de> Deserialize<'de> + Send + Sync + 'static {}
impl Row for String {}

#[async_trait]
impl Accounts for Service {
    fn cache(&self) -> &Cache {
        &self.cache
    }

    #[cached(resource = "accounts", cache = self.cache)]
    async fn get(&self, id: i64) -> Result<Option<String>, Opaque> {
        tokio::task::yield_now().await;
        if id < 0 {
            return Err(Opaque(Cell::new(1)));
        }
        let found = positive(id)?;
        Ok(found.map(|id| id.to_string()))
    }

    #[cached(resource = "accounts", cache = self.cache, skip(pool))]
    async fn named<'a>(&'a self, name: &str, among: &'a [String], pool: &Pool) -> Vec<String> {
        let Pool = pool;
        let like = |other: &&String| other.starts_with(name);
        among.iter().filter(like).cloned().collect()
    }

    #[cached(resource = "accounts", op = "count", cache = self.cache)]
    async fn count(&mut self, mut by: u8) -> Result<u8, Opaque> {
        by += 1;
        self.tenant += by;
        Ok(self.tenant)
    }

    #[cached(resource = "accounts", op = "repeated", cache = self.cache)]
    async fn repeated<T: Row, const N: usize>(&self, row: &T) -> Vec<T>
    where
        Self: Sized,
    {
        vec![row.clone(); N]
    }

    #[cached(resource = "accounts", op = "pair", cache = self.cache, skip(text))]
    async fn pair(&self, (a, b): (u8, u8), text: &mut String) -> u8 {
        text.push('x');
        a + b
    }

    #[cached(resource = "accounts", op = "taken", cache = self.cache)]
    async fn taken(self: Arc<Self>, id: i64) -> Arc<u8> {
        let _ = id;
        Arc::new(self.tenant)
    }

    #[invalidates("accounts", id = id, cache = self.cache)]
    async fn rename(&self, id: i64, name: String) -> Result<String, Opaque> {
        if id < 0 || name.is_empty() {
            Err(Opaque(Cell::new(2)))?;
        }
        Ok(name)
    }

    #[invalidates("accounts", id = result, cache = self.cache)]
    async fn create(&mut self, name: &str) -> Result<i64, Opaque> {
        self.tenant += 1;
        Ok(name.len() as i64)
    }
}

fn positive(id: i64) -> Result<Option<i64>, Opaque> {
    Ok((id > 0).then_some(id))
}

#[tokio::test]
async fn methods_under_async_trait_are_cached() {
    let mut service = service().await;
    let (key, found) = miss(sendable(service.get(1))).await;
    assert_eq!((&*key, found), ("accounts:1", Ok(Some("1".to_owned()))));
    assert_eq!(hit(service.get(1)).await.1, Ok(Some("1".to_owned())));
    assert_eq!(service.get(-1).await, Err(Opaque(Cell::new(1))));

    let among = ["ann".to_owned(), "bob".to_owned()];
    let (key, found) = miss(service.named("a", &among, &Pool)).await;
    assert_eq!((op_of(&key), found), ("accounts:named", vec!["ann".into()]));
    assert_eq!(hit(service.named("a", &among, &Pool)).await.1, ["ann"]);
    miss(service.named("a", &among[..1], &Pool)).await;

    assert_eq!(miss(sendable(service.count(1))).await.1, Ok(9));
    assert_eq!(hit(service.count(1)).await.1, Ok(9));
    assert_eq!(miss(service.count(2)).await.1, Ok(12));

    let row = "x".to_owned();
    let twice = miss(service.repeated::<String, 2>(&row)).await.1;
    assert_eq!(twice, ["x", "x"]);
    miss(service.repeated::<String, 1>(&row)).await;
    assert_eq!(hit(service.repeated::<String, 2>(&row)).await.1, twice);

    let mut text = String::new();
    assert_eq!(miss(service.pair((1, 2), &mut text)).await.1, 3);
    assert_eq!(hit(service.pair((1, 2), &mut text)).await.1, 3);
    assert_eq!(miss(service.pair((2, 1), &mut text)).await.1, 3);
    assert_eq!(text, "xx");

    let service = Arc::new(service);
    assert_eq!(miss(Arc::clone(&service).taken(1)).await.1, Arc::new(12));
    assert_eq!(hit(service.taken(1)).await.1, Arc::new(12));
}

#[tokio::test]
async fn methods_under_async_trait_invalidate() {
    let mut service = service().await;
    for id in [1, 2] {
        miss(service.get(id)).await.1.unwrap();
    }
    sendable(service.rename(1, "ann".into())).await.unwrap();
    miss(service.get(1)).await.1.unwrap();
    hit(service.get(2)).await.1.unwrap();

    assert_eq!(sendable(service.create("xx")).await, Ok(2));
    miss(service.get(2)).await.1.unwrap();
    hit(service.get(1)).await.1.unwrap();

    service.rename(1, String::new()).await.unwrap_err();
    miss(service.get(1)).await.1.unwrap();
}

#[tokio::test]
async fn default_methods_and_trait_objects_are_cached() {
    let service = service().await;
    assert_eq!(miss(sendable(service.by_default(1))).await.1, 1);
    hit(service.by_default(1)).await;
    service.forget(1).await;
    miss(service.by_default(1)).await;

    let named: Box<dyn Any> = Box::new(service);
    assert_eq!(miss(named.any(1)).await.1, "1");
    assert_eq!(hit(named.any(1)).await.1, "1");
}

#[async_trait]
trait Any {
    async fn any(&self, id: u8) -> String;
}

#[async_trait]
impl Any for Service {
    #[cached(resource = "anything", cache = self.cache)]
    async fn any(&self, id: u8) -> String {
        id.to_string()
    }
}

// Services that stay on their thread.

struct Local {
    cache: Rc<Cache>,
    reads: Rc<Cell<u8>>,
}

#[async_trait(?Send)]
trait Letters {
    async fn letter(&self, at: u8) -> Result<char, OfThisThread>;
    async fn renumber(&mut self, of: Rc<str>) -> Result<Rc<str>, OfThisThread>;
}

#[async_trait(?Send)]
impl Letters for Local {
    #[cached(resource = "letters", cache = *self.cache)]
    async fn letter(&self, at: u8) -> Result<char, OfThisThread> {
        let reads = Rc::clone(&self.reads);
        tokio::task::yield_now().await;
        reads.set(reads.get() + 1);
        let letter = char::from(b'a' + at);
        if letter.is_ascii_lowercase() {
            return Ok(letter);
        }
        Err(OfThisThread("no letter".into()))
    }

    #[invalidates("letters", cache = *self.cache, rejected = |e| e.0.is_empty())]
    async fn renumber(&mut self, of: Rc<str>) -> Result<Rc<str>, OfThisThread> {
        if of.is_empty() {
            return Err(OfThisThread(of));
        }
        Ok(of)
    }
}

impl Local {
    #[cached(resource = "letters", op = "native", cache = *self.cache, skip(seen))]
    async fn native(&self, at: u8, seen: Rc<Cell<u8>>) -> Result<char, OfThisThread> {
        tokio::task::yield_now().await;
        seen.set(seen.get() + 1);
        self.letter(at).await
    }
}

#[tokio::test]
async fn services_that_hold_an_rc_are_cached() {
    let mut service = Local {
        cache: Rc::new(cache().await),
        reads: Rc::default(),
    };
    let seen = Rc::new(Cell::new(0));
    let local = LocalSet::new();
    let task = {
        let seen = Rc::clone(&seen);
        local.spawn_local(async move {
            miss(service.letter(0)).await.1.unwrap();
            assert_eq!(hit(service.letter(0)).await.1, Ok('a'));
            service.letter(99).await.unwrap_err();
            miss(service.native(1, Rc::clone(&seen))).await.1.unwrap();
            hit(service.native(1, Rc::clone(&seen))).await.1.unwrap();

            service.renumber("".into()).await.unwrap_err();
            hit(service.letter(0)).await.1.unwrap();
            service.renumber("x".into()).await.unwrap();
            miss(service.letter(0)).await.1.unwrap();
            service.reads.get()
        })
    };
    assert_eq!(local.run_until(task).await.unwrap(), 4);
    assert_eq!(seen.get(), 1);
}

// Futures that are boxed or named by hand.

impl Service {
    #[cached(resource = "boxes", cache = self.cache)]
    fn boxed(&self, id: i64) -> Pin<Box<dyn Future<Output = Option<String>> + Send + '_>> {
        if id == 0 {
            return Box::pin(async { None });
        }
        let tenant = self.tenant;
        Box::pin(async move { Some(format!("{tenant} {id}")) })
    }

    #[cached(resource = "boxes", op = "aliased", cache = self.cache)]
    fn aliased<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<usize, Opaque>> {
        if text.is_empty() {
            return futures_util::future::err(Opaque(Cell::new(3))).boxed();
        }
        async move { Ok(text.len()) }.boxed()
    }

    #[cached(resource = "boxes", op = "local", cache = self.cache)]
    fn local(&self, n: u8) -> LocalBoxFuture<'_, u8> {
        let held = Rc::new(n);
        async move { *held + self.tenant }.boxed_local()
    }

    #[cached(resource = "boxes", op = "opaque", cache = self.cache)]
    fn opaque(&self, n: u8) -> impl Future<Output = u8> + Send {
        async move { n + self.tenant }
    }

    #[cached(resource = "boxes", op = "parsed", cache = self.cache)]
    fn parsed(&self, text: &str) -> impl Future<Output = Result<u8, Box<dyn Error>>> {
        let text = text.to_owned();
        async move { Ok(text.parse()?) }
    }

    #[invalidates("boxes", id = id, cache = self.cache)]
    fn unbox(&self, id: i64) -> BoxFuture<'_, Result<i64, Opaque>> {
        async move { Ok(id + i64::from(self.tenant)) }.boxed()
    }

    #[invalidates("boxes", cache = self.cache)]
    fn unbox_all(&self) -> impl Future<Output = ()> + Send + use<'_> {
        std::future::ready(())
    }
}

/// Needs no async runtime to be called: nothing of it runs before it is polled.
#[cached(resource = "numbers", cache = cache, skip(cache))]
fn of_its_own(cache: Cache, id: u64) -> impl Future<Output = u64> + Send + 'static {
    async move { id }
}

#[tokio::test]
async fn functions_that_return_futures_are_cached() {
    let service = service().await;
    let found = miss(sendable(service.boxed(1))).await;
    assert_eq!(found, ("boxes:1".into(), Some("7 1".into())));
    hit(service.boxed(1)).await;
    assert_eq!(miss(service.boxed(0)).await.1, None);
    assert_eq!(hit(service.boxed(0)).await.1, None);

    miss(sendable(service.aliased("x"))).await.1.unwrap();
    assert_eq!(hit(service.aliased("x")).await.1, Ok(1));
    service.aliased("").await.unwrap_err();

    assert_eq!(miss(service.local(1)).await.1, 8);
    assert_eq!(hit(service.local(1)).await.1, 8);
    assert_eq!(miss(sendable(service.opaque(2))).await.1, 9);
    assert_eq!(hit(service.opaque(2)).await.1, 9);

    assert_eq!(miss(service.parsed("5")).await.1.unwrap(), 5);
    assert_eq!(hit(service.parsed("5")).await.1.unwrap(), 5);
    service.parsed("x").await.unwrap_err();

    let spawned = tokio::spawn(of_its_own(service.cache.clone(), 3));
    assert_eq!(spawned.await.unwrap(), 3);
    hit(of_its_own(service.cache.clone(), 3)).await;

    assert_eq!(sendable(service.unbox(1)).await, Ok(8));
    miss(service.boxed(1)).await;
    hit(service.boxed(0)).await;
    sendable(service.unbox_all()).await;
    miss(service.boxed(0)).await;
}

// Under and over other attributes.

mod pages {
    // A handler is a unit struct, whose name would be a pattern elsewhere.
    use super::*;

    #[handler]
    #[cached(resource = "pages", cache = cache, skip(cache))]
    pub(super) async fn page(
        Path(id): Path<i64>,
        Data(cache): Data<&Cache>,
    ) -> poem::Result<String> {
        if id == 0 {
            return Err(poem::error::NotFoundError.into());
        }
        Ok(format!("page {id}"))
    }

    #[cached(resource = "texts", cache = cache, skip(cache))]
    #[handler]
    pub(super) async fn text(Path(id): Path<i64>, Data(cache): Data<&Cache>) -> String {
        format!("text {id}")
    }

    #[handler]
    #[invalidates("pages", id = id, "texts", id = id, cache = cache)]
    pub(super) async fn rewrite(Path(id): Path<i64>, Data(cache): Data<&Cache>) -> String {
        id.to_string()
    }
}

#[tokio::test]
async fn handlers_are_cached_with_the_attribute_on_either_side() {
    let app = Route::new()
        .at("/pages/:id", poem::get(pages::page).post(pages::rewrite))
        .at("/texts/:id", poem::get(pages::text))
        .data(cache().await);
    let get = |path: &str| app.call(Request::builder().uri_str(path).finish());
    for (path, key) in [("/pages/1", "pages:1"), ("/texts/1", "texts:1")] {
        let (of, response) = miss(get(path)).await;
        let first = response.unwrap().into_body().into_string().await.unwrap();
        let (_, response) = hit(get(path)).await;
        let second = response.unwrap().into_body().into_string().await.unwrap();
        assert_eq!((&*of, first), (key, second));
    }
    get("/pages/0").await.unwrap_err();
    let post = Request::builder()
        .method(Method::POST)
        .uri_str("/pages/1")
        .finish();
    app.call(post).await.unwrap();
    for path in ["/pages/1", "/texts/1"] {
        miss(get(path)).await.1.unwrap();
    }
}

struct Api {
    cache: Cache,
}

#[derive(ApiResponse, Clone, Serialize, Deserialize)]
enum Seen {
    #[oai(status = 204)]
    Yes,
    #[oai(status = 404)]
    No,
}

#[OpenApi]
impl Api {
    /// Whether it is there.
    #[oai(path = "/seen/:id", method = "get")]
    #[cached(resource = "seen", cache = self.cache, id = id.0)]
    async fn seen(&self, id: poem_openapi::param::Path<i64>) -> Seen {
        if id.0 == 0 { Seen::No } else { Seen::Yes }
    }

    #[invalidates("seen", cache = self.cache, id = id.0)]
    #[oai(path = "/seen/:id", method = "delete")]
    async fn unseen(&self, id: poem_openapi::param::Path<i64>) -> poem::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn endpoints_of_an_api_are_cached() {
    let cache = cache().await;
    let app = Route::new().nest("/", OpenApiService::new(Api { cache }, "test", "1"));
    let ask = |method: Method, path: &str| {
        let request = Request::builder().method(method).uri_str(path).finish();
        app.get_response(request)
    };
    for (path, expected) in [
        ("/seen/1", StatusCode::NO_CONTENT),
        ("/seen/0", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(miss(ask(Method::GET, path)).await.1.status(), expected);
        assert_eq!(hit(ask(Method::GET, path)).await.1.status(), expected);
    }
    ask(Method::DELETE, "/seen/1").await;
    miss(ask(Method::GET, "/seen/1")).await;
    hit(ask(Method::GET, "/seen/0")).await;
}

// Spans.

impl Service {
    #[instrument(skip(self))]
    #[cached(resource = "spans", op = "above", cache = self.cache)]
    async fn span_above(&self, id: i64) -> Result<Option<String>, Opaque> {
        Ok(current_span())
    }

    #[cached(resource = "spans", op = "below", cache = self.cache)]
    #[instrument(skip(self), ret, err(Debug), fields(tenant = self.tenant))]
    async fn span_below(&self, id: i64) -> Result<Option<String>, Opaque> {
        Ok(current_span())
    }

    #[instrument(skip_all)]
    #[invalidates("spans", id = id, cache = self.cache)]
    async fn span_of_a_write(&self, id: i64) -> Option<String> {
        current_span()
    }
}

#[async_trait]
trait Spans {
    async fn above(&self, id: i64) -> Option<String>;
    async fn below(&self, id: i64) -> Option<String>;
}

#[async_trait]
impl Spans for Service {
    #[instrument(skip(self))]
    #[cached(resource = "boxed-spans", op = "above", cache = self.cache)]
    async fn above(&self, id: i64) -> Option<String> {
        let _ = id;
        current_span()
    }

    #[cached(resource = "boxed-spans", op = "below", cache = self.cache)]
    #[instrument(skip(self))]
    async fn below(&self, id: i64) -> Option<String> {
        let _ = id;
        current_span()
    }
}

/// The name of the application's own span around this call. The runtime's span of the load lies
/// between, if it is enabled: that depends on which thread met it first, since a callsite's
/// interest is kept for the whole process.
fn current_span() -> Option<String> {
    let id = tracing::Span::current().id()?;
    tracing::dispatcher::get_default(|dispatch| {
        let registry = dispatch.downcast_ref::<tracing_subscriber::Registry>()?;
        let own = |span: &SpanRef<'_, _>| span.metadata().target() == module_path!();
        let span = registry.span(&id)?.scope().find(own)?;
        Some(span.name().to_owned())
    })
}

#[tokio::test]
async fn functions_are_instrumented_on_either_side() {
    let _spans = tracing_subscriber::registry().set_default();
    let service = service().await;
    let above = Ok(Some("span_above".to_owned()));
    assert_eq!(miss(service.span_above(1)).await.1, above);
    assert_eq!(hit(service.span_above(1)).await.1, above);
    let below = Ok(Some("span_below".to_owned()));
    assert_eq!(miss(sendable(service.span_below(1))).await.1, below);
    assert_eq!(hit(service.span_below(1)).await.1, below);

    let written = sendable(service.span_of_a_write(1)).await;
    assert_eq!(written.as_deref(), Some("span_of_a_write"));

    assert_eq!(miss(service.above(1)).await.1.as_deref(), Some("above"));
    assert_eq!(hit(service.above(1)).await.1.as_deref(), Some("above"));
    assert_eq!(miss(service.below(1)).await.1.as_deref(), Some("below"));
    assert_eq!(hit(service.below(1)).await.1.as_deref(), Some("below"));
}

// Recursion.

impl Service {
    #[cached(resource = "sums", op = "even", cache = self.cache)]
    async fn is_even(&self, n: u8) -> bool {
        n == 0 || Box::pin(self.is_odd(n - 1)).await
    }

    #[cached(resource = "sums", op = "odd", cache = self.cache)]
    async fn is_odd(&self, n: u8) -> bool {
        n != 0 && Box::pin(self.is_even(n - 1)).await
    }

    #[cached(resource = "sums", op = "up-to", cache = self.cache)]
    fn up_to(&self, n: u64) -> BoxFuture<'_, u64> {
        async move {
            match n {
                0 => 0,
                _ => n + self.up_to(n - 1).await,
            }
        }
        .boxed()
    }

    #[invalidates("sums", cache = self.cache)]
    async fn wipe(&self, times: u8) -> u8 {
        match times {
            0 => 0,
            _ => 1 + Box::pin(self.wipe(times - 1)).await,
        }
    }
}

#[async_trait]
trait Tree {
    async fn depth(&self, of: u8) -> u8;
}

#[async_trait]
impl Tree for Service {
    #[cached(resource = "depths", cache = self.cache)]
    async fn depth(&self, of: u8) -> u8 {
        match of {
            0 => 0,
            _ => 1 + self.depth(of - 1).await,
        }
    }
}

#[tokio::test]
async fn functions_that_call_themselves_and_each_other_are_cached() {
    let service = service().await;
    assert!(miss(sendable(service.is_even(10))).await.1);
    assert!(hit(service.is_odd(9)).await.1);
    assert!(!miss(service.is_odd(10)).await.1);
    assert_eq!(miss(service.up_to(10)).await.1, 55);
    assert_eq!(hit(service.up_to(9)).await.1, 45);
    assert_eq!(miss(service.depth(5)).await.1, 5);
    assert_eq!(hit(service.depth(4)).await.1, 4);
    assert_eq!(service.wipe(2).await, 2);
    miss(service.up_to(10)).await;
}

// What is returned.

type Fallible<T> = Result<T, Opaque>;
type Both<T, E> = Result<Option<T>, E>;
type Answer = Fallible<(u8, IpAddr)>;

impl Service {
    #[cached(resource = "values", op = "address", cache = self.cache)]
    async fn address(&self, name: &str) -> Both<IpAddr, Rc<str>> {
        if name.is_empty() {
            return Ok(None);
        }
        name.parse().map(Some).map_err(|_| name.into())
    }

    #[cached(resource = "values", op = "length", cache = self.cache)]
    async fn length(&self, of: &str) -> Fallible<Duration> {
        let length = of.len().try_into().map_err(|_| Opaque(Cell::new(4)))?;
        Ok(Duration::from_secs(length))
    }

    #[cached(resource = "values", op = "answer", cache = self.cache)]
    async fn answer(&self, to: [u8; 2]) -> Answer {
        Ok((to[0], IpAddr::from([127, 0, to[0], to[1]])))
    }

    #[cached(resource = "values", op = "nothing", cache = self.cache)]
    async fn nothing(&self, id: i64) -> () {}

    #[cached(resource = "values", op = "maybe", cache = self.cache)]
    async fn maybe(&self, id: i64) -> Result<Option<()>, Box<dyn Error>> {
        Ok(u32::try_from(id)?.checked_sub(1).map(|_| ()))
    }

    #[cached(resource = "values", op = "nested", cache = self.cache)]
    async fn nested(&self, id: i64) -> Option<Option<u8>> {
        (id > 0).then_some(None)
    }
}

#[tokio::test]
async fn foreign_types_aliases_and_errors_without_traits_are_returned() {
    let service = service().await;
    let home = IpAddr::from([127, 0, 0, 1]);
    assert_eq!(miss(service.address("127.0.0.1")).await.1, Ok(Some(home)));
    assert_eq!(hit(service.address("127.0.0.1")).await.1, Ok(Some(home)));
    assert_eq!(miss(service.address("")).await.1, Ok(None));
    assert_eq!(hit(service.address("")).await.1, Ok(None));
    assert_eq!(service.address("x").await, Err("x".into()));

    let two = Ok(Duration::from_secs(2));
    assert_eq!(miss(service.length("xx")).await.1, two);
    assert_eq!(hit(service.length("xx")).await.1, two);
    let answer = Ok((1, IpAddr::from([127, 0, 1, 2])));
    assert_eq!(miss(service.answer([1, 2])).await.1, answer);
    assert_eq!(hit(service.answer([1, 2])).await.1, answer);

    miss(service.nothing(1)).await;
    hit(service.nothing(1)).await;
    for (id, expected) in [(0, None), (1, Some(()))] {
        assert_eq!(miss(service.maybe(id)).await.1.unwrap(), expected);
        assert_eq!(hit(service.maybe(id)).await.1.unwrap(), expected);
    }
    service.maybe(-1).await.unwrap_err();
}

/// The outer `Option` says whether there is something, as everywhere; the inner one is what there
/// is.
#[tokio::test]
async fn an_option_in_an_option_is_a_value() {
    let service = service().await;
    for (id, expected) in [(0, None), (1, Some(None))] {
        assert_eq!(miss(service.nested(id)).await.1, expected);
        assert_eq!(hit(service.nested(id)).await.1, expected);
    }
}

// Generics.

struct Page<'a, K, const SIZE: usize> {
    cache: &'a Cache,
    keys: &'a [K],
}

impl<'a, K, const SIZE: usize> Page<'a, K, SIZE>
where
    K: Row + Ord,
{
    #[cached(resource = "pages", op = "nth", cache = self.cache, include(SIZE, self.keys))]
    async fn nth<'b, Q>(&'b self, page: usize, after: Option<&'b Q>) -> Result<Vec<K>, &'b Q>
    where
        Q: Serialize + ?Sized + 'b,
        K: PartialOrd<Q>,
        'a: 'b,
    {
        let after = |key: &&K| after.is_none_or(|after| **key > *after);
        let keys = self.keys.iter().filter(after);
        Ok(keys.skip(page * SIZE).take(SIZE).cloned().collect())
    }

    #[cached(resource = "pages", op = "mapped", cache = self.cache, include(SIZE), skip(map))]
    async fn mapped(&self, map: impl Fn(&K) -> K, [from, to]: [usize; 2]) -> Vec<K> {
        self.keys[from..to].iter().map(map).collect()
    }

    #[invalidates("pages", cache = self.cache)]
    async fn turned<T>(self, by: T) -> (Self, T)
    where
        T: Send,
    {
        (self, by)
    }
}

#[tokio::test]
async fn generics_of_the_service_and_of_the_method_meet() {
    let cache = cache().await;
    let keys: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
    let one = Page::<_, 1> {
        cache: &cache,
        keys: &keys,
    };
    let two = Page::<_, 2> {
        cache: &cache,
        keys: &keys,
    };
    let a = "a".to_owned();
    assert_eq!(miss(one.nth::<String>(1, None)).await.1.unwrap(), ["b"]);
    assert_eq!(miss(two.nth::<String>(1, None)).await.1.unwrap(), ["c"]);
    assert_eq!(miss(one.nth(1, Some(&a))).await.1.unwrap(), ["c"]);
    assert_eq!(hit(one.nth::<String>(1, None)).await.1.unwrap(), ["b"]);

    let upper = |key: &String| key.to_uppercase();
    assert_eq!(miss(one.mapped(upper, [0, 2])).await.1, ["A", "B"]);
    assert_eq!(hit(one.mapped(String::clone, [0, 2])).await.1, ["A", "B"]);
    let (one, by) = one.turned("x").await;
    assert_eq!(by, "x");
    miss(one.mapped(upper, [0, 2])).await;
}

// Many ids at once.

#[async_trait]
trait Names {
    async fn names(&self, ids: &[i64]) -> HashMap<i64, String>;
    async fn owned(&self, ids: Vec<i64>) -> Result<BTreeMap<i64, Arc<String>>, Opaque>;
}

#[async_trait]
impl Names for Service {
    #[cached(resource = "names", batch = ids, cache = self.cache)]
    async fn names(&self, ids: &[i64]) -> HashMap<i64, String> {
        tokio::task::yield_now().await;
        ids.iter().map(|id| (*id, id.to_string())).collect()
    }

    #[cached(resource = "names", batch = ids, cache = self.cache)]
    async fn owned(&self, ids: Vec<i64>) -> Result<BTreeMap<i64, Arc<String>>, Opaque> {
        tokio::task::yield_now().await;
        let named = ids.into_iter().map(|id| (id, Arc::new(id.to_string())));
        Ok(named.collect())
    }
}

#[tokio::test]
async fn many_ids_are_read_at_once_under_async_trait() {
    let service = service().await;
    let named = service.names(&[1, 2]).await;
    assert_eq!(named, HashMap::from([(1, "1".into()), (2, "2".into())]));
    let (status, _) = status(service.names(&[2, 1])).await;
    assert!(matches!(status, Status::Hit { .. }), "{status:?}");
    assert_eq!(
        service.owned(vec![2, 3]).await.map(|named| named.len()),
        Ok(2)
    );
}

#[derive(Clone, Debug)]
struct Shop {
    cache: Cache,
    name: String,
}

impl Shop {
    /// The body has items with a `self` of their own, and assigns to what it borrows.
    #[cached(resource = "titles", swr, key(title), tags("kind:{type}"), cache = self.cache)]
    async fn title(&self, mut title: &str, r#type: u8) -> String {
        struct Upper(String);

        impl Upper {
            fn into(self) -> String {
                self.0
            }
        }

        let call: fn(Upper) -> String = Upper::into;
        if title.is_empty() {
            title = "none";
        }
        call(Upper(format!("{} {title} {type}", self.name)))
    }
}

#[tokio::test]
async fn a_body_that_owns_self_has_items_and_assigns_to_what_it_borrows() {
    let cache = cache().await;
    let shop = Shop {
        cache: cache.clone(),
        name: "Corner".to_owned(),
    };
    for title in ["a", ""] {
        let expected = format!("Corner {} 7", if title.is_empty() { "none" } else { title });
        for _ in 0..2 {
            assert_eq!(shop.title(title, 7).await, expected);
        }
    }
    assert_eq!(cache.get_stats().await.counters.hits, 2);
    assert_eq!(
        cache.invalidate_tag("kind:7").await,
        Acknowledgement::Delivered
    );
    shop.title("a", 7).await;
    assert_eq!(cache.get_stats().await.counters.hits, 2);
}
