//! The six rules. The order of things is made by hand: a call is polled once, so that its read is
//! sent, and not again before the push or the write that it is to meet has been handled.

use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use cache_tests::{Mode, RedisServer, eventually};

use super::{Node, TEST_TIMEOUT, begin, behind_a_proxy, impatient, over, tier};

/// Longer than any test: what is stale then stays stale.
const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_local_entry_answers_and_follows_writes_of_others() {
    let server = RedisServer::start();
    let node = Node::new(over(server.port())).await;
    let other = node.beside(over(server.port())).await;
    node.commit(1, "old");
    node.warm(1).await;
    eventually(TEST_TIMEOUT, async || tier(node.all()).await == "local").await;
    let loads = node.loads();
    assert_eq!(node.name(1).await, "old");
    assert_eq!(node.loads(), loads);
    other.rename(1, "new").await;
    eventually(TEST_TIMEOUT, async || node.name(1).await == "new").await;
    eventually(TEST_TIMEOUT, async || *node.all().await == ["new"]).await;
    node.warm(1).await;
    other.rename_all("newest").await;
    eventually(TEST_TIMEOUT, async || node.name(1).await == "newest").await;
}

#[tokio::test]
async fn a_read_that_a_push_overtakes_is_not_kept() {
    for write_all in [false, true] {
        let (server, proxy, node) = behind_a_proxy(over).await;
        let other = node.beside(over(server.port())).await;
        forget(&node, &server).await;
        let (reads, before) = (server.calls("mget"), node.figures().await);
        proxy.set(Mode::HoldAnswers);
        let mut read = pin!(node.name(1));
        begin(read.as_mut()).await;
        eventually(TEST_TIMEOUT, async || server.calls("mget") > reads).await;
        if write_all {
            other.rename_all("new").await;
        } else {
            other.rename(1, "new").await;
        }
        proxy.set(Mode::Pass);
        eventually(TEST_TIMEOUT, async || {
            node.figures().await.pushes > before.pushes
        })
        .await;
        assert_eq!(read.await, "old", "it was answered before the write");
        assert_eq!(node.name(1).await, "new");
        assert!(node.figures().await.poisoned > before.poisoned);
    }
}

#[tokio::test]
async fn a_read_that_an_own_write_overtakes_is_not_kept() {
    let (server, proxy, node) = behind_a_proxy(|port| over(port).local_max_staleness(LONG)).await;
    // Nobody else says anything.
    stop_tracking(&server, &proxy).await;
    node.rename(1, "old").await;
    node.name(1).await;
    let reads = server.calls("mget");
    proxy.set(Mode::HoldAnswers);
    let mut read = pin!(node.name(1));
    begin(read.as_mut()).await;
    eventually(TEST_TIMEOUT, async || server.calls("mget") > reads).await;
    proxy.set(Mode::Pass);
    node.rename(1, "new").await;
    assert_eq!(read.await, "old");
    assert_eq!(node.name(1).await, "new");
}

#[tokio::test]
async fn an_own_write_takes_effect_before_it_returns() {
    let (server, proxy, node) = behind_a_proxy(|port| over(port).local_max_staleness(LONG)).await;
    stop_tracking(&server, &proxy).await;
    for n in 0..3 {
        let name = format!("name {n}");
        node.rename(1, &name).await;
        assert_eq!(node.name(1).await, name);
        node.warm(1).await;
        node.rename_all(&name).await;
        assert_ne!(tier(node.get(1)).await, "local");
        node.warm(1).await;
        node.cache
            .set("users:1", &Some(name.clone()), 60)
            .await
            .expect("stored");
        assert_ne!(tier(node.get(1)).await, "local");
        node.warm(1).await;
        node.cache
            .invalidate_pattern("users:*")
            .await
            .expect("removed");
        assert_ne!(tier(node.get(1)).await, "local");
        node.warm(1).await;
        node.cache.clear_all().await.expect("removed");
        assert_ne!(tier(node.get(1)).await, "local");
        node.warm(1).await;
    }
}

#[tokio::test]
async fn a_lost_connection_forgets_everything() {
    let (server, proxy, node) = behind_a_proxy(over).await;
    let other = node.beside(over(server.port())).await;
    let epochs = node.figures().await.epochs;
    proxy.set(Mode::Cut);
    eventually(TEST_TIMEOUT, async || !node.figures().await.serving).await;
    other.rename(1, "new").await;
    proxy.set(Mode::Pass);
    node.covered().await;
    assert_eq!(node.name(1).await, "new");
    assert!(node.figures().await.epochs > epochs);
}

#[tokio::test]
async fn nothing_is_served_while_pushes_do_not_arrive() {
    for mode in [
        Mode::Hold,
        Mode::HoldAnswers,
        Mode::SwallowRequests,
        Mode::SwallowAnswers,
    ] {
        let (server, proxy, node) = behind_a_proxy(impatient).await;
        let other = node.beside(over(server.port())).await;
        proxy.set(mode);
        other.rename(1, "new").await;
        eventually(TEST_TIMEOUT, async || node.name(1).await == "new").await;
        // What has lost a part is no connection any more.
        proxy.cut_then(Mode::Pass);
        node.warm(1).await;
        assert_eq!(node.name(1).await, "new", "{mode:?}");
    }
}

