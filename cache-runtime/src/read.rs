//! One cached call: `Key → Lookup → Turn → Loaded → Outcome`.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::clock::{self, Instant, Millis};
use crate::codec;
use crate::engine::Handle;
use crate::entry::{CodecId, Content, Fingerprint, Header, Stamp};
use crate::flight::{Arrival, Landed, Pilot};
use crate::generation::Dep;
use crate::key::{self, EntryKind, Key, KeyPart, KeyWriter, is_op, is_resource};
use crate::nonce::Nonce;
use crate::observe::{self, BypassReason, Outcome, Status};
use crate::policy::{self, IntoTtl, TtlRequest};
use crate::registry::{Resource, Site};
use crate::returns::{Kind, Loaded, Returns};
use crate::store::{Fill, Filled, Form, Found, LeaseReply, LeaseRequest, Payload, Probe, Seen};

/// The first pause of one who waits for another process's load, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(25);

/// Collects what a function's attribute says about its key and its entries.
#[derive(Debug)]
#[must_use]
pub struct ReadPlan<'a> {
    cache: &'a Handle,
    site: &'static Site,
    resource: Option<Arc<Resource>>,
    key: Option<KeyWriter<'a>>,
    op: Option<&'static str>,
    has_id: bool,
    problem: Option<BypassReason>,
    ttl: TtlRequest,
    version: u32,
}

impl<'a> ReadPlan<'a> {
    fn new(cache: &'a Handle, site: &'static Site) -> Self {
        Self {
            cache,
            site,
            resource: None,
            key: None,
            op: None,
            has_id: false,
            problem: None,
            ttl: TtlRequest::default(),
            version: 0,
        }
    }

    fn refuse(&mut self, problem: BypassReason) {
        self.problem.get_or_insert(problem);
    }

    /// The resource; always first.
    pub fn resource(mut self, name: &'static str) -> Self {
        if is_resource(name) {
            self.resource = Some(self.cache.resource(name));
            self.key = Some(KeyWriter::new(&self.cache.space, name));
        } else {
            tracing::error!(
                "`{name}` is not a resource name, so {} runs without the cache; use lower-case letters, digits, `-` and `_`",
                self.site
            );
            self.refuse(BypassReason::Unkeyable);
        }
        self
    }

    /// What is computed of the resource; makes the entry a derived one.
    pub fn op(mut self, op: &'static str) -> Self {
        if !is_op(op) {
            tracing::error!(
                "`{op}` is not an op, so {} runs without the cache; use segments of [a-z0-9_-] joined by `:`",
                self.site
            );
            self.refuse(BypassReason::Unkeyable);
        }
        self.op = Some(op);
        if let Some(key) = &mut self.key {
            key.op(op);
        }
        self
    }

    /// The id, readable in the key.
    pub fn id<T: KeyPart + ?Sized>(mut self, id: &T) -> Self {
        self.has_id = true;
        let (Some(key), Some(resource)) = (&mut self.key, &self.resource) else {
            return self;
        };
        match key.id(id) {
            // Only entities share their key with the writers that name an id.
            Ok(form) if self.op.is_some() || resource.fits(form, Some(self.site)) => {}
            Ok(_) => self.refuse(BypassReason::Claimed),
            Err(_) => self.refuse(BypassReason::Unkeyable),
        }
        self
    }

    /// One argument, hashed.
    pub fn arg<T: KeyPart + ?Sized>(mut self, arg: &T) -> Self {
        if self.key.as_mut().is_some_and(|key| key.arg(arg).is_err()) {
            self.refuse(BypassReason::Unkeyable);
        }
        self
    }

    /// A type parameter of the function, hashed by its name.
    pub fn type_param<T: ?Sized>(self) -> Self {
        self.arg(std::any::type_name::<T>())
    }

    /// For how long a value is served.
    pub fn ttl(mut self, ttl: impl IntoTtl) -> Self {
        self.ttl.value = ttl.into_ttl();
        self
    }

