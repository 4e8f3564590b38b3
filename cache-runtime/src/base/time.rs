//! Waiting for a time, wherever the caller runs.
//!
//! Tokio's timers belong to the runtime that makes them, and to make one without a runtime, or on
//! one whose timer was not turned on, is a panic. Calls of annotated functions may run on such
//! threads: in `futures::executor::block_on`, in a callback of another library, under another
//! executor. A program whose cache is off works there, so one whose cache is on has to as well. The
//! timers of such callers belong to a runtime with one thread, which is started for the first of
//! them.

use std::cell::Cell;
use std::future::IntoFuture;
use std::panic::catch_unwind;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Handle, Id};
pub(crate) use tokio::time::Instant;
#[cfg(test)]
pub(crate) use tokio::time::advance;
use tokio::time::{Interval, Sleep, Timeout};

/// Like [`tokio::time::timeout`].
#[inline]
pub(crate) fn timeout<F: IntoFuture>(limit: Duration, future: F) -> Timeout<F::IntoFuture> {
    let _entered = with_timer();
    tokio::time::timeout(limit, future)
}

/// Like [`tokio::time::timeout_at`].
#[inline]
pub(crate) fn timeout_at<F: IntoFuture>(end: Instant, future: F) -> Timeout<F::IntoFuture> {
    let _entered = with_timer();
    tokio::time::timeout_at(end, future)
}

/// Like [`tokio::time::sleep`].
#[inline]
pub(crate) fn sleep(time: Duration) -> Sleep {
    let _entered = with_timer();
    tokio::time::sleep(time)
}

/// Like [`tokio::time::sleep_until`].
#[inline]
pub(crate) fn sleep_until(end: Instant) -> Sleep {
    let _entered = with_timer();
    tokio::time::sleep_until(end)
}

/// Like [`tokio::time::interval_at`].
#[inline]
pub(crate) fn interval_at(start: Instant, period: Duration) -> Interval {
    let _entered = with_timer();
    tokio::time::interval_at(start, period)
}

/// The runtime that tasks of the current thread run on: that of the caller, or the shared one.
/// `None` if there is neither.
pub(crate) fn runtime() -> Option<Handle> {
    Handle::try_current().ok().or_else(|| SHARED.clone())
}

/// The runtime of callers who have none with a timer. `None` if its thread can't be started.
static SHARED: LazyLock<Option<Handle>> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("cache-timer".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .ok()?;
    Some(handle)
});

/// Enters the shared runtime if the caller has none with a timer. A timer remembers the runtime
/// that it was made on, so this is not needed while it is waited for.
#[inline]
fn with_timer() -> Option<EnterGuard<'static>> {
    if crate::base::mutation::is_active("timers-of-callers-alone") {
        return None;
    }
    match Handle::try_current() {
        Ok(runtime) if has_timer(&runtime) => None,
        _ => SHARED.as_ref().map(Handle::enter),
    }
}

/// Whether timers can be made on the current thread's runtime.
#[inline]
fn has_timer(runtime: &Handle) -> bool {
    thread_local! {
        static KNOWN: Cell<Option<(Id, bool)>> = const { Cell::new(None) };
    }
    let id = runtime.id();
    match KNOWN.get() {
        Some((known, has_timer)) if known == id => has_timer,
        _ => {
            let has_timer = can_make_timer();
            KNOWN.set(Some((id, has_timer)));
            has_timer
        }
    }
}

/// Tries it: Tokio has no way to ask. The message of the panic, which the program may print, says
/// what is missing.
#[cold]
fn can_make_timer() -> bool {
    let can = catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok();
    if !can {
        tracing::warn!(
            "a Tokio runtime that calls cached functions has no timer; the cache uses one of its \
             own there, which costs a thread: build the runtime with `enable_time` or `enable_all`"
        );
    }
    can
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Wake};

    use super::*;

    #[test]
    fn whoever_has_no_timer_uses_the_shared_one() {
        let wait = || async {
            let short = Duration::from_millis(1);
            sleep(short).await;
            sleep_until(Instant::now() + short).await;
            let never = std::future::pending::<()>();
            assert!(timeout(short, never).await.is_err());
            let never = std::future::pending::<()>();
            assert!(timeout_at(Instant::now(), never).await.is_err());
            interval_at(Instant::now(), short).tick().await;
        };
        block_on(wait());
        let runtime = Builder::new_current_thread().build().expect("built");
        runtime.block_on(wait());
        let runtime = Builder::new_current_thread().enable_time().build();
        runtime.expect("built").block_on(wait());
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_runtime_with_a_timer_is_its_own() {
        sleep(Duration::from_secs(3_600)).await;
    }

    /// As executors do that are not Tokio's.
    fn block_on(future: impl Future<Output = ()>) {
        struct Unpark(std::thread::Thread);

        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }

        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(future);
        while future.as_mut().poll(&mut context).is_pending() {
            std::thread::park();
        }
    }
}