#[tokio::test]
async fn a_local_entry_is_not_served_past_the_bound() {
    // Nothing else ends it: the connection is not given up in this time.
    let (server, proxy, node) = behind_a_proxy(|port| {
        over(port)
            .command_budget(Duration::from_secs(60))
            .local_max_staleness(Duration::from_millis(500))
    })
    .await;
    let other = node.beside(over(server.port())).await;
    proxy.set(Mode::HoldAnswers);
    other.rename(1, "new").await;
    eventually(TEST_TIMEOUT, async || {
        std::future::poll_fn(|context| Poll::Ready(pin!(node.get(1)).poll(context).is_pending()))
            .await
    })
    .await;
    proxy.set(Mode::Pass);
    assert_eq!(node.name(1).await, "new");
}

#[tokio::test]
async fn values_for_all_processes_are_made_of_no_local_entries() {
    let (server, proxy, node) = behind_a_proxy(|port| over(port).local_max_staleness(LONG)).await;
    for id in 2..=4 {
        node.commit(id, "old");
        node.warm(id).await;
    }
    stop_tracking(&server, &proxy).await;
    let other = node.beside(over(server.port())).await;
    for id in 1..=4 {
        other.rename(id, "new").await;
        assert_eq!(node.name(id).await, "old", "a local entry may be behind");
    }
    assert_eq!(node.greeting(1).await, "hello new");
    assert_eq!(node.detached_greeting(2).await, Ok("hello new".into()));
    assert_eq!(node.greetings(&[3]).await[&3], "hello new");
    let by_hand = async || Ok::<_, ()>(node.name(4).await);
    let loaded = node.cache.get_or_load("greetings:hand", 60, by_hand).await;
    assert_eq!(loaded, Ok("new".to_owned()));
}

#[tokio::test]
async fn tracking_that_was_turned_off_is_noticed_and_turned_on() {
    let (server, proxy, node) = behind_a_proxy(impatient).await;
    let other = node.beside(over(server.port())).await;
    stop_tracking(&server, &proxy).await;
    other.rename(1, "new").await;
    eventually(TEST_TIMEOUT, async || node.name(1).await == "new").await;
    node.warm(1).await;
    other.rename(1, "newest").await;
    eventually(TEST_TIMEOUT, async || node.name(1).await == "newest").await;
}

#[tokio::test]
async fn a_heartbeat_covers_from_when_it_was_sent() {
    let bound = Duration::from_millis(500);
    let (server, proxy, node) = behind_a_proxy(|port| over(port).local_max_staleness(bound)).await;
    let other = node.beside(over(server.port())).await;
    proxy.set(Mode::HoldAnswers);
    // A heartbeat stands at the gate, and behind it the word of a write.
    eventually(TEST_TIMEOUT, async || proxy.held() == 1).await;
    other.rename(1, "new").await;
    let renamed = Instant::now();
    eventually(TEST_TIMEOUT, async || renamed.elapsed() > bound).await;
    // It comes back, later than it covers anything.
    proxy.pass_one();
    eventually(TEST_TIMEOUT, async || proxy.passed() == 1).await;
    for _ in 0..50 {
        // Nobody knows when it has been handled. Redis is asked, whose answers are held.
        begin(pin!(node.name(1))).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    proxy.set(Mode::Pass);
    assert_eq!(node.name(1).await, "new");
}

/// Makes the node forget its local entries, while those in Redis stay.
async fn forget(node: &Node, server: &RedisServer) {
    let epochs = node.figures().await.epochs;
    let killed = server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_ne!(killed.trim(), "0");
    eventually(TEST_TIMEOUT, async || node.figures().await.epochs > epochs).await;
    node.covered().await;
}

/// Tells the server, over the node's own connection, to say nothing of changes any more.
async fn stop_tracking(server: &RedisServer, proxy: &cache_tests::Proxy) {
    // Without a reply, which nobody would expect.
    proxy.inject(b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$4\r\nSKIP\r\n");
    proxy.inject(b"*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$3\r\nOFF\r\n");
    eventually(TEST_TIMEOUT, async || {
        let info = server.cli(&["INFO", "clients"]);
        info.contains("tracking_clients:0")
            || info.contains("tracking_clients:1") && server.calls("client|reply") > 0
    })
    .await;
}

#[tokio::test]
async fn a_sweep_spares_local_entries_loaded_since() {
    let server = RedisServer::start();
    let node = Node::new(over(server.port()).local_max_staleness(LONG)).await;
    let walks = || server.calls("scan");
    node.commit(1, "name");
    // A round takes what was asked for before it begins, and another second passes before the next
    // one does.
    let mut before;
    loop {
        before = walks();
        node.rename_all("name").await;
        eventually(TEST_TIMEOUT, async || walks() > before).await;
        before = walks();
        node.rename_all("name").await;
        node.warm(1).await;
        if walks() == before {
            break;
        }
    }
    eventually(TEST_TIMEOUT, async || walks() > before).await;
    // The next one begins when that is over.
    let _ = node.cache.invalidate_all("greetings").await;
    eventually(TEST_TIMEOUT, async || walks() > before + 1).await;
    assert_eq!(tier(node.get(1)).await, "local");
}
