//! Tests of all variables together.

use std::time::Duration;

use super::parse::bytes;
use super::vars::SECRETS;
use crate::config::{CacheConfig, ConfigError, RedisConfig, typos};

fn config(vars: &[(&str, &str)]) -> Result<CacheConfig, ConfigError> {
    CacheConfig::from_vars(vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())))
}

fn redis(vars: &[(&str, &str)]) -> RedisConfig {
    let on = [("REDIS_ENABLED", "on")];
    config(&[vars, &on].concat())
        .expect("valid")
        .redis
        .expect("on")
}

#[test]
fn sizes_are_read() {
    for (text, size) in [
        ("0", Some(0)),
        ("4096", Some(4096)),
        ("16k", Some(16 << 10)),
        ("16 KB", Some(16 << 10)),
        ("1m", Some(1 << 20)),
        ("1g", None),
        ("100m", None),
        ("-1", None),
        ("k", None),
        ("", None),
    ] {
        assert_eq!(bytes(text), size, "{text}");
    }
}

#[test]
fn a_value_that_is_not_read_back_is_an_error() {
    let limit = |text| config(&[("CACHE_VALUE_LIMIT", text)]).map(|config| config.value_limit);
    assert_eq!(limit("8m"), Ok(8 << 20));
    let error = limit("9m").unwrap_err().to_string();
    assert!(
        error.starts_with("CACHE_VALUE_LIMIT is `9m`; it may hold bytes, 512k or 1m, up to 8m"),
        "{error}"
    );
    let config = CacheConfig::default().value_limit(9 << 20);
    assert_eq!(config.value_limit, 8 << 20);
    let error = config.clone().check().unwrap_err().to_string();
    assert!(
        error.starts_with("value_limit is `9437184`; it may hold 0 to 8388608 bytes"),
        "{error}"
    );
    assert!(config.value_limit(8 << 20).check().is_ok());
    let config = CacheConfig::default()
        .lease(Duration::from_millis(1))
        .jitter(1.5)
        .early(f64::NAN)
        .ttl_of("users", Duration::MAX);
    assert_eq!(config.lease, Duration::from_millis(10));
    let error = config.clone().check().unwrap_err().to_string();
    for problem in [
        "lease is `1ms`; it may hold 10ms to 86400s",
        "jitter is `1.5`; it may hold 0 to 1",
        "early is `NaN`; it may hold 0 or more",
        "ttl_of(\"users\") is `",
    ] {
        assert!(error.contains(problem), "{error}");
    }
    // The last call for a setting counts.
    let config = config
        .lease(Duration::from_secs(1))
        .jitter(0.1)
        .early(1.0)
        .ttl_of("users", Duration::from_secs(1));
    assert!(config.check().is_ok());
    let config = CacheConfig::default().resource("Orders").context("tenant");
    let error = config.check().unwrap_err().to_string();
    assert!(error.contains("`Orders`"), "{error}");
}

#[test]
fn nothing_set_is_the_guides_default() {
    let config = config(&[]).expect("valid");
    assert!(!config.is_enabled());
    assert_eq!(config.default_ttl, Duration::from_secs(300));
    assert_eq!(redis(&[]), RedisConfig::default());
    assert_eq!(redis(&[("REDIS_PASSWORD", "")]).password, None);
}

#[test]
fn booleans_in_any_spelling() {
    for (text, on) in [
        ("True", true),
        ("yes", true),
        ("ON", true),
        ("1", true),
        ("False", false),
        ("no", false),
    ] {
        assert_eq!(
            config(&[("REDIS_ENABLED", text)])
                .expect("valid")
                .redis
                .is_some(),
            on,
            "{text}"
        );
    }
}

