//! Single loads of one moment that become one batch.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cache_runtime::testing::TestCache;
use cache_runtime::{Acknowledgement, CacheConfig, Loader, bypass};
use futures_util::stream::{self, StreamExt as _};
use futures_util::{future, poll};

use crate::shop::{DbError, Fault, Gate, Shop, User};
use crate::{Pair, bounded, over_each_store};

over_each_store! {
    loads_of_one_moment_are_one_batch;
    a_load_after_an_invalidation_is_not_answered_by_an_earlier_batch;
    a_request_sees_its_own_writes;
    an_error_is_that_of_all_who_asked_and_of_nobody_else;
    a_caller_that_hangs_up_is_not_loaded_for;
    a_leader_that_hangs_up_is_succeeded;
    callers_of_other_contexts_load_apart;
    a_batch_is_bounded;
    many_ids_are_one_batch_without_a_request_too;
}

type Rows = Result<HashMap<i64, User>, DbError>;

/// Which ids each batch had; `join!` polls in an order of its own.
fn batches(shop: &Shop) -> Vec<Vec<i64>> {
    let mut batches = shop.asked();
    batches.iter_mut().for_each(|batch| batch.sort_unstable());
    batches.sort();
    batches
}

/// A loader over `get_many` of this shop.
macro_rules! loader {
    ($shop:expr) => {{
        let shop = &$shop;
        Loader::new(move |ids: Vec<i64>| async move { shop.get_many(&ids).await as Rows })
    }};
}

fn name(user: &Result<Option<User>, Arc<DbError>>) -> &str {
    let user = user.as_ref().expect("read").as_ref().expect("there");
    &user.name
}

async fn loads_of_one_moment_are_one_batch(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let loader = loader!(shop);
    let request = async {
        let (one, absent, two, again) = tokio::join!(
            loader.load(1),
            loader.load(9),
            loader.load(2),
            loader.load(1)
        );
        assert_eq!(
            (name(&one), name(&two), name(&again)),
            ("user 1", "user 2", "user 1")
        );
        assert_eq!(absent, Ok(None));
        assert_eq!(batches(&shop), [[1, 2, 9]], "each id once");
        // What is cached is not loaded, and what is not is.
        let many = loader.load_many([1, 3, 2, 3]).await.expect("read");
        assert_eq!(many.len(), 3);
        assert_eq!(batches(&shop), [[3]]);
    };
    Box::pin(pair.a.request(request)).await;

    // Also where the calls are deeper, in steps of their own.
    let deep = async |id| {
        let first = loader.load(id).await;
        tokio::task::yield_now().await;
        let next = loader.load(id + 10).await.expect("read");
        (name(&first).to_owned(), next)
    };
    shop.cache.clear_all().await.expect("cleared");
    pair.a
        .request(async { tokio::join!(deep(1), deep(2), deep(3)) })
        .await;
    assert_eq!(batches(&shop), [[1, 2, 3], [11, 12, 13]]);
}

async fn a_load_after_an_invalidation_is_not_answered_by_an_earlier_batch(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let slow = shop.with_read_gate(&gate);
    let loader = loader!(slow);
    let request = async {
        let mut early = pin!(loader.load(1));
        let both = async {
            gate.arrival().await;
            // Written by somebody else, while the batch is on its way.
            shop.commit(1, "new");
            let done = pair.b.invalidate("users", &1).await;
            assert_eq!(done, Acknowledgement::Delivered);
            let mut late = pin!(loader.load(1));
            // It is a batch of its own, which stands at the gate as well.
            tokio::select! {
                _ = &mut late => panic!("answered by the earlier batch"),
                () = gate.arrival() => {}
            }
            gate.open();
            gate.open();
            late.await
        };
        let (early, late) = tokio::join!(&mut early, both);
        assert_eq!(name(&early), "user 1");
        assert_eq!(name(&late), "new");
    };
    pair.a.request(request).await;
}

async fn a_request_sees_its_own_writes(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let loader = loader!(shop);
    let request = async {
        assert_eq!(name(&loader.load(1).await), "user 1");
        shop.rename(1, "new").await.expect("written");
        assert_eq!(name(&loader.load(1).await), "new");
        // Joined before the write, loaded after it.
        let mut early = pin!(loader.load(2));
        assert!(poll!(&mut early).is_pending());
        shop.rename(2, "newer").await.expect("written");
        assert_eq!(name(&early.await), "newer");
    };
    pair.a.request(request).await;
}

