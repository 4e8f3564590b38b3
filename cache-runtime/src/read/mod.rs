//! One cached call: `Key → Lookup → Turn → Loaded → Outcome`.

mod permit;
mod plan;
mod reader;

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::permit::{Package, Permit};
pub use self::plan::ReadPlan;
pub(crate) use self::plan::tag_dep;
pub(crate) use self::reader::{Reader, Turn};
use crate::codec;
use crate::engine::Handle;
use crate::entry::{CodecId, Content, Fingerprint};
use crate::flight::Landed;
use crate::key::Key;
use crate::observe::{self, BypassReason, Outcome, Status};
use crate::policy::TtlRequest;
use crate::registry::{Resource, Site};
use crate::returns::{Cacheable, Kind, Loaded, Returns};
use crate::store::{Filled, Form, Payload, Probe};

/// A call of a cached function, before its body runs.
#[derive(Debug)]
pub struct Read<R, S> {
    /// `None` if the cache is off.
    call: Option<Call>,
    kind: PhantomData<fn() -> (R, S)>,
}

impl<R, S> Read<R, S> {
    /// Prepares the call. `plan` runs only if a cache is on, and before the arguments move into the body.
    pub fn new(
        site: &'static Site,
        cache: Option<Handle>,
        _: Kind<R, S>,
        plan: impl for<'a> FnOnce(ReadPlan<'a>) -> ReadPlan<'a>,
    ) -> Self {
        let call = cache.and_then(|cache| plan(ReadPlan::new(&cache, site)).finish(&cache));
        Self {
            call,
            kind: PhantomData,
        }
    }

    /// Answers from the cache, or runs `body` and stores what it returns.
    ///
    /// # Cancel safety
    /// Dropping the future gives a lease it holds back; nothing half-done is ever served.
    pub async fn run(self, body: impl AsyncFnOnce() -> R) -> R
    where
        // Here and not on the type: a bound that isn't met is then reported once, at the return type.
        R: Returns<S>,
    {
        // The body is awaited in one place: each more would be another copy of it in every annotated function.
        let permit = match &self.call {
            Some(call) => match call.answer().await {
                Answer::Found(value) => return value,
                Answer::Run(permit) => permit,
            },
            None => {
                observe::record(|| Outcome {
                    key: String::new(),
                    resource: String::new(),
                    store: "",
                    status: Status::Bypass(BypassReason::Disabled),
                });
                None
            }
        };
        let returned = permit::renewing(permit.as_ref(), body()).await;
        if let (Some(call), Some(permit)) = (&self.call, permit) {
            call.store(permit, &returned).await;
        }
        returned
    }
}

/// What the cache has to say to a call.
enum Answer<R> {
    /// Return this.
    Found(R),
    /// Run the body; with a permit, store what it returns.
    Run(Option<Permit>),
}

/// A call with its key.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) cache: Handle,
    pub(crate) resource: Arc<Resource>,
    pub(crate) probe: Probe,
    pub(crate) problem: Option<BypassReason>,
    pub(crate) ttl: TtlRequest,
    version: u32,
}

impl Call {
    /// What an annotated function does, for a call made by hand.
    pub(crate) async fn run<R: Returns<S>, S>(
        self,
        _: Kind<R, S>,
        body: impl AsyncFnOnce() -> R,
    ) -> R {
        let read = Read {
            call: Some(self),
            kind: PhantomData,
        };
        read.run(body).await
    }

    /// The call that a manual operation on `key` amounts to.
    pub(crate) fn manual(cache: Handle, key: &Key, ttl: Option<Duration>) -> Self {
        let resource = cache.visitor(key.resource());
        let fits = key.id_form().is_none_or(|form| resource.fits(form, None));
        let mut deps = Arc::clone(resource.deps(key.kind()));
        if !key.tags().is_empty() {
            // One order for all who read and fill the entry, however they name the tags.
            let mut tags: Vec<_> = key.tags().iter().map(|tag| tag_dep(&cache, tag)).collect();
            tags.sort();
            tags.dedup();
            deps = deps.iter().cloned().chain(tags).collect();
        }
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

    /// Looks, waits for others, or gets the permit to load.
    async fn answer<R: Returns<S>, S>(&self) -> Answer<R> {
        let mut reader = Reader::new(self, self.fingerprint::<R::Value>());
        let bypass = loop {
            match reader.turn().await {
                Turn::Hit(hit) => match restore(hit.content, hit.codec, &hit.payload) {
                    Some(value) => {
                        self.answered(Status::Hit { ttl: hit.ttl });
                        return Answer::Found(value);
                    }
                    None => reader.reject(hit.header),
                },
                Turn::Joined(landed) => match arrived(landed) {
                    Some(value) => {
                        self.answered(Status::Miss {
                            stored: false,
                            joined: true,
                        });
                        return Answer::Found(value);
                    }
                    None => break BypassReason::OtherType,
                },
                Turn::Lead(permit) => return Answer::Run(Some(permit)),
                Turn::Bypass(reason) => break reason,
            }
        };
        self.answered(Status::Bypass(bypass));
        Answer::Run(None)
    }

    /// Hands what was loaded to those who wait, and stores it. The value is packed before anything is awaited,
    /// so that `R` need not be shared between threads.
    fn store<R: Returns<S>, S>(&self, permit: Permit, returned: &R) -> impl Future<Output = ()> {
        permit.pilot.land(|| match returned.loaded() {
            Loaded::Value(_) => returned.share().map(|value| Landed::Value(value)),
            Loaded::Absent => Some(Landed::Absence),
            Loaded::Failed => Some(Landed::Failure),
        });
        let package = self.pack(returned);
        async move {
            let stored = match package {
                Some(package) => permit.fill(self, package).await == Some(Filled::Stored),
                None => false,
            };
            self.answered(Status::Miss {
                stored,
                joined: false,
            });
        }
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

    pub(crate) fn pack_value<V: Cacheable>(
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

/// The return value that an entry stands for; `None` if the entry does not decode as it.
fn restore<R: Returns<S>, S>(content: Content, codec: CodecId, payload: &Payload) -> Option<R> {
    match content {
        Content::Absence => R::from_absence(),
        Content::Value => value_of(codec, payload).map(R::from_value),
        Content::Nothing => None,
    }
}

/// The value in a payload; `None` if it is another type's or damaged.
pub(crate) fn value_of<V: Cacheable>(codec: CodecId, payload: &Payload) -> Option<Arc<V>> {
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
        Landed::Failure => None,
        Landed::Absence => R::from_absence(),
        Landed::Value(value) => downcast(value).map(R::from_value),
    }
}
