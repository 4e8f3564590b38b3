//! One invalidating call: its body, and the invalidation that follows from the outcome.
//!
//! | the body | the cache |
//! |---|---|
//! | returned `Ok`, or a plain value | invalidated at once, before the caller gets the value |
//! | returned `Err` | the same, and once more at the end of the in-doubt window: an error may hide a commit |
//! | returned an `Err` that wrote nothing (`rejected`, `on = ok`) | nothing |
//! | was dropped, or panicked | a guard puts an intent until the end of the in-doubt window, so that nothing is stored; invalidated once more then |
//! | is `crash_safe` | an intent stands before the body runs, and ends with the invalidation |

mod guard;
mod plan;
mod writing;

use std::marker::PhantomData;

use self::guard::{WriteInProgress, WriteOutcome};
pub(crate) use self::plan::PlannedWrite;
pub use self::plan::WritePlan;
use self::writing::{Classifier, Writing};
use crate::base::error::Error;
use crate::call::returns::{ReturnShape, WriteReturns};
use crate::call::scope;
use crate::engine::Handle;
use crate::registry::Site;

/// How `rejected` is typed while nobody has given one.
pub(crate) type Never<R, S> = fn(&<R as WriteReturns<S>>::Error) -> bool;

/// Tells which errors wrote nothing.
pub trait IsRejected<E> {
    /// Whether this one is of a write that changed nothing.
    fn is_rejected(&self, error: &E) -> bool;
}

impl<E> IsRejected<E> for fn(&E) -> bool {
    fn is_rejected(&self, error: &E) -> bool {
        self(error)
    }
}

/// The function of `rejected`. It also holds how to call the function. So the compiler reports a
/// wrong function where it is passed, and not again where the body runs.
#[derive(Debug)]
pub struct Rejected<F, E> {
    function: F,
    call: fn(&F, &E) -> bool,
}

impl<F, E> IsRejected<E> for Rejected<F, E> {
    fn is_rejected(&self, error: &E) -> bool {
        (self.call)(&self.function, error)
    }
}

/// How `result` is typed while nobody has given one.
pub(crate) type Unchanged<R, S> =
    for<'a, 'r> fn(WritePlan<'a>, &'r <R as WriteReturns<S>>::Value) -> WritePlan<'a>;

/// A call of an invalidating function, before its body runs.
#[derive(Debug)]
#[must_use]
pub struct Write<R, S, J, D> {
    /// The cache, and what to invalidate if the result says nothing more. `None` if the cache is
    /// off.
    active: Option<Box<(Handle, PlannedWrite)>>,
    site: &'static Site,
    on_ok: bool,
    rejected: Option<J>,
    result: Option<D>,
    /// Makes the result of a call that is refused while the store is away.
    refuse: Option<fn(Error) -> R>,
    kind: PhantomData<fn() -> (R, S)>,
}

#[inline(never)]
fn planned(
    cache: Handle,
    site: &'static Site,
    plan: impl for<'a> FnOnce(WritePlan<'a>) -> WritePlan<'a>,
) -> Box<(Handle, PlannedWrite)> {
    let held_back = scope::hold_key_back();
    let planned = plan(WritePlan::new(&cache, Some(site))).finish();
    drop(held_back);
    Box::new((cache, planned))
}

impl<S, R: WriteReturns<S>> Write<R, S, Never<R, S>, Unchanged<R, S>> {
    /// Prepares the call. `plan` runs only if a cache is on, and before the arguments move into the
    /// body.
    #[inline]
    pub(crate) fn new(
        cache: Option<Handle>,
        site: &'static Site,
        plan: impl for<'a> FnOnce(WritePlan<'a>) -> WritePlan<'a>,
    ) -> Self {
        Self {
            active: cache.map(|cache| planned(cache, site, plan)),
            site,
            on_ok: false,
            rejected: None,
            result: None,
            refuse: None,
            kind: PhantomData,
        }
    }
}

impl<S, R: WriteReturns<S>, J, D> Write<R, S, J, D> {
    /// The author guarantees that no error hides a commit.
    pub fn on_ok(mut self) -> Self {
        self.on_ok = true;
        self
    }

    /// Refuses the write while the store is away.
    pub fn required(mut self) -> Self
    where
        R: Refusable,
    {
        self.refuse = Some(R::refused);
        self
    }

