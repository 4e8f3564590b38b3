//! Many rows at once: each under its own key, with a lease of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_runtime::{Cache, CacheConfig, Lint, LintKind, Status, cached, catalog, observe};
use cache_tests::{RedisServer, eventually};
use serde::Serialize;

use crate::shop::{DbError, Fault, Gate, Shop, User};
use crate::{Pair, bounded, over, over_each_store, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

over_each_store! {
    the_body_is_given_what_missed;
    rows_are_shared_with_the_function_that_reads_one;
    absences_are_known;
    a_late_batch_is_not_served_after_the_invalidation_of_a_row;
    a_late_batch_is_not_served_after_a_whole_invalidation;
    an_error_is_not_stored_and_frees_every_row;
    a_cancelled_batch_frees_every_row;
    the_same_batch_at_once_runs_once;
    batches_that_overlap_do_not_wait_for_each_other;
    a_batch_waits_for_the_load_of_one_row;
    a_batch_that_returns_more_than_asked_is_not_kept;
}

fn names(rows: &Result<HashMap<i64, User>, DbError>) -> Vec<(i64, &str)> {
    let rows = rows.as_ref().expect("read");
    let mut names: Vec<_> = rows
        .iter()
        .map(|(id, user)| (*id, user.name.as_str()))
        .collect();
    names.sort_unstable();
    names
}

async fn the_body_is_given_what_missed(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let first = shop.get_many(&[2, 1, 2]).await;
    assert_eq!(names(&first), [(1, "user 1"), (2, "user 2")]);
    assert_eq!(
        shop.asked(),
        [[2, 1]],
        "each id once, in the order of the caller"
    );

    let (second, outcomes) = observe(shop.node(&pair.b).get_many(&[1, 2, 3])).await;
    assert_eq!(
        names(&second),
        [(1, "user 1"), (2, "user 2"), (3, "user 3")]
    );
    assert_eq!(shop.asked(), [[3]]);
    assert!(
        matches!(outcomes[0].status, Status::Miss { stored: true, .. }),
        "{outcomes:?}"
    );

    let (third, outcomes) = observe(shop.get_many(&[3, 1])).await;
    assert_eq!(names(&third), [(1, "user 1"), (3, "user 3")]);
    assert!(
        matches!(outcomes[0].status, Status::Hit { .. }),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[0].key, "users:3 users:1");
    assert_eq!(
        shop.asked(),
        [] as [Vec<i64>; 0],
        "nothing missed, nothing runs"
    );
}

async fn rows_are_shared_with_the_function_that_reads_one(pair: Pair) {
    let shop = Shop::new(&pair.a);
    shop.get_many(&[1, 2]).await.expect("read");
    assert_eq!(shop.name(1).await, "user 1");
    assert_eq!(shop.loads(), 1);

    shop.name(3).await;
    shop.asked();
    shop.get_many(&[2, 3]).await.expect("read");
    assert_eq!(shop.asked(), [] as [Vec<i64>; 0]);
}

async fn absences_are_known(pair: Pair) {
    let shop = Shop::new(&pair.a);
    assert_eq!(names(&shop.get_many(&[1, 9]).await), [(1, "user 1")]);
    assert_eq!(names(&shop.get_many(&[9, 1]).await), [(1, "user 1")]);
    assert_eq!(shop.get(9).await, Ok(None));
    assert_eq!(shop.loads(), 1);

    shop.commit(9, "nine");
    shop.rename(9, "nine").await.expect("written");
    assert_eq!(
        names(&shop.get_many(&[9, 1]).await),
        [(1, "user 1"), (9, "nine")]
    );
}

/// A batch held after it has read, while `write` happens on another node.
async fn late(pair: &Pair, write: impl AsyncFnOnce(Shop)) -> Shop {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let held = shop.with_read_gate(&gate);
    let load = cache_tests::spawn(async move { held.get_many(&[1, 2]).await });
    gate.arrival().await;
    write(shop.node(&pair.b)).await;
    gate.open();
    assert_eq!(
        names(&load.await.expect("the load ends")),
        [(1, "user 1"), (2, "user 2")],
        "whoever was there before may get what was there before"
    );
    shop.asked();
    shop
}

async fn a_late_batch_is_not_served_after_the_invalidation_of_a_row(pair: Pair) {
    let shop = late(&pair, async |other| {
        other.rename(1, "renamed").await.expect("written");
    })
    .await;
    assert_eq!(
        names(&shop.get_many(&[1, 2]).await),
        [(1, "renamed"), (2, "user 2")]
    );
    assert_eq!(shop.asked(), [[1]], "the other row was stored");
}

async fn a_late_batch_is_not_served_after_a_whole_invalidation(pair: Pair) {
    let shop = late(&pair, async |other| {
        other.rename_in_bulk(1, "renamed").await.expect("written");
    })
    .await;
    assert_eq!(
        names(&shop.get_many(&[1, 2]).await),
        [(1, "renamed"), (2, "user 2")]
    );
    assert_eq!(shop.asked(), [[1, 2]]);
}

async fn an_error_is_not_stored_and_frees_every_row(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let failing = shop.with_fault(Fault::LostBeforeCommit);
    assert_eq!(
        failing.get_many(&[1, 2]).await,
        Err(DbError::ConnectionLost)
    );
    let (rows, outcomes) = observe(shop.get_many(&[1, 2])).await;
    assert_eq!(names(&rows), [(1, "user 1"), (2, "user 2")]);
    assert!(
        matches!(outcomes[0].status, Status::Miss { stored: true, .. }),
        "{outcomes:?}"
    );
}

async fn a_cancelled_batch_frees_every_row(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let held = shop.with_read_gate(&gate);
    let load = cache_tests::spawn(async move { held.get_many(&[1, 2]).await });
    gate.arrival().await;
    load.abort();
    load.await.expect_err("aborted");
    // Whoever comes meets leases that are being given back, waits for that, and then loads for
    // everybody.
    let (rows, outcomes) = observe(shop.get_many(&[1, 2])).await;
    assert_eq!(names(&rows), [(1, "user 1"), (2, "user 2")]);
    assert!(
        matches!(outcomes[0].status, Status::Miss { stored: true, .. }),
        "{outcomes:?}"
    );
}

async fn the_same_batch_at_once_runs_once(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let held = shop.with_read_gate(&gate);
    let first = cache_tests::spawn(async move { held.get_many(&[1, 2, 3]).await });
    gate.arrival().await;
    let others: Vec<_> = (0..20)
        .map(|n| {
            let node = shop.node(if n % 2 == 0 { &pair.a } else { &pair.b });
            cache_tests::spawn(async move { node.get_many(&[1, 2, 3]).await })
        })
        .collect();
    gate.open();
    let expected = names(&first.await.expect("ends")).len();
    for other in others {
        assert_eq!(names(&other.await.expect("ends")).len(), expected);
    }
    // Memcached takes no several leases in one step, so batches may each get some.
    if pair.memcached.is_none() {
        assert_eq!(shop.asked(), [[1, 2, 3]]);
    }
}

async fn batches_that_overlap_do_not_wait_for_each_other(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let (here, there) = (Gate::new(), Gate::new());
    let (first, second) = (
        shop.with_read_gate(&here),
        shop.node(&pair.b).with_read_gate(&there),
    );
    let first = cache_tests::spawn(async move { first.get_many(&[1, 2]).await });
    here.arrival().await;
    // It has a row of its own to load, so it loads the other's as well, and is not held up by it.
    let second = cache_tests::spawn(async move { second.get_many(&[2, 3]).await });
    there.arrival().await;
    there.open();
    let second = second.await.expect("ends while the first is still held");
    assert_eq!(names(&second), [(2, "user 2"), (3, "user 3")]);
    here.open();
    assert_eq!(
        names(&first.await.expect("ends")),
        [(1, "user 1"), (2, "user 2")]
    );
    assert_eq!(shop.asked(), [[1, 2], [2, 3]]);
    shop.get_many(&[1, 2, 3]).await.expect("read");
    assert_eq!(
        shop.asked(),
        [] as [Vec<i64>; 0],
        "and each stored what it had the lease of"
    );
}

async fn a_batch_waits_for_the_load_of_one_row(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let held = shop.with_read_gate(&gate);
    let load = cache_tests::spawn(async move { held.get(1).await });
    gate.arrival().await;
    let batch = cache_tests::spawn({
        let shop = shop.clone();
        async move { shop.get_many(&[1]).await }
    });
    gate.open();
    assert_eq!(
        load.await
            .expect("ends")
            .expect("read")
            .expect("there")
            .name,
        "user 1"
    );
    assert_eq!(names(&batch.await.expect("ends")), [(1, "user 1")]);
    assert_eq!(shop.asked(), [] as [Vec<i64>; 0]);
}

#[tokio::test]
async fn a_batch_of_hits_is_one_command() {
    let server = RedisServer::start();
    let cache = Cache::new(over(&server)).await;
    let shop = Shop::new(&cache);
    shop.get_many(&[1, 2, 3]).await.expect("read");
    server.cli(&["CONFIG", "RESETSTAT"]);
    shop.get_many(&[1, 2, 3]).await.expect("read");
    let stats = server.cli(&["INFO", "commandstats"]);
    let calls: Vec<&str> = stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_"))
        .filter(|line| !line.starts_with("info") && !line.starts_with("config"))
        .filter_map(|line| line.split(',').next())
        .collect();
    assert_eq!(calls, ["mget:calls=1"]);
}

#[tokio::test]
async fn ids_past_one_command_are_read_in_several() {
    let server = RedisServer::start();
    let cache = Cache::new(over(&server)).await;
    let shop = Shop::new(&cache);
    let ids: Vec<i64> = (1..=600).collect();
    let asked: Arc<[i64]> = ids.as_slice().into();
    assert_eq!(names(&shop.get_many(&ids).await).len(), 3);
    assert_eq!(shop.asked(), [asked.to_vec()]);
    assert_eq!(names(&shop.get_many(&ids).await).len(), 3);
    assert_eq!(shop.asked(), [] as [Vec<i64>; 0], "597 absences are kept");
}

#[tokio::test]
async fn a_large_batch_is_stored_as_a_whole_in_few_commands() {
    let server = RedisServer::start();
    // Nothing else asks in the same way, but for the write of each second that asks for health.
    let config = over(&server).lease(Duration::from_secs(60));
    let cache = Cache::new(config).await;
    let shop = Shop::new(&cache);
    // The scripts are known from here on.
    shop.get_many(&[1]).await.expect("read");
    server.cli(&["CONFIG", "RESETSTAT"]);
    let ids: Vec<i64> = (1..=5_001).collect();
    shop.get_many(&ids).await.expect("read");
    assert_eq!(shop.asked().pop().expect("it ran").len(), 5_000);
    assert_eq!(cache.get_stats().await.counters.fills, 5_001);
    assert_eq!(server.calls("mget"), 20);
    let scripts = server.calls("evalsha");
    assert!(
        (40..80).contains(&scripts),
        "leases and values, 20 each: {scripts}"
    );
    shop.get_many(&ids).await.expect("read");
    assert_eq!(shop.asked(), [] as [Vec<i64>; 0]);
}

#[tokio::test]
async fn the_leases_of_a_batch_are_renewed() {
    let server = RedisServer::start();
    let cache = Cache::new(over(&server).lease(Duration::from_secs(1))).await;
    let shop = Shop::new(&cache);
    let gate = Gate::new();
    let held = shop.with_read_gate(&gate);
    let load = cache_tests::spawn(async move { held.get_many(&[1, 2]).await });
    gate.arrival().await;
    let leases = || [1, 2].map(|id| server.cli(&["GET", &format!("users:{id}")]));
    let first = leases();
    eventually(Duration::from_secs(20), async || {
        let now = leases();
        now[0] != first[0] && now[1] != first[1]
    })
    .await;
    gate.open();
    load.await.expect("ends").expect("read");
    assert_eq!(cache.get_stats().await.counters.fills, 2);
}

/// Loads of rows 1 and 2 in one process, each held at a gate.
async fn two_held_loads(shop: &Shop) -> [(Arc<Gate>, Load); 2] {
    let loads = [1, 2].map(async |id| {
        let gate = Gate::new();
        let held = shop.with_read_gate(&gate);
        let load = cache_tests::spawn(async move { held.get(id).await });
        gate.arrival().await;
        (gate, load)
    });
    let [first, second] = loads;
    [first.await, second.await]
}

type Load = tokio::task::JoinHandle<Result<Option<User>, DbError>>;

/// Longer than any test: who waits for what does not come hangs.
const LONG: Duration = Duration::from_secs(3600);

fn waiting_long(config: CacheConfig) -> CacheConfig {
    config.wait_limit(LONG)
}

#[tokio::test]
async fn a_waiter_beside_a_batch_gets_its_row() {
    bounded(async {
        let server = RedisServer::start();
        let config = over(&server);
        let shop = Shop::new(&Cache::new(config.clone()).await);
        let [(first, _), (second, _)] = two_held_loads(&shop).await;
        let here = shop.node(&Cache::new(waiting_long(config)).await);
        let batch = cache_tests::spawn({
            let here = here.clone();
            async move { here.get_many(&[1, 2]).await }
        });
        // It looks after both loads from here on.
        eventually(TEST_TIMEOUT, async || server.calls("client|caching") == 2).await;
        let one = cache_tests::spawn({
            let here = here.clone();
            async move { here.get(1).await }
        });
        // Its look is answered before those that follow on the same connection.
        for _ in 0..3 {
            here.get(3).await.expect("read");
        }
        first.open();
        let row = one.await.expect("answered").expect("read");
        assert_eq!(row.expect("there").name, "user 1");
        second.open();
        let rows = batch.await.expect("answered");
        assert_eq!(names(&rows), [(1, "user 1"), (2, "user 2")]);
        assert_eq!(shop.asked(), [] as [Vec<i64>; 0]);
    })
    .await;
}

/// One of the loads that a batch waits for is given up: the batch has a lease then, and others may
/// wait for it.
async fn a_batch_that_gets_a_lease_waits_no_longer(a: Cache, b: Cache) {
    let shop = Shop::new(&a);
    let [(_, first), (gate, second)] = two_held_loads(&shop).await;
    let here = shop.node(&b);
    let batch = cache_tests::spawn(async move { here.get_many(&[1, 2]).await });
    // It can't say that it waits: give it the turns it needs to get there.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    first.abort();
    let rows = batch
        .await
        .expect("ends while the second load is still held");
    assert_eq!(names(&rows), [(1, "user 1"), (2, "user 2")]);
    assert_eq!(shop.asked(), [[1, 2]]);
    // It has stored what it had the lease of, and the other load what that had.
    let counters = async |cache: &Cache| cache.get_stats().await.counters;
    let fills = counters(&b).await.fills;
    gate.open();
    second.await.expect("ends").expect("read");
    assert_eq!((fills, counters(&a).await.fills_refused), (1, 0));
    shop.get_many(&[1, 2]).await.expect("read");
    assert_eq!(shop.asked(), [] as [Vec<i64>; 0]);
}

#[tokio::test]
async fn a_batch_that_gets_a_lease_waits_no_longer_in_memory() {
    bounded(async {
        let cache = Cache::new(waiting_long(patient().local_mb(16))).await;
        a_batch_that_gets_a_lease_waits_no_longer(cache.clone(), cache).await;
    })
    .await;
}

// In memory, where both leases are known to be given up before the batch can look.
#[tokio::test]
async fn a_batch_takes_all_leases_that_are_given_back() {
    bounded(async {
        let cache = Cache::new(waiting_long(patient().local_mb(16))).await;
        let shop = Shop::new(&cache);
        let [(_, first), (_, second)] = two_held_loads(&shop).await;
        let here = shop.clone();
        let batch = cache_tests::spawn(async move { here.get_many(&[1, 2]).await });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        first.abort();
        second.abort();
        batch.await.expect("ends").expect("read");
        assert_eq!(shop.asked(), [[1, 2]]);
        assert_eq!(cache.get_stats().await.counters.fills, 2);
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_gets_a_lease_waits_no_longer_over_redis() {
    bounded(async {
        let server = RedisServer::start();
        let node = async || Cache::new(waiting_long(over(&server))).await;
        a_batch_that_gets_a_lease_waits_no_longer(node().await, node().await).await;
    })
    .await;
}

/// More ids than are handled at a time. Those that wait for their turn have not asked yet, so their
/// time has not begun: otherwise they would find their leases free, and have no time left to take
/// them.
#[tokio::test]
async fn ids_that_wait_for_their_turn_have_their_whole_time_left() {
    bounded(async {
        const BUDGET: Duration = Duration::from_secs(1);
        let server = RedisServer::start();
        let config = || {
            over(&server)
                .command_budget(BUDGET)
                .wait_limit(TEST_TIMEOUT)
        };
        let (a, b) = (Cache::new(config()).await, Cache::new(config()).await);
        let shop = Shop::new(&a);
        let other = shop.node(&b);
        let ids: Vec<i64> = (1..=200).collect();
        let gate = Gate::new();
        let (held, all) = (shop.with_read_gate(&gate), ids.clone());
        let load = cache_tests::spawn(async move { held.get_many(&all).await });
        gate.arrival().await;
        let waiting = {
            let (other, ids) = (other.clone(), ids.clone());
            cache_tests::spawn(async move { other.get_many(&ids).await })
        };
        // The first ids wait for longer than one may take.
        tokio::time::sleep(BUDGET * 3 / 2).await;
        load.abort();
        load.await.expect_err("aborted");
        let rows = waiting.await.expect("it does not panic").expect("read");
        assert!(!rows.is_empty());
        let counters = b.get_stats().await.counters;
        assert_eq!(counters.errors, 0, "{counters:?}");
    })
    .await;
}

static CLONES: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, PartialEq, Eq, Hash, Serialize)]
struct CountedId(i64);

impl Clone for CountedId {
    fn clone(&self) -> Self {
        CLONES.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

struct Squares {
    cache: Cache,
}

impl Squares {
    #[cached(resource = "squares", batch = ids, cache = self.cache)]
    async fn many(&self, ids: &[CountedId]) -> HashMap<CountedId, i64> {
        ids.iter().map(|id| (id.clone(), id.0 * id.0)).collect()
    }
}

/// An id may be a long text.
#[tokio::test]
async fn the_id_of_a_hit_is_cloned_for_its_call_and_its_result_only() {
    let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
    let squares = Squares { cache };
    let ids: Vec<_> = (0..50).map(CountedId).collect();
    squares.many(&ids).await;
    let before = CLONES.load(Ordering::Relaxed);
    assert_eq!(squares.many(&ids).await.len(), 50);
    assert_eq!(CLONES.load(Ordering::Relaxed) - before, 2 * 50);
}

/// Its batch knows neighbours, too.
struct Neighbours(Cache);

impl Neighbours {
    #[cached(resource = "neighbours", batch = ids, cache = self.0)]
    async fn many(&self, ids: &[i64]) -> HashMap<i64, i64> {
        ids.iter()
            .flat_map(|id| [(*id, *id), (id + 1, id + 1)])
            .collect()
    }
}

// A hit would have the ids that were asked for alone.
async fn a_batch_that_returns_more_than_asked_is_not_kept(pair: Pair) {
    let neighbours = Neighbours(pair.a.clone());
    let all = HashMap::from([(1, 1), (2, 2)]);
    for _ in 0..2 {
        assert_eq!(neighbours.many(&[1]).await, all);
    }
    let findings = catalog().check();
    let finding = |it: &&Lint| it.kind == LintKind::NotStored && it.text.contains("`many`");
    assert_ne!(findings.iter().find(finding), None, "{findings:?}");
}
