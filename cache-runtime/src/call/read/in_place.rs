//! The future of a call whose body runs in place.
//!
//! Its steps are written out, and not in an `async` block: each annotated function has a copy of
//! this future, and a block makes several functions of each copy.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::load::{EndedLoad, Load};
use super::store_filter::StoreFilter;
use crate::call::keep_alive::{Step, polled_after_end};
use crate::call::returns::{ReturnShape, Returns};

pin_project_lite::pin_project! {
    /// The future of a call. The body stands before the load, so that it is dropped first.
    #[project = InPlaceProjected]
    pub(super) enum InPlace<R, S, B, F, U, A> {
        /// The answer is there.
        Found { value: Option<R> },
        /// The caller wanted only the key. The call never ends: nobody awaits it.
        KeyTaken,
        /// The cache is off: the function's body.
        Off {
            #[pin]
            body: F,
        },
        /// The store is asked. If it has no value, the body runs.
        Asking {
            #[pin]
            lookup: A,
            rest: Option<(B, U)>,
            shape: PhantomData<fn() -> S>,
        },
        /// The body runs, and its lease is renewed.
        Loading {
            #[pin]
            body: F,
            rest: Option<(Box<Load>, U)>,
        },
        /// The value is stored.
        Storing {
            step: Step<EndedLoad>,
            returned: Option<R>,
        },
    }
}

impl<R, S, B, F, U, A> Future for InPlace<R, S, B, F, U, A>
where
    R: Returns<S>,
    B: FnOnce(ReturnShape<R, S>) -> F,
    F: Future<Output = R>,
    U: StoreFilter<R::Value>,
    A: Future<Output = Result<R, Box<Load>>>,
{
    type Output = R;

    // A part that was taken is missing only if this is polled after its end.
    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        loop {
            let next = match self.as_mut().project() {
                InPlaceProjected::Found { value } => match value.take() {
                    Some(value) => return Poll::Ready(value),
                    None => polled_after_end(),
                },
                InPlaceProjected::KeyTaken => return Poll::Pending,
                InPlaceProjected::Off { body } => return body.poll(context),
                InPlaceProjected::Asking { lookup, rest, .. } => {
                    match (ready!(lookup.poll(context)), rest.take()) {
                        (Ok(value), _) => return Poll::Ready(value),
                        (Err(load), Some((body, unless))) => Self::Loading {
                            body: body(ReturnShape::OF),
                            rest: Some((load, unless)),
                        },
                        (Err(_), None) => polled_after_end(),
                    }
                }
                InPlaceProjected::Loading { body, rest } => {
                    let Some((load, _)) = rest else {
                        polled_after_end();
                    };
                    let returned = ready!(load.keep_alive().poll(body, context));
                    let Some((load, unless)) = rest.take() else {
                        polled_after_end();
                    };
                    Self::Storing {
                        step: load.completes(&returned, unless),
                        returned: Some(returned),
                    }
                }
                InPlaceProjected::Storing { step, returned } => {
                    let ended = ready!(step.as_mut().poll(context));
                    match returned.take() {
                        Some(returned) => return Poll::Ready(ended.returns(returned)),
                        None => polled_after_end(),
                    }
                }
            };
            self.set(next);
        }
    }
}
