//! Waiting for what another process does, with a bound, and ports to do it on.

use std::net::Ipv4Addr;
use std::panic::Location;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

const PORTS: u16 = 22_000;
const POLL: Duration = Duration::from_millis(5);

/// A loopback port nobody listens on, a different one at each call of this process.
///
/// It lies below the range the kernel takes outgoing connections from, so that a server that is down for a
/// while finds its port free again.
///
/// # Panics
///
/// When no port is free.
pub fn free_port() -> u16 {
    /// How many ports were looked at. They are counted, not drawn: two tests that ask at the same time must
    /// not get the same one.
    static LOOKED_AT: AtomicU16 = AtomicU16::new(0);
    static FIRST: LazyLock<u16> = LazyLock::new(|| fastrand::u16(..PORTS));
    (0..1_000)
        .map(|_| {
            let next = LOOKED_AT.fetch_add(1, Ordering::Relaxed);
            10_000 + FIRST.wrapping_add(next) % PORTS
        })
        .find(|port| nobody_listens_on(*port))
        .expect("a free loopback port")
}

/// Binds and does not listen. A process that another thread starts at this moment inherits the socket until
/// its program is loaded: a listener would keep the port taken for that long, a socket that is only bound, and
/// lets others have its address, does not.
fn nobody_listens_on(port: u16) -> bool {
    let bind = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, port).into())
    };
    bind().is_ok()
}

/// Returns once `condition` holds, which is asked again and again until `limit` has passed.
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
        assert!(!nobody_listens_on(listener.local_addr().unwrap().port()));
    }
}
