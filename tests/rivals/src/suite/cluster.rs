//! Three primaries with a replica each: hits, invalidations, reads while slots move, and a
//! failover.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cache_runtime::{CacheConfig, RedisConfig};
use cache_tests::RedisCluster;
use futures_util::future::join_all;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;

use super::{Failed, Settings};
use crate::data;
use crate::figures::{Bound, Findings, Goal, Row, Table};
use crate::measure::{Contestant, Drive, Result as Measured, compare, quantile};
use crate::progress::Step;
use crate::report::time;
use crate::rivals::hand_written::HandWritten;
use crate::rivals::ours::Service;

/// Rows that are read in turn.
const ROWS: u64 = 1_000;

/// Both over one cluster.
struct Both {
    cluster: RedisCluster,
    hand_written: Arc<HandWritten<ClusterConnection>>,
    ours: Arc<Service>,
}

impl Both {
    async fn start() -> Result<Self, Failed> {
        let cluster = tokio::task::spawn_blocking(|| RedisCluster::start(3, 1)).await?;
        let nodes = (0..cluster.len()).map(|node| cluster.node(node).port());
        let urls = nodes
            .clone()
            .map(|port| format!("redis://127.0.0.1:{port}"));
        let connection = ClusterClient::new(urls)?.get_async_connection().await?;
        let seeds = nodes.map(|port| ("127.0.0.1", port));
        let config = CacheConfig::default().redis(RedisConfig::cluster(seeds));
        Ok(Self {
            cluster,
            hand_written: Arc::new(HandWritten(connection)),
            ours: Arc::new(Service::over(config).await),
        })
    }

    /// Hand-written is the first.
    async fn hits(&self) -> Result<[Contestant; 2], Failed> {
        for id in 0..ROWS as i64 {
            self.hand_written.row(id).await?;
            self.ours.user(id).await?;
        }
        let (by_hand, ours) = (self.hand_written.clone(), self.ours.clone());
        Ok([
            Contestant::new("hand-written", move |n| {
                let by_hand = by_hand.clone();
                async move {
                    black_box(by_hand.row((n % ROWS) as i64).await.expect("a row"));
                }
            }),
            Contestant::new("this project", move |n| {
                let ours = ours.clone();
                async move {
                    black_box(ours.user((n % ROWS) as i64).await.expect("a row"));
                }
            }),
        ])
    }

    fn writes(&self) -> [Contestant; 3] {
        let (by_hand, by_id, whole) = (
            self.hand_written.clone(),
            self.ours.clone(),
            self.ours.clone(),
        );
        [
            Contestant::new("hand-written, `DEL`", move |n| {
                let by_hand = by_hand.clone();
                async move {
                    by_hand.write_row((n % ROWS) as i64).await.expect("a write");
                }
            }),
            Contestant::new("this project, a row", move |n| {
                let ours = by_id.clone();
                async move {
                    ours.write((n % ROWS) as i64).await.expect("a write");
                }
            }),
            Contestant::new("this project, the whole resource", move |_| {
                let ours = whole.clone();
                async move {
                    let _ = black_box(ours.cache.invalidate_all("users").await);
                }
            }),
        ]
    }
}

fn table(title: &str, text: &str, results: &[Measured]) -> Table {
    Table {
        title: title.to_owned(),
        text: text.to_owned(),
        rows: results.iter().map(|result| result.row(1.0)).collect(),
    }
}

const HIT: &str = "A row of 130 bytes of JSON, one of a thousand in turn. Hand-written is `GET` over the cluster client of \
                   the `redis` crate; this project also asks the node of the resource's generations, at the same time.";

/// One caller, on one thread.
pub(super) async fn alone(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let both = Both::start().await?;
    let hits = compare(&both.hits().await?, settings.drive(1), step).await;
    let writes = compare(&both.writes(), settings.drive(1), step).await;
    Ok(Findings {
        goals: vec![Goal::measured(
            "Cluster, a hit, 1 task: p50 against hand-written",
            Bound::AtMost(0.8),
            "×",
            hits[1].p50_ratio,
        )],
        tables: vec![
            table("Cluster: a hit, one caller", HIT, &hits),
            table(
                "Cluster: an invalidation, one caller",
                "Until it is acknowledged. A row's has two scripts at two nodes, at the same time.",
                &writes,
            ),
        ],
        plots: Vec::new(),
    })
}

