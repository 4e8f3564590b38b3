use super::*;

fn outcome(status: Status) -> Outcome {
    Outcome {
        key: "users:1".into(),
        resource: "users".into(),
        store: "redis",
        status,
    }
}

#[test]
fn cache_status_items() {
    let item = |status| outcome(status).cache_status();
    assert_eq!(
        item(Status::Hit {
            ttl: Duration::from_millis(295_900)
        }),
        r#"cache-runtime; hit; ttl=295; key="users:1"; detail=redis"#
    );
    assert_eq!(
        item(Status::Hit { ttl: Duration::MAX }),
        r#"cache-runtime; hit; key="users:1"; detail=redis"#
    );
    assert_eq!(
        item(Status::Miss {
            stored: true,
            joined: false
        }),
        r#"cache-runtime; fwd=miss; stored; key="users:1"; detail=redis"#
    );
    assert_eq!(
        item(Status::Miss {
            stored: false,
            joined: true
        }),
        r#"cache-runtime; fwd=miss; collapsed; key="users:1"; detail=redis"#
    );
    assert_eq!(
        item(Status::Stale {
            past: Duration::from_millis(5_100),
            reason: StaleReason::LoadFailed
        }),
        r#"cache-runtime; hit; ttl=-5; key="users:1"; detail=load-failed"#
    );
    assert_eq!(
        item(Status::Bypass(BypassReason::OtherType)),
        r#"cache-runtime; fwd=bypass; key="users:1"; detail=other-type"#
    );
}

#[tokio::test]
async fn so_many_outcomes_are_kept_and_the_others_counted() {
    let calls = |count| async move {
        for _ in 0..count {
            record(|| outcome(Status::Bypass(BypassReason::Requested)));
        }
        record_invalidation(Acknowledgement::Delivered);
    };
    let ((), outcomes) = observe_first(16, calls(100_000)).await;
    assert_eq!((outcomes.len(), outcomes.more()), (16, 99_984));
    assert!(outcomes.calls.capacity() <= 16);
    let ((), outcomes) = observe(calls(100)).await;
    assert_eq!((outcomes.len(), outcomes.more()), (100, 0));
    // No outcomes are wanted, so none are built; also inside of another layer.
    let unseen = async {
        let ((), outcomes) = observe_first(0, async {
            record(|| panic!("nobody looks"));
            record_invalidation(Acknowledgement::Delivered);
        })
        .await;
        assert_eq!(outcomes.cache_invalidation(), Some("delivered"));
        assert!(outcomes.is_empty());
    };
    unseen.await;
    let unseen = observe_first(0, async { record(|| panic!("nobody looks")) });
    observe_first(16, unseen).await;
}

#[test]
fn keys_stay_ascii_in_the_header() {
    let odd = Outcome {
        key: "users:é\"\\".into(),
        ..outcome(Status::Hit {
            ttl: Duration::ZERO,
        })
    };
    assert!(
        odd.cache_status().contains(r#"key="users:%C3%A9\"\\""#),
        "{}",
        odd.cache_status()
    );
}

/// The name of a program's own store may be any text.
#[test]
fn a_detail_that_is_no_token_is_a_string() {
    let of = |store| {
        let hit = Status::Hit { ttl: Duration::MAX };
        let item = Outcome {
            store,
            ..outcome(hit)
        };
        item.cache_status()
    };
    let start = r#"cache-runtime; hit; key="users:1""#;
    for token in ["redis", "my-store", "*", "a/b:c"] {
        assert_eq!(of(token), format!("{start}; detail={token}"));
    }
    for (name, string) in [
        ("my store", r#""my store""#),
        ("2nd", r#""2nd""#),
        ("a, b; c", r#""a, b; c""#),
        ("\"é\r\n", r#""\"%C3%A9%0D%0A""#),
    ] {
        assert_eq!(of(name), format!("{start}; detail={string}"));
    }
    assert_eq!(of(""), start);
}

/// A handler may look at its own calls, and a test at those of a whole application.
#[tokio::test]
async fn an_observer_hides_nothing_from_those_around_it() {
    let bypass = || outcome(Status::Bypass(BypassReason::Disabled));
    let miss = || {
        outcome(Status::Miss {
            stored: true,
            joined: false,
        })
    };
    record(bypass);
    let (inner, outer) = observe(async {
        record(miss);
        let calls = async {
            record(bypass);
            record_invalidation(Acknowledgement::Pending);
        };
        let ((), inner) = observe(calls).await;
        record_invalidation(Acknowledgement::Delivered);
        inner
    })
    .await;
    assert_eq!(
        (&inner[..], &outer[..]),
        (&[bypass()][..], &[miss(), bypass()][..])
    );
    for outcomes in [inner, outer] {
        assert_eq!(outcomes.invalidation(), Some(Acknowledgement::Pending));
    }

    // Two layers write into one response, so each call is told to one of them.
    for shown in [0, 16] {
        let inner = observe_first(shown, async {
            record(bypass);
            record_invalidation(Acknowledgement::Delivered);
        });
        let ((((), inner), middle), outer) = observe(observe_first(16, inner)).await;
        assert_eq!(
            (inner.len(), middle.len(), outer.len()),
            (shown.min(1), 0, 1)
        );
        assert_eq!((middle.more(), middle.invalidation()), (0, None));
        assert_eq!(outer.cache_invalidation(), Some("delivered"));
    }
}
