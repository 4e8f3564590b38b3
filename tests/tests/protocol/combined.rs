//! Options in unusual combinations: generic functions and traits, very many ids and none, errors,
//! cancelled calls and panics in between, tasks that a caller spawns.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cache_runtime::{Cache, LoadContext, Status, cache_defaults, cached, invalidates, observe};
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::shop::Gate;
use crate::{Pair, over_each_store};

over_each_store! {
    ids_of_generic_functions;
    ids_behind_references;
    ids_of_a_trait;
    a_hundred_thousand_ids;
    ids_twice_and_none;
    a_batch_of_many_and_of_none;
    a_generic_batch_keeps_what_is_absent;
    ids_of_a_result_that_is_an_error_are_all_rows;
    a_dropped_write_invalidates_all_that_it_names;
    a_write_that_panics_invalidates_all_that_it_names;
    several_rows_that_a_value_depends_on;
    a_load_that_fails_after_it_has_named_a_row;
    a_dropped_load_has_named_nothing;
    names_in_a_load_with_a_limit;
    the_inner_context_counts;
    a_spawned_task_has_no_context;
    a_request_inside_of_a_request;
    a_spawned_task_is_no_part_of_a_request;
}

#[derive(Debug, PartialEq)]
struct Failure;

#[derive(Clone)]
struct Store {
    cache: Cache,
    loads: Arc<AtomicU32>,
    gate: Option<Arc<Gate>>,
}

#[cache_defaults(resource = "things", cache = self.cache, ttl = 300)]
impl Store {
    fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            loads: Arc::default(),
            gate: None,
        }
    }

    fn gated(&self) -> (Self, Arc<Gate>) {
        let gate = Gate::new();
        let gated = Self {
            gate: Some(Arc::clone(&gate)),
            ..self.clone()
        };
        (gated, gate)
    }

    async fn load(&self) -> u32 {
        let loads = self.loads.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        loads
    }

    #[cached]
    async fn get(&self, id: i64) -> Option<u32> {
        let load = self.load().await;
        (id >= 0).then_some(load)
    }

    #[cached]
    async fn list(&self) -> u32 {
        self.load().await
    }

    #[cached(op = "tagged", tags("color:{color}"))]
    async fn tagged(&self, color: &str) -> u32 {
        self.load().await
    }

    #[cached(resource = "shelves", op = "pair", depends("things", id = a, "things", id = b))]
    async fn pair(&self, a: i64, b: i64) -> u32 {
        let _ = (a, b);
        self.load().await
    }

    #[cached(resource = "shelves", op = "named", context = load)]
    async fn named(&self, thing: i64, fails: bool) -> Result<u32, Failure> {
        load.depends_on("things", thing);
        load.tag("color:red");
        let value = self.load().await;
        if fails { Err(Failure) } else { Ok(value) }
    }

    #[cached(resource = "shelves", op = "limited", context = load, max_loads = 1, stale_if_error = 60, key(thing))]
    async fn limited(&self, thing: i64, fails: bool) -> Result<u32, Failure> {
        name_it(&load, thing);
        let value = self.load().await;
        if fails { Err(Failure) } else { Ok(value) }
    }

    #[cached(batch = ids)]
    async fn many<K>(&self, ids: &[K]) -> Result<BTreeMap<K, u32>, Failure>
    where
        K: Ord + Copy + Display + Into<i64> + Serialize + Send + Sync + 'static,
    {
        let load = self.load().await;
        Ok(ids
            .iter()
            .filter(|id| (**id).into() >= 0)
            .map(|id| (*id, load))
            .collect())
    }

    #[invalidates(ids = ids)]
    async fn write<I>(&self, ids: I)
    where
        I: IntoIterator<Item = i64> + Clone + Send,
    {
        let _ = &ids;
    }

    #[invalidates(ids = ids.iter().copied().chain(std::iter::once(more)))]
    async fn write_more<const N: usize>(&self, ids: [i64; N], more: i64) {}

    #[invalidates(ids = result.keys())]
    async fn import(&self, ids: &[i64], fails: bool) -> Result<HashMap<i64, String>, Failure> {
        if fails {
            return Err(Failure);
        }
        Ok(ids.iter().map(|id| (*id, String::new())).collect())
    }

    #[invalidates(ids = ids)]
    async fn write_shared(&self, ids: &Arc<Vec<i64>>) {}

    #[invalidates(ids = result)]
    async fn add(&self, first: i64) -> Result<Arc<[i64]>, Failure> {
        Ok([first, first + 1].into())
    }

    #[invalidates(ids = result)]
    async fn add_more(&self, ids: std::ops::Range<i64>) -> Option<std::ops::Range<i64>> {
        Some(ids)
    }

    #[invalidates(ids = ids)]
    #[invalidates("shelves", ops("pair"))]
    #[invalidates(tags("color:{color}"))]
    async fn paint(&self, ids: Vec<i64>, color: &str, how: &str) {
        if how == "panics" {
            panic!("as it is told");
        }
        if how == "waits" {
            std::future::pending::<()>().await;
        }
    }

    #[cached(resource = "orders", op = "open", include_context("tenant"))]
    async fn open(&self) -> u32 {
        self.load().await
    }

    #[cached(resource = "rights", memo)]
    async fn may(&self, user: i64) -> Result<Option<u32>, Failure> {
        let _ = user;
        Ok(Some(self.load().await))
    }
}

