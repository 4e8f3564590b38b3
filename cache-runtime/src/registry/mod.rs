//! Which function owns which keys, and what is known of each resource.

#[cfg(feature = "map")]
pub(crate) mod catalog;

use std::any::TypeId;
use std::collections::{BTreeSet, HashMap};
use std::ops::Deref;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::base::policy::Grace;
use crate::config::CacheConfig;
use crate::key::{EntryKind, IdForm, is_resource};
use crate::protocol::codec::{Refusal, Trust};
use crate::protocol::entry::{CodecId, Fingerprint};
use crate::protocol::generation::Dep;
use crate::stats::{CounterSnapshot, Counters};

/// Where an annotated function stands, and what its attribute says. One static per function, shared by all its
/// instantiations.
#[derive(Debug)]
pub struct Site {
    function: &'static str,
    #[cfg_attr(
        not(feature = "map"),
        expect(dead_code, reason = "only the map reads it")
    )]
    role: Role,
    #[cfg_attr(
        not(feature = "map"),
        expect(dead_code, reason = "only the map reads it")
    )]
    words: &'static str,
    place: &'static Location<'static>,
    reported: AtomicBool,
    /// Why the first value was not stored that a codec would have lost.
    lost: OnceLock<String>,
    /// What the first calls found out, to spare the others the registry's locks: those in as many caches, or of as many
    /// resources, as there are places.
    known: [OnceLock<Known>; PLACES],
}

const PLACES: usize = 4;

/// What is known of a function in one cache, and of one resource.
#[derive(Debug)]
pub(crate) struct Known {
    engine: u64,
    name: &'static str,
    op: Option<&'static str>,
    shared: bool,
    resource: Arc<Resource>,
    fingerprint: OnceLock<(TypeId, u32, Fingerprint)>,
    /// Its first instance, with the types that it is told apart by.
    instance: OnceLock<(u64, TypeId)>,
}

impl Known {
    #[inline]
    fn is(&self, engine: u64, name: &str) -> bool {
        // Mostly the very same literal.
        self.engine == engine && (std::ptr::eq(self.name, name) || self.name == name)
    }
}

/// A resource, which a call need not count if its function knows it.
#[derive(Debug, Clone)]
pub(crate) enum ResourceRef {
    Known(&'static Known),
    Own(Arc<Resource>),
}

impl ResourceRef {
    /// The fingerprint `of` the type of the function's values, in the version that its attribute says.
    pub(crate) fn fingerprint(
        &self,
        type_id: TypeId,
        version: u32,
        of: fn(u32) -> Fingerprint,
    ) -> Fingerprint {
        let Self::Known(known) = self else {
            return of(version);
        };
        // The instantiations of a generic function share what is known of it.
        let known = known
            .fingerprint
            .get_or_init(|| (type_id, version, of(version)));
        match known {
            (id, at, fingerprint) if *id == type_id && *at == version => *fingerprint,
            _ => of(version),
        }
    }
}

impl ResourceRef {
    /// Whether the keys of this function belong to this instance of it. The types that instances are told apart by are
    /// given as a hash of their names; of two that agree in it, the first has the keys.
    #[inline]
    pub(crate) fn is_of(&self, site: &'static Site, types: u64, instance: TypeId) -> bool {
        if let Self::Known(known) = self
            && known.instance.get() == Some(&(types, instance))
        {
            return true;
        }
        let is_own = self.is_instance(site, types, instance);
        if let (true, Self::Known(known)) = (is_own, self) {
            // Another one may have come in between; then each call asks.
            let _ = known.instance.set((types, instance));
        }
        is_own
    }
}

impl Deref for ResourceRef {
    type Target = Resource;

    fn deref(&self) -> &Resource {
        match self {
            Self::Known(known) => &known.resource,
            Self::Own(resource) => resource,
        }
    }
}

/// Every annotated function of the program: the linker puts them side by side.
#[cfg(feature = "map")]
#[linkme::distributed_slice]
pub static SITES: [Site];

/// What an annotated function does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Reads,
    Writes,
}

impl Site {
    /// At the caller's place.
    #[track_caller]
    pub(crate) const fn new(role: Role, function: &'static str, words: &'static str) -> Self {
        Self {
            function,
            role,
            words,
            place: Location::caller(),
            reported: AtomicBool::new(false),
            lost: OnceLock::new(),
            known: [const { OnceLock::new() }; PLACES],
        }
    }

