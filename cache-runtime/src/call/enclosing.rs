//! The annotated calls whose bodies the current task is running, innermost first, with the entries
//! that they load or invalidate.
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
//! the store records them, by their leases ([`Store::closes_cycle`](crate::store::Store)).
//!
//! The frame is set only while a body is polled. So two bodies that one task polls in turn, as with
//! `join!`, don't see each other, and a dropped body leaves nothing behind. Tasks that a body
//! spawns are not part of it, unless they [inherit](crate::inherit) it.
//!
//! A task that inherits a body may outlive it. So a frame says when it is over, and bars nothing from
//! then on: that of a load when its body has ended, since nobody waits for it any more; that of a
//! write when its invalidation is acknowledged, or waits in the queue, which reads ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::base::mutation;
use crate::base::nonce::Nonce;
use crate::base::scope_flags::{self, ScopeFlags};
use crate::base::task_locals;
use crate::call::ambient::{self, AmbientId};
use crate::call::observe::BypassReason;
use crate::coalesce::waits::WaitDecision;
use crate::engine::Engine;
use crate::protocol::generation::Dependency;
use crate::registry::{CallSite, Mistake};
use crate::store::EntryRef;

tokio::task_local! {
    static INNERMOST: Arc<Frame>;
}

/// A body that is running.
#[derive(Debug)]
pub(crate) struct Frame {
    /// [`Engine::id`]. Calls in other caches are not affected.
    cache: u64,
    body: Body,
    /// Whether the loaded value may contain data that an enclosing write has not committed: the
    /// load bypassed the cache for that reason, or turned out to depend on rows that the write
    /// invalidates.
    has_seen_own_write: AtomicBool,
    /// Whether the loaded value depends on a value that is set around the load, such as the tenant,
    /// and that the load's key lacks.
    lacks_context: AtomicBool,
    /// The function whose permit of `max_loads` the load holds; 0 for none.
    permit_of: AtomicUsize,
    /// Whether the body has ended, and what it wrote is invalidated as far as reads know.
    is_over: AtomicBool,
    outer: Option<Arc<Self>>,
}

/// The entries that a load makes.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    pub(crate) keys: Box<[String]>,
    /// The leases under which they are stored, if there are any.
    pub(crate) leases: Box<[Nonce]>,
    /// The names of the values that are set around the load and are in its keys.
    pub(crate) contexts: Box<[Box<str>]>,
    /// All that is set around the load.
    pub(crate) ambient: Option<AmbientId>,
    pub(crate) site: Option<&'static CallSite>,
}

#[derive(Debug)]
enum Body {
    /// Loads these entries.
    Load(Loads),
    /// Invalidates these entries, and everything that depends on these generations.
    Write(Box<[String]>, Box<[Arc<Dependency>]>),
}

impl Frame {
    /// Creates the frame of a load, inside the body that is running now, if any.
    pub(crate) fn load(cache: &Engine, loads: Loads) -> Arc<Self> {
        Self::inside(cache, Body::Load(loads))
    }

    /// Creates the frame of a write that invalidates these keys and dependencies, inside the body
    /// that is running now, if any.
    pub(crate) fn write(
        cache: &Engine,
        keys: impl Into<Box<[String]>>,
        deps: impl Into<Box<[Arc<Dependency>]>>,
    ) -> Arc<Self> {
        Self::inside(cache, Body::Write(keys.into(), deps.into()))
    }

    fn inside(cache: &Engine, body: Body) -> Arc<Self> {
        Arc::new(Self {
            cache: cache.id,
            body,
            has_seen_own_write: AtomicBool::new(false),
            lacks_context: AtomicBool::new(false),
            permit_of: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            outer: innermost(),
        })
    }