fn name_it(load: &LoadContext, thing: i64) {
    load.depends_on("things", thing);
}

/// Whether a call is a hit.
async fn is_hit<T>(call: impl Future<Output = T>) -> bool {
    let (_, outcomes) = observe(call).await;
    outcomes
        .iter()
        .any(|outcome| matches!(outcome.status, Status::Hit { .. }))
}

async fn ids_of_generic_functions(pair: Pair) {
    let (a, b) = (Store::new(&pair.a), Store::new(&pair.b));
    for id in 1..=4 {
        a.get(id).await;
    }
    b.write(
        [1, 2]
            .into_iter()
            .collect::<std::collections::VecDeque<_>>(),
    )
    .await;
    assert!(!is_hit(a.get(1)).await && !is_hit(a.get(2)).await);
    assert!(is_hit(a.get(3)).await && is_hit(a.get(4)).await);
    b.write_more([3], 4).await;
    assert!(!is_hit(a.get(3)).await && !is_hit(a.get(4)).await);
    assert!(is_hit(a.get(1)).await);
    b.write_more([], 1).await;
    assert!(!is_hit(a.get(1)).await && is_hit(a.get(2)).await);
}

async fn ids_behind_references(pair: Pair) {
    let (a, b) = (Store::new(&pair.a), Store::new(&pair.b));
    for id in 1..=4 {
        a.get(id).await;
    }
    b.write_shared(&Arc::new(vec![1])).await;
    assert!(!is_hit(a.get(1)).await && is_hit(a.get(2)).await);
    assert!(b.add(1).await.is_ok());
    assert!(!is_hit(a.get(1)).await && !is_hit(a.get(2)).await && is_hit(a.get(3)).await);
    b.add_more(3..5).await;
    assert!(!is_hit(a.get(3)).await && !is_hit(a.get(4)).await && is_hit(a.get(1)).await);
}

/// A trait of rows by any id.
#[async_trait::async_trait]
trait Rows<K: Send + Sync + 'static>: Send + Sync {
    async fn row(&self, id: K) -> Option<String>;
    async fn write_rows(&self, ids: Vec<K>) -> Result<usize, Failure>;
}

struct Names<K>(Cache, Arc<AtomicU32>, std::marker::PhantomData<K>);

#[cache_defaults(resource = "names", cache = self.0)]
#[async_trait::async_trait]
impl<K> Rows<K> for Names<K>
where
    K: Clone + Debug + Display + Eq + Hash + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    #[cached]
    async fn row(&self, id: K) -> Option<String> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Some(id.to_string())
    }

    #[invalidates(ids = ids.iter().cloned())]
    async fn write_rows(&self, ids: Vec<K>) -> Result<usize, Failure> {
        Ok(ids.len())
    }
}

