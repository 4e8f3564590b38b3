//! One cached call: `Key → Lookup → Turn → Loaded → Outcome`.

mod batch;
mod context;
mod deps;
mod detached;
mod load;
mod permit;
mod plan;
mod reader;
mod start;
mod steps;
#[cfg(test)]
mod tests;

use std::any::{Any, TypeId};
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::batch::Batch;
pub use self::context::LoadContext;
pub(crate) use self::deps::{all_deps, tag_dep};
use self::load::{Load, LoadRole};
pub(crate) use self::permit::{NewEntry, Permit};
pub use self::plan::ReadPlan;
pub(crate) use self::reader::{Action, Hit, Reader};
use self::reader::{Fallback, Queued};
use self::start::{Begun, Copies};
use crate::base::error::{Error, ErrorKind};
use crate::base::policy::{Grace, TtlRequest};
use crate::call::observe::{self, BypassReason, Outcome, StaleReason, Status};
use crate::call::returns::{Kind, Loaded, Returns};
use crate::call::scope;
use crate::coalesce::keep_alive::KeptAlive;
use crate::coalesce::single_flight::LoadResult;
use crate::engine::{EngineRef, Handle};
pub(crate) use crate::key::Dependency;
use crate::key::Key;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::{self, Compare, Footprint, Refusal};
use crate::protocol::codec_id::CodecId;
use crate::protocol::entry::Content;
use crate::protocol::fingerprint::Fingerprint;
use crate::registry::{self, CallSite, ResourceRef, Site};
use crate::store::{Circuit, Form, Look, Payload, Probe};

/// A call of a cached function, before its body runs.
#[derive(Debug)]
pub struct Read<R, S, U = Everything> {
    is_off: bool,
    /// `None` if the cache is off, or if nobody is to be asked: no more than the key is wanted, and it has been left.
    opening: Option<Opening<R>>,
    unless: U,
    kind: PhantomData<fn() -> (R, S)>,
}

/// Which values are not worth keeping.
pub trait Unless<V> {
    /// Whether `value` is not to be stored.
    fn refuses(self, value: &V) -> bool;
}

/// Keeps every value.
#[derive(Debug)]
pub struct Everything;

impl<V> Unless<V> for Everything {
    fn refuses(self, _: &V) -> bool {
        false
    }
}

/// Keeps what the function in it does not refuse. It knows how to call it, so that what a wrong function lacks is
/// reported where it is given and not once more where the body runs.
#[derive(Debug)]
pub struct AllBut<F, C> {
    refuses: F,
    call: C,
}

/// Of a function that is called once.
type AllButOnce<F, V> = AllBut<F, fn(F, &V) -> bool>;
/// Of a function that is called for each of many values.
type AllButEach<F, V> = AllBut<F, fn(&F, &V) -> bool>;

impl<F, V> AllButOnce<F, V> {
    fn once(refuses: F) -> Self
    where
        F: FnOnce(&V) -> bool,
    {
        let call = |refuses: F, value: &V| refuses(value);
        Self { refuses, call }
    }
}

impl<F, V> AllButEach<F, V> {
    fn each(refuses: F) -> Self
    where
        F: Fn(&V) -> bool,
    {
        let call = |refuses: &F, value: &V| refuses(value);
        Self { refuses, call }
    }
}

impl<V, F> Unless<V> for AllButOnce<F, V> {
    fn refuses(self, value: &V) -> bool {
        (self.call)(self.refuses, value)
    }
}

impl<V> Unless<V> for &Everything {
    fn refuses(self, _: &V) -> bool {
        false
    }
}

impl<V, F> Unless<V> for &AllButEach<F, V> {
    fn refuses(self, value: &V) -> bool {
        (self.call)(&self.refuses, value)
    }
}

