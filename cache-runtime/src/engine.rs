//! The parts of a cache while it is on.

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::auditor::Auditor;
use crate::base::background::Background;
use crate::base::counters::{STRIPES, stripe};
use crate::coalesce::bulkhead::Bulkheads;
use crate::coalesce::load_gate::LoadGates;
use crate::coalesce::maintenance::Maintenance;
use crate::coalesce::single_flight::SingleFlight;
use crate::coalesce::waits::WaitGraph;
use crate::config::CacheConfig;
use crate::invalidation::InvalidationQueue;
use crate::key::KeySpace;
use crate::local::{FreshnessBound, Local};
use crate::monitor;
use crate::registry::learnt::Learnt;
use crate::registry::{Registry, Resource};
use crate::store::{InMemory, MemoryStore, Representation, Store};
use crate::telemetry::Telemetry;

/// The parts that reads and writes need.
#[derive(Debug)]
pub(crate) struct Engine {
    /// Unique in this process: no other engine has, or ever had, this id.
    pub(crate) id: u64,
    pub(crate) config: CacheConfig,
    pub(crate) space: KeySpace,
    pub(crate) store: Arc<dyn Store>,
    /// The same, if it is the store in memory.
    memory: Option<Arc<MemoryStore>>,
    /// Whether a lookup that waits for nothing may find a value there: one that needs no decoding.
    pub(crate) shows_values: bool,
    /// Local entries in front of the store.
    pub(crate) local: Option<Arc<Local>>,
    /// The time until which entries may be served. Set if the store belongs to this process alone
    /// and follows the database's outbox.
    pub(crate) freshness: Option<Arc<FreshnessBound>>,
    /// The state that the outbox's relay shares with the outbox's writers.
    #[cfg(feature = "outbox-postgres")]
    pub(crate) outbox: Option<Arc<crate::invalidation::outbox::OutboxState>>,
    pub(crate) single_flight: Arc<SingleFlight>,
    pub(crate) load_gates: Arc<LoadGates>,
    /// How many loads of one function run at a time.
    pub(crate) bulkheads: Bulkheads,
    /// Records which loads wait for which.
    pub(crate) waits: Arc<WaitGraph>,
    pub(crate) registry: Registry,
    /// Dependencies that loads have named.
    pub(crate) learnt: Learnt,
    pub(crate) invalidations: InvalidationQueue,
    pub(crate) maintenance: Maintenance,
    pub(crate) background: Background,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) auditor: Auditor,
    #[cfg(feature = "metrics")]
    pub(crate) published: crate::telemetry::published::Published,
    closed: AtomicBool,
}

impl Engine {
    pub(crate) fn new(config: CacheConfig, store: Arc<dyn Store>, background: Background) -> Self {
        static ENGINES: AtomicU64 = AtomicU64::new(1);

        let space = config.key_space();
        let telemetry = Arc::new(Telemetry::of(config.store_server()));
        let auditor = Auditor::new(config.audit_limit);
        let invalidations = InvalidationQueue::start(
            Arc::clone(&store),
            &space.namespace,
            config.pending_limit,
            config.intent,
            Arc::clone(&telemetry),
            &background,
        );
        let maintenance = Maintenance::start(Arc::clone(&store), &background);
        let any: Arc<dyn Any + Send + Sync> = Arc::clone(&store) as _;
        Self {
            id: ENGINES.fetch_add(1, Ordering::Relaxed),
            config,
            space,
            shows_values: store.representation() == Representation::Decoded,
            store,
            memory: any.downcast().ok(),
            local: None,
            freshness: None,
            #[cfg(feature = "outbox-postgres")]
            outbox: None,
            single_flight: Arc::default(),
            load_gates: Arc::default(),
            bulkheads: Bulkheads::default(),
            waits: Arc::default(),
            registry: Registry::default(),
            learnt: Learnt::default(),
            invalidations,
            maintenance,
            background,
            telemetry,
            auditor,
            #[cfg(feature = "metrics")]
            published: Default::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Sets the local tier.
    pub(crate) fn with_local(mut self, local: Option<Arc<Local>>) -> Self {
        self.local = local;
        self
    }

    /// Sets the database's outbox. Without Redis, this process follows it by itself.
    #[cfg(feature = "outbox-postgres")]
    pub(crate) fn with_outbox(mut self) -> Self {
        if let Some(outbox) = &self.config.outbox {
            let is_shared = self.config.is_shared();
            let outbox =
                crate::invalidation::outbox::OutboxState::new(outbox.table.quoted(), is_shared);
            self.outbox = Some(Arc::new(outbox));
            if !is_shared {
                self.freshness = Some(Arc::new(FreshnessBound::new(
                    self.config.local_max_staleness,
                )));
            }
        }
        self
    }

    /// The store in memory, as threads that keep its entries see it.
    #[inline]
    pub(crate) fn in_memory(&self) -> Option<InMemory<'_>> {
        let store = self.memory.as_deref()?;
        Some(InMemory::new(store, self.freshness.as_deref()))
    }

    /// The weight of the entries that threads hold in memory of their own.
    pub(crate) fn front_bytes(&self) -> u64 {
        let local = self.local.as_ref().map(|local| local.front_bytes());
        let memory = self.memory.as_ref().map(|memory| memory.front_bytes());
        local.or(memory).unwrap_or(0)
    }

    /// The state of the relay of the database's outbox; `None` unless one is configured.
    pub(crate) fn outbox_stats(&self) -> Option<crate::stats::OutboxStats> {
        #[cfg(feature = "outbox-postgres")]
        if let Some(outbox) = &self.outbox {
            let freshness = self.freshness.as_ref();
            let serving = freshness.map(|it| it.age(crate::local::ClockReading::now()).is_some());
            return Some(outbox.stats(serving));
        }
        None
    }

    /// Starts to watch what the store does not report by itself.
    pub(crate) fn monitor(&self) {
        let local = self.local.as_ref();
        monitor::start(&self.store, local, &self.telemetry, &self.background);
    }

    pub(crate) fn resource(&self, name: &str) -> Option<Arc<Resource>> {
        self.registry
            .resource(name, || self.config.resource_settings(name))
    }

    pub(crate) fn unregistered_resource(&self, name: &str) -> Arc<Resource> {
        self.registry
            .unregistered_resource(name, || self.config.resource_settings(name))
    }

    /// Whether both are the same cache.
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Closes the cache; returns once it is closed, even if another caller asked first.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.invalidations.close().await;
        // The delivery closes the store itself, unless it has failed.
        self.store.close().await;
        self.background.close();
        self.telemetry.events.close();
    }
}

