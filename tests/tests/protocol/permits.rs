//! `max_loads`: callers who wait for a place, and loads inside of loads.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use cache_runtime::testing::TestCache;
use cache_runtime::{Cache, CacheConfig, cached, invalidates};
use cache_tests::{RedisServer, eventually};
use futures_util::future::join_all;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::shop::Gate;
use crate::{Pair, bounded, over, over_each_store};

over_each_store! {
    loads_inside_of_loads_without_a_limit_have_one;
    loads_that_hold_permits_of_each_other_get_on;
}

#[derive(Clone)]
struct Reports {
    cache: Cache,
    loads: Arc<AtomicU32>,
    gate: Option<Arc<Gate>>,
}

impl Reports {
    fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            loads: Arc::default(),
            gate: None,
        }
    }

    fn gated(&self, gate: &Arc<Gate>) -> Self {
        Self {
            gate: Some(Arc::clone(gate)),
            ..self.clone()
        }
    }

    fn loads(&self) -> u32 {
        self.loads.load(Ordering::SeqCst)
    }

    async fn load(&self) -> u32 {
        let load = self.loads.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        load
    }

    #[cached(resource = "reports", op = "slow", max_loads = 1, cache = self.cache)]
    async fn slow(&self, month: u32) -> u32 {
        let _ = month;
        tokio::time::sleep(Duration::from_millis(700)).await;
        self.load().await
    }

    #[cached(resource = "reports", op = "single", max_loads = 1, cache = self.cache)]
    async fn single(&self, month: u32) -> u32 {
        let _ = month;
        self.load().await
    }

    #[cached(resource = "reports", op = "double", max_loads = 2, cache = self.cache)]
    async fn double(&self, month: u32) -> u32 {
        let _ = month;
        self.load().await
    }

    #[cached(resource = "dashboards", cache = self.cache)]
    async fn dashboard(&self, id: i64) -> u32 {
        self.double(u32::try_from(id).expect("small")).await
    }

    /// Each needs a place of the other.
    #[cached(resource = "reports", op = "one", max_loads = 1, cache = self.cache)]
    async fn one(&self, part: u32) -> u32 {
        match part {
            0 => self.load().await + Box::pin(self.ungated().other(1)).await,
            _ => 1,
        }
    }

    #[cached(resource = "reports", op = "other", max_loads = 1, cache = self.cache)]
    async fn other(&self, part: u32) -> u32 {
        match part {
            0 => self.load().await + Box::pin(self.ungated().one(1)).await,
            _ => 1,
        }
    }

    fn ungated(&self) -> Self {
        Self {
            gate: None,
            ..self.clone()
        }
    }

    #[invalidates("reports", cache = self.cache)]
    async fn write(&self) {}
}

/// The last of them waits for eight loads, which is longer than the wait limit.
#[tokio::test(start_paused = true)]
async fn waiters_for_a_queued_load_get_its_value() {
    let cache = TestCache::decoded(CacheConfig::default());
    let reports = Reports::new(&cache);
    reports.write().await;
    let calls = (0..80).map(|call| reports.slow(call % 8));
    let values = join_all(calls).await;
    assert_eq!(reports.loads(), 8);
    assert!(values[..8].iter().eq(&values[72..]));
}

/// A load of another process, longer than the wait limit. When this process has a place, its value
/// is there.
#[tokio::test]
async fn a_load_that_gets_its_permit_late_looks_again() {
    bounded(async {
        let server = RedisServer::start();
        let config = || over(&server).wait_limit(Duration::from_millis(300));
        let (a, b) = (Cache::new(config()).await, Cache::new(config()).await);
        let here = Reports::new(&a);
        let there = Reports {
            cache: b.clone(),
            ..here.clone()
        };
        let (of_a, of_b) = (Gate::new(), Gate::new());
        let call = |reports: Reports, month| {
            cache_tests::spawn(async move { reports.single(month).await })
        };
        let first = call(here.gated(&of_a), 1);
        of_a.arrival().await;
        // It has its lease, and waits for the place of the first.
        let second = call(here.gated(&of_a), 2);
        eventually(Duration::from_secs(20), async || {
            server.cli(&["KEYS", "reports:single:*"]).lines().count() == 2
        })
        .await;
        let third = call(there.gated(&of_b), 3);
        of_b.arrival().await;
        let late = call(there.gated(&of_b), 2);
        eventually(Duration::from_secs(20), async || {
            b.get_stats().await.counters.bypasses == 1
        })
        .await;
        for gate in [&of_a, &of_a, &of_b, &of_b] {
            if Arc::ptr_eq(gate, &of_b) && !second.is_finished() {
                eventually(Duration::from_secs(20), async || second.is_finished()).await;
            }
            gate.open();
        }
        first.await.expect("ran");
        third.await.expect("ran");
        assert_eq!(
            late.await.expect("ran"),
            second.await.expect("ran"),
            "it is that of the other process"
        );
        assert_eq!(here.loads(), 3);
    })
    .await;
}

async fn loads_inside_of_loads_without_a_limit_have_one(pair: Pair) {
    let gate = Gate::new();
    let reports = Reports::new(&pair.a).gated(&gate);
    let all: Vec<_> = (0..6)
        .map(|id| {
            let reports = reports.clone();
            cache_tests::spawn(async move { reports.dashboard(id).await })
        })
        .collect();
    for _ in 0..2 {
        gate.arrival().await;
    }
    // All that is ready gets as far as it can.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    for _ in 0..6 {
        gate.open();
    }
    for one in all {
        one.await.expect("ran");
    }
    assert_eq!((gate.most(), reports.loads()), (2, 6));
}

async fn loads_that_hold_permits_of_each_other_get_on(pair: Pair) {
    let gate = Gate::new();
    let reports = Reports::new(&pair.a).gated(&gate);
    let both = async {
        let (one, other) = tokio::join!(reports.one(0), reports.other(0));
        assert_eq!(one + other, 1 + 2 + 2);
    };
    let opened = async {
        gate.arrival().await;
        gate.arrival().await;
        gate.open();
        gate.open();
    };
    let log = Log::of_this_process();
    tracing::warn!("written by the test");
    tokio::join!(both, opened);
    let log = log.text();
    assert!(log.contains("written by the test"), "{log}");
    assert!(
        !log.contains("runs beyond `max_loads`"),
        "they waited until there was no progress for 10 s"
    );
}

/// The warnings of this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// For all threads: with a subscriber of one thread, events may be missed that another thread
    /// has reached first.
    fn of_this_process() -> &'static Self {
        static LOG: LazyLock<Log> = LazyLock::new(|| {
            let log = Log::default();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_max_level(LevelFilter::WARN)
                .with_writer(log.clone());
            subscriber.init();
            log
        });
        &LOG
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("whole")).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("whole").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
