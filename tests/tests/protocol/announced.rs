//! Announced writes: those that ask for it with `crash_safe`, and those whose outcome nobody knows.

use std::time::Duration;

use cache_runtime::{Acknowledgement, BypassReason, Cache, Circuit, ErrorKind, Status, observe};
use cache_tests::{RedisServer, eventually};

use crate::shop::{DbError, Fault, Gate, Shop};
use crate::{Pair, over, over_each_store, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);
const ANNOUNCED: Status = Status::Bypass(BypassReason::WriteInProgress);

over_each_store! {
    while_an_announced_write_runs_nothing_it_concerns_is_served_or_stored;
    an_announcement_of_everything_holds_off_every_reader;
    an_announced_write_that_is_refused_leaves_nothing_announced;
    an_announced_write_that_fails_stays_announced;
    a_load_that_began_before_the_announcement_is_not_served;
    two_announced_writes_do_not_end_each_other;
    other_writes_and_manual_operations_keep_an_announcement;
    a_commit_behind_a_hung_up_caller_is_never_hidden;
    a_required_write_takes_place_while_the_store_answers;
}

async fn status<T>(call: impl Future<Output = T>) -> Status {
    observe(call).await.1[0].status
}

fn is_hit(status: Status) -> bool {
    matches!(status, Status::Hit { .. })
}

/// A write on node `a`, held after its commit.
async fn held<F: Future<Output = Result<crate::shop::User, DbError>> + Send + 'static>(
    shop: &Shop,
    write: impl FnOnce(Shop) -> F,
) -> (std::sync::Arc<Gate>, tokio::task::JoinHandle<F::Output>) {
    let gate = Gate::new();
    let write = cache_tests::spawn(write(shop.with_write_gate(&gate)));
    gate.arrival().await;
    (gate, write)
}

async fn while_an_announced_write_runs_nothing_it_concerns_is_served_or_stored(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    for node in [&shop, &other] {
        node.name(1).await;
        node.name(2).await;
        node.list(0, 1).await.expect("read");
    }
    let (gate, write) = held(&shop, |shop| async move {
        shop.rename_crash_safe(1, "new").await
    })
    .await;
    for node in [&shop, &other] {
        for _ in 0..2 {
            assert_eq!(node.name(1).await, "new", "what is committed is read");
            assert_eq!(status(node.get(1)).await, ANNOUNCED);
            assert_eq!(status(node.list(0, 1)).await, ANNOUNCED);
            assert!(
                is_hit(status(node.get(2)).await),
                "another row is not concerned"
            );
        }
    }
    gate.open();
    write.await.expect("ends").expect("written");
    for node in [&other, &shop] {
        assert_eq!(node.name(1).await, "new");
        assert!(is_hit(status(node.get(1)).await), "and it is cached again");
        assert_eq!(node.list(0, 1).await.expect("read")[0].name, "new");
        assert!(is_hit(status(node.list(0, 1)).await));
    }
}

async fn an_announcement_of_everything_holds_off_every_reader(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    other.name(2).await;
    let (gate, write) = held(&shop, |shop| async move {
        shop.rename_in_bulk_crash_safe(1, "new").await
    })
    .await;
    assert_eq!(status(other.get(2)).await, ANNOUNCED);
    assert_eq!(status(other.get_many(&[1, 2])).await, ANNOUNCED);
    assert_eq!(status(other.count()).await, ANNOUNCED);
    gate.open();
    write.await.expect("ends").expect("written");
    assert_eq!(other.name(2).await, "user 2");
    assert!(is_hit(status(other.get(2)).await));
}

async fn an_announced_write_that_is_refused_leaves_nothing_announced(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let refused = shop
        .with_fault(Fault::Refused)
        .rename_crash_safe(1, "new")
        .await;
    assert_eq!(refused, Err(DbError::Refused));
    let other = shop.node(&pair.b);
    assert_eq!(other.name(1).await, "user 1");
    assert!(is_hit(status(other.get(1)).await));
}

/// The error may hide a commit that is still on its way, and a killed process would not invalidate
/// once more after it.
async fn an_announced_write_that_fails_stays_announced(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let lost = shop.with_fault(Fault::LostBeforeCommit);
    for (id, is_in_block) in [(1, false), (2, true)] {
        let write = lost.rename_crash_safe(id, "new");
        let failed = match is_in_block {
            false => write.await,
            true => pair.a.after_commit(write).await,
        };
        assert_eq!(failed, Err(DbError::ConnectionLost));
        assert_eq!(other.name(id).await, format!("user {id}"));
        assert_eq!(status(other.get(id)).await, ANNOUNCED);
        shop.commit(id, "late");
        assert_eq!(other.name(id).await, "late");
    }
}

