//! Loads in flight: invalidated, joined, cancelled, failing.

use std::sync::Arc;

use cache_runtime::{BypassReason, Cache, Outcome, Status, observe};
use cache_tests::{RedisServer, eventually};

use crate::shop::{DbError, Fault, Gate, Shop};
use crate::{Pair, over_each_store};

use std::time::Duration;

const TEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How many of those whose load has failed may try by themselves at the same time.
const AT_A_TIME: usize = 4;

over_each_store! {
    a_hit_runs_nothing;
    an_absence_is_a_hit_too;
    an_error_is_not_stored;
    a_late_load_of_a_row_is_not_served_after_its_invalidation;
    a_late_load_of_a_list_is_not_served_after_an_invalidation;
    a_late_load_is_not_served_after_a_whole_invalidation;
    a_reader_does_not_join_a_load_that_began_before_the_invalidation;
    readers_join_a_load;
    a_cancelled_load_is_taken_over;
    a_panicking_load_is_taken_over;
    a_failing_load_is_taken_over;
    many_callers_load_once;
}

async fn outcome<T>(call: impl Future<Output = T>) -> Outcome {
    let (_, outcomes) = observe(call).await;
    assert_eq!(outcomes.len(), 1);
    outcomes[0].clone()
}

async fn a_hit_runs_nothing(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let miss = outcome(shop.get(1)).await;
    assert_eq!(
        (miss.key.as_str(), miss.status),
        (
            "users:1",
            Status::Miss {
                stored: true,
                joined: false
            }
        )
    );
    let hit = outcome(other.get(1)).await;
    assert!(
        matches!(hit.status, Status::Hit { ttl } if ttl > Duration::from_secs(290)),
        "{hit:?}"
    );
    assert_eq!(other.get(1).await, shop.get(1).await);
    assert_eq!(shop.loads(), 1);

    assert_eq!(shop.list(0, 2).await.expect("read").len(), 2);
    assert_eq!(
        shop.list(1, 2).await.expect("read").len(),
        2,
        "other arguments, another entry"
    );
    assert_eq!(other.list(0, 2).await, shop.list(0, 2).await);
    assert_eq!(
        (
            *other.count().await.expect("read"),
            *shop.count().await.expect("read")
        ),
        (3, 3)
    );
    assert_eq!(shop.loads(), 4);
}

async fn an_absence_is_a_hit_too(pair: Pair) {
    let shop = Shop::new(&pair.a);
    assert_eq!(shop.get(9).await, Ok(None));
    let hit = outcome(shop.get(9)).await;
    assert!(
        matches!(hit.status, Status::Hit { ttl } if ttl <= Duration::from_secs(30)),
        "{hit:?}"
    );
    assert_eq!(shop.get(9).await, Ok(None));
    assert_eq!(shop.loads(), 1);
    shop.create("four").await.expect("created");
    assert_eq!(shop.name(4).await, "four");
}

async fn an_error_is_not_stored(pair: Pair) {
    let shop = Shop::new(&pair.a);
    assert_eq!(
        shop.with_fault(Fault::LostBeforeCommit).get(1).await,
        Err(DbError::ConnectionLost)
    );
    assert_eq!(shop.name(1).await, "user 1");
    assert_eq!(shop.loads(), 2);
}

/// Holds a load that has read the old row, invalidates, lets the load finish, and reads.
macro_rules! late_load {
    ($shop:expr, $other:expr, $load:expr, $write:expr) => {{
        let gate = Gate::new();
        let held = $shop.with_read_gate(&gate);
        let load = cache_tests::spawn(async move { $load(&held).await });
        gate.arrival().await;
        $write(&$other).await;
        gate.open();
        load.await.expect("the load ends")
    }};
}

async fn a_late_load_of_a_row_is_not_served_after_its_invalidation(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let late = late_load!(
        shop,
        other,
        async |shop: &Shop| shop.name(1).await,
        async |shop: &Shop| shop.rename(1, "new").await.expect("written")
    );
    assert_eq!(late, "user 1", "the load had begun before");
    assert_eq!(shop.name(1).await, "new");
    assert_eq!(other.name(1).await, "new");
    assert_eq!(pair.a.get_stats().await.counters.fills_refused, 1);
}

async fn a_late_load_of_a_list_is_not_served_after_an_invalidation(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let late = late_load!(
        shop,
        other,
        async |shop: &Shop| shop.list(0, 1).await.expect("read")[0].name.clone(),
        async |shop: &Shop| shop.rename(1, "new").await.expect("written")
    );
    assert_eq!(late, "user 1");
    assert_eq!(shop.list(0, 1).await.expect("read")[0].name, "new");
    assert_eq!(other.list(0, 1).await.expect("read")[0].name, "new");
}

async fn a_late_load_is_not_served_after_a_whole_invalidation(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let late = late_load!(
        shop,
        other,
        async |shop: &Shop| shop.name(1).await,
        async |shop: &Shop| shop.rename_in_bulk(1, "new").await.expect("written")
    );
    assert_eq!(late, "user 1");
    assert_eq!(shop.name(1).await, "new");
    assert_eq!(other.name(1).await, "new");
}

