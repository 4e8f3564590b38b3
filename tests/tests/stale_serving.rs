//! A source that is slow or fails, and entries past their time: over memory, whose clock the test
//! moves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_runtime::testing::TestCache;
use cache_runtime::{
    Cache, CacheConfig, StaleReason, Status, cached, invalidates, observe, refresh,
};
use tokio::sync::Semaphore;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, PartialOrd)]
struct Failed;

/// Prices that change with each load.
#[derive(Clone)]
struct Prices {
    cache: Cache,
    source: Arc<Source>,
}

#[derive(Default)]
struct Source {
    loads: AtomicU32,
    fails: std::sync::atomic::AtomicBool,
    /// Where loads stand, if there is one.
    gate: Option<Semaphore>,
    ended: Option<Semaphore>,
}

impl Prices {
    fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            source: Arc::default(),
        }
    }

    /// With loads that wait until each is let through.
    fn gated(cache: &Cache) -> Self {
        let source = Source {
            gate: Some(Semaphore::new(0)),
            ended: Some(Semaphore::new(0)),
            ..Source::default()
        };
        Self {
            cache: cache.clone(),
            source: Arc::new(source),
        }
    }

    fn fails(&self, fails: bool) {
        self.source.fails.store(fails, Ordering::SeqCst);
    }

    fn let_through(&self, loads: usize) {
        self.source
            .gate
            .as_ref()
            .expect("a gate")
            .add_permits(loads);
    }

    /// Returns when one more load has ended.
    async fn end_of_load(&self) {
        let ended = self.source.ended.as_ref().expect("a gate");
        ended.acquire().await.expect("open").forget();
        // What it loaded is stored by the same task, next.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    fn loads(&self) -> u32 {
        self.source.loads.load(Ordering::SeqCst)
    }

    async fn load(&self) -> Result<u32, Failed> {
        if let Some(gate) = &self.source.gate {
            gate.acquire().await.expect("open").forget();
        }
        let load = self.source.loads.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(ended) = &self.source.ended {
            ended.add_permits(1);
        }
        match self.source.fails.load(Ordering::SeqCst) {
            true => Err(Failed),
            false => Ok(load),
        }
    }

    #[cached(resource = "prices", ttl = 10, cache = self.cache)]
    async fn plain(&self, id: u8) -> Result<u32, Failed> {
        self.load().await
    }

    #[cached(resource = "prices", op = "kept", ttl = 10, stale_if_error = "20s", cache = self.cache)]
    async fn kept(&self, id: u8) -> Result<u32, Failed> {
        self.load().await
    }

    #[cached(resource = "prices", op = "swr", ttl = 10, swr = 20, cache = self.cache)]
    async fn swr(&self, id: u8, market: &str) -> Result<u32, Failed> {
        assert_eq!(market, "XETR");
        self.load().await
    }

    #[cached(resource = "prices", op = "timely", ttl = 10, stale_if_error = 20, timeout = "2s", cache = self.cache)]
    async fn timely(&self, id: u8) -> Result<u32, Failed> {
        self.load().await
    }

    #[cached(resource = "prices", op = "early", ttl = 10, early = 1.0, skip(takes), cache = self.cache)]
    async fn early(&self, id: u8, takes: Duration) -> Result<u32, Failed> {
        tokio::time::sleep(takes).await;
        self.load().await
    }

    async fn load_many(&self, ids: &[u8], takes: Duration) -> Result<HashMap<u8, u32>, Failed> {
        tokio::time::sleep(takes).await;
        let load = self.load().await?;
        Ok(ids.iter().map(|id| (*id, load)).collect())
    }

    #[cached(resource = "quotes", batch = ids, ttl = 10, stale_if_error = 20, cache = self.cache)]
    async fn quotes(&self, ids: &[u8]) -> Result<HashMap<u8, u32>, Failed> {
        self.load_many(ids, Duration::ZERO).await
    }

    #[cached(resource = "bids", batch = ids, ttl = 10, early = 1.0, skip(takes), cache = self.cache)]
    async fn bids(&self, ids: &[u8], takes: Duration) -> Result<HashMap<u8, u32>, Failed> {
        self.load_many(ids, takes).await
    }

    #[cached(resource = "prices", op = "jitter", ttl = 100, jitter = 0.5, cache = self.cache)]
    async fn jittered(&self, id: u32) -> Result<u32, Failed> {
        self.load().await
    }

    #[cached(resource = "prices", op = "said", ttl = 10, context = load, cache = self.cache)]
    async fn said(&self, id: u8) -> Result<u32, Failed> {
        match id {
            0 => load.no_store(),
            seconds => load.ttl(seconds),
        }
        self.load().await
    }

    #[invalidates("prices", cache = self.cache)]
    async fn change(&self) -> Result<(), Failed> {
        Ok(())
    }
}

