//! What operators do to a cache over a cluster: they switch reads off, and look at entries.

use std::collections::BTreeSet;
use std::time::Duration;

use cache_runtime::admin::{Admin, Request, Rights};
use cache_runtime::{BypassReason, EventKind, Status, observe};
use cache_tests::{RedisCluster, eventually};
use serde_json::{Value, json};

use crate::cluster::settings;
use crate::shop::{Shop, is_hit};

const TEST_TIMEOUT: Duration = Duration::from_secs(30);
const OFF: Status = Status::Bypass(BypassReason::SwitchedOff);

async fn status(shop: &Shop) -> Status {
    observe(shop.user(1)).await.1[0].status
}

/// The list of switches is one key, which one node has. Every process learns of it, and it outlives
/// a move of its slot and the loss of its node's data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_reaches_all_processes_over_a_cluster() {
    let cluster = RedisCluster::start(3, 0);
    let here = Shop::over(settings(&cluster)).await;
    let there = here.node(settings(&cluster).local_mb(4)).await;
    for shop in [&here, &there] {
        eventually(TEST_TIMEOUT, async || is_hit(shop, 1).await).await;
    }
    let mut events = there.cache.events();
    let switched = here.cache.disable_everywhere("users").await;
    switched.expect("the cluster takes it");
    assert_eq!(status(&here).await, OFF);
    loop {
        let event = events
            .next_within(TEST_TIMEOUT)
            .await
            .expect("it hears of it");
        if let EventKind::Switched {
            target,
            enabled,
            everywhere,
        } = event.kind
        {
            assert_eq!(
                (target.as_str(), enabled, everywhere),
                ("users", false, true)
            );
            break;
        }
    }
    assert_eq!(status(&there).await, OFF);

    // The key moves, and its old node knows nothing of it any more.
    let slot = cluster.slot("@off");
    let list = |node: usize| cluster.node(node).cli(&["GET", "@off"]);
    let (from, to) = (cluster.owner(slot), (cluster.owner(slot) + 1) % 3);
    assert_eq!(list(from), "users");
    cluster.move_slot(slot, to);
    assert_eq!(list(to), "users");
    let late = here.node(settings(&cluster)).await;
    for shop in [&here, &there, &late] {
        eventually(TEST_TIMEOUT, async || status(shop).await == OFF).await;
    }
    // A process that remembers it writes it back.
    cluster.node(to).cli(&["FLUSHALL"]);
    eventually(TEST_TIMEOUT, async || list(to) == "users").await;
    assert_eq!(status(&here).await, OFF);

    // Invalidations have gone on meanwhile.
    let row = here.rename(1).await;
    let switched = there.cache.enable_everywhere("users").await;
    switched.expect("the cluster takes it");
    assert_eq!(list(to), "");
    for shop in [&here, &there, &late] {
        eventually(TEST_TIMEOUT, async || status(shop).await != OFF).await;
        assert_eq!(shop.user(1).await, row);
        eventually(TEST_TIMEOUT, async || is_hit(shop, 1).await).await;
    }
}

/// What the page says of a key.
async fn entry(page: &Admin, key: &str) -> Value {
    let request = Request {
        method: "GET",
        path: "/api/entry",
        query: &format!("key={key}"),
        content_type: "",
        body: b"",
    };
    let answer = page.answer(request, Rights::Read).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).expect("JSON")
}

/// The keys of users on all nodes, with their generations.
fn keys(cluster: &RedisCluster) -> BTreeSet<String> {
    let nodes = 0..cluster.len();
    let all = nodes.map(|node| cluster.node(node).cli(&["--scan"]));
    let all: Vec<String> = all.collect();
    let all = all.iter().flat_map(|keys| keys.lines());
    let users = all.filter(|key| key.contains("users"));
    users.map(str::to_owned).collect()
}

/// An entry and its generations lie on several nodes. Whoever looks at it writes nothing there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_a_cluster_is_looked_at_without_a_trace() {
    let cluster = RedisCluster::start(3, 0);
    let shop = Shop::over(settings(&cluster)).await;
    let page = Admin::new(&shop.cache);
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    shop.list(1).await;
    let list = keys(&cluster);
    let list = list.iter().find(|key| key.starts_with("users:list:"));
    let list = list.expect("the entry of the list").clone();
    for key in ["users:1", list.as_str()] {
        let seen = entry(&page, key).await;
        assert_eq!(
            (&seen["found"], &seen["alive"]),
            (&json!("entry"), &json!(true)),
            "{seen}"
        );
    }
    assert_eq!(entry(&page, "users:1").await["payload"], "1");
    assert_eq!(entry(&page, "users:77").await["found"], "nothing");

    // What another program has written, and entries whose generations are lost.
    let at = |key: &str| cluster.node(cluster.owner(cluster.slot(key)));
    at("users:5").cli(&["SET", "users:5", "something else"]);
    assert_eq!(entry(&page, "users:5").await["found"], "foreign");
    for generation in ["@gen:{users}", "@gen:{users}~derived"] {
        at(generation).cli(&["UNLINK", generation]);
    }
    let before = keys(&cluster);
    for key in ["users:1", list.as_str(), "users:78"] {
        let seen = entry(&page, key).await;
        assert_eq!(seen["alive"], false, "{seen}");
    }
    assert_eq!(keys(&cluster), before);

    // Nothing is said of an entry whose slot is on its way.
    let slot = cluster.slot("users:1");
    let (from, to) = (cluster.owner(slot), (cluster.owner(slot) + 1) % 3);
    cluster.begin_to_move(slot, to);
    cluster.move_keys(slot, from, to);
    let seen = entry(&page, "users:1").await;
    assert_eq!(
        (&seen["found"], &seen["alive"]),
        (&json!("unknown"), &json!(false)),
        "{seen}"
    );
    cluster.end_move(slot, from, to);
    eventually(TEST_TIMEOUT, async || {
        entry(&page, "users:1").await["found"] == "entry"
    })
    .await;
}
