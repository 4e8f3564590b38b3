//! Resolves the server's name.
//!
//! A name may have several addresses, and they may change. All processes try them in the same
//! order, and skip replicas. So as long as the first address can be reached, all processes use the
//! same server. A connection may outlive its address, so the name is resolved again once a minute.

use std::net::SocketAddr;
use std::time::Duration;

use redis::RedisFuture;
use redis::io::AsyncDNSResolver;

use crate::base::error::Error;
use crate::config::RedisConfig;

/// How often the name is resolved while a connection lasts.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);

/// How long resolving may take.
pub(crate) const BUDGET: Duration = Duration::from_secs(5);

/// The addresses of the configured name, in the order in which all processes try them.
///
/// # Errors
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the name can't be resolved, or has
/// no address.
pub(crate) async fn of(config: &RedisConfig) -> Result<Vec<SocketAddr>, Error> {
    let RedisConfig { host, port, .. } = config;
    let resolved = match given::of(host) {
        Some(addresses) => Ok(addresses),
        None => tokio::net::lookup_host((host.as_str(), *port))
            .await
            .map(Iterator::collect),
    };
    let mut addresses: Vec<SocketAddr> = resolved.map_err(|error| {
        let text = format!("`{host}` can't be resolved: {error}");
        Error::unavailable(text).with_source(error)
    })?;
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(no_address(config));
    }
    Ok(addresses)
}

/// The error for a name that has no address.
pub(crate) fn no_address(config: &RedisConfig) -> Error {
    Error::unavailable(format!("`{}` has no address", config.host))
}

/// A resolver that returns this address for every name.
pub(crate) struct To(pub(super) SocketAddr);

impl AsyncDNSResolver for To {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _: &'b str,
        _: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        let address: Box<dyn Iterator<Item = SocketAddr> + Send> =
            Box::new(std::iter::once(self.0));
        Box::pin(std::future::ready(Ok(address)))
    }
}

/// Names that tests define, instead of those of the system.
#[cfg(feature = "testing")]
pub(crate) mod given {
    use std::collections::HashMap;
    use std::net::SocketAddr;
    use std::sync::LazyLock;

    use tokio::sync::watch;

    static NAMES: LazyLock<watch::Sender<HashMap<String, Vec<SocketAddr>>>> =
        LazyLock::new(watch::Sender::default);

    pub(crate) fn set(name: &str, addresses: Vec<SocketAddr>) {
        NAMES.send_modify(|names| {
            names.insert(name.to_owned(), addresses);
        });
    }

    pub(crate) fn of(name: &str) -> Option<Vec<SocketAddr>> {
        NAMES.borrow().get(name).cloned()
    }

    /// Waits for this time, or until a test defines a name.
    pub(crate) async fn changed_or(time: impl Future<Output = ()>) {
        let mut names = NAMES.subscribe();
        tokio::select! {
            () = time => {}
            _ = names.changed() => {}
        }
    }
}

#[cfg(not(feature = "testing"))]
pub(crate) mod given {
    use std::net::SocketAddr;

    pub(crate) const fn of(_: &str) -> Option<Vec<SocketAddr>> {
        None
    }

    pub(crate) async fn changed_or(time: impl Future<Output = ()>) {
        time.await;
    }
}
