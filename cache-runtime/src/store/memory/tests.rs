use std::pin::pin;

use futures_util::FutureExt;

use super::*;
use crate::protocol::fingerprint::Fingerprint;
use crate::store::{Dep, IntentRow};

#[tokio::test]
async fn a_walk_lets_others_have_their_turn() {
    let store = MemoryStore::new(64 << 20);
    for n in 0..2 * STEP {
        let key = format!("users:{n}");
        let request = LeaseRequest {
            seen: Seen::Nothing,
            token: Nonce::fresh(),
            stamp: Stamp::of(Nonce::NONE, "", []),
            fingerprint: Fingerprint::of::<String>(0),
            length: Duration::from_secs(60),
        };
        let header = request.header(EntryKind::Entity, store.now());
        store.put(&key, header, (Payload::Empty, 0), None);
    }
    let everything = Matching::all("", "*");
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
                whole: Dep::new("@gen:users".into()),
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
    let intents = store.intents.read();
    assert!(intents.len() <= FIRST_SWEEP, "{}", intents.len());
    assert!(intents.contains_key("users:0"), "it stands");
}

#[test]
fn bytes_for_people() {
    assert_eq!(human_bytes(0), "0B");
    assert_eq!(human_bytes(1536), "1.50K");
    assert_eq!(human_bytes(64 << 20), "64.00M");
}