    /// The resource of this name, if the function has been called with it.
    #[inline]
    pub(crate) fn knows(&'static self, engine: u64, name: &str) -> Option<ResourceRef> {
        let mut known = self.known.iter().map_while(OnceLock::get);
        known
            .find(|known| known.is(engine, name))
            .map(ResourceRef::Known)
    }

    /// As [`Resource::claim`].
    #[inline]
    pub(crate) fn claims(
        &'static self,
        engine: u64,
        name: &'static str,
        resource: &ResourceRef,
        op: Option<&'static str>,
        shared: bool,
    ) -> bool {
        if let ResourceRef::Known(known) = resource
            && known.shared == shared
            && same_op(known.op, op)
        {
            // A claim that was granted is not taken back.
            return true;
        }
        self.claims_first(engine, name, resource, op, shared)
    }

    fn claims_first(
        &'static self,
        engine: u64,
        name: &'static str,
        resource: &ResourceRef,
        op: Option<&'static str>,
        shared: bool,
    ) -> bool {
        let is_granted = resource.claim(op, self, shared);
        if let (true, ResourceRef::Own(resource)) = (is_granted, resource) {
            self.know(Known {
                engine,
                name,
                op,
                shared,
                resource: Arc::clone(resource),
                fingerprint: OnceLock::new(),
                instance: OnceLock::new(),
            });
        }
        is_granted
    }

    /// Takes a place if there is one.
    fn know(&self, mut known: Known) {
        for place in &self.known {
            let (engine, name) = (known.engine, known.name);
            match place.set(known) {
                Ok(()) => return,
                Err(_) if place.get().is_some_and(|first| first.is(engine, name)) => return,
                Err(back) => known = back,
            }
        }
    }

    pub(crate) fn function(&self) -> &'static str {
        self.function
    }

    /// Logs what is wrong with the function, once.
    pub(crate) fn report(&self, text: impl FnOnce() -> String) {
        if !self.reported.swap(true, Ordering::Relaxed) {
            tracing::error!("{}", text());
        }
    }

    /// The address tells two functions apart that one macro invocation wrote on one line.
    fn is(&'static self, other: &'static Self) -> bool {
        std::ptr::eq(self, other)
    }
}

fn address(site: Option<&'static Site>) -> usize {
    site.map_or(0, |site| std::ptr::from_ref(site).addr())
}

/// Logs once for each function and type that a codec would lose what it returns.
pub(crate) fn report_loss(
    site: Option<&'static Site>,
    resource: &str,
    type_id: TypeId,
    refusal: &Refusal,
) {
    static REPORTED: Mutex<BTreeSet<(usize, TypeId)>> = Mutex::new(BTreeSet::new());

    if !REPORTED.lock().insert((address(site), type_id)) {
        return;
    }
    let function = site.map_or_else(|| "a manual operation".to_owned(), Site::to_string);
    if let Some(site) = site {
        let _ = site.lost.set(refusal.to_string());
    }
    tracing::warn!(
        resource,
        function,
        field = refusal.place(),
        reason = refusal.reason,
        remedy = refusal.remedy,
        "a value is not stored, since its codec would lose a part of it"
    );
}

/// What only the map asks.
#[cfg(feature = "map")]
impl Site {
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn words(&self) -> &'static str {
        self.words
    }

    pub(crate) fn place(&self) -> &'static Location<'static> {
        self.place
    }

    /// Why a value was not stored that its codec would have lost.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }
}

/// Mostly the very same literal, or none.
#[inline]
fn same_op(a: Option<&'static str>, b: Option<&'static str>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => std::ptr::eq(a, b) || a == b,
        (None, None) => true,
        _ => false,
    }
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, line) = (self.place.file(), self.place.line());
        write!(f, "`{}` ({file}:{line})", self.function)
    }
}

/// One resource of one cache: its dependencies, figures and claims.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) name: Box<str>,
    /// What all its keys begin with.
    pub(crate) prefix: Box<str>,
    /// The secret of the hashes in them.
    pub(crate) hash_key: [u8; 16],
    /// `users`: every entry depends on it.
    pub(crate) whole: Arc<Dep>,
    /// `users~derived`: every derived entry depends on it as well.
    pub(crate) derived: Arc<Dep>,
    entity_deps: Arc<[Arc<Dep>]>,
    derived_deps: Arc<[Arc<Dep>]>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) operator_ttl: Option<Duration>,
    /// As it is configured.
    pub(crate) grace: Grace,
    claims: RwLock<HashMap<&'static str, Claim>>,
    /// By function and types.
    instances: RwLock<HashMap<(usize, u64), TypeId>>,
    id_form: OnceLock<(IdForm, TypeId, &'static Site)>,
    /// What the fills of each function have shown, by its address (0: manual operations), type and codec.
    trust: RwLock<HashMap<(usize, TypeId, CodecId), Arc<Trust>>>,
}

