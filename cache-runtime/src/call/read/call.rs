//! One call of a cached function that asks the store, and how its outcome is counted.

use std::any::{Any, TypeId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::audit::audited_hit::Audited;
use super::context::LoadContext;
use super::dependencies::deps::all_deps;
use super::dependencies::known::{KnownDependencies, Window};
use super::local::local_options::LocalOptions;
use super::returnable::ValueType;
use super::timing::{self, Timing};
use crate::base::call_budget::CallBudget;
use crate::base::error::Error;
use crate::base::mutation;
use crate::base::nonce::Nonce;
use crate::base::policy::{StalePolicy, TtlRequest};
use crate::base::span::in_span;
use crate::call::enclosing::{self, Loads};
use crate::call::log;
use crate::call::observe::{self, BypassReason, Outcome, Status};
use crate::call::returns::{Loaded, Returns};
use crate::call::{ambient, memo};
use crate::coalesce::single_flight::LoadResult;
use crate::engine::{Engine, Handle};
use crate::key::Key;
pub(crate) use crate::key::NamedDependency;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec;
use crate::protocol::codec_id::CodecId;
use crate::protocol::fingerprint::Fingerprint;
use crate::registry::{CallSite, Resource, ResourceRef};
use crate::store::{EntryRef, LookupReply, Payload};

/// A call with its key.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) cache: Handle,
    pub(crate) resource: ResourceRef,
    /// The key, and the dependencies that the function names; see [`entry_ref`](Self::entry_ref).
    pub(super) own: EntryRef,
    /// Further dependencies, as this process knew them when the call began.
    pub(super) remembered: Option<Box<KnownDependencies>>,
    /// Further dependencies, as the entry itself lists them.
    pub(super) learnt: OnceLock<Box<KnownDependencies>>,
    /// The generations from before the load, to find out later whether there was a write since.
    pub(super) window: OnceLock<Arc<Window>>,
    pub(crate) problem: Option<BypassReason>,
    pub(crate) ttl: TtlRequest,
    pub(crate) stale_policy: StalePolicy,
    pub(super) local_options: LocalOptions,
    pub(super) context: Option<LoadContext>,
    pub(super) extras: Vec<NamedDependency>,
    /// The names of the values that are set around the call and that the function adds to its key,
    /// besides those of its resource.
    pub(super) included: Box<[Box<str>]>,
    pub(super) codec: CodecId,
    pub(super) version: u32,
    /// The limit on loads of the function that run at a time; 0 for none.
    pub(super) max_loads: usize,
    /// The request around the call, if it wants to remember the result.
    pub(super) memo: Option<Box<memo::MemoSlot>>,
    /// The annotated function; `None` for a manual operation.
    pub(super) site: Option<&'static CallSite>,
    pub(super) timing: Timing,
    /// The share of hits that is audited; `None` for none.
    pub(super) audit: Option<u32>,
    /// The hit that was found before the store was asked, if it is to be audited.
    pub(super) audited: Option<Box<Audited>>,
    /// Whether an entry did not decode. Its bytes may be damaged, or the type may not take what it
    /// gives, so the next value is decoded again before it is stored.
    pub(super) is_in_doubt: AtomicBool,
}

impl Call {
    /// Creates the call for a manual operation on `key`.
    pub(crate) fn manual(cache: Handle, key: &Key, ttl: Option<Duration>) -> Self {
        let resource = cache.unregistered_resource(key.resource());
        let fits = key
            .id_form()
            .is_none_or(|form| resource.fits(form, TypeId::of::<()>(), None));
        let entry_ref = EntryRef {
            key: key.render(&cache.space),
            kind: key.kind(),
            deps: all_deps(&cache, &resource.deps(key.kind(), key.op()), key.extras()),
        };
        let mut problem = (!fits).then_some(BypassReason::KeyConflict);
        if key.is_ambiguous() {
            problem = Some(BypassReason::InvalidKey);
        }
        let mut entry_ref = entry_ref;
        if !resource.contexts.is_empty() {
            problem = problem.or(add_contexts(&mut entry_ref.key, &resource));
        }
        let is_named_so = || {
            resource.is_kept_here_only(key.op())
                && !mutation::is_active("in-process-known-by-key-of-alone")
        };
        let is_of_process = (key.is_in_process() || is_named_so())
            && !cache.store.is_in_process()
            && !mutation::is_active("in-process-values-sent-by-hand");
        if is_of_process {
            problem = problem.or(Some(BypassReason::KeyConflict));
        }
        let by_hand = resource.version_by_hand(key.op());
        let ttl = TtlRequest {
            value: ttl,
            ..TtlRequest::default()
        };
        let remembered = remembered(&cache, &entry_ref);
        Self {
            cache,
            resource: ResourceRef::by_hand(resource),
            own: entry_ref,
            remembered,
            learnt: OnceLock::new(),
            window: OnceLock::new(),
            problem,
            ttl,
            // Manual operations serve no expired entries.
            stale_policy: StalePolicy::default(),
            local_options: LocalOptions {
                in_process: is_of_process,
                ..LocalOptions::default()
            },
            context: None,
            extras: key.extras().to_vec(),
            included: Box::default(),
            codec: CodecId::default(),
            version: key.type_version() ^ by_hand,
            max_loads: 0,
            memo: None,
            site: None,
            timing: Timing::default(),
            audit: None,
            audited: None,
            is_in_doubt: AtomicBool::new(false),
        }
    }