async fn a_load_that_began_before_the_announcement_is_not_served(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let reading = Gate::new();
    let reader = other.with_read_gate(&reading);
    let row = cache_tests::spawn({
        let reader = reader.clone();
        async move { reader.get(1).await }
    });
    let list = cache_tests::spawn(async move { reader.list(0, 1).await });
    reading.arrival().await;
    reading.arrival().await;
    let (gate, write) = held(&shop, |shop| async move {
        shop.rename_crash_safe(1, "new").await
    })
    .await;
    reading.open();
    reading.open();
    row.await.expect("ends").expect("read");
    list.await.expect("ends").expect("read");
    gate.open();
    write.await.expect("ends").expect("written");
    assert_eq!(other.name(1).await, "new");
    assert_eq!(other.list(0, 1).await.expect("read")[0].name, "new");
}

async fn two_announced_writes_do_not_end_each_other(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let (one, first) = held(&shop, |shop| async move {
        shop.rename_crash_safe(1, "one").await
    })
    .await;
    let (two, second) = held(&other, |shop| async move {
        shop.rename_crash_safe(1, "two").await
    })
    .await;
    one.open();
    first.await.expect("ends").expect("written");
    assert_eq!(status(shop.get(1)).await, ANNOUNCED);
    assert_eq!(status(shop.list(0, 1)).await, ANNOUNCED);
    two.open();
    second.await.expect("ends").expect("written");
    assert_eq!(shop.name(1).await, "two");
    assert!(is_hit(status(other.get(1)).await));
}

async fn other_writes_and_manual_operations_keep_an_announcement(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let (gate, write) = held(&shop, |shop| async move {
        shop.rename_crash_safe(1, "new").await
    })
    .await;
    other.rename(1, "by another").await.expect("written");
    other
        .rename_in_bulk(2, "by another")
        .await
        .expect("written");
    let cache = &pair.b;
    cache.delete("users:1").await.expect("asked");
    cache.invalidate_pattern("users:*").await.expect("asked");
    cache.clear_all().await.expect("asked");
    let set = cache
        .set("users:1", &shop.get(1).await.expect("read"), 300)
        .await;
    assert_eq!(
        set.expect_err("a write is under way").kind(),
        ErrorKind::Superseded
    );
    assert_eq!(status(other.get(1)).await, ANNOUNCED);
    assert_eq!(status(other.list(0, 1)).await, ANNOUNCED);
    gate.open();
    write.await.expect("ends").expect("written");
    other.name(1).await;
    assert!(is_hit(status(other.get(1)).await));
}

/// The database executes the commit only after the caller has hung up, and after a reader has
/// looked.
async fn a_commit_behind_a_hung_up_caller_is_never_hidden(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    other.name(1).await;
    let gate = Gate::new();
    let write = cache_tests::spawn({
        // What it has committed by the gate is not the point here.
        let shop = shop.with_write_gate(&gate);
        async move { shop.rename(1, "user 1").await }
    });
    gate.arrival().await;
    write.abort();
    assert!(write.await.expect_err("aborted").is_cancelled());
    eventually(TEST_TIMEOUT, async || {
        status(other.get(1)).await == ANNOUNCED
    })
    .await;
    assert_eq!(
        other.name(1).await,
        "user 1",
        "nothing is committed yet, and nothing stored"
    );
    shop.commit(1, "late");
    assert_eq!(other.name(1).await, "late");
    assert_eq!(other.list(0, 1).await.expect("read")[0].name, "late");
}

async fn a_required_write_takes_place_while_the_store_answers(pair: Pair) {
    let shop = Shop::new(&pair.a);
    shop.name(1).await;
    shop.rename_required(1, "new").await.expect("written");
    assert_eq!(shop.name(1).await, "new");
    shop.rename_required_crash_safe(1, "newer")
        .await
        .expect("written");
    assert_eq!(shop.node(&pair.b).name(1).await, "newer");
}

#[tokio::test]
async fn a_required_write_is_refused_while_redis_is_away() {
    let mut server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server)).await);
    shop.name(1).await;
    server.stop();
    let refused = Err(DbError::Cache(ErrorKind::Unavailable));
    assert_eq!(shop.rename_required(1, "new").await, refused);
    assert_eq!(shop.rename_required_crash_safe(1, "new").await, refused);
    assert_eq!(shop.name(1).await, "user 1", "the body did not run");
    shop.rename_crash_safe(1, "new")
        .await
        .expect("goes on without");
    assert_eq!(shop.name(1).await, "new");
    server.restart();
    eventually(TEST_TIMEOUT, async || {
        shop.rename_required(1, "newer").await.is_ok()
    })
    .await;
    assert_eq!(shop.name(1).await, "newer");
}

#[tokio::test]
async fn with_the_cache_off_nothing_is_refused() {
    let shop = Shop::new(&Cache::new(patient()).await);
    shop.rename_required_crash_safe(1, "new")
        .await
        .expect("written");
    assert_eq!(shop.name(1).await, "new");
}

