//! Time as a thread has it that has little to do: without what the machine gave to others.
//!
//! A bound in seconds is promised for a machine that runs whoever is ready to run. Tests run beside
//! other work. So a thread here sleeps as a relay does, wakes, and has a small piece of work. It
//! knows how long that takes when nobody is in the way. If it takes four times as long, from when
//! it was to wake, then time goes on at a quarter of its speed here. While something was away for
//! the test's purposes it stands still. On an idle machine it is the time of the clock.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SLEEP: Duration = Duration::from_millis(20);
const WORK: Duration = Duration::from_millis(2);

/// A piece of time, and how long the work took that was done in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tick {
    from: Instant,
    to: Instant,
    took: Duration,
}

/// The thread.
pub(super) struct Watch {
    ticks: Arc<Mutex<Vec<Tick>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start() -> Self {
        let (ticks, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (of_thread, is_over) = (Arc::clone(&ticks), Arc::clone(&over));
        let thread = std::thread::spawn(move || watch(&of_thread, &is_over));
        Self {
            ticks,
            over,
            thread: Some(thread),
        }
    }

    /// What has been seen until now; `away` does not count at all.
    pub(super) fn undisturbed(&self, away: &[(Instant, Instant)]) -> Undisturbed {
        Undisturbed::new(&self.ticks.lock().expect("sound"), away)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has panicked only if this test has.
            let _ended = thread.join();
        }
    }
}

fn watch(ticks: &Mutex<Vec<Tick>>, over: &AtomicBool) {
    let amount = amount();
    let mut from = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let due = from + SLEEP;
        std::thread::sleep(SLEEP);
        work(amount);
        let to = Instant::now();
        let took = to - due;
        ticks.lock().expect("sound").push(Tick { from, to, took });
        from = to;
    }
}

fn work(amount: u32) {
    let mut number = 1u32;
    for step in 0..amount {
        number = black_box(number.wrapping_mul(747_796_405).wrapping_add(step));
    }
    black_box(number);
}

/// How much work takes so long, at the best of some attempts.
fn amount() -> u32 {
    const PIECE: u32 = 100_000;
    let took = (0..20).map(|_| {
        let begun = Instant::now();
        work(PIECE);
        begun.elapsed()
    });
    let best = took.min().unwrap_or(WORK).as_secs_f64().max(1e-6);
    (f64::from(PIECE) * WORK.as_secs_f64() / best) as u32
}

/// How much of it had passed at some points of time.
pub(super) struct Undisturbed {
    edges: Vec<(Instant, Duration)>,
}

impl Undisturbed {
    fn new(ticks: &[Tick], away: &[(Instant, Instant)]) -> Self {
        let mut away = away.to_vec();
        away.sort_unstable();
        let mut edges = Vec::new();
        let mut passed = Duration::ZERO;
        for tick in ticks {
            let share = WORK.as_secs_f64() / tick.took.max(WORK).as_secs_f64();
            let mut from = tick.from;
            edges.push((from, passed));
            for (begun, over) in &away {
                let (begun, over) = ((*begun).max(from), (*over).min(tick.to));
                if begun >= over {
                    continue;
                }
                passed += (begun - from).mul_f64(share);
                edges.extend([(begun, passed), (over, passed)]);
                from = over;
            }
            passed += (tick.to - from).mul_f64(share);
            edges.push((tick.to, passed));
        }
        Self { edges }
    }

    fn at(&self, time: Instant) -> Duration {
        let next = self.edges.partition_point(|(at, _)| *at <= time);
        let Some((last, passed)) = next.checked_sub(1).map(|at| self.edges[at]) else {
            return Duration::ZERO;
        };
        let since = time - last;
        match self.edges.get(next) {
            Some((until, then)) if *until > last => {
                let part = since.as_secs_f64() / (*until - last).as_secs_f64();
                passed + (*then - passed).mul_f64(part)
            }
            _ => passed + since,
        }
    }

    pub(super) fn between(&self, from: Instant, to: Instant) -> Duration {
        self.at(to).saturating_sub(self.at(from))
    }
}

#[test]
fn time_goes_on_slowly_where_work_does_and_stands_still_where_something_is_away() {
    let begun = Instant::now();
    let at = |millis: u64| begun + Duration::from_millis(millis);
    let ms = Duration::from_millis;
    let ticks = |slow: u32| {
        let tick = |n: u64| Tick {
            from: at(n * 10),
            to: at(n * 10 + 10),
            took: if n < 5 { WORK * slow } else { WORK / 2 },
        };
        (0..10).map(tick).collect::<Vec<_>>()
    };
    let near = |a: Duration, b: Duration| a.abs_diff(b) < Duration::from_micros(10);
    let undisturbed = |slow: u32, away: &[(Instant, Instant)]| {
        Undisturbed::new(&ticks(slow), away).between(at(5), at(95))
    };
    assert!(near(undisturbed(1, &[]), ms(90)));
    assert!(near(undisturbed(3, &[]), ms(60)));
    // Overlapping, and over more than one piece.
    let away = [(at(20), at(55)), (at(40), at(60))];
    assert!(near(undisturbed(1, &away), ms(50)));
    assert!(near(undisturbed(3, &away), ms(40)));
}
