//! The future of a call.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::call::keep_alive::polled_after_end;
use crate::call::observe;
use crate::call::returns::ReturnShape;

pin_project_lite::pin_project! {
    /// The future of a call. It has these forms. A call that was answered already, and one whose
    /// cache is off, do none of the steps of the last form.
    #[project = AnsweringProjected]
    pub(super) enum Answering<R, F, A> {
        /// The answer is there.
        Found { value: Option<R> },
        /// The caller wanted only the key. The call never ends: nobody awaits it.
        KeyTaken,
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
                None => polled_after_end(),
            },
            AnsweringProjected::KeyTaken => Poll::Pending,
            AnsweringProjected::Off { body } => body.poll(context),
            AnsweringProjected::Asking { lookup } => lookup.poll(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Ready;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use futures_util::FutureExt as _;

    use super::*;

    type Answered = Answering<u8, Ready<u8>, Ready<u8>>;

    #[test]
    fn a_call_that_is_polled_after_its_end_panics() {
        let mut call = Answered::Found { value: Some(7) };
        assert_eq!((&mut call).now_or_never(), Some(7));
        let again = catch_unwind(AssertUnwindSafe(|| (&mut call).now_or_never()));
        let text = again.expect_err("it panics");
        let text = text.downcast_ref::<&str>().expect("a text");
        assert!(text.contains("after its end"), "{text}");
        assert_eq!(Answered::KeyTaken.now_or_never(), None);
    }
}