#[test]
fn every_unusable_value_is_named_with_what_it_may_hold() {
    let error = config(&[
        ("REDIS_ENABLED", "maybe"),
        ("REDIS_PORT", "66000"),
        ("REDIS_DB", "-1"),
        ("CACHE_TTL", "0"),
        ("CACHE_TTL_USERS", "5m"),
        ("CACHE_LOCAL_MB", "lots"),
        ("CACHE_NAMESPACE", "a b"),
        ("CACHE_TIMEOUT_MS", "0"),
    ])
    .expect_err("all of them are wrong")
    .to_string();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 8, "{error}");
    assert!(
        lines.contains(&"REDIS_PORT is `66000`; it may hold a port, 1 to 65535"),
        "{error}"
    );
    assert!(
        lines.contains(
            &"CACHE_TTL_USERS is `5m`; it may hold whole seconds, 1 or more, up to ten years"
        ),
        "{error}"
    );
    assert!(
        lines
            .contains(&"REDIS_ENABLED is `maybe`; it may hold true or false (1/0, yes/no, on/off)"),
        "{error}"
    );
}

/// A `main` that returns the error prints it by `Debug`.
#[test]
fn debug_shows_each_problem_on_its_own_line() {
    let error = config(&[("CACHE_TTL", "soon"), ("CACHE_JITTER", "2")]).unwrap_err();
    let lines = "CACHE_JITTER is `2`; it may hold a number, 0 to 1\n\
                 CACHE_TTL is `soon`; it may hold whole seconds, 1 or more, up to ten years";
    assert_eq!(format!("{error:?}"), lines);
}

#[test]
fn an_address_of_memcached_is_shown_as_it_was_set() {
    let address = ("MEMCACHED_URL", "memcached://localhost");
    let error = config(&[address, ("REDIS_ENABLED", "true")]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("MEMCACHED_URL is `memcached://localhost`; it may hold nothing"),
        "{error}"
    );
}

#[test]
fn a_size_for_compression_needs_its_feature() {
    let read = config(&[("CACHE_COMPRESS_OVER", "16k")]);
    match cfg!(feature = "zstd") {
        true => assert_eq!(read.unwrap().compress_over, Some(16 << 10)),
        false => assert_eq!(
            read.unwrap_err().to_string(),
            "CACHE_COMPRESS_OVER is `16k`; it may hold nothing, because this program was built \
             without the feature `zstd`"
        ),
    }
}

#[test]
fn a_url_wins() {
    let redis = redis(&[
        ("REDIS_URL", "redis://me:p%40ss@cache.local:7000/3"),
        ("REDIS_HOST", "elsewhere"),
    ]);
    let expected = RedisConfig::at("cache.local", 7000)
        .db(3)
        .login(Some("me"), "p@ss");
    assert_eq!(redis, expected);
}

#[test]
fn passwords_are_never_printed() {
    let secret = "hunter2";
    let redis = RedisConfig::default().login(None, secret);
    assert!(
        !format!("{redis:?}{:?}", CacheConfig::default().redis(redis.clone())).contains(secret)
    );
    let url = format!("redis://me:{secret}@host:notaport");
    let error = config(&[("REDIS_ENABLED", "1"), ("REDIS_URL", &url)])
        .expect_err("no port")
        .to_string();
    assert!(
        error.starts_with("REDIS_URL is not usable: its port") && !error.contains(secret),
        "{error}"
    );
}

#[test]
fn a_password_in_the_wrong_variable_is_not_printed() {
    let url = "redis://me:hunter2@cache.local:6379";
    let shown = |vars: &[(&str, &str)]| {
        let on = [("REDIS_ENABLED", "on")];
        let error = config(&[vars, &on].concat());
        error.expect_err("unusable").to_string()
    };
    for (name, held) in [
        ("REDIS_HOST", url),
        ("REDIS_HOST", "me:hunter2@cache.local"),
        ("REDIS_PORT", url),
        ("CACHE_NAMESPACE", "redis://cache.local/?password=hunter2"),
        ("CACHE_TTL_USERS", url),
    ] {
        let error = shown(&[(name, held)]);
        assert!(
            error.starts_with(name) && !error.contains("hunter2"),
            "{error}"
        );
    }
    for secret in SECRETS {
        let error = shown(&[(secret, "hunter2"), ("REDIS_DB", "hunter2")]);
        assert!(
            error.starts_with("REDIS_DB is not usable") && !error.contains("hunter2"),
            "{error}"
        );
    }
    let error = shown(&[("REDIS_PORT", "udp://10.0.0.3:6379"), ("REDIS_DB", "a\nb")]);
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 2, "{error}");
    assert!(lines[0].starts_with("REDIS_DB is `a\\nb`"), "{error}");
    assert!(
        lines[1].starts_with("REDIS_PORT is `udp://10.0.0.3:6379`"),
        "{error}"
    );
}

