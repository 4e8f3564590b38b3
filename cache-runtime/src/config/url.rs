//! Parses `REDIS_URL`: `redis://[user:password@]host[:port][/db]`, with the `url` crate, and
//! `redis-sentinel://[user:password@]host[:port][,host[:port]..][/master][/db]`, whose list of
//! hosts is taken out first. Other clients write the latter in several ways; those of Lettuce, fred
//! and redis-py's helpers are understood.
//!
//! This module also rejects input that the crate accepts: a raw `#` or `?` in a password ends its
//! part of the URL, and the rest of the password would be taken for an address (redis-rs#411). No
//! error text shows any part of the URL.

use url::{ParseError, Url};

use super::address::{MASTER, SENTINEL_PORT, addresses, host_name, is_master};
use super::{RedisConfig, SentinelConfig};

/// Parses a URL.
///
/// # Errors The fault of a URL. The text shows nothing that may be part of a password.
pub(super) fn from_url(text: &str) -> Result<RedisConfig, String> {
    let scheme = text.split_once("://");
    let scheme = scheme.map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
    let scheme = scheme.as_ref().map(|(scheme, rest)| {
        let sentinel = ["-sentinel", "+sentinel"].into_iter();
        let of_sentinels = sentinel.filter_map(|end| scheme.strip_suffix(end)).next();
        let is_sentinels = of_sentinels.is_some();
        (of_sentinels.unwrap_or(scheme), is_sentinels, *rest)
    });
    let (tls, names_sentinels, rest) = match scheme {
        Some(("redis" | "valkey", names_sentinels, rest)) => (false, names_sentinels, rest),
        Some(("rediss" | "valkeys", names_sentinels, rest)) => (true, names_sentinels, rest),
        Some(("unix" | "redis+unix" | "redis-unix", ..)) => {
            return Err("it names a socket of the file system, which is not supported".into());
        }
        _ => return Err("it does not begin with redis:// or rediss://".into()),
    };
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("it has spaces or control characters; write them as `%20`, `%0A`".into());
    }
    if rest.contains('#') && !crate::base::mutation::is_active("urls-end-at-a-hash") {
        return Err("it has a `#`; in a password write `%23`".into());
    }
    if names_sentinels {
        return sentinels(rest, tls);
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
            host_name(&text).ok_or("its host is not a host name or address")?
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
    // A password may hold `@` as well: the host is behind the last one.
    let authority = rest
        .get(..end)
        .and_then(|authority| authority.rsplit_once('@'));
    match authority {
        Some((login, host)) if host.is_empty() || host.starts_with(':') => {
            let at = text.len() - rest.len() + login.len() + 1;
            let (before, after) = text.split_at(at);
            format!("{before}{}{after}", RedisConfig::default().host)
        }
        _ => text.to_owned(),
    }
}

