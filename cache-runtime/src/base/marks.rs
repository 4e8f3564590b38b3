//! Which scopes are around the current task, as bits that a call reads with one load.
//!
//! Each scope keeps what it says in a task-local. To look into one costs about ten instructions, and
//! a hit in the process looked into five. So each scope also sets a bit while its future is polled,
//! and a call looks into a task-local only if its bit is set.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    static MARKS: Cell<Marks> = const { Cell::new(Marks(0)) };
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks(u8);

impl Marks {
    pub(crate) const NONE: Self = Self(0);
    /// `bypass` or `refresh`.
    pub(crate) const MODE: Self = Self(1);
    /// `strict`.
    pub(crate) const STRICT: Self = Self(1 << 1);
    /// A transaction.
    pub(crate) const TRANSACTION: Self = Self(1 << 2);
    /// The body of an annotated function.
    pub(crate) const BODY: Self = Self(1 << 3);
    /// An observer.
    pub(crate) const OBSERVED: Self = Self(1 << 4);
    /// A request with a memo.
    pub(crate) const REQUEST: Self = Self(1 << 5);
    /// A request whose memo is of all functions, and not only of those that ask for it.
    pub(crate) const MEMO_OF_ALL: Self = Self(1 << 6);
    /// The next annotated function only leaves its key. It is set during one poll, by hand.
    pub(crate) const KEY: Self = Self(1 << 7);

    /// The scopes around the current task.
    #[inline]
    pub(crate) fn now() -> Self {
        MARKS.get()
    }

    #[inline]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Sets or clears one mark; returns whether it was set.
    #[inline]
    pub(crate) fn set(mark: Self, is_set: bool) -> bool {
        let Self(now) = Self::now();
        MARKS.set(Self(match is_set {
            true => now | mark.0,
            false => now & !mark.0,
        }));
        now & mark.0 != 0
    }

    /// Whether the two sets have a scope in common.
    #[inline]
    pub(crate) const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}

/// Restores the marks, even if the poll panics.
struct Restore(Marks);

impl Drop for Restore {
    fn drop(&mut self) {
        // Whether a key is asked for is no scope: it may have been left meanwhile.
        let is_asked = Marks::now().has(Marks::KEY);
        MARKS.set(self.0);
        Marks::set(Marks::KEY, is_asked);
    }
}

/// Runs `call` with a mark.
pub(crate) fn under<T>(mark: Marks, call: impl FnOnce() -> T) -> T {
    let before = Marks::now();
    let _restore = Restore(before);
    MARKS.set(before.and(mark));
    call()
}

/// Polls `future` with a mark.
pub(crate) fn marked<F: Future>(mark: Marks, future: F) -> Marked<F> {
    let future = Some(future);
    Marked { mark, future }
}

pin_project_lite::pin_project! {
    /// A future that is polled with a mark.
    #[derive(Debug)]
    pub(crate) struct Marked<F> {
        mark: Marks,
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for Marked<F> {
        // Under the mark, as a task-local stands while its future is dropped.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            under(*this.mark, || this.future.set(None));
        }
    }
}

impl<F: Future> Future for Marked<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        match this.future.as_pin_mut() {
            Some(future) => under(*this.mark, || future.poll(cx)),
            // It is there until it is dropped.
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mark_stands_while_its_future_is_polled() {
        let inner = async {
            tokio::task::yield_now().await;
            Marks::now()
        };
        let beside = async {
            let before = Marks::now();
            tokio::task::yield_now().await;
            (before, Marks::now())
        };
        let (inner, beside) = tokio::join!(
            marked(Marks::MODE, marked(Marks::STRICT, inner)),
            marked(Marks::OBSERVED, beside)
        );
        assert_eq!(inner, Marks::MODE.and(Marks::STRICT));
        assert_eq!(beside, (Marks::OBSERVED, Marks::OBSERVED));
        assert_eq!(Marks::now(), Marks(0));
    }

    #[tokio::test]
    async fn a_mark_stands_while_its_future_is_dropped() {
        struct Looks<'a>(&'a Cell<Option<Marks>>);
        impl Drop for Looks<'_> {
            fn drop(&mut self) {
                self.0.set(Some(Marks::now()));
            }
        }
        let seen = Cell::new(None);
        let looks = Looks(&seen);
        let waits = async move {
            let _looks = looks;
            std::future::pending::<()>().await;
        };
        let mut waits = Box::pin(marked(Marks::TRANSACTION, waits));
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        drop(waits);
        assert_eq!(seen.get(), Some(Marks::TRANSACTION));
        assert_eq!(Marks::now(), Marks(0));
    }

    #[test]
    fn what_is_set_by_hand_is_no_scope() {
        assert!(!Marks::set(Marks::KEY, true));
        under(Marks::STRICT, || {
            assert!(Marks::set(Marks::KEY, false));
        });
        assert_eq!(Marks::now(), Marks(0), "it is not set again");
    }

    #[test]
    fn a_mark_ends_with_a_panic() {
        let panics = || under(Marks::BODY, || panic!("on purpose"));
        let _ = std::panic::catch_unwind(panics);
        assert_eq!(Marks::now(), Marks(0));
    }
}
