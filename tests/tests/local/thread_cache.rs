//! The entries that a thread holds in memory of its own: the rules of the table hold for them too.
//!
//! Compiled twice: as `thread_cache` over both tiers, and as `thread_cache_in_memory` without
//! Redis.
//!
//! A test is one thread, so what it has read twice is what it holds. A function remembers four
//! caches, and only entries that it was given there are held: so there are no more caches here.

use std::marker::PhantomData;
use std::sync::Arc;

use cache_runtime::{CacheConfig, cached, invalidates};
use cache_tests::{RedisServer, eventually};

use super::{Node, TEST_TIMEOUT, impatient, over, tier};

/// What the caches of one test are made over: Redis, or nothing.
struct Tiers(Option<RedisServer>);

impl Tiers {
    fn start() -> Self {
        let is_in_memory = module_path!().ends_with("_in_memory");
        Self((!is_in_memory).then(RedisServer::start))
    }

    fn config(&self) -> CacheConfig {
        match &self.0 {
            Some(server) => over(server.port()),
            None => CacheConfig::default().local_mb(16).advice(false),
        }
    }
}

/// What the threads of this process hold.
async fn front_bytes(node: &Node) -> u64 {
    node.cache.get_stats().await.front_bytes
}

/// With functions of its own.
struct Rows(Node);

impl Rows {
    #[cached(resource = "rows", cache = self.0.cache)]
    async fn get(&self, id: i64) -> Option<Arc<String>> {
        self.0.load(id)
    }

    #[invalidates("rows", id = id, cache = self.0.cache)]
    async fn rename(&self, id: i64, name: &str) {
        self.0.commit(id, name);
    }

    #[invalidates("rows", cache = self.0.cache)]
    async fn rename_all(&self, id: i64, name: &str) {
        self.0.commit(id, name);
    }

    async fn name(&self, id: i64) -> String {
        let name = self.get(id).await;
        name.map_or_else(String::new, |name| name.to_string())
    }

    async fn front_bytes(&self) -> u64 {
        front_bytes(&self.0).await
    }

    /// Reads a row until this thread holds it, and nothing else.
    async fn hold(&self, id: i64) {
        eventually(TEST_TIMEOUT, async || {
            let before = self.front_bytes().await;
            let tiers = [tier(self.get(id)).await, tier(self.get(id)).await];
            tiers == ["local"; 2] && self.front_bytes().await == before && before > 0
        })
        .await;
    }
}

#[tokio::test]
async fn thread_cache_entries_end_with_the_rest() {
    let mut tiers = Tiers::start();
    let config = match &tiers.0 {
        Some(server) => impatient(server.port()),
        None => tiers.config(),
    };
    let rows = Rows(Node::new(config).await);
    rows.0.commit(1, "old");
    rows.hold(1).await;

    // A write of this process.
    for name in ["new", "newer"] {
        rows.rename(1, name).await;
        assert_eq!(rows.name(1).await, name);
        rows.hold(1).await;
        assert_eq!(rows.name(1).await, name);
    }
    rows.rename_all(1, "all").await;
    assert_eq!(rows.name(1).await, "all");
    rows.hold(1).await;

    // Operations by hand.
    rows.0.commit(1, "by hand");
    let key = cache_runtime::key_of(rows.get(1)).expect("a key");
    rows.0.cache.delete(key).await.expect("no error");
    assert_eq!(rows.name(1).await, "by hand");
    rows.hold(1).await;
    rows.0.commit(1, "by pattern");
    let removed = rows.0.cache.invalidate_pattern("rows:*").await;
    assert_eq!(removed.expect("no error"), 1);
    assert_eq!(rows.name(1).await, "by pattern");
    rows.hold(1).await;
    rows.0.commit(1, "all by hand");
    rows.0.cache.clear_all().await.expect("no error");
    assert_eq!(rows.name(1).await, "all by hand");
    rows.hold(1).await;

    // A newer value, which nobody asked for by a write.
    rows.0.commit(1, "refreshed");
    cache_runtime::refresh(rows.get(1)).await;
    eventually(TEST_TIMEOUT, async || rows.name(1).await == "refreshed").await;
    rows.hold(1).await;

    // A scope and a switch.
    let strict = rows.0.cache.strict(rows.get(1));
    let store = if tiers.0.is_some() { "redis" } else { "local" };
    assert_eq!(tier(strict).await, store);
    assert_eq!(tier(cache_runtime::bypass(rows.get(1))).await, "");
    rows.0.cache.disable("rows");
    assert_eq!(tier(rows.get(1)).await, "");
    rows.0.cache.enable("rows");
    rows.hold(1).await;

    // Another cache has another value.
    let memory = Rows(Node::new(CacheConfig::default().local_mb(4)).await);
    memory.0.commit(1, "another cache's");
    for _ in 0..3 {
        assert_eq!(memory.name(1).await, "another cache's");
        assert_eq!(rows.name(1).await, "refreshed");
    }
    if let Some(server) = &mut tiers.0 {
        thread_cache_entries_end_with_the_server(&rows, server).await;
    }
}