async fn ids_of_a_trait(pair: Pair) {
    let rows: Box<dyn Rows<String>> = Box::new(Names(
        pair.a.clone(),
        Arc::default(),
        std::marker::PhantomData,
    ));
    for name in ["a", "b:c", ""] {
        rows.row(name.to_owned()).await;
        assert!(is_hit(rows.row(name.to_owned())).await, "{name}");
    }
    assert_eq!(rows.write_rows(vec!["b:c".to_owned()]).await, Ok(1));
    assert!(!is_hit(rows.row("b:c".to_owned())).await);
    assert!(is_hit(rows.row("a".to_owned())).await && is_hit(rows.row(String::new())).await);
}

async fn a_hundred_thousand_ids(pair: Pair) {
    let (a, b) = (Store::new(&pair.a), Store::new(&pair.b));
    a.get(-5).await;
    a.get(99_999).await;
    a.list().await;
    b.write(0..100_000).await;
    // More than are counted, so the resource is invalidated.
    assert!(!is_hit(a.get(99_999)).await && !is_hit(a.get(-5)).await && !is_hit(a.list()).await);
}

async fn ids_twice_and_none(pair: Pair) {
    let (a, b) = (Store::new(&pair.a), Store::new(&pair.b));
    a.get(1).await;
    a.get(2).await;
    a.list().await;
    b.write(std::iter::empty()).await;
    // What is derived from the resource is invalidated in any case.
    assert!(is_hit(a.get(1)).await && !is_hit(a.list()).await);
    b.write(std::iter::repeat_n(1, 10_000)).await;
    assert!(!is_hit(a.get(1)).await && !is_hit(a.list()).await);
}

async fn a_batch_of_many_and_of_none(pair: Pair) {
    let (a, b) = (Store::new(&pair.a), Store::new(&pair.b));
    assert_eq!(a.many::<i64>(&[]).await, Ok(BTreeMap::new()));
    // As without the attribute.
    assert_eq!(a.loads.load(Ordering::SeqCst), 1);
    // More than two steps of 256.
    let ids: Vec<i64> = (0..600).chain(0..600).collect();
    let rows = a.many(&ids).await.expect("no error");
    assert_eq!(rows.len(), 600);
    let loads = b.loads.load(Ordering::SeqCst);
    let again = b.many(&ids).await;
    assert!(again.is_ok_and(|again| again == rows), "other rows");
    assert_eq!(b.loads.load(Ordering::SeqCst), loads, "all are hits");
    a.write([17, 511]).await;
    assert_eq!(b.many(&ids).await.map(|rows| rows.len()), Ok(600));
    assert_eq!(b.loads.load(Ordering::SeqCst), loads + 1);
}

async fn a_generic_batch_keeps_what_is_absent(pair: Pair) {
    let store = Store::new(&pair.a);
    assert_eq!(
        store.many(&[-1_i32, 1, -1]).await.map(|rows| rows.len()),
        Ok(1)
    );
    assert_eq!(store.many(&[-1_i32]).await.map(|rows| rows.len()), Ok(0));
    assert_eq!(store.loads.load(Ordering::SeqCst), 1);
}

async fn ids_of_a_result_that_is_an_error_are_all_rows(pair: Pair) {
    let (a, b) = (Store::new(&pair.a), Store::new(&pair.b));
    a.get(1).await;
    a.get(2).await;
    assert!(b.import(&[1], false).await.is_ok());
    assert!(!is_hit(a.get(1)).await && is_hit(a.get(2)).await);
    assert_eq!(b.import(&[1], true).await, Err(Failure));
    assert!(!is_hit(a.get(1)).await && !is_hit(a.get(2)).await);
}

/// Reads what `paint` of 1 and 2 in red names, and one thing that it does not.
async fn read(store: &Store) -> [bool; 6] {
    [
        is_hit(store.get(1)).await,
        is_hit(store.get(2)).await,
        is_hit(store.list()).await,
        is_hit(store.pair(7, 8)).await,
        is_hit(store.tagged("red")).await,
        is_hit(store.get(3)).await,
    ]
}

async fn a_dropped_write_invalidates_all_that_it_names(pair: Pair) {
    let store = Store::new(&pair.a);
    read(&store).await;
    assert_eq!(read(&store).await, [true; 6]);
    assert!(
        store
            .paint(vec![1, 2], "red", "waits")
            .now_or_never()
            .is_none()
    );
    assert_eq!(
        read(&store).await,
        [false, false, false, false, false, true]
    );
}