impl<R: Returns<S>, S> Read<R, S> {
    /// Prepares the call, and looks whether it can be answered at once. `plan` runs only if a cache is on, and before the
    /// arguments move into the body.
    #[inline]
    pub(crate) fn new(
        cache: Option<EngineRef<'_>>,
        site: &'static Site,
        resource: &'static str,
        plan: impl FnOnce(&mut ReadPlan) -> &mut ReadPlan,
    ) -> Self {
        let planned = match cache {
            Some(cache) => Begun::planned(cache, site, resource, plan),
            None => None,
        };
        let (is_off, opening) = match planned {
            Some(call) => (false, Opening::of(call)),
            None => (!scope::takes_key(no_key), None),
        };
        Self::opened(is_off, opening)
    }

    #[inline]
    fn opened(is_off: bool, opening: Option<Opening<R>>) -> Self {
        Self {
            is_off,
            opening,
            unless: Everything,
            kind: PhantomData,
        }
    }

    /// What is not worth keeping.
    pub fn unless<F: FnOnce(&R::Value) -> bool>(
        self,
        refuses: F,
    ) -> Read<R, S, AllButOnce<F, R::Value>> {
        Read {
            is_off: self.is_off,
            opening: self.opening,
            unless: AllButOnce::once(refuses),
            kind: PhantomData,
        }
    }
}

impl<R, S, U> Read<R, S, U> {
    /// By which the body says how long what it loads is worth keeping.
    pub fn context(mut self, context: &LoadContext) -> Self {
        if let Some(Opening::Ask(call)) = &mut self.opening
            && let Some(call) = Arc::get_mut(call)
        {
            call.context = Some(context.clone());
        }
        self
    }

    /// Answers from the cache, or runs `body` and stores what it returns.
    ///
    /// # Cancel safety
    /// Dropping the future gives a lease it holds back; nothing half-done is ever served.
    // No `async fn`: that would carry the call into the future, and most calls are over before there is one. And what is in
    // here is compiled once for each annotated function, so the steps are elsewhere.
    // That the cache is off is asked before what is known of the call is touched: else the compiler moves about what nobody has
    // written, which takes as long as all the rest.
    #[inline]
    pub fn run<F>(self, body: impl FnOnce(Kind<R, S>) -> F) -> impl Future<Output = R>
    where
        // Here and not on the type: a bound that isn't met is then reported once, at the return type.
        R: Returns<S>,
        U: Unless<R::Value>,
        F: Future<Output = R>,
    {
        let (is_off, unless) = (self.is_off, self.unless);
        let opening = if is_off { None } else { self.opening };
        async move {
            if is_off {
                ran_without();
                return body(Kind::OF).await;
            }
            let mut load = match opening {
                Some(Opening::Found(value)) => return value,
                Some(Opening::Ask(call)) => match call.answer_or_load().await {
                    Ok(value) => return value,
                    Err(load) => load,
                },
                None => return std::future::pending().await,
            };
            let watched = KeptAlive {
                body: pin!(body(Kind::OF)),
                keep_alive: load.keep_alive(),
            };
            let returned = watched.await;
            load.over(returned, unless).await
        }
    }

    /// The same with a body that owns all it needs, and so may go on when its caller has been answered: in the
    /// background, on the caller's runtime.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run). What goes on in the background is no longer the caller's.
    pub fn run_detached<F>(self, body: impl FnOnce(Kind<R, S>) -> F) -> impl Future<Output = R>
    where
        R: Returns<S> + Send + 'static,
        S: 'static,
        U: Unless<R::Value> + Send + 'static,
        F: Future<Output = R> + Send + 'static,
    {
        let (is_off, unless) = (self.is_off, self.unless);
        let opening = if is_off { None } else { self.opening };
        async move {
            if is_off {
                ran_without();
                return body(Kind::OF).await;
            }
            let call = match opening {
                Some(Opening::Found(value)) => return value,
                Some(Opening::Ask(call)) => call,
                None => return std::future::pending().await,
            };
            match call.answer().await {
                Answer::Found(value) => value,
                Answer::Revalidate(value, load) => {
                    tokio::spawn(detached::load(load, body(Kind::OF), unless));
                    value
                }
                Answer::Run(load) => detached::race(load, body(Kind::OF), unless).await,
            }
        }
    }
}