/// In whole seconds: a timer fires at a whole millisecond of the runtime, the clock counts those
/// since it was first read.
async fn seen<T>(call: impl Future<Output = T>) -> (T, Status) {
    let (value, outcomes) = observe(call).await;
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    let status = match outcomes[0].status {
        Status::Stale { past, reason } => stale(reason, past.as_secs_f64().round() as u64),
        other => other,
    };
    (value, status)
}

fn stale(reason: StaleReason, past: u64) -> Status {
    Status::Stale {
        past: Duration::from_secs(past),
        reason,
    }
}

const LOADED: Status = Status::Miss {
    stored: true,
    joined: false,
};

#[tokio::test(start_paused = true)]
async fn an_error_is_answered_by_what_is_past_its_time() {
    let cache = TestCache::new();
    let prices = Prices::new(&cache);
    assert_eq!(seen(prices.kept(1)).await, (Ok(1), LOADED));
    prices.fails(true);
    cache.advance(15 * SECOND);
    assert_eq!(
        seen(prices.kept(1)).await,
        (Ok(1), stale(StaleReason::LoadFailed, 5))
    );
    assert_eq!(prices.loads(), 2);
    // The source is asked each time, and what it says counts as soon as it says something.
    prices.fails(false);
    assert_eq!(seen(prices.kept(1)).await, (Ok(3), LOADED));

    prices.fails(true);
    cache.advance(31 * SECOND);
    assert_eq!(prices.kept(1).await, Err(Failed));
    let stats = cache.get_stats().await;
    assert_eq!(stats.counters.stale_served, 1);
}

#[tokio::test(start_paused = true)]
async fn without_being_asked_to_nothing_is_kept() {
    let cache = TestCache::new();
    let prices = Prices::new(&cache);
    assert_eq!(prices.plain(1).await, Ok(1));
    prices.fails(true);
    cache.advance(11 * SECOND);
    assert_eq!(prices.plain(1).await, Err(Failed));
}

