//! The types of shuttle, with the names and methods of the usual ones.
//!
//! Atomics are sequentially consistent here; code that relies on less is tested under loom. Tokio's
//! channels and semaphores are used as they are: each of their operations counts as one step.

pub(crate) use std::sync::OnceLock;

pub(crate) use shuttle::sync::atomic;
use shuttle::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::futures::Notified;

pub(crate) use super::mutex::Mutex;

/// How many changes of order the second scheduler makes.
const CHANGES: usize = 3;

/// Runs the test in many orders of its tasks: so many at random, and as many that change the order
/// at the few places where that matters most. `SCHEDULE_TIMES` multiplies both numbers.
pub(crate) fn many_orders(times: usize, test: fn()) {
    let factor = std::env::var("SCHEDULE_TIMES").map_or(1, |it| it.parse().expect("a number"));
    let times = times * factor;
    shuttle::check_random(test, times);
    shuttle::check_pct(test, times, CHANGES);
    eprintln!("{} orders", 2 * times);
}

/// Tokio's. Another task may run before each use of it.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    inner: tokio::sync::Notify,
    step: AtomicBool,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn after_a_step(&self) -> &tokio::sync::Notify {
        self.step.load(Ordering::SeqCst);
        &self.inner
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        self.after_a_step().notified()
    }

    pub(crate) fn notify_one(&self) {
        self.after_a_step().notify_one();
    }

    pub(crate) fn notify_waiters(&self) {
        self.after_a_step().notify_waiters();
    }
}

/// Time that passes only while somebody waits for it.
pub(crate) mod time {
    use std::cell::Cell;
    use std::sync::LazyLock;
    use std::time::Duration;

    pub(crate) use tokio::time::{Instant, advance};

    const STEP: Duration = Duration::from_millis(1);

    const DECADE: Duration = Duration::from_secs(315_360_000);

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    thread_local! {
        /// All tasks of a test run in its thread. The time goes on from one order to the next.
        static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    pub(crate) fn now() -> Instant {
        *START + NOW.get()
    }

    /// A deadline that does not come.
    pub(crate) fn never() -> Instant {
        *START + DECADE
    }

    pub(crate) async fn sleep(time: Duration) {
        sleep_until(now() + time).await;
    }

    pub(crate) async fn sleep_until(deadline: Instant) {
        if deadline == never() {
            std::future::pending().await
        }
        while now() < deadline {
            shuttle::future::yield_now().await;
            NOW.set(NOW.get() + STEP);
        }
    }

    pub(crate) async fn timeout_at<F: Future>(
        deadline: Instant,
        future: F,
    ) -> Result<F::Output, ()> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = sleep_until(deadline) => Err(()),
        }
    }
}
