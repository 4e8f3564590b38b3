use std::pin::pin;

use futures_util::FutureExt;

use super::*;
use crate::key::EntryKind;
use crate::local::{ClockReading, EntrySource as _};
use crate::protocol::fingerprint::Fingerprint;
use crate::store::{Dependency, Expected, IntentRow};

#[tokio::test]
async fn a_walk_lets_others_have_their_turn() {
    let store = MemoryStore::new(64 << 20);
    for n in 0..2 * STEP {
        let key = format!("users:{n}");
        let request = LeaseRequest {
            expected: Expected::Nothing,
            token: Nonce::fresh(),
            stamp: Stamp::of(Nonce::NONE, "", []),
            fingerprint: Fingerprint::of::<String>(0),
            length: Duration::from_secs(60),
        };
        let header = request.header(EntryKind::Entity, store.now());
        store.put(&key, header, (Payload::Empty, 0), None);
    }
    let everything = ScanFilter::all("", "*");
    let mut walk = pin!(store.remove_matching(&everything));
    assert!(walk.as_mut().now_or_never().is_none());
    walk.await.expect("it can't fail");
    assert_eq!(store.entries.len(), 0);
}

#[tokio::test]
async fn intents_on_what_nobody_reads_do_not_stay() {
    let ahead = Arc::new(AtomicU64::new(0));
    let store = MemoryStore::new(1 << 20).ahead_by(Arc::clone(&ahead));
    let lasting = Duration::from_secs(3600);
    for n in 0..1_000 {
        let intent = Intent {
            token: Nonce::fresh(),
            rows: vec![IntentRow {
                key: format!("users:{n}"),
                whole: Dependency::new("@gen:users".into()),
            }],
            deps: Vec::new(),
            length: if n == 0 {
                lasting
            } else {
                Duration::from_millis(1)
            },
        };
        store.intend(&intent).await.expect("it can't fail");
        ahead.fetch_add(2, Ordering::Relaxed);
    }
    let keys = store.intents.keys();
    assert!(keys <= intents::FIRST_SWEEP, "{keys}");
    let standing = store.intents.last_deadline(["users:0"]);
    assert!(standing.is_some(), "it stands");
}

/// The table may have evicted what a thread keeps.
#[tokio::test]
async fn kept_entries_end_without_their_place_in_the_table() {
    let everything = ScanFilter::all("", "*");
    for by_walk in [false, true] {
        let store = MemoryStore::new(64 << 10);
        let stored = |key: &str| {
            let key = key.to_owned();
            async {
                let entry_ref = EntryRef {
                    key,
                    kind: EntryKind::Entity,
                    deps: [Dependency::new("@gen:users".into())].into(),
                };
                let lookup = store.lookup(&entry_ref).await.expect("it can't fail");
                let request = LeaseRequest {
                    expected: Expected::Nothing,
                    token: Nonce::fresh(),
                    stamp: lookup.stamp,
                    fingerprint: Fingerprint::of::<u32>(0),
                    length: Duration::from_secs(60),
                };
                let leased = store
                    .lease(&entry_ref, &request)
                    .await
                    .expect("it can't fail");
                assert_eq!(leased, LeaseReply::Granted);
                let now = store.now();
                let header = Header {
                    content: Content::Value,
                    token: Nonce::NONE,
                    deadline: Millis(0),
                    fresh: now.after(Duration::from_secs(60)),
                    stale: now.after(Duration::from_secs(60)),
                    ..request.header(EntryKind::Entity, now)
                };
                let under = store.under(&entry_ref, lookup.stamp);
                let value = Payload::Decoded(Arc::new(7_u32));
                store.put(&entry_ref.key, header, (value, 100), under);
                entry_ref
            }
        };
        let entry_ref = stored("users:1").await;
        let memory = InMemory::new(&store, None);
        let minute = Duration::from_secs(60);
        let kept = || {
            memory.kept(&entry_ref.key, &entry_ref.deps, 0, |_, _, _| {
                Some((None, [minute; 2]))
            })
        };
        let kept = kept().expect("it is there");
        let is_served = || memory.again(&kept, &mut ClockReading::now()).is_some();
        assert!(is_served() && store.front_bytes() > 0);
        // Who asks for it meanwhile keeps it there.
        for n in 2..5_000 {
            stored(&format!("users:{n}")).await;
        }
        assert!(store.entries.get("users:1").is_none() && is_served());
        if by_walk {
            store
                .remove_matching(&everything)
                .await
                .expect("it can't fail");
        } else {
            store.delete_entry("users:1");
        }
        assert!(!is_served(), "by a walk: {by_walk}");
    }
}

#[test]
fn bytes_for_people() {
    assert_eq!(human_bytes(0), "0B");
    assert_eq!(human_bytes(1536), "1.50K");
    assert_eq!(human_bytes(64 << 20), "64.00M");
}
