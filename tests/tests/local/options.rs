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
