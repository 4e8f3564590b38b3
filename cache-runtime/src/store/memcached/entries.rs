//! Lookups, leases and fills, each over one connection.

use std::time::Duration;

use super::MemcachedStore;
use super::connection::{Connection, Failure, Item, Replaces};
use super::place::StoredEntry;
use super::text::{self, Value, flags};
use crate::protocol::entry::Content;
use crate::protocol::generation::Generation;
use crate::protocol::messages::Payload;
use crate::store::{
    EntryRef, Fill, Filled, Found, Header, LeaseReply, LeaseRequest, LookupReply, Millis, Nonce,
    StampBase,
};

/// How long a generation lives that no fill has extended.
pub(super) const GENERATION_TTL: Duration = Duration::from_secs(24 * 3_600);

impl MemcachedStore {
    /// The value under an entry's key, unless its time is over.
    pub(super) async fn entry(
        &self,
        on: &mut Connection,
        key: &str,
    ) -> Result<StoredEntry, Failure> {
        let key = text::key(key);
        let item = on.get(&key).await?;
        Ok(StoredEntry::of(key, item))
    }

    /// Missing generations are made, or stand for ones that no entry has.
    pub(super) async fn lookup_on(
        &self,
        on: &mut Connection,
        entry_refs: &[EntryRef],
        are_made: bool,
    ) -> Result<Vec<LookupReply>, Failure> {
        let Some(first) = entry_refs.first() else {
            return Ok(Vec::new());
        };
        let mut keys: Vec<_> = entry_refs
            .iter()
            .map(|entry_ref| text::key(&entry_ref.key))
            .collect();
        let epoch = text::epoch_of(&first.deps);
        let deps = first.deps.iter().map(|dep| text::key(dep.key()));
        let generations: Vec<_> = epoch.into_iter().chain(deps).collect();
        keys.extend(generations.iter().cloned());
        let mut items = on.get_many(&keys).await?;
        let found = items.split_off(entry_refs.len());
        let mut nonces = Vec::with_capacity(found.len());
        let mut intents_until = None;
        for (key, item) in generations.iter().zip(found) {
            let known = item.as_ref().map(|item| Generation::parse(&item.bytes));
            let generation = match known.flatten() {
                Some(known) => known,
                None if are_made => self.generation(on, key, item).await?,
                None => Generation {
                    nonce: Nonce::fresh(),
                    intents_until: None,
                },
            };
            nonces.push(generation.nonce);
            intents_until = intents_until.max(generation.intents_until);
        }
        let base = StampBase::of(on.server, nonces);
        let now = self.now();
        let lookups = entry_refs.iter().zip(items).map(|(entry_ref, item)| {
            let value = item.map(|item| Value::of(item.bytes));
            let (found, own) = value.map_or((Found::Nothing, None), |it| it.found(now));
            LookupReply {
                found,
                stamp: base.stamp(&entry_ref.key),
                intents_until: intents_until.max(own),
                now,
            }
        });
        Ok(lookups.collect())
    }

    /// The generation, which is made if there is none.
    pub(super) async fn generation(
        &self,
        on: &mut Connection,
        key: &String,
        mut item: Option<Item>,
    ) -> Result<Generation, Failure> {
        loop {
            let over = match &item {
                None => Replaces::Nothing,
                Some(item) => match Generation::parse(&item.bytes) {
                    Some(generation) => return Ok(generation),
                    // Nothing depends on it.
                    None => Replaces::Version(item.version),
                },
            };
            let nonce = match crate::base::mutation::is_active("memcached-generation-as-before") {
                true => Nonce(1),
                false => Nonce::fresh(),
            };
            let value = nonce.to_string();
            let now = self.now();
            let ttl = text::ttl(now.after(GENERATION_TTL), now);
            let is_made = on.put(key, value.as_bytes(), flags::GENERATION, &ttl, over);
            if is_made.await? {
                return Ok(Generation {
                    nonce,
                    intents_until: None,
                });
            }
            item = on.get(key).await?;
        }
    }

    /// Replaces an entry, or puts one where there is none.
    pub(super) async fn put(
        &self,
        on: &mut Connection,
        place: &StoredEntry,
        header: &Header,
        payload: &[u8],
    ) -> Result<bool, Failure> {
        let ttl = text::ttl(header.deadline.max(header.stale), self.now());
        let bytes = text::entry(header, payload);
        let flags = text::flags_of(header);
        on.put(&place.key, &bytes, flags, &ttl, place.over()).await
    }

