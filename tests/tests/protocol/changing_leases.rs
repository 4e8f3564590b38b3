//! A store in which every look finds a lease: another dead one each time, as where one writer
//! invalidates while many load, or one that stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cache_runtime::store::{
    EntryRef, Expected, Fill, Filled, Fingerprint, Found, Intent, IntentReply, Invalidated,
    Invalidation, KeyChange, LeaseReply, LeaseRequest, LookupReply, Millis, Nonce, Payload,
    Representation, ScanFilter, ServerInfo, Stamp, Store,
};
use cache_runtime::{BypassReason, Cache, CacheConfig, Error, ErrorKind, Status, observe};

use crate::shop::{Shop, User};
use crate::{bounded, patient};

/// After so many looks it comes to rest, so that a reader who goes on for ever ends and is found
/// out.
const LOOKS: usize = 1_000;
const NOW: Millis = Millis(1_700_000_000_000);

#[derive(Debug, Default)]
struct Restless {
    lookups: AtomicUsize,
    /// The lease that stands, if one does. Word of its change comes at once, though it does not
    /// change.
    standing: Option<LeaseRequest>,
    /// How long an answer takes.
    takes: Duration,
}

impl Restless {
    /// A load of a row elsewhere, which does not end.
    fn standing() -> Self {
        let standing = Some(lease(Fingerprint::of::<User>(0)));
        Self {
            standing,
            ..Self::default()
        }
    }
}

fn lease(fingerprint: Fingerprint) -> LeaseRequest {
    LeaseRequest {
        expected: Expected::Nothing,
        token: Nonce::fresh(),
        stamp: stamp(),
        fingerprint,
        length: Duration::from_secs(3),
    }
}

fn absent<T>() -> Result<T, Error> {
    Err(Error::new(ErrorKind::Unavailable, "not in this store"))
}

fn stamp() -> Stamp {
    Stamp::of(Nonce::fresh(), "", [])
}

#[async_trait]
impl Store for Restless {
    fn name(&self) -> &'static str {
        "restless"
    }

    fn representation(&self) -> Representation {
        Representation::Decoded
    }

    async fn lookup(&self, entry_ref: &EntryRef) -> Result<LookupReply, Error> {
        tokio::time::sleep(self.takes).await;
        let lease = match &self.standing {
            Some(lease) => lease.clone(),
            None => lease(Fingerprint::of::<()>(0)),
        };
        let found = if self.lookups.fetch_add(1, Ordering::SeqCst) < LOOKS {
            Found::Entry(lease.header(entry_ref.kind, NOW), Payload::Empty)
        } else {
            Found::Nothing
        };
        Ok(LookupReply {
            found,
            stamp: match &self.standing {
                Some(lease) => lease.stamp,
                None => stamp(),
            },
            intents_until: None,
            now: NOW,
        })
    }

    async fn watch_key(&self, _: &str) -> Result<Option<KeyChange>, Error> {
        tokio::time::sleep(self.takes).await;
        Ok(Some(KeyChange::new(async {})))
    }

    async fn lease(&self, _: &EntryRef, _: &LeaseRequest) -> Result<LeaseReply, Error> {
        absent()
    }

    async fn renew(&self, _: &str, _: Nonce, _: Duration) -> Result<bool, Error> {
        absent()
    }

    async fn release(&self, _: &str, _: Nonce) -> Result<(), Error> {
        absent()
    }

    async fn fill(&self, _: &EntryRef, _: Fill) -> Result<Filled, Error> {
        absent()
    }

    async fn intend(&self, _: &Intent) -> Result<IntentReply, Error> {
        absent()
    }

    async fn renew_intent(&self, _: &Intent) -> Result<IntentReply, Error> {
        absent()
    }

    async fn prune(&self, _: &EntryRef) -> Result<(), Error> {
        absent()
    }

    async fn invalidate(&self, _: &Invalidation) -> Result<Invalidated, Error> {
        absent()
    }

    async fn remove_matching(&self, _: &ScanFilter) -> Result<u64, Error> {
        absent()
    }

    async fn invalidate_namespace(&self, _: &str) -> Result<Millis, Error> {
        absent()
    }

    async fn ping(&self) -> Result<(), Error> {
        absent()
    }

    async fn server_info(&self) -> Result<ServerInfo, Error> {
        absent()
    }
}

#[tokio::test]
async fn a_reader_who_meets_one_dead_lease_after_another_gives_up() {
    bounded(async {
        let config = patient().wait_limit(Duration::ZERO);
        let cache = Cache::with_store(config, Arc::new(Restless::default())).expect("a thread");
        let (read, outcomes) = observe(Shop::new(&cache).get(1)).await;
        assert!(read.expect("read").is_some());
        assert_eq!(outcomes[0].status, Status::Bypass(BypassReason::WaitLimit));
    })
    .await;
}

/// Reads a row whose load elsewhere does not end; returns how the read ended, and how often it
/// looked.
async fn wait_for(store: Restless) -> (Status, usize) {
    let store = Arc::new(store);
    let config = CacheConfig::default()
        .command_budget(Duration::from_millis(100))
        .wait_limit(Duration::from_secs(1));
    let cache = Cache::with_store(config, Arc::clone(&store) as _).expect("a thread");
    let (read, outcomes) = observe(Shop::new(&cache).get(1)).await;
    assert!(read.expect("read").is_some());
    (outcomes[0].status, store.lookups.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn word_without_a_change_is_not_followed_without_a_pause() {
    let (status, lookups) = wait_for(Restless::standing()).await;
    assert_eq!(status, Status::Bypass(BypassReason::WaitLimit));
    assert!(lookups < LOOKS / 5, "{lookups} looks in a second");
}

#[tokio::test(start_paused = true)]
async fn a_look_behind_a_wait_has_a_budget_of_its_own() {
    let slow = Restless {
        takes: Duration::from_millis(60),
        ..Restless::standing()
    };
    let (status, _) = wait_for(slow).await;
    assert_eq!(status, Status::Bypass(BypassReason::WaitLimit));
}
