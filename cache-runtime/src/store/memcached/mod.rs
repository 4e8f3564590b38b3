//! Memcached as a store, by its meta commands alone.
//!
//! The protocol is that of Redis, with `cas` in place of scripts: a change reads what is there, and
//! replaces just that version, or begins again. There is one more generation, that of the
//! namespace, because Memcached can't list its keys. What it can't do at all is said by
//! [`Store::lists_keys`] and [`Store::survey`].
//!
//! | | |
//! |---|---|
//! | entry | under its key, with a lease in its header, as in Redis |
//! | generation | deleted when it is replaced: a missing one is made anew, from a random number |
//! | announced write | in the generation's value, and in place of the row's entry |
//! | time | the server's, known to a second (`clock.rs`) |

mod clock;
mod connection;
mod link;
mod text;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use tokio::runtime::Handle;

use self::connection::{Connection, Failure, Item, Over};
use self::link::Link;
use self::text::{Intents, Value, flags};
use super::{
    Circuit, ConnectionWatch, Dep, Fill, Filled, Form, Found, Header, Inquiry, Intended, Intent,
    IntentRow, Invalidated, Invalidation, LeaseReply, LeaseRequest, Look, Matching, Millis, Nonce,
    Probe, Seen, ServerFacts, StampBase, Store, Survey,
};
use crate::base::error::{Error, ErrorKind};
use crate::config::{CacheConfig, MemcachedConfig};
use crate::protocol::entry::Content;
use crate::protocol::generation::Generation;
use crate::protocol::messages::Payload;

/// How many keys go with one round trip.
const STEP: usize = 256;
/// How many keys one operation changes. A change is a round trip for each key, and all of them have
/// one command budget.
const CHANGES: usize = 8;
/// How many such operations run at a time.
const AT_A_TIME: usize = 8;
/// How long a generation lives that no fill has extended.
const GENERATION_TTL: Duration = Duration::from_secs(24 * 3_600);
/// How far two processes may differ about the server's time, which it tells in seconds. An intent
/// stands so much longer.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// Entries in a Memcached that several processes share.
pub struct MemcachedStore {
    link: Arc<Link>,
}

impl fmt::Debug for MemcachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedStore")
            .field("circuit", &self.link.circuit())
            .finish_non_exhaustive()
    }
}

impl Drop for MemcachedStore {
    fn drop(&mut self) {
        self.link.close();
    }
}

impl MemcachedStore {
    /// Connects to the server, and goes on trying if it is away. Returns when the first attempt has
    /// ended. Connections are driven by `runtime`.
    pub async fn connect(
        memcached: &MemcachedConfig,
        config: &CacheConfig,
        runtime: &Handle,
    ) -> Self {
        let link = Link::start(memcached, config.command_budget, runtime).await;
        Self { link }
    }

    fn now(&self) -> Millis {
        self.link.clock.now()
    }

    /// What lies under an entry's key, unless its time is over.
    async fn entry(&self, on: &mut Connection, key: &str) -> Result<Place, Failure> {
        let key = text::key(key);
        let item = on.get(&key).await?;
        Ok(Place::of(key, item))
    }

    /// Missing generations are made, or stand for ones that no entry has.
    async fn look_on(
        &self,
        on: &mut Connection,
        probes: &[Probe],
        are_made: bool,
    ) -> Result<Vec<Look>, Failure> {
        let Some(first) = probes.first() else {
            return Ok(Vec::new());
        };
        let mut keys: Vec<_> = probes.iter().map(|probe| text::key(&probe.key)).collect();
        let epoch = text::epoch_of(&first.deps);
        let deps = first.deps.iter().map(|dep| text::key(dep.key()));
        let generations: Vec<_> = epoch.into_iter().chain(deps).collect();
        keys.extend(generations.iter().cloned());
        let mut items = on.get_many(&keys).await?;
        let found = items.split_off(probes.len());
        let mut nonces = Vec::with_capacity(found.len());
        let mut intended = None;
        for (key, item) in generations.iter().zip(found) {
            let known = item.as_ref().map(|item| Generation::parse(&item.bytes));
            let generation = match known.flatten() {
                Some(known) => known,
                None if are_made => self.generation(on, key, item).await?,
                None => Generation {
                    nonce: Nonce::fresh(),
                    intended: None,
                },
            };
            nonces.push(generation.nonce);
            intended = intended.max(generation.intended);
        }
        let base = StampBase::of(on.server, nonces);
        let now = self.now();
        let looks = probes.iter().zip(items).map(|(probe, item)| {
            let value = item.map(|item| Value::of(item.bytes));
            let (found, own) = value.map_or((Found::Nothing, None), |it| it.found(now));
            Look {
                found,
                stamp: base.stamp(&probe.key),
                intended: intended.max(own),
                now,
            }
        });
        Ok(looks.collect())
    }

