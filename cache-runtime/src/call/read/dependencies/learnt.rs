//! Dependencies that a load names while it runs: `load.depends_on("authors", id)`.
//!
//! They are as exact as those that the attribute names. The entry's stamp covers all generations
//! that the entry depends on, as they were before the load. Three things differ:
//!
//! - **The names** are known only after the load. So the entry lists them in front of its payload.
//!   A reader that finds an unknown list looks up again, with these generations as well, and
//!   remembers the list. Its next hit is one round trip again.
//! - **Invalidations since the load began** can't be seen from the named generations alone: they
//!   may be missing, or were read too late. So before the load a *window* is opened: the stamp of
//!   generations of which each write of the resource replaces one, and the same for tags. After the
//!   load the new generations are read, or created. If the window's stamp is still the same *after
//!   that*, nothing was written in between, and the generations are as they were before the load.
//!   Otherwise the value is not stored. The next load knows the list before it begins, and needs no
//!   window.
//! - **Waiters** have compared only the generations that were known. So they get the value only
//!   after this check.
//!
//! No clock is involved. A window relies on this: a write replaces the generations of windows
//! before those of single rows and tags, or all in one step. If one of a window is refused, those
//! of its rows or tags wait with it. A store of several servers does not guarantee that, so there
//! are no windows with one.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join;

use super::super::call::Call;
use super::super::new_entry::NewEntry;
use super::super::permit::Permit;
use super::deps::all_of;
use super::known::{KnownDependencies, MOST, Verified, Window, any_tag};
use crate::base::mutation;
use crate::coalesce::single_flight::LoadResult;
use crate::key::EntryKind;
use crate::protocol::entry::{Content, Stamp, split_list};
use crate::protocol::generation::Dependency;
use crate::registry::learnt::{MOST_RESOURCES, Named};
use crate::store::{EntryRef, Filled, Found, LookupReply, Payload, Representation};

/// The longest name of a dependency that is read from an entry.
const LONGEST_NAME: usize = 1_024;

impl Call {
    /// The entry's key and what the entry depends on, as far as it is known.
    #[inline]
    pub(crate) fn entry_ref(&self) -> &EntryRef {
        match self.learnt.get() {
            Some(known) => &known.entry_ref,
            None => self
                .remembered
                .as_ref()
                .map_or(&self.own, |known| &known.entry_ref),
        }
    }

    /// The dependencies that its last load has named.
    pub(crate) fn list(&self) -> Option<&Arc<[Arc<Dependency>]>> {
        let known = self.learnt.get().or(self.remembered.as_ref());
        known
            .map(|known| &known.list)
            .filter(|list| !list.is_empty())
    }

    /// Whether it has found a new list in the store. Then it looks up other generations than
    /// before.
    #[inline]
    pub(crate) fn has_learnt(&self) -> bool {
        self.learnt.get().is_some()
    }

    /// Removes the list from the payload. If it is a new one, the call has to look up again
    /// ([`has_learnt`](Self::has_learnt)), once.
    #[inline]
    pub(crate) fn reads_list(&self, lookup: &mut LookupReply) {
        if let Found::Entry(header, payload) = &mut lookup.found
            && (header.content.lists() || self.remembered.is_some())
            // A lease without content has no list.
            && header.content != Content::Nothing
        {
            self.learns(header.content.lists(), payload);
        }
    }

    #[cold]
    fn learns(&self, lists: bool, payload: &mut Payload) {
        let list: Arc<[Arc<Dependency>]> = if lists {
            let split = match payload {
                Payload::Encoded(bytes) => split_list(bytes),
                Payload::Empty | Payload::Decoded(_) => None,
            };
            let split = split.and_then(|(list, rest)| Some((self.parsed(list)?, rest)));
            let Some((list, rest)) = split else {
                // It is damaged, or too long to be ours.
                *payload = Payload::Empty;
                return;
            };
            *payload = Payload::Encoded(rest);
            list
        } else if self.cache.store.representation() == Representation::Encoded {
            Arc::default()
        } else {
            // A decoded value has no list. The list is remembered, or the entry is a miss.
            return;
        };
        let known = self.list().map(|known| &**known).unwrap_or_default();
        if *known != *list {
            self.cache.learnt.remember(&self.own.key, &list);
            // Only once. After that the entry is dead, or is replaced faster than it is read.
            let known = KnownDependencies::new(&self.own, list);
            let _ = self.learnt.set(Box::new(known));
        }
    }

