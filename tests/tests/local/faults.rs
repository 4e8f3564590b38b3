//! What servers and networks do.

use std::time::Duration;

use cache_tests::{RedisServer, eventually};

use super::{Node, TEST_TIMEOUT, over, tier};

#[tokio::test]
async fn a_flushed_database_forgets_everything() {
    for flush in ["FLUSHDB", "FLUSHALL"] {
        let server = RedisServer::start();
        let node = Node::new(over(server.port())).await;
        node.commit(1, "old");
        node.warm(1).await;
        server.cli(&[flush]);
        // Nobody invalidates: there is nothing left that could be.
        node.commit(1, "new");
        eventually(TEST_TIMEOUT, async || node.name(1).await == "new").await;
    }
}

#[tokio::test]
async fn rows_deleted_by_hand_are_forgotten() {
    let server = RedisServer::start();
    let node = Node::new(over(server.port())).await;
    for key in ["users:1", "@gen:users"] {
        node.commit(1, "old");
        node.name(1).await;
        node.warm(1).await;
        server.cli(&["DEL", key]);
        node.commit(1, key);
        eventually(TEST_TIMEOUT, async || node.name(1).await == key).await;
    }
}

#[tokio::test]
async fn a_killed_connection_is_made_again() {
    let server = RedisServer::start();
    let node = Node::new(over(server.port())).await;
    node.commit(1, "old");
    node.warm(1).await;
    let epochs = node.figures().await.epochs;
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually(TEST_TIMEOUT, async || node.figures().await.epochs > epochs).await;
    node.warm(1).await;
}

#[tokio::test]
async fn keys_that_the_server_does_not_track_are_not_kept() {
    let server = RedisServer::options()
        .config("tracking-table-max-keys 20")
        .start();
    let node = Node::new(over(server.port())).await;
    let other = node.beside(over(server.port())).await;
    for id in 0..200 {
        node.commit(id, "old");
    }
    for _ in 0..3 {
        for id in 0..200 {
            assert_eq!(node.name(id).await, "old");
        }
    }
    for id in 0..200 {
        other.rename(id, "new").await;
    }
    eventually(TEST_TIMEOUT, async || {
        for id in 0..200 {
            if node.name(id).await != "new" {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test]
async fn a_server_that_does_not_track_is_asked_each_time() {
    let server = RedisServer::options()
        .config("user default on nopass ~* &* +@all -client|tracking")
        .start();
    let node = Node::new(over(server.port())).await;
    let other = node.beside(over(server.port())).await;
    node.commit(1, "old");
    for _ in 0..5 {
        assert_eq!(node.name(1).await, "old");
    }
    assert_eq!(tier(node.get(1)).await, "redis");
    assert!(!node.figures().await.serving);
    other.rename(1, "new").await;
    assert_eq!(node.name(1).await, "new");
}

#[tokio::test]
async fn a_local_entry_ends_with_its_entry() {
    let server = RedisServer::start();
    let node = Node::new(over(server.port()).ttl_of("users", Duration::from_millis(300))).await;
    node.commit(1, "old");
    node.warm(1).await;
    node.commit(1, "new");
    eventually(TEST_TIMEOUT, async || node.name(1).await == "new").await;
}

#[tokio::test]
async fn those_who_wait_for_another_process_are_woken() {
    let server = RedisServer::start();
    let node = Node::new(over(server.port())).await;
    let other = node.beside(over(server.port())).await;
    node.commit(1, "old");
    node.covered().await;
    let lease = match other
        .cache
        .lookup::<String>("users:1")
        .await
        .expect("a key")
    {
        cache_runtime::Lookup::Miss(lease) => lease,
        cache_runtime::Lookup::Hit(_) => panic!("nothing was stored"),
    };
    let reader = cache_tests::spawn({
        let node = node.clone();
        async move {
            node.cache
                .get_or_load("users:1", 60, async || Ok::<_, ()>(String::from("loaded")))
                .await
        }
    });
    eventually(TEST_TIMEOUT, async || server.calls("mget") > 1).await;
    assert!(lease.fill(&String::from("filled")).await);
    assert_eq!(reader.await.expect("no panic"), Ok("filled".into()));
}
