//! What a function, a caller and an operator can say.

use super::*;

#[tokio::test]
async fn a_strict_scope_asks_redis() {
    let server = RedisServer::start();
    let node = Node::new(over(server.port())).await;
    node.commit(1, "old");
    node.warm(1).await;
    assert_eq!(tier(node.cache.strict(node.get(1))).await, "redis");
    assert_eq!(
        tier(
            node.cache
                .strict(async { cache_runtime::refresh(node.get(1)).await })
        )
        .await,
        ""
    );
    node.warm(1).await;
}

#[tokio::test]
async fn figures_of_both_tiers() {
    let server = RedisServer::start();
    let node = Node::new(over(server.port())).await;
    node.commit(1, "old");
    node.warm(1).await;
    let before = node.cache.get_stats().await.counters;
    for _ in 0..100 {
        node.name(1).await;
    }
    let after = node.cache.get_stats().await;
    assert_eq!(after.counters.hits - before.hits, 100);
    assert_eq!(after.counters.local_hits - before.local_hits, 100);
    let local = after.local.expect("both tiers are on");
    assert!(
        local.serving && local.entries == 1 && local.bytes > 0,
        "{local:?}"
    );
    assert_eq!(local.hits, after.resources["users"].local_hits);
    assert!(local.age_max_ms <= 1000, "{local:?}");
    let plain = Node::new(CacheConfig::default().local_mb(4)).await;
    assert_eq!(plain.cache.get_stats().await.local, None);
}

#[tokio::test]
async fn a_strict_function_asks_redis_and_so_does_one_without_local_entries() {
    let server = RedisServer::start();
    let node = Node::new(over(server.port())).await;
    node.commit(1, "old");
    node.warm(1).await;
    for _ in 0..5 {
        node.exact(1).await;
        node.remote(1).await;
    }
    assert_eq!(tier(node.exact(1)).await, "redis");
    assert_eq!(tier(node.remote(1)).await, "redis");
    assert_eq!(node.figures().await.entries, 1);
}

#[tokio::test]
async fn a_local_entry_may_end_before_its_entry() {
    let server = RedisServer::start();
    let node = Node::new(over(server.port())).await;
    node.commit(1, "old");
    eventually(TEST_TIMEOUT, async || tier(node.brief(1)).await == "local").await;
    eventually(TEST_TIMEOUT, async || tier(node.brief(1)).await == "redis").await;
}

#[tokio::test]
async fn batches_take_what_is_in_the_process() {
    let server = RedisServer::start();
    let node = Node::new(over(server.port())).await;
    let other = node.beside(over(server.port())).await;
    for id in 0..10 {
        node.commit(id, "old");
    }
    let ids: Vec<i64> = (0..12).collect();
    eventually(TEST_TIMEOUT, async || {
        tier(node.get_many(&ids)).await == "local"
    })
    .await;
    let (reads, loads) = (server.calls("mget"), node.loads());
    let before = node.cache.get_stats().await.counters;
    assert_eq!(node.get_many(&ids).await.len(), 10);
    assert_eq!(tier(node.get(3)).await, "local", "one by one, too");
    let after = node.cache.get_stats().await.counters;
    assert_eq!((server.calls("mget"), node.loads()), (reads, loads));
    assert_eq!(after.hits - before.hits, 13);
    assert_eq!(after.local_hits - before.local_hits, 13);
    other.rename(3, "new").await;
    eventually(TEST_TIMEOUT, async || {
        *node.get_many(&ids).await[&3] == "new"
    })
    .await;
}