#[tokio::test(start_paused = true)]
async fn the_configuration_asks_for_all() {
    let cache = TestCache::with(CacheConfig::default().stale_if_error(20 * SECOND));
    let prices = Prices::new(&cache);
    assert_eq!(prices.plain(1).await, Ok(1));
    prices.fails(true);
    cache.advance(11 * SECOND);
    assert_eq!(prices.plain(1).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn invalidated_entries_are_never_served() {
    let cache = TestCache::new();
    let prices = Prices::new(&cache);
    for load in [
        prices.kept(1).await,
        prices.swr(1, "XETR").await,
        prices.timely(1).await,
    ] {
        assert!(load.is_ok());
    }
    cache.advance(11 * SECOND);
    prices.change().await.expect("written");
    prices.fails(true);
    assert_eq!(prices.kept(1).await, Err(Failed));
    assert_eq!(prices.swr(1, "XETR").await, Err(Failed));
    assert_eq!(prices.timely(1).await, Err(Failed));
}

#[tokio::test(start_paused = true)]
async fn expired_entries_are_served_while_a_new_value_is_loaded() {
    let cache = TestCache::new();
    let prices = Prices::gated(&cache);
    prices.let_through(1);
    assert_eq!(seen(prices.swr(1, "XETR")).await, (Ok(1), LOADED));
    prices.end_of_load().await;
    cache.advance(15 * SECOND);
    // The load stands at the gate, and nobody waits for it.
    for _ in 0..3 {
        assert_eq!(
            seen(prices.swr(1, "XETR")).await,
            (Ok(1), stale(StaleReason::Revalidating, 5))
        );
    }
    prices.let_through(1);
    prices.end_of_load().await;
    let (value, status) = seen(prices.swr(1, "XETR")).await;
    assert_eq!(value, Ok(2));
    assert!(matches!(status, Status::Hit { .. }), "{status:?}");
    assert_eq!(prices.loads(), 2);
    let stats = cache.get_stats().await.counters;
    assert_eq!(
        (stats.refreshes, stats.stale_served, stats.misses),
        (1, 3, 1)
    );

    // Past that, too, everybody waits.
    cache.advance(31 * SECOND);
    prices.let_through(1);
    assert_eq!(seen(prices.swr(1, "XETR")).await, (Ok(3), LOADED));
}

#[tokio::test(start_paused = true)]
async fn a_background_load_that_began_before_an_invalidation_is_not_stored() {
    let cache = TestCache::new();
    let prices = Prices::gated(&cache);
    prices.let_through(1);
    assert_eq!(prices.swr(1, "XETR").await, Ok(1));
    prices.end_of_load().await;
    cache.advance(15 * SECOND);
    assert_eq!(prices.swr(1, "XETR").await, Ok(1));
    tokio::task::yield_now().await;
    prices.change().await.expect("written");
    prices.let_through(1);
    prices.end_of_load().await;
    prices.let_through(1);
    assert_eq!(seen(prices.swr(1, "XETR")).await, (Ok(3), LOADED));
}

#[tokio::test(start_paused = true)]
async fn a_slow_load_goes_on_while_what_is_past_its_time_is_served() {
    let cache = TestCache::new();
    let prices = Prices::gated(&cache);
    prices.let_through(1);
    assert_eq!(prices.timely(1).await, Ok(1));
    prices.end_of_load().await;
    cache.advance(15 * SECOND);
    // Paused time goes on by itself where everybody waits.
    let before = tokio::time::Instant::now();
    assert_eq!(
        seen(prices.timely(1)).await,
        (Ok(1), stale(StaleReason::LoadSlow, 5))
    );
    assert_eq!(before.elapsed().as_secs(), 2);
    // One who meets the load waits no longer.
    assert_eq!(
        seen(prices.timely(1)).await.1,
        stale(StaleReason::LoadSlow, 7)
    );
    prices.let_through(1);
    prices.end_of_load().await;
    assert_eq!(prices.timely(1).await, Ok(2));
    assert_eq!(prices.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_failing_load_have_what_is_past_its_time() {
    let cache = TestCache::new();
    let prices = Prices::gated(&cache);
    prices.let_through(1);
    assert_eq!(prices.kept(1).await, Ok(1));
    cache.advance(15 * SECOND);
    prices.fails(true);
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let prices = prices.clone();
            cache_tests::spawn(async move { seen(prices.kept(1)).await })
        })
        .collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    prices.let_through(1);
    for caller in callers {
        assert_eq!(
            caller.await.expect("answered"),
            (Ok(1), stale(StaleReason::LoadFailed, 5))
        );
    }
    assert_eq!(prices.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn entries_that_take_long_to_load_are_loaded_before_their_time_is_over() {
    let cache = TestCache::new();
    let prices = Prices::new(&cache);
    // A load as long as its time to live is due from the start, more often than not; one of no time
    // never is.
    let read_often = async |id, takes| {
        let before = prices.loads();
        for _ in 0..200 {
            assert!(prices.early(id, takes).await.is_ok());
            // A lease is given back by another task.
            tokio::task::yield_now().await;
        }
        prices.loads() - before
    };
    assert!(read_often(1, 10 * SECOND).await > 10);
    assert_eq!(read_often(2, Duration::ZERO).await, 1);

    // Whoever loads early has something to serve if that fails.
    prices.fails(true);
    assert!(read_often(1, Duration::ZERO).await > 10);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_loads_early_fails_only_if_an_entry_is_gone() {
    let cache = TestCache::new();
    let prices = Prices::new(&cache);
    let read_often = async |takes| {
        let before = prices.loads();
        for _ in 0..200 {
            let bids = prices.bids(&[1, 2, 3], takes).await;
            assert_eq!(bids.map(|bids| bids.len()), Ok(3));
            // A lease is given back by another task.
            tokio::task::yield_now().await;
        }
        prices.loads() - before
    };
    assert!(read_often(10 * SECOND).await > 10);
    // All of them are live, and have taken long to load.
    assert!(refresh(prices.bids(&[1, 2, 3], 10 * SECOND)).await.is_ok());
    prices.fails(true);
    assert!(read_often(Duration::ZERO).await > 10);
    cache.advance(11 * SECOND);
    assert_eq!(prices.bids(&[1, 2, 3], Duration::ZERO).await, Err(Failed));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_batch_is_answered_by_what_is_past_its_time() {
    let cache = TestCache::new();
    let prices = Prices::new(&cache);
    let quotes = |ids: &[u8], load: u32| Ok(ids.iter().map(|id| (*id, load)).collect());
    let (loaded, status) = seen(prices.quotes(&[1, 2])).await;
    assert_eq!((loaded, status), (quotes(&[1, 2], 1), LOADED));
    prices.fails(true);
    cache.advance(15 * SECOND);
    assert_eq!(
        seen(prices.quotes(&[1, 2])).await,
        (quotes(&[1, 2], 1), stale(StaleReason::LoadFailed, 5))
    );
    // Nothing is known of the third one.
    assert_eq!(prices.quotes(&[1, 2, 3]).await, Err(Failed));
    // A new one and an expired one.
    prices.fails(false);
    assert_eq!(prices.quotes(&[1]).await, quotes(&[1], 4));
    prices.fails(true);
    let both = prices.quotes(&[1, 2]).await.expect("served");
    assert_eq!(both, HashMap::from([(1, 4), (2, 1)]));
    // What was invalidated is not served.
    let _ = cache.invalidate("quotes", &2_u8).await;
    assert_eq!(prices.quotes(&[1, 2]).await, Err(Failed));
}

#[tokio::test(start_paused = true)]
async fn times_to_live_are_spread() {
    let cache = TestCache::new();
    let prices = Prices::new(&cache);
    for id in 0..200 {
        assert!(prices.jittered(id).await.is_ok());
    }
    cache.advance(75 * SECOND);
    let mut hits = 0;
    for id in 0..200 {
        let (_, status) = seen(prices.jittered(id)).await;
        hits += u32::from(matches!(status, Status::Hit { .. }));
    }
    // Each with an even chance: outside once in 10^12 runs.
    assert!((50..150).contains(&hits), "{hits}");
}

#[tokio::test(start_paused = true)]
async fn the_body_says_for_how_long() {
    let cache = TestCache::new();
    let prices = Prices::new(&cache);
    for _ in 0..2 {
        let (_, status) = seen(prices.said(0)).await;
        assert_eq!(
            status,
            Status::Miss {
                stored: false,
                joined: false
            }
        );
    }
    assert_eq!(seen(prices.said(60)).await, (Ok(3), LOADED));
    cache.advance(50 * SECOND);
    assert_eq!(prices.said(60).await, Ok(3));
    cache.advance(11 * SECOND);
    assert_eq!(prices.said(60).await, Ok(4));
}

#[tokio::test(start_paused = true)]
async fn an_operator_shortens_what_the_body_says() {
    let cache = TestCache::with(CacheConfig::default().ttl_of("prices", 20 * SECOND));
    let prices = Prices::new(&cache);
    assert_eq!(prices.said(60).await, Ok(1));
    cache.advance(21 * SECOND);
    assert_eq!(prices.said(60).await, Ok(2));
}

/// Rows that a test sets, in functions that do not store everything that they load.
#[derive(Clone)]
struct Rows {
    cache: Cache,
    now: Arc<Mutex<Result<Option<u32>, Failed>>>,
}

impl Rows {
    fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            now: Arc::new(Mutex::new(Ok(Some(1)))),
        }
    }

    fn are(&self, now: Result<Option<u32>, Failed>) {
        *self.now.lock().expect("no panic") = now;
    }

    fn load(&self) -> Result<Option<u32>, Failed> {
        self.now.lock().expect("no panic").clone()
    }

    #[cached(resource = "rows", op = "kept", ttl = 10, stale_if_error = 20, cache_none = false, cache = self.cache)]
    async fn kept(&self, id: u8) -> Result<Option<u32>, Failed> {
        self.load()
    }

    #[cached(resource = "rows", op = "swr", ttl = 10, swr = 20, unless = |row| *row > 1, cache = self.cache)]
    async fn swr(&self, id: u8) -> Result<Option<u32>, Failed> {
        self.load()
    }

    #[cached(resource = "rows", op = "early", ttl = 10, early = 1e9, context = load, cache = self.cache)]
    async fn early(&self, id: u8) -> Result<Option<u32>, Failed> {
        tokio::time::sleep(SECOND).await;
        let row = self.load();
        if row != Ok(Some(1)) {
            load.no_store();
        }
        row
    }

    #[cached(resource = "rows", op = "named", ttl = 10, stale_if_error = 20, unless = |row| *row > 1, context = load, cache = self.cache)]
    async fn named(&self, id: u8) -> Result<Option<u32>, Failed> {
        let row = self.load();
        if row == Ok(Some(2)) {
            load.tag("two");
        }
        row
    }

    #[cached(resource = "many", batch = ids, ttl = 10, stale_if_error = 20, cache_none = false, cache = self.cache)]
    async fn many(&self, ids: &[u8]) -> Result<HashMap<u8, u32>, Failed> {
        let row = self.load()?;
        Ok(ids.iter().filter_map(|id| Some((*id, row?))).collect())
    }

    #[cached(resource = "rows", op = "absent", ttl = 60, none_ttl = 2, context = load, cache = self.cache)]
    async fn absent(&self, id: u8) -> Result<Option<u32>, Failed> {
        load.ttl(u64::from(id));
        self.load()
    }

    #[cached(resource = "rows", op = "said", ttl = 60, context = load, cache = self.cache)]
    async fn said(&self, id: u8) -> Result<Option<u32>, Failed> {
        load.ttl(u64::from(id));
        self.load()
    }
}

// A load has shown that the row is another one, or gone. That is not stored, and the older value
// must not come back. (Caffeine removes an entry whose refresh returns null.)
#[tokio::test(start_paused = true)]
async fn no_older_value_comes_back_after_a_load_that_is_not_stored() {
    let cache = TestCache::new();
    let rows = Rows::new(&cache);
    let both = || Ok(HashMap::from([(1, 1), (2, 1)]));
    assert_eq!(rows.kept(1).await, Ok(Some(1)));
    assert_eq!(rows.named(1).await, Ok(Some(1)));
    assert_eq!(rows.many(&[1, 2]).await, both());
    assert_eq!(rows.swr(1).await, Ok(Some(1)));
    cache.advance(15 * SECOND);
    rows.are(Err(Failed));
    assert_eq!(rows.kept(1).await, Ok(Some(1)));
    assert_eq!(rows.named(1).await, Ok(Some(1)));
    assert_eq!(rows.many(&[1, 2]).await, both());

    rows.are(Ok(None));
    assert_eq!(rows.kept(1).await, Ok(None));
    assert_eq!(rows.many(&[1, 2]).await, Ok(HashMap::new()));
    rows.are(Ok(Some(2)));
    assert_eq!(rows.named(1).await, Ok(Some(2)));
    // Loaded in the background.
    assert_eq!(rows.swr(1).await, Ok(Some(1)));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rows.swr(1).await, Ok(Some(2)));

    rows.are(Err(Failed));
    assert_eq!(rows.kept(1).await, Err(Failed));
    assert_eq!(rows.named(1).await, Err(Failed));
    assert_eq!(rows.many(&[1, 2]).await, Err(Failed));
}

#[tokio::test(start_paused = true)]
async fn nor_does_one_that_has_not_expired_after_an_early_load() {
    let cache = TestCache::new();
    let rows = Rows::new(&cache);
    assert_eq!(rows.early(1).await, Ok(Some(1)));
    rows.are(Ok(Some(2)));
    let mut last = rows.early(1).await;
    for _ in 0..20 {
        let row = rows.early(1).await;
        assert!(row >= last, "{row:?} after {last:?}");
        last = row;
    }
    assert_eq!(last, Ok(Some(2)));
}

#[tokio::test(start_paused = true)]
async fn what_the_body_says_is_no_longer_than_none_ttl() {
    let cache = TestCache::new();
    let rows = Rows::new(&cache);
    rows.are(Ok(None));
    for id in [1, 60] {
        assert_eq!(rows.absent(id).await, Ok(None));
    }
    assert_eq!(rows.said(60).await, Ok(None));
    rows.are(Ok(Some(1)));
    cache.advance(Duration::from_millis(1_500));
    assert_eq!(rows.absent(1).await, Ok(Some(1)));
    assert_eq!(rows.absent(60).await, Ok(None));
    cache.advance(SECOND);
    assert_eq!(rows.absent(60).await, Ok(Some(1)));
    // Without `none_ttl` the body decides.
    cache.advance(50 * SECOND);
    assert_eq!(rows.said(60).await, Ok(None));
    cache.advance(10 * SECOND);
    assert_eq!(rows.said(60).await, Ok(Some(1)));
}

// A refresh that fails leaves what there was for those who may have it in place of an error.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_leaves_what_there_was() {
    let cache = TestCache::new();
    let rows = Rows::new(&cache);
    assert_eq!(rows.kept(1).await, Ok(Some(1)));
    assert_eq!(rows.many(&[1]).await, Ok(HashMap::from([(1, 1)])));
    rows.are(Err(Failed));
    assert_eq!(refresh(rows.kept(1)).await, Err(Failed));
    assert_eq!(refresh(rows.many(&[1])).await, Err(Failed));
    cache.advance(5 * SECOND);
    let (row, status) = seen(rows.kept(1)).await;
    assert_eq!(row, Ok(Some(1)));
    assert_eq!(status, stale(StaleReason::LoadFailed, 5));
    assert_eq!(rows.many(&[1]).await, Ok(HashMap::from([(1, 1)])));
    // For as long as if it had expired then.
    cache.advance(16 * SECOND);
    assert_eq!(rows.kept(1).await, Err(Failed));

    // Another value ends it, and so does an invalidation.
    rows.are(Ok(Some(1)));
    assert_eq!(rows.kept(2).await, Ok(Some(1)));
    assert_eq!(rows.kept(3).await, Ok(Some(1)));
    rows.are(Ok(None));
    assert_eq!(refresh(rows.kept(2)).await, Ok(None));
    rows.are(Err(Failed));
    assert_eq!(rows.kept(2).await, Err(Failed));
    assert_eq!(refresh(rows.kept(3)).await, Err(Failed));
    let _ = cache.invalidate_all("rows").await;
    assert_eq!(rows.kept(3).await, Err(Failed));

    // What has not to be served past its time is gone.
    let prices = Prices::new(&cache);
    assert_eq!(prices.plain(1).await, Ok(1));
    prices.fails(true);
    assert_eq!(refresh(prices.plain(1)).await, Err(Failed));
    assert_eq!(prices.plain(1).await, Err(Failed));
}