    /// The frame of a load that makes these entries, among them this call's.
    pub(super) fn loads(
        &self,
        keys: impl Into<Box<[String]>>,
        leases: impl Into<Box<[Nonce]>>,
    ) -> Loads {
        let ambient = ambient::current();
        // If nothing is set around the call, nothing can be missing in its key.
        let contexts = match ambient {
            Some(_) => {
                let of_resource = self.resource.contexts.iter();
                of_resource.chain(&self.included).cloned().collect()
            }
            None => Box::default(),
        };
        Loads {
            keys: keys.into(),
            leases: leases.into(),
            contexts,
            ambient,
            site: self.site,
        }
    }

    /// Tells the request around the call the result, of which later calls get clones.
    /// `load_result` is called only if there is a request.
    pub(super) fn remember(&self, load_result: impl FnOnce() -> Option<LoadResult>) {
        if let Some(slot) = &self.memo {
            match load_result() {
                Some(LoadResult::Value(value)) => slot.remember(Some(value)),
                Some(LoadResult::Absence) => slot.remember(None),
                Some(LoadResult::Failure) | None => {}
            }
        }
    }

    /// Whether an operator has switched off all reads of the resource.
    pub(crate) fn is_switched_off(&self) -> bool {
        let switches = &self.cache.telemetry.switches;
        switches.is_resource_off(&self.resource.name)
    }

    pub(crate) fn fingerprint<V: Cacheable>(&self) -> Fingerprint {
        self.find_fingerprint_of(ValueType::of::<V>()).0
    }

    /// The same, and whether it cost next to nothing, since the type has been looked at before.
    pub(super) fn find_fingerprint_of(&self, values: ValueType) -> (Fingerprint, bool) {
        let (version, find) = (self.version, values.find_fingerprint);
        self.resource.fingerprint(values.id, version, find)
    }

    /// Has the next value of this call decoded again before it is stored.
    pub(crate) fn doubts(&self) {
        self.is_in_doubt.store(true, Ordering::Relaxed);
    }

    /// Has each value of the function decoded again before it is stored, since its type has
    /// panicked.
    pub(super) fn distrust(&self, type_id: TypeId) {
        let codec = self.codec.plain();
        let trust = self.resource.trust(self.site, type_id, codec);
        trust.loses();
    }

    /// Looks up the entry, and measures the time. Ends expired intents first: their writers are
    /// gone, so the readers that find them must prune them.
    pub(crate) async fn lookup_in_store(&self) -> Result<Box<LookupReply>, Error> {
        let lookup = match log::is_on() {
            true => self.traced_lookup(),
            false => self.cache.store.lookup_boxed(self.entry_ref()),
        };
        self.begins_lookup();
        {
            // Dropped before the next await, which would otherwise hold it. All calls look up, but
            // few find expired intents.
            let mut answer = lookup.await;
            self.ends_lookup();
            if let Ok(lookup) = &mut answer {
                self.reads_list(lookup);
            }
            let longest = self.cache.config.longest_intent();
            match answer {
                Ok(lookup) if lookup.has_expired_intents(longest) => {}
                answer => return answer,
            }
        }
        Box::pin(self.prune_and_lookup()).await
    }

