use super::*;

fn kinds(advise: impl FnOnce(&mut DoctorReport)) -> Vec<DiagnosticKind> {
    let mut report = DoctorReport::default();
    advise(&mut report);
    report.advice.iter().map(|advice| advice.kind).collect()
}

#[test]
fn only_this_machine_may_go_without_a_password() {
    for (host, password, expected) in [
        ("localhost", None, None),
        ("127.0.0.1", None, None),
        ("::1", None, None),
        ("redis", None, Some(DiagnosticKind::NoPassword)),
        ("10.0.0.7", None, Some(DiagnosticKind::NoPassword)),
        ("redis", Some("s3cret"), None),
    ] {
        let mut redis = RedisConfig::at(host, 6379);
        redis.password = password.map(str::to_owned);
        let kinds = kinds(|report| super::password(report, &redis));
        assert_eq!(kinds, Vec::from_iter(expected), "{host}");
    }
}

#[test]
fn old_servers_are_told_by_number() {
    for (version, expected) in [
        ("6.0.16", Some(DiagnosticKind::OldServer)),
        ("5.0.7", Some(DiagnosticKind::OldServer)),
        ("6.2.0", None),
        ("7.0.15", None),
        ("10.1.0", None),
        ("of my own", None),
    ] {
        let kinds = kinds(|report| old_server(report, version));
        assert_eq!(kinds, Vec::from_iter(expected), "{version}");
    }
}

#[test]
fn a_foreign_key_is_printed_on_one_line() {
    assert_eq!(printable("users:1"), "`users:1`");
    let odd = printable(&format!("users:\n{}", "x".repeat(100)));
    assert!(
        odd.starts_with(r"`users:\nxxx") && odd.ends_with("…`"),
        "{odd}"
    );
}

#[cfg(feature = "map")]
#[test]
fn announcements_that_would_be_evicted_first() {
    use crate::registry::catalog::test_map;
    use crate::registry::{Role, Site};

    let writes = |words| Site::new(Role::Writes, "write", words);
    let volatile = ServerDiagnostics {
        eviction: Some("volatile-ttl".into()),
        memory_limit: Some(1),
        ..ServerDiagnostics::default()
    };
    for (sites, expected) in [
        (
            vec![writes("users, crash safe")],
            Some(DiagnosticKind::EvictsIntents),
        ),
        (vec![writes("users")], None),
    ] {
        let config = CacheConfig::default().catalog(test_map(&sites));
        let kinds = kinds(|report| memory(report, &Program::of(&config), &volatile));
        assert_eq!(kinds, Vec::from_iter(expected));
    }
}

#[test]
fn an_outbox_that_is_not_read_is_told() {
    let well = OutboxStats {
        connected: true,
        shared: true,
        depth: Some(3),
        oldest_ms: Some(900),
        ..OutboxStats::default()
    };
    let count = |stats: OutboxStats| kinds(|report| outbox(report, &stats)).len();
    assert_eq!(count(well.clone()), 0);
    for (wrong, expected) in [
        (
            OutboxStats {
                connected: false,
                ..well.clone()
            },
            1,
        ),
        (
            OutboxStats {
                serving: Some(false),
                ..well.clone()
            },
            1,
        ),
        (
            OutboxStats {
                set_aside: 2,
                ..well.clone()
            },
            1,
        ),
        (
            OutboxStats {
                oldest_ms: Some(61_000),
                ..well.clone()
            },
            1,
        ),
        (
            OutboxStats {
                not_followed: vec!["users".into()],
                ..well.clone()
            },
            1,
        ),
        (
            OutboxStats {
                oldest_transaction_ms: Some(3_600_001),
                prepared: 1,
                ..well.clone()
            },
            1,
        ),
        (
            OutboxStats {
                oldest_transaction_ms: Some(60_000),
                prepared: 1,
                ..well.clone()
            },
            0,
        ),
        // Each process reads all rows, and they stay for a while.
        (
            OutboxStats {
                oldest_ms: Some(61_000),
                shared: false,
                serving: Some(true),
                ..well.clone()
            },
            0,
        ),
    ] {
        let shown = format!("{wrong:?}");
        assert_eq!(count(wrong), expected, "{shown}");
    }
}
