//! A call of an annotated function with its key, in memory that the thread keeps for the next call.

use std::any::TypeId;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use super::call::remembered;
use super::local::thread_cache::ThreadCache;
use super::read_options::ReadOptions;
use super::timing::Timing;
use super::{Call, all_deps};
use crate::base::mutation;
use crate::base::nonce::hash128;
use crate::call::memo::Recalled;
use crate::call::observe::BypassReason;
use crate::call::{ambient, enclosing};
use crate::engine::{Engine, Handle};
use crate::key::{ArgumentCheck, EntryKind, IdForm, KeyError, KeyWriter, NamedDependency};
use crate::registry::{Instance, KnownResource, Mistake, ResourceRef, Site};
use crate::store::EntryRef;

/// A call of an annotated function with its key.
#[derive(Debug)]
pub(super) struct PreparedCall {
    pub(super) site: &'static Site,
    pub(super) name: &'static str,
    pub(super) resource: ResourceRef,
    pub(super) key: KeyWriter,
    pub(super) options: ReadOptions,
    pub(super) extras: Vec<NamedDependency>,
    /// The names of the values around the call that the function adds to its key.
    pub(super) included: Vec<Box<str>>,
    /// The parts that are left out of the ids of a batch, by position.
    pub(super) left_out_of: Vec<(usize, ArgumentCheck)>,
    /// The result that the request around the call remembers.
    pub(super) recalled: Recalled,
    /// The type of the id.
    pub(super) id_type: Option<IdType>,
    /// The form of the id, once it is written.
    pub(super) form: Option<IdForm>,
    /// The attribute's version, before the function's instance became part of it.
    pub(super) declared: u32,
    /// The entries that this thread was last served.
    pub(super) thread_cache: ThreadCache,
    /// How many calls have looked there. It is counted here, since a thread-local takes longer.
    pub(super) lookups: u8,
}

/// The type of an id. Only calls that are not answered at once ask for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdType {
    id: fn() -> TypeId,
    name: fn() -> &'static str,
}

impl IdType {
    #[inline]
    pub(super) fn of<T: ?Sized>() -> Self {
        Self {
            id: typeid::of::<T>,
            name: std::any::type_name::<T>,
        }
    }
}

/// The version of calls whose key leaves this out, and whether nothing tells them apart.
#[cold]
pub(super) fn version_apart(
    site: &'static Site,
    version: u32,
    left_out: ArgumentCheck,
    position: usize,
) -> (u32, bool) {
    match left_out {
        ArgumentCheck::Whole => (version, false),
        ArgumentCheck::Apart(hash, field) => {
            if let Some(field) = field {
                site.report_left_out(&field, false);
            }
            let both = [hash.to_le_bytes(), (position as u64).to_le_bytes()].concat();
            (version ^ hash128(&[0; 16], &both) as u32, false)
        }
        ArgumentCheck::Unknown(text) => {
            site.report_left_out(&text, true);
            (version, true)
        }
    }
}

thread_local! {
    /// Memory for the next call. Most calls never ask the store, and leave it here.
    static SPARE: Cell<Option<Box<PreparedCall>>> = const { Cell::new(None) };
}

impl PreparedCall {
    /// Fills in a call in heap memory that the thread keeps. On a hit, moving the struct would be
    /// most of the work.
    pub(super) fn begin(
        site: &'static Site,
        name: &'static str,
        resource: ResourceRef,
    ) -> Box<Self> {
        let mut call = match SPARE.try_with(Cell::take) {
            Ok(Some(mut spare)) => {
                spare.site = site;
                spare.resource = resource;
                spare
            }
            // There is no spare memory while the thread ends either.
            _ => Box::new(Self {
                site,
                name,
                resource,
                key: KeyWriter::default(),
                options: ReadOptions::default(),
                extras: Vec::new(),
                included: Vec::new(),
                left_out_of: Vec::new(),
                recalled: Recalled::Nothing,
                id_type: None,
                form: None,
                declared: 0,
                thread_cache: ThreadCache::default(),
                lookups: 0,
            }),
        };
        call.thread_cache.forget_caller();
        call.options
            .nothing(&call.resource.stale_policy, call.resource.audit);
        call.reset(name);
        call
    }