async fn thread_cache_entries_end_with_the_server(rows: &Rows, server: &mut RedisServer) {
    // A write of another process.
    let other = Rows(rows.0.beside(over(server.port())).await);
    other.rename(1, "another's").await;
    eventually(TEST_TIMEOUT, async || rows.name(1).await == "another's").await;
    rows.hold(1).await;

    // A flushed database.
    rows.0.commit(1, "flushed");
    server.cli(&["flushall"]);
    eventually(TEST_TIMEOUT, async || rows.name(1).await == "flushed").await;
    rows.hold(1).await;

    // A server that says nothing any more.
    rows.0.commit(1, "silent");
    server.pause();
    eventually(TEST_TIMEOUT, async || rows.name(1).await == "silent").await;
    server.resume();
}

/// A value that lives shortly.
struct Brief(Node);

impl Brief {
    #[cached(resource = "briefs", ttl = "1s", cache = self.0.cache)]
    async fn get(&self, id: i64) -> Option<Arc<String>> {
        self.0.load(id)
    }
}

#[tokio::test]
async fn thread_cache_entries_expire() {
    let tiers = Tiers::start();
    let brief = Brief(Node::new(tiers.config()).await);
    brief.0.commit(1, "old");
    eventually(TEST_TIMEOUT, async || {
        let tiers = [tier(brief.get(1)).await, tier(brief.get(1)).await];
        tiers == ["local"; 2] && front_bytes(&brief.0).await > 0
    })
    .await;
    brief.0.commit(1, "new");
    eventually(TEST_TIMEOUT, async || {
        brief.get(1).await.is_some_and(|name| *name == "new")
    })
    .await;
}

#[tokio::test]
async fn the_thread_cache_is_bounded_and_counted() {
    const ROWS: i64 = 700;
    let tiers = Tiers::start();
    let rows = Rows(Node::new(tiers.config()).await);
    let name = "n".repeat(7500);
    let mut most = 0;
    for id in 0..ROWS {
        rows.0.commit(id, &name);
        eventually(TEST_TIMEOUT, async || tier(rows.get(id)).await == "local").await;
        rows.get(id).await;
        most = rows.front_bytes().await.max(most);
    }
    assert!((2 << 20..=4 << 20).contains(&most), "{most}");
}

/// Many rows, of which the later ones are longer.
struct Many(Node);

impl Many {
    const SHORT: i64 = 10_000;

    #[cached(resource = "many", cache = self.0.cache)]
    async fn text(&self, id: i64) -> Arc<str> {
        "x".repeat(if id < Self::SHORT { 8 } else { 256 }).into()
    }

    /// Reads a row until it would be held if nothing else were: twice after it was loaded.
    async fn read(&self, id: i64) {
        for _ in 0..3 {
            self.text(id).await;
        }
    }
}

/// To hold an entry costs more than a hit, so entries do not take turns in a slot.
#[tokio::test]
async fn what_is_used_stays_and_what_is_not_makes_room() {
    if Tiers::start().0.is_some() {
        // The same entries are held with Redis, after ten thousand round trips.
        return;
    }
    let config = CacheConfig::default().local_mb(64).advice(false);
    let many = Many(Node::new(config).await);
    let (shorter, longer) = (0..Many::SHORT, Many::SHORT..2 * Many::SHORT);
    for id in shorter.clone() {
        many.read(id).await;
    }
    let short = front_bytes(&many.0).await;
    // Each slot has an entry by now. All of them are used.
    for id in shorter {
        many.text(id).await;
    }
    for id in longer.clone() {
        many.read(id).await;
    }
    let stayed = front_bytes(&many.0).await;
    assert!(stayed < short + short / 10, "{short} bytes became {stayed}");
    for _ in 0..3 {
        for id in longer.clone() {
            many.read(id).await;
        }
    }
    let replaced = front_bytes(&many.0).await;
    assert!(
        replaced > short + short / 2,
        "{short} bytes are {replaced} at last"
    );
}

