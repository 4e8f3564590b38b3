//! Transactions of the caller: invalidations wait for the commit.

use std::time::Duration;

use cache_runtime::{Acknowledgement, BypassReason, Cache, RedisConfig, Status, observe};
use cache_tests::{Mode, Proxy, RedisServer, eventually};

use crate::shop::{DbError, Fault, Gate, Shop};
use crate::{Pair, bounded, over_each_store, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

over_each_store! {
    rows_read_again_before_the_commit_are_invalidated_after_it;
    reads_inside_go_past_the_cache;
    inner_blocks_hand_theirs_outward;
    a_block_that_fails_may_have_committed;
    a_block_that_is_dropped_may_have_committed;
    writes_dropped_inside_are_handed_outward;
    an_error_inside_may_hide_a_commit;
    removals_in_a_dropped_block_are_repeated;
    outside_a_block_the_write_is_announced_instead;
    operations_by_hand_wait_for_the_commit_too;
    an_announcement_stands_until_the_block_ends;
    writes_of_a_rollback_are_spared;
}

/// Runs a call in a task of its own, which is not part of the block around this one.
async fn elsewhere<F>(call: F) -> F::Output
where
    F: Future<Output: Send> + Send + 'static,
{
    cache_tests::spawn(call).await.expect("does not panic")
}

async fn name(shop: &Shop, id: i64) -> String {
    let shop = shop.clone();
    elsewhere(async move { shop.name(id).await }).await
}

async fn first_of_list(shop: &Shop) -> String {
    let shop = shop.clone();
    let list = elsewhere(async move { shop.list(0, 1).await }).await;
    list.expect("read").remove(0).name
}

async fn status<T>(call: impl Future<Output = T>) -> Status {
    observe(call).await.1[0].status
}

fn is_hit(status: Status) -> bool {
    matches!(status, Status::Hit { .. })
}

async fn rows_read_again_before_the_commit_are_invalidated_after_it(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let block = pair.a.after_commit(async {
        shop.rename_in_transaction(1).await?;
        // The write has returned, and nothing is committed: others read the old row, and keep it.
        assert_eq!(name(&other, 1).await, "user 1");
        assert_eq!(first_of_list(&other).await, "user 1");
        shop.commit(1, "new");
        Ok::<_, DbError>("committed")
    });
    assert_eq!(block.await, Ok("committed"));
    for node in [&other, &shop] {
        assert_eq!(node.name(1).await, "new");
        assert_eq!(node.list(0, 1).await.expect("read")[0].name, "new");
    }
    assert!(is_hit(status(other.get(1)).await));
}

async fn reads_inside_go_past_the_cache(pair: Pair) {
    let shop = Shop::new(&pair.a);
    shop.name(1).await;
    let inside = Status::Bypass(BypassReason::Transaction);
    let block = pair.a.after_commit(async {
        assert_eq!(status(shop.get(1)).await, inside);
        assert_eq!(status(shop.get_many(&[1, 2])).await, inside);
        assert_eq!(pair.a.get::<crate::shop::User>("users:1").await, None);
        Ok::<_, DbError>(())
    });
    block.await.expect("nothing failed");
    assert!(is_hit(status(shop.get(1)).await), "and nothing was written");
    let other = Cache::new(patient().local_mb(1)).await;
    let elsewhere = other.after_commit(async { Ok::<_, DbError>(status(shop.get(1)).await) });
    assert!(
        is_hit(elsewhere.await.expect("ends")),
        "a block is of one cache"
    );
}

async fn inner_blocks_hand_theirs_outward(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let block = pair.a.after_commit(async {
        pair.a.after_commit(shop.rename_in_transaction(1)).await?;
        assert_eq!(name(&other, 1).await, "user 1");
        shop.commit(1, "new");
        Ok::<_, DbError>(())
    });
    block.await.expect("committed");
    assert_eq!(name(&other, 1).await, "new");
}

async fn a_block_that_fails_may_have_committed(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let block = pair.a.after_commit(async {
        shop.rename_in_transaction(1).await?;
        name(&other, 1).await;
        shop.commit(1, "new");
        Err::<(), _>(DbError::ConnectionLost)
    });
    assert_eq!(block.await, Err(DbError::ConnectionLost));
    assert_eq!(name(&other, 1).await, "new");
}

async fn a_block_that_is_dropped_may_have_committed(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    name(&other, 1).await;
    let gate = Gate::new();
    let block = cache_tests::spawn({
        let (shop, gate) = (shop.clone(), std::sync::Arc::clone(&gate));
        async move {
            let cache = shop.cache.clone();
            let block = cache.after_commit(async {
                shop.rename_in_transaction(1).await?;
                gate.pass().await;
                Ok::<_, DbError>(())
            });
            block.await
        }
    });
    gate.arrival().await;
    block.abort();
    block.await.expect_err("aborted");
    let announced = Status::Bypass(BypassReason::WriteInProgress);
    eventually(TEST_TIMEOUT, async || {
        status(other.get(1)).await == announced
    })
    .await;
    assert_eq!(name(&other, 1).await, "user 1");
    shop.commit(1, "late");
    assert_eq!(name(&other, 1).await, "late");
}

async fn writes_dropped_inside_are_handed_outward(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let gate = Gate::new();
    let held = shop.with_write_gate(&gate);
    let block = pair.a.after_commit(async {
        tokio::select! {
            _ = held.rename(1, "new") => unreachable!("it is held"),
            () = gate.arrival() => {}
        }
        // It was dropped. Nothing is announced before the block has ended.
        assert_eq!(name(&other, 1).await, "new");
        shop.commit(1, "newer");
        Ok::<_, DbError>(())
    });
    block.await.expect("ends");
    assert_eq!(name(&other, 1).await, "newer");
    // On a connection of its own, the commit may still be on its way.
    let announced = Status::Bypass(BypassReason::WriteInProgress);
    assert_eq!(status(other.get(1)).await, announced);
}

#[tokio::test]
async fn a_block_returns_when_what_was_dropped_in_it_is_announced() {
    bounded(async {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.port());
        let config = patient().redis(RedisConfig::at("127.0.0.1", proxy.port()));
        let shop = Shop::new(&Cache::new(config).await);
        let gate = Gate::new();
        let held = shop.with_write_gate(&gate);
        let cache = shop.cache.clone();
        proxy.set(Mode::HoldAnswers);
        let block = cache_tests::spawn(async move {
            let block = cache.after_commit(async {
                tokio::select! {
                    _ = held.rename(1, "new") => unreachable!("it is held"),
                    () = gate.arrival() => {}
                }
                Ok::<_, DbError>(())
            });
            block.await
        });
        eventually(TEST_TIMEOUT, async || proxy.held() == 1).await;
        // What is invalidated is answered, and what is announced is not.
        proxy.pass_one();
        eventually(TEST_TIMEOUT, async || {
            (proxy.held(), proxy.passed()) == (1, 1)
        })
        .await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!block.is_finished());
        proxy.set(Mode::Pass);
        block.await.expect("no panic").expect("ends");
    })
    .await;
}

