//! `crate::sync` of the runtime, as shuttle sees it.

use std::fmt;
use std::sync::PoisonError;

use shuttle::sync::MutexGuard;
pub use shuttle::sync::atomic;
use shuttle::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::futures::Notified;

#[derive(Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// Tokio's, before each use of which another task may run.
#[derive(Default)]
pub struct Notify {
    inner: tokio::sync::Notify,
    place: AtomicBool,
}

impl Notify {
    pub fn new() -> Self {
        Self::default()
    }

    fn step(&self) -> &tokio::sync::Notify {
        self.place.load(Ordering::SeqCst);
        &self.inner
    }

    pub fn notified(&self) -> Notified<'_> {
        self.step().notified()
    }

    pub fn notify_one(&self) {
        self.step().notify_one();
    }

    pub fn notify_waiters(&self) {
        self.step().notify_waiters();
    }
}

/// Time that passes only where somebody waits for it.
pub mod time {
    use std::ops::Add;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// In milliseconds; it goes on from one order to the next.
    static NOW: AtomicU64 = AtomicU64::new(0);

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Instant(u64);

    impl Instant {
        pub const NEVER: Self = Self(u64::MAX);

        pub fn now() -> Self {
            Self(NOW.load(Ordering::Relaxed))
        }

        pub fn checked_sub(self, time: Duration) -> Option<Self> {
            self.0.checked_sub(time.as_millis() as u64).map(Self)
        }
    }

    impl Add<Duration> for Instant {
        type Output = Self;

        fn add(self, time: Duration) -> Self {
            Self(self.0.saturating_add(time.as_millis() as u64))
        }
    }

    pub async fn sleep(time: Duration) {
        sleep_until(Instant::now() + time).await;
    }

    pub async fn sleep_until(deadline: Instant) {
        if deadline == Instant::NEVER {
            std::future::pending().await
        }
        while Instant::now() < deadline {
            shuttle::future::yield_now().await;
            NOW.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, ()> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = sleep_until(deadline) => Err(()),
        }
    }
}
