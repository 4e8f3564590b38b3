//! Repeated checks of a connection while it is used. Each function runs until it is dropped.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use super::super::reply::reading;
use super::Connection;
use super::connector::{CONNECT_BUDGET, NamedPrimary};
use super::{address, health};
use crate::config::RedisConfig;

/// How often the server's clock is read. A change of the clock goes unnoticed for at most this
/// time.
const TIME_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the server's clock again at intervals.
pub(crate) async fn keep_time(connection: &Connection) -> Infallible {
    loop {
        crate::base::time::sleep(TIME_INTERVAL).await;
        let time = connection.ask(CONNECT_BUDGET, async |multiplexed| {
            redis::cmd("TIME").query_async(multiplexed).await
        });
        if let Ok(time) = time.await {
            connection.clock.read(reading(time));
        }
    }
}

/// Watches the answers of the Sentinels, if there are any.
pub(crate) async fn watch_sentinels(
    connection: &Connection,
    found: Option<NamedPrimary>,
) -> Infallible {
    match found {
        Some(NamedPrimary {
            named, sentinels, ..
        }) => sentinels.watch(connection, named).await,
        None => std::future::pending().await,
    }
}

/// Checks again and again whether the server takes writes and is the primary. Closes the connection
/// if not.
pub(crate) async fn watch_health(connection: &Connection) -> Infallible {
    loop {
        crate::base::time::sleep(health::INTERVAL).await;
        // This closes the connection if the answer is no.
        if connection.check_health().await.is_ok() {
            let mut multiplexed = connection.multiplexed();
            connection.health.learn(&mut multiplexed).await;
            let room = connection
                .health
                .look_for_room(&mut multiplexed, connection.address);
            room.await;
        }
    }
}

/// Closes the connection when its name no longer leads to its server. If the name can't be
/// resolved, the connection stays.
pub(crate) async fn watch_address(connection: &Connection, config: &RedisConfig) -> Infallible {
    if config.host.parse::<IpAddr>().is_ok() {
        return std::future::pending().await;
    }
    loop {
        address::given::changed_or(crate::base::time::sleep(address::INTERVAL)).await;
        if crate::base::mutation::is_active("name-resolved-once") {
            continue;
        }
        let resolved = crate::base::time::timeout(address::BUDGET, address::of(config)).await;
        if let Ok(Ok(addresses)) = resolved
            && !addresses.contains(&connection.address)
        {
            connection.has_moved(&config.host);
        }
    }
}
