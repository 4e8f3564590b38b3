//! Reads that operators switch off, and the subscription to events.

use super::Cache;
use crate::base::error::{Error, ErrorKind};
use crate::call::read::AuditReport;
use crate::key::is_resource;
use crate::monitor::report_switch;
use crate::telemetry::events::Events;
use crate::telemetry::switches::ALL;

/// The reads that are switched off; see [`Cache::switched_off`].
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct SwitchedOff {
    /// In this process, by [`Cache::disable`].
    pub here: Vec<String>,
    /// In all processes, by [`Cache::disable_everywhere`].
    pub everywhere: Vec<String>,
}

impl Cache {
    /// Switches the cached reads of a resource off in this process, at once: their functions simply
    /// run, and the outcome says `switched-off`. `target` is a resource (`users`), one of its
    /// functions by its `op` or, without one, its name (`users:list`), or `*` for all.
    ///
    /// Invalidations continue, and so does [`set`](Self::set). So after [`enable`](Self::enable)
    /// nothing stale is served, and entries from before are served if they are still valid. Other
    /// processes are not affected; see [`disable_everywhere`](Self::disable_everywhere).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # use cache_runtime::{Cache, CacheConfig};
    /// let cache = Cache::new(CacheConfig::default().local_mb(16)).await;
    /// cache.disable("users");
    /// assert_eq!(cache.switched_off().here, ["users"]);
    /// cache.enable("users");
    /// # }
    /// ```
    pub fn disable(&self, target: &str) {
        self.switch_here(target, false);
    }

    /// Switches reads on again that [`disable`](Self::disable) has switched off in this process.
    pub fn enable(&self, target: &str) {
        self.switch_here(target, true);
    }

    fn switch_here(&self, target: &str, enabled: bool) {
        let Some(cache) = self.handle() else { return };
        if !is_target(target) {
            tracing::error!(target, "{NO_TARGET}");
            return;
        }
        // Walking over all names is fine here, because only operators call this.
        if !enabled && !self.is_switchable(target) {
            tracing::warn!(target, "{}", self.no_such(target));
        }
        if cache.telemetry.switches.switch_here(target, enabled) {
            report_switch(&cache.telemetry, target, enabled, false);
        }
    }

    /// Switches reads off as [`disable`](Self::disable) does, in all processes that share the
    /// store. A key in Redis holds the list, and each process reads it within a second. It holds
    /// until [`enable_everywhere`](Self::enable_everywhere), also for processes that start later.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if `target` names no resource or function;
    /// [`ErrorKind::Unavailable`] if Redis can't be reached; [`ErrorKind::Store`] without Redis.
    ///
    /// # Cancel safety
    /// If dropped, it may have been switched or not.
    pub async fn disable_everywhere(&self, target: &str) -> Result<(), Error> {
        self.switch_everywhere(target, false).await
    }

    /// Switches reads on again that [`disable_everywhere`](Self::disable_everywhere) has switched
    /// off.
    ///
    /// # Errors
    /// As [`disable_everywhere`](Self::disable_everywhere).
    ///
    /// # Cancel safety
    /// If dropped, it may have been switched or not.
    pub async fn enable_everywhere(&self, target: &str) -> Result<(), Error> {
        self.switch_everywhere(target, true).await
    }

    async fn switch_everywhere(&self, target: &str, enabled: bool) -> Result<(), Error> {
        if !is_target(target) {
            return Err(Error::new(
                ErrorKind::InvalidKey,
                format!("`{target}`: {NO_TARGET}"),
            ));
        }
        let Some(cache) = self.handle() else {
            return Err(Error::unavailable("the cache is off"));
        };
        cache.store.switch(target, enabled).await?;
        // The store has read the list back. This process uses it from now on.
        if let Some(off) = cache.store.switched_off() {
            let off = off.borrow().clone();
            for change in cache.telemetry.switches.learn(off) {
                report_switch(&cache.telemetry, &change.target, change.enabled, true);
            }
        }
        Ok(())
    }

    /// Whether the program has this resource, or a function of this name. It knows functions that
    /// have been called, and, with the feature `map`, all annotated ones. A name that is switched
    /// off in all processes may belong to another program.
    #[must_use]
    pub fn is_switchable(&self, target: &str) -> bool {
        target == ALL || self.switchable().iter().any(|known| known == target)
    }

    /// The message for an unknown target: a name that is not [switchable](Self::is_switchable). It
    /// contains the most similar name that is.
    #[must_use]
    pub fn no_such(&self, target: &str) -> String {
        let known = self.switchable();
        let near =
            |known: &&String| strsim::osa_distance(target, known) <= target.len().div_ceil(3);
        let distance = |known: &&String| strsim::osa_distance(target, known);
        match known.iter().filter(near).min_by_key(distance) {
            Some(nearest) => format!("nothing here is called `{target}`; `{nearest}` is"),
            None => format!(
                "nothing here is called `{target}`; there are {}",
                known.join(", ")
            ),
        }
    }

    /// All resources, and all functions as `resource:op`.
    pub(crate) fn switchable(&self) -> Vec<String> {
        let mut known = std::collections::BTreeSet::new();
        for function in self.functions() {
            known.insert(format!("{}:{}", function.resource, function.op));
            known.insert(function.resource);
        }
        #[cfg(feature = "map")]
        {
            let map = self.handle().and_then(|cache| cache.config.map.clone());
            let map = map.map_or_else(crate::catalog, |map| (*map).clone());
            for reader in map.readers() {
                let name = reader.function.rsplit("::").next().unwrap_or_default();
                let op = reader.key.split(['{', ':']).next().unwrap_or_default();
                for op in [name, op].into_iter().filter(|op| !op.is_empty()) {
                    known.insert(format!("{}:{op}", reader.resource));
                }
                known.insert(reader.resource.clone());
            }
        }
        known.into_iter().collect()
    }