    /// The generation, which is made if there is none.
    async fn generation(
        &self,
        on: &mut Connection,
        key: &String,
        mut item: Option<Item>,
    ) -> Result<Generation, Failure> {
        loop {
            let over = match &item {
                None => Over::Nothing,
                Some(item) => match Generation::parse(&item.bytes) {
                    Some(generation) => return Ok(generation),
                    // Nothing depends on it.
                    None => Over::Version(item.version),
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
                    intended: None,
                });
            }
            item = on.get(key).await?;
        }
    }

    /// Replaces an entry, or puts one where there is none.
    async fn put(
        &self,
        on: &mut Connection,
        place: &Place,
        header: &Header,
        payload: &[u8],
    ) -> Result<bool, Failure> {
        let ttl = text::ttl(header.deadline.max(header.stale), self.now());
        let bytes = text::entry(header, payload);
        let flags = text::flags_of(header);
        on.put(&place.key, &bytes, flags, &ttl, place.over()).await
    }

    async fn lease_on(
        &self,
        on: &mut Connection,
        probe: &Probe,
        request: &LeaseRequest,
    ) -> Result<LeaseReply, Failure> {
        loop {
            let place = self.entry(on, &probe.key).await?;
            let now = self.now();
            match &place.value {
                Some(Value::Foreign) => return Ok(LeaseReply::Foreign),
                Some(Value::Intents(_)) => return Ok(LeaseReply::Intended),
                Some(Value::Entry(there, payload)) if !text::is_over(there, now) => {
                    if there.token == request.token {
                        // An earlier attempt has got it, and its answer was lost.
                        return Ok(LeaseReply::Granted);
                    }
                    if !gives_way(there, &request.seen, now) {
                        return Ok(LeaseReply::Taken(*there));
                    }
                    let keeps = matches!(request.seen, Seen::Past(_) | Seen::Leased)
                        && there.stays_under(request.stamp, request.fingerprint);
                    if keeps {
                        let header = Header {
                            token: request.token,
                            deadline: now.after(request.length),
                            ..*there
                        };
                        if self.put(on, &place, &header, payload).await? {
                            return Ok(LeaseReply::Granted);
                        }
                        continue;
                    }
                }
                _ => {}
            }
            let header = request.header(probe.kind, now);
            if self.put(on, &place, &header, &[]).await? {
                return Ok(LeaseReply::Granted);
            }
        }
    }

    /// Changes the header under a lease; `false` if the lease is gone.
    async fn change_on(
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
                (Over::Version(version), Content::Nothing) if length.is_none() => {
                    on.delete(&place.key, version).await?
                }
                _ => self.put(on, &place, &header, payload).await?,
            };
            if is_done {
                return Ok(true);
            }
        }
    }

    async fn fill_on(
        &self,
        on: &mut Connection,
        probe: &Probe,
        fill: &Fill,
    ) -> Result<Filled, Failure> {
        loop {
            let place = self.entry(on, &probe.key).await?;
            if place.leased(fill.token, self.now()).is_none()
                && !crate::base::mutation::is_active("memcached-fill-without-lease")
            {
                return Ok(Filled::Refused);
            }
            let header = fill.header(probe.kind, self.now());
            let payload = match &fill.payload {
                Payload::Encoded(bytes) => bytes.as_ref(),
                Payload::Empty | Payload::Decoded(_) => &[],
            };
            if self.put(on, &place, &header, payload).await? {
                break;
            }
        }
        let epoch = text::epoch_of(&probe.deps);
        let deps = probe.deps.iter().map(|dep| text::key(dep.key()));
        let keys: Vec<_> = epoch.into_iter().chain(deps).collect();
        let now = self.now();
        let lives = fill.generation_ttl.max(GENERATION_TTL);
        // A generation that ends sooner is a miss, and no error of this fill.
        let _ = on.touch(&keys, &text::ttl(now.after(lives), now)).await;
        Ok(Filled::Stored)
    }

    /// Announces a write; whether it stands at whole resources in place of rows.
    async fn announce(&self, intent: &Intent, renews: bool) -> Result<bool, Error> {
        let rows = intent.rows.chunks(steps_of(CHANGES));
        let rows = rows.map(|rows| self.announce_rows(intent, rows, renews));
        let wholes = in_steps(rows.collect()).await?.concat();
        for deps in intent
            .deps
            .chunk_by(|dep, next| dep.is_of_row() && next.is_of_row())
        {
            let deps = deps.chunks(steps_of(CHANGES));
            let deps = deps.map(|deps| self.announce_deps(intent, deps, renews));
            in_steps(deps.collect()).await?;
        }
        Ok(!wholes.is_empty())
    }

    /// Announces a write at rows. Returns the generations of those resources at which it stands
    /// instead, since a foreign value is under a row's key.
    fn announce_rows<'a>(
        &'a self,
        intent: &'a Intent,
        rows: &'a [IntentRow],
        renews: bool,
    ) -> BoxFuture<'a, Result<Vec<Arc<Dep>>, Error>> {
        Box::pin(self.link.run_write(move |mut on| async move {
            let mut wholes = Vec::new();
            for row in rows {
                match self.announce_row(&mut on, intent, &row.key, renews).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(failure) => return (on, Err(failure)),
                }
                let whole = self.announce_dep(&mut on, intent, &row.whole, renews);
                if let Err(failure) = whole.await {
                    return (on, Err(failure));
                }
                wholes.push(Arc::clone(&row.whole));
            }
            (on, Ok(wholes))
        }))
    }

    fn announce_deps<'a>(
        &'a self,
        intent: &'a Intent,
        deps: &'a [Arc<Dep>],
        renews: bool,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.link.run_write(move |mut on| async move {
            for dep in deps {
                if let Err(failure) = self.announce_dep(&mut on, intent, dep, renews).await {
                    return (on, Err(failure));
                }
            }
            (on, Ok(()))
        }))
    }

    fn kill<'a>(
        &'a self,
        keys: &'a [String],
        ended: &'a HashSet<Nonce>,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(self.link.run_write(move |mut on| async move {
            let killed = self.kill_on(&mut on, keys, ended).await;
            (on, killed)
        }))
    }

    fn bump<'a>(
        &'a self,
        deps: &'a [Arc<Dep>],
        ended: &'a HashSet<Nonce>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.link.run_write(move |mut on| async move {
            let bumped = self.bump_on(&mut on, deps, ended).await;
            (on, bumped)
        }))
    }

    /// Announces a write at a row; `false` if a foreign value is there.
    async fn announce_row(
        &self,
        on: &mut Connection,
        intent: &Intent,
        key: &str,
        renews: bool,
    ) -> Result<bool, Failure> {
        loop {
            let place = self.entry(on, key).await?;
            let text = match &place.value {
                Some(Value::Foreign) => return Ok(false),
                Some(Value::Intents(text)) => text.as_str(),
                _ => "",
            };
            let (intents, _) = self.with_own(text, intent, renews);
            let ttl = self.intents_ttl(&intents, Duration::ZERO);
            let value = text::row_intents(&intents.text);
            let put = on.put(
                &place.key,
                value.as_bytes(),
                flags::INTENTS,
                &ttl,
                place.over(),
            );
            if put.await? {
                return Ok(true);
            }
        }
    }

    /// Announces a write at a generation, which is replaced, unless the write stood there already
    /// and is only to be renewed.
    async fn announce_dep(
        &self,
        on: &mut Connection,
        intent: &Intent,
        dep: &Dep,
        renews: bool,
    ) -> Result<(), Failure> {
        let key = text::key(dep.key());
        loop {
            let item = on.get(&key).await?;
            let known = item
                .as_ref()
                .and_then(|item| Generation::parse(&item.bytes));
            let text = item
                .as_ref()
                .map_or("", |item| text::behind_nonce(&item.bytes));
            let (intents, stood) = self.with_own(text, intent, renews);
            let nonce = match known {
                Some(generation) if stood => generation.nonce,
                _ => Nonce::fresh(),
            };
            let ttl = self.intents_ttl(&intents, GENERATION_TTL);
            let value = format!("{nonce}{}", intents.text);
            let over = item.map_or(Over::Nothing, |item| Over::Version(item.version));
            let put = on.put(&key, value.as_bytes(), flags::GENERATION, &ttl, over);
            if put.await? {
                return Ok(());
            }
        }
    }

    /// The intents of a text and this one, and whether this one was in it and is only renewed.
    fn with_own(&self, text: &str, intent: &Intent, renews: bool) -> (Intents, bool) {
        let now = self.now();
        let own = text::kept(text, |token, _| token == intent.token);
        let stood = renews && own.last.is_some();
        let mut intents = text::kept(text, |token, deadline| {
            token != intent.token && (stood || !text::has_ended((token, deadline), now))
        });
        let length = intent.length + CLOCK_STEP;
        intents.add(intent.token, now.after(length), length);
        (intents, stood)
    }

    fn intents_ttl(&self, intents: &Intents, at_least: Duration) -> String {
        let now = self.now();
        let last = intents.last.unwrap_or(now).after(CLOCK_STEP);
        text::ttl(last.max(now.after(at_least)), now)
    }

    /// Ends the intents at a row that `stays` does not name.
    async fn end_at_row(
        &self,
        on: &mut Connection,
        key: &str,
        stays: impl Fn(Nonce, Millis) -> bool,
    ) -> Result<(), Failure> {
        loop {
            let place = self.entry(on, key).await?;
            let (Some(Value::Intents(text)), Over::Version(version)) = (&place.value, place.over())
            else {
                return Ok(());
            };
            let rest = text::kept(text, &stays);
            let is_done = if rest.text.is_empty() {
                on.delete(&place.key, version).await?
            } else if rest.has_lost {
                let ttl = self.intents_ttl(&rest, Duration::ZERO);
                let value = text::row_intents(&rest.text);
                on.put(
                    &place.key,
                    value.as_bytes(),
                    flags::INTENTS,
                    &ttl,
                    place.over(),
                )
                .await?
            } else {
                true
            };
            if is_done {
                return Ok(());
            }
        }
    }

    /// Replaces a generation. The intents on it that `stays` names stay.
    async fn replace(
        &self,
        on: &mut Connection,
        key: &String,
        mut item: Option<Item>,
        stays: impl Fn(Nonce, Millis) -> bool,
    ) -> Result<(), Failure> {
        while let Some(there) = item {
            let rest = text::kept(text::behind_nonce(&there.bytes), &stays);
            // Missing is unknown: whoever needs it next makes one that was never there. To delete
            // needs no memory, so a full server can't refuse it.
            let is_done = if rest.text.is_empty() {
                on.delete(key, there.version).await?
            } else {
                let ttl = self.intents_ttl(&rest, GENERATION_TTL);
                let value = format!("{}{}", Nonce::fresh(), rest.text);
                let over = Over::Version(there.version);
                on.put(key, value.as_bytes(), flags::GENERATION, &ttl, over)
                    .await?
            };
            if is_done {
                return Ok(());
            }
            item = on.get(key).await?;
        }
        Ok(())
    }

    async fn prune_on(&self, on: &mut Connection, probe: &Probe) -> Result<(), Failure> {
        let stays = |token, deadline| !text::has_ended((token, deadline), self.now());
        self.end_at_row(on, &probe.key, stays).await?;
        let keys: Vec<_> = probe.deps.iter().map(|dep| text::key(dep.key())).collect();
        let items = on.get_many(&keys).await?;
        for (key, item) in keys.iter().zip(items) {
            let has_ended =
                |item: &Item| text::kept(text::behind_nonce(&item.bytes), stays).has_lost;
            if item.as_ref().is_some_and(has_ended) {
                self.replace(on, key, item, stays).await?;
            }
        }
        Ok(())
    }

    /// Removes the entries under these keys; returns how many had content.
    async fn kill_on(
        &self,
        on: &mut Connection,
        keys: &[String],
        ended: &HashSet<Nonce>,
    ) -> Result<u64, Failure> {
        let names: Vec<_> = keys.iter().map(|key| text::key(key)).collect();
        let mut removed = 0;
        for ((key, name), shape) in keys.iter().zip(&names).zip(on.shapes(&names).await?) {
            let mut shape = shape;
            while let Some(there) = shape {
                let is_done = match there.flags {
                    flags::ENTRY | flags::LEASE => on.delete(name, there.version).await?,
                    flags::INTENTS => {
                        let stays = |token, deadline| {
                            !ended.contains(&token)
                                && !text::has_ended((token, deadline), self.now())
                        };
                        self.end_at_row(on, key, stays).await?;
                        true
                    }
                    _ => true,
                };
                if is_done {
                    removed += u64::from(there.flags == flags::ENTRY);
                    break;
                }
                let again = on.shapes(std::slice::from_ref(name)).await?;
                shape = again.into_iter().next().flatten();
            }
        }
        Ok(removed)
    }

    async fn bump_on(
        &self,
        on: &mut Connection,
        deps: &[Arc<Dep>],
        ended: &HashSet<Nonce>,
    ) -> Result<(), Failure> {
        if crate::base::mutation::is_active("memcached-generation-stays") {
            return Ok(());
        }
        let stays = |token, deadline| {
            !ended.contains(&token) && !text::has_ended((token, deadline), self.now())
        };
        let keys: Vec<_> = deps.iter().map(|dep| text::key(dep.key())).collect();
        let items = on.get_many(&keys).await?;
        for (key, item) in keys.iter().zip(items) {
            self.replace(on, key, item, stays).await?;
        }
        Ok(())
    }

    /// Takes the places where nothing is, in one round trip; says for each whether it was taken.
    async fn lease_free_on(
        &self,
        on: &mut Connection,
        requests: &[(&Probe, LeaseRequest)],
        length: Duration,
    ) -> Result<Vec<bool>, Failure> {
        let now = self.now();
        let items: Vec<_> = requests
            .iter()
            .map(|(probe, request)| {
                let header = request.header(probe.kind, now);
                (text::key(&probe.key), text::entry(&header, &[]))
            })
            .collect();
        let ttl = text::ttl(now.after(length), now);
        on.add_many(&items, flags::LEASE, &ttl).await
    }
}