    /// Tells which errors wrote nothing.
    pub fn rejected<F: Fn(&R::Error) -> bool>(
        self,
        rejected: F,
    ) -> Write<R, S, Rejected<F, R::Error>, D>
    where
        R: CanFail,
    {
        Write {
            active: self.active,
            site: self.site,
            on_ok: self.on_ok,
            rejected: Some(Rejected {
                function: rejected,
                call: |function, error| function(error),
            }),
            result: self.result,
            refuse: self.refuse,
            kind: PhantomData,
        }
    }

    /// Adds what to invalidate once there is a result.
    pub fn result<D2>(self, result: D2) -> Write<R, S, J, D2>
    where
        D2: for<'a, 'r> FnOnce(WritePlan<'a>, &'r R::Value) -> WritePlan<'a>,
    {
        Write {
            active: self.active,
            site: self.site,
            on_ok: self.on_ok,
            rejected: self.rejected,
            result: Some(result),
            refuse: self.refuse,
            kind: PhantomData,
        }
    }
}

impl<S, R, J, D> Write<R, S, J, D>
where
    R: WriteReturns<S>,
    J: IsRejected<R::Error>,
    D: for<'a, 'r> FnOnce(WritePlan<'a>, &'r R::Value) -> WritePlan<'a>,
{
    /// Runs `body`, then invalidates, then returns the result of `body`.
    ///
    /// # Cancel safety
    /// If dropped while the body runs, the future enqueues an intent, so that nothing is stored
    /// until the end of the in-doubt window, and one more invalidation for that deadline. If
    /// dropped later, nothing changes, because the invalidation is already enqueued.
    // This body is compiled once for each annotated function, so the steps are elsewhere.
    #[inline]
    pub fn run<F>(self, body: impl FnOnce(ReturnShape<R, S>) -> F) -> impl Future<Output = R>
    where
        F: Future<Output = R>,
    {
        let beginning = guard::begin(self.active, self.site, self.refuse.is_some());
        let Some(beginning) = beginning else {
            return Writing::Off {
                body: body(ReturnShape::OF),
            };
        };
        let classifier = OutcomeClassifier {
            site: self.site,
            on_ok: self.on_ok,
            rejected: self.rejected,
            result: self.result,
            kind: PhantomData,
        };
        Writing::Beginning {
            beginning,
            rest: Some((body, classifier, self.refuse)),
        }
    }
}

/// Decides the outcome of a write from its result, with the options of the attribute.
struct OutcomeClassifier<R, S, J, D> {
    site: &'static Site,
    on_ok: bool,
    rejected: Option<J>,
    result: Option<D>,
    kind: PhantomData<fn() -> (R, S)>,
}

impl<R, S, J, D> Classifier<R> for OutcomeClassifier<R, S, J, D>
where
    R: WriteReturns<S>,
    J: IsRejected<R::Error>,
    D: for<'a, 'r> FnOnce(WritePlan<'a>, &'r R::Value) -> WritePlan<'a>,
{
    type Shape = ReturnShape<R, S>;
    const SHAPE: Self::Shape = ReturnShape::OF;

    fn classify(self, writing: &WriteInProgress, returned: &R) -> WriteOutcome {
        let error = returned.error();
        WriteOutcome {
            has_failed: returned.has_failed(),
            wrote_nothing: error.is_some_and(|error| {
                crate::base::mutation::is_active("errors-not-invalidated")
                    || self.on_ok
                    || self
                        .rejected
                        .is_some_and(|rejected| rejected.is_rejected(error))
            }),
            known: match (self.result, returned.value()) {
                (Some(result), Some(value)) => {
                    let plan = WritePlan::new(&writing.guard.cache, Some(self.site));
                    Some(Box::new(result(plan, value).finish()))
                }
                _ => None,
            },
        }
    }
}

/// A return type that can hold an error.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no errors that `rejected` could tell apart",
    label = "this is no `Result`",
    note = "return `Result<T, E>`, or leave `rejected` out of `#[invalidates(..)]`"
)]
pub trait CanFail {}

#[diagnostic::do_not_recommend]
impl<T, E> CanFail for Result<T, E> {}

/// A return type that can report a refused write.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say that the write was refused",
    note = "a function under `#[invalidates(.., required)]` returns `Result<T, E>`, where `E` implements `From<cache_runtime::Error>`"
)]
pub trait Refusable {
    /// The result for a write that was refused because of this error.
    fn refused(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T, E: From<Error>> Refusable for Result<T, E> {
    fn refused(error: Error) -> Self {
        Err(error.into())
    }
}