/// Who owns the keys of an op.
#[derive(Debug, Clone, Copy)]
struct Claim {
    owner: &'static Site,
    /// Whether the owner lets others in that say the same.
    shared: bool,
}

/// The op under which a resource's entities are claimed; no op is spelled like this.
const ENTITY: &str = "";

impl Resource {
    fn new(name: &str, config: &CacheConfig, counters: Arc<Counters>) -> Self {
        let space = config.key_space();
        let whole = Dep::new(space.generation(name));
        let derived = Dep::new(space.generation(&format!("{name}~derived")));
        Self {
            name: name.into(),
            prefix: space.prefix(name).into(),
            hash_key: space.hash_key,
            entity_deps: [Arc::clone(&whole)].into(),
            derived_deps: [Arc::clone(&whole), Arc::clone(&derived)].into(),
            whole,
            derived,
            counters,
            operator_ttl: config.operator_ttl(name),
            grace: config.grace,
            claims: RwLock::default(),
            instances: RwLock::default(),
            id_form: OnceLock::new(),
            trust: RwLock::default(),
        }
    }

    /// What the fills of a function have shown, of this type in this codec.
    pub(crate) fn trust(
        &self,
        site: Option<&'static Site>,
        type_id: TypeId,
        codec: CodecId,
    ) -> Arc<Trust> {
        let key = (address(site), type_id, codec);
        let known = self.trust.read().get(&key).cloned();
        known.unwrap_or_else(|| Arc::clone(self.trust.write().entry(key).or_default()))
    }

    /// What an entry of this kind depends on. One order for all, since the stamp is computed in it.
    pub(crate) fn deps(&self, kind: EntryKind) -> &Arc<[Arc<Dep>]> {
        match kind {
            EntryKind::Entity => &self.entity_deps,
            EntryKind::Derived => &self.derived_deps,
        }
    }

    /// Whether `site` may use the keys of this op (`None`: the entities). The first to ask owns them; any other
    /// is reported once and has to go without the cache, unless both say `shared`.
    pub(crate) fn claim(
        &self,
        op: Option<&'static str>,
        site: &'static Site,
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
        site.report(|| {
            let keys = if op == ENTITY { format!("{}:<id>", self.name) } else { format!("{}:{op}", self.name) };
            format!(
                "two functions claim the cache keys `{keys}`: {owner} has them, so {site} runs without the cache; give it an `op` of its own, or write `shared` on both if they return the same"
            )
        });
        false
    }

    fn is_instance(&self, site: &'static Site, types: u64, instance: TypeId) -> bool {
        if crate::base::mutation::is_active("instances-share-keys") {
            return true;
        }
        let place = (std::ptr::from_ref(site).addr(), types);
        let known = self.instances.read().get(&place).copied();
        let owner = known.unwrap_or_else(|| {
            let mut instances = self.instances.write();
            *instances.entry(place).or_insert(instance)
        });
        owner == instance
    }

    /// Whether ids of this form, and of this type, are the resource's. The first form seen is, and so are the other values
    /// of its type where they are variants or have parts: each says what it is.
    pub(crate) fn fits(&self, form: IdForm, of: TypeId, site: Option<&'static Site>) -> bool {
        let Some((known, first_type, first)) = self.id_form.get() else {
            if let Some(site) = site.filter(|_| !form.is_open()) {
                return self.id_form.get_or_init(|| (form, of, site)).0.fits(form);
            }
            return true;
        };
        if known.fits(form) || (*first_type == of && known.is_composite() && form.is_composite()) {
            return true;
        }
        if let Some(site) = site {
            site.report(|| {
                format!(
                    "the ids that {site} gives for resource `{}` are of another type than those of {first}; its reads run without the cache, and its writes invalidate the whole resource",
                    self.name
                )
            });
        }
        false
    }
}

/// The resources of one cache.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    resources: RwLock<HashMap<Box<str>, Arc<Resource>>>,
    /// What manual operations do on resources that no function uses, and on tags, patterns and the namespace.
    pub(crate) others: Arc<Counters>,
}