/// What is known of a call before anything is waited for.
#[derive(Debug)]
enum Opening<R> {
    /// Return this.
    Found(R),
    /// The store has to be asked.
    Ask(Arc<Call>),
}

impl<R> Opening<R> {
    /// `None` if nobody is to be asked.
    // Once for each return type, and not in each function.
    #[inline(never)]
    fn of<S>(call: Begun<'_>) -> Option<Self>
    where
        R: Returns<S>,
    {
        if scope::takes_key(|| call.key()) {
            return None;
        }
        Some(match call.find() {
            Some(value) => {
                call.leave();
                Self::Found(value)
            }
            None => Self::Ask(call.into_call()),
        })
    }
}

/// What the cache has to say to a call.
enum Answer<R> {
    /// Return this.
    Found(R),
    /// Return this, and load a new one in the background.
    Revalidate(R, Box<Load>),
    /// Run the body.
    Run(Box<Load>),
}

/// A call with its key.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) cache: Handle,
    pub(crate) resource: ResourceRef,
    pub(crate) probe: Probe,
    pub(crate) problem: Option<BypassReason>,
    pub(crate) ttl: TtlRequest,
    pub(crate) grace: Grace,
    copies: Copies,
    context: Option<LoadContext>,
    extras: Vec<Dependency>,
    codec: CodecId,
    version: u32,
    /// The annotated function; `None` for a manual operation.
    site: Option<&'static CallSite>,
}

impl Call {
    /// The same as a call of an annotated function.
    pub(crate) fn into_read<R: Returns<S>, S>(self) -> Read<R, S> {
        Read::opened(false, Opening::of(Begun::Call(Arc::new(self))))
    }

    /// The call that a manual operation on `key` amounts to.
    pub(crate) fn manual(cache: Handle, key: &Key, ttl: Option<Duration>) -> Self {
        let resource = cache.visitor(key.resource());
        let fits = key
            .id_form()
            .is_none_or(|form| resource.fits(form, TypeId::of::<()>(), None));
        let probe = Probe {
            key: key.render(&cache.space),
            kind: key.kind(),
            deps: all_deps(&cache, &resource, key.kind(), key.extras()),
        };
        let problem = (!fits).then_some(BypassReason::Claimed);
        let ttl = TtlRequest {
            value: ttl,
            ..TtlRequest::default()
        };
        Self {
            cache,
            resource: ResourceRef::Own(resource),
            probe,
            problem,
            ttl,
            // An entry that is handled by hand is there, or it is not.
            grace: Grace::default(),
            copies: Copies::default(),
            context: None,
            extras: key.extras().to_vec(),
            codec: CodecId::default(),
            version: key.type_version(),
            site: None,
        }
    }

    pub(crate) fn fingerprint<V: Cacheable>(&self) -> Fingerprint {
        let of = Fingerprint::of::<V>;
        self.resource
            .fingerprint(TypeId::of::<V>(), self.version, of)
    }

    /// Looks. Intents whose time is over are ended first: their writers are gone, and only who meets them can see to it.
    pub(crate) async fn look(&self) -> Result<Look, Error> {
        match self.cache.store.look(&self.probe).await {
            // Gone before the next wait, which else would hold it: all calls look, and few find such intents.
            Ok(look) if look.has_expired_intents(self.cache.config.longest_intent()) => {}
            seen => return seen,
        }
        Box::pin(self.prune_and_look()).await
    }

    async fn prune_and_look(&self) -> Result<Look, Error> {
        let store = &self.cache.store;
        store.prune(&self.probe).await?;
        store.look(&self.probe).await
    }

