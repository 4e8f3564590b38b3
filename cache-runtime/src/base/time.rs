//! Waiting for a time, wherever the caller runs.
//!
//! Tokio's timers belong to the runtime that makes them, and to make one without a runtime, or on
//! one whose timer was not turned on, is a panic. Calls of annotated functions may run on such
//! threads: in `futures::executor::block_on`, in a callback of another library, under another
//! executor. A program whose cache is off works there, so one whose cache is on has to as well. The
//! timers of such callers belong to a runtime with one thread, which is started for the first of
//! them. Bodies that outlive the calls of such callers have threads of their own: they may block.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::IntoFuture;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
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

/// Runs a task on the current runtime. Without one, it runs on a thread of its own, since it may
/// block: on that of the timers it would stop the time of all such callers.
pub(crate) fn spawn(task: Pin<Box<dyn Future<Output = ()> + Send>>) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(task);
    } else if let Some(runtime) = &*SHARED {
        match crate::base::mutation::is_active("bodies-on-the-thread-of-timers") {
            true => drop(runtime.spawn(task)),
            false => drop(runtime.spawn_blocking(|| runtime.block_on(task))),
        }
    }
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
            let has_timer = can_make_timer(id);
            KNOWN.set(Some((id, has_timer)));
            has_timer
        }
    }
}

/// Tries it: Tokio has no way to ask. The message of the panic, which the program may print, says
/// what is missing. So a runtime that failed is not tried again where another thread meets it, or
/// where a thread has used another one meanwhile.
#[cold]
fn can_make_timer(runtime: Id) -> bool {
    static WITHOUT: Mutex<VecDeque<Id>> = Mutex::new(VecDeque::new());
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if WITHOUT.lock().contains(&runtime) {
        return false;
    }
    if catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok() {
        return true;
    }
    let mut without = WITHOUT.lock();
    if without.len() == MOST_WITHOUT {
        without.pop_front();
    }
    without.push_back(runtime);
    drop(without);
    if !IS_TOLD.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "a Tokio runtime that calls cached functions has no timer; the cache uses one of its \
             own there, which costs a thread: build the runtime with `enable_time` or `enable_all`"
        );
    }
    false
}

/// This many runtimes without a timer are remembered.
const MOST_WITHOUT: usize = 64;

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
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

    #[test]
    fn a_runtime_without_a_timer_is_tried_once() {
        let without = || Builder::new_current_thread().build().expect("built");
        let with = Builder::new_current_thread().enable_time().build();
        let (with, one, other) = (with.expect("built"), without(), without());
        let panics = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&panics);
        let alternates = move |panics: &AtomicUsize| {
            let mut before = panics.load(Ordering::SeqCst);
            for round in 0..3 {
                for runtime in [&one, &with, &other] {
                    runtime.block_on(async { sleep(Duration::from_millis(1)).await });
                }
                let now = panics.load(Ordering::SeqCst);
                let expected = if round == 0 { 2 } else { 0 };
                assert_eq!(now - before, expected, "round {round}");
                before = now;
            }
        };
        let this = std::thread::current().id();
        let usual = Arc::new(std::panic::take_hook());
        let usually = Arc::clone(&usual);
        std::panic::set_hook(Box::new(move |panic| {
            match std::thread::current().id() == this {
                true => drop(counted.fetch_add(1, Ordering::SeqCst)),
                false => usually(panic),
            }
        }));
        let result = catch_unwind(AssertUnwindSafe(|| alternates(&panics)));
        std::panic::set_hook(Box::new(move |panic| usual(panic)));
        result.expect("each is tried once");
    }

    #[test]
    fn a_task_that_blocks_holds_up_nobody() {
        let (ends, ended) = std::sync::mpsc::channel::<()>();
        let (tells, told) = std::sync::mpsc::channel();
        spawn(Box::pin(async move {
            let _ = ended.recv();
        }));
        spawn(Box::pin(async move {
            sleep(Duration::from_millis(1)).await;
            let _ = tells.send(());
        }));
        let other = told.recv_timeout(Duration::from_secs(20));
        drop(ends);
        assert_eq!(other, Ok(()));
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