async fn an_error_inside_may_hide_a_commit(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let lost = shop.with_fault(Fault::LostBeforeCommit);
    for inner in [false, true] {
        let write = async {
            let error = match inner {
                false => lost.rename(1, "new").await.map(drop),
                true => pair.a.after_commit(lost.rename_in_transaction(1)).await,
            };
            assert_eq!(error, Err(DbError::ConnectionLost));
            Ok::<_, DbError>(())
        };
        pair.a.after_commit(write).await.expect("ends");
        // A reader keeps the old row, and then the commit arrives after all.
        shop.commit(1, "old");
        assert_eq!(name(&other, 1).await, "old");
        shop.commit(1, "late");
        eventually(TEST_TIMEOUT, async || name(&other, 1).await == "late").await;
    }
}

async fn removals_in_a_dropped_block_are_repeated(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    for everything in [false, true] {
        shop.commit(1, "early");
        let gate = Gate::new();
        let block = pair.a.after_commit(async {
            match everything {
                false => pair.a.delete("users:1").await.map(drop),
                true => pair.a.clear_all().await.map(drop),
            }
            .expect("asked");
            gate.pass().await;
            Ok::<_, DbError>(())
        });
        tokio::select! {
            _ = block => unreachable!("it is held"),
            () = gate.arrival() => {}
        }
        assert_eq!(name(&other, 1).await, "early");
        shop.commit(1, "late");
        eventually(TEST_TIMEOUT, async || name(&other, 1).await == "late").await;
    }
}

async fn outside_a_block_the_write_is_announced_instead(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    name(&other, 1).await;
    shop.rename_in_transaction(1).await.expect("written");
    let announced = Status::Bypass(BypassReason::WriteInProgress);
    eventually(TEST_TIMEOUT, async || {
        status(other.get(1)).await == announced
    })
    .await;
    shop.commit(1, "late");
    assert_eq!(name(&other, 1).await, "late");
}

async fn operations_by_hand_wait_for_the_commit_too(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let block = pair.a.after_commit(async {
        assert_eq!(
            pair.a.invalidate("users", &1).await,
            Acknowledgement::Deferred
        );
        pair.a.delete("users:2").await.expect("asked");
        for id in [1, 2] {
            name(&other, id).await;
            shop.commit(id, "new");
        }
        Ok::<_, DbError>(())
    });
    block.await.expect("committed");
    for id in [1, 2] {
        assert_eq!(name(&other, id).await, "new");
    }
}

async fn an_announcement_stands_until_the_block_ends(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let block = pair.a.after_commit(async {
        shop.rename_all_in_transaction_crash_safe().await?;
        let reader = other.clone();
        let seen = elsewhere(async move { status(reader.get(1)).await }).await;
        assert_eq!(seen, Status::Bypass(BypassReason::WriteInProgress));
        shop.commit(1, "new");
        Ok::<_, DbError>(())
    });
    block.await.expect("committed");
    assert_eq!(name(&other, 1).await, "new");
    assert!(is_hit(status(other.get(1)).await));
}

async fn writes_of_a_rollback_are_spared(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let warm = async || {
        name(&other, 1).await;
        name(&other, 2).await;
    };
    let hits = async || {
        let (one, two) = (other.clone(), other.clone());
        let one = elsewhere(async move { status(one.get(1)).await }).await;
        let two = elsewhere(async move { status(two.get(2)).await }).await;
        (is_hit(one), is_hit(two))
    };
    // Outside of any block it says nothing.
    pair.a.rolled_back();
    warm().await;
    let failed = pair.a.after_commit(async {
        shop.rename_in_transaction(1).await?;
        // On a connection of its own: it has committed.
        shop.rename(2, "new").await?;
        pair.a.rolled_back();
        Err::<(), _>(DbError::Refused)
    });
    assert_eq!(failed.await, Err(DbError::Refused));
    assert_eq!(hits().await, (true, false));

    // What takes part behind it does so in another transaction.
    warm().await;
    let again = pair.a.after_commit(async {
        shop.rename_in_transaction(2).await?;
        pair.a.rolled_back();
        shop.rename_in_transaction(1).await
    });
    again.await.expect("committed");
    assert_eq!(hits().await, (false, true));
}