/// Longer rows than those that fill the slots and the memory, which are out of use.
#[tokio::test]
async fn a_full_thread_cache_starts_anew_for_other_rows() {
    if Tiers::start().0.is_some() {
        // The same entries are held with Redis, after ten thousand round trips.
        return;
    }
    let config = CacheConfig::default().local_mb(64).advice(false);
    let full = Full(Node::new(config).await);
    for id in 0..Full::SHORT {
        full.read(id).await;
    }
    let before = front_bytes(&full.0).await;
    assert!(before > 3 << 20, "{before}");
    for _ in 0..8 {
        for id in Full::SHORT..2 * Full::SHORT {
            full.read(id).await;
            if id % 64 == 0 && front_bytes(&full.0).await < before / 2 {
                return;
            }
        }
    }
    panic!("{before} bytes are kept, though none of them is used");
}

/// Many rows, of which the later ones are twice as long.
struct Full(Node);

impl Full {
    const SHORT: i64 = 10_000;

    #[cached(resource = "full", cache = self.0.cache)]
    async fn text(&self, id: i64) -> Arc<str> {
        "x".repeat(if id < Self::SHORT { 700 } else { 1_400 })
            .into()
    }

    async fn read(&self, id: i64) {
        for _ in 0..3 {
            self.text(id).await;
        }
    }
}

/// Calls of each form: a number or a text that is compared as it was given, a text of the key, and
/// hashed arguments.
struct Forms(Node);

impl Forms {
    #[cached(resource = "numbers", cache = self.0.cache)]
    async fn number(&self, id: i64) -> String {
        format!("{id}")
    }

    #[cached(resource = "texts", cache = self.0.cache)]
    async fn text(&self, id: &str) -> String {
        id.to_owned()
    }

    #[cached(resource = "pairs", id = (a, b), cache = self.0.cache)]
    async fn pair(&self, a: i64, b: bool) -> String {
        format!("{a} {b}")
    }

    #[cached(resource = "pages", cache = self.0.cache)]
    async fn page(&self, skip: i64, word: &str) -> String {
        format!("{skip} {word}")
    }

    /// Asks for the same of all, and checks each answer.
    async fn ask(&self, n: i64) {
        let text = format!("row:{n}");
        assert_eq!(self.number(n).await, format!("{n}"));
        assert_eq!(self.text(&text).await, text);
        assert_eq!(self.pair(n, true).await, format!("{n} true"));
        assert_eq!(self.page(n, "of").await, format!("{n} of"));
    }
}

/// Far fewer calls than there are slots, but of each form some that get the same one.
#[tokio::test]
async fn each_call_is_served_its_own_entry() {
    let tiers = Tiers::start();
    let forms = Forms(Node::new(tiers.config()).await);
    for n in -200..200 {
        for _ in 0..4 {
            forms.ask(n).await;
        }
    }
    assert!(front_bytes(&forms.0).await > 0, "nothing is held");
    for n in -200..200 {
        forms.ask(n).await;
    }
}

trait Kind: Send + Sync {
    const NAME: &'static str;
}

struct Red;

impl Kind for Red {
    const NAME: &'static str = "red";
}

struct Blue;

impl Kind for Blue {
    const NAME: &'static str = "blue";
}

/// A function of two types.
struct Of<K>(Node, PhantomData<K>);

impl<K: Kind> Of<K> {
    #[cached(resource = "kinds", cache = self.0.cache)]
    async fn get(&self, id: i64) -> String {
        format!("{} {id}", K::NAME)
    }

    /// Reads until this thread holds the entry.
    async fn hold(&self, id: i64) {
        eventually(TEST_TIMEOUT, async || {
            let tiers = [tier(self.get(id)).await, tier(self.get(id)).await];
            tiers == ["local"; 2] && front_bytes(&self.0).await > 0
        })
        .await;
    }
}

#[tokio::test]
async fn each_instance_of_a_function_is_served_its_own_entry() {
    let tiers = Tiers::start();
    let node = Node::new(tiers.config()).await;
    let (red, blue) = (
        Of::<Red>(node.clone(), PhantomData),
        Of::<Blue>(node, PhantomData),
    );
    for _ in 0..3 {
        red.hold(1).await;
        assert_eq!(blue.get(1).await, "blue 1");
        blue.hold(1).await;
        assert_eq!(red.get(1).await, "red 1");
    }
}

/// What is set around a call is a part of its key, and not of what it was given.
struct Around(Node);

