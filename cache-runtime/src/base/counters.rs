//! Counters: atomics inside, a plain snapshot outside.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $counter:ty,)*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: $counter,)*
        }

        /// The counts since the cache was built.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct CounterSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> CounterSnapshot {
                let mut snapshot = CounterSnapshot { $($name: self.$name.get(),)* };
                // Local hits are counted apart, so that a local hit costs one increment.
                snapshot.hits += snapshot.local_hits;
                snapshot
            }
        }

        impl std::iter::Sum for CounterSnapshot {
            fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
                parts.fold(Self::default(), |a, b| Self { $($name: a.$name + b.$name,)* })
            }
        }
    };
}

counters! {
    /// Calls answered from the cache.
    hits: Striped,
    /// Calls that asked the cache, and were answered by their function or by another call's run of
    /// it.
    misses: Counter,
    /// Values stored.
    fills: Counter,
    /// Values not stored because their entry was invalidated, evicted or taken over during the
    /// load.
    fills_refused: Counter,
    /// Entries found whose generations have changed. Each would have been a stale read.
    stale_rejected: Counter,
    /// Invalidations, by attribute or by hand.
    invalidations: Counter,
    /// Store failures, payloads that did not decode, and values that could not be stored.
    errors: Counter,
    /// Calls that ran their function without the cache.
    bypasses: Counter,
    /// Hits on an expired entry: while a new value was loaded, or because its load failed or was
    /// slow.
    stale_served: Counter,
    /// Loads in the background while an expired entry was served.
    refreshes: Counter,
    /// The hits that a local entry answered, in front of Redis. They are included in `hits`.
    local_hits: Striped,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add_one(&self) {
        self.count();
    }

    /// Adds one, and returns the count before.
    pub(crate) fn count(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter for events that happen millions of times per second. The first threads have a stripe
/// each, which no other thread writes; later threads share the remaining stripes. A single counter
/// would already limit two threads, and an atomic read-modify-write costs a tenth of a hit.
#[derive(Debug, Default)]
pub(crate) struct Striped([Stripe; STRIPES]);

pub(crate) const STRIPES: usize = 12;

/// The number of stripes that belong to one thread each.
const OWN: usize = 8;

/// Aligned to 128 bytes, since processors fetch cache lines of 64 bytes in pairs: a stripe shares
/// no line with another one.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(Counter);

/// The current thread's stripe. A stripe of its own becomes free when the thread ends.
struct OwnStripe(usize);

/// The stripes that are free, one bit each.
static FREE: Mutex<usize> = Mutex::new((1 << OWN) - 1);

impl OwnStripe {
    fn take() -> Self {
        static OTHERS: AtomicUsize = AtomicUsize::new(0);

        let mut free = FREE.lock();
        let index = free.trailing_zeros() as usize;
        if index < OWN {
            *free &= !(1 << index);
            return Self(index);
        }
        Self(OWN + OTHERS.fetch_add(1, Ordering::Relaxed) % (STRIPES - OWN))
    }
}

impl Drop for OwnStripe {
    fn drop(&mut self) {
        if self.0 < OWN {
            *FREE.lock() |= 1 << self.0;
        }
    }
}

thread_local! {
    static OWN_STRIPE: OwnStripe = OwnStripe::take();
}

/// The index of the current thread's stripe.
#[inline]
pub(crate) fn stripe() -> usize {
    // A thread that is ending has no stripe any more.
    OWN_STRIPE
        .try_with(|index| index.0)
        .unwrap_or(OWN)
        .min(STRIPES - 1)
}

impl Striped {
    #[inline]
    pub(crate) fn add_one(&self) {
        self.count();
    }

    /// Adds one, and returns the count of the thread's stripe before.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        let index = stripe();
        let Counter(count) = &self.0[index].0;
        if index < OWN {
            // No other thread writes it: the previous owner gave it back under a lock.
            let was = count.load(Ordering::Relaxed);
            count.store(was + 1, Ordering::Relaxed);
            was
        } else {
            count.fetch_add(1, Ordering::Relaxed)
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.get()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn no_count_is_lost_while_threads_come_and_go() {
        const ROUNDS: u64 = 20;
        const THREADS: u64 = 2 * STRIPES as u64;
        const CALLS: u64 = 2_000;
        let counter = Striped::default();
        for _ in 0..ROUNDS {
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| (0..CALLS).for_each(|_| counter.add_one()));
                }
            });
        }
        assert_eq!(counter.get(), ROUNDS * THREADS * CALLS);
    }

    #[test]
    fn a_stripe_of_ones_own_is_nobody_elses() {
        let barrier = std::sync::Barrier::new(2 * OWN);
        let indexes = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..2 * OWN {
                scope.spawn(|| {
                    indexes.lock().push(stripe());
                    barrier.wait();
                });
            }
        });
        let indexes = indexes.into_inner();
        for own in 0..OWN {
            let holders = indexes.iter().filter(|index| **index == own).count();
            assert!(holders <= 1, "{indexes:?}");
        }
        assert!(indexes.iter().all(|index| *index < STRIPES), "{indexes:?}");
    }
}
