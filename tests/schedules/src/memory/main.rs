//! Every order of a few threads, and every value that the memory model lets them see: loom visits all of them.
//!
//!     memory [NAME]    only the schedules whose name contains NAME
//!     memory --list
//!
//! The sources are those of `cache-runtime`, with loom's types in place of what `crate::sync` names.

mod base;
mod local;
mod sync;

/// How often a thread may be interrupted where it need not stop, in schedules of three threads. Most of what is wrong shows
/// with two; with all of it they take hours.
const INTERRUPTIONS: usize = 2;

type Schedule = (&'static str, Threads, fn());

#[derive(PartialEq)]
enum Threads {
    Two,
    Three,
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    if filter == "--list" {
        return local::SCHEDULES
            .iter()
            .for_each(|(name, ..)| println!("{name}"));
    }
    let mut tried = 0;
    for (name, threads, schedule) in local::SCHEDULES {
        if name.contains(&filter) {
            let start = std::time::Instant::now();
            let visited = visits(&threads, schedule);
            println!(
                "{name}: {visited} orders, {:.1} s",
                start.elapsed().as_secs_f32()
            );
            tried += 1;
        }
    }
    assert!(tried > 0, "no schedule is named `{filter}`");
}

/// Panics where an order is found in which something does not hold, or all threads wait.
fn visits(threads: &Threads, schedule: fn()) -> usize {
    let visited = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&visited);
    let mut model = loom::model::Builder::new();
    if *threads == Threads::Three {
        model.preemption_bound = Some(INTERRUPTIONS);
    }
    model.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        schedule();
    });
    visited.load(std::sync::atomic::Ordering::Relaxed)
}