    pub(super) async fn lease_on(
        &self,
        on: &mut Connection,
        entry_ref: &EntryRef,
        request: &LeaseRequest,
    ) -> Result<LeaseReply, Failure> {
        loop {
            let place = self.entry(on, &entry_ref.key).await?;
            let now = self.now();
            match &place.value {
                Some(Value::Foreign) => return Ok(LeaseReply::Foreign),
                Some(Value::Intents(_)) => return Ok(LeaseReply::WriteInProgress),
                Some(Value::Entry(there, payload)) if !text::is_over(there, now) => {
                    if there.token == request.token {
                        // An earlier attempt got the lease, and its answer was lost.
                        return Ok(LeaseReply::Granted);
                    }
                    if !request.may_replace(there, now) {
                        return Ok(LeaseReply::Taken(*there));
                    }
                    if let Some(header) = request.header_over(there, now) {
                        if self.put(on, &place, &header, payload).await? {
                            return Ok(LeaseReply::Granted);
                        }
                        continue;
                    }
                }
                _ => {}
            }
            let header = request.header(entry_ref.kind, now);
            if self.put(on, &place, &header, &[]).await? {
                return Ok(LeaseReply::Granted);
            }
        }
    }

    /// Changes the header under a lease; `false` if the lease is gone.
    pub(super) async fn change_on(
        &self,
        on: &mut Connection,
        key: &str,
        token: Nonce,
        length: Option<Duration>,
    ) -> Result<bool, Failure> {
        loop {
            let place = self.entry(on, key).await?;
            let Some((there, payload)) = place.leased(token, self.now()) else {
                return Ok(false);
            };
            let header = match length {
                Some(length) => Header {
                    deadline: self.now().after(length),
                    ..*there
                },
                None => Header {
                    token: Nonce::NONE,
                    deadline: Millis(0),
                    ..*there
                },
            };
            let is_done = match (place.over(), header.content) {
                (Replaces::Version(version), Content::Nothing) if length.is_none() => {
                    on.delete(&place.key, version).await?
                }
                _ => self.put(on, &place, &header, payload).await?,
            };
            if is_done {
                return Ok(true);
            }
        }
    }

    pub(super) async fn fill_on(
        &self,
        on: &mut Connection,
        entry_ref: &EntryRef,
        fill: &Fill,
    ) -> Result<Filled, Failure> {
        loop {
            let place = self.entry(on, &entry_ref.key).await?;
            if place.leased(fill.token, self.now()).is_none()
                && !crate::base::mutation::is_active("memcached-fill-without-lease")
            {
                return Ok(Filled::Refused);
            }
            let header = fill.header(entry_ref.kind, self.now());
            let payload = match &fill.payload {
                Payload::Encoded(bytes) => bytes.as_ref(),
                Payload::Empty | Payload::Decoded(_) => &[],
            };
            if self.put(on, &place, &header, payload).await? {
                break;
            }
        }
        let epoch = text::epoch_of(&entry_ref.deps);
        let deps = entry_ref.deps.iter().map(|dep| text::key(dep.key()));
        let keys: Vec<_> = epoch.into_iter().chain(deps).collect();
        let now = self.now();
        let lives = fill.generation_ttl.max(GENERATION_TTL);
        // If a generation ends sooner, its entries are misses. That is no error of this fill.
        let _ = on.touch(&keys, &text::ttl(now.after(lives), now)).await;
        Ok(Filled::Stored)
    }

    /// Takes leases on keys without a value, in one round trip. Returns for each whether it was
    /// taken.
    pub(super) async fn lease_free_on(
        &self,
        on: &mut Connection,
        requests: &[(&EntryRef, LeaseRequest)],
        length: Duration,
    ) -> Result<Vec<bool>, Failure> {
        let now = self.now();
        let items: Vec<_> = requests
            .iter()
            .map(|(entry_ref, request)| {
                let header = request.header(entry_ref.kind, now);
                (text::key(&entry_ref.key), text::entry(&header, &[]))
            })
            .collect();
        let ttl = text::ttl(now.after(length), now);
        on.add_many(&items, flags::LEASE, &ttl).await
    }
}