    /// The same for a function that has been called before. If it was this thread's last one, it
    /// sets the same options again.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn of_known(
        site: &'static Site,
        name: &'static str,
        known: &'static KnownResource,
    ) -> Box<Self> {
        match SPARE.try_with(Cell::take) {
            Ok(Some(mut spare)) if spare.resource.is(known) => {
                spare.options.again();
                spare.reset(name);
                spare
            }
            spare => Self::of_another(spare.ok().flatten(), site, name, known),
        }
    }

    /// The same for a function that was not this thread's last one.
    #[inline(never)]
    fn of_another(
        spare: Option<Box<Self>>,
        site: &'static Site,
        name: &'static str,
        known: &'static KnownResource,
    ) -> Box<Self> {
        if spare.is_some() {
            SPARE.set(spare);
        }
        Self::begin(site, name, ResourceRef::Known(known))
    }

    /// Identifies the instance of the function.
    #[inline]
    pub(super) fn instance(&mut self, instance: Instance) {
        let is_last = self
            .options
            .instance
            .is_some_and(|last| last.id == instance.id);
        if is_last {
            return;
        }
        self.options.instance = Some(instance);
        if !mutation::is_active("thread-cache-caller-remembered") {
            self.thread_cache.forget_caller();
        }
    }

    /// Begins the key.
    #[inline]
    fn reset(&mut self, name: &'static str) {
        self.name = name;
        self.id_type = None;
        self.form = None;
        self.key.clear();
        if !self.resource.contexts.is_empty()
            && !mutation::is_active("thread-cache-without-context")
        {
            // The values that are set around the call may differ from one call to the next.
            self.begin_at_once();
        }
    }

    /// From here on, the text of the key is written as the key grows.
    #[inline(never)]
    pub(super) fn begin_at_once(&mut self) {
        if !self.key.is_at_once() {
            self.key.begin_at_once(&self.resource.prefix);
            self.begin_text();
        }
    }

    /// Writes what precedes the id or the arguments.
    fn begin_text(&mut self) {
        if !self.resource.contexts.is_empty() {
            self.add_contexts();
        }
        if let Some(op) = self.options.op {
            self.key.op(op);
        }
    }

    /// Writes the noted id.
    fn write_noted_id(&mut self) {
        if let Some(of) = self.id_type {
            let form = self.key.noted_id((of.name)(), &self.resource.hash_key);
            self.form = Some(form);
        }
    }

    /// Adds a value that is set around the call, behind the id.
    #[cold]
    pub(super) fn behind(&mut self, text: &str) {
        if !self.key.is_at_once() {
            self.begin_at_once();
            self.write_noted_id();
            self.key.forget_note();
        }
        self.key.behind(text);
    }

    /// Writes the text of the key, as far as it is not written yet. Called once, before anything
    /// but the thread cache is asked.
    #[inline(never)]
    pub(super) fn write_key(&mut self, cache: &Engine) {
        if !self.key.is_at_once() {
            self.key.begin(&self.resource.prefix);
            self.begin_text();
            if self.options.has_id {
                self.write_noted_id();
            }
        }
        if !self.options.has_id {
            self.key.end_hashed(&cache.space);
        }
    }

    /// Leaves the memory of a call that was answered from the thread cache. Only its plan has
    /// written to it, and [`leave`](Self::leave) takes 20 instructions more.
    #[inline]
    pub(super) fn leave_planned(self: Box<Self>) {
        if self.extras.is_empty() && self.included.is_empty() && self.key.is_number() {
            // Thread-locals are gone while the thread ends.
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        } else {
            self.leave();
        }
    }

    /// Leaves the memory for the next call.
    pub(super) fn leave(mut self: Box<Self>) {
        if !self.extras.is_empty() {
            self.extras.clear();
        }
        if !self.included.is_empty() {
            self.included.clear();
        }
        if !matches!(self.recalled, Recalled::Nothing) {
            self.recalled = Recalled::Nothing;
        }
        if !self.key.is_small() {
            // Its other data is not worth keeping.
            self.key = KeyWriter::default();
        }
        // Thread-locals are gone while the thread ends.
        let _ = SPARE.try_with(|spare| spare.set(Some(self)));
    }

    /// Names the operation.
    #[inline]
    pub(super) fn op(&mut self, op: &'static str) {
        self.options.op = Some(op);
        if self.key.is_at_once() {
            self.key.op(op);
        }
    }

    /// Checks that the function may use this key, and that it is not switched off.
    pub(super) fn check(&mut self, cache: &Engine) {
        if let (Some(form), Some(of)) = (self.form, self.id_type)
            && self.options.op.is_none()
            && !self.resource.fits(form, (of.id)(), Some(self.site))
        {
            self.refuse(BypassReason::KeyConflict);
        }
        self.check_rows(cache);
        self.declared = self.options.version;
        self.check_instance();
        self.attribute(cache);
        let (site, options) = (self.site, &self.options);
        let is_granted = site.claims(
            cache.id,
            self.name,
            &self.resource,
            options.op,
            options.shared,
        );
        if !is_granted {
            self.refuse(BypassReason::KeyConflict);
        }
    }

    /// Tells instances of one function apart that share a key: the type that the function belongs
    /// to becomes part of the version, and so of the fingerprint.
    #[inline]
    pub(super) fn check_instance(&mut self) {
        let options = &mut self.options;
        if let Some(instance) = options.instance
            && !options.shared
        {
            let types = (options.types, options.instance_types);
            let of = self
                .resource
                .version_of(self.site, options.op, types, instance);
            options.version ^= of;
        }
    }

    /// Tells the call apart by the part that the `Serialize` of its last argument leaves out.
    #[cold]
    pub(super) fn left_out(&mut self, left_out: ArgumentCheck) {
        // The same hash in another argument is another call. An id comes first, as in a batch.
        let position = self.key.args.len();
        let version = self.options.version;
        let (version, is_unknown) = version_apart(self.site, version, left_out, position);
        self.options.version = version;
        if is_unknown {
            self.refuse(BypassReason::InvalidKey);
        }
    }

    /// The values that the resource is declared to need from around the call.
    #[cold]
    fn add_contexts(&mut self) {
        match ambient::front(&self.resource.contexts) {
            Ok(front) => {
                enclosing::uses_contexts(self.resource.contexts.iter().map(|name| &**name));
                self.key.front(&front);
            }
            Err((name, found)) => {
                let name = name.to_owned();
                self.refuse_context(&name, found);
            }
        }
    }

    /// A value that the key needs is not set around the call. Without it, one tenant would get
    /// another one's data.
    #[cold]
    pub(super) fn refuse_context(&mut self, name: &str, found: ambient::AmbientValue) {
        if found == ambient::AmbientValue::InvalidKey {
            return self.refuse(BypassReason::InvalidKey);
        }
        let site = self.site;
        site.report(Mistake::ContextNotSet, || {
            format!("a call of {site} runs without the cache, since nobody has set `{name}` around it; wrap it in `Cache::with_key(\"{name}\", ..)`")
        });
        self.refuse(BypassReason::NoContext);
    }

    /// Records the function for the counters, and whether an operator has switched it off.
    #[inline]
    pub(super) fn attribute(&mut self, cache: &Engine) {
        self.resource.attribute(self.site, self.options.op);
        let Some(function) = self.resource.function() else {
            return;
        };
        let switches = &cache.telemetry.switches;
        if switches.is_off(&self.resource.name, &function.op) {
            self.refuse(BypassReason::SwitchedOff);
        }
    }

    /// Records a problem. The first one counts.
    pub(super) fn refuse(&mut self, problem: BypassReason) {
        self.options.problem.get_or_insert(problem);
    }

    /// Records that an argument can't be part of a key. Reports a key that is too long once,
    /// because the type does not show it.
    #[cold]
    pub(super) fn refuse_key(&mut self, error: &KeyError) {
        if error.is_too_long() {
            let site = self.site;
            site.report(Mistake::KeyTooLong, || {
                format!("a call of {site} runs without the cache: {error}")
            });
        }
        self.refuse(BypassReason::InvalidKey);
    }

    /// Registers the resources that it depends on, because a function of the program names them.
    pub(super) fn register(&self, cache: &Engine) {
        for extra in &self.extras {
            match extra {
                NamedDependency::Resource(name) => drop(cache.resource(name)),
                NamedDependency::Row(row) => drop(cache.resource(row.resource)),
                NamedDependency::Tag(_) => {}
            }
        }
    }

    /// Writers don't name a row whose id has another form than the resource's. Then the entry
    /// depends on the whole resource.
    #[inline]
    pub(super) fn check_rows(&mut self, cache: &Engine) {
        if !self.extras.is_empty() {
            self.check_each_row(cache);
        }
    }

    fn check_each_row(&mut self, cache: &Engine) {
        for extra in &mut self.extras {
            let NamedDependency::Row(row) = extra else {
                continue;
            };
            let fitting = cache
                .resource(row.resource)
                .filter(|resource| resource.fits(row.form, row.of, Some(self.site)));
            // Written like its writers write it.
            match fitting.and_then(|resource| ambient::front(&resource.contexts).ok()) {
                Some(front) => row.id.insert_str(0, &front),
                None => *extra = NamedDependency::Resource(row.resource.into()),
            }
        }
    }

    pub(super) fn into_call(mut self: Box<Self>, cache: Handle) -> Call {
        self.register(&cache);
        let options = self.options;
        let own = self.resource.deps(options.kind(), options.op);
        let mut deps = all_deps(&cache, &own, &self.extras);
        drop(own);
        let memo = match std::mem::replace(&mut self.recalled, Recalled::Nothing) {
            Recalled::Slot(slot) => Some(Box::new(slot)),
            Recalled::Nothing | Recalled::Answer(..) => None,
        };
        if options.local_options.in_process
            && !options.shared
            && options.problem != Some(BypassReason::KeyConflict)
            && !cache.store.is_in_process()
        {
            // Of keys that are shared, or another function's, values may be sent to the store.
            self.resource.keeps_here_only(options.op);
        }
        if options.local_options.in_process
            && options.kind() == EntryKind::Entity
            && !cache.store.is_in_process()
            && !mutation::is_active("in-process-rows-left-out")
        {
            // Redis does not report the removal of a key that does not exist.
            let row = self.resource.row_of(self.key.text());
            deps = deps.iter().cloned().chain(row).collect();
        }
        let own = EntryRef {
            key: self.key.take(),
            kind: options.kind(),
            deps,
        };
        let call = Call {
            resource: self.resource.clone(),
            remembered: remembered(&cache, &own),
            own,
            learnt: OnceLock::new(),
            window: OnceLock::new(),
            cache,
            problem: options.problem,
            ttl: options.ttl,
            stale_policy: options.stale_policy,
            local_options: options.local_options,
            context: None,
            extras: std::mem::take(&mut self.extras),
            included: std::mem::take(&mut self.included).into(),
            codec: options.codec,
            version: options.version,
            max_loads: options.max_loads,
            memo,
            site: Some(self.site),
            timing: Timing::default(),
            audit: Some(options.audit).filter(|part| *part > 0),
            audited: None,
            is_in_doubt: AtomicBool::new(false),
        };
        self.leave();
        call
    }
}