#[test]
fn variables_without_effect_are_no_errors() {
    let link = ("REDIS_PORT", "tcp://10.0.0.5:6380");
    assert!(config(&[link]).is_ok());
    for off in [&[][..], &[("REDIS_ENABLED", "False")]] {
        for wrong in [
            ("REDIS_PORT", "no port"),
            ("REDIS_DB", "-1"),
            ("REDIS_HOST", "a b"),
            ("REDIS_TLS", "maybe"),
            ("REDIS_URL", "redis://:7401#secret@prod"),
        ] {
            assert!(config(&[off, &[wrong]].concat()).is_ok(), "{wrong:?}");
        }
    }
    let url = ("REDIS_URL", "redis://prod:7000");
    for wrong in [
        link,
        ("REDIS_PORT", "x"),
        ("REDIS_DB", "x"),
        ("REDIS_HOST", "a b"),
    ] {
        assert_eq!(
            redis(&[url, wrong]),
            RedisConfig::at("prod", 7000),
            "{wrong:?}"
        );
    }
    let seeds = ("REDIS_CLUSTER", "a:7000,b:7001");
    let sentinels = ("REDIS_SENTINELS", "a:26379");
    for named in [seeds, sentinels] {
        for wrong in [("REDIS_PORT", "udp://10.0.0.5:1"), ("REDIS_HOST", "a b")] {
            let host = redis(&[named, wrong]).host;
            assert_eq!(host, "a", "{named:?} {wrong:?}");
        }
    }
    let is_wrong =
        |vars: &[(&str, &str)]| config(&[vars, &[("REDIS_ENABLED", "1")]].concat()).is_err();
    // A unit is no resource.
    for no_resource in ["CACHE_TTL_MS", "CACHE_TTL_SECONDS"] {
        let held = config(&[(no_resource, "5000")]).expect("no effect");
        assert!(held.ttl_by_resource.is_empty(), "{no_resource}");
        assert!(config(&[(no_resource, "5s")]).is_ok(), "{no_resource}");
    }
    assert!(is_wrong(&[seeds, ("REDIS_DB", "x")]));
    assert!(is_wrong(&[("REDIS_PORT", "x")]) && is_wrong(&[url, ("REDIS_TLS", "maybe")]));
}

/// The variable that holds what can't be used, and not another one that could have.
#[test]
fn a_database_of_a_cluster_is_named_with_its_variable() {
    for (name, held, shown) in [
        ("REDIS_DB", "3", "REDIS_DB is `3`; it may hold 0 where"),
        (
            "REDIS_URL",
            "redis://a/3",
            "REDIS_URL is `redis://…/3`; it may hold the database 0 where",
        ),
    ] {
        let error = config(&[
            ("REDIS_ENABLED", "1"),
            ("REDIS_CLUSTER", "a,b"),
            (name, held),
        ]);
        let error = error.expect_err("one database").to_string();
        assert!(error.starts_with(shown), "{error}");
    }
}