#[tokio::test]
async fn an_announcement_is_renewed_while_the_body_runs() {
    let server = RedisServer::start();
    let cache = Cache::new(over(&server).intent(Duration::from_secs(2))).await;
    let shop = Shop::new(&cache);
    let (gate, write) = held(&shop, |shop| async move {
        shop.rename_crash_safe(1, "new").await
    })
    .await;
    let deadlines = || {
        let row = server.cli(&["GET", "users:1"]);
        let derived = server.cli(&["GET", "@gen:users~derived"]);
        [row, derived].map(|value| {
            let (_, deadline) = value
                .trim()
                .rsplit_once('@')
                .expect("an intent stands there");
            deadline.parse::<u64>().expect("a time")
        })
    };
    let first = deadlines();
    eventually(TEST_TIMEOUT, async || {
        let now = deadlines();
        now[0] > first[0] && now[1] > first[1]
    })
    .await;
    gate.open();
    write.await.expect("ends").expect("written");
}

#[tokio::test]
async fn an_announcement_spares_what_somebody_else_keeps_under_the_rows_key() {
    let server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server)).await);
    server.cli(&["SET", "users:1", "somebody else's"]);
    shop.name(2).await;
    let (gate, write) = held(&shop, |shop| async move {
        shop.rename_crash_safe(1, "new").await
    })
    .await;
    assert_eq!(
        status(shop.get(2)).await,
        ANNOUNCED,
        "it stands on the resource instead"
    );
    gate.open();
    write.await.expect("ends").expect("written");
    shop.name(2).await;
    assert!(is_hit(status(shop.get(2)).await));
    assert_eq!(server.cli(&["GET", "users:1"]).trim(), "somebody else's");
}

/// What nobody has seen yet is not forgotten because somebody clears the cache.
#[tokio::test]
async fn an_announcement_that_waits_is_not_lost_in_a_clearing() {
    let mut server = RedisServer::start();
    let cache = Cache::new(over(&server).in_doubt_window(Duration::from_secs(60))).await;
    let shop = Shop::new(&cache);
    let other = shop.node(&Cache::new(over(&server)).await);
    server.stop();
    let (gate, write) = held(&shop, |shop| async move { shop.rename(1, "new").await }).await;
    write.abort();
    assert!(write.await.expect_err("aborted").is_cancelled());
    drop(gate);
    cache.clear_all().await.expect_err("Redis is away");
    server.restart();
    eventually(TEST_TIMEOUT, async || {
        cache.get_stats().await.counters.pending == 0 && other.cache.is_available().await
    })
    .await;
    assert_eq!(status(other.get(1)).await, ANNOUNCED);
    assert_eq!(status(other.list(0, 1)).await, ANNOUNCED);
}

#[tokio::test]
async fn announced_writes_in_an_outage_leave_no_more_than_others() {
    let mut server = RedisServer::start();
    let cache = Cache::new(over(&server)).await;
    let shop = Shop::new(&cache);
    server.stop();
    let circuit = async || cache.get_stats().await.circuit;
    eventually(TEST_TIMEOUT, async || {
        circuit().await != Some(Circuit::Closed)
    })
    .await;
    for _ in 0..100 {
        shop.rename_crash_safe(1, "new").await.expect("written");
    }
    assert_eq!(
        cache.get_stats().await.counters.pending,
        2,
        "the row, and what is derived"
    );
    server.restart();
    eventually(TEST_TIMEOUT, async || {
        cache.get_stats().await.counters.pending == 0
    })
    .await;
}

#[tokio::test]
async fn without_an_in_doubt_window_a_dropped_write_holds_nothing_up() {
    let server = RedisServer::start();
    let cache = Cache::new(over(&server).in_doubt_window(Duration::ZERO)).await;
    let shop = Shop::new(&cache);
    let (_gate, write) = held(&shop, |shop| async move { shop.rename(1, "new").await }).await;
    write.abort();
    assert!(write.await.expect_err("aborted").is_cancelled());
    eventually(TEST_TIMEOUT, async || {
        cache.get_stats().await.counters.pending == 0
    })
    .await;
    assert_eq!(
        cache.invalidate("users", &2).await,
        Acknowledgement::Delivered
    );
}

#[tokio::test]
async fn writes_that_are_dropped_at_once_are_announced_together() {
    let mut server = RedisServer::start();
    let cache = Cache::new(over(&server).in_doubt_window(Duration::from_secs(60))).await;
    let shop = Shop::new(&cache);
    server.stop();
    let gate = Gate::new();
    let slow = shop.with_write_gate(&gate);
    let mut writes = Vec::new();
    for id in 1..=200 {
        let slow = slow.clone();
        writes.push(cache_tests::spawn(
            async move { slow.rename(id, "new").await },
        ));
        gate.arrival().await;
    }
    for write in writes {
        write.abort();
        assert!(write.await.expect_err("aborted").is_cancelled());
    }
    server.restart();
    eventually(TEST_TIMEOUT, async || {
        cache.get_stats().await.counters.pending == 0
    })
    .await;
    for id in [1, 200] {
        assert_eq!(status(shop.get(id)).await, ANNOUNCED);
    }
    assert_eq!(status(shop.list(0, 1)).await, ANNOUNCED);
    let derived = server.cli(&["GET", "@gen:users~derived"]);
    // The first may have been on its way by itself.
    assert!(derived.matches('@').count() <= 3, "{derived}");
}