/// An entry's key, as Memcached takes it, and what lies there.
struct Place {
    key: String,
    value: Option<Value>,
    version: u64,
}

impl Place {
    fn of(key: String, item: Option<Item>) -> Self {
        match item {
            None => Self {
                key,
                value: None,
                version: 0,
            },
            Some(item) => Self {
                key,
                value: Some(Value::of(item.bytes)),
                version: item.version,
            },
        }
    }

    fn over(&self) -> Over {
        match self.value {
            None => Over::Nothing,
            Some(_) => Over::Version(self.version),
        }
    }

    /// The entry, if it is leased under this token.
    fn leased(&self, token: Nonce, now: Millis) -> Option<(&Header, &[u8])> {
        match &self.value {
            Some(Value::Entry(header, payload))
                if header.token == token && !text::is_over(header, now) =>
            {
                Some((header, payload))
            }
            _ => None,
        }
    }
}

/// Whether what is there may be replaced by one who has seen `seen`.
fn gives_way(there: &Header, seen: &Seen, now: Millis) -> bool {
    let is_over = there.is_leased() && there.deadline < now;
    is_over
        || match seen {
            Seen::Anything => true,
            // Whoever holds the lease may have renewed it since.
            Seen::Entry(seen) | Seen::Past(seen) => {
                Header {
                    deadline: there.deadline,
                    ..*seen
                } == *there
            }
            Seen::Nothing | Seen::Leased => false,
        }
}