    /// The return value that an entry stands for, said and counted; `None` if it does not decode.
    fn serve<R: Returns<S>, S>(&self, hit: &Hit, reason: StaleReason) -> Option<R> {
        let value = restore(hit.content, hit.codec, &hit.payload)?;
        self.answered(match hit.past.is_zero() {
            true => Status::Hit { ttl: hit.ttl },
            false => Status::Stale {
                past: hit.past,
                reason,
            },
        });
        Some(value)
    }

    /// Serves an entry in place of a load.
    fn fall_back<R: Returns<S>, S>(&self, fallback: Fallback, reason: StaleReason) -> Option<R> {
        let value = self.serve(&fallback.hit, reason);
        if value.is_none() {
            self.resource.counters.errors.add_one();
        }
        value
    }

    fn said(&self, status: Option<Status>) {
        if let Some(status) = status {
            self.answered(status);
        }
    }

    /// What there is to store of a return value, if it may be stored.
    fn pack<R: Returns<S>, S>(
        &self,
        returned: &R,
        unless: impl Unless<R::Value>,
    ) -> Option<NewEntry> {
        if self.context.as_ref().is_some_and(LoadContext::is_no_store) {
            return None;
        }
        match returned.loaded() {
            Loaded::Failed => None,
            Loaded::Absent => self.pack_absence(),
            Loaded::Value(value) if unless.refuses(value) => None,
            Loaded::Value(value) => self.pack_or_count::<_, R::Compare>(value, || returned.share()),
        }
    }

    /// The knowledge that there is nothing, if it may be stored.
    fn pack_absence(&self) -> Option<NewEntry> {
        let default = self.cache.config.default_ttl;
        let new_entry = NewEntry {
            content: Content::Absence,
            payload: Payload::Empty,
            codec: CodecId::default(),
            size: 4,
            fresh_for: self.fresh_for(self.ttl.of_absence(self.resource.operator_ttl, default)?),
            stale_for: self.grace.kept_for(),
        };
        new_entry.lasts().then_some(new_entry)
    }

    /// A value, if it can be stored; that it can't is counted.
    fn pack_or_count<V: Cacheable, C: Compare<V>>(
        &self,
        value: &V,
        share: impl FnOnce() -> Option<Arc<V>>,
    ) -> Option<NewEntry> {
        let default = self.cache.config.default_ttl;
        let fresh_for = self.fresh_for(self.ttl.of_value(self.resource.operator_ttl, default));
        match self.pack_value::<V, C>(value, share, fresh_for) {
            Ok(new_entry) => new_entry.lasts().then_some(new_entry),
            Err(reason) => {
                self.resource.counters.errors.add_one();
                tracing::debug!("`{}` is not stored: {reason}", self.probe.key);
                None
            }
        }
    }

    /// How long what was loaded is served, in place of `otherwise` where the body has said so.
    fn fresh_for(&self, otherwise: Duration) -> Duration {
        let operator = self.resource.operator_ttl;
        let said = self
            .context
            .as_ref()
            .and_then(|context| context.ttl_within(operator));
        self.grace
            .jittered(said.unwrap_or(otherwise), fastrand::f64())
    }

    /// A value as it is stored. One that the codec would lose is refused whatever form the store keeps, so that a value is
    /// the same from every tier.
    pub(crate) fn pack_value<V: Cacheable, C: Compare<V>>(
        &self,
        value: &V,
        share: impl FnOnce() -> Option<Arc<V>>,
        fresh_for: Duration,
    ) -> Result<NewEntry, Error> {
        let (payload, size) = match self.cache.store.form() {
            Form::Encoded => {
                let encoded = value.to_bytes(self.codec);
                let (bytes, footprint) = encoded.map_err(|it| self.loses::<V>(it))?;
                let size = self.within_limit(bytes.len())?;
                self.verify::<V, C>(value, &footprint, || Ok(bytes.clone()))?;
                (Payload::Encoded(bytes), size)
            }
            Form::Decoded => {
                let measured = value.measure(self.codec);
                let (size, footprint) = measured.map_err(|it| self.loses::<V>(it))?;
                let size = self.within_limit(size)?;
                let encode = || value.to_bytes(self.codec).map(|(bytes, _)| bytes);
                self.verify::<V, C>(value, &footprint, encode)?;
                let payload = share().map_or(Payload::Empty, |value| Payload::Decoded(value));
                (payload, size)
            }
        };
        Ok(NewEntry {
            content: Content::Value,
            payload,
            codec: self.codec,
            size,
            fresh_for,
            stale_for: self.grace.kept_for(),
        })
    }

