//! Waiting for what another process does, with a bound, and ports to do it on.

use std::net::TcpListener;
use std::panic::Location;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);

/// A loopback port nobody listens on.
///
/// It lies below the range the kernel takes outgoing connections from, so that a server that is down for a
/// while finds its port free again.
///
/// # Panics
///
/// When no port is free.
pub fn free_port() -> u16 {
    (0..1_000)
        .map(|_| fastrand::u16(10_000..32_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free loopback port")
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
    fn a_free_port_can_be_listened_on() {
        let port = free_port();
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
    }
}