impl Registry {
    /// The resource of an annotated function, made at its first call; `None` if it is not a resource's name.
    pub(crate) fn resource(&self, name: &str, config: &CacheConfig) -> Option<Arc<Resource>> {
        if let Some(resource) = self.resources.read().get(name) {
            return Some(Arc::clone(resource));
        }
        if !is_resource(name) {
            return None;
        }
        let mut resources = self.resources.write();
        let resource = resources
            .entry(name.into())
            .or_insert_with(|| Arc::new(Resource::new(name, config, Arc::default())));
        Some(Arc::clone(resource))
    }

    /// The resource of this name for a manual operation. A name that no function uses is not kept: it may
    /// come from outside, and the registry would grow with it.
    pub(crate) fn visitor(&self, name: &str, config: &CacheConfig) -> Arc<Resource> {
        let known = self.resources.read().get(name).cloned();
        known.unwrap_or_else(|| Arc::new(Resource::new(name, config, Arc::clone(&self.others))))
    }

    pub(crate) fn snapshot(&self) -> impl Iterator<Item = (String, CounterSnapshot)> {
        let resources: Vec<_> = self.resources.read().values().cloned().collect();
        resources
            .into_iter()
            .map(|resource| (resource.name.to_string(), resource.counters.snapshot()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeySpace, KeyWriter};

    static FIRST: Site = Site::new(Role::Reads, "first", "");
    static SECOND: Site = Site::new(Role::Reads, "second", "");

    fn form(id: impl serde::Serialize) -> IdForm {
        KeyWriter::new(&KeySpace::default(), "r")
            .id(&id, &[0; 16])
            .expect("renders")
    }

    fn resource() -> Arc<Resource> {
        Registry::default()
            .resource("users", &CacheConfig::default())
            .expect("a name")
    }

    #[test]
    fn the_first_function_owns_a_key() {
        let users = resource();
        assert!(users.claim(None, &FIRST, false));
        assert!(users.claim(Some("list"), &SECOND, false));
        assert!(!users.claim(None, &SECOND, false));
        assert!(!users.claim(Some("list"), &FIRST, false));
        assert!(users.claim(None, &FIRST, false));
    }

    #[test]
    fn a_function_is_known_in_a_few_caches_and_of_a_few_resources() {
        static KNOWN: Site = Site::new(Role::Reads, "known", "");
        let calls = [
            (1, "users"),
            (2, "users"),
            (2, "teams"),
            (3, "users"),
            (4, "users"),
        ];
        for (at, (engine, name)) in calls.into_iter().enumerate() {
            let own = Registry::default();
            let own = own.resource(name, &CacheConfig::default()).expect("a name");
            for _ in 0..2 {
                assert!(KNOWN.claims(
                    engine,
                    name,
                    &ResourceRef::Own(Arc::clone(&own)),
                    None,
                    false
                ));
            }
            let known = KNOWN.knows(engine, name);
            assert_eq!(known.is_some(), at < PLACES, "{engine} {name}");
            if let Some(known) = known {
                assert!(std::ptr::eq(&*known, &*own));
                assert!(KNOWN.claims(engine, name, &known, None, false));
            }
        }
        assert!(KNOWN.knows(1, "teams").is_none(), "of that cache it is not");
    }

    #[test]
    fn a_key_is_shared_only_by_those_who_both_say_so() {
        let users = resource();
        assert!(users.claim(None, &FIRST, true));
        assert!(!users.claim(None, &SECOND, false));
        assert!(users.claim(None, &SECOND, true));
        assert!(users.claim(Some("list"), &SECOND, false));
        assert!(!users.claim(Some("list"), &FIRST, true));
    }

    #[test]
    fn the_first_form_of_id_is_the_resources() {
        let users = resource();
        assert!(
            users.fits(form("1"), TypeId::of::<&str>(), None),
            "a visitor's form is not binding"
        );
        assert!(users.fits(form(1i64), TypeId::of::<i64>(), Some(&FIRST)));
        assert!(users.fits(form(2u8), TypeId::of::<u8>(), Some(&SECOND)));
        assert!(!users.fits(form("1"), TypeId::of::<&str>(), Some(&SECOND)));
    }

    #[test]
    fn what_is_no_name_is_no_resource() {
        assert!(
            Registry::default()
                .resource("Users", &CacheConfig::default())
                .is_none()
        );
    }

    #[test]
    fn visitors_are_not_kept() {
        let registry = Registry::default();
        registry.visitor("anything", &CacheConfig::default());
        assert_eq!(registry.snapshot().count(), 0);
    }
}
