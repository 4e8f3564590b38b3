//! The entry point of generated code: a call before its body runs.

use std::marker::PhantomData;
use std::sync::Arc;

use super::answer::Answer;
use super::answer_slot::Slot;
use super::answering::Answering;
use super::blocking;
use super::call::Call;
use super::context::LoadContext;
use super::detached;
use super::in_place::InPlace;
use super::local_answer::LocalAnswer;
use super::plan::ReadPlan;
use super::returnable::Returnable;
use super::store_filter::{StoreAll, StoreFilter, StoreUnlessOnce};
use crate::base::background::detach;
use crate::base::error::{Error, ErrorKind};
use crate::call::returns::{ReturnShape, Returns};
use crate::call::{observe, scope};
use crate::engine::EngineRef;
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
            Some(cache) => planned(cache, site, resource, plan),
            None => without_cache(),
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

/// Runs the plan, and answers the call at once if possible.
// Not inlined: with the cache off, a call should do almost nothing. The call is not moved, but its
// pointer is: to read as a whole what was written in parts took 8 ns.
#[inline(never)]
fn planned<R, S, P>(
    cache: EngineRef<'_>,
    site: &'static Site,
    resource: &'static str,
    plan: P,
) -> LocalAnswer<R>
where
    R: Returns<S>,
    P: FnOnce(&mut ReadPlan) -> &mut ReadPlan,
{
    let instance = Instance::of_closure::<P>();
    let Some((mut planned, held_back)) = ReadPlan::begin(&cache, site, resource, instance) else {
        return without_cache();
    };
    plan(&mut planned);
    let mut call = planned.end(held_back);
    let returnable = Returnable::of::<R, S>();
    match call.again(&cache, returnable) {
        Some(value) => {
            call.leave_planned();
            LocalAnswer::Found(value).typed()
        }
        None => call.answer(cache, returnable).typed(),
    }
}

/// The answer to a call whose cache is off, or that has no key.
#[inline]
fn without_cache<R>() -> LocalAnswer<R> {
    let no_key = || {
        let text = "this call has no key: its cache is off";
        Err(Error::new(ErrorKind::InvalidKey, text))
    };
    match scope::takes_key(no_key) {
        true => LocalAnswer::KeyTaken,
        false => LocalAnswer::Off,
    }
}

impl Call {
    /// Turns a manual operation into the call of an annotated function.
    pub(crate) fn into_read<R: Returns<S>, S>(self) -> Read<R, S> {
        Read::with_answer(self.answer_locally(Returnable::of::<R, S>()).typed())
    }
}