    /// For how long an absence is served.
    pub fn none_ttl(mut self, ttl: impl IntoTtl) -> Self {
        self.ttl.absence = ttl.into_ttl();
        self
    }

    /// Whether absences are stored at all.
    pub fn cache_none(mut self, cache_none: bool) -> Self {
        self.ttl.never_absence = !cache_none;
        self
    }

    /// The version of the value's type; entries of another one are misses.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    fn finish(mut self, cache: Handle) -> Option<Call> {
        let (Some(resource), Some(key)) = (self.resource, self.key) else {
            return None;
        };
        let kind = if self.op.is_none() && self.has_id {
            EntryKind::Entity
        } else {
            EntryKind::Derived
        };
        if !resource.claim(self.op, self.site) {
            self.problem.get_or_insert(BypassReason::Claimed);
        }
        let probe = Probe {
            key: key.finish(!self.has_id),
            kind,
            deps: deps(&resource, kind),
        };
        Some(Call {
            cache,
            resource,
            probe,
            problem: self.problem,
            ttl: self.ttl,
            version: self.version,
        })
    }
}

/// What an entry of this kind depends on. One order for all, since the stamp is computed in it.
fn deps(resource: &Resource, kind: EntryKind) -> Vec<Arc<Dep>> {
    match kind {
        EntryKind::Entity => vec![Arc::clone(&resource.whole)],
        EntryKind::Derived => vec![Arc::clone(&resource.whole), Arc::clone(&resource.derived)],
    }
}

/// A call of a cached function, before its body runs.
#[derive(Debug)]
pub struct Read(Option<Call>);

impl Read {
    /// Prepares the call. `plan` runs only if a cache is on, and before the arguments move into the body.
    pub fn new(
        site: &'static Site,
        cache: Option<Handle>,
        plan: impl for<'a> FnOnce(ReadPlan<'a>) -> ReadPlan<'a>,
    ) -> Self {
        Self(cache.and_then(|cache| {
            let of_plan = cache.clone();
            plan(ReadPlan::new(&of_plan, site)).finish(cache)
        }))
    }

    /// Answers from the cache, or runs `body` and stores what it returns.
    ///
    /// # Cancel safety
    /// Dropping the future gives a lease it holds back; nothing half-done is ever served.
    pub async fn run<R, S>(self, kind: Kind<R, S>, body: impl AsyncFnOnce() -> R) -> R
    where
        R: Returns<S>,
    {
        match self.0 {
            Some(call) => call.run(kind, body).await,
            None => {
                observe::record(|| Outcome {
                    key: String::new(),
                    resource: String::new(),
                    store: "",
                    status: Status::Bypass(BypassReason::Disabled),
                });
                body().await
            }
        }
    }
}

/// A call with its key.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) cache: Handle,
    pub(crate) resource: Arc<Resource>,
    pub(crate) probe: Probe,
    problem: Option<BypassReason>,
    pub(crate) ttl: TtlRequest,
    version: u32,
}

impl Call {
    /// The call that a manual operation on `key` amounts to.
    pub(crate) fn manual(cache: Handle, key: &Key, ttl: Option<Duration>) -> Self {
        let resource = cache.visitor(key.resource());
        let fits = key.id_form().is_none_or(|form| resource.fits(form, None));
        let mut deps = deps(&resource, key.kind());
        let tags = key.tags().iter().map(|tag| tag_dep(&cache, tag));
        deps.extend(tags);
        deps[1..].sort();
        deps.dedup();
        let probe = Probe {
            key: key.render(&cache.space),
            kind: key.kind(),
            deps,
        };
        let problem = (!fits).then_some(BypassReason::Claimed);
        let ttl = TtlRequest {
            value: ttl,
            ..TtlRequest::default()
        };
        Self {
            cache,
            resource,
            probe,
            problem,
            ttl,
            version: 0,
        }
    }

