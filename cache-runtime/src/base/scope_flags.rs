//! Which scopes are around the current task, as bits that a call reads with one load.
//!
//! Each scope keeps what it says in a task-local. To look into one costs about ten instructions,
//! and a hit in the process looked into five. So each scope also sets a bit while its future is
//! polled, and a call looks into a task-local only if its bit is set.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    static SCOPE_FLAGS: Cell<ScopeFlags> = const { Cell::new(ScopeFlags(0)) };
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScopeFlags(u8);

impl ScopeFlags {
    pub(crate) const NONE: Self = Self(0);
    /// `bypass` or `refresh`.
    pub(crate) const MODE: Self = Self(1);
    /// `strict`, asked for by the program. [`BODY`](Self::BODY) implies it.
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
    /// Those that a task of its own can have from the one that has spawned it.
    pub(crate) const INHERITED: Self = Self::MODE
        .and(Self::STRICT)
        .and(Self::BODY)
        .and(Self::REQUEST)
        .and(Self::MEMO_OF_ALL);

    /// The scopes around the current task.
    #[inline]
    pub(crate) fn now() -> Self {
        SCOPE_FLAGS.get()
    }

    #[inline]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of them that are in `these`.
    pub(crate) const fn only(self, these: Self) -> Self {
        Self(self.0 & these.0)
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Sets or clears one flag; returns whether it was set.
    #[inline]
    pub(crate) fn set(flag: Self, is_set: bool) -> bool {
        let Self(now) = Self::now();
        SCOPE_FLAGS.set(Self(match is_set {
            true => now | flag.0,
            false => now & !flag.0,
        }));
        now & flag.0 != 0
    }

    /// Whether the two sets have a scope in common.
    #[inline]
    pub(crate) const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}

/// Restores the flags, even if the poll panics.
struct Restore(ScopeFlags);

impl Drop for Restore {
    fn drop(&mut self) {
        // Whether a key is asked for is no scope: it may have been left meanwhile.
        let is_asked = ScopeFlags::now().has(ScopeFlags::KEY);
        SCOPE_FLAGS.set(self.0);
        ScopeFlags::set(ScopeFlags::KEY, is_asked);
    }
}

/// Runs `call` with a flag.
pub(crate) fn under<T>(flag: ScopeFlags, call: impl FnOnce() -> T) -> T {
    let before = ScopeFlags::now();
    let _restore = Restore(before);
    SCOPE_FLAGS.set(before.and(flag));
    call()
}

/// Polls `future` with a flag.
pub(crate) fn flagged<F: Future>(flag: ScopeFlags, future: F) -> Flagged<F> {
    let future = Some(future);
    Flagged { flag, future }
}

pin_project_lite::pin_project! {
    /// A future that is polled with a flag.
    #[derive(Debug)]
    pub(crate) struct Flagged<F> {
        flag: ScopeFlags,
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for Flagged<F> {
        // Under the flag, as a task-local stands while its future is dropped.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            under(*this.flag, || this.future.set(None));
        }
    }
}

impl<F: Future> Future for Flagged<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        match this.future.as_pin_mut() {
            Some(future) => under(*this.flag, || future.poll(cx)),
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
            ScopeFlags::now()
        };
        let beside = async {
            let before = ScopeFlags::now();
            tokio::task::yield_now().await;
            (before, ScopeFlags::now())
        };
        let (inner, beside) = tokio::join!(
            flagged(ScopeFlags::MODE, flagged(ScopeFlags::STRICT, inner)),
            flagged(ScopeFlags::OBSERVED, beside)
        );
        assert_eq!(inner, ScopeFlags::MODE.and(ScopeFlags::STRICT));
        assert_eq!(beside, (ScopeFlags::OBSERVED, ScopeFlags::OBSERVED));
        assert_eq!(ScopeFlags::now(), ScopeFlags(0));
    }

    #[tokio::test]
    async fn a_mark_stands_while_its_future_is_dropped() {
        struct Looks<'a>(&'a Cell<Option<ScopeFlags>>);
        impl Drop for Looks<'_> {
            fn drop(&mut self) {
                self.0.set(Some(ScopeFlags::now()));
            }
        }
        let seen = Cell::new(None);
        let looks = Looks(&seen);
        let waits = async move {
            let _looks = looks;
            std::future::pending::<()>().await;
        };
        let mut waits = Box::pin(flagged(ScopeFlags::TRANSACTION, waits));
        let polled =
            std::future::poll_fn(|context| Poll::Ready(waits.as_mut().poll(context))).await;
        assert!(polled.is_pending());
        drop(waits);
        assert_eq!(seen.get(), Some(ScopeFlags::TRANSACTION));
        assert_eq!(ScopeFlags::now(), ScopeFlags(0));
    }

    #[test]
    fn values_set_by_hand_are_no_scope() {
        assert!(!ScopeFlags::set(ScopeFlags::KEY, true));
        under(ScopeFlags::STRICT, || {
            assert!(ScopeFlags::set(ScopeFlags::KEY, false));
        });
        assert_eq!(ScopeFlags::now(), ScopeFlags(0), "it is not set again");
    }

    #[test]
    fn a_mark_ends_with_a_panic() {
        let panics = || under(ScopeFlags::BODY, || panic!("on purpose"));
        let _ = std::panic::catch_unwind(panics);
        assert_eq!(ScopeFlags::now(), ScopeFlags(0));
    }
}