    /// The reads that are switched off now, in this process and in all.
    #[must_use]
    pub fn switched_off(&self) -> SwitchedOff {
        let Some(cache) = self.handle() else {
            return SwitchedOff::default();
        };
        let (here, everywhere) = cache.telemetry.switches.listed();
        SwitchedOff { here, everywhere }
    }

    /// Publishes the figures of this cache to the installed recorder of `metrics` now. This happens
    /// once a second anyway. A program that renders metrics on request calls this first, so that
    /// they are current.
    #[cfg(feature = "metrics")]
    pub fn publish_metrics(&self) {
        if let Some(cache) = self.handle() {
            crate::metrics::publish(&cache);
        }
    }

    /// The auditor's report since the cache was created: how many hits were compared with their
    /// functions, how many were stale, and the largest share of stale hits among all hits, with 95
    /// % confidence.
    ///
    /// Hits are audited as [`CacheConfig::audit`](crate::CacheConfig::audit) (`CACHE_AUDIT`) or the
    /// attribute's `audit` says, those of batches id by id. Calls inside transactions and inside
    /// other annotated functions are not audited.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use cache_runtime::{Cache, CacheConfig, cached};
    ///
    /// #[cached(resource = "rates", audit = 1.0, cache = cache, skip(cache))]
    /// async fn rate(cache: &Cache, id: u32) -> u32 { id * 2 }
    ///
    /// let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
    /// rate(&cache, 1).await;
    /// rate(&cache, 1).await; // a hit, whose body runs as well
    /// let report = cache.audit();
    /// assert_eq!((report.total.checked, report.total.stale), (1, 0));
    /// # }
    /// ```
    #[must_use]
    pub fn audit(&self) -> AuditReport {
        let cache = self.handle();
        cache.map_or_else(AuditReport::default, |cache| AuditReport::of(&cache))
    }

    /// Subscribes to the events of this cache from now on: invalidations, stale hits, changes of
    /// the circuit breaker, flushes of local entries, switches, and findings of the auditor.
    ///
    /// The cache never waits for a subscriber: one that is more than 1,024 events behind misses the
    /// oldest, and [`Events::lost`] counts them. Without subscribers, events cost nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # use cache_runtime::{Cache, CacheConfig, EventKind};
    /// let cache = Cache::new(CacheConfig::default().local_mb(16)).await;
    /// let mut events = cache.events();
    /// let _ = cache.invalidate_all("users").await;
    /// let event = events.next().await.expect("the cache is on");
    /// assert!(matches!(event.kind, EventKind::Invalidated { .. }));
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> Events {
        match self.handle() {
            Some(cache) => cache.telemetry.events.subscribe(),
            None => Events::none(),
        }
    }
}

const NO_TARGET: &str =
    "not something to switch; name a resource (`users`), a function (`users:list`), or `*` for all";

fn is_target(target: &str) -> bool {
    let is_op = |op: &str| {
        !op.is_empty()
            && op.len() <= 200
            && op.chars().all(|c| c.is_alphanumeric() || "_-:".contains(c))
    };
    match target.split_once(':') {
        Some((resource, op)) => is_resource(resource) && is_op(op),
        None => target == ALL || is_resource(target),
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use ::metrics::{
        Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
        with_local_recorder,
    };
    use parking_lot::Mutex;

    use super::*;
    use crate::base::background::{restarts, supervised};
    use crate::config::CacheConfig;
    use crate::metrics::TASK_RESTARTS;

    /// Keeps the counter of restarts, by its labels.
    #[derive(Default)]
    struct Restarts(Mutex<BTreeMap<String, Arc<Sum>>>);

    #[derive(Default)]
    struct Sum(AtomicU64);

    impl CounterFn for Sum {
        fn increment(&self, value: u64) {
            self.0.fetch_add(value, Ordering::SeqCst);
        }

        fn absolute(&self, value: u64) {
            self.0.store(value, Ordering::SeqCst);
        }
    }

    impl Recorder for Restarts {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            if key.name() != TASK_RESTARTS {
                return Counter::noop();
            }
            let mut sums = self.0.lock();
            let sum = sums.entry(key.to_string()).or_default();
            Counter::from_arc(Arc::clone(sum))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    /// The restarts are of the process: two caches do not count them twice.
    #[tokio::test]
    async fn a_restart_is_counted_once_however_many_caches_publish_it() {
        let panicked = Arc::new(AtomicU64::new(0));
        supervised("test", move || {
            let is_first = panicked.fetch_add(1, Ordering::SeqCst) == 0;
            async move { assert!(!is_first, "it panics once") }
        })
        .await;
        let config = |namespace: &str| CacheConfig::default().local_mb(1).namespace(namespace);
        let caches = [
            Cache::new(config("one")).await,
            Cache::new(config("two")).await,
        ];
        let recorder = Restarts::default();
        // Other tests of this process may let tasks panic meanwhile.
        let before = restarts();
        with_local_recorder(&recorder, || {
            for _ in 0..2 {
                caches.iter().for_each(Cache::publish_metrics);
            }
        });
        let after = restarts();
        let sums = recorder.0.lock();
        let sum: u64 = sums.values().map(|sum| sum.0.load(Ordering::SeqCst)).sum();
        assert!(
            (before..=after).contains(&sum),
            "{before} to {after}: {sum}"
        );
        assert!(before > 0 && sums.len() == 1);
    }
}