#[test]
fn quotation_marks_are_named() {
    for (name, held) in [
        ("CACHE_TTL", "\"300\""),
        ("REDIS_ENABLED", "'true'"),
        ("REDIS_HOST", "\"redis\""),
        ("REDIS_URL", "\"redis://:hunter2@redis\""),
        ("CACHE_NAMESPACE", "\"shop\""),
    ] {
        let error = config(&[("REDIS_ENABLED", "1"), (name, held)]).expect_err(name);
        let error = error.to_string();
        assert!(
            error.starts_with(name) && error.contains("quotation marks"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
    let error = config(&[("CACHE_TTL", "300\"")]).expect_err("one mark");
    assert!(!error.to_string().contains("quotation marks"), "{error}");
}

#[test]
fn addresses_that_cannot_be_reached_have_others() {
    let pairs = "10.0.0.5:7000=localhost:30001, [fd00::1]:7001=redis-2:7001,10.0.0.7=redis-3";
    let redis = redis(&[("REDIS_CLUSTER", "redis-1"), ("REDIS_NAT_MAP", pairs)]);
    let expected = RedisConfig::cluster([("redis-1", 6379)]).nat_map([
        (("10.0.0.5", 7000), ("localhost", 30001)),
        (("fd00::1", 7001), ("redis-2", 7001)),
        (("10.0.0.7", 6379), ("redis-3", 6379)),
    ]);
    assert_eq!(redis, expected);
    for wrong in ["a:1", "a:1=", "=b:1", "a:1=b:1=c:1", "a:x=b:1", "a:1=b:1,"] {
        let variables = [("REDIS_ENABLED", "1"), ("REDIS_NAT_MAP", wrong)];
        assert!(config(&variables).is_err(), "{wrong}");
    }
}

#[test]
fn a_service_link_is_an_address() {
    let link = ("REDIS_PORT", "tcp://10.0.0.5:6380");
    assert_eq!(redis(&[link]), RedisConfig::at("10.0.0.5", 6380));
    assert_eq!(
        redis(&[link, ("REDIS_HOST", "redis")]),
        RedisConfig::at("redis", 6380)
    );
    assert_eq!(
        redis(&[link, ("REDIS_HOST", "redis.shop.svc.cluster.local")]),
        RedisConfig::at("redis.shop.svc.cluster.local", 6380)
    );
    assert_eq!(
        redis(&[link, ("REDIS_HOST", "prod")]),
        RedisConfig::at("prod", 6379)
    );
    // The other variables of a service link are no typos.
    let names = [
        "REDIS_PORT_6379_TCP",
        "REDIS_SERVICE_HOST",
        "REDIS_SERVICE_PORT",
        "REDIS_PORT_6379_TCP_ADDR",
    ];
    assert_eq!(typos::of(names.into_iter()).count(), 0);
}

#[test]
fn a_resources_own_ttl() {
    let config = config(&[("CACHE_TTL_USER_NOTES", "7")]).expect("valid");
    assert_eq!(
        config.operator_ttl("user-notes"),
        Some(Duration::from_secs(7))
    );
    assert_eq!(config.operator_ttl("users"), None);
    // Not every shell can set this name, but Docker can.
    let config = self::config(&[("CACHE_TTL_USER-NOTES", "7")]).expect("valid");
    assert_eq!(
        config.operator_ttl("user_notes"),
        Some(Duration::from_secs(7))
    );
}

#[test]
fn a_host_has_no_port_and_a_secret_keeps_its_spaces() {
    let error = config(&[("REDIS_ENABLED", "1"), ("REDIS_HOST", "redis:6379")]);
    let error = error.expect_err("a port").to_string();
    assert!(error.contains("REDIS_HOST is `redis:6379`"), "{error}");
    for host in ["::1", "[::1]"] {
        assert_eq!(
            redis(&[("REDIS_HOST", host)]),
            RedisConfig::at("::1", 6379),
            "{host}"
        );
        let link = ("REDIS_PORT", "tcp://[::1]:7");
        let linked = redis(&[("REDIS_HOST", host), link]);
        assert_eq!(linked, RedisConfig::at("::1", 7), "{host}");
        for named in ["REDIS_CLUSTER", "REDIS_SENTINELS"] {
            assert_eq!(redis(&[(named, host)]).host, "::1", "{named} {host}");
        }
    }
    // Words and numbers that were meant for another setting.
    for (name, held) in [
        ("REDIS_CLUSTER", "true"),
        ("REDIS_CLUSTER", "0"),
        ("REDIS_SENTINELS", "false"),
        ("REDIS_HOST", "6379"),
    ] {
        let error = config(&[("REDIS_ENABLED", "1"), (name, held)]).expect_err("no host");
        let error = error.to_string();
        assert!(
            error.starts_with(&format!("{name} is `{held}`; it may hold")),
            "{error}"
        );
    }
    let secret = [("REDIS_ENABLED", "1"), ("REDIS_PASSWORD", " s3cret \n")];
    let with_secret = config(&secret).expect("right").redis.expect("on");
    assert_eq!(with_secret.password.as_deref(), Some(" s3cret "));
}

#[test]
fn a_service_named_cache_ttl_stops_nobody() {
    let config = config(&[
        ("CACHE_TTL_PORT", "tcp://10.0.0.5:80"),
        ("CACHE_TTL_PORT_80_TCP_ADDR", "10.0.0.5"),
        ("CACHE_TTL_PORT_80_TCP_PROTO", "tcp"),
        ("CACHE_TTL_PORT_90_SCTP", "sctp://10.0.0.5:90"),
        ("CACHE_TTL_PORT_80_TCP_PORT", "80"),
        ("CACHE_TTL_SERVICE_HOST", "10.0.0.5"),
        ("CACHE_TTL_SERVICE_PORT", "80"),
        ("CACHE_TTL_USERS", "7"),
    ]);
    let config = config.expect("right");
    let users = Duration::from_secs(7);
    assert_eq!(config.ttl_by_resource.get("users"), Some(&users));
}

#[test]
fn a_namespace_ends_in_a_colon() {
    assert_eq!(
        config(&[("CACHE_NAMESPACE", "shop")])
            .expect("valid")
            .namespace,
        "shop:"
    );
    assert_eq!(CacheConfig::default().namespace("shop:").namespace, "shop:");
}

#[cfg(unix)]
#[test]
fn values_that_are_no_text_are_errors_where_they_have_an_effect() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    let read = |name: &str, rest: &[(&str, &str)]| {
        let rest = rest.iter().map(|(name, value)| (name.into(), value.into()));
        let wrong = (OsString::from(name), OsString::from_vec(vec![b'a', 0xff]));
        CacheConfig::from_vars_os(rest.chain([wrong]).collect::<Vec<_>>())
    };
    let on = [("REDIS_ENABLED", "1")];
    let url = [on[0], ("REDIS_URL", "redis://prod")];
    let seeds = [on[0], ("REDIS_CLUSTER", "a,b")];
    for (name, rest, is_right) in [
        ("REDIS_PASSWORD", &[][..], true),
        ("REDIS_PASSWORD", &[("REDIS_ENABLED", " no ")], true),
        ("REDIS_PASSWORD", &[("REDIS_ENABLED", "maybe")], false),
        ("REDIS_PASSWORD", &on, false),
        ("REDIS_ENABLED", &[], false),
        ("CACHE_TTL", &[], false),
        ("CACHE_TTL_USERS", &on, false),
        ("CACHE_DIR", &on, true),
        // Overridden, or without what it belongs to.
        ("REDIS_HOST", &url, true),
        ("REDIS_PORT", &seeds, true),
        ("REDIS_PASSWORD", &url, true),
        ("REDIS_PASSWORD", &seeds, false),
        ("REDIS_TLS", &url, false),
        ("REDIS_SENTINEL_USERNAME", &on, true),
        ("REDIS_SENTINEL_PASSWORD", &on, true),
        ("REDIS_URL", &on, false),
        ("CACHE_TTL_SECONDS", &on, true),
        ("MEMCACHED_URL", &[], false),
    ] {
        let read = read(name, rest);
        assert_eq!(read.is_ok(), is_right, "{name} {rest:?} {read:?}");
        let names = |error: ConfigError| {
            let error = error.to_string();
            error.lines().any(|line| line.starts_with(name))
        };
        assert!(read.err().is_none_or(names), "{name} {rest:?}");
    }
}

#[test]
fn a_primary_has_a_name_that_sentinels_take() {
    let on = [("REDIS_ENABLED", "1"), ("REDIS_SENTINELS", "a")];
    let named = |master| config(&[&on[..], &[("REDIS_SENTINEL_MASTER", master)]].concat());
    assert!(named("main-1.b_c").is_ok());
    let error = named("my master").expect_err("a space").to_string();
    assert!(
        error.starts_with("REDIS_SENTINEL_MASTER is `my master`"),
        "{error}"
    );
}

#[test]
fn a_part_that_is_no_number_is_none() {
    let none = CacheConfig::default();
    let config = none
        .clone()
        .jitter(f64::NAN)
        .early(f64::NAN)
        .audit(f64::NAN);
    assert_eq!(config.stale_policy, none.stale_policy);
    assert_eq!(config.audit, 0);
}
