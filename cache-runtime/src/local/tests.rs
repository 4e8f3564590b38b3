use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use super::freshness::ConnectionId;
use super::*;
use crate::key::{EntryKind, NamedDependency};
use crate::protocol::generation::Dependency;
use crate::store::EntryRef;

const MINUTE: Duration = Duration::from_secs(60);

fn covered(max_bytes: u64) -> (Local, ConnectionId) {
    let local = Local::new(max_bytes, MINUTE);
    let connection_id = local.announce();
    local.open(connection_id);
    let heartbeat = local.start_heartbeat(connection_id).expect("open");
    local.returned(connection_id, heartbeat);
    (local, connection_id)
}

fn entry_ref(key: &str) -> EntryRef {
    EntryRef {
        key: key.into(),
        kind: EntryKind::Entity,
        deps: [Dependency::new("@gen:users".into())].into(),
    }
}

fn copy(value: u32) -> NewLocalEntry {
    NewLocalEntry {
        value: Some(Arc::new(value)),
        type_id: TypeId::of::<u32>(),
        version: 0,
        extras: [].into(),
        ttl: MINUTE,
        local_ttl: MINUTE,
        encoded: 100,
        stamp: None,
    }
}

fn find(local: &Local, key: &str) -> Option<u32> {
    let expected = ExpectedEntry {
        type_id: TypeId::of::<u32>(),
        version: 0,
        extras: &[],
    };
    let value = local.find(key, &expected)?.value?;
    value.downcast_ref().copied()
}

fn keep(local: &Local, key: &str, value: u32) {
    let read_token = local.read_token(&entry_ref(key)).expect("covered");
    local.keep(read_token, copy(value));
}

#[test]
fn local_entries_are_served_until_a_change_is_reported() {
    let (local, _) = covered(1 << 20);
    for word in ["users:1", "@gen:users"] {
        keep(&local, "users:1", 7);
        assert_eq!(find(&local, "users:1"), Some(7));
        local.pushed(b"users:2");
        assert_eq!(find(&local, "users:1"), Some(7));
        local.pushed(word.as_bytes());
        assert_eq!(find(&local, "users:1"), None, "{word}");
        assert_eq!(local.stats().entries, 0, "{word}");
    }
}

#[test]
fn word_before_the_answer_is_handled_poisons_the_read() {
    let (local, _) = covered(1 << 20);
    for word in ["users:1", "@gen:users"] {
        let read_token = local.read_token(&entry_ref("users:1")).expect("covered");
        local.forget([word]);
        local.keep(read_token, copy(7));
        assert_eq!(find(&local, "users:1"), None, "{word}");
    }
    assert_eq!((local.stats().poisoned, local.stats().kept), (2, 0));
}

#[test]
fn a_lost_connection_or_a_flush_forgets_everything() {
    let (local, connection_id) = covered(1 << 20);
    keep(&local, "users:1", 7);
    let on_its_way = local.read_token(&entry_ref("users:2")).expect("covered");
    local.pushed_all();
    local.keep(on_its_way, copy(7));
    assert_eq!(find(&local, "users:1"), None);
    assert_eq!(find(&local, "users:2"), None);
    keep(&local, "users:1", 8);
    assert_eq!(find(&local, "users:1"), Some(8));
    local.close(connection_id);
    assert_eq!(find(&local, "users:1"), None);
    assert!(local.read_token(&entry_ref("users:1")).is_none());
    let again = local.announce();
    local.open(again);
    let heartbeat = local.start_heartbeat(again).expect("open");
    local.returned(again, heartbeat);
    assert_eq!(find(&local, "users:1"), None);
}

#[test]
fn nothing_is_served_before_the_first_heartbeat() {
    let local = Local::new(1 << 20, MINUTE);
    local.open(local.announce());
    keep(&local, "users:1", 7);
    assert_eq!(find(&local, "users:1"), None);
    assert!(!local.stats().serving);
}

#[test]
fn another_type_version_or_list_of_tags_is_another_value() {
    let (local, _) = covered(1 << 20);
    keep(&local, "users:1", 7);
    let right = ExpectedEntry {
        type_id: TypeId::of::<u32>(),
        version: 0,
        extras: &[],
    };
    assert!(local.find("users:1", &right).is_some());
    let tags = [NamedDependency::Tag("red".into())];
    for wrong in [
        ExpectedEntry {
            type_id: TypeId::of::<i32>(),
            ..right
        },
        ExpectedEntry {
            version: 1,
            ..right
        },
        ExpectedEntry {
            extras: &tags,
            ..right
        },
    ] {
        assert!(local.find("users:1", &wrong).is_none());
    }
}

#[test]
fn a_local_entry_has_its_own_end() {
    let (local, _) = covered(1 << 20);
    for (ttl, local_ttl) in [(MINUTE, Duration::ZERO), (Duration::ZERO, MINUTE)] {
        let read_token = local.read_token(&entry_ref("users:1")).expect("covered");
        local.keep(
            read_token,
            NewLocalEntry {
                ttl,
                local_ttl,
                ..copy(7)
            },
        );
        assert_eq!(find(&local, "users:1"), None);
    }
}

#[test]
fn the_tier_is_bounded_by_bytes() {
    let (local, _) = covered(100 * (100 + entry::OVERHEAD));
    for n in 0..1000 {
        keep(&local, &format!("users:{n}"), n);
    }
    let counters = local.stats();
    assert!(
        counters.bytes <= 100 * (100 + entry::OVERHEAD),
        "{counters:?}"
    );
    assert!((80..=100).contains(&counters.entries), "{counters:?}");
}

#[test]
fn a_scan_does_not_wash_away_what_is_in_use() {
    let (local, _) = covered(1000 * (100 + entry::OVERHEAD));
    let hot: Vec<String> = (0..500).map(|n| format!("users:{n}")).collect();
    for key in &hot {
        keep(&local, key, 1);
    }
    for _ in 0..4 {
        for key in &hot {
            find(&local, key);
        }
    }
    for n in 0..20_000 {
        keep(&local, &format!("scanned:{n}"), 2);
    }
    let left = hot.iter().filter(|key| find(&local, key).is_some()).count();
    assert!(left > 400, "{left} of 500 are left");
}
