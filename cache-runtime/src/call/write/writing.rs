//! The future of an invalidating call.
//!
//! Its steps are written out, as those of a read that runs its body in place, and for the same
//! reason: each annotated function has a copy of it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::guard::{StartedWrite, State, WriteInProgress, WriteOutcome};
use crate::base::error::Error;
use crate::base::mutation;
use crate::call::keep_alive::{Step, polled_after_end};

/// Decides the outcome of a write from what it returned.
pub(super) trait Classifier<R> {
    /// The shape that the body is told.
    type Shape;
    /// The shape.
    const SHAPE: Self::Shape;

    /// Runs only the author's code. If that panics, the write counts as one whose body panicked.
    fn classify(self, writing: &WriteInProgress, returned: &R) -> WriteOutcome;
}

/// The body, and how its result is classified or refused.
type Rest<R, B, C> = (B, C, Option<fn(Error) -> R>);

pin_project_lite::pin_project! {
    /// The future of a write. The body stands before the guard, so that it is dropped first.
    #[project = WritingProjected]
    pub(super) enum Writing<R, B, F, C> {
        /// The cache is off: the function's body.
        Off {
            #[pin]
            body: F,
        },
        /// The steps before the body.
        Beginning {
            beginning: Step<StartedWrite>,
            rest: Option<Rest<R, B, C>>,
        },
        /// The body runs, and its intent is renewed.
        Running {
            #[pin]
            body: F,
            rest: Option<(Box<WriteInProgress>, C)>,
        },
        /// The invalidation is acknowledged.
        Ending {
            ending: Step<()>,
            returned: Option<R>,
        },
    }
}

impl<R, B, F, C> Future for Writing<R, B, F, C>
where
    B: FnOnce(C::Shape) -> F,
    F: Future<Output = R>,
    C: Classifier<R>,
{
    type Output = R;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        loop {
            let next = match self.as_mut().project() {
                WritingProjected::Off { body } => return body.poll(context),
                WritingProjected::Beginning { beginning, rest } => {
                    let (mut writing, problem) = ready!(beginning.as_mut().poll(context));
                    let Some((body, classifier, refuse)) = rest.take() else {
                        polled_after_end();
                    };
                    if let (Some(refuse), Some(error)) = (refuse, problem) {
                        return Poll::Ready(refuse(error));
                    }
                    writing.guard.start_body();
                    Self::Running {
                        body: body(C::SHAPE),
                        rest: Some((writing, classifier)),
                    }
                }
                WritingProjected::Running { body, rest } => {
                    let Some((writing, _)) = rest else {
                        polled_after_end();
                    };
                    let returned = ready!(writing.guard.keep_alive.poll(body, context));
                    let Some((mut writing, classifier)) = rest.take() else {
                        polled_after_end();
                    };
                    if mutation::is_active("over-before-it-is-judged") {
                        writing.guard.state = State::Over;
                    }
                    let outcome = classifier.classify(&writing, &returned);
                    Self::Ending {
                        ending: writing.finish(outcome),
                        returned: Some(returned),
                    }
                }
                WritingProjected::Ending { ending, returned } => {
                    ready!(ending.as_mut().poll(context));
                    return match returned.take() {
                        Some(returned) => Poll::Ready(returned),
                        None => polled_after_end(),
                    };
                }
            };
            self.set(next);
        }
    }
}
