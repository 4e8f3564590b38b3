//! Parses `REDIS_URL`: `redis://[user:password@]host[:port][/db]`, with the `url` crate.
//!
//! This module also rejects input that the crate accepts: a raw `#` or `?` in a password ends its
//! part of the URL, and the rest of the password would be taken for an address (redis-rs#411). No
//! error text shows any part of the URL.

use url::{ParseError, Url};

use super::RedisConfig;

/// Parses a URL.
///
/// # Errors
/// What is wrong with it. The text shows nothing that may be part of a password.
pub(super) fn from_url(text: &str) -> Result<RedisConfig, String> {
    let (tls, rest) = match text.split_once("://") {
        Some(("redis" | "valkey", rest)) => (false, rest),
        Some(("rediss" | "valkeys", rest)) => (true, rest),
        Some(("unix" | "redis+unix" | "redis-unix", _)) => {
            return Err("it names a socket of the file system, which is not supported".into());
        }
        _ => return Err("it does not begin with redis:// or rediss://".into()),
    };
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("it has spaces or control characters; write them as `%20`, `%0A`".into());
    }
    if rest.contains('#') {
        return Err("it has a `#`; in a password write `%23`".into());
    }
    let url = Url::parse(&with_host(text, rest)).map_err(|error| match error {
        ParseError::InvalidPort => {
            "its port is not a port, 1 to 65535; in a password write `/` as `%2F` and `?` as `%3F`"
                .to_owned()
        }
        _ => "its host is not a host name or address; \
              in a password write `/` as `%2F` and `?` as `%3F`"
            .to_owned(),
    })?;
    let host = match url.host_str().unwrap_or_default() {
        "" => RedisConfig::default().host,
        text => {
            let text = percent_decoded(text, "host")?;
            let text = text.trim_start_matches('[').trim_end_matches(']');
            host_name(text).ok_or("its host is not a host name or address")?
        }
    };
    let port = match url.port() {
        Some(0) => return Err("its port is not a port, 1 to 65535".into()),
        Some(port) => port,
        None => RedisConfig::default().port,
    };
    Ok(RedisConfig {
        host,
        port,
        db: database(&url)?,
        username: login(url.username())?,
        password: login(url.password().unwrap_or_default())?,
        tls,
        ..RedisConfig::default()
    })
}

/// Adds the default host to a URL that has a login and no host, which the parser refuses.
fn with_host(text: &str, rest: &str) -> String {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest.get(..end) {
        Some(authority) if authority.ends_with('@') || authority.contains("@:") => {
            let at = text.len() - rest.len() + authority.rfind('@').map_or(0, |at| at + 1);
            let (before, after) = text.split_at(at);
            format!("{before}{}{after}", RedisConfig::default().host)
        }
        _ => text.to_owned(),
    }
}

/// The database number, from the path or from `?db=`.
fn database(url: &Url) -> Result<u32, String> {
    let not_a_number = "its path is not a database number; in a password write `/` as `%2F`";
    let mut db = match url.path().trim_start_matches('/').trim_end_matches('/') {
        "" => None,
        text => Some(text.parse().map_err(|_| not_a_number)?),
    };
    for (name, value) in url.query_pairs() {
        match &*name {
            "db" => {
                let number = value
                    .parse()
                    .map_err(|_| "its `db` is not a database number")?;
                if db.is_some_and(|db| db != number) {
                    return Err("its path and its `db` name different databases".into());
                }
                db = Some(number);
            }
            "protocol" if matches!(&*value, "resp3" | "3") => {}
            "protocol" => return Err("its `protocol` is not `resp3`, which is needed".into()),
            _ => {
                return Err("it has a parameter other than `db` and `protocol`; \
                            in a password write `?` as `%3F`"
                    .into());
            }
        }
    }
    Ok(db.unwrap_or(0))
}

