//! The full mix: what the tasks of a process do with everything the cache offers.

use std::sync::Arc;
use std::time::Duration;

use cache_runtime::{AuditAction, AuditReport, Cache, CacheConfig, RedisConfig};
use fastrand::Rng;

use crate::app::{Common, IN_DOUBT_WINDOW, INTENT, LEASE, ProcessConfig, TTL, WAIT, Workload};
use crate::audited::CONFIRM_AFTER;
use crate::clock::now;
use crate::history::{Event, FoundStale, MILLISECOND};
use crate::reads::{self, FullWorkload};
use crate::shop::{Apples, Figs, Kind, Pears, Planted, Plums, Quinces};
use crate::writes;

/// What every cache of this project is given here; `redis` is a loopback port.
pub fn config(redis: Option<u16>) -> CacheConfig {
    let config = CacheConfig::default();
    let config = match redis {
        Some(port) => config.redis(RedisConfig::at("127.0.0.1", port)),
        None => config,
    };
    config
        .default_ttl(TTL)
        .lease(LEASE)
        .wait_limit(WAIT)
        .in_doubt_window(IN_DOUBT_WINDOW)
        .intent(INTENT)
}

/// Much more is audited than anybody would.
const AUDITED: f64 = 0.25;
const AUDITS_PER_SECOND: u32 = 300;

/// Notes what the auditor finds, and lets it stand: what is wrong shall show.
fn audited(config: CacheConfig, common: &Common) -> CacheConfig {
    let (recorder, process) = (Arc::clone(&common.recorder), common.process);
    config
        .audit(AUDITED)
        .audit_limit(AUDITS_PER_SECOND)
        .audit_confirm_after(CONFIRM_AFTER)
        .on_stale(move |finding| {
            let (at, key) = (now(), finding.key.clone());
            recorder.note(&Event::FoundStale(FoundStale { process, at, key }));
            AuditAction::Keep
        })
}

impl Workload for FullWorkload {
    async fn begin(process_config: &ProcessConfig, common: Common) -> Self {
        let mut config = config(None)
            .redis(process_config.redis.config())
            .local_mb(process_config.local_mb)
            .local_max_staleness(process_config.staleness);
        if process_config.is_audited {
            config = audited(config, &common);
        }
        let cache = Cache::new(config).await;
        let planted = process_config.planted_writer.then(|| Planted {
            cache: cache.clone(),
            pool: common.pool.clone(),
        });
        Self {
            cache,
            has_local_entries: process_config.local_mb > 0,
            planted,
            is_audited: process_config.is_audited,
            common,
        }
    }

    fn audit(&self) -> Option<AuditReport> {
        self.is_audited.then(|| self.cache.audit())
    }

    fn common(&self) -> &Common {
        &self.common
    }

    async fn run_operation(self: Arc<Self>, mut rng: Rng) {
        if let Some(planted) = &self.planted
            && rng.u32(..100) < 15
        {
            return reads::planted(planted, &mut rng).await;
        }
        match rng.u32(..9) {
            0..2 => one::<Apples>(self, rng).await,
            2..4 => one::<Pears>(self, rng).await,
            4..6 => one::<Plums>(self, rng).await,
            6..8 => one::<Figs>(self, rng).await,
            _ => one_quiet(self, rng).await,
        }
    }

    async fn sweep(&self) {
        reads::sweep::<Apples>(self).await;
        reads::sweep::<Pears>(self).await;
        reads::sweep::<Plums>(self).await;
        reads::sweep::<Figs>(self).await;
        reads::sweep::<Quinces>(self).await;
    }

    async fn standing(&self) -> (bool, u64) {
        let stats = self.cache.get_stats().await;
        (stats.connected, stats.counters.pending)
    }

    async fn end(&self) {
        self.cache.shutdown().await;
    }
}

async fn one<K: Kind>(workload: Arc<FullWorkload>, mut rng: Rng) {
    if writes::is_last(&workload) {
        writes::write_last::<K>(&workload, &mut rng).await;
    } else if rng.u32(..1_000) < writes::share(&workload, K::NUMBER) {
        writes::write::<K>(&workload, &mut rng).await;
    } else if workload.mishaps && rng.u32(..100) < 2 {
        // A caller who hangs up.
        let limit = Duration::from_micros(rng.u64(50..5_000));
        let _ = tokio::time::timeout(limit, reads::read::<K>(&workload, &mut rng)).await;
    } else if workload.has_local_entries && rng.u32(..100) < 20 {
        // What is read again and again is answered by local entries, and some of them have just
        // been written.
        let again = again(&mut rng);
        for _ in again {
            reads::read::<K>(&workload, &mut rng.clone()).await;
        }
    } else {
        reads::read::<K>(&workload, &mut rng).await;
    }
}

/// How often something is done, within a second or so: all of it is one caller's.
pub(crate) fn again(rng: &mut Rng) -> impl Iterator<Item = u32> + use<> {
    let (times, until) = (rng.u32(2..12), now() + 1_000 * MILLISECOND);
    (0..times).take_while(move |_| now() < until)
}

/// The same with rows that are written once in a long while.
async fn one_quiet(workload: Arc<FullWorkload>, mut rng: Rng) {
    if let Some(id) = writes::quiet_turn(&workload.common) {
        writes::write_quietly::<Quinces>(&workload, &mut rng, id).await;
    } else {
        reads::read::<Quinces>(&workload, &mut rng).await;
    }
}
