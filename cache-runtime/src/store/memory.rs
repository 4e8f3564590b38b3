//! The in-process store: entries decoded, bounded by bytes.
//!
//! The protocol is the same as over Redis. Entries are bounded and may be evicted at any time.
//! Generations are not evicted: that would cause a miss for all entries that depend on one.

mod intents;
mod kept;
mod packed;
mod stored_entry;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::{
    EntryRef, Fill, Filled, Found, Intent, IntentReply, Invalidated, Invalidation, LeaseReply,
    LeaseRequest, LookupReply, OnEntry, Payload, Representation, ScanFilter, ServerInfo, Store,
    StoreUsage,
};
use crate::base::clock::{self, Millis};
use crate::base::entry_map::EntryMap;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::{Nonce, hash128};
use crate::local::InvalidationFlags;
use crate::protocol::entry::{Content, Header, Stamp};
use crate::protocol::generation::{Dependency, StampBase};

use self::intents::IntentTable;
pub(crate) use self::kept::InMemory;
use self::packed::PackedHeader;
use self::stored_entry::{CurrentGeneration, StoredEntry, UsedGenerations};

/// The memory of an entry besides its key and value: header, reference counts and its share of the
/// table.
const ENTRY_OVERHEAD: usize = 256;

/// Beyond this number, all generations are dropped: every entry becomes a miss, and memory stays
/// bounded.
const MAX_GENERATIONS: usize = 1 << 20;

const LOCKS: usize = 64;

/// How many entries one step of a walk takes.
const STEP: usize = 1_000;

