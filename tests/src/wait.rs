//! Waits for other processes, with a time limit, and free ports.

use std::net::{Ipv4Addr, TcpListener};
use std::panic::Location;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

/// How many ports a process gives out, again and again.
const BLOCK: u16 = 1_000;
const BLOCKS: u16 = 20;
/// The first port of the first block. After the last block there is one port for each block: the
/// process that listens on it owns the block.
const FIRST_PORT: u16 = 10_000;
const POLL: Duration = Duration::from_millis(5);

/// A loopback port nobody listens on, a different one at each call of this process.
///
/// It lies below the range the kernel takes outgoing connections from, so that a server that is
/// down for a while finds its port free again.
///
/// # Panics
///
/// When no port is free.
pub fn free_port() -> u16 {
    /// How many ports were looked at. They are counted, not drawn: two tests that ask at the same
    /// time must not get the same one.
    static LOOKED_AT: AtomicU16 = AtomicU16::new(0);
    static OWN: LazyLock<Block> = LazyLock::new(own_block);
    (0..BLOCK)
        .map(|_| OWN.first + LOOKED_AT.fetch_add(1, Ordering::Relaxed) % BLOCK)
        .find(|port| no_listener_is_left(*port))
        .expect("a free loopback port")
}

/// The ports that a process of tests gives out.
struct Block {
    first: u16,
    /// Keeps others from it; `None` if all blocks are taken.
    _held: Option<TcpListener>,
}

/// Another process of tests could give away the port of a server of this one while that server is
/// down. So each has a block of ports for itself.
fn own_block() -> Block {
    let start = fastrand::u16(..BLOCKS);
    let block = |number| FIRST_PORT + number * BLOCK;
    (0..BLOCKS)
        .map(|further| (start + further) % BLOCKS)
        .find_map(|number| {
            let held = TcpListener::bind((Ipv4Addr::LOCALHOST, block(BLOCKS) + number)).ok()?;
            Some(Block {
                first: block(number),
                _held: Some(held),
            })
        })
        .unwrap_or(Block {
            first: block(start),
            _held: None,
        })
}

/// Binds and does not listen. A process that another thread starts at this moment inherits the
/// socket until its program is loaded: a listener would keep the port taken for that long, a socket
/// that is only bound, and lets others have its address, does not.
fn no_listener_is_left(port: u16) -> bool {
    let bind = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, port).into())
    };
    bind().is_ok()
}

/// How long a test waits for an event that should happen: `limit`, or `CACHE_TEST_TIMEOUT` seconds
/// if these are fewer. `scripts/mutations` sets it, since without its technique the event of a test
/// does not happen.
pub fn test_timeout(limit: Duration) -> Duration {
    static MOST: LazyLock<Option<Duration>> = LazyLock::new(|| {
        let seconds = std::env::var("CACHE_TEST_TIMEOUT").ok()?;
        Some(Duration::from_secs(seconds.parse().expect("seconds")))
    });
    MOST.map_or(limit, |most| most.min(limit))
}

/// Returns once `condition` holds, which is asked again and again until `limit` has passed, or
/// [`test_timeout`] ends.
///
/// # Panics
///
/// When it does not hold in time; the message names the caller's line.
#[track_caller]
pub fn eventually<C>(limit: Duration, mut condition: C) -> impl Future<Output = ()>
where
    C: AsyncFnMut() -> bool,
{
    let caller = Location::caller();
    let limit = test_timeout(limit);
    async move {
        let end = Instant::now() + limit;
        while !condition().await {
            assert!(
                Instant::now() < end,
                "{caller}: still not so after {limit:?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The same for code that is not async: the value as soon as there is one, `None` when time is up.
pub(crate) fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[tokio::test]
    async fn eventually_returns_when_the_condition_holds() {
        let mut asked = 0;
        eventually(Duration::from_secs(5), async || {
            asked += 1;
            asked == 3
        })
        .await;
        assert_eq!(asked, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "wait.rs")]
    async fn eventually_names_the_line_that_waited_in_vain() {
        eventually(Duration::ZERO, async || false).await;
    }

    #[test]
    fn a_free_port_can_be_listened_on_while_processes_are_started() {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::process::Command::new("true").status().unwrap();
                    }
                });
            }
            let failed: Vec<_> = (0..500)
                .map(|_| free_port())
                .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).err())
                .collect();
            over.store(true, Ordering::Relaxed);
            assert!(failed.is_empty(), "{failed:?}");
        });
    }

    #[test]
    fn a_port_that_is_listened_on_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!no_listener_is_left(listener.local_addr().unwrap().port()));
    }
}
