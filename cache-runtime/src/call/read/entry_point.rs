//! Where generated code enters: a call before its body runs.

use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;

use super::answer::Answer;
use super::call::Call;
use super::context::LoadContext;
use super::detached;
use super::local_lookup::Begun;
use super::plan::ReadPlan;
use super::store_filter::{AllButOnce, Everything, Unless};
use crate::base::error::{Error, ErrorKind};
use crate::call::keep_alive::KeptAlive;
use crate::call::returns::{Kind, Returns};
use crate::call::{observe, scope};
use crate::engine::EngineRef;
use crate::key::Key;
use crate::registry::Site;

/// A call of a cached function, before its body runs.
#[derive(Debug)]
pub struct Read<R, S, U = Everything> {
    is_off: bool,
    /// `None` if the cache is off, or if nobody is to be asked: no more than the key is wanted, and it has been left.
    opening: Option<Opening<R>>,
    unless: U,
    kind: PhantomData<fn() -> (R, S)>,
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
                observe::record_disabled();
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
                observe::record_disabled();
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

impl Call {
    /// The same as a call of an annotated function.
    pub(crate) fn into_read<R: Returns<S>, S>(self) -> Read<R, S> {
        Read::opened(false, Opening::of(Begun::Call(Arc::new(self))))
    }
}

fn no_key() -> Result<Key, Error> {
    let text = "this call has no key: its cache is off";
    Err(Error::new(ErrorKind::InvalidKey, text))
}
