//! The entry point of generated code: a call before its body runs.

use std::any::TypeId;
use std::marker::PhantomData;
use std::sync::Arc;

use super::answer::Answer;
use super::answer_slot::Slot;
use super::answering::Answering;
use super::audit::audited;
use super::blocking;
use super::call::Call;
use super::context::LoadContext;
use super::detached;
use super::in_place::InPlace;
use super::keyed_call::KeyedCall;
use super::local::again::Returnable;
use super::plan::ReadPlan;
use super::prepared::PreparedCall;
use super::store_filter::{StoreAll, StoreFilter, StoreUnlessOnce};
use crate::base::background::detach;
use crate::base::error::{Error, ErrorKind};
use crate::call::returns::{ReturnShape, Returns};
use crate::call::{observe, scope};
use crate::engine::EngineRef;
use crate::key::Key;
use crate::local::AnyValue;
use crate::registry::{Instance, Site};

/// A call of a cached function, before its body runs.
#[derive(Debug)]
pub struct Read<R, S, U = StoreAll> {
    local_answer: LocalAnswer<R>,
    unless: U,
    kind: PhantomData<fn() -> (R, S)>,
}

impl<R: Returns<S>, S> Read<R, S> {
    /// Prepares the call, and answers it at once if possible. `plan` runs only if a cache is on,
    /// and before the arguments move into the body.
    #[inline]
    pub(crate) fn new(
        cache: Option<EngineRef<'_>>,
        site: &'static Site,
        resource: &'static str,
        plan: impl FnOnce(&mut ReadPlan) -> &mut ReadPlan,
    ) -> Self {
        Self::with_answer(match cache {
            Some(cache) => LocalAnswer::of(cache, site, resource, plan),
            None => LocalAnswer::without_cache(),
        })
    }

    #[inline]
    fn with_answer(local_answer: LocalAnswer<R>) -> Self {
        Self {
            local_answer,
            unless: StoreAll,
            kind: PhantomData,
        }
    }

    /// Refuses to store some values.
    pub fn unless<F: FnOnce(&R::Value) -> bool>(
        self,
        refuses: F,
    ) -> Read<R, S, StoreUnlessOnce<F, R::Value>> {
        Read {
            local_answer: self.local_answer,
            unless: StoreUnlessOnce::once(refuses),
            kind: PhantomData,
        }
    }
}

impl<R, S, U> Read<R, S, U> {
    /// Lets the body decide how long its value is cached.
    pub fn context(mut self, context: &LoadContext) -> Self {
        if let LocalAnswer::Ask(call) = &mut self.local_answer
            && let Some(call) = Arc::get_mut(call)
        {
            context.begin(&call.cache, call.site);
            call.context = Some(context.clone());
        }
        self
    }

    /// Answers from the cache, or runs `body` and stores what it returns.
    ///
    /// # Cancel safety
    /// If dropped, a lease that it holds is given back. A partial value is never served.
    // Not an `async fn`, which would move the call into the future, though most calls are answered
    // before there is one. This body is compiled once for each annotated function, so the steps are
    // elsewhere.
    #[inline]
    pub fn run<F>(self, body: impl FnOnce(ReturnShape<R, S>) -> F) -> impl Future<Output = R>
    where
        // On the method and not on the type, so that an unmet bound is reported once, at the return
        // type.
        R: Returns<S>,
        U: StoreFilter<R::Value>,
        F: Future<Output = R>,
    {
        match self.local_answer {
            LocalAnswer::Found(value) => InPlace::Found { value: Some(value) },
            LocalAnswer::Off => {
                observe::record_disabled();
                InPlace::Off {
                    body: body(ReturnShape::OF),
                }
            }
            LocalAnswer::KeyTaken => InPlace::KeyTaken,
            LocalAnswer::Ask(call) => InPlace::Asking {
                lookup: call.answer_or_load::<R, S>(),
                rest: Some((body, self.unless)),
                shape: PhantomData,
            },
        }
    }

    /// Does the same with a body that owns everything it needs. So the body may go on in the
    /// background, on the caller's runtime, after the caller has its answer.
    ///
    /// # Cancel safety
    /// Like [`run`](Self::run). Work in the background no longer belongs to the caller.
    pub fn run_detached<F>(
        self,
        body: impl FnOnce(ReturnShape<R, S>) -> F,
    ) -> impl Future<Output = R>
    where
        R: Returns<S> + Send + 'static,
        S: 'static,
        U: StoreFilter<R::Value> + Send + 'static,
        F: Future<Output = R> + Send + 'static,
    {
        let unless = self.unless;
        match self.local_answer {
            LocalAnswer::Found(value) => Answering::Found { value: Some(value) },
            LocalAnswer::Off => Answering::off(body),
            LocalAnswer::KeyTaken => Answering::KeyTaken,
            LocalAnswer::Ask(call) => Answering::Asking {
                lookup: async move {
                    let mut slot = Slot::of::<R, S>();
                    let answer = Arc::clone(&call).answer_any(&mut slot).await;
                    let value = match (answer, slot.returned()) {
                        (Answer::Found, Some(value)) => value,
                        (Answer::Revalidate(load), Some(value)) => {
                            detach(detached::load(load, body(ReturnShape::OF), unless));
                            value
                        }
                        // The load itself is remembered, unless its value is for this call only.
                        (Answer::Run(load) | Answer::Revalidate(load), _) => {
                            let body = || body(ReturnShape::OF);
                            return detached::load_or_wait(load, body, unless).await;
                        }
                        // Nothing is found without a value.
                        (Answer::Found, None) => return body(ReturnShape::OF).await,
                    };
                    call.remember(|| call.result_for_waiters(&value));
                    value
                },
            },
        }
    }

