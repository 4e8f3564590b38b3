//! Host names, addresses and ports in settings, without a URL around them.

use std::net::Ipv6Addr;

/// The port of a Sentinel.
pub(super) const SENTINEL_PORT: u16 = 26_379;

/// The primary's name, unless another is given.
pub(super) const MASTER: &str = "mymaster";

/// Whether Sentinels take this as the name of a primary.
pub(super) fn is_master(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    name.chars().all(fits)
}

/// Parses `a:7000,b:7001`. A missing port is the default one. An IPv6 address with a port needs
/// brackets.
pub(super) fn addresses(text: &str, default_port: u16) -> Option<Vec<(String, u16)>> {
    let address = |text: &str| {
        let text = text.trim();
        let (name, number) = match text.rsplit_once(':') {
            Some((name, _)) if name.contains(':') && !name.starts_with('[') => (text, None),
            Some((name, number)) if !text.ends_with(']') => (name, Some(number)),
            _ => (text, None),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let port = match number {
            Some(number) => number.parse().ok().filter(|port| *port != 0)?,
            None => default_port,
        };
        let host = host_name(name).filter(|host| !host.is_empty())?;
        Some((host, port))
    };
    text.split(',').map(address).collect()
}

/// Parses the address in a Kubernetes service link, `tcp://10.0.0.5:6379`. A pod has such a
/// variable for each service of its namespace, and a service named `redis` sets `REDIS_PORT`
/// (redis-commander#267).
pub(super) fn service_link(text: &str) -> Option<(String, u16)> {
    if crate::base::mutation::is_active("service-links-not-read") {
        return None;
    }
    let (host, port) = text.strip_prefix("tcp://")?.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = host_name(host).filter(|host| !host.is_empty())?;
    Some((host, port))
}

/// A valid host name or address, without a port. What has a colon is an IPv6 address.
pub(super) fn host_name(text: &str) -> Option<String> {
    let fits = |c: char| c.is_alphanumeric() || ".-_".contains(c);
    let is_host = match text.contains(':') {
        true => text.parse::<Ipv6Addr>().is_ok(),
        false => text.chars().all(fits),
    };
    is_host.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links() {
        assert_eq!(
            service_link("tcp://10.0.0.5:6379"),
            Some(("10.0.0.5".into(), 6379))
        );
        assert_eq!(
            service_link("tcp://[fd00::5]:7"),
            Some(("fd00::5".into(), 7))
        );
        for text in [
            "tcp://10.0.0.5",
            "tcp://:6379",
            "tcp://h:0",
            "udp://h:1",
            "6379",
            "tcp://a/b:1",
        ] {
            assert_eq!(service_link(text), None, "{text}");
        }
    }
}