#[async_trait]
impl Store for MemcachedStore {
    fn name(&self) -> &'static str {
        "memcached"
    }

    fn form(&self) -> Form {
        Form::Encoded
    }

    fn circuit(&self) -> Circuit {
        self.link.circuit()
    }

    fn reason(&self) -> Option<String> {
        self.link.reason()
    }

    fn connection(&self) -> Option<ConnectionWatch> {
        Some(self.link.watch.clone())
    }

    fn lists_keys(&self) -> bool {
        false
    }

    async fn look(&self, probe: &Probe) -> Result<Look, Error> {
        let probes = std::slice::from_ref(probe);
        let looks = self.link.run(|mut on| async move {
            let looks = self.look_on(&mut on, probes, true).await;
            (on, looks)
        });
        let look = looks.await?.pop();
        look.ok_or_else(|| Error::new(ErrorKind::Store, "Memcached was asked for nothing"))
    }

    async fn examine(&self, probe: &Probe) -> Result<Look, Error> {
        let probes = std::slice::from_ref(probe);
        let looks = self.link.run(|mut on| async move {
            let looks = self.look_on(&mut on, probes, false).await;
            (on, looks)
        });
        let look = looks.await?.pop();
        look.ok_or_else(|| Error::new(ErrorKind::Store, "Memcached was asked for nothing"))
    }

    async fn look_many(&self, probes: &[Probe]) -> Result<Vec<Look>, Error> {
        let mut looks = Vec::with_capacity(probes.len());
        for step in probes.chunks(STEP) {
            let found = self.link.run(|mut on| async move {
                let looks = self.look_on(&mut on, step, true).await;
                (on, looks)
            });
            looks.extend(found.await?);
        }
        Ok(looks)
    }

    async fn lease(&self, probe: &Probe, request: &LeaseRequest) -> Result<LeaseReply, Error> {
        let leased = self.link.run(|mut on| async move {
            let reply = self.lease_on(&mut on, probe, request).await;
            (on, reply)
        });
        leased.await
    }

    async fn lease_many(
        &self,
        requests: &[(&Probe, LeaseRequest)],
    ) -> Result<Vec<LeaseReply>, Error> {
        let mut replies = Vec::with_capacity(requests.len());
        for step in requests.chunks(STEP) {
            let Some((_, first)) = step.first() else {
                continue;
            };
            let can_be_free = step.iter().all(|(_, request)| {
                matches!(request.seen, Seen::Nothing) && request.length == first.length
            });
            let taken = match can_be_free {
                true => {
                    let taken = self.link.run(|mut on| async move {
                        let taken = self.lease_free_on(&mut on, step, first.length).await;
                        (on, taken)
                    });
                    taken.await?
                }
                false => vec![false; step.len()],
            };
            let others = step.iter().zip(&taken).filter(|(_, is_taken)| !**is_taken);
            let others = others.map(|((probe, request), _)| self.lease(probe, request));
            let mut others = in_steps(others.collect()).await?.into_iter();
            replies.extend(taken.into_iter().map_while(|is_taken| match is_taken {
                true => Some(LeaseReply::Granted),
                false => others.next(),
            }));
        }
        Ok(replies)
    }

    async fn renew_many(&self, leases: &[(String, Nonce)], length: Duration) -> Result<(), Error> {
        let renewals = leases
            .iter()
            .map(|(key, token)| self.renew(key, *token, length));
        in_steps(renewals.collect()).await.map(drop)
    }

    async fn renew(&self, key: &str, token: Nonce, length: Duration) -> Result<bool, Error> {
        let renewed = self.link.run_write(|mut on| async move {
            let renewed = self.change_on(&mut on, key, token, Some(length)).await;
            (on, renewed)
        });
        renewed.await
    }

    async fn release(&self, key: &str, token: Nonce) -> Result<(), Error> {
        let released = self.link.run(|mut on| async move {
            let released = self.change_on(&mut on, key, token, None).await;
            (on, released)
        });
        released.await.map(drop)
    }

    async fn fill(&self, probe: &Probe, fill: Fill) -> Result<Filled, Error> {
        let fill = &fill;
        let filled = self.link.run(|mut on| async move {
            let filled = self.fill_on(&mut on, probe, fill).await;
            (on, filled)
        });
        filled.await
    }

    async fn fill_many(&self, fills: Vec<(&Probe, Fill)>) -> Result<Vec<Filled>, Error> {
        let fills = fills.into_iter().map(|(probe, fill)| async move {
            match self.fill(probe, fill).await {
                Err(error) if error.kind() == ErrorKind::Unstorable => Ok(Filled::Refused),
                answer => answer,
            }
        });
        in_steps(fills.map(|it| Box::pin(it) as BoxFuture<'_, _>).collect()).await
    }

    async fn intend(&self, intent: &Intent) -> Result<Intended, Error> {
        let on_whole = self.announce(intent, false).await?;
        Ok(Intended {
            at: self.now(),
            on_whole,
        })
    }

    async fn renew_intent(&self, intent: &Intent) -> Result<Intended, Error> {
        let on_whole = self.announce(intent, true).await?;
        Ok(Intended {
            at: self.now(),
            on_whole,
        })
    }

    async fn prune(&self, probe: &Probe) -> Result<(), Error> {
        let pruned = self.link.run(|mut on| async move {
            let pruned = self.prune_on(&mut on, probe).await;
            (on, pruned)
        });
        pruned.await
    }

    async fn invalidate(&self, invalidation: &Invalidation) -> Result<Invalidated, Error> {
        let ended: HashSet<_> = invalidation.withdraws.iter().copied().collect();
        let kills = invalidation.kills.chunks(steps_of(CHANGES));
        let kills = kills.map(|keys| self.kill(keys, &ended));
        let removed = in_steps(kills.collect()).await?.into_iter().sum();
        // In their order, and each is read only once those before it are replaced: a load that
        // names a row when it ends relies on it (`call/read/learnt.rs`).
        let bumps = invalidation.bumps.as_slice();
        for deps in bumps.chunk_by(|dep, next| dep.is_of_row() && next.is_of_row()) {
            let deps = deps.chunks(steps_of(CHANGES));
            let deps = deps.map(|deps| self.bump(deps, &ended));
            in_steps(deps.collect()).await?;
        }
        Ok(Invalidated {
            at: self.now(),
            removed,
        })
    }

    async fn remove_matching(&self, matching: &Matching) -> Result<u64, Error> {
        let _ = matching;
        Err(Error::new(
            ErrorKind::Unsupported,
            "Memcached can't list its keys, so none can be removed by a pattern",
        ))
    }

    async fn invalidate_namespace(&self, namespace: &str) -> Result<Millis, Error> {
        let epoch = &text::epoch(namespace);
        let replaced = self.link.run_write(|mut on| async move {
            let replaced = on.delete_any(epoch).await;
            (on, replaced)
        });
        replaced.await?;
        Ok(self.now())
    }

    async fn ping(&self) -> Result<(), Error> {
        let answered = self.link.run(|mut on| async move {
            let answered = on.ping().await;
            (on, answered)
        });
        answered.await
    }

    async fn facts(&self) -> Result<ServerFacts, Error> {
        let stats = self.link.run(|mut on| async move {
            let stats = on.stats().await;
            (on, stats)
        });
        let stats = stats.await?;
        let number = |name: &str| text::number(stats.get(name));
        Ok(ServerFacts {
            total_keys: number("curr_items"),
            used_memory: number("bytes").map(|bytes| format!("{bytes}B")),
            uptime_seconds: number("uptime"),
            connected_clients: number("curr_connections"),
            nodes: Vec::new(),
        })
    }

    async fn survey(&self, inquiry: &Inquiry) -> Result<Survey, Error> {
        let _ = inquiry;
        let stats = self.link.run(|mut on| async move {
            let stats = on.stats().await;
            (on, stats)
        });
        let stats = stats.await?;
        Ok(Survey {
            version: stats.get("version").cloned(),
            memory_limit: text::number(stats.get("limit_maxbytes")),
            missing: MISSING.iter().map(|line| (*line).to_owned()).collect(),
            ..Survey::default()
        })
    }

    async fn switch(&self, target: &str, enabled: bool) -> Result<(), Error> {
        let _ = (target, enabled);
        Err(Error::new(
            ErrorKind::Unsupported,
            "nothing can be switched for all processes with Memcached; switch it in each",
        ))
    }

    async fn close(&self) {
        self.link.close();
    }
}

/// Runs operations, some at a time. All of them end, and their results have their order; the first
/// error counts.
async fn in_steps<T>(operations: Vec<BoxFuture<'_, Result<T, Error>>>) -> Result<Vec<T>, Error> {
    let at_a_time = match is_one_by_one() {
        true => 1,
        false => AT_A_TIME,
    };
    let results: Vec<_> = stream::iter(operations).buffered(at_a_time).collect().await;
    results.into_iter().collect()
}

/// How many keys one operation changes.
fn steps_of(keys: usize) -> usize {
    match is_one_by_one() {
        true => STEP,
        false => keys,
    }
}

fn is_one_by_one() -> bool {
    crate::base::mutation::is_active("memcached-changes-one-by-one")
}

/// What the cache does without over Memcached, for the doctor.
const MISSING: [&str; 4] = [
    "memory that is not evicted: under memory pressure the announcement of a `crash_safe` write, or \
     of one whose caller hung up, may be lost before its time; give it enough memory",
    "a list of its keys: `invalidate_pattern` invalidates the whole resource, and dead entries stay \
     until they expire",
    "pushes: there is no local tier beside it, and a reader that waits for another process looks \
     again from time to time",
    "scripts: a change of several keys takes a round trip for each, some at a time",
];