    pub(crate) fn fingerprint<V>(&self) -> Fingerprint {
        Fingerprint::of::<V>(self.version)
    }

    /// The recipe of a cached call.
    pub(crate) async fn run<R, S>(self, _: Kind<R, S>, body: impl AsyncFnOnce() -> R) -> R
    where
        R: Returns<S>,
    {
        let mut reader = Reader::new(&self, self.fingerprint::<R::Value>());
        loop {
            match reader.turn().await {
                Turn::Hit(hit) => match restore(hit.content, hit.codec, &hit.payload) {
                    Some(value) => {
                        self.answered(Status::Hit { ttl: hit.ttl });
                        return value;
                    }
                    None => reader.reject(hit.header),
                },
                Turn::Joined(landed) => match arrived(landed) {
                    Some(value) => {
                        self.answered(Status::Miss {
                            stored: false,
                            joined: true,
                        });
                        return value;
                    }
                    None => return self.bypassing(BypassReason::OtherType, body).await,
                },
                Turn::Lead(permit) => return self.lead(permit, body).await,
                Turn::Bypass(reason) => return self.bypassing(reason, body).await,
            }
        }
    }

    async fn lead<R, S>(&self, permit: Permit, body: impl AsyncFnOnce() -> R) -> R
    where
        R: Returns<S>,
    {
        let returned = permit.renewing(body()).await;
        permit.pilot.land(|| match returned.loaded() {
            Loaded::Value(_) => returned.share().map(|value| Landed::Value(value)),
            Loaded::Absent => Some(Landed::Absence),
            Loaded::Failed => None,
        });
        let package = self.pack(&returned);
        let stored = match package {
            Some(package) => permit.fill(self, package).await == Some(Filled::Stored),
            None => false,
        };
        self.answered(Status::Miss {
            stored,
            joined: false,
        });
        returned
    }

    /// What there is to store of a return value, if it may be stored.
    fn pack<R: Returns<S>, S>(&self, returned: &R) -> Option<Package> {
        let default = self.cache.config.default_ttl;
        let operator = self.resource.operator_ttl;
        let package = match returned.loaded() {
            Loaded::Failed => return None,
            Loaded::Absent => Package {
                content: Content::Absence,
                payload: Payload::Empty,
                size: 4,
                fresh_for: self.ttl.of_absence(operator, default)?,
            },
            Loaded::Value(value) => {
                let fresh_for = self.ttl.of_value(operator, default);
                match self.pack_value(value, || returned.share(), fresh_for) {
                    Ok(package) => package,
                    Err(reason) => {
                        self.resource.counters.errors.add_one();
                        tracing::debug!("`{}` is not stored: {reason}", self.probe.key);
                        return None;
                    }
                }
            }
        };
        (package.fresh_for >= Duration::from_millis(1)).then_some(package)
    }

    pub(crate) fn pack_value<V: crate::Cacheable>(
        &self,
        value: &V,
        share: impl FnOnce() -> Option<Arc<V>>,
        fresh_for: Duration,
    ) -> Result<Package, crate::Error> {
        let (payload, size) = match self.cache.store.form() {
            Form::Encoded => {
                let bytes = codec::encode(CodecId::Json, value)?;
                let size = bytes.len();
                (Payload::Encoded(bytes.into()), size)
            }
            Form::Decoded => {
                let size = codec::encoded_len(value)?;
                (
                    share().map_or(Payload::Empty, |value| Payload::Decoded(value)),
                    size,
                )
            }
        };
        let limit = self.cache.config.value_limit;
        if size > limit {
            let text = format!("it takes {size} bytes, over the limit of {limit}");
            return Err(crate::Error::new(crate::ErrorKind::Unstorable, text));
        }
        Ok(Package {
            content: Content::Value,
            payload,
            size,
            fresh_for,
        })
    }

