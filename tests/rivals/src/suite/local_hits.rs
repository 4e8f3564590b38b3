//! Hits in the process, key included; and what an annotated function costs while the cache is off.

use std::any::Any;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use amalgam::EntryOptions;
use cache_runtime::{CacheConfig, RedisConfig, observe};
use cache_tests::RedisServer;
use cached::macros::concurrent_cached;
use futures_util::future::BoxFuture;
use hydracache::{CacheOptions, HydraCache};

use super::{Failed, Settings};
use crate::data::{self, User};
use crate::figures::{Bound, Findings, Goal, Row, Table};
use crate::measure::{Contestant, compare};
use crate::progress::Step;
use crate::rivals::Failure;
use crate::rivals::ours::Service;

/// Calls that are timed together.
const BATCH: u64 = 1_000;
/// Rows that are read in turn.
pub const ROWS: u64 = 1_000;

#[concurrent_cached(max_size = 100_000, ttl_secs = 3600)]
async fn cached_user(id: i64) -> Arc<User> {
    Arc::new(data::load(id).await)
}

/// Makes as many hits as it is told, from where it is told.
pub type Hits = Arc<dyn Fn(u64, u64) -> BoxFuture<'static, ()> + Send + Sync>;

macro_rules! hits {
    ($name:literal, |$id:ident| $call:expr) => {
        hits!($name, (), |_state, $id| $call)
    };
    ($name:literal, $state:expr, |$shared:ident, $id:ident| $call:expr) => {{
        let state = Arc::new($state);
        let hits: Hits = Arc::new(move |from, number| {
            let $shared = state.clone();
            // One box per batch: the loop inside is compiled with the call.
            Box::pin(async move {
                for n in from..from + number {
                    let $id = (n % ROWS) as i64;
                    black_box($call);
                }
            })
        });
        ($name, hits)
    }};
}