/// Entries of this process alone, bounded by bytes.
pub struct MemoryStore {
    entries: EntryMap<StoredEntry>,
    /// Held during a comparison and the change that it allows. Reads don't take them.
    locks: [Mutex<()>; LOCKS],
    generations: RwLock<HashMap<Box<str>, CurrentGeneration>>,
    /// Not part of the byte limit: an intent is not evicted.
    intents: IntentTable,
    hash_key: [u8; 16],
    /// The flags of the entries that threads keep beside the table. An entry may have been evicted
    /// when it is invalidated, so the table alone can't end it.
    flags: InvalidationFlags,
    /// The weights of these entries.
    kept: Arc<AtomicU64>,
    /// All of them end when it changes.
    epoch: AtomicU64,
    server: Nonce,
    started: Millis,
    /// By how many milliseconds a test has moved this store's clock.
    ahead: Arc<AtomicU64>,
    representation: Representation,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("entries", &self.entries.len())
            .field("bytes", &self.entries.weight())
            .finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// A store that holds up to `max_bytes`: the lengths of the encoded values and their keys, and
    /// a fixed overhead per entry.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self {
            entries: EntryMap::new(max_bytes),
            locks: std::array::from_fn(|_| Mutex::new(())),
            generations: RwLock::default(),
            intents: IntentTable::default(),
            hash_key: Nonce::fresh().0.to_le_bytes(),
            flags: InvalidationFlags::default(),
            kept: Arc::default(),
            epoch: AtomicU64::new(0),
            server: Nonce::fresh(),
            started: clock::wall(),
            ahead: Arc::default(),
            representation: Representation::Decoded,
        }
    }

    /// A store that keeps values encoded, like one on a server.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn encoded(mut self) -> Self {
        self.representation = Representation::Encoded;
        self
    }

    /// A store whose clock is ahead of the process's by this many milliseconds.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn ahead_by(mut self, ahead: Arc<AtomicU64>) -> Self {
        self.ahead = ahead;
        self
    }

    fn now(&self) -> Millis {
        Millis(clock::wall().0 + self.ahead.load(Ordering::Relaxed))
    }

    /// The same at a lower cost, up to one tick of the coarse clock late.
    fn now_or_later(&self) -> Millis {
        Millis(clock::wall_or_later().0 + self.ahead.load(Ordering::Relaxed))
    }

    fn hash(&self, key: &str) -> u128 {
        hash128(&self.hash_key, key.as_bytes())
    }

    fn lock(&self, key: &str) -> MutexGuard<'_, ()> {
        self.locks[self.hash(key) as usize % LOCKS].lock()
    }

    /// The entry under a key, unless it has expired. An expired one stays until it is replaced or
    /// evicted.
    fn get(&self, key: &str) -> Option<Arc<StoredEntry>> {
        let stored = self.entries.get(key)?;
        (self.now() < stored.header.ends()).then_some(stored)
    }

    fn put(
        &self,
        key: &str,
        header: Header,
        (payload, size): (Payload, usize),
        under: Option<Arc<UsedGenerations>>,
    ) {
        let weight = size + key.len() + ENTRY_OVERHEAD;
        self.entries.insert(Arc::new(StoredEntry {
            key: key.into(),
            header: PackedHeader::of(&header),
            payload,
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
            under,
        }));
        self.end_kept(key);
    }

    /// The same entry under another header.
    fn change(&self, stored: &StoredEntry, header: Header) {
        self.entries.insert(Arc::new(StoredEntry {
            key: stored.key.clone(),
            header: PackedHeader::of(&header),
            payload: stored.payload.clone(),
            weight: stored.weight,
            under: stored.under.clone(),
        }));
        self.end_kept(&stored.key);
    }

    fn stamp(&self, entry_ref: &EntryRef) -> Stamp {
        let mut nonces = Vec::with_capacity(entry_ref.deps.len());
        {
            let generations = self.generations.read();
            nonces.extend(
                entry_ref
                    .deps
                    .iter()
                    .map_while(|dep| generations.get(dep.key()).map(|last| last.nonce)),
            );
        }
        if nonces.len() < entry_ref.deps.len() {
            let mut generations = self.generations.write();
            if generations.len() + entry_ref.deps.len() > MAX_GENERATIONS {
                generations.clear();
            }
            nonces.clear();
            nonces.extend(entry_ref.deps.iter().map(|dep| {
                let last = generations.entry(dep.key().into());
                last.or_insert_with(CurrentGeneration::fresh).nonce
            }));
        }
        StampBase::of(self.server, nonces).stamp(&entry_ref.key)
    }

    fn look_under(&self, entry_ref: &EntryRef, stamp: Stamp) -> LookupReply {
        let found = match self.get(&entry_ref.key) {
            Some(stored) => Found::Entry(stored.header.get(), stored.payload.clone()),
            None => Found::Nothing,
        };
        LookupReply {
            found,
            stamp,
            // After the generations, because an announcement adds the intent before it replaces
            // them.
            intents_until: self.intents.last_deadline(probe_keys(entry_ref)),
            now: self.now(),
        }
    }

    /// The generations that belong to this stamp, if they are current.
    fn under(&self, entry_ref: &EntryRef, stamp: Stamp) -> Option<Arc<UsedGenerations>> {
        let generations = self.generations.read();
        let last = entry_ref.deps.iter().map(|dep| generations.get(dep.key()));
        let last: Vec<_> = last.collect::<Option<_>>()?;
        let nonces = last.iter().map(|last| last.nonce);
        if Stamp::of(self.server, &entry_ref.key, nonces) != stamp {
            return None;
        }
        let mut used = last.first()?.used.lock();
        let known = used
            .upgrade()
            .filter(|known| *known.deps == *entry_ref.deps && known.is_current());
        Some(known.unwrap_or_else(|| {
            let new = Arc::new(UsedGenerations {
                deps: Arc::clone(&entry_ref.deps),
                flags: last.iter().map(|last| Arc::clone(&last.flag)).collect(),
            });
            *used = Arc::downgrade(&new);
            new
        }))
    }

    /// Adds an intent, or extends it; returns the keys that did not have it.
    fn announce<'i>(&self, intent: &'i Intent) -> Vec<&'i str> {
        // Like a reader that finds an expired intent does. The key of a row has no generation.
        self.intents
            .announce(intent, self.now(), |key| self.rotate(key))
    }

    fn delete_entry(&self, key: &str) -> bool {
        let _guard = self.lock(key);
        self.remove(key)
    }

    /// Removes the entry if it is one of these; it may have been replaced.
    fn remove_if(&self, key: &str, filter: &ScanFilter) -> bool {
        let _guard = self.lock(key);
        let held = self.holds_content(key);
        let removed = self
            .entries
            .remove_if(key.as_bytes(), |stored| stored.fits(filter));
        self.end_kept(key);
        held && removed
    }

    /// Removes an entry whose lock is held; returns whether it had content.
    fn remove(&self, key: &str) -> bool {
        let held = self.holds_content(key);
        self.entries.remove_if(key.as_bytes(), |_| true);
        self.end_kept(key);
        held
    }

    fn holds_content(&self, key: &str) -> bool {
        self.get(key)
            .is_some_and(|stored| stored.header.content != Content::Nothing)
    }

    /// A missing generation is unknown: the next caller that needs it creates one with a new nonce.
    fn rotate(&self, key: &str) {
        self.rotate_all([key]);
    }

    /// Replaces these generations at once: who finds one of them new finds all of them new.
    fn rotate_all<'k>(&self, keys: impl IntoIterator<Item = &'k str>) {
        let mut generations = self.generations.write();
        for key in keys {
            generations.remove(key);
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "local"
    }

    fn representation(&self) -> Representation {
        self.representation
    }

    fn is_in_process(&self) -> bool {
        true
    }

    #[inline]
    fn try_lookup(&self, key: &str, deps: &[Arc<Dependency>], on_entry: OnEntry<'_>) {
        self.entries.lookup(key.as_bytes(), |stored| {
            // If a write is announced, there is no entry under the current generations: the
            // announcement ended those before it, and nothing is stored under those after it.
            if stored.is_under(deps) {
                on_entry(&stored.header.get(), &stored.payload, self.now_or_later());
            }
        });
    }

    async fn lookup(&self, entry_ref: &EntryRef) -> Result<LookupReply, Error> {
        Ok(self.look_under(entry_ref, self.stamp(entry_ref)))
    }

    async fn examine(&self, entry_ref: &EntryRef) -> Result<LookupReply, Error> {
        let nonces: Vec<_> = {
            let generations = self.generations.read();
            let last = entry_ref.deps.iter().map(|dep| generations.get(dep.key()));
            last.map(|last| last.map_or_else(Nonce::fresh, |last| last.nonce))
                .collect()
        };
        let stamp = StampBase::of(self.server, nonces).stamp(&entry_ref.key);
        Ok(self.look_under(entry_ref, stamp))
    }

    async fn lease(
        &self,
        entry_ref: &EntryRef,
        request: &LeaseRequest,
    ) -> Result<LeaseReply, Error> {
        let _guard = self.lock(&entry_ref.key);
        if self
            .intents
            .last_deadline([entry_ref.key.as_str()])
            .is_some()
        {
            return Ok(LeaseReply::WriteInProgress);
        }
        let now = self.now();
        if let Some(stored) = self.get(&entry_ref.key) {
            let there = stored.header.get();
            if !request.may_replace(&there, now) {
                return Ok(LeaseReply::Taken(there));
            }
            if let Some(header) = request.header_over(&there, now) {
                self.change(&stored, header);
                return Ok(LeaseReply::Granted);
            }
        }
        let header = request.header(entry_ref.kind, now);
        self.put(&entry_ref.key, header, (Payload::Empty, 0), None);
        Ok(LeaseReply::Granted)
    }

    async fn renew(&self, key: &str, token: Nonce, length: Duration) -> Result<bool, Error> {
        let _guard = self.lock(key);
        let Some(stored) = self.get(key).filter(|it| it.header.token() == token) else {
            return Ok(false);
        };
        let header = Header {
            deadline: self.now().after(length),
            ..stored.header.get()
        };
        self.change(&stored, header);
        Ok(true)
    }

    async fn release(&self, key: &str, token: Nonce) -> Result<(), Error> {
        let _guard = self.lock(key);
        if let Some(stored) = self.get(key).filter(|it| it.header.token() == token) {
            if stored.header.content == Content::Nothing {
                self.remove(key);
            } else {
                let header = Header {
                    token: Nonce::NONE,
                    deadline: Millis(0),
                    ..stored.header.get()
                };
                self.change(&stored, header);
            }
        }
        Ok(())
    }

    async fn fill(&self, entry_ref: &EntryRef, fill: Fill) -> Result<Filled, Error> {
        let _guard = self.lock(&entry_ref.key);
        if self
            .get(&entry_ref.key)
            .is_none_or(|stored| stored.header.token() != fill.token)
        {
            return Ok(Filled::Refused);
        }
        if fill.content == Content::Nothing {
            self.remove(&entry_ref.key);
            return Ok(Filled::Stored);
        }
        let limit = self.entries.max_entry_weight();
        if fill.size as u64 > limit {
            self.remove(&entry_ref.key);
            let size = fill.size;
            return Err(Error::new(
                ErrorKind::Unstorable,
                format!(
                    "the value takes {size} bytes; one entry may take {limit}, a share of \
                     `CACHE_LOCAL_MB`"
                ),
            ));
        }
        let header = fill.header(entry_ref.kind, self.now());
        let under = self.under(entry_ref, fill.stamp);
        let value = (fill.payload, fill.size);
        self.put(&entry_ref.key, header, value, under);
        Ok(Filled::Stored)
    }

    async fn intend(&self, intent: &Intent) -> Result<IntentReply, Error> {
        // In this order, so that a reader of the new generations sees the intent.
        self.announce(intent);
        for row in &intent.rows {
            self.delete_entry(&row.key);
        }
        self.rotate_all(intent.deps.iter().map(|dep| dep.key()));
        Ok(intended_at(self.now()))
    }

    async fn renew_intent(&self, intent: &Intent) -> Result<IntentReply, Error> {
        for key in self.announce(intent) {
            // Only one of the two matches the kind of key; the other does nothing.
            self.delete_entry(key);
            self.rotate(key);
        }
        Ok(intended_at(self.now()))
    }

    async fn prune(&self, entry_ref: &EntryRef) -> Result<(), Error> {
        let now = self.now();
        let is_over = |_, deadline| deadline <= now;
        for dep in entry_ref.deps.iter() {
            if self.intents.has_expired(dep.key(), now) {
                self.rotate(dep.key());
            }
        }
        self.intents.end(probe_keys(entry_ref), is_over);
        Ok(())
    }

    async fn invalidate(&self, invalidation: &Invalidation) -> Result<Invalidated, Error> {
        let removed = invalidation
            .deletes
            .iter()
            .filter(|key| self.delete_entry(key))
            .count();
        // After the entries, and all at once. A list that is loaded under a new generation would
        // outlive an entry that it was made of.
        self.rotate_all(invalidation.rotates.iter().map(|dep| dep.key()));
        if !self.intents.is_empty() {
            // Also expired intents, since perhaps nobody reads their keys again. This comes last:
            // until then nothing is stored that depends on the new generations.
            let deletes = invalidation.deletes.iter().map(String::as_str);
            let keys = deletes.chain(invalidation.rotates.iter().map(|dep| dep.key()));
            let now = self.now();
            self.intents.end(keys, |token, deadline| {
                deadline <= now || invalidation.ends.contains(&token)
            });
        }
        Ok(Invalidated {
            at: self.now(),
            removed: removed as u64,
        })
    }

    async fn remove_matching(&self, filter: &ScanFilter) -> Result<u64, Error> {
        if filter
            .unless_larger_than
            .is_some_and(|limit| self.entries.len() as u64 > limit)
        {
            return Ok(0);
        }
        let mut removed = 0;
        let mut walk = self.entries.iter();
        loop {
            let step: Vec<_> = walk.by_ref().take(STEP).collect();
            let fitting = step.iter().filter(|stored| stored.fits(filter));
            removed += fitting
                .filter(|stored| self.remove_if(&stored.key, filter))
                .count() as u64;
            if step.len() < STEP {
                self.end_all_kept(filter);
                return Ok(removed);
            }
            // Other tasks have waited: on the cache's own thread these are the invalidations.
            tokio::task::yield_now().await;
        }
    }

    async fn invalidate_namespace(&self, namespace: &str) -> Result<Millis, Error> {
        // A missing generation is unknown: every entry that depended on one of these is a miss from
        // here on.
        let own = format!("{namespace}@gen:");
        self.generations
            .write()
            .retain(|key, _| !key.starts_with(&own));
        Ok(self.now())
    }

    fn usage(&self) -> Option<StoreUsage> {
        Some(StoreUsage {
            entries: self.entries.len() as u64,
            bytes: self.entries.weight(),
            evictions: self.entries.evictions(),
        })
    }

    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn server_info(&self) -> Result<ServerInfo, Error> {
        Ok(ServerInfo {
            total_keys: Some(self.entries.len() as u64),
            used_memory: Some(human_bytes(self.entries.weight())),
            uptime_seconds: Some(self.now().since(self.started).as_secs()),
            connected_clients: Some(1),
            nodes: Vec::new(),
        })
    }
}

fn probe_keys(entry_ref: &EntryRef) -> impl Iterator<Item = &str> {
    std::iter::once(entry_ref.key.as_str()).chain(entry_ref.deps.iter().map(|dep| dep.key()))
}

fn intended_at(at: Millis) -> IntentReply {
    IntentReply {
        at,
        // No other program keeps values here.
        on_whole: false,
    }
}

/// Bytes as Redis writes them for people: `0B`, `1.50K`, `2.00M`.
fn human_bytes(bytes: u64) -> String {
    let units = ["K", "M", "G", "T"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut scaled = bytes as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.2}{}", units[unit])
}

#[cfg(test)]
mod tests;