/// Parses what follows `redis-sentinel://`. Login and TLS are those of the servers, and TLS is that
/// of the Sentinels too.
fn sentinels(rest: &str, tls: bool) -> Result<RedisConfig, String> {
    let no_hosts = "its hosts are not host names or addresses with ports, with commas between; \
                    in a password write `/` as `%2F` and `?` as `%3F`";
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (login_part, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let mut hosts = addresses(hosts, SENTINEL_PORT).ok_or(no_hosts)?;
    let url = Url::parse(&format!("redis://{login_part}@localhost{tail}"));
    let url = url.map_err(|_| no_hosts)?;

    let no_path = "its path is not the primary's name and a database number; \
                   in a password write `/` as `%2F`";
    let path: Vec<_> = url.path().split('/').filter(|it| !it.is_empty()).collect();
    let (mut master, db) = match path.as_slice() {
        [] => (None, None),
        // A number alone is a database: so Lettuce and fred write it.
        [one] => match one.parse() {
            Ok(db) => (None, Some(db)),
            Err(_) => (Some((*one).to_owned()), None),
        },
        [master, db] => {
            let db = db.parse().map_err(|_| no_path)?;
            (Some((*master).to_owned()), Some(db))
        }
        _ => return Err(no_path.into()),
    };
    let (mut username, mut password): (Option<String>, Option<String>) = (None, None);
    let in_path = master.is_some();
    let db = parameters(&url, db, |name, value| {
        match name {
            "sentinelMasterId" | "sentinelServiceName" => {
                if master.as_ref().is_some_and(|master| master != value) {
                    return Err(match in_path {
                        true => "its path and its parameter name different primaries".into(),
                        false => "it names the primary twice, differently".into(),
                    });
                }
                master = Some(value.to_owned());
            }
            "sentinelUsername" | "sentinelPassword" => {
                let part = match name {
                    "sentinelUsername" => &mut username,
                    _ => &mut password,
                };
                if part.as_ref().is_some_and(|other| other != value) {
                    return Err(given_twice(name));
                }
                *part = Some(value.to_owned());
            }
            "node" => hosts.extend(addresses(value, SENTINEL_PORT).ok_or(no_hosts)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let master = master.unwrap_or_else(|| MASTER.into());
    if !is_master(&master) {
        return Err(no_path.into());
    }
    let mut redis = RedisConfig::default();
    if let Some((host, port)) = hosts.first() {
        redis.host.clone_from(host);
        redis.port = *port;
    }
    Ok(RedisConfig {
        db,
        username: login(url.username())?,
        password: login(url.password().unwrap_or_default())?,
        tls,
        sentinel: Some(SentinelConfig {
            addresses: hosts,
            master,
            username,
            password,
        }),
        ..redis
    })
}

/// The database number, from the path or from `?db=`.
fn database(url: &Url) -> Result<u32, String> {
    let not_a_number = "its path is not a database number; in a password write `/` as `%2F`";
    let db = match url.path().trim_start_matches('/').trim_end_matches('/') {
        "" => None,
        text => Some(text.parse().map_err(|_| not_a_number)?),
    };
    parameters(url, db, |_, _| Ok(false))
}

/// The database number, by what comes behind the `?`; `own` says whether it knows a parameter.
fn parameters(
    url: &Url,
    mut db: Option<u32>,
    mut own: impl FnMut(&str, &str) -> Result<bool, String>,
) -> Result<u32, String> {
    let in_path = db.is_some();
    for (name, value) in url.query_pairs() {
        match &*name {
            "db" => {
                let number = value
                    .parse()
                    .map_err(|_| "its `db` is not a database number")?;
                if db.is_some_and(|db| db != number) {
                    return Err(match in_path {
                        true => "its path and its `db` name different databases".into(),
                        false => given_twice("db"),
                    });
                }
                db = Some(number);
            }
            "protocol" if matches!(&*value, "resp3" | "3") => {}
            "protocol" => return Err("its `protocol` is not `resp3`, which is needed".into()),
            name => {
                let is_own = own(name, &value)?;
                if !is_own && !crate::base::mutation::is_active("parameters-passed-over") {
                    return Err("it has a parameter other than `db` and `protocol`; \
                                in a password write `?` as `%3F`"
                        .into());
                }
            }
        }
    }
    Ok(db.unwrap_or(0))
}

/// For a parameter of this name whose values differ.
fn given_twice(name: &str) -> String {
    format!("its `{name}` is given twice, differently; keep one of them")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Result<RedisConfig, String> {
        Ok(RedisConfig::at(host, port))
    }

    #[test]
    fn understood_values() {
        assert_eq!(from_url("redis://h"), at("h", 6379));
        assert_eq!(from_url("redis://"), at("localhost", 6379));
        assert_eq!(from_url("redis://h:7/"), at("h", 7));
        assert_eq!(from_url("redis://[::1]:7/0"), at("::1", 7));
        assert_eq!(from_url("redis://[::1]"), at("::1", 6379));
        assert_eq!(from_url("redis://:@[::1]"), at("::1", 6379));
        assert_eq!(from_url("redis://h?db=0&db=0"), at("h", 6379));
        assert_eq!(from_url("REDIS://h"), at("h", 6379));
        let db = |db| at("h", 6379).map(|redis| redis.db(db));
        assert_eq!(from_url("redis://h/3"), db(3));
        assert_eq!(from_url("redis://h?db=3"), db(3));
        assert_eq!(from_url("valkey://h/3?db=3&protocol=resp3"), db(3));
        assert!(from_url("rediss://h").is_ok_and(|redis| redis.tls));
    }

    #[test]
    fn sentinels_are_understood() {
        let both = [("a", 26_379), ("b", 7)];
        let named = |master: &str| Ok(RedisConfig::sentinels(both, master));
        for (url, master) in [
            ("redis-sentinel://a,b:7", MASTER),
            ("redis-sentinel://a:26379,b:7/", MASTER),
            ("redis-sentinel://a,b:7/main-1", "main-1"),
            ("redis+sentinel://a,b:7/main-1/0", "main-1"),
            ("redis-sentinel://a,b:7/0?sentinelMasterId=main", "main"),
            (
                "valkey-sentinel://a?node=b:7&sentinelServiceName=main",
                "main",
            ),
        ] {
            assert_eq!(from_url(url), named(master), "{url}");
        }
        let url = "rediss-sentinel://me:p%40s,s@[::1]:7,b/main/3\
                   ?sentinelUsername=watcher&sentinelPassword=other%2Bword";
        let mut redis = RedisConfig::sentinels([("::1", 7), ("b", SENTINEL_PORT)], "main")
            .db(3)
            .login(Some("me"), "p@s,s")
            .sentinel_login("watcher", "other+word");
        redis.tls = true;
        assert_eq!(from_url(url), Ok(redis));
    }

    #[test]
    fn passwords_with_punctuation() {
        for (written, password) in [
            ("p%40ss", "p@ss"),
            ("p@ss", "p@ss"),
            ("p@:ss", "p@:ss"),
            ("@:7", "@:7"),
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
        let default = at("localhost", 7).map(|redis| redis.login(None, "p@:ss"));
        assert_eq!(from_url("redis://:p@:ss@:7"), default);
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
            ("redis://:hunter2@prod?db=3&db=4", "`db` is given twice"),
            ("redis://:hunter2@prod/3?db=3&db=4", "different databases"),
            (
                "redis-sentinel://a?sentinelPassword=a&sentinelPassword=hunter2",
                "`sentinelPassword` is given twice",
            ),
            (
                "redis-sentinel://a?sentinelMasterId=m&sentinelServiceName=n",
                "names the primary twice",
            ),
            ("redis://:hunter2@6379", "host"),
            ("redis://:hunter2@prod?protocol=resp2", "resp3"),
            ("redis://prod?password=hunter2", "parameter"),
            ("redis://:hunter2@pr od", "%20"),
            ("redis+unix:///run/hunter2.sock", "not supported"),
            ("http://hunter2@h", "redis://"),
            ("redis-sentinel://:7401#hunter2@a,b/main", "%23"),
            ("redis-sentinel://:7401?hunter2@a,b/main", "%3F"),
            ("redis-sentinel://me:7401?hunter2@a,b/main", "%3F"),
            ("redis-sentinel://:7401/hunter2@a,b/main", "%2F"),
            ("redis-sentinel://me:7401/hunter2@a,b/main", "%2F"),
            ("redis-sentinel://:hun%ter2@a,b/main", "%25"),
            ("redis-sentinel://:hunter2@a:0,b/main", "hosts"),
            ("redis-sentinel://:hunter2@a,,b/main", "hosts"),
            ("redis-sentinel://:hunter2@a,b/main/abc", "database number"),
            ("redis-sentinel://:hunter2@a,b/main/0/1", "database number"),
            (
                "redis-sentinel://:hunter2@a,b/m?sentinelMasterId=n",
                "different primaries",
            ),
            ("redis-sentinel://a,b/main?password=hunter2", "parameter"),
        ] {
            let error = from_url(url).expect_err(url);
            assert!(
                error.contains(reason) && !error.contains("hunter2"),
                "{url}: {error}"
            );
        }
    }
}