/// With Redis and a local entry of each row.
async fn both_tiers(port: u16) -> Service {
    let redis = RedisConfig::at("127.0.0.1", port);
    let service = Service::over(CacheConfig::default().local_mb(64).redis(redis)).await;
    for id in 0..ROWS as i64 {
        loop {
            let (_, outcomes) = observe(service.shared_user(id)).await;
            if outcomes[0].cache_status().ends_with("detail=local") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    service
}

/// All who keep values in the process. The first is what the others are compared with, the second
/// is ours as it is promised: a local entry of what is in Redis, which the writes of other
/// processes reach.
pub async fn contestants() -> Vec<(&'static str, Hits)> {
    let server = RedisServer::start();
    let both = both_tiers(server.port()).await;
    let memory = Service::memory(64).await;
    let quick = quick_cache::sync::Cache::<i64, Arc<User>>::new(100_000);
    let moka = moka::sync::Cache::<i64, Arc<User>>::builder()
        .max_capacity(100_000)
        .time_to_live(Duration::from_secs(3600))
        .build();
    for id in 0..ROWS as i64 {
        let row = Arc::new(User::new(id, 0));
        quick.insert(id, row.clone());
        moka.insert(id, row);
    }
    let amalgam = amalgam::Cache::<Arc<User>>::builder()
        .default_options(EntryOptions::new(Duration::from_secs(3600)))
        .try_build()
        .expect("a cache");
    let hydra = HydraCache::local().max_capacity(100_000).build();
    vec![
        hits!("cached, sharded", |id| cached_user(id).await),
        hits!("this project", (both, server), |ours, id| ours
            .0
            .shared_user(id)
            .await
            .is_ok()),
        hits!("this project, in memory only", memory, |ours, id| ours
            .shared_user(id)
            .await
            .is_ok()),
        hits!("quick_cache, bare", quick, |quick, id| quick.get(&id)),
        hits!("moka, bare", moka, |moka, id| moka.get(&id)),
        hits!("amalgam-cache, memory", amalgam, |amalgam, id| {
            let load = move |_| async move { Ok::<_, Failure>(Arc::new(data::load(id).await)) };
            amalgam
                .get_or_set(format!("users:{id}"), load)
                .await
                .is_ok()
        }),
        hits!("HydraCache, decoding", hydra, |hydra, id| {
            let load = move || async move { Ok::<_, Failure>(data::load(id).await) };
            let key = format!("users:{id}");
            let options = CacheOptions::new().ttl(Duration::from_secs(3600));
            hydra
                .get_or_load::<User, _, _, _>(&key, options, load)
                .await
                .is_ok()
        }),
    ]
}

/// Where the executable lies that counts allocations.
pub(super) fn counter() -> Result<PathBuf, Failed> {
    Ok(std::env::current_exe()?.with_file_name("allocations"))
}

/// Allocations and bytes per hit, by name.
fn allocations() -> Result<Vec<(String, f64, f64)>, Failed> {
    let output = Command::new(counter()?).arg("hits").output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub(super) async fn run(settings: &Settings, step: &Step) -> Result<Findings, Failed> {
    let mut findings = Findings::default();
    let hits = contestants().await;
    for (_, hits) in &hits {
        hits(0, ROWS).await;
    }
    let batched: Vec<_> = hits
        .iter()
        .map(|(name, hits)| {
            let hits = hits.clone();
            Contestant::batched(*name, BATCH, move |from| hits(from, BATCH))
        })
        .collect();
    let alone = compare(&batched, settings.drive(1), step).await;
    let together = compare(&batched, settings.drive(2), step).await;
    step.say("counting allocations");
    let allocations = allocations()?;
    let row = |index: usize| -> Row {
        let row = alone[index].row(0.1);
        let counted = allocations.iter().find(|(name, ..)| *name == row.name);
        let (_, number, bytes) = counted.cloned().unwrap_or_default();
        row.with("allocations", format!("{number:.2}"))
            .with("bytes allocated", format!("{bytes:.0}"))
            .with(
                "2 threads, per second",
                crate::report::count(together[index].sum.rate()),
            )
    };
    let rows: Vec<_> = (0..hits.len()).map(row).collect();
    let own = allocations.iter().find(|(name, ..)| name == "this project");
    findings.goals.extend([
        Goal::measured(
            "Local hit, `Arc` value, key included: p50",
            Bound::AtMost(45.0),
            "ns",
            alone[1].sum.quantile(0.5) * 0.1,
        ),
        Goal::measured(
            "The same: p50 against `cached`, sharded",
            Bound::AtMost(1.0),
            "×",
            alone[1].p50_ratio,
        ),
        Goal::measured(
            "Local hit: allocations",
            Bound::AtMost(0.0),
            "",
            // Other threads allocate now and then; what each hit allocates is a whole number.
            own.map_or(f64::NAN, |(_, number, _)| (number * 100.0).round() / 100.0),
        ),
        Goal::measured(
            "Local hits on 2 threads",
            Bound::AtLeast(22.0),
            "M/s",
            together[1].sum.rate() / 1e6,
        ),
    ]);
    findings.tables.push(Table {
        title: "Local hit".into(),
        text: "One of a thousand rows in turn, as an `Arc`, and the key made from the arguments. Means of a thousand calls \
               each. This project is measured through a service's own cache: with both tiers, the writes of other processes reach what is served. What is bare or sharded is a map: no other \
               process can invalidate it, and no load is shared."
            .into(),
        rows,
    });

    let service = Arc::new(Service::over(CacheConfig::default()).await);
    let annotated = service.clone();
    let contestants = [
        Contestant::batched("the bare function", BATCH, move |from| {
            let service = service.clone();
            async move {
                for id in from..from + BATCH {
                    let _ = black_box(service.bare_number(id as i64).await);
                }
            }
        }),
        Contestant::batched("annotated, cache off", BATCH, move |from| {
            let service = annotated.clone();
            async move {
                for id in from..from + BATCH {
                    let _ = black_box(service.number(id as i64).await);
                }
            }
        }),
    ];
    let results = compare(&contestants, settings.drive(1), step).await;
    let over = (results[1].sum.quantile(0.5) - results[0].sum.quantile(0.5)) * 0.1;
    let what = "Cache off: over the bare function";
    findings
        .goals
        .push(Goal::measured(what, Bound::AtMost(3.0), "ns", over));
    findings.tables.push(Table {
        title: "Cache off".into(),
        text: "A function that returns its argument. Means of a thousand calls each.".into(),
        rows: results.iter().map(|result| result.row(0.1)).collect(),
    });
    Ok(findings)
}

// Unbounded: it allocates what its bound asks for at once, however few entries there are.
#[concurrent_cached(ttl_secs = 3600)]
async fn cached_text(n: i64, size: i64) -> Arc<String> {
    let _ = n;
    Arc::new(data::text(size))
}

/// Entries of an `Arc` of a text of that many bytes in the cache of that name, which it hands back.
pub async fn fill(name: &str, number: u64, size: i64) -> Box<dyn Any> {
    let numbers = 0..number as i64;
    match name {
        "this project" => {
            let service = Service::memory(1_000).await;
            for n in numbers {
                service.shared_text(size, n).await.expect("a text");
            }
            Box::new(service)
        }
        "quick_cache, bare" => {
            let cache = quick_cache::sync::Cache::new(number as usize * 2);
            numbers.for_each(|n| cache.insert(n, Arc::new(data::text(size))));
            Box::new(cache)
        }
        "moka, bare" => {
            let cache = moka::sync::Cache::new(number * 2);
            numbers.for_each(|n| cache.insert(n, Arc::new(data::text(size))));
            cache.run_pending_tasks();
            Box::new(cache)
        }
        "cached, sharded" => {
            for n in numbers {
                cached_text(n, size).await;
            }
            Box::new(())
        }
        _ => panic!("nobody is named {name}"),
    }
}
