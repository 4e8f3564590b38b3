//! The store's verbs, each of which is one atomic step: what Lua does in `store/redis/scripts/mod.rs`.

use super::{Variant, Version};
use crate::nonce::{Names, Nonce, Rename};

/// A key that holds an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Key {
    /// `users:1`, which depends on `users`.
    Entity,
    /// `users:2`, another row that depends on the same.
    Other,
    /// `users:list:..`, which depends on `users` and on `users~derived`.
    List,
}

/// A dependency, whose generation lies under a key of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Dep {
    /// `users`.
    Whole,
    /// `users~derived`.
    Derived,
}

impl Key {
    pub(crate) fn deps(self) -> &'static [Dep] {
        match self {
            Self::Entity | Self::Other => &[Dep::Whole],
            Self::List => &[Dep::Whole, Dep::Derived],
        }
    }
}

/// The key and the generations' nonces, as they were read before the function ran; a hash of them
/// in the runtime.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Stamp {
    /// Nothing in a variant.
    pub(crate) key: Option<Key>,
    pub(crate) whole: Nonce,
    pub(crate) derived: Option<Nonce>,
}

impl Rename for Stamp {
    fn rename(&mut self, names: &mut Names) {
        self.whole.rename(names);
        self.derived.rename(names);
    }
}

/// The write intents that stand on a key, by writer. A token in the runtime; here each writer has
/// one.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Intents(u8);

impl Intents {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn of(writer: usize) -> Self {
        Self(1 << writer)
    }

    pub(crate) fn any(self) -> bool {
        self.0 != 0
    }

    pub(crate) fn meets(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    pub(crate) fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(crate) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Takes one's own away. A counter takes one away whosoever it is.
    fn withdraw(self, own: Self, variant: Variant) -> Self {
        if variant == Variant::CountedIntents && !self.meets(own) {
            return Self(self.0 & self.0.wrapping_sub(1));
        }
        self.without(own)
    }
}

/// The value under a generation's key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Generation {
    pub(crate) nonce: Nonce,
    pub(crate) intents: Intents,
}

impl Rename for Generation {
    fn rename(&mut self, names: &mut Names) {
        self.nonce.rename(names);
    }
}

/// The value under an entry's key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Entry {
    /// Somebody loads: a header with a token and without content.
    Leased(Lease),
    /// The value of a row, or of the list, as the database held it at that version.
    Filled {
        stamp: Stamp,
        of: Key,
        version: Version,
    },
    /// Write intents, which an entity's key holds as a generation's does.
    Intended(Intents),
}

impl Rename for Entry {
    fn rename(&mut self, names: &mut Names) {
        match self {
            Self::Leased(lease) => lease.rename(names),
            Self::Filled { stamp, .. } => stamp.rename(names),
            Self::Intended(_) => {}
        }
    }
}

/// What a permit holds, and what the store holds for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Lease {
    pub(crate) token: Nonce,
    pub(crate) stamp: Stamp,
}

impl Rename for Lease {
    fn rename(&mut self, names: &mut Names) {
        self.token.rename(names);
        self.stamp.rename(names);
    }
}

/// Redis.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Store {
    entity: Option<Entry>,
    other: Option<Entry>,
    list: Option<Entry>,
    whole: Option<Generation>,
    derived: Option<Generation>,
}

impl Rename for Store {
    fn rename(&mut self, names: &mut Names) {
        self.whole.rename(names);
        self.derived.rename(names);
        self.entity.rename(names);
        self.other.rename(names);
        self.list.rename(names);
    }
}

impl Store {
    pub(crate) fn entry(&self, key: Key) -> Option<Entry> {
        match key {
            Key::Entity => self.entity,
            Key::Other => self.other,
            Key::List => self.list,
        }
    }

    fn entry_mut(&mut self, key: Key) -> &mut Option<Entry> {
        match key {
            Key::Entity => &mut self.entity,
            Key::Other => &mut self.other,
            Key::List => &mut self.list,
        }
    }

    pub(crate) fn generation(&self, dep: Dep) -> Option<Generation> {
        match dep {
            Dep::Whole => self.whole,
            Dep::Derived => self.derived,
        }
    }

    fn generation_mut(&mut self, dep: Dep) -> &mut Option<Generation> {
        match dep {
            Dep::Whole => &mut self.whole,
            Dep::Derived => &mut self.derived,
        }
    }

    /// `ENSURE`, for one generation: creates it if it is missing, and returns what is there then.
    pub(crate) fn ensure(&mut self, dep: Dep, nonce: Nonce) -> Generation {
        let intents = Intents::NONE;
        *self
            .generation_mut(dep)
            .get_or_insert(Generation { nonce, intents })
    }

    /// `LEASE`: a compare-and-set on what was seen.
    pub(crate) fn lease(&mut self, key: Key, seen: Option<Entry>, lease: Lease) -> bool {
        let there = self.entry_mut(key);
        let granted = *there == seen;
        if granted {
            *there = Some(Entry::Leased(lease));
        }
        granted
    }

    fn is_held(&self, key: Key, token: Nonce) -> bool {
        matches!(self.entry(key), Some(Entry::Leased(lease)) if lease.token == token)
    }