fn login(text: &str) -> Result<Option<String>, String> {
    let text = percent_decoded(text, "login")?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn percent_decoded(text: &str, part: &str) -> Result<String, String> {
    let mut escapes = text.split('%').skip(1);
    let is_escape = |rest: &str| {
        let digits = rest.get(..2);
        digits.is_some_and(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()))
    };
    if !escapes.all(is_escape) {
        return Err(format!(
            "its {part} has a `%` that two hex digits don't follow; write it `%25`"
        ));
    }
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| format!("its {part} is not UTF-8"))
}

/// Parses the address in a Kubernetes service link, `tcp://10.0.0.5:6379`. A pod has such a
/// variable for each service of its namespace, and a service named `redis` sets `REDIS_PORT`
/// (redis-commander#267).
pub(super) fn service_link(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.strip_prefix("tcp://")?.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = host_name(host).filter(|host| !host.is_empty())?;
    Some((host, port))
}

/// A valid host name or address.
pub(super) fn host_name(text: &str) -> Option<String> {
    let fits = |c: char| c.is_alphanumeric() || ".:-_".contains(c);
    text.chars().all(fits).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Result<RedisConfig, String> {
        Ok(RedisConfig::at(host, port))
    }

    #[test]
    fn what_is_understood() {
        assert_eq!(from_url("redis://h"), at("h", 6379));
        assert_eq!(from_url("redis://"), at("localhost", 6379));
        assert_eq!(from_url("redis://h:7/"), at("h", 7));
        assert_eq!(from_url("redis://[::1]:7/0"), at("::1", 7));
        assert_eq!(from_url("redis://[::1]"), at("::1", 6379));
        let db = |db| at("h", 6379).map(|redis| redis.db(db));
        assert_eq!(from_url("redis://h/3"), db(3));
        assert_eq!(from_url("redis://h?db=3"), db(3));
        assert_eq!(from_url("valkey://h/3?db=3&protocol=resp3"), db(3));
        assert!(from_url("rediss://h").is_ok_and(|redis| redis.tls));
    }

    #[test]
    fn passwords_with_punctuation() {
        for (written, password) in [
            ("p%40ss", "p@ss"),
            ("p@ss", "p@ss"),
            ("a%23b%3Fc%2Fd%25e%3Af", "a#b?c/d%e:f"),
            ("a:b", "a:b"),
            ("a!b$c&d'e(f)*g+h,i;j=k", "a!b$c&d'e(f)*g+h,i;j=k"),
            ("7401", "7401"),
            ("%C3%A9", "é"),
        ] {
            let expected = at("prod", 7000).map(|redis| redis.login(Some("me"), password));
            assert_eq!(
                from_url(&format!("redis://me:{written}@prod:7000")),
                expected,
                "{written}"
            );
        }
        let default = at("localhost", 6379).map(|redis| redis.login(None, "secret"));
        assert_eq!(from_url("redis://:secret@"), default);
        assert_eq!(from_url("redis://:secret@/0"), default);
        assert_eq!(from_url("redis://:secret@:6379/0"), default);
    }

    /// Input that would cut a password, or turn part of it into an address, is an error that does
    /// not show it.
    #[test]
    fn a_password_is_never_an_address() {
        for (url, reason) in [
            ("redis://:7401#hunter2@prod:6379/0", "%23"),
            ("redis://:7401?hunter2@prod:6379/0", "%3F"),
            ("redis://:7401/hunter2@prod:6379/0", "%2F"),
            ("redis://:hun/ter2@prod:6379/0", "%2F"),
            ("redis://:hun%ter2@prod", "%25"),
            ("redis://:hunter2@prod:0", "port"),
            ("redis://:hunter2@prod:70000", "port"),
            ("redis://:hunter2@prod/abc", "database number"),
            ("redis://:hunter2@prod/1?db=2", "different databases"),
            ("redis://:hunter2@prod?protocol=resp2", "resp3"),
            ("redis://prod?password=hunter2", "parameter"),
            ("redis://:hunter2@pr od", "%20"),
            ("redis+unix:///run/hunter2.sock", "not supported"),
            ("http://hunter2@h", "redis://"),
        ] {
            let error = from_url(url).expect_err(url);
            assert!(
                error.contains(reason) && !error.contains("hunter2"),
                "{url}: {error}"
            );
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