/// An engine as its cache holds it. Each thread counts references at a share of its own, or at one
/// that few threads use. All threads would write a single reference count for each read that asks
/// the store.
#[derive(Debug)]
pub(crate) struct StripedEngine([Arc<EngineStripe>; STRIPES]);

/// Aligned to 128 bytes, so that a share has cache lines of its own, like a stripe of a counter.
#[derive(Debug)]
#[repr(align(128))]
struct EngineStripe(Arc<Engine>);

impl StripedEngine {
    pub(crate) fn new(engine: Engine) -> Self {
        let engine = Arc::new(engine);
        Self(std::array::from_fn(|_| {
            Arc::new(EngineStripe(Arc::clone(&engine)))
        }))
    }

    /// The engine, for tasks that go on for as long as it is there.
    #[cfg(feature = "metrics")]
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.0[0].0
    }

    #[inline]
    pub(crate) fn handle(&self) -> Handle {
        Handle(Source::Own(Arc::clone(&self.0[stripe()])))
    }

    /// A weak handle, for a task that ends with the cache.
    #[cfg(feature = "outbox-postgres")]
    pub(crate) fn downgrade(&self) -> WeakHandle {
        WeakHandle(Arc::downgrade(&self.0[0]))
    }
}

impl Deref for StripedEngine {
    type Target = Engine;

    #[inline]
    fn deref(&self) -> &Engine {
        &self.0[0].0
    }
}

/// A borrowed engine. Most calls end before they need to own the engine, and a reference count
/// costs a tenth of a hit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EngineRef<'a> {
    /// The process-wide engine. It is never dropped, so it needs no reference count.
    Process(&'static StripedEngine),
    Own(&'a StripedEngine),
}

impl EngineRef<'_> {
    #[inline]
    pub(crate) fn handle(self) -> Handle {
        match self {
            Self::Process(striped) => Handle(Source::Process(striped)),
            Self::Own(striped) => striped.handle(),
        }
    }
}

impl Deref for EngineRef<'_> {
    type Target = Engine;

    #[inline]
    fn deref(&self) -> &Engine {
        match *self {
            Self::Process(striped) => striped,
            Self::Own(striped) => striped,
        }
    }
}

/// An owned handle to an engine.
#[derive(Debug, Clone)]
pub(crate) struct Handle(Source);

#[derive(Debug, Clone)]
enum Source {
    Process(&'static Engine),
    Own(Arc<EngineStripe>),
}

/// An engine that may have been dropped.
#[cfg(feature = "outbox-postgres")]
#[derive(Debug, Clone)]
pub(crate) struct WeakHandle(std::sync::Weak<EngineStripe>);

#[cfg(feature = "outbox-postgres")]
impl WeakHandle {
    pub(crate) fn upgrade(&self) -> Option<Handle> {
        let share = self.0.upgrade()?;
        (!share.0.is_closed()).then_some(Handle(Source::Own(share)))
    }
}

impl Deref for Handle {
    type Target = Engine;

    #[inline]
    fn deref(&self) -> &Engine {
        match &self.0 {
            Source::Process(engine) => engine,
            Source::Own(share) => &share.0,
        }
    }
}