    async fn bypassing<R>(&self, reason: BypassReason, body: impl AsyncFnOnce() -> R) -> R {
        self.answered(Status::Bypass(reason));
        body().await
    }

    fn answered(&self, status: Status) {
        let counters = &self.resource.counters;
        match status {
            Status::Hit { .. } => counters.hits.add_one(),
            Status::Miss { .. } => counters.misses.add_one(),
            Status::Bypass(_) => counters.bypasses.add_one(),
        }
        observe::record(|| Outcome {
            key: self.probe.key.clone(),
            resource: self.resource.name.to_string(),
            store: self.cache.store.name(),
            status,
        });
    }

    fn fault(&self, error: &crate::Error) -> Turn {
        // While the store is known to be away, that is one fault and not one per call.
        if self.cache.store.is_connected() {
            self.resource.counters.errors.add_one();
            tracing::debug!("`{}` is read without the cache: {error}", self.probe.key);
        }
        Turn::Bypass(BypassReason::Unavailable)
    }
}

/// The dependency that a tag stands for; no resource is spelled like it.
pub(crate) fn tag_dep(cache: &Handle, tag: &str) -> Arc<Dep> {
    Dep::new(
        cache
            .space
            .generation(&format!("tag~{}", key::escaped(tag))),
    )
}

/// A value ready to be stored.
#[derive(Debug)]
pub(crate) struct Package {
    content: Content,
    payload: Payload,
    size: usize,
    fresh_for: Duration,
}

/// The return value that an entry stands for; `None` if the entry does not decode as it.
fn restore<R: Returns<S>, S>(content: Content, codec: CodecId, payload: &Payload) -> Option<R> {
    match content {
        Content::Absence => R::from_absence(),
        Content::Value => value_of(codec, payload).map(R::from_value),
        Content::Nothing => None,
    }
}

/// The value in a payload; `None` if it is another type's or damaged.
pub(crate) fn value_of<V: crate::Cacheable>(codec: CodecId, payload: &Payload) -> Option<Arc<V>> {
    match payload {
        Payload::Empty => None,
        Payload::Encoded(bytes) => codec::decode(codec, bytes).map(Arc::new),
        Payload::Decoded(value) => downcast(Arc::clone(value)),
    }
}

fn downcast<V: Send + Sync + 'static>(value: Arc<dyn Any + Send + Sync>) -> Option<Arc<V>> {
    value.downcast().ok()
}

fn arrived<R: Returns<S>, S>(landed: Landed) -> Option<R> {
    match landed {
        Landed::Absence => R::from_absence(),
        Landed::Value(value) => downcast(value).map(R::from_value),
    }
}

/// An entry that may be served.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) header: Header,
    pub(crate) content: Content,
    pub(crate) codec: CodecId,
    pub(crate) payload: Payload,
    pub(crate) ttl: Duration,
}

/// What a reader is to do.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Serve this.
    Hit(Hit),
    /// Serve what somebody else has just loaded.
    Joined(Landed),
    /// Load, and store under this lease.
    Lead(Permit),
    /// Load, and store nothing.
    Bypass(BypassReason),
}