async fn a_reader_does_not_join_a_load_that_began_before_the_invalidation(pair: Pair) {
    let shop = Shop::new(&pair.a);
    for whole in [false, true] {
        shop.rename_in_bulk(1, "old").await.expect("written");
        let gate = Gate::new();
        let held = shop.with_read_gate(&gate);
        let load = cache_tests::spawn(async move { held.name(1).await });
        gate.arrival().await;
        if whole {
            shop.rename_in_bulk(1, "new").await.expect("written");
        } else {
            shop.rename(1, "new").await.expect("written");
        }
        // The old load still stands at its gate. Who waited for it would give up in the end, and
        // store nothing.
        let (read, outcomes) = observe(shop.name(1)).await;
        assert_eq!(read, "new");
        assert!(
            matches!(
                outcomes[0].status,
                Status::Miss {
                    stored: true,
                    joined: false
                }
            ),
            "{outcomes:?}"
        );
        gate.open();
        assert_eq!(load.await.expect("the load ends"), "old");
        assert_eq!(shop.name(1).await, "new");
    }
}

async fn readers_join_a_load(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let held = shop.with_read_gate(&gate);
    let leader = cache_tests::spawn(async move { held.get(1).await });
    gate.arrival().await;
    // In the same process they join its flight; in another they poll for its entry.
    let readers: Vec<_> = [&pair.a, &pair.a, &pair.b]
        .into_iter()
        .map(|cache| {
            let reader = shop.node(cache);
            cache_tests::spawn(async move { observe(reader.get(1)).await })
        })
        .collect();
    // They can't say that they wait: give them the turns they need to get there.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    let expected = leader.await.expect("the load ends");
    for reader in readers {
        let (value, outcomes) = reader.await.expect("answered");
        assert_eq!(value, expected);
        if pair._server.is_none() && pair.memcached.is_none() {
            // In memory each reader has got there in its turns, so each has joined.
            assert_eq!(
                outcomes[0].status,
                Status::Miss {
                    stored: false,
                    joined: true
                }
            );
        }
    }
    assert_eq!(shop.loads(), 1);
}

async fn a_cancelled_load_is_taken_over(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let held = shop.with_read_gate(&gate);
    let leader = cache_tests::spawn(async move { held.get(1).await });
    gate.arrival().await;
    let waiter = shop.node(&pair.a);
    let waiter = cache_tests::spawn(async move { outcome(waiter.get(1)).await });
    leader.abort();
    let status = waiter.await.expect("answered").status;
    assert_eq!(
        status,
        Status::Miss {
            stored: true,
            joined: false
        }
    );
    assert_eq!(shop.loads(), 2);
}

async fn a_panicking_load_is_taken_over(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let held = shop.with_read_gate(&gate).with_fault(Fault::Panic);
    let leader = cache_tests::spawn(async move { held.get(1).await });
    gate.arrival().await;
    let waiter = shop.node(&pair.a);
    let waiter = cache_tests::spawn(async move { waiter.name(1).await });
    gate.open();
    assert!(leader.await.expect_err("it panics").is_panic());
    assert_eq!(waiter.await.expect("answered"), "user 1");
    assert!(matches!(
        outcome(shop.get(1)).await.status,
        Status::Hit { .. }
    ));
}

async fn a_failing_load_is_taken_over(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let held = shop
        .with_read_gate(&gate)
        .with_fault(Fault::LostBeforeCommit);
    let leader = cache_tests::spawn(async move { held.get(1).await });
    gate.arrival().await;
    let waiter = shop.node(&pair.b);
    let waiter = cache_tests::spawn(async move { waiter.name(1).await });
    gate.open();
    assert_eq!(
        leader.await.expect("it returns"),
        Err(DbError::ConnectionLost)
    );
    assert_eq!(waiter.await.expect("answered"), "user 1");
}

// In memory, where yielding is enough for the others to get to where they wait.
#[tokio::test]
async fn waiters_of_a_failing_load_try_a_few_at_a_time() {
    let pair = Pair::memory().await;
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let held = Arc::new(
        shop.with_read_gate(&gate)
            .with_fault(Fault::LostBeforeCommit),
    );
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let shop = Arc::clone(&held);
            cache_tests::spawn(async move { shop.get(1).await })
        })
        .collect();
    gate.arrival().await;
    // Let the others get to where they wait.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    // Not one at a time: then the second would never be followed.
    for _ in 0..AT_A_TIME {
        gate.arrival().await;
    }
    (1..20).for_each(|_| gate.open());
    for caller in callers {
        assert_eq!(
            caller.await.expect("it returns"),
            Err(DbError::ConnectionLost)
        );
    }
    assert_eq!((shop.loads(), gate.most()), (20, AT_A_TIME));
}