    #[cold]
    fn traced_lookup(&self) -> BoxFuture<'_, Result<Box<LookupReply>, Error>> {
        let lookup = self.cache.store.lookup_boxed(self.entry_ref());
        Box::pin(in_span(self.lookup_span(), lookup))
    }

    /// Looks up generations for the call, under another key than its own. Prunes expired intents on
    /// them first, as [`lookup_in_store`](Self::lookup_in_store) does.
    pub(super) async fn lookup_generations(
        &self,
        entry_ref: &EntryRef,
    ) -> Result<LookupReply, Error> {
        let store = &self.cache.store;
        let lookup = async {
            let lookup = store.lookup(entry_ref).await?;
            if !lookup.has_expired_intents(self.cache.config.longest_intent()) {
                return Ok(lookup);
            }
            store.prune(entry_ref).await?;
            store.lookup(entry_ref).await
        };
        let mut budget = CallBudget::new(self.cache.config.command_budget);
        budget.spend(lookup).await
    }

    pub(super) async fn prune_and_lookup(&self) -> Result<Box<LookupReply>, Error> {
        let store = &self.cache.store;
        store.prune(self.entry_ref()).await?;
        let mut lookup = store.lookup_boxed(self.entry_ref()).await?;
        self.reads_list(&mut lookup);
        Ok(lookup)
    }

    /// Looks up the entry, and once more if it lists unknown dependencies.
    pub(crate) async fn lookup_with_learnt(&self) -> Result<Box<LookupReply>, Error> {
        let knew = self.has_learnt();
        let lookup = self.lookup_in_store().await?;
        match self.has_learnt() == knew {
            true => Ok(lookup),
            false => self.lookup_in_store().await,
        }
    }

    /// Looks at the entry for somebody who only wants to see it: creates no generation, and prunes
    /// no intent.
    #[cfg(feature = "admin")]
    pub(crate) async fn examine(&self) -> Result<Box<LookupReply>, Error> {
        if mutation::is_active("looking-at-an-entry-writes") {
            return self.lookup_with_learnt().await;
        }
        let knew = self.has_learnt();
        let mut lookup = self.examine_once().await?;
        if self.has_learnt() != knew {
            lookup = self.examine_once().await?;
        }
        // Their writers are gone. The next reader prunes them.
        if lookup.has_expired_intents(self.cache.config.longest_intent()) {
            lookup.intents_until = None;
        }
        Ok(lookup)
    }

    #[cfg(feature = "admin")]
    async fn examine_once(&self) -> Result<Box<LookupReply>, Error> {
        let mut lookup = Box::new(self.cache.store.examine(self.entry_ref()).await?);
        self.reads_list(&mut lookup);
        Ok(lookup)
    }

    pub(super) fn said(&self, status: Option<Status>) {
        if let Some(status) = status {
            self.answered(status);
        }
    }

    /// Counts the outcome of the call, logs it, and tells it to the observers.
    pub(super) fn answered(&self, status: Status) {
        self.count(status);
        if log::is_on() {
            self.log(status);
        }
        observe::record(|| Outcome {
            key: self.own.key.clone(),
            resource: self.resource.name.to_string(),
            store: self.cache.store.name(),
            status,
        });
    }

    /// Counts the outcome of the call, or of one id of a batch.
    pub(super) fn count(&self, status: Status) {
        let counters = &self.resource.counters;
        match status {
            Status::Hit { .. } => self.resource.hits().add_one(),
            Status::Stale { past, reason } => {
                self.resource.hits().add_one();
                counters.stale_served.add_one();
                self.served_stale(past, reason);
            }
            Status::Miss { .. } => counters.misses.add_one(),
            Status::Bypass(_) => counters.bypasses.add_one(),
        }
        if let Some(function) = self.resource.function() {
            timing::count(function, status);
        }
    }
}

/// The further dependencies of the entry that this process knows.
#[inline]
pub(super) fn remembered(cache: &Engine, entry_ref: &EntryRef) -> Option<Box<KnownDependencies>> {
    let list = cache.learnt.list(&entry_ref.key)?;
    Some(Box::new(KnownDependencies::new(entry_ref, list)))
}

/// Adds the values that are set around a manual call to its key; returns an error if one is not
/// set.
fn add_contexts(key: &mut String, resource: &Resource) -> Option<BypassReason> {
    let start = resource.prefix.len();
    // An annotated call has them in its key already.
    if key.get(start..).is_some_and(|rest| rest.starts_with('@')) {
        return None;
    }
    match ambient::front(&resource.contexts) {
        Ok(front) => {
            enclosing::uses_contexts(resource.contexts.iter().map(|name| &**name));
            key.insert_str(start.min(key.len()), &front);
            None
        }
        Err(_) => Some(BypassReason::NoContext),
    }
}

/// Returns the value in a payload. `None` if it is of another type or damaged.
pub(crate) fn value_of<V: Cacheable>(codec: CodecId, payload: &Payload) -> Option<Arc<V>> {
    match payload {
        Payload::Empty => None,
        Payload::Encoded(bytes) => {
            let (codec, bytes) = codec::decompress(codec, bytes)?;
            decoded(codec, &bytes).map(Arc::new)
        }
        Payload::Decoded(value) => downcast(Arc::clone(value)),
    }
}

/// A type that panics at a stored value can't take it: another build may have written it.
pub(super) fn decoded<V: Cacheable>(codec: CodecId, bytes: &Bytes) -> Option<V> {
    if mutation::is_active("panics-of-types-spread") {
        return V::from_bytes(codec, bytes);
    }
    catch_unwind(AssertUnwindSafe(|| V::from_bytes(codec, bytes))).unwrap_or_default()
}

pub(super) fn downcast<V: Send + Sync + 'static>(
    value: Arc<dyn Any + Send + Sync>,
) -> Option<Arc<V>> {
    value.downcast().ok()
}

/// The load result that waiters get for a return value.
pub(super) fn load_result<R: Returns<S>, S>(returned: &R) -> Option<LoadResult> {
    match returned.loaded() {
        Loaded::Value(_) => returned.share().map(|value| LoadResult::Value(value)),
        Loaded::Absent => Some(LoadResult::Absence),
        Loaded::Failed => Some(LoadResult::Failure),
    }
}