/// One reader's way through the protocol. Nothing here depends on the function's types.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    call: &'a Call,
    fingerprint: Fingerprint,
    /// Until when this reader waits for others.
    deadline: Option<Instant>,
    pause: Duration,
    /// A lease seen once with another stamp than the generations': it may be newer than what was read.
    suspect: Option<Nonce>,
    /// An entry that did not decode.
    rejected: Option<Header>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(call: &'a Call, fingerprint: Fingerprint) -> Self {
        Self {
            call,
            fingerprint,
            deadline: None,
            pause: FIRST_PAUSE,
            suspect: None,
            rejected: None,
        }
    }

    /// Treats an entry as if it were not there.
    pub(crate) fn reject(&mut self, header: Header) {
        self.call.resource.counters.errors.add_one();
        self.rejected = Some(header);
    }

    /// Looks, and finds out what to do; waits for somebody else's load if there is one.
    pub(crate) async fn turn(&mut self) -> Turn {
        let call = self.call;
        if let Some(problem) = call.problem {
            return Turn::Bypass(problem);
        }
        loop {
            if call.cache.is_closed() {
                return Turn::Bypass(BypassReason::Unavailable);
            }
            if call.cache.delivery.is_pending(&call.probe) {
                return Turn::Bypass(BypassReason::Pending);
            }
            let look = match call.cache.store.look(&call.probe).await {
                Ok(look) => look,
                Err(error) => return call.fault(&error),
            };
            if look.intended {
                return Turn::Bypass(BypassReason::Intended);
            }
            let seen = match look.found {
                Found::Foreign => return Turn::Bypass(BypassReason::Foreign),
                Found::Nothing => Seen::Nothing,
                Found::Entry(header, _) if header.is_leased() => {
                    match self.meet_lease(header, look.stamp, look.now).await {
                        Met::GivesWay(seen) => seen,
                        Met::LookAgain => continue,
                        Met::Turn(turn) => return turn,
                    }
                }
                Found::Entry(header, payload) => {
                    if self.is_fresh(&header, look.stamp, look.now) {
                        // The store's time is estimated between its answers: never more than it was given.
                        let ttl = header
                            .fresh
                            .since(look.now)
                            .min(header.fresh.since(header.stored));
                        return Turn::Hit(Hit {
                            header,
                            content: header.content,
                            codec: header.codec,
                            payload,
                            ttl,
                        });
                    }
                    if header.stamp != look.stamp {
                        call.resource.counters.stale_rejected.add_one();
                    }
                    Seen::Entry(header)
                }
            };
            let permit = Permit::new(call, look.stamp, self.fingerprint);
            match permit.take(call, seen).await {
                Ok(LeaseReply::Granted) => return Turn::Lead(permit),
                Ok(LeaseReply::Foreign) => {
                    permit.forget();
                    return Turn::Bypass(BypassReason::Foreign);
                }
                // Somebody was faster; the next look says who.
                Ok(LeaseReply::Taken(_)) => {
                    permit.forget();
                    if self.is_late() {
                        return Turn::Bypass(BypassReason::WaitLimit);
                    }
                }
                // The lease may have been taken all the same; dropping the permit gives it back.
                Err(error) => return call.fault(&error),
            }
        }
    }

    fn is_fresh(&self, header: &Header, stamp: Stamp, now: Millis) -> bool {
        header.stamp == stamp
            && header.fingerprint == self.fingerprint
            && now < header.fresh
            && self.rejected.as_ref() != Some(header)
    }

    async fn meet_lease(&mut self, lease: Header, stamp: Stamp, now: Millis) -> Met {
        if lease.stamp != stamp {
            // Dead, unless it was taken between the reading of the generations and that of the entry.
            if self.suspect == Some(lease.token) {
                return Met::GivesWay(Seen::Entry(lease));
            }
            self.suspect = Some(lease.token);
            return Met::LookAgain;
        }
        if lease.fingerprint != self.fingerprint {
            return Met::Turn(Turn::Bypass(BypassReason::OtherType));
        }
        let deadline = self.deadline();
        if let Some(ticket) = self.call.cache.flights.join(lease.token) {
            return match ticket.wait(deadline).await {
                Arrival::Landed(landed) => Met::Turn(Turn::Joined(landed)),
                Arrival::Gone => Met::LookAgain,
                Arrival::TimedOut => Met::Turn(Turn::Bypass(BypassReason::WaitLimit)),
            };
        }
        if lease.deadline < now {
            return Met::GivesWay(Seen::Leased);
        }
        if self.is_late() {
            return Met::Turn(Turn::Bypass(BypassReason::WaitLimit));
        }
        tokio::time::sleep_until(deadline.min(clock::now() + self.pause)).await;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        Met::LookAgain
    }

    fn deadline(&mut self) -> Instant {
        let wait = self.call.cache.config.wait;
        *self.deadline.get_or_insert_with(|| clock::now() + wait)
    }

    fn is_late(&mut self) -> bool {
        self.deadline() <= clock::now()
    }
}