async fn a_write_that_panics_invalidates_all_that_it_names(pair: Pair) {
    let store = Store::new(&pair.a);
    read(&store).await;
    let write = AssertUnwindSafe(store.paint(vec![1, 2], "red", "panics"));
    assert!(write.catch_unwind().await.is_err());
    assert_eq!(
        read(&store).await,
        [false, false, false, false, false, true]
    );
}

async fn several_rows_that_a_value_depends_on(pair: Pair) {
    let (a, b) = (Store::new(&pair.a), Store::new(&pair.b));
    for written in [1, 2] {
        a.pair(1, 2).await;
        assert!(is_hit(b.pair(1, 2)).await);
        b.write([3]).await;
        assert!(is_hit(a.pair(1, 2)).await);
        b.write([written]).await;
        assert!(!is_hit(a.pair(1, 2)).await, "{written}");
    }
    // One row twice.
    a.pair(5, 5).await;
    assert!(is_hit(a.pair(5, 5)).await);
    b.write([5]).await;
    assert!(!is_hit(a.pair(5, 5)).await);
}

async fn a_load_that_fails_after_it_has_named_a_row(pair: Pair) {
    let (a, b) = (Store::new(&pair.a), Store::new(&pair.b));
    assert_eq!(a.named(1, true).await, Err(Failure));
    assert!(a.named(1, false).await.is_ok());
    assert!(is_hit(b.named(1, false)).await);
    b.write([1]).await;
    assert_eq!(a.named(1, true).await, Err(Failure));
    assert!(!is_hit(a.named(1, false)).await);
    assert!(is_hit(a.named(1, false)).await);
    let _ = b.cache.invalidate_tag("color:red").await;
    assert!(!is_hit(a.named(1, false)).await);
}

async fn a_dropped_load_has_named_nothing(pair: Pair) {
    let (a, b) = (Store::new(&pair.a), Store::new(&pair.b));
    let (gated, gate) = a.gated();
    {
        let call = gated.named(1, false);
        let mut call = std::pin::pin!(call);
        tokio::select! {
            _ = &mut call => panic!("it stands at the gate"),
            () = gate.arrival() => {}
        }
    }
    assert!(!is_hit(b.named(1, false)).await);
    assert!(is_hit(a.named(1, false)).await);
}

async fn names_in_a_load_with_a_limit(pair: Pair) {
    let (a, b) = (Store::new(&pair.a), Store::new(&pair.b));
    let first = a.limited(1, false).await;
    assert!(first.is_ok());
    assert_eq!(b.limited(1, true).await, first);
    b.write([1]).await;
    // An entry that was invalidated is no fallback.
    assert_eq!(a.limited(1, true).await, Err(Failure));
    assert_ne!(a.limited(1, false).await, first);
}

async fn the_inner_context_counts(pair: Pair) {
    let store = Store::new(&pair.a);
    let cache = &store.cache;
    let inner = cache
        .with_key("tenant", 1, cache.with_key("tenant", 2, store.open()))
        .await;
    assert_ne!(cache.with_key("tenant", 1, store.open()).await, inner);
    assert_eq!(cache.with_key("tenant", 2, store.open()).await, inner);
    // Two threads of a join, each with its own.
    let both = async {
        tokio::join!(
            cache.with_key("tenant", 3, store.open()),
            cache.with_key("tenant", 2, store.open()),
        )
    };
    let (third, second) = cache.with_key("tenant", 1, both).await;
    assert_eq!(second, inner);
    assert_ne!(third, inner);
}

async fn a_spawned_task_has_no_context(pair: Pair) {
    let store = Store::new(&pair.a);
    let cache = store.cache.clone();
    let first = cache.with_key("tenant", 1, store.open()).await;
    let spawned = cache
        .with_key("tenant", 1, async {
            let store = store.clone();
            tokio::spawn(async move { observe(store.open()).await }).await
        })
        .await;
    let (value, outcomes) = spawned.expect("no panic");
    assert_ne!(value, first);
    assert!(
        outcomes
            .iter()
            .all(|outcome| !matches!(outcome.status, Status::Hit { .. }))
    );
    // Nor does it store anything.
    assert_eq!(cache.with_key("tenant", 1, store.open()).await, first);
}

