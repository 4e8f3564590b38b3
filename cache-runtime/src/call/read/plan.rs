//! The plan of a read: collects a function's attribute into a key and its dependencies.

use std::fmt::Display;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::call::remembered;
use super::prepared::{IdType, PreparedCall, version_apart};
use super::read_options::ReadOptions;
use super::timing::Timing;
use super::{Call, all_deps};
use crate::base::nonce::hash128;
use crate::base::policy::{IntoTtl, MAX_TTL};
use crate::call::observe::BypassReason;
use crate::call::scope::{self, KeyHeldBack};
use crate::call::{ambient, enclosing, tag};
use crate::engine::{Engine, Handle};
use crate::key::{
    Argument, ArgumentCheck, EntryKind, IdForm, KeyPart, KeyWriter, NamedDependency, RowOf,
    WrittenFor, examined, is_resource,
};
use crate::protocol::codec::BuiltIn;
use crate::registry::{Instance, Mistake, ResourceRef, Site};
use crate::store::EntryRef;
use crate::telemetry::audit::threshold;

/// Collects the options of a function's attribute for its key and its entries.
///
/// All methods take references, and the data is written where the call will use it. On a local hit,
/// moving data would be most of the work.
#[derive(Debug)]
#[must_use]
pub struct ReadPlan(Box<PreparedCall>);