    fn parsed(&self, list: &str) -> Option<Arc<[Arc<Dependency>]>> {
        let mut deps = Vec::new();
        for name in list.split(' ').filter(|name| !name.is_empty()) {
            if deps.len() == MOST || name.len() > LONGEST_NAME {
                return None;
            }
            let key = self.cache.space.generation(name);
            deps.push(match !name.starts_with('~') && name.contains("~row:") {
                true => Dependency::of_row(key),
                false => Dependency::new(key),
            });
        }
        Some(deps.into())
    }

    /// Before the load: reads the generations of which each write that matters replaces one.
    pub(crate) async fn open_window(&self) -> Option<Arc<Window>> {
        let (Some(_), Some(site)) = (&self.context, self.site) else {
            return None;
        };
        if self.cache.store.is_split() {
            return None;
        }
        let named = self.cache.learnt.named_by(std::ptr::from_ref(site).addr());
        let named = named.unwrap_or_else(|| self.guess());
        if named.is_empty() {
            return None;
        }
        let mut deps: Vec<_> = named
            .resources
            .iter()
            .flat_map(|name| all_of(&self.cache.unregistered_resource(name)))
            .collect();
        if named.tags {
            deps.push(any_tag(&self.cache.space));
        }
        let entry_ref = EntryRef {
            // No function writes it.
            key: self.cache.space.generation("~window"),
            kind: EntryKind::Derived,
            deps: deps.into(),
        };
        let stamp = self.stamp_of(&entry_ref).await?;
        Some(Arc::new(Window {
            named,
            entry_ref,
            stamp,
        }))
    }

    /// The resources that the first load of a function may name: all resources of the program.
    fn guess(&self) -> Named {
        let registered = self.cache.registry.all();
        let registered = registered.iter().map(|resource| resource.name.clone());
        #[allow(unused_mut, reason = "only with the catalog")]
        let mut resources: BTreeSet<Box<str>> = registered.collect();
        #[cfg(feature = "map")]
        {
            let map = crate::registry::catalog::catalog();
            let targets = map.writers().iter().flat_map(|writer| &writer.targets);
            let written = targets.map(|target| target.resource.as_str());
            let read = map.readers().iter().map(|reader| reader.resource.as_str());
            let names = written.chain(read);
            let names = names.filter(|name| crate::key::is_resource(name));
            resources.extend(names.map(Box::from));
        }
        Named {
            resources: resources.into_iter().take(MOST_RESOURCES).collect(),
            tags: true,
        }
    }

    /// The stamp of these generations; `None` while one of them has an intent, or if the store
    /// fails.
    async fn stamp_of(&self, entry_ref: &EntryRef) -> Option<Stamp> {
        let lookup = self.lookup_generations(entry_ref).await.ok()?;
        lookup.intents_until.is_none().then_some(lookup.stamp)
    }

    /// The dependencies that the load has named, if they are new. They are noted for later calls.
    #[expect(clippy::mutable_key_type, reason = "ordered by their keys, which stay")]
    pub(crate) fn names_anew(&self) -> Option<Arc<[Arc<Dependency>]>> {
        let named = self.context.as_ref()?.named();
        if let Some(site) = self.site {
            let function = std::ptr::from_ref(site).addr();
            self.cache.learnt.note(function, Named::of(&named));
        }
        let own = &self.own.deps;
        let list: Arc<[Arc<Dependency>]> =
            named.into_iter().filter(|dep| !own.contains(dep)).collect();
        let known = self.list().map(|known| &**known).unwrap_or_default();
        if *known == *list {
            return None;
        }
        Some(list)
    }