    /// `RELEASE`: without effect if the lease is gone.
    pub(crate) fn release(&mut self, key: Key, token: Nonce) {
        if self.is_held(key, token) {
            *self.entry_mut(key) = None;
        }
    }

    /// `FILL`: a compare-and-set on the token. Returns whether the value is stored.
    pub(crate) fn fill(
        &mut self,
        key: Key,
        lease: Lease,
        version: Version,
        variant: Variant,
    ) -> bool {
        let stored = variant == Variant::PlainSet || self.is_held(key, lease.token);
        if stored {
            let stamp = if variant == Variant::StampAtFill {
                // A value that is set by hand, and stamped with what the generations are by now.
                Stamp {
                    key: lease.stamp.key,
                    whole: self.ensure(Dep::Whole, Nonce::FRESH).nonce,
                    derived: lease
                        .stamp
                        .derived
                        .map(|_| self.ensure(Dep::Derived, Nonce::FRESH_TOO).nonce),
                }
            } else {
                lease.stamp
            };
            *self.entry_mut(key) = Some(Entry::Filled {
                stamp,
                of: key,
                version,
            });
        }
        stored
    }

    /// The first half of `INVALIDATE`: the entry goes, its lease with it. Intents stay.
    pub(crate) fn kill(&mut self, key: Key) {
        let there = self.entry_mut(key);
        if !matches!(there, Some(Entry::Intended(_))) {
            *there = None;
        }
    }

    /// The other half of `INVALIDATE`: a new nonce. Others' intents stay.
    pub(crate) fn bump(&mut self, dep: Dep, nonce: Nonce, variant: Variant) {
        let there = self.generation_mut(dep);
        let intents = match there {
            Some(generation) if variant != Variant::BumpDropsIntents => generation.intents,
            _ => Intents::NONE,
        };
        *there = Some(Generation { nonce, intents });
    }

    /// Puts a write intent on a generation, with a new nonce: what was loaded before can't be
    /// stored alive.
    pub(crate) fn intend(&mut self, dep: Dep, own: Intents, nonce: Nonce) {
        let there = self.generation_mut(dep);
        let others = there.map_or(Intents::NONE, |generation| generation.intents);
        let intents = others.with(own);
        *there = Some(Generation { nonce, intents });
    }

    /// Puts a write intent in an entity's place; what was there goes, its lease with it.
    pub(crate) fn intend_entity(&mut self, own: Intents) {
        let others = match self.entity {
            Some(Entry::Intended(others)) => others,
            _ => Intents::NONE,
        };
        self.entity = Some(Entry::Intended(others.with(own)));
    }

    /// Takes one's own intent from a generation; a new nonce, whether or not the intent was there.
    pub(crate) fn withdraw(&mut self, dep: Dep, own: Intents, nonce: Nonce, variant: Variant) {
        let there = self.generation_mut(dep);
        let intents = there.map_or(Intents::NONE, |generation| {
            generation.intents.withdraw(own, variant)
        });
        *there = Some(Generation { nonce, intents });
    }

    /// Takes one's own intent from an entity's place; the entity goes, whether or not the intent
    /// was there.
    pub(crate) fn withdraw_entity(&mut self, own: Intents, variant: Variant) {
        self.entity = match self.entity {
            Some(Entry::Intended(intents)) => {
                let rest = intents.withdraw(own, variant);
                rest.any().then_some(Entry::Intended(rest))
            }
            _ => None,
        };
    }

    /// Which intents stand on a generation.
    pub(crate) fn intents(&self, dep: Dep) -> Intents {
        self.generation(dep)
            .map_or(Intents::NONE, |generation| generation.intents)
    }

    /// Which intents stand in the entity's place.
    pub(crate) fn entity_intents(&self) -> Intents {
        match self.entity {
            Some(Entry::Intended(intents)) => intents,
            _ => Intents::NONE,
        }
    }

    /// Whoever meets an expired intent removes it, with a new nonce.
    pub(crate) fn prune(&mut self, dep: Dep, expired: Intents, nonce: Nonce) {
        if let Some(generation) = self.generation_mut(dep) {
            generation.intents = generation.intents.without(expired);
            generation.nonce = nonce;
        }
    }

    /// The same in an entity's place.
    pub(crate) fn prune_entity(&mut self, expired: Intents) {
        let rest = self.entity_intents().without(expired);
        self.entity = rest.any().then_some(Entry::Intended(rest));
    }

    /// An entry leaves by its time to live, by its lease's deadline, or for want of memory.
    pub(crate) fn evict(&mut self, key: Key) {
        *self.entry_mut(key) = None;
    }

    /// `COPY from to REPLACE`, by somebody else. Intents are neither copied nor lost: that is a
    /// condition.
    pub(crate) fn copy(&mut self, from: Key, to: Key) -> Option<()> {
        let is_intended = |entry| matches!(entry, Some(Entry::Intended(_)));
        let copied = self.entry(from)?;
        if from == to || is_intended(Some(copied)) || is_intended(self.entry(to)) {
            return None;
        }
        *self.entry_mut(to) = Some(copied);
        Some(())
    }

    /// A generation leaves in the same ways.
    pub(crate) fn evict_generation(&mut self, dep: Dep) {
        *self.generation_mut(dep) = None;
    }
}