impl Around {
    #[cached(resource = "orders", id = id, skip(tenant), cache = self.0.cache)]
    async fn order(&self, id: i64, tenant: i64) -> String {
        format!("{id} of {tenant}")
    }
}

#[tokio::test]
async fn each_tenant_is_served_its_own_entry() {
    let tiers = Tiers::start();
    let config = tiers.config().resource("orders").context("tenant");
    let around = Around(Node::new(config).await);
    for tenant in [7, 8, 7, 8] {
        let cache = &around.0.cache;
        for _ in 0..5 {
            let order = cache
                .with_key("tenant", tenant, around.order(1, tenant))
                .await;
            assert_eq!(order, format!("1 of {tenant}"));
        }
    }
    assert!(front_bytes(&around.0).await > 0, "nothing is held");
    let tenant = around.0.cache.with_key("tenant", 9, around.order(1, 9));
    assert_eq!(tenant.await, "1 of 9");
    assert_eq!(around.order(1, 10).await, "1 of 10", "no tenant at all");
}

/// Two variants of one name.
#[derive(Debug, Clone, Copy, serde::Serialize)]
enum Alike {
    #[serde(rename = "a")]
    First,
    #[serde(rename = "a")]
    Second,
}

/// A flattened map, whose order is not seen to be worth nothing.
#[derive(Debug, Clone, serde::Serialize)]
struct Flat {
    #[serde(flatten)]
    by: Order,
}

/// A map that keeps its order.
#[derive(Debug, Clone)]
struct Order(Vec<&'static str>);

impl serde::Serialize for Order {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serde::Serializer::serialize_map(serializer, None)?;
        for name in &self.0 {
            serde::ser::SerializeMap::serialize_entry(&mut map, name, &1)?;
        }
        serde::ser::SerializeMap::end(map)
    }
}

/// A part of it is in no key.
#[derive(Debug, Clone, Copy, serde::Serialize)]
#[serde(transparent)]
struct Traced {
    id: u64,
    #[serde(skip)]
    #[expect(dead_code, reason = "`Debug` shows it")]
    trace: u8,
}

/// Calls that differ in what their keys don't show.
struct Differ(Node);

impl Differ {
    #[cached(resource = "floats", cache = self.0.cache)]
    async fn float(&self, id: f64) -> String {
        format!("{id:?}")
    }

    #[cached(resource = "float-lists", cache = self.0.cache)]
    async fn floats(&self, argument: f64) -> String {
        format!("{argument:?}")
    }

    #[cached(resource = "alike", cache = self.0.cache)]
    async fn alike(&self, id: Alike) -> String {
        format!("{id:?}")
    }

    #[cached(resource = "alike-lists", cache = self.0.cache)]
    async fn alikes(&self, argument: Alike) -> String {
        format!("{argument:?}")
    }

    #[cached(resource = "traced", cache = self.0.cache)]
    async fn traced(&self, id: Traced) -> String {
        format!("{id:?}")
    }

    #[cached(resource = "traced-lists", cache = self.0.cache)]
    async fn traces(&self, argument: Traced) -> String {
        format!("{argument:?}")
    }

    #[cached(resource = "flat-lists", cache = self.0.cache)]
    async fn flats(&self, argument: Flat) -> String {
        format!("{argument:?}")
    }
}

#[tokio::test]
async fn parts_that_a_key_does_not_show_tell_calls_apart() {
    /// Each in turn, as often as this thread needs to hold it.
    async fn each<T: Clone + std::fmt::Debug>(values: [T; 2], call: impl AsyncFn(T) -> String) {
        for _ in 0..3 {
            for value in &values {
                for _ in 0..5 {
                    assert_eq!(call(value.clone()).await, format!("{value:?}"));
                }
            }
        }
    }

    let tiers = Tiers::start();
    let calls = &Differ(Node::new(tiers.config()).await);
    each([0.0, -0.0], async |it| calls.float(it).await).await;
    each([0.0, -0.0], async |it| calls.floats(it).await).await;
    let alike = [Alike::First, Alike::Second];
    each(alike, async |it| calls.alike(it).await).await;
    each(alike, async |it| calls.alikes(it).await).await;
    let traced = [1, 2].map(|trace| Traced { id: 7, trace });
    each(traced, async |it| calls.traced(it).await).await;
    each(traced, async |it| calls.traces(it).await).await;
    let flat = [vec!["a", "b"], vec!["b", "a"]].map(|by| Flat { by: Order(by) });
    each(flat, async |it| calls.flats(it).await).await;
    assert!(front_bytes(&calls.0).await > 0, "nothing is held");
}