    /// Notes the named dependencies for the next load. Only after the value was stored, or will not
    /// be: a caller that knows more than the lease's holder did computes another stamp, and takes
    /// the lease away.
    pub(crate) fn note_named(&self, list: &Arc<[Arc<Dependency>]>) {
        // A longer list is never stored.
        if list.len() <= MOST {
            self.cache.learnt.remember(&self.own.key, list);
        }
    }

    /// After a load that began under `before`: the stamp over all generations as they were then;
    /// `None` if one of them may have been replaced since.
    pub(crate) async fn verify_named(
        &self,
        before: Stamp,
        list: &Arc<[Arc<Dependency>]>,
    ) -> Option<Verified> {
        let known = self.list().map(|known| &**known).unwrap_or_default();
        let new = Named::of(list.iter().filter(|dep| !known.contains(dep)));
        let window = match new.is_empty() {
            true => None,
            false => Some(self.window.get().filter(|it| it.named.covers(&new))),
        };
        let is_checked = !mutation::is_active("learnt-dependency-not-checked");
        if matches!(window, Some(None)) && is_checked {
            return None;
        }
        let known = KnownDependencies::new(&self.own, Arc::clone(list));
        // These first: if the others are unchanged after that, these were unchanged when they were
        // read.
        let stamp = self.stamp_of(&known.entry_ref).await?;
        let own = self.stamp_of(self.entry_ref());
        let around = async {
            match window.flatten() {
                Some(window) => self.stamp_of(&window.entry_ref).await == Some(window.stamp),
                None => true,
            }
        };
        let (own, is_quiet) = join(own, around).await;
        let is_as_before = own == Some(before) && (is_quiet || !is_checked);
        is_as_before.then_some(Verified { known, stamp })
    }
}

/// The dependencies that a load has named and that were unknown before it.
#[derive(Debug)]
pub(crate) struct NamedLoad {
    list: Arc<[Arc<Dependency>]>,
    /// The value for the waiters, if there are any.
    held: Option<Option<LoadResult>>,
}

impl NamedLoad {
    /// Gives the value to the waiters if nothing new was named. Otherwise holds it back, since the
    /// waiters have compared only the known dependencies.
    pub(crate) fn hold(
        permit: &Permit,
        list: Option<Arc<[Arc<Dependency>]>>,
        load_result: impl Fn() -> Option<LoadResult>,
    ) -> Option<Self> {
        if list.is_none() || mutation::is_active("learnt-dependency-joined") {
            permit.leader.complete(&load_result);
        } else {
            permit.leader.takes_no_more();
        }
        let held = |list| Self {
            list,
            held: permit.leader.is_awaited().then(load_result),
        };
        list.map(held)
    }

    /// Finds out whether one of the dependencies was written since the load began. If not, gives
    /// the value to the waiters and stores it. If so, the waiters look up again, and one of them
    /// loads. Returns whether the value was stored.
    pub(crate) async fn store(
        self,
        call: &Call,
        permit: Permit,
        new_entry: Option<NewEntry>,
    ) -> bool {
        let list = Arc::clone(&self.list);
        let is_stored = self.verify_and_fill(call, permit, new_entry).await;
        call.note_named(&list);
        is_stored
    }

    async fn verify_and_fill(
        self,
        call: &Call,
        permit: Permit,
        new_entry: Option<NewEntry>,
    ) -> bool {
        if new_entry.is_none() && self.held.is_none() {
            permit.end_older(call).await;
            return false;
        }
        let Some(verified) = call.verify_named(permit.stamp(), &self.list).await else {
            call.resource.counters.fills_refused.add_one();
            permit.end_older(call).await;
            return false;
        };
        if let Some(held) = self.held {
            permit.leader.complete(|| held);
        }
        match new_entry {
            Some(new_entry) => {
                let filled = permit.fill_verified(call, new_entry, Some(verified)).await;
                filled == Some(Filled::Stored)
            }
            None => {
                permit.end_older(call).await;
                false
            }
        }
    }
}