#[tokio::test]
async fn one_who_waited_for_a_failure_answers_the_others() {
    let pair = Pair::memory().await;
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let failing = shop
        .with_read_gate(&gate)
        .with_fault(Fault::LostBeforeCommit);
    let leader = cache_tests::spawn(async move { failing.get(1).await });
    gate.arrival().await;
    let sound = Arc::new(shop.with_read_gate(&gate));
    let waiters: Vec<_> = (0..20)
        .map(|_| {
            let shop = Arc::clone(&sound);
            cache_tests::spawn(async move { shop.name(1).await })
        })
        .collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(
        leader.await.expect("it returns"),
        Err(DbError::ConnectionLost)
    );
    for _ in 0..AT_A_TIME {
        gate.arrival().await;
    }
    // Whoever waits now waits for a load that has not begun.
    shop.commit(1, "new");
    (0..20).for_each(|_| gate.open());
    let mut names = Vec::new();
    for waiter in waiters {
        names.push(waiter.await.expect("answered"));
    }
    let new = names.iter().filter(|name| *name == "new").count();
    assert_eq!(new, 20 - AT_A_TIME, "{names:?}");
    // The leader's, a few at once, and one for all the rest.
    assert_eq!(shop.loads() as usize, 1 + AT_A_TIME + 1);
}

async fn many_callers_load_once(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let held = Arc::new(shop.with_read_gate(&gate));
    // Each read of Memcached takes a connection for itself.
    let count = match pair.memcached {
        Some(_) => 200,
        None => 2_000,
    };
    let callers: Vec<_> = (0..count)
        .map(|_| {
            let shop = Arc::clone(&held);
            cache_tests::spawn(async move { observe(shop.get(1)).await })
        })
        .collect();
    gate.arrival().await;
    (0..count).for_each(|_| gate.open());
    let mut bypassed = 0;
    for caller in callers {
        let (value, outcomes) = caller.await.expect("answered");
        assert_eq!(value.expect("read").expect("there").name, "user 1");
        bypassed += usize::from(matches!(
            outcomes[0].status,
            Status::Bypass(BypassReason::Unavailable)
        ));
    }
    assert_eq!((shop.loads(), bypassed), (1, 0));
    eventually(TEST_TIMEOUT, async || {
        matches!(outcome(shop.get(1)).await.status, Status::Hit { .. })
    })
    .await;
}

/// A load of another process, which one here looks after and the others wait for.
#[tokio::test]
async fn one_of_a_process_looks_after_a_load_elsewhere() {
    crate::bounded(async {
        let pair = Pair::redis().await;
        let shop = Shop::new(&pair.a);
        let gate = Gate::new();
        let held = shop.with_read_gate(&gate);
        let leader = cache_tests::spawn(async move { held.get(1).await });
        gate.arrival().await;
        let here = shop.node(&pair.b);
        let readers: Vec<_> = (0..50)
            .map(|_| {
                let reader = here.clone();
                cache_tests::spawn(async move { outcome(reader.get(1)).await.status })
            })
            .collect();
        // Their looks are answered before those that follow on the same connection, and they are
        // woken in that order.
        for _ in 0..50 {
            here.get(2).await.expect("read");
        }
        gate.open();
        leader.await.expect("the load ends").expect("read");
        let mut joined = 0;
        for reader in readers {
            match reader.await.expect("answered") {
                Status::Hit { .. } => {}
                Status::Miss { joined: true, .. } => joined += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(joined, 49, "one has asked for all of them");
        assert_eq!(shop.loads(), 2);
    })
    .await;
}

#[tokio::test]
async fn another_looks_after_a_load_elsewhere_when_the_first_hangs_up() {
    const FOLLOWERS: usize = 10;

    crate::bounded(async {
        let server = RedisServer::start();
        let config = crate::over(&server).wait_limit(Duration::from_secs(3600));
        let shop = Shop::new(&Cache::new(config.clone()).await);
        let gate = Gate::new();
        let held = shop.with_read_gate(&gate);
        let leader = cache_tests::spawn(async move { held.get(1).await });
        gate.arrival().await;
        let here = shop.node(&Cache::new(config).await);
        let read = || {
            let reader = here.clone();
            cache_tests::spawn(async move { outcome(reader.get(1)).await.status })
        };
        let listening = || server.calls("client|caching");
        let first = read();
        eventually(TEST_TIMEOUT, async || listening() == 1).await;
        let followers: Vec<_> = (0..FOLLOWERS).map(|_| read()).collect();
        // Their looks are answered before those that follow on the same connection.
        for _ in 0..3 {
            here.get(2).await.expect("read");
        }
        first.abort();
        eventually(TEST_TIMEOUT, async || listening() == 2).await;
        gate.open();
        leader.await.expect("the load ends").expect("read");
        let mut joined = 0;
        for follower in followers {
            match follower.await.expect("answered") {
                Status::Hit { .. } => {}
                Status::Miss { joined: true, .. } => joined += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(joined, FOLLOWERS - 1, "one has asked for all of them");
        assert_eq!(shop.loads(), 2);
    })
    .await;
}