async fn an_error_is_that_of_all_who_asked_and_of_nobody_else(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let broken = shop.with_fault(Fault::LostBeforeCommit);
    let (shop, broken) = (&shop, &broken);
    let loader = Loader::new(|ids: Vec<i64>| async move {
        match ids.contains(&1) {
            true => broken.get_many(&ids).await,
            false => shop.get_many(&ids).await,
        }
    });
    let request = async {
        let (one, two) = tokio::join!(loader.load(1), loader.load(2));
        let (one, two) = (one.unwrap_err(), two.unwrap_err());
        assert_eq!(*one, DbError::ConnectionLost);
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(name(&loader.load(2).await), "user 2");
        assert!(loader.load_many([1, 2]).await.is_err());
    };
    pair.a.request(request).await;
}

async fn a_caller_that_hangs_up_is_not_loaded_for(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let loader = loader!(shop);
    let request = async {
        let mut first = Box::pin(loader.load(1));
        let mut second = Box::pin(loader.load(2));
        let mut third = Box::pin(loader.load(3));
        for load in [&mut first, &mut second, &mut third] {
            assert!(poll!(load).is_pending());
        }
        // The first would have loaded for all.
        drop(first);
        drop(third);
        assert_eq!(name(&second.await), "user 2");
        assert_eq!(batches(&shop), [[2]]);
        // A batch that nobody waits for is not loaded at all.
        let mut alone = Box::pin(loader.load(3));
        assert!(poll!(&mut alone).is_pending());
        drop(alone);
        assert_eq!(name(&loader.load(1).await), "user 1");
        assert_eq!(batches(&shop), [[1]]);
    };
    pair.a.request(request).await;
}

async fn a_leader_that_hangs_up_is_succeeded(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let slow = shop.with_read_gate(&gate);
    let loader = loader!(slow);
    let request = async {
        let mut leader = Box::pin(loader.load(1));
        let mut waiter = Box::pin(loader.load(2));
        assert!(poll!(&mut leader).is_pending());
        assert!(poll!(&mut waiter).is_pending());
        tokio::select! {
            _ = &mut leader => panic!("the gate is closed"),
            () = gate.arrival() => {}
        }
        drop(leader);
        gate.open();
        assert_eq!(name(&waiter.await), "user 2");
        assert_eq!(batches(&shop), [vec![1, 2], vec![2]]);
    };
    pair.a.request(request).await;
}

async fn callers_of_other_contexts_load_apart(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let loader = loader!(shop);
    let cache = &pair.a;
    let request = async {
        let tenant = |tenant: i64, id| cache.with_key("tenant", tenant, loader.load(id));
        let _ = tokio::join!(tenant(7, 1), tenant(8, 2), loader.load(3));
        assert_eq!(batches(&shop), [[1], [2], [3]]);
        shop.cache.clear_all().await.expect("cleared");
        let of_one = async { tokio::join!(loader.load(1), loader.load(2)) };
        cache.with_key("tenant", 7, of_one).await.0.expect("read");
        assert_eq!(batches(&shop), [[1, 2]]);
        // One that bypasses is not answered from the cache by another's batch.
        let _ = tokio::join!(bypass(loader.load(1)), loader.load(1), loader.load(2));
        assert_eq!(batches(&shop), [[1]]);
        cache
            .after_commit(async {
                let _ = tokio::join!(loader.load(1), loader.load(2));
                Ok::<_, ()>(())
            })
            .await
            .expect("done");
        assert_eq!(batches(&shop), [[1], [2]]);
    };
    cache.request(request).await;
    shop.cache.clear_all().await.expect("cleared");
    // Without a request there is nothing to share.
    let _ = tokio::join!(loader.load(1), loader.load(2));
    assert_eq!(batches(&shop), [[1], [2]]);
    shop.cache.clear_all().await.expect("cleared");
    let of_each = |id| cache.request(loader.load(id));
    let _ = tokio::join!(of_each(1), of_each(2));
    assert_eq!(batches(&shop), [[1], [2]]);
}

async fn a_batch_is_bounded(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let loader = loader!(shop).max_batch(2);
    let ids = [1, 2, 3, 11, 12];
    let loads = async { future::join_all(ids.map(|id| loader.load(id))).await };
    let loaded = pair.a.request(loads).await;
    let there: Vec<_> = loaded
        .into_iter()
        .map(|it| it.expect("read").is_some())
        .collect();
    assert_eq!(there, [true, true, true, false, false]);
    let sizes = shop.asked().iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes.iter().sum::<usize>(), 5);
    assert!(
        sizes.len() == 3 && sizes.iter().all(|size| *size <= 2),
        "{sizes:?}"
    );
}