    fn within_limit(&self, size: usize) -> Result<usize, Error> {
        let limit = self.cache.config.value_limit;
        if size <= limit {
            return Ok(size);
        }
        let text = format!("it takes {size} bytes, over the limit of {limit}");
        Err(Error::new(ErrorKind::Unstorable, text))
    }

    /// Decodes the value again where its function has not yet shown that it comes back.
    fn verify<V: Cacheable, C: Compare<V>>(
        &self,
        value: &V,
        footprint: &Footprint,
        encode: impl FnOnce() -> Result<Bytes, Refusal>,
    ) -> Result<(), Error> {
        if V::is_verbatim() {
            return Ok(());
        }
        let trust = self
            .resource
            .trust(self.site, TypeId::of::<V>(), self.codec);
        let is_wanted = trust.wants(footprint);
        if !is_wanted && !self.cache.verifies_all && !V::schema().guesses {
            return Ok(());
        }
        match encode().and_then(|bytes| codec::verify::<V, C>(self.codec, value, &bytes)) {
            Ok(()) => {
                trust.keeps(footprint);
                Ok(())
            }
            Err(refusal) => {
                trust.loses();
                Err(self.loses::<V>(refusal))
            }
        }
    }

    /// The codec would lose the value: its function is named once.
    fn loses<V: Cacheable>(&self, refusal: Refusal) -> Error {
        registry::report_loss(self.site, &self.resource.name, TypeId::of::<V>(), &refusal);
        refusal.into()
    }

    fn answered(&self, status: Status) {
        self.count(status);
        observe::record(|| Outcome {
            key: self.probe.key.clone(),
            resource: self.resource.name.to_string(),
            store: self.cache.store.name(),
            status,
        });
    }

    fn count(&self, status: Status) {
        let counters = &self.resource.counters;
        match status {
            Status::Hit { .. } => counters.hits.add_one(),
            Status::Stale { .. } => {
                counters.hits.add_one();
                counters.stale_served.add_one();
            }
            Status::Miss { .. } => counters.misses.add_one(),
            Status::Bypass(_) => counters.bypasses.add_one(),
        }
    }

    fn fault(&self, error: &Error) -> Action {
        // While the store is known to be away, that is one fault and not one per call.
        if self.cache.store.circuit() == Circuit::Closed {
            self.resource.counters.errors.add_one();
            tracing::debug!("`{}` is read without the cache: {error}", self.probe.key);
        }
        Action::Bypass(BypassReason::Unavailable)
    }
}

impl Call {
    /// As [`answer`](Self::answer), for a body that does not outlive its caller: there is nothing to load a new one with in the
    /// background.
    // On the heap: most calls are over without it, and all would be moved about with a place for it.
    fn answer_or_load<R: Returns<S>, S>(
        self: Arc<Self>,
    ) -> Pin<Box<impl Future<Output = Result<R, Box<Load>>>>> {
        Box::pin(async move {
            match self.answer().await {
                Answer::Found(value) | Answer::Revalidate(value, _) => Ok(value),
                Answer::Run(load) => Err(load),
            }
        })
    }

