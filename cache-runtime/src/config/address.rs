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
        let port = match number {
            Some(number) => number.parse().ok().filter(|port| *port != 0)?,
            None => default_port,
        };
        let host = host_name(name).filter(|host| !host.is_empty())?;
        Some((host, port))
    };
    let addresses: Option<Vec<_>> = text.split(',').map(address).collect();
    addresses.map(each_once)
}

/// Without what is named twice: two entries of one Sentinel would count as two of the majority.
pub(super) fn each_once(addresses: Vec<(String, u16)>) -> Vec<(String, u16)> {
    let mut once = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !once.contains(&address) {
            once.push(address);
        }
    }
    once
}

/// Parses the address in a Kubernetes service link, `tcp://10.0.0.5:6379`. A pod has such a
/// variable for each service of its namespace, and a service named `redis` sets `REDIS_PORT`
/// (redis-commander#267).
pub(super) fn service_link(text: &str) -> Option<(String, u16)> {
    if crate::base::mutation::is_active("service-links-not-read") {
        return None;
    }
    let (host, port) = text.strip_prefix("tcp://")?.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = host_name(host).filter(|host| !host.is_empty())?;
    Some((host, port))
}

/// A valid host name or address, without a port. What has a colon is an IPv6 address; it may have
/// brackets, and end in the network that it is for: `fe80::1%eth0`.
///
/// A number alone, or a word such as `true`, is no host: it was meant for another setting
/// (`REDIS_CLUSTER=true`).
pub(super) fn host_name(text: &str) -> Option<String> {
    let text = without_brackets(text);
    let fits = |c: char| c.is_alphanumeric() || ".-_".contains(c);
    let is_host = match text.contains(':') {
        true => {
            let (address, zone) = text.split_once('%').unwrap_or((text, "0"));
            let is_zone = !zone.is_empty() && zone.chars().all(fits);
            is_zone && address.parse::<Ipv6Addr>().is_ok()
        }
        false => text.chars().all(fits) && !is_switch(text) && text.parse::<u32>().is_err(),
    };
    is_host.then(|| text.to_owned())
}

fn is_switch(text: &str) -> bool {
    let words = ["true", "false", "yes", "no", "on", "off"];
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// An IPv6 address without the brackets that it has in a URL.
pub(super) fn without_brackets(text: &str) -> &str {
    let inside = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    inside.filter(|inside| inside.contains(':')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, host) in [
            ("localhost", "localhost"),
            ("redis-1.prod_2", "redis-1.prod_2"),
            ("10.0.0.5", "10.0.0.5"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[fd00::5]", "fd00::5"),
            ("::ffff:10.0.0.5", "::ffff:10.0.0.5"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("[fe80::1%2]", "fe80::1%2"),
            // The name of a container.
            ("123456789012", "123456789012"),
        ] {
            assert_eq!(host_name(text).as_deref(), Some(host), "{text}");
        }
        for text in [
            "[::1",
            "::1]",
            "[]",
            "[localhost]",
            "[[::1]]",
            "[::1]:7",
            "h:7",
            ":::",
            "::1%",
            "%eth0",
            "a b",
            "a/b",
            "a@b",
            "a,b",
            "true",
            "False",
            "on",
            "no",
            "1",
            "6379",
        ] {
            assert_eq!(host_name(text), None, "{text}");
        }
    }

    #[test]
    fn lists_of_addresses() {
        let list = |text| addresses(text, 7);
        let of = |list: &[(&str, u16)]| {
            let list = list.iter().map(|(host, port)| ((*host).to_owned(), *port));
            Some(list.collect::<Vec<_>>())
        };
        assert_eq!(list("a, b:1,c"), of(&[("a", 7), ("b", 1), ("c", 7)]));
        assert_eq!(
            list("a,b:7,A,a:7,a:8"),
            of(&[("a", 7), ("b", 7), ("A", 7), ("a", 8)])
        );
        let both = of(&[("::1", 7), ("::1", 1), ("fd00::5", 7)]);
        assert_eq!(list("[::1],[::1]:1,fd00::5,::1"), both);
        for wrong in [
            "",
            ",",
            "a,",
            "a:0",
            "a:x",
            "a:",
            "[::1",
            "[::1]1",
            "[::1]:",
            "true",
            "redis://a:1",
        ] {
            assert_eq!(list(wrong), None, "{wrong}");
        }
    }

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
