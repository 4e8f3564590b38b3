//! Counts what hits and entries allocate. An executable of its own, because counting slows every
//! allocation down.
//!
//!     allocations hits                  [[name, allocations per hit, bytes per hit], ..]
//!     allocations entries NAME N SIZE   [bytes of payload, live bytes per entry]

use std::alloc::System;
use std::io::Write;
use std::sync::Arc;

use cache_rivals::data;
use cache_rivals::suite::local_hits::{ROWS, contestants, fill};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const HITS: u64 = 10_000;
/// What allocates beside the hits, a heartbeat or a timer, does so in some of the rounds: the least
/// is the hits' own.
const ROUNDS: u64 = 20;

// One thread, so that nothing else allocates meanwhile; the caches' own threads mostly sleep.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let printed = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["hits"] => hits().await,
        ["entries", name, number, size] => {
            let number = number.parse().expect("a number");
            entries(name, number, size.parse().expect("a size")).await
        }
        _ => panic!("`hits`, or `entries NAME N SIZE`"),
    };
    let mut out = std::io::stdout();
    out.write_all(printed.as_bytes()).expect("somebody reads");
}

async fn hits() -> String {
    let mut counted = Vec::new();
    for (name, hits) in contestants().await {
        hits(0, ROWS).await;
        let loads = data::loads();
        let mut least = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            let region = Region::new(GLOBAL);
            hits(0, HITS).await;
            let change = region.change();
            // The box of the batch is one.
            let number = change.allocations.saturating_sub(1) + change.reallocations;
            if (number as f64) < least.0 {
                least = (number as f64, change.bytes_allocated as f64);
            }
        }
        assert_eq!(data::loads(), loads, "{name}: no hits");
        counted.push((name, least.0 / HITS as f64, least.1 / HITS as f64));
    }
    serde_json::to_string(&counted).expect("text and numbers")
}

async fn entries(name: &str, number: u64, size: i64) -> String {
    let payload = {
        let region = Region::new(GLOBAL);
        let text = Arc::new(data::text(size));
        let change = region.change();
        let freed = change.bytes_deallocated;
        let payload = change.bytes_allocated - freed;
        drop(text);
        payload as f64
    };
    let region = Region::new(GLOBAL);
    let kept = fill(name, number, size).await;
    let change = region.change();
    drop(kept);
    let live = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
    serde_json::to_string(&(payload, live / number as f64)).expect("numbers")
}