/// Many callers, on all processors.
pub(super) async fn load(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let mut both = Both::start().await?;
    let contestants = both.hits().await?;
    let hits = compare(&contestants, settings.drive(64), step).await;
    let (moving, moved) = while_slots_move(&both, &contestants, settings, step).await?;
    let failover = through_a_failover(&mut both, settings, step).await?;
    let text = format!(
        "{HIT} Meanwhile the slots of rows move to another node one after the other, and return: {moved} moves."
    );
    Ok(Findings {
        goals: vec![Goal::measured(
            "Cluster, a hit, 64 tasks: throughput against hand-written",
            Bound::AtLeast(1.5),
            "×",
            hits[1].rate_ratio,
        )],
        tables: vec![
            table("Cluster: a hit, 64 callers", HIT, &hits),
            table(
                "Cluster: a hit, 64 callers, slots on the move",
                &text,
                &moving,
            ),
            failover,
        ],
        plots: Vec::new(),
    })
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The hits again, while one slot after another moves there and back.
async fn while_slots_move(
    both: &Both,
    contestants: &[Contestant],
    settings: &Settings,
    step: &Step,
) -> Result<(Vec<Measured>, u64), Failed> {
    let over = AtomicBool::new(false);
    let moved = AtomicU64::new(0);
    let cluster = &both.cluster;
    std::thread::scope(|scope| {
        // Also if the comparison panics, or the mover would go on for ever.
        let end = SetOnDrop(&over);
        let mover = scope.spawn(|| {
            for id in (0..ROWS).cycle() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let slot = cluster.slot(&format!("users:{id}"));
                let from = cluster.owner(slot);
                let shards = cluster.shards();
                let Some((to, _)) = shards.iter().find(|(primary, _)| *primary != from) else {
                    return;
                };
                cluster.move_slot(slot, *to);
                cluster.move_slot(slot, from);
                moved.fetch_add(2, Ordering::Relaxed);
            }
        });
        let results = tokio::task::block_in_place(|| {
            // A slot that moves has another owner, whose entries are new.
            let drive = Drive {
                misses: 50,
                ..settings.drive(64)
            };
            tokio::runtime::Handle::current().block_on(compare(contestants, drive, step))
        });
        drop(end);
        mover.join().map_err(|_| "the mover panicked")?;
        Ok((results, moved.load(Ordering::Relaxed)))
    })
}

/// A primary is killed under load: for how long there are fewer hits, and whether a caller gets
/// anything but its row.
async fn through_a_failover(
    both: &mut Both,
    settings: &Settings,
    step: &Step,
) -> Result<Table, Failed> {
    step.say("a failover");
    let lasts = settings.pick(Duration::from_secs(8), Duration::from_secs(15));
    let start = Instant::now();
    let tasks = (0..64_u64).map(|task| {
        let ours = both.ours.clone();
        tokio::spawn(async move {
            let (mut failed, mut waited) = (0_u64, Vec::new());
            let mut n = task * 31;
            while start.elapsed() < lasts {
                let begun = Instant::now();
                let row = ours.user((n % ROWS) as i64).await;
                failed += u64::from(row.is_err());
                waited.push(begun.elapsed().as_nanos() as f64);
                n += 1;
            }
            (failed, waited)
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let watcher = tokio::spawn(async move {
        // Loads in each tenth of a second.
        let mut loads = Vec::new();
        let mut before = data::loads();
        while start.elapsed() < lasts {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = data::loads();
            loads.push((start.elapsed(), now - before));
            before = now;
        }
        loads
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (killed, elected) = tokio::task::block_in_place(|| {
        let (primary, replicas) = both.cluster.shards().swap_remove(0);
        let killed = start.elapsed();
        both.cluster.node_mut(primary).stop();
        both.cluster.wait_for_primary(replicas[0]);
        (killed, start.elapsed())
    });
    let (mut calls, mut failed, mut waited) = (0_usize, 0, Vec::new());
    for task in join_all(tasks).await {
        let (errors, times) = task?;
        failed += errors;
        calls += times.len();
        waited.extend(times);
    }
    let loads = watcher.await?;
    // Rows of the dead node are loaded on each call until the replica is used, and once more then.
    let last = loads.iter().rev().find(|(_, loads)| *loads > ROWS);
    let back = last.map_or(Duration::ZERO, |(at, _)| at.saturating_sub(killed));
    let seconds = |duration: Duration| format!("{:.1} s", duration.as_secs_f64());
    let row = Row::named("this project")
        .with("calls", crate::report::count(calls as f64))
        .with("failed", failed.to_string())
        .with("p50", time(quantile(waited.clone(), 0.5)))
        .with("p99", time(quantile(waited.clone(), 0.99)))
        .with("longest", time(quantile(waited, 1.0)))
        .with("new primary after", seconds(elected - killed))
        .with("all hits again after", seconds(back));
    Ok(Table {
        title: "Cluster: a primary is killed under load".to_owned(),
        text: "64 callers. Meanwhile rows of the dead node are loaded; the function takes no time."
            .to_owned(),
        rows: vec![row],
    })
}
