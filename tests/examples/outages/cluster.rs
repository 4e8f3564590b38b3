//! The demo over three primaries with a replica each: one is killed, slots move, one is replaced as
//! planned.

use std::time::{Duration, Instant};

use cache_tests::{Demo, RedisCluster};

use crate::load;
use crate::plot::Span;
use crate::{Page, write};

const PAGE: Page = Page {
    title: "Latency and hit rate of the demo while a cluster's primary is killed, slots move, and a primary is replaced",
    svg: "outages-cluster.svg",
    section: "the demo on a cluster",
    lasts: Duration::from_secs(60),
};

/// Slots that go to another node, and return.
const SLOTS: std::ops::Range<u16> = 0..64;

pub(crate) async fn run() {
    let cluster = RedisCluster::start(3, 1);
    let seeds = cluster.seeds();
    let demo = Demo::start([
        ("REDIS_ENABLED", "True"),
        ("REDIS_CLUSTER", seeds.as_str()),
        ("RUST_LOG", "info,poem=warn,sqlx=warn"),
    ]);
    let rows = load::rows(&demo).await;
    let start = Instant::now();
    // On a thread of its own: it asks servers, and waits for them.
    let events = tokio::task::spawn_blocking(move || cause(cluster, start));
    let samples = load::run(&demo, &rows, start, PAGE.lasts).await;
    let spans = events.await.expect("all of it took place");
    write(&PAGE, &samples, &spans);
}

/// Returns when each of them began and ended.
fn cause(mut cluster: RedisCluster, start: Instant) -> Vec<Span> {
    let wait_for = |second| {
        let at = start + Duration::from_secs(second);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        start.elapsed().as_secs_f64()
    };
    let mut spans = Vec::new();
    let mut span = |name, begin| {
        let end = start.elapsed().as_secs_f64();
        spans.push(Span { name, begin, end });
    };

    let begin = wait_for(8);
    let (primary, replicas) = cluster.shards().swap_remove(1);
    cluster.node_mut(primary).stop();
    cluster.wait_for_primary(replicas[0]);
    span("a primary is killed", begin);
    wait_for(20);
    cluster.node_mut(primary).restart();
    cluster.wait_until_whole();

    let begin = wait_for(28);
    let from = cluster.owner(SLOTS.start);
    let shards = cluster.shards();
    let to = shards.iter().find(|(primary, _)| *primary != from);
    let to = to.expect("there are three").0;
    for slot in SLOTS {
        cluster.move_slot(slot, to);
    }
    for slot in SLOTS {
        cluster.move_slot(slot, from);
    }
    span("slots move, and return", begin);

    let begin = wait_for(46);
    let (_, replicas) = cluster.shards().swap_remove(0);
    cluster.fail_over(replicas[0], &[]);
    span("a primary is replaced", begin);
    // Then it is still there while the last requests are answered.
    wait_for(PAGE.lasts.as_secs() + 2);
    spans
}
