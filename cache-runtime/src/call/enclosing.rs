//! The annotated calls whose bodies the current task is running, innermost first: what they load,
//! and what they write.
//!
//! A call inside a body must know two things. First, a load that needs its own key would wait for
//! itself until the wait limit, so such a call runs its body at once
//! (ZiggyCreatures/FusionCache#513). Second, a write must see what it has written: its rows have
//! changed, but its invalidation comes after the body, and until then the cache holds the old
//! values.
//!
//! A load may also wait for itself through another task: one task loads `a` and needs `b`, another
//! loads `b` and needs `a`. So loads that wait for others in the same process are recorded, and a
//! load that would close a cycle runs its body at once. The loads may be in several processes: then
//! the store records them, by their leases ([`Store::closes_circle`](crate::store::Store)).
//!
//! The frame is set only while a body is polled. So two bodies that one task polls in turn, as with
//! `join!`, don't see each other, and a dropped body leaves nothing behind. Tasks that a body
//! spawns are not part of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::marks::{self, Marks};
use crate::base::nonce::Nonce;
use crate::call::observe::BypassReason;
use crate::coalesce::waits::Wait;
use crate::engine::Engine;
use crate::protocol::generation::Dep;
use crate::store::Probe;

tokio::task_local! {
    static INNERMOST: Arc<Frame>;
}

/// A body that is running.
#[derive(Debug)]
pub(crate) struct Frame {
    /// [`Engine::id`]. Calls in other caches are not affected.
    cache: u64,
    body: Body,
    /// Whether what a load makes may hold what a write around it has not committed: it read past the
    /// cache for that reason, or learnt that it depends on what the write invalidates.
    has_seen_own_write: AtomicBool,
    outer: Option<Arc<Self>>,
}

#[derive(Debug)]
enum Body {
    /// Loads the entries with these keys, under these leases.
    Load(Box<[String]>, Box<[Nonce]>),
    /// Invalidates these entries, and everything that depends on these generations.
    Write(Box<[String]>, Box<[Arc<Dep>]>),
}

impl Frame {
    /// Creates the frame of a load of these keys under these leases, if it has any, inside the body
    /// that is running now, if any.
    pub(crate) fn load(
        cache: &Engine,
        keys: impl Into<Box<[String]>>,
        leases: impl Into<Box<[Nonce]>>,
    ) -> Arc<Self> {
        Self::inside(cache, Body::Load(keys.into(), leases.into()))
    }

    /// Creates the frame of a write that invalidates these keys and dependencies, inside the body
    /// that is running now, if any.
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
            has_seen_own_write: AtomicBool::new(false),
            outer: INNERMOST.try_with(Arc::clone).ok(),
        })
    }

    /// Polls the body with this frame set.
    pub(crate) fn run<T>(self: &Arc<Self>, poll: impl FnOnce() -> T) -> T {
        marks::under(Marks::BODY, || INNERMOST.sync_scope(Arc::clone(self), poll))
    }

    /// Whether its value must not be kept for others; see the field.
    pub(crate) fn has_seen_own_write(&self) -> bool {
        self.has_seen_own_write.load(Ordering::Relaxed)
            && !crate::base::mutation::is_active("own-write-stored-by-a-load-around")
    }

    /// Marks the loads from `inner` to this write, which they run inside of.
    fn is_seen_by(&self, inner: &Self) {
        let loads = std::iter::successors(Some(inner), |frame| frame.outer.as_deref());
        for load in loads.take_while(|frame| !std::ptr::eq(*frame, self)) {
            load.has_seen_own_write.store(true, Ordering::Relaxed);
        }
    }

    fn bars(&self, probe: &Probe) -> Option<BypassReason> {
        match &self.body {
            Body::Load(keys, _) => keys.contains(&probe.key).then_some(BypassReason::OwnLoad),
            Body::Write(keys, deps) => {
                let concerns =
                    keys.contains(&probe.key) || probe.deps.iter().any(|dep| deps.contains(dep));
                concerns.then_some(BypassReason::OwnWrite)
            }
        }
    }
}

/// Returns why a call of this entry must bypass the cache, if an enclosing body demands it. A write
/// wins over a load, because nothing may be stored past a write.
pub(crate) fn bars(cache: &Engine, probe: &Probe) -> Option<BypassReason> {
    let around = INNERMOST.try_with(Arc::clone).ok()?;
    let frames = std::iter::successors(Some(&*around), |frame| frame.outer.as_deref());
    let mut barred = None;
    for frame in frames.filter(|frame| frame.cache == cache.id) {
        match frame.bars(probe) {
            Some(BypassReason::OwnWrite)
                if !crate::base::mutation::is_active("own-write-not-bypassed") =>
            {
                frame.is_seen_by(&around);
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

/// The load that is running learns that its value depends on these. If a write around it invalidates one
/// of them, the value must not be kept: what it read may never be committed.
pub(crate) fn learns(cache: &Engine, learnt: &[Arc<Dep>]) {
    let Ok(around) = INNERMOST.try_with(Arc::clone) else {
        return;
    };
    let frames = std::iter::successors(Some(&*around), |frame| frame.outer.as_deref());
    for frame in frames.filter(|frame| frame.cache == cache.id) {
        if let Body::Write(_, deps) = &frame.body
            && learnt.iter().any(|dep| deps.contains(dep))
        {
            return frame.is_seen_by(&around);
        }
    }
}

/// Whether a load of this cache is running around this call.
pub(crate) fn is_in_load(cache: &Engine) -> bool {
    let Ok(around) = INNERMOST.try_with(Arc::clone) else {
        return false;
    };
    let mut frames = std::iter::successors(Some(&*around), |frame| frame.outer.as_deref());
    frames.any(|frame| frame.cache == cache.id && matches!(frame.body, Body::Load(..)))
}

/// The leases of the loads of this cache that are running around this call.
pub(crate) fn leases(cache: &Engine) -> Vec<Nonce> {
    let Ok(around) = INNERMOST.try_with(Arc::clone) else {
        return Vec::new();
    };
    let frames = std::iter::successors(Some(&*around), |frame| frame.outer.as_deref());
    let leases = frames.filter_map(|frame| match &frame.body {
        Body::Load(_, leases) if frame.cache == cache.id => Some(leases),
        _ => None,
    });
    leases.flatten().copied().collect()
}

/// Returns true if the call runs inside any body. Costs almost nothing.
#[inline]
pub(crate) fn is_inside() -> bool {
    Marks::now().has(Marks::BODY)
}

/// Must be called before the current task waits for the load of `key`.
pub(crate) fn wait(cache: &Engine, key: &str) -> Wait {
    let Ok(around) = INNERMOST.try_with(Arc::clone) else {
        return Wait::Fine(None);
    };
    let frames = std::iter::successors(Some(&*around), |frame| frame.outer.as_deref());
    let loads = frames.filter_map(|frame| match &frame.body {
        Body::Load(keys, _) if frame.cache == cache.id => Some(keys),
        _ => None,
    });
    cache.waits.wait(loads.flatten().cloned().collect(), key)
}
