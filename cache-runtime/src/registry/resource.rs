//! One resource of one cache: its dependencies, counters and claims.

use std::any::TypeId;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;

use super::call_site::{CallSite, Mistake, address};
use super::instance::{Instance, version_of};
use crate::base::counters::{CounterSnapshot, Counters};
use crate::base::policy::StalePolicy;
use crate::key::{EntryKind, IdForm, KeySpace};
use crate::protocol::codec::Trust;
use crate::protocol::codec_id::CodecId;
use crate::protocol::generation::Dependency;
use crate::telemetry::function::FunctionCounters;

/// The configuration of one resource.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResourceSettings {
    pub(crate) space: KeySpace,
    /// Wins over the attribute's `ttl`.
    pub(crate) operator_ttl: Option<Duration>,
    pub(crate) stale_policy: StalePolicy,
    /// The context that its keys need.
    pub(crate) contexts: Box<[Box<str>]>,
    /// Which part of the hits is audited.
    pub(crate) audit: u32,
}

/// One resource of one cache: its dependencies, counters and claims.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) name: Box<str>,
    /// The beginning of all its keys.
    pub(crate) prefix: Box<str>,
    /// The secret key of the hashes in its keys.
    pub(crate) hash_key: [u8; 16],
    /// `users`: every entry depends on it.
    pub(crate) whole: Arc<Dependency>,
    /// `users~derived`: every derived entry depends on it too.
    pub(crate) derived: Arc<Dependency>,
    entity_deps: Arc<[Arc<Dependency>]>,
    /// `users~ops`: replaced by writes that name single ops.
    any_op: Arc<Dependency>,
    /// The prefixes of its ops' and its rows' generation keys.
    op_prefix: Box<str>,
    row_prefix: Box<str>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) operator_ttl: Option<Duration>,
    /// The context that its keys need.
    pub(crate) contexts: Box<[Box<str>]>,
    /// The configured policy for slow and failing loads.
    pub(crate) stale_policy: StalePolicy,
    /// Which part of the hits is audited, as it is configured.
    pub(crate) audit: u32,
    claims: RwLock<HashMap<&'static str, Claim>>,
    /// The counters of each function, by its address and op. The op may differ if a macro wrote
    /// several functions.
    functions: RwLock<HashMap<(usize, &'static str), Arc<FunctionCounters>>>,
    /// The first instance of each function of one name, by function and types, and the type or
    /// trait it belongs to.
    instances: RwLock<HashMap<(usize, u64), TypeId>>,
    /// The instance of the first function of each op. Manual operations use its entries.
    by_hand: RwLock<HashMap<&'static str, u32>>,
    /// The ops whose entries are kept in this process alone. Manual operations send none of them to
    /// the store.
    kept_here_only: RwLock<HashSet<&'static str>>,
    id_form: OnceLock<(IdForm, TypeId, &'static CallSite)>,
    /// The results of each function's fills, by the function's address (0: manual operations), type
    /// and codec.
    trust: RwLock<HashMap<(usize, TypeId, CodecId), Arc<Trust>>>,
}

/// The owner of an op's keys.
#[derive(Debug, Clone, Copy)]
struct Claim {
    owner: &'static CallSite,
    /// Whether the owner shares the keys with functions that say `shared` too.
    shared: bool,
}

/// The op under which a resource's entities are claimed. No op has this name.
const ENTITY: &str = "";

impl Resource {
    pub(super) fn new(name: &str, settings: ResourceSettings, counters: Arc<Counters>) -> Self {
        let space = settings.space;
        let whole = Dependency::new(space.generation(name));
        let derived = Dependency::new(space.generation(&format!("{name}~derived")));
        Self {
            name: name.into(),
            prefix: space.prefix(name).into(),
            hash_key: space.hash_key,
            entity_deps: [Arc::clone(&whole)].into(),
            any_op: Dependency::new(space.generation(&format!("{name}~ops"))),
            op_prefix: space.generation(&format!("{name}~op:")).into(),
            row_prefix: space.generation(&format!("{name}~row:")).into(),
            whole,
            derived,
            counters,
            operator_ttl: settings.operator_ttl,
            contexts: settings.contexts,
            stale_policy: settings.stale_policy,
            audit: settings.audit,
            claims: RwLock::default(),
            functions: RwLock::default(),
            instances: RwLock::default(),
            by_hand: RwLock::default(),
            kept_here_only: RwLock::default(),
            id_form: OnceLock::new(),
            trust: RwLock::default(),
        }
    }

    /// The results of a function's fills of this type in this codec.
    pub(crate) fn trust(
        &self,
        site: Option<&'static CallSite>,
        type_id: TypeId,
        codec: CodecId,
    ) -> Arc<Trust> {
        let key = (address(site), type_id, codec);
        let known = self.trust.read().get(&key).cloned();
        known.unwrap_or_else(|| Arc::clone(self.trust.write().entry(key).or_default()))
    }

    /// The counters of a function.
    pub(crate) fn function(
        &self,
        site: &'static CallSite,
        op: Option<&'static str>,
    ) -> Arc<FunctionCounters> {
        let op = op.unwrap_or(site.function());
        let key = (address(Some(site)), op);
        let known = self.functions.read().get(&key).cloned();
        known.unwrap_or_else(|| {
            let mut functions = self.functions.write();
            let new = || Arc::new(FunctionCounters::new(op, site.function()));
            Arc::clone(functions.entry(key).or_insert_with(new))
        })
    }

    /// The counters of all functions that were called.
    pub(crate) fn functions(&self) -> Vec<Arc<FunctionCounters>> {
        self.functions.read().values().cloned().collect()
    }

    /// The counters of the resource: its own, and the hits of its functions.
    pub(crate) fn snapshot(&self) -> CounterSnapshot {
        let mut snapshot = self.counters.snapshot();
        for function in self.functions.read().values() {
            let local_hits = function.local_hits.get();
            snapshot.hits += function.hits.get() + local_hits;
            snapshot.local_hits += local_hits;
        }
        snapshot
    }

    /// The dependencies of an entry of this kind. The order is fixed, since the stamp depends on
    /// it.
    pub(crate) fn deps(
        &self,
        kind: EntryKind,
        op: Option<&str>,
    ) -> Cow<'_, Arc<[Arc<Dependency>]>> {
        match kind {
            EntryKind::Entity => Cow::Borrowed(&self.entity_deps),
            EntryKind::Derived => {
                let both = [&self.whole, &self.derived].map(Arc::clone);
                Cow::Owned(both.into_iter().chain(op.map(|op| self.op(op))).collect())
            }
        }
    }

    /// `users~op:list`: every entry that is derived by this `op` depends on it as well.
    pub(crate) fn op(&self, op: &str) -> Arc<Dependency> {
        Dependency::new(format!("{}{op}", self.op_prefix))
    }

    /// `users~ops`: entries that depend on everything of the resource depend on it. Most writes
    /// replace `users~derived`; a write that names single ops replaces this instead.
    pub(crate) fn any_op(&self) -> Arc<Dependency> {
        Arc::clone(&self.any_op)
    }

    /// `users~row:1`: entries that depend on this row. The row's own entry has a key of its own.
    pub(crate) fn row(&self, id: &str) -> Arc<Dependency> {
        Dependency::of_row(format!("{}{id}", self.row_prefix))
    }

    /// The same of the row whose entry has this key.
    pub(crate) fn row_of(&self, entity: &str) -> Option<Arc<Dependency>> {
        entity.strip_prefix(&*self.prefix).map(|id| self.row(id))
    }

    /// Whether `site` may use the keys of this op (`None`: the entities). The first function to ask
    /// owns them. Any other one is reported once and runs without the cache, unless both say
    /// `shared`.
    pub(crate) fn claim(
        &self,
        op: Option<&'static str>,
        site: &'static CallSite,
        shared: bool,
    ) -> bool {
        let op = op.unwrap_or(ENTITY);
        let known = self.claims.read().get(op).copied();
        let claim = known.unwrap_or_else(|| {
            let first = Claim {
                owner: site,
                shared,
            };
            *self.claims.write().entry(op).or_insert(first)
        });
        let owner = claim.owner;
        if owner.is(site) || (claim.shared && shared) {
            return true;
        }
        site.report(Mistake::KeyConflict, || {
            let keys = if op == ENTITY {
                format!("{}:<id>", self.name)
            } else {
                format!("{}:{op}", self.name)
            };
            format!(
                "two functions claim the cache keys `{keys}`: {owner} has them, \
                 so {site} runs without the cache; give it an `op` of its own, \
                 or write `shared` on both if they return the same"
            )
        });
        false
    }

    /// Distinguishes the entries of this instance of a function from those of other instances with
    /// the same keys; 0 for a function that belongs to no trait and no generic type.
    ///
    /// It is derived from the name of that trait or type, which is the same in all processes, and
    /// from the types of parameters that are left out of the key. If two types have one name, the
    /// second gets another number within the process. `types` are hashes of all types that the
    /// caller chooses, and of those of such parameters.
    pub(super) fn version_of(
        &self,
        site: &'static CallSite,
        op: Option<&'static str>,
        types: (u64, u32),
        instance: Instance,
    ) -> u32 {
        use crate::base::mutation::is_active;
        if is_active("instances-share-keys") {
            return 0;
        }
        let of = site.instance_of(instance).map_or(0, version_of);
        let of = match is_active("instances-by-order") {
            true => 0,
            false => of ^ types.1,
        };
        let place = (
            std::ptr::from_ref(site).addr(),
            types.0 ^ u64::from(of) << 32,
        );
        let known = self.instances.read().get(&place).copied();
        let owner = known.unwrap_or_else(|| {
            self.by_hand
                .write()
                .entry(op.unwrap_or(ENTITY))
                .or_insert(of);
            let mut instances = self.instances.write();
            *instances.entry(place).or_insert(instance.id)
        });
        if owner == instance.id {
            of
        } else {
            of ^ instance.version()
        }
    }

    /// The number that manual operations on the entries of this op need, from the function that
    /// stores them.
    pub(crate) fn version_by_hand(&self, op: Option<&str>) -> u32 {
        let versions = self.by_hand.read();
        versions.get(op.unwrap_or(ENTITY)).copied().unwrap_or(0)
    }

    /// The entries of this op (`None`: the entities) are kept in this process alone.
    pub(crate) fn keeps_here_only(&self, op: Option<&'static str>) {
        let op = op.unwrap_or(ENTITY);
        let is_known = self.kept_here_only.read().contains(op);
        if !is_known {
            self.kept_here_only.write().insert(op);
        }
    }

    /// Whether a function of this process keeps the entries of this op in this process alone.
    pub(crate) fn is_kept_here_only(&self, op: Option<&str>) -> bool {
        let ops = self.kept_here_only.read();
        ops.contains(op.unwrap_or(ENTITY))
    }

    /// Whether a function of this process has shown the form of the resource's ids.
    #[cfg(feature = "outbox-postgres")]
    pub(crate) fn knows_its_ids(&self) -> bool {
        self.id_form.get().is_some() || crate::base::mutation::is_active("outbox-ids-trusted")
    }

    /// Whether ids of this form and type fit the resource. The first form seen becomes the
    /// resource's. Other values of that first type fit too: an enum's variants may differ in form.
    pub(crate) fn fits(&self, form: IdForm, of: TypeId, site: Option<&'static CallSite>) -> bool {
        let Some((known, first_type, first)) = self.id_form.get() else {
            if let Some(site) = site.filter(|_| !form.is_open()) {
                return self.id_form.get_or_init(|| (form, of, site)).0.fits(form);
            }
            return true;
        };
        // Two values of one type whose texts in a key are equal are distinguished by other means,
        // in `key/left_out`.
        if known.fits(form) || *first_type == of {
            return true;
        }
        if let Some(site) = site {
            site.report(Mistake::IdType, || {
                format!(
                    "the ids that {site} gives for resource `{}` are of another type than those of \
                     {first}; its reads run without the cache, \
                     and its writes invalidate the whole resource",
                    self.name
                )
            });
        }
        false
    }
}