    /// The body has ended: tasks that have inherited it are not part of it any more.
    pub(crate) fn ends(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire) && !mutation::is_active("bodies-are-never-over")
    }

    /// This body and those around it, without those that are over.
    fn running(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |frame| frame.outer.as_ref())
            .filter(|frame| !frame.is_over())
    }

    /// Polls the body with this frame set.
    pub(crate) fn run<T>(self: &Arc<Self>, poll: impl FnOnce() -> T) -> T {
        scope_flags::under(ScopeFlags::BODY, || {
            INNERMOST.sync_scope(Arc::clone(self), poll)
        })
    }

    /// Whether its value must not be kept for others; see the fields.
    pub(crate) fn is_private(&self) -> bool {
        let has_seen_own_write = self.has_seen_own_write.load(Ordering::Relaxed)
            && !mutation::is_active("own-write-stored-by-a-load-around");
        has_seen_own_write || self.lacks_context.load(Ordering::Relaxed)
    }

    /// The load holds a permit of this function.
    pub(crate) fn holds_permit(&self, function: usize) {
        self.permit_of.store(function, Ordering::Relaxed);
    }

    /// A call inside uses a value that is set around it. If that is set around this load as well,
    /// and is not in its key, the loaded value is only for callers with the same value.
    fn sees_context(&self, name: &str) {
        let Body::Load(load) = &self.body else {
            return;
        };
        let is_in_key = load.contexts.iter().any(|it| **it == *name);
        if is_in_key
            || !ambient::is_that_of(name, load.ambient.as_ref())
            || mutation::is_active("context-lost-in-a-load-around")
        {
            return;
        }
        self.lacks_context.store(true, Ordering::Relaxed);
        if let Some(site) = load.site {
            site.report(Mistake::ContextNotInKey, || {
                format!("the value of {site} depends on `{name}`, which is set around the call and is not in its key, so it is not stored; add `include_context(\"{name}\")`, or declare it for its resource with `CacheConfig::resource(..).context(\"{name}\")`")
            });
        }
    }

    /// Marks the loads from `inner` to this write, which they run inside of.
    fn is_seen_by(&self, inner: &Self) {
        let loads = std::iter::successors(Some(inner), |frame| frame.outer.as_deref());
        for load in loads.take_while(|frame| !std::ptr::eq(*frame, self)) {
            load.has_seen_own_write.store(true, Ordering::Relaxed);
        }
    }

    fn is_load(&self) -> bool {
        matches!(self.body, Body::Load(_))
    }

    fn bars(&self, entry_ref: &EntryRef) -> Option<BypassReason> {
        match &self.body {
            Body::Load(load) => {
                let is_own = load.keys.contains(&entry_ref.key);
                is_own.then_some(BypassReason::OwnLoad)
            }
            Body::Write(keys, deps) => {
                let concerns = keys.contains(&entry_ref.key)
                    || entry_ref.deps.iter().any(|dep| deps.contains(dep));
                concerns.then_some(BypassReason::OwnWrite)
            }
        }
    }
}

/// The innermost body that the current task is running.
pub(crate) fn innermost() -> Option<Arc<Frame>> {
    let innermost = INNERMOST.try_with(Arc::clone).ok()?;
    still_running(&innermost).cloned()
}

/// The innermost of this body and those around it that is not over.
pub(crate) fn still_running(body: &Arc<Frame>) -> Option<&Arc<Frame>> {
    body.running().next()
}

/// Whether [`inside_of`] works. It panics while the thread ends and its values are gone.
pub(crate) fn can_be_inside_of(body: Option<&Arc<Frame>>) -> bool {
    body.is_none_or(|body| task_locals::can_be_set(&INNERMOST, Arc::clone(body)))
}

/// Runs `call` inside of this body, which another task is running. The flag is set by whoever calls
/// this.
pub(crate) fn inside_of<T>(body: Option<&Arc<Frame>>, call: impl FnOnce() -> T) -> T {
    match body {
        Some(body) => INNERMOST.sync_scope(Arc::clone(body), call),
        None => call(),
    }
}

