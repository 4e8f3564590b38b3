//! The future of a call.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::call::observe;
use crate::call::returns::ReturnShape;

pin_project_lite::pin_project! {
    /// The future of a call. It has three forms. A call that was answered already, and one whose
    /// cache is off, do none of the steps of the third form.
    #[project = AnsweringProjected]
    pub(super) enum Answering<R, F, A> {
        /// The answer is there. Without a value, the call never ends: nobody awaits it.
        Found { value: Option<R> },
        /// The cache is off: the function's body.
        Off {
            #[pin]
            body: F,
        },
        /// The store is asked.
        Asking {
            #[pin]
            lookup: A,
        },
    }
}

impl<R, F, A> Answering<R, F, A> {
    #[inline]
    pub(super) fn off<S>(body: impl FnOnce(ReturnShape<R, S>) -> F) -> Self {
        observe::record_disabled();
        Self::Off {
            body: body(ReturnShape::OF),
        }
    }
}

impl<R, F: Future<Output = R>, A: Future<Output = R>> Future for Answering<R, F, A> {
    type Output = R;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        match self.project() {
            AnsweringProjected::Found { value } => match value.take() {
                Some(value) => Poll::Ready(value),
                None => Poll::Pending,
            },
            AnsweringProjected::Off { body } => body.poll(context),
            AnsweringProjected::Asking { lookup } => lookup.poll(context),
        }
    }
}
