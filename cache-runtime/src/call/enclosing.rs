//! The annotated calls whose bodies the current task is running, innermost first: what they load, and what they write.
//!
//! A call inside a body has to know of two things. A load that needs its own key would wait for itself, until the wait
//! limit; such a call runs its body at once (ZiggyCreatures/FusionCache#513). And a write sees what it has written: its
//! rows are changed, its invalidation comes when the body is over, and until then the cache has what was there before.
//!
//! A load may also wait for itself through another task: one loads `a` and needs `b`, the other loads `b` and needs `a`. So
//! loads that wait for others of the same process say so, and whoever would close a circle runs its body at once.
//!
//! A body is polled with its frame set, and only then: two bodies that one task polls in turn, as `join!` does, know nothing of
//! each other, and a body that is dropped leaves nothing behind. Tasks that a body spawns are not part of it.

use std::sync::Arc;

use crate::call::observe::BypassReason;
use crate::coalesce::waits::Wait;
use crate::engine::Engine;
use crate::protocol::generation::Dep;
use crate::store::Probe;

tokio::task_local! {
    static INNERMOST: Arc<Frame>;
}

/// A body that runs.
#[derive(Debug)]
pub(crate) struct Frame {
    /// [`Engine::id`]: a call of another cache is not concerned.
    cache: u64,
    body: Body,
    outer: Option<Arc<Self>>,
}

#[derive(Debug)]
enum Body {
    /// Of entries with these keys.
    Load(Box<[String]>),
    /// Which invalidates these entries, and what depends on these generations.
    Write(Box<[String]>, Box<[Arc<Dep>]>),
}

impl Frame {
    /// A load of these keys, in the body that runs now if there is one.
    pub(crate) fn load(cache: &Engine, keys: impl Into<Box<[String]>>) -> Arc<Self> {
        Self::inside(cache, Body::Load(keys.into()))
    }

    /// A write that invalidates this, in the body that runs now if there is one.
    pub(crate) fn write(
        cache: &Engine,
        keys: impl Into<Box<[String]>>,
        deps: impl Into<Box<[Arc<Dep>]>>,
    ) -> Arc<Self> {
        Self::inside(cache, Body::Write(keys.into(), deps.into()))
    }

    fn inside(cache: &Engine, body: Body) -> Arc<Self> {
        Arc::new(Self {
            cache: cache.id,
            body,
            outer: INNERMOST.try_with(Arc::clone).ok(),
        })
    }

    /// Polls the body.
    pub(crate) fn run<T>(self: &Arc<Self>, poll: impl FnOnce() -> T) -> T {
        INNERMOST.sync_scope(Arc::clone(self), poll)
    }

    fn bars(&self, probe: &Probe) -> Option<BypassReason> {
        match &self.body {
            Body::Load(keys) => keys.contains(&probe.key).then_some(BypassReason::OwnLoad),
            Body::Write(keys, deps) => {
                let concerns =
                    keys.contains(&probe.key) || probe.deps.iter().any(|dep| deps.contains(dep));
                concerns.then_some(BypassReason::OwnWrite)
            }
        }
    }
}

/// Why the call of this entry has to go past the cache, if one of the bodies around it says so. A write counts before a
/// load: past it nothing is stored in any case.
pub(crate) fn bars(cache: &Engine, probe: &Probe) -> Option<BypassReason> {
    let around = INNERMOST.try_with(Arc::clone).ok()?;
    let frames = std::iter::successors(Some(&*around), |frame| frame.outer.as_deref());
    let mut barred = None;
    for frame in frames.filter(|frame| frame.cache == cache.id) {
        match frame.bars(probe) {
            Some(BypassReason::OwnWrite)
                if !crate::base::mutation::is_active("own-write-not-bypassed") =>
            {
                return Some(BypassReason::OwnWrite);
            }
            Some(BypassReason::OwnLoad)
                if !crate::base::mutation::is_active("own-load-waited-for") =>
            {
                barred = Some(BypassReason::OwnLoad);
            }
            _ => {}
        }
    }
    barred
}

/// Whether any body runs around this call. Costs next to nothing.
#[inline]
pub(crate) fn is_inside() -> bool {
    INNERMOST.try_with(|_| ()).is_ok()
}

/// To be called before the current task waits for the load of `key`.
pub(crate) fn wait(cache: &Engine, key: &str) -> Wait {
    let Ok(around) = INNERMOST.try_with(Arc::clone) else {
        return Wait::Fine(None);
    };
    let frames = std::iter::successors(Some(&*around), |frame| frame.outer.as_deref());
    let loads = frames.filter_map(|frame| match &frame.body {
        Body::Load(keys) if frame.cache == cache.id => Some(keys),
        _ => None,
    });
    cache.waits.wait(loads.flatten().cloned().collect(), key)
}