async fn a_request_inside_of_a_request(pair: Pair) {
    let store = Store::new(&pair.a);
    let other = Store::new(&pair.b);
    let cache = store.cache.clone();
    cache
        .request(async {
            let first = store.may(1).await;
            let inner = cache.request(async { store.may(1).await }).await;
            assert_eq!(first, inner);
            let _ = other.cache.invalidate_all("rights").await;
            store.may(2).await
        })
        .await
        .expect("no error");
}

async fn a_spawned_task_is_no_part_of_a_request(pair: Pair) {
    let store = Store::new(&pair.a);
    let cache = store.cache.clone();
    cache
        .request(async {
            let first = store.may(1).await;
            // A write beside the request.
            let writer = store.clone();
            let write = async move { writer.cache.invalidate_all("rights").await };
            let _ = tokio::spawn(write).await.expect("no panic");
            let reader = store.clone();
            let read = tokio::spawn(async move { reader.may(1).await });
            assert_ne!(read.await.expect("no panic"), first);
        })
        .await;
}

/// Functions that are not `async`.
struct Blocking {
    cache: Cache,
    loads: AtomicU32,
}

#[cache_defaults(resource = "blocking", cache = self.cache)]
impl Blocking {
    #[cached]
    fn text<T: Display + Serialize>(&self, id: T, panics: bool) -> Option<String> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        assert!(!panics, "as it is told");
        Some(id.to_string())
    }

    #[cached(op = "fallible")]
    fn fallible(&self, fails: bool) -> Result<u32, Failure> {
        let loads = self.loads.fetch_add(1, Ordering::SeqCst);
        if fails { Err(Failure) } else { Ok(loads) }
    }

    #[cached(op = "sum")]
    fn sum(&self, to: u32) -> u32 {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if to == 0 { 0 } else { self.sum(to - 1) + to }
    }

    #[cached(op = "itself", skip(depth))]
    fn itself(&self, depth: u32) -> u32 {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if depth == 0 {
            7
        } else {
            self.itself(depth - 1)
        }
    }

    #[cached(op = "of-tenant", include_context("tenant"))]
    fn of_tenant(&self) -> u32 {
        self.loads.fetch_add(1, Ordering::SeqCst)
    }

    #[invalidates(ids = ids)]
    async fn write(&self, ids: &[i64]) {}
}

#[tokio::test]
async fn functions_that_are_not_async() {
    let cache = Pair::memory().await.a;
    let blocking = Arc::new(Blocking {
        cache: cache.clone(),
        loads: AtomicU32::new(0),
    });
    let loads = |expected: u32| assert_eq!(blocking.loads.swap(0, Ordering::SeqCst), expected);
    blocking.text(1, false);
    blocking.text(1, false);
    blocking.text("1", false);
    loads(2);
    assert_eq!(blocking.sum(20), 210);
    assert_eq!(blocking.sum(21), 231);
    loads(22);
    assert_eq!(blocking.itself(3), 7);
    assert_eq!(blocking.itself(3), 7);
    loads(4);
    assert_eq!(blocking.fallible(true), Err(Failure));
    assert!(blocking.fallible(false).is_ok());
    loads(2);
    let panics = std::panic::catch_unwind(AssertUnwindSafe(|| blocking.text(2, true)));
    assert!(panics.is_err());
    // Another thread is not kept waiting by the load that ended so.
    let other = Arc::clone(&blocking);
    let after = tokio::task::spawn_blocking(move || {
        std::panic::catch_unwind(AssertUnwindSafe(|| other.text(2, true))).is_err()
    });
    assert!(after.await.expect("no panic of the test"));
    loads(2);
    // Inside of a context, and beside it.
    let first = cache
        .with_key("tenant", 1, async { blocking.of_tenant() })
        .await;
    assert_eq!(
        cache
            .with_key("tenant", 1, async { blocking.of_tenant() })
            .await,
        first
    );
    assert_ne!(
        cache
            .with_key("tenant", 2, async { blocking.of_tenant() })
            .await,
        first
    );
    assert_ne!(blocking.of_tenant(), blocking.of_tenant());
    loads(4);
    blocking.write(&[1]).await;
    blocking.sum(20);
    loads(21);
}