async fn many_ids_are_one_batch_without_a_request_too(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let loader = loader!(shop);
    let loaded = loader.load_many([1, 2, 3, 11, 1]).await.expect("read");
    let mut there: Vec<_> = loaded.into_keys().collect();
    there.sort_unstable();
    assert_eq!(there, [1, 2, 3]);
    assert_eq!(batches(&shop), [[1, 2, 3, 11]]);

    // In a transaction, too, and in batches of so many ids at most.
    let loader = loader!(shop).max_batch(3);
    let block = async { Ok::<_, ()>(loader.load_many(1..=3).await.expect("read").len()) };
    assert_eq!(pair.a.after_commit(block).await, Ok(3));
    assert_eq!(batches(&shop), [[1, 2, 3]]);
    let loads = loader.load_many(1..=8);
    let there = bypass(loads).await.expect("read").len();
    let sizes: Vec<_> = batches(&shop).iter().map(Vec::len).collect();
    assert_eq!((there, sizes.len(), sizes.iter().max()), (3, 3, Some(&3)));

    let broken = shop.with_fault(Fault::LostBeforeCommit);
    assert!(bypass(loader!(broken).load_many([1, 2])).await.is_err());
}

/// A load that was begun and is kept, but not polled: by `select!`.
#[tokio::test(start_paused = true)]
async fn a_caller_who_is_not_polled_holds_up_nobody() {
    let shop = Shop::new(&TestCache::decoded(CacheConfig::default()));
    let loader = loader!(shop);
    let request = async {
        let mut first = Box::pin(loader.load(1));
        tokio::select! {
            biased;
            _ = &mut first => panic!("it waits for others"),
            () = future::ready(()) => {}
        }
        assert_eq!(name(&loader.load(2).await), "user 2");
        assert_eq!(name(&first.await), "user 1");
    };
    bounded(Box::pin(shop.cache.request(request))).await;
}

/// The same by a stream whose consumer calls the loader itself.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_polled_holds_up_nobody() {
    let shop = Shop::new(&TestCache::decoded(CacheConfig::default()));
    let loader = loader!(shop);
    let request = async {
        let loads = stream::iter([1, 2]).map(|id| loader.load(id));
        let mut loads = Box::pin(loads.buffer_unordered(2));
        assert!(poll!(loads.next()).is_pending());
        assert_eq!(name(&loader.load(3).await), "user 3");
        while loads.next().await.is_some() {}
    };
    bounded(Box::pin(shop.cache.request(request))).await;
}

/// Its load has begun, and is not polled any more.
#[tokio::test(start_paused = true)]
async fn a_load_that_stands_still_is_left() {
    let shop = Shop::new(&TestCache::decoded(CacheConfig::default()));
    let gate = Gate::new();
    let slow = shop.with_read_gate(&gate);
    let loader = loader!(slow);
    let request = async {
        let mut first = Box::pin(loader.load(1));
        let mut second = Box::pin(loader.load(2));
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        tokio::select! {
            _ = &mut first => panic!("the gate is closed"),
            () = gate.arrival() => {}
        }
        // One for the load that stands still, which has come first.
        gate.open();
        gate.open();
        assert_eq!(name(&second.await), "user 2");
        assert_eq!(name(&first.await), "user 1");
        assert_eq!(batches(&shop), [vec![1, 2], vec![2]]);
    };
    bounded(Box::pin(shop.cache.request(request))).await;
}

/// A load that takes long is not left: nothing is loaded twice.
#[tokio::test(start_paused = true)]
async fn a_slow_load_is_waited_for() {
    let shop = Shop::new(&TestCache::decoded(CacheConfig::default()));
    let loader = Loader::new(|ids: Vec<i64>| {
        let shop = &shop;
        async move {
            tokio::time::sleep(Duration::from_secs(20)).await;
            shop.get_many(&ids).await as Rows
        }
    });
    let request = async {
        let (one, two) = tokio::join!(loader.load(1), loader.load(2));
        assert_eq!((name(&one), name(&two)), ("user 1", "user 2"));
        assert_eq!(batches(&shop), [[1, 2]]);
    };
    bounded(Box::pin(shop.cache.request(request))).await;
}