    /// Looks, waits for others, or gets the permit to load.
    async fn answer<R: Returns<S>, S>(self: Arc<Self>) -> Answer<R> {
        let mut reader = Reader::new(&self, self.fingerprint::<R::Value>());
        let bypass = loop {
            match reader.next().await {
                Action::Hit(hit) => match self.serve_and_keep(&hit, reader.read_token()) {
                    Some(value) => {
                        reader.found(&hit, || load::load_result(&value));
                        return Answer::Found(value);
                    }
                    None => reader.reject(hit.header),
                },
                Action::Stale(hit, reason) => match self.serve(&hit, reason) {
                    Some(value) => return Answer::Found(value),
                    None => reader.reject(hit.header),
                },
                Action::Revalidate(both) => {
                    let (hit, permit) = *both;
                    let value = self.serve(&hit, StaleReason::Revalidating);
                    let load = Load::new(Arc::clone(&self), LoadRole::Leader(permit), None);
                    return match value {
                        Some(value) => {
                            self.resource.counters.refreshes.add_one();
                            Answer::Revalidate(value, load)
                        }
                        // It is there to be loaded, and nothing else.
                        None => Answer::Run(load),
                    };
                }
                Action::Joined(load_result) => match arrived(load_result) {
                    Some(value) => {
                        self.answered(Status::Miss {
                            stored: false,
                            joined: true,
                        });
                        return Answer::Found(value);
                    }
                    None => break BypassReason::OtherType,
                },
                Action::Lead(permit) => {
                    let (part, fallback) = (LoadRole::Leader(permit), reader.fallback());
                    return Answer::Run(Load::new(Arc::clone(&self), part, fallback));
                }
                Action::Bypass(reason) => break reason,
            }
        };
        if let Some((hit, reason)) = reader.instead(bypass)
            && let Some(value) = self.serve(&hit, reason)
        {
            return Answer::Found(value);
        }
        let fallback = reader.fallback();
        self.answered(Status::Bypass(bypass));
        // Apart, since those who wait for a load are not to hold a place for it.
        let part = match Box::pin(reader.queue(bypass)).await {
            Queued::Run(run) => LoadRole::Runner(run),
            Queued::Joined(load_result) => match arrived(load_result) {
                Some(value) => return Answer::Found(value),
                None => LoadRole::Alone,
            },
            Queued::Alone => LoadRole::Alone,
        };
        Answer::Run(Load::new(Arc::clone(&self), part, fallback))
    }
}

fn no_key() -> Result<Key, Error> {
    let text = "this call has no key: its cache is off";
    Err(Error::new(ErrorKind::InvalidKey, text))
}

/// What a call outside any cache leaves for who observes.
#[inline]
fn ran_without() {
    observe::record(|| Outcome {
        key: String::new(),
        resource: String::new(),
        store: "",
        status: Status::Bypass(BypassReason::Disabled),
    });
}

/// The return value that an entry stands for; `None` if the entry does not decode as it.
fn restore<R: Returns<S>, S>(content: Content, codec: CodecId, payload: &Payload) -> Option<R> {
    match content {
        Content::Absence => R::from_absence(),
        Content::Value => match payload {
            Payload::Encoded(bytes) => R::Value::from_bytes(codec, bytes).map(R::from_own),
            shared => value_of(codec, shared).map(R::from_value),
        },
        Content::Nothing => None,
    }
}

/// The value in a payload; `None` if it is another type's or damaged.
pub(crate) fn value_of<V: Cacheable>(codec: CodecId, payload: &Payload) -> Option<Arc<V>> {
    match payload {
        Payload::Empty => None,
        Payload::Encoded(bytes) => V::from_bytes(codec, bytes).map(Arc::new),
        Payload::Decoded(value) => downcast(Arc::clone(value)),
    }
}

fn downcast<V: Send + Sync + 'static>(value: Arc<dyn Any + Send + Sync>) -> Option<Arc<V>> {
    value.downcast().ok()
}

fn arrived<R: Returns<S>, S>(load_result: LoadResult) -> Option<R> {
    match load_result {
        LoadResult::Failure => None,
        LoadResult::Absence => R::from_absence(),
        LoadResult::Value(value) => downcast(value).map(R::from_value),
    }
}