/// Returns why a call of this entry must bypass the cache, if an enclosing body demands it. A write
/// wins over a load, because nothing may be stored past a write.
pub(crate) fn bars(cache: &Engine, entry_ref: &EntryRef) -> Option<BypassReason> {
    let around = INNERMOST.try_with(Arc::clone).ok()?;
    let mut barred = None;
    for frame in around.running().filter(|frame| frame.cache == cache.id) {
        match frame.bars(entry_ref) {
            Some(BypassReason::OwnWrite) if !mutation::is_active("own-write-not-bypassed") => {
                frame.is_seen_by(&around);
                return Some(BypassReason::OwnWrite);
            }
            Some(BypassReason::OwnLoad) if !mutation::is_active("own-load-waited-for") => {
                barred = Some(BypassReason::OwnLoad);
            }
            // An invalidation reaches such a store key by key. This load may have begun after its
            // own generation was replaced, and before the other entry was removed.
            None if frame.is_load()
                && !cache.store.is_atomic()
                && !mutation::is_active("loads-made-of-entries") =>
            {
                barred = barred.or(Some(BypassReason::InsideLoad));
            }
            _ => {}
        }
    }
    barred
}

/// The load that is running learns that its value depends on these. If a write around it
/// invalidates one of them, the value must not be kept: what it read may never be committed.
pub(crate) fn learns(cache: &Engine, learnt: &[Arc<Dependency>]) {
    let Ok(around) = INNERMOST.try_with(Arc::clone) else {
        return;
    };
    for frame in around.running().filter(|frame| frame.cache == cache.id) {
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
    let mut frames = around.running();
    frames.any(|frame| frame.cache == cache.id && matches!(frame.body, Body::Load(..)))
}

/// Whether a write of this cache is running around this call.
pub(crate) fn is_in_write(cache: &Engine) -> bool {
    if !is_inside() {
        return false;
    }
    let Ok(around) = INNERMOST.try_with(Arc::clone) else {
        return false;
    };
    let mut frames = around.running();
    frames.any(|frame| frame.cache == cache.id && !frame.is_load())
}

/// The leases of the loads of this cache that are running around this call.
pub(crate) fn leases(cache: &Engine) -> Vec<Nonce> {
    let Ok(around) = INNERMOST.try_with(Arc::clone) else {
        return Vec::new();
    };
    let leases = around.running().filter_map(|frame| match &frame.body {
        Body::Load(load) if frame.cache == cache.id => Some(&load.leases),
        _ => None,
    });
    leases.flatten().copied().collect()
}

/// The keys of the loads of this cache that are running around this call.
pub(crate) fn keys(cache: &Engine) -> Vec<String> {
    let Ok(around) = INNERMOST.try_with(Arc::clone) else {
        return Vec::new();
    };
    let loads = around.running().filter_map(|frame| match &frame.body {
        Body::Load(load) if frame.cache == cache.id => Some(&load.keys),
        _ => None,
    });
    loads.flatten().cloned().collect()
}

/// Whether a load around this call holds a permit of this function.
pub(crate) fn holds_permit(cache: &Engine, function: usize) -> bool {
    if !is_inside() {
        return false;
    }
    let Ok(around) = INNERMOST.try_with(Arc::clone) else {
        return false;
    };
    let mut frames = around.running();
    frames
        .any(|frame| frame.cache == cache.id && frame.permit_of.load(Ordering::Relaxed) == function)
}

/// A call has these values in its key. The loads around it, of any cache, have to have them in
/// theirs.
pub(crate) fn uses_contexts<'n>(names: impl IntoIterator<Item = &'n str>) {
    if !is_inside() {
        return;
    }
    let Ok(around) = INNERMOST.try_with(Arc::clone) else {
        return;
    };
    for name in names {
        around.running().for_each(|frame| frame.sees_context(name));
    }
}

/// Returns true if the call runs inside any body. Costs almost nothing.
#[inline]
pub(crate) fn is_inside() -> bool {
    ScopeFlags::now().has(ScopeFlags::BODY)
}

/// Must be called before the current task waits for the load of `key`.
pub(crate) fn wait(cache: &Engine, key: &str) -> WaitDecision {
    cache.waits.wait(keys(cache), key)
}