/// What comes of meeting somebody's lease.
enum Met {
    GivesWay(Seen),
    LookAgain,
    Turn(Turn),
}

/// The right, and the duty, to load: a lease in the store and a flight in the process.
///
/// Dropped without a fill, it gives the lease back and wakes those who wait.
#[derive(Debug)]
pub(crate) struct Permit {
    cache: Handle,
    key: String,
    token: Nonce,
    stamp: Stamp,
    fingerprint: Fingerprint,
    pub(crate) pilot: Pilot,
    held: bool,
}

impl Permit {
    pub(crate) fn new(call: &Call, stamp: Stamp, fingerprint: Fingerprint) -> Self {
        let token = Nonce::fresh();
        Self {
            cache: call.cache.clone(),
            key: call.probe.key.clone(),
            token,
            stamp,
            fingerprint,
            // Before the lease is asked for: whoever meets it must find the flight.
            pilot: call.cache.flights.start(token),
            held: true,
        }
    }

    pub(crate) async fn take(&self, call: &Call, seen: Seen) -> Result<LeaseReply, crate::Error> {
        let request = LeaseRequest {
            seen,
            token: self.token,
            stamp: self.stamp,
            fingerprint: self.fingerprint,
            length: self.cache.config.lease,
        };
        self.cache.store.lease(&call.probe, &request).await
    }

    /// The lease was not granted: there is nothing to give back.
    pub(crate) fn forget(mut self) {
        self.held = false;
    }

    /// Runs `body`, renewing the lease at a third of its length. A body that blocks its thread is not
    /// renewed; its lease lapses and its value is not stored.
    async fn renewing<F: Future>(&self, body: F) -> F::Output {
        let third = self.cache.config.lease / 3;
        let mut renewal = tokio::time::interval_at(clock::now() + third, third);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut body = std::pin::pin!(body);
        loop {
            tokio::select! {
                biased;
                output = &mut body => return output,
                _ = renewal.tick() => self.renew(),
            }
        }
    }

    fn renew(&self) {
        let (store, key, token) = (Arc::clone(&self.cache.store), self.key.clone(), self.token);
        let length = self.cache.config.lease;
        self.cache.background.spawn(async move {
            // If it can't be renewed it lapses, and the fill is refused.
            let _ = store.renew(&key, token, length).await;
        });
    }

    /// Stores what was loaded; `None` if the store failed.
    pub(crate) async fn fill(mut self, call: &Call, package: Package) -> Option<Filled> {
        let fill = Fill {
            token: self.token,
            stamp: self.stamp,
            fingerprint: self.fingerprint,
            content: package.content,
            payload: package.payload,
            codec: CodecId::Json,
            size: package.size,
            fresh_for: package.fresh_for,
            generation_ttl: policy::generation_ttl(package.fresh_for),
        };
        let counters = &call.resource.counters;
        match self.cache.store.fill(&call.probe, fill).await {
            Ok(filled) => {
                self.held = false;
                match filled {
                    Filled::Stored => counters.fills.add_one(),
                    Filled::Refused => counters.fills_refused.add_one(),
                }
                Some(filled)
            }
            Err(error) => {
                counters.errors.add_one();
                tracing::debug!("`{}` was not stored: {error}", self.key);
                None
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held {
            let (store, key, token) = (
                Arc::clone(&self.cache.store),
                std::mem::take(&mut self.key),
                self.token,
            );
            self.cache.background.spawn(async move {
                // If it can't be given back it lapses.
                let _ = store.release(&key, token).await;
            });
        }
    }
}
