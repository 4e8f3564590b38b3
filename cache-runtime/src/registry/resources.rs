//! The resources of one cache.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::resource::{Resource, ResourceSettings};
use crate::base::counters::{CounterSnapshot, Counters};
use crate::key::is_resource;

/// The resources of one cache.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    resources: RwLock<HashMap<Box<str>, Arc<Resource>>>,
    /// Counts manual operations on resources that no function uses, and on tags, patterns and the
    /// namespace.
    pub(crate) others: Arc<Counters>,
}

impl Registry {
    /// The resource of an annotated function, created at its first call; `None` if `name` is not a
    /// valid name.
    pub(crate) fn resource(
        &self,
        name: &str,
        settings: impl FnOnce() -> ResourceSettings,
    ) -> Option<Arc<Resource>> {
        if let Some(resource) = self.resources.read().get(name) {
            return Some(Arc::clone(resource));
        }
        if !is_resource(name) {
            return None;
        }
        let mut resources = self.resources.write();
        let resource = resources
            .entry(name.into())
            .or_insert_with(|| Arc::new(Resource::new(name, settings(), Arc::default())));
        Some(Arc::clone(resource))
    }

    /// The resource of this name for a manual operation. An unregistered resource is not kept: its
    /// name may come from outside, and the registry would grow without limit.
    pub(crate) fn unregistered_resource(
        &self,
        name: &str,
        settings: impl FnOnce() -> ResourceSettings,
    ) -> Arc<Resource> {
        let known = self.resources.read().get(name).cloned();
        known.unwrap_or_else(|| Arc::new(Resource::new(name, settings(), Arc::clone(&self.others))))
    }

    pub(crate) fn snapshot(&self) -> impl Iterator<Item = (String, CounterSnapshot)> {
        let resources = self.all().into_iter();
        resources.map(|resource| (resource.name.to_string(), resource.snapshot()))
    }

    /// All resources that functions have used.
    pub(crate) fn all(&self) -> Vec<Arc<Resource>> {
        self.resources.read().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::IdForm;
    use crate::key::{KeySpace, KeyWriter};
    use crate::registry::call_site::Role;
    use crate::registry::resource_ref::ResourceRef;
    use crate::registry::site::{REMEMBERED, Site};
    use std::any::TypeId;

    static FIRST: Site = Site::new(Role::Reads, "first", "");
    static SECOND: Site = Site::new(Role::Reads, "second", "");

    fn form(id: impl serde::Serialize) -> IdForm {
        KeyWriter::new(&KeySpace::default(), "r")
            .id(&id, &[0; 16])
            .expect("renders")
    }

    fn resource() -> Arc<Resource> {
        Registry::default()
            .resource("users", ResourceSettings::default)
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
            let own = own
                .resource(name, ResourceSettings::default)
                .expect("a name");
            for _ in 0..2 {
                assert!(KNOWN.claims(
                    engine,
                    name,
                    &ResourceRef::by_hand(Arc::clone(&own)),
                    None,
                    false
                ));
            }
            let known = KNOWN.knows(engine, name).map(ResourceRef::Known);
            assert_eq!(known.is_some(), at < REMEMBERED, "{engine} {name}");
            if let Some(known) = known {
                assert!(std::ptr::eq::<Resource>(&*known, &*own));
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
            "the form of an unregistered resource is not binding"
        );
        assert!(users.fits(form(1i64), TypeId::of::<i64>(), Some(&FIRST)));
        assert!(users.fits(form(2u8), TypeId::of::<u8>(), Some(&SECOND)));
        assert!(!users.fits(form("1"), TypeId::of::<&str>(), Some(&SECOND)));
    }

    #[test]
    fn an_invalid_name_is_no_resource() {
        assert!(
            Registry::default()
                .resource("Users", ResourceSettings::default)
                .is_none()
        );
    }

    #[test]
    fn visitors_are_not_kept() {
        let registry = Registry::default();
        registry.unregistered_resource("anything", ResourceSettings::default);
        assert_eq!(registry.snapshot().count(), 0);
    }
}