impl ReadPlan {
    /// Starts the plan of an instance of a function. Returns `None` if the resource's name is
    /// invalid. A request for the key is set aside meanwhile, since the plan may call other
    /// functions.
    // Inlined, as what it calls for a function that was the thread's last one: to save and restore
    // registers took a tenth of a hit. Not in debug builds, where each function would have a copy.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn begin(
        cache: &Engine,
        site: &'static Site,
        name: &'static str,
        instance: Instance,
    ) -> Option<(Self, KeyHeldBack)> {
        let mut call = match site.knows(cache.id, name) {
            Some(known) => PreparedCall::of_known(site, name, known),
            None => Self::first(cache, site, name)?,
        };
        call.instance(instance);
        Some((Self(call), scope::hold_key_back()))
    }

    #[cold]
    fn first(cache: &Engine, site: &'static Site, name: &'static str) -> Option<Box<PreparedCall>> {
        let resource = cache.resource(name).map(ResourceRef::by_hand);
        if resource.is_none() {
            site.report(Mistake::ResourceName, || {
                format!("`{name}` is not a resource name, so {site} runs without the cache; use lower-case letters, digits, `-` and `_`")
            });
        }
        Some(PreparedCall::begin(site, name, resource?))
    }

    /// Ends the plan. The key of the call still has to be [written](PreparedCall::write_key), and
    /// the call has to be [checked](PreparedCall::check).
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn end(mut self, held_back: KeyHeldBack) -> Box<PreparedCall> {
        drop(held_back);
        if !self.0.options.has_id {
            self.default_op();
            self.0.options.version ^= self.0.key.version();
        }
        self.0
    }

    #[inline]
    fn set(&mut self, set: impl FnOnce(&mut ReadOptions)) -> &mut Self {
        set(&mut self.0.options);
        self
    }

    fn refuse(&mut self, problem: BypassReason) {
        self.0.refuse(problem);
    }

    /// Names the operation, which makes the entry a derived one. Must come first. Without an id,
    /// the default is the function's name.
    #[inline]
    pub fn op(&mut self, op: &'static str) -> &mut Self {
        self.0.op(op);
        self
    }

    /// Adds the id, which stays readable in the key.
    #[inline]
    pub fn id<T: KeyPart + ?Sized>(&mut self, id: &T) -> &mut Self {
        self.write_id(id).examine_stranger(id, WrittenFor::id())
    }

    #[inline]
    fn write_id<T: KeyPart + ?Sized>(&mut self, id: &T) -> &mut Self {
        let start = &mut *self.0;
        start.options.has_id = true;
        start.id_type = Some(IdType::of::<T>());
        if start.key.is_at_once() || !start.key.notes_id(id) {
            self.id_at_once(id);
        }
        self
    }

    /// Writes an id that can't be noted.
    #[inline(never)]
    fn id_at_once<T: KeyPart + ?Sized>(&mut self, id: &T) {
        let start = &mut *self.0;
        start.begin_at_once();
        match start.key.id(id, &start.resource.hash_key) {
            // Only entities share their keys with writers that name an id. Those are checked once
            // the key is whole.
            Ok(form) => {
                start.options.version ^= form.version();
                start.form = Some(form);
            }
            Err(error) => start.refuse_key(&error),
        }
    }

    /// Adds one argument, hashed.
    #[inline]
    pub fn arg<T: KeyPart + ?Sized>(&mut self, arg: &T) -> &mut Self {
        let form = WrittenFor::Programs;
        self.write_arg(arg).examine_stranger(arg, form)
    }

    #[inline]
    fn write_arg<T: KeyPart + ?Sized>(&mut self, arg: &T) -> &mut Self {
        self.default_op();
        if let Err(error) = self.0.key.arg(arg) {
            self.0.refuse_key(&error);
        }
        self
    }

    /// Does the same as [`id`](Self::id) for a type whose `Serialize` may leave something out.
    pub fn id_of<T: KeyPart + ?Sized>(&mut self, id: Argument<'_, T>) -> &mut Self {
        self.write_id(id.value);
        self.examine(&id, WrittenFor::id())
    }

    /// Does the same as [`arg`](Self::arg) for a type whose `Serialize` may leave something out.
    pub fn arg_of<T: KeyPart + ?Sized>(&mut self, arg: Argument<'_, T>) -> &mut Self {
        self.write_arg(arg.value);
        self.examine(&arg, WrittenFor::Programs)
    }

    /// Tells entries apart by the part that an argument's `Serialize` leaves out.
    #[inline]
    fn examine<T: KeyPart + ?Sized>(
        &mut self,
        argument: &Argument<'_, T>,
        form: WrittenFor,
    ) -> &mut Self {
        if self.0.options.problem.is_none() {
            match argument.check(form) {
                ArgumentCheck::Whole => {}
                left_out => self.0.left_out(left_out),
            }
        }
        self
    }

    /// Does the same for an argument whose type only has the name of a standard one.
    #[inline]
    fn examine_stranger<T: KeyPart + ?Sized>(&mut self, value: &T, form: WrittenFor) -> &mut Self {
        match examined(value, form) {
            None => self,
            Some(argument) => self.examine(&argument, form),
        }
    }

    /// Does the same for the ids of a batch.
    #[inline]
    pub fn each<T: KeyPart>(&mut self, ids: &[T]) -> &mut Self {
        for (at, id) in ids.iter().enumerate() {
            let Some(argument) = examined(id, WrittenFor::id()) else {
                // They are of one type.
                break;
            };
            match argument.check(WrittenFor::id()) {
                ArgumentCheck::Whole => {}
                left_out => self.0.left_out_of.push((at, left_out)),
            }
        }
        self
    }

    /// Tells the ids of a batch apart by what the `Serialize` of each leaves out.
    pub fn each_of<T: KeyPart>(
        &mut self,
        ids: &[T],
        argument: fn(&T) -> Argument<'_, T>,
    ) -> &mut Self {
        for (at, id) in ids.iter().enumerate() {
            match argument(id).check(WrittenFor::id()) {
                ArgumentCheck::Whole => {}
                left_out => self.0.left_out_of.push((at, left_out)),
            }
        }
        self
    }

    /// Adds a type parameter of the function, hashed by its name.
    #[inline]
    pub fn type_param<T: ?Sized>(&mut self) -> &mut Self {
        let name = std::any::type_name::<T>();
        self.untyped::<T>().arg(name)
    }

    /// Adds the type of an argument, hashed by its name.
    #[inline]
    pub fn type_of<T: ?Sized>(&mut self, _: &T) -> &mut Self {
        self.type_param::<T>()
    }

    /// Treats entries for another type in this position as misses.
    ///
    /// The type becomes part of the version of the value's type. So stored entries, local entries
    /// and keys for manual operations all tell it apart.
    #[inline]
    pub fn typed<T: ?Sized>(&mut self) -> &mut Self {
        self.untyped::<T>();
        let types = self.0.options.types;
        self.set(|options| options.version ^= (types ^ (types >> 32)) as u32)
    }

    /// Does the same with the type of an argument.
    #[inline]
    pub fn typed_as<T: ?Sized>(&mut self, _: &T) -> &mut Self {
        self.typed::<T>()
    }

    /// Treats entries for another type of a parameter that is left out of the key as misses.
    ///
    /// It counts like the type that the function belongs to. So manual operations find the entries
    /// of the first type that this process calls the function with.
    #[inline]
    pub fn instance_for<T: ?Sized>(&mut self) -> &mut Self {
        self.untyped::<T>();
        if crate::base::mutation::is_active("types-of-the-skipped-share-rows") {
            return self;
        }
        let name = hash128(&[0; 16], std::any::type_name::<T>().as_bytes()) as u32;
        self.set(|options| options.instance_types = options.instance_types.rotate_left(5) ^ name)
    }

    /// Does the same with the type of an argument.
    #[inline]
    pub fn instance_for_type_of<T: ?Sized>(&mut self, _: &T) -> &mut Self {
        self.instance_for::<T>()
    }

    /// Notes a type that does not make entries misses: calls with other types have other keys, or
    /// need not be told apart.
    #[inline]
    pub fn untyped<T: ?Sized>(&mut self) -> &mut Self {
        let before = self.0.options.types.to_le_bytes();
        let name = hash128(&[0; 16], std::any::type_name::<T>().as_bytes());
        let both = [&before[..], &name.to_le_bytes()].concat();
        let types = hash128(&[0; 16], &both) as u64;
        self.set(|options| options.types = types)
    }

    /// Does the same with the type of an argument.
    #[inline]
    pub fn untyped_as<T: ?Sized>(&mut self, _: &T) -> &mut Self {
        self.untyped::<T>()
    }

    #[inline]
    fn default_op(&mut self) {
        if self.0.options.op.is_none() {
            self.op(self.0.site.function());
        }
    }

    /// Makes the entry depend on this tag too.
    pub fn tag(&mut self, tag: impl Display) -> &mut Self {
        self.0
            .extras
            .extend(tag::written(tag).map(NamedDependency::Tag));
        self
    }

    /// Makes the entry depend on everything of this resource too.
    pub fn depends(&mut self, resource: &'static str) -> &mut Self {
        if is_resource(resource) {
            self.0
                .extras
                .push(NamedDependency::Resource(resource.into()));
        } else {
            // Without this dependency, the entry would outlive the data that it was computed from.
            self.refuse(BypassReason::InvalidKey);
            let site = self.0.site;
            site.report(Mistake::DependencyName, || {
                format!("`{resource}` is not a resource name, so {site} can't depend on it and runs without the cache; use lower-case letters, digits, `-` and `_`")
            });
        }
        self
    }

    /// The entry depends on one row of this resource, too.
    pub fn depends_row<T: KeyPart + ?Sized>(
        &mut self,
        resource: &'static str,
        id: &T,
    ) -> &mut Self {
        if !is_resource(resource) {
            return self.depends(resource);
        }
        let mut key = KeyWriter::default();
        match key.id(id, &self.0.resource.hash_key) {
            Ok(form) => self.0.extras.push(NamedDependency::Row(Box::new(RowOf {
                resource,
                id: key.take(),
                form,
                of: typeid::of::<T>(),
            }))),
            // Writers that name the row by this id invalidate the whole resource, or more.
            Err(_) => self
                .0
                .extras
                .push(NamedDependency::Resource(resource.into())),
        }
        self
    }

    /// Decides whether this call uses the cache at all.
    #[inline]
    pub fn when(&mut self, condition: bool) -> &mut Self {
        if !condition {
            self.refuse(BypassReason::Condition);
        }
        self
    }

    /// Adds the value that is set around the call under this name to the key.
    pub fn include_context(&mut self, name: &str) -> &mut Self {
        let start = &mut *self.0;
        let found = ambient::find(name);
        if matches!(found, ambient::AmbientValue::Text(_)) {
            start.included.push(name.into());
            enclosing::uses_contexts([name]);
        }
        match found {
            // Behind the id, where nothing else can be.
            ambient::AmbientValue::Text(text) if start.options.has_id => start.behind(&text),
            ambient::AmbientValue::Text(text) => {
                self.arg(name).arg(&text);
            }
            found => start.refuse_context(name, found),
        }
        self
    }

    /// Limits how many runs of the function go on at a time.
    #[inline]
    pub fn max_loads(&mut self, most: usize) -> &mut Self {
        self.set(|options| options.max_loads = most.max(1))
    }

    /// Keeps the value in this process only.
    #[inline]
    pub fn in_process(&mut self) -> &mut Self {
        self.set(|options| options.local_options.in_process = true)
    }

    /// Lets the request around the call remember the result.
    #[inline]
    pub fn memo(&mut self) -> &mut Self {
        self.set(|options| {
            options.memo = true;
            options.is_special = true;
        })
    }

    /// Sets how the value is encoded.
    #[inline]
    pub fn codec(&mut self, codec: impl BuiltIn) -> &mut Self {
        let codec = codec.id();
        self.set(|options| options.codec = codec)
    }

    /// Lets other functions that also say `shared` use the same keys.
    #[inline]
    pub fn shared(&mut self) -> &mut Self {
        self.set(|options| options.shared = true)
    }

    /// Sets how long a value is served.
    #[inline]
    pub fn ttl(&mut self, ttl: impl IntoTtl) -> &mut Self {
        let ttl = ttl.into_ttl();
        self.set(|options| options.ttl.value = ttl)
    }

    /// Sets how long an absence is served.
    #[inline]
    pub fn none_ttl(&mut self, ttl: impl IntoTtl) -> &mut Self {
        let ttl = ttl.into_ttl();
        self.set(|options| options.ttl.absence = ttl)
    }

    /// The same for a time that the whole `impl` block has.
    #[inline]
    pub fn default_none_ttl(&mut self, ttl: impl IntoTtl) -> &mut Self {
        self.none_ttl(ttl);
        self.set(|options| options.ttl.absence_is_default = true)
    }

    /// Decides whether absences are stored at all.
    #[inline]
    pub fn cache_none(&mut self, cache_none: bool) -> &mut Self {
        self.set(|options| options.ttl.never_absence = !cache_none)
    }

    /// Sets how long an expired entry is served while a new value is loaded in the background.
    #[inline]
    pub fn swr(&mut self, time: impl IntoTtl) -> &mut Self {
        let time = bounded(time);
        let usual = self.0.resource.stale_policy.swr;
        self.set(|options| options.stale_policy.swr = time.unwrap_or(usual))
    }

    /// Sets how long an expired entry is served instead of an error.
    #[inline]
    pub fn stale_if_error(&mut self, time: impl IntoTtl) -> &mut Self {
        let time = bounded(time);
        let usual = self.0.resource.stale_policy.stale_if_error;
        self.set(|options| options.stale_policy.stale_if_error = time.unwrap_or(usual))
    }

    /// Sets after which time an expired entry is served instead of waiting for the load, which goes
    /// on.
    #[inline]
    pub fn timeout(&mut self, time: impl IntoTtl) -> &mut Self {
        let time = time.into_ttl();
        let usual = self.0.resource.stale_policy.timeout;
        self.set(|options| options.stale_policy.timeout = time.or(usual))
    }

    /// Sets how eagerly an entry is loaded again before it expires.
    #[inline]
    pub fn early(&mut self, beta: f64) -> &mut Self {
        self.set(|options| options.stale_policy.early = beta)
    }

    /// Sets the largest part by which a TTL is shortened at random.
    #[inline]
    pub fn jitter(&mut self, part: f64) -> &mut Self {
        self.set(|options| options.stale_policy.jitter = part)
    }

    /// Sets the share of hits that is audited.
    #[inline]
    pub fn audit(&mut self, part: f64) -> &mut Self {
        self.set(|options| {
            options.audit = threshold(part);
            options.is_special = true;
        })
    }

    /// Makes every call ask the store, whatever the process holds.
    #[inline]
    pub fn strict(&mut self) -> &mut Self {
        self.set(|options| {
            options.local_options.strict = true;
            options.is_special = true;
        })
    }

    /// Decides whether values are stored as local entries at all.
    #[inline]
    pub fn local(&mut self, kept: bool) -> &mut Self {
        self.set(|options| {
            options.local_options.kept = kept;
            options.is_special = true;
        })
    }

    /// Sets how long a local entry is served.
    #[inline]
    pub fn local_ttl(&mut self, ttl: impl IntoTtl) -> &mut Self {
        let ttl = bounded(ttl).unwrap_or(MAX_TTL);
        self.set(|options| options.local_options.ttl = ttl)
    }

    /// Sets the version of the value's type. Entries of another version are misses.
    #[inline]
    pub fn version(&mut self, version: u32) -> &mut Self {
        // XOR, because types may be part of the version already.
        self.set(|options| options.version ^= version)
    }

    /// Makes one call for each id, with the keys of entities. Those keys are claimed by the
    /// function that reads one row.
    pub(super) fn finish_each<K: KeyPart>(self, cache: &Handle, ids: &[K]) -> Vec<Call> {
        let mut start = self.0;
        start.check_rows(cache);
        start.register(cache);
        start.check_instance();
        start.attribute(cache);
        let (site, options) = (start.site, start.options);
        let resource = &start.resource;
        let deps = all_deps(
            cache,
            &resource.deps(EntryKind::Entity, None),
            &start.extras,
        );
        let front = ambient::front(&resource.contexts).unwrap_or_default();
        let mut left_out = std::mem::take(&mut start.left_out_of)
            .into_iter()
            .peekable();
        let calls = ids.iter().enumerate().map(|(at, id)| {
            let mut key = KeyWriter::new(&cache.space, &resource.name);
            key.front(&front);
            let form = key.id(id, &resource.hash_key);
            let declared = options.version ^ form.as_ref().map_or(0, IdForm::version);
            let problem = match form {
                Ok(form) if resource.fits(form, typeid::of::<K>(), Some(site)) => None,
                Ok(_) => Some(BypassReason::KeyConflict),
                Err(_) => Some(BypassReason::InvalidKey),
            };
            let left_out = left_out.next_if(|(of, _)| *of == at);
            let (version, unknown) = match left_out {
                Some((_, left_out)) => version_apart(site, declared, left_out, 0),
                None => (declared, false),
            };
            let problem = problem.or(unknown.then_some(BypassReason::InvalidKey));
            let own = EntryRef {
                key: key.take(),
                kind: EntryKind::Entity,
                deps: Arc::clone(&deps),
            };
            Call {
                cache: cache.clone(),
                resource: resource.clone(),
                remembered: remembered(cache, &own),
                own,
                learnt: OnceLock::new(),
                window: OnceLock::new(),
                problem: options.problem.or(problem),
                ttl: options.ttl,
                stale_policy: options.stale_policy,
                local_options: options.local_options,
                context: None,
                extras: start.extras.clone(),
                included: Box::default(),
                codec: options.codec,
                version,
                max_loads: options.max_loads,
                memo: None,
                site: Some(site),
                timing: Timing::default(),
                audit: Some(options.audit).filter(|part| *part > 0),
                audited: None,
                is_in_doubt: AtomicBool::new(false),
            }
        });
        let calls = calls.collect();
        start.leave();
        calls
    }
}

fn bounded(time: impl IntoTtl) -> Option<Duration> {
    time.into_ttl().map(|time| time.min(MAX_TTL))
}