    /// The same for a function that is not `async`: it blocks its thread while another one loads,
    /// and asks nothing outside of the process.
    pub fn run_sync(self, body: impl FnOnce(ReturnShape<R, S>) -> R) -> R
    where
        R: Returns<S>,
        U: StoreFilter<R::Value>,
    {
        let call = match self.local_answer {
            LocalAnswer::Found(value) => return value,
            LocalAnswer::Ask(call) => call,
            LocalAnswer::Off => {
                observe::record_disabled();
                return body(ReturnShape::OF);
            }
            // Nobody awaits the key of this call.
            LocalAnswer::KeyTaken => return body(ReturnShape::OF),
        };
        let mut load = match blocking::begin(call) {
            Ok(value) => return value,
            Err(load) => load,
        };
        let returned = load.keep_alive().during(|| body(ReturnShape::OF));
        blocking::over(load, returned, self.unless)
    }
}

/// The state of a call before anything is awaited.
#[derive(Debug)]
enum LocalAnswer<R> {
    /// The cache is off.
    Off,
    /// Only the key was wanted, and has been left for the caller.
    KeyTaken,
    /// Return this value.
    Found(R),
    /// Ask the store.
    Ask(Arc<Call>),
}

impl<R> LocalAnswer<R> {
    // Not inlined: with the cache off, a call should do almost nothing. The call is not moved, but
    // its pointer is: to read as a whole what was written in parts took 8 ns.
    #[inline(never)]
    fn of<S, P>(cache: EngineRef<'_>, site: &'static Site, resource: &'static str, plan: P) -> Self
    where
        R: Returns<S>,
        P: FnOnce(&mut ReadPlan) -> &mut ReadPlan,
    {
        let instance = Instance::of_closure::<P>();
        let Some((mut planned, held_back)) = ReadPlan::begin(&cache, site, resource, instance)
        else {
            return Self::without_cache();
        };
        plan(&mut planned);
        Self::of_planned(cache, planned.end(held_back))
    }

    // In debug builds compiled once for each return type, and not in each function.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn of_planned<S>(cache: EngineRef<'_>, mut call: Box<PreparedCall>) -> Self
    where
        R: Returns<S>,
    {
        let returnable = Returnable {
            type_id: TypeId::of::<R::Value>,
            absence: R::from_absence().is_some(),
        };
        if let Some(value) = call.again(&cache, returnable)
            && let Some(value) = Self::returned(value)
        {
            call.leave_planned();
            return Self::Found(value);
        }
        Self::of_keyed(KeyedCall::PreparedCall(cache, call))
    }

    #[inline]
    fn returned<S>(value: Option<AnyValue>) -> Option<R>
    where
        R: Returns<S>,
    {
        match value {
            Some(value) => value.downcast().ok().map(R::from_value),
            None => R::from_absence(),
        }
    }

    /// The answer to a call whose cache is off, or that has no key.
    #[inline]
    fn without_cache() -> Self {
        match scope::takes_key(no_key) {
            true => Self::KeyTaken,
            false => Self::Off,
        }
    }

    /// The same for a call that the thread's own memory does not answer.
    // Compiled once for each return type, not in each function.
    #[inline(never)]
    fn of_keyed<S>(mut call: KeyedCall<'_>) -> Self
    where
        R: Returns<S>,
    {
        let takes_key = scope::takes_key(|| {
            call.write_key();
            call.check();
            call.key()
        });
        if takes_key {
            call.leave();
            return Self::KeyTaken;
        }
        Self::ask(call)
    }

    /// Answers a call that the thread's own memory does not answer.
    #[inline(never)]
    fn ask<S>(mut call: KeyedCall<'_>) -> Self
    where
        R: Returns<S>,
    {
        call.write_key();
        call.check();
        if let Some(value) = call.recall() {
            // Not audited: a request may miss the writes of others.
            call.leave();
            return Self::Found(value);
        }
        let found: Option<R> = call.find();
        if let Some(value) = &found {
            call.remember(value);
        }
        let Some(value) = found else {
            return Self::Ask(call.into_call());
        };
        if let Some(draw) = call.draw() {
            return match audited(&value, draw) {
                Some(hit) => Self::Ask(call.into_audited(hit)),
                None => Self::Found(value),
            };
        }
        call.note_found::<R::Value>();
        call.leave();
        Self::Found(value)
    }
}

impl Call {
    /// Turns a manual operation into the call of an annotated function.
    pub(crate) fn into_read<R: Returns<S>, S>(self) -> Read<R, S> {
        Read::with_answer(LocalAnswer::of_keyed(KeyedCall::Call(Arc::new(self))))
    }
}

fn no_key() -> Result<Key, Error> {
    let text = "this call has no key: its cache is off";
    Err(Error::new(ErrorKind::InvalidKey, text))
}
