//! What a request remembers beside a write of its own, and beside callers who ask anew.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cache_runtime::store::{
    EntryRef, Fill, Filled, Intent, IntentReply, Invalidated, Invalidation, LeaseReply,
    LeaseRequest, LookupReply, MemoryStore, Millis, Nonce, Representation, ScanFilter, ServerInfo,
    Store,
};
use cache_runtime::testing::{Fault, TestCache};
use cache_runtime::{Cache, Error, Status, bypass, cached, invalidates, observe, refresh};
use futures_util::future::join;
use serde::{Deserialize, Serialize};

use crate::shop::{self, DbError, Gate, Shop};
use crate::{Pair, bounded, over_each_store, patient};

over_each_store! {
    strict_functions_ask_each_time;
    a_request_does_not_go_back_in_time;
    what_was_bypassed_is_not_followed_by_something_older;
    a_result_that_is_not_remembered_ends_the_older_one;
    a_read_that_a_newer_one_has_overtaken_is_not_remembered;
    a_request_is_part_of_the_one_in_which_it_runs;
    nothing_is_remembered_beside_a_write_in_doubt;
}

struct Accounts {
    cache: Cache,
    loads: Arc<AtomicU32>,
}

impl Accounts {
    fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            loads: Arc::default(),
        }
    }

    fn load(&self) -> u32 {
        self.loads.fetch_add(1, Ordering::SeqCst) + 1
    }

    #[cached(resource = "accounts", cache = self.cache)]
    async fn get(&self, id: i64) -> u32 {
        let _ = id;
        self.load()
    }

    #[cached(resource = "accounts", op = "balance", strict, cache = self.cache)]
    async fn balance(&self, id: i64) -> u32 {
        let _ = id;
        self.load()
    }

    #[invalidates("accounts", id = id, cache = self.cache)]
    async fn write(&self, id: i64) {
        let _ = id;
    }

    /// Written by somebody else, of whom the request knows nothing.
    async fn written_elsewhere(&self, cache: &Cache) {
        let cache = cache.clone();
        let write = async move { cache.invalidate_all("accounts").await };
        let _ = cache_tests::spawn(write).await.expect("written");
    }
}

/// The commit of a write whose caller hung up, or whose connection broke, may arrive at any time.
async fn nothing_is_remembered_beside_a_write_in_doubt(pair: Pair) {
    let shop = Shop::new(&pair.a);
    // The row, before and after a commit arrives.
    let arrives = async |id: i64, late: &str| {
        let name = async || shop.get(id).await.expect("read").expect("there").name;
        assert_ne!(name().await, late);
        shop.commit(id, late);
        let cache = pair.b.clone();
        let invalidates = async move { cache.invalidate("users", &id).await };
        let _ = cache_tests::spawn(invalidates).await.expect("invalidated");
        assert_eq!(name().await, late);
    };

    let hangs_up = async {
        let gate = Gate::new();
        let held = shop.with_write_gate(&gate);
        tokio::select! {
            _ = held.rename(1, "sent") => panic!("it stands at the gate"),
            () = gate.arrival() => {}
        }
    };
    let request = async {
        hangs_up.await;
        arrives(1, "late").await;
    };
    pair.a.request(request).await;

    let request = async {
        let broken = shop.with_fault(shop::Fault::LostAfterCommit);
        assert!(broken.rename(2, "sent").await.is_err());
        arrives(2, "late").await;
    };
    pair.a.request(request).await;

    let request = async {
        let block = async {
            shop.rename_in_transaction(3).await?;
            Err::<(), _>(DbError::ConnectionLost)
        };
        assert!(pair.a.after_commit(block).await.is_err());
        arrives(3, "late").await;
    };
    pair.a.request(request).await;

    // Nobody says when the transaction of this one has ended.
    let request = async {
        let sent = shop.rename_in_transaction(3).await;
        sent.expect("its caller commits it");
        arrives(3, "later").await;
    };
    pair.a.request(request).await;
}

async fn strict_functions_ask_each_time(pair: Pair) {
    let accounts = Accounts::new(&pair.a);
    let request = async {
        let first = accounts.balance(1).await;
        assert_eq!(accounts.balance(1).await, first);
        accounts.written_elsewhere(&pair.b).await;
        assert_ne!(accounts.balance(1).await, first);
    };
    let ((), outcomes) = observe(pair.a.request(request)).await;
    assert!(
        outcomes.iter().all(|it| it.store != "request"),
        "{outcomes:?}"
    );
}

async fn a_request_does_not_go_back_in_time(pair: Pair) {
    let accounts = Accounts::new(&pair.a);
    let request = async {
        let first = accounts.get(1).await;
        let second = refresh(accounts.get(1)).await;
        assert_ne!(first, second);
        assert_eq!(accounts.get(1).await, second, "it has seen this already");
        accounts.written_elsewhere(&pair.b).await;
        assert_eq!(accounts.get(1).await, second, "it is remembered");
        let third = pair.a.strict(accounts.get(1)).await;
        assert_ne!(second, third);
        let (last, outcomes) = observe(accounts.get(1)).await;
        assert_eq!(last, third);
        assert_eq!(outcomes[0].store, "request");
        assert!(
            outcomes[0]
                .cache_status()
                .starts_with("cache-runtime; hit; key="),
            "no time is known: {outcomes:?}"
        );
    };
    pair.a.request(request).await;
}

async fn what_was_bypassed_is_not_followed_by_something_older(pair: Pair) {
    let accounts = Accounts::new(&pair.a);
    let request = async {
        let first = accounts.get(1).await;
        let second = bypass(accounts.get(1)).await;
        assert_ne!(first, second);
        assert_eq!(accounts.get(1).await, second, "it has seen this already");
        let third = bypass(accounts.get(1)).await;
        assert_ne!(second, third, "who bypasses asks each time");
        assert_eq!(accounts.get(1).await, third);
    };
    pair.a.request(request).await;
}

/// A value whose clone is another one, if the number is even. Then it is kept nowhere.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Numbered(u32);

impl Clone for Numbered {
    fn clone(&self) -> Self {
        Self(self.0 * (self.0 % 2))
    }
}

impl Accounts {
    #[cached(resource = "numbers", cache = self.cache)]
    async fn number(&self, id: i64) -> Numbered {
        let _ = id;
        Numbered(self.load())
    }
}

async fn a_result_that_is_not_remembered_ends_the_older_one(pair: Pair) {
    let accounts = Accounts::new(&pair.a);
    let request = async {
        assert_eq!(accounts.number(1).await, Numbered(1));
        assert_eq!(accounts.number(1).await, Numbered(1));
        assert_eq!(refresh(accounts.number(1)).await, Numbered(2));
        assert_eq!(accounts.number(1).await, Numbered(3));
    };
    pair.a.request(request).await;
}

/// Its first load waits at a gate.
struct Slow {
    cache: Cache,
    loads: AtomicU32,
    gate: Arc<Gate>,
}

impl Slow {
    #[cached(resource = "slow", cache = self.cache)]
    async fn get(&self, id: i64) -> u32 {
        let _ = id;
        let number = self.loads.fetch_add(1, Ordering::SeqCst) + 1;
        if number == 1 {
            self.gate.pass().await;
        }
        number
    }
}

async fn a_read_that_a_newer_one_has_overtaken_is_not_remembered(pair: Pair) {
    let slow = Slow {
        cache: pair.a.clone(),
        loads: AtomicU32::new(0),
        gate: Gate::new(),
    };
    let request = async {
        let overtakes = async {
            slow.gate.arrival().await;
            let newer = bypass(slow.get(1)).await;
            slow.gate.open();
            newer
        };
        assert_eq!(join(slow.get(1), overtakes).await, (1, 2));
        let (value, outcomes) = observe(slow.get(1)).await;
        assert_eq!((value, outcomes[0].store), (2, "request"));
    };
    pair.a.request(request).await;
}

/// Not of the one in which it was made.
async fn a_request_is_part_of_the_one_in_which_it_runs(pair: Pair) {
    let accounts = Accounts::new(&pair.a);
    let write = pair.a.request(accounts.write(1));
    let request = async {
        let first = accounts.get(1).await;
        write.await;
        let second = accounts.get(1).await;
        assert_ne!(first, second, "it sees its own write");
        accounts.written_elsewhere(&pair.b).await;
        // A task has a request of its own.
        let apart = Accounts {
            cache: pair.a.clone(),
            loads: Arc::clone(&accounts.loads),
        };
        let read = async move { apart.get(1).await };
        let read = cache_tests::spawn(pair.a.request(read)).await;
        assert_ne!(read.expect("read"), second);
    };
    pair.a.request(request).await;
}

/// A store that holds invalidations at a gate.
struct Held {
    store: MemoryStore,
    gate: Arc<Gate>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

#[async_trait]
impl Store for Held {
    fn name(&self) -> &'static str {
        "held"
    }

    fn representation(&self) -> Representation {
        self.store.representation()
    }

    async fn lookup(&self, entry_ref: &EntryRef) -> Result<LookupReply, Error> {
        self.store.lookup(entry_ref).await
    }

    async fn lease(
        &self,
        entry_ref: &EntryRef,
        request: &LeaseRequest,
    ) -> Result<LeaseReply, Error> {
        self.store.lease(entry_ref, request).await
    }

    async fn renew(&self, key: &str, token: Nonce, length: Duration) -> Result<bool, Error> {
        self.store.renew(key, token, length).await
    }

    async fn release(&self, key: &str, token: Nonce) -> Result<(), Error> {
        self.store.release(key, token).await
    }

    async fn fill(&self, entry_ref: &EntryRef, fill: Fill) -> Result<Filled, Error> {
        self.store.fill(entry_ref, fill).await
    }

    async fn intend(&self, intent: &Intent) -> Result<IntentReply, Error> {
        self.store.intend(intent).await
    }

    async fn renew_intent(&self, intent: &Intent) -> Result<IntentReply, Error> {
        self.store.renew_intent(intent).await
    }

    async fn prune(&self, entry_ref: &EntryRef) -> Result<(), Error> {
        self.store.prune(entry_ref).await
    }

    async fn invalidate(&self, invalidation: &Invalidation) -> Result<Invalidated, Error> {
        self.gate.pass().await;
        self.store.invalidate(invalidation).await
    }

    async fn remove_matching(&self, filter: &ScanFilter) -> Result<u64, Error> {
        self.gate.pass().await;
        self.store.remove_matching(filter).await
    }

    async fn invalidate_namespace(&self, namespace: &str) -> Result<Millis, Error> {
        self.gate.pass().await;
        self.store.invalidate_namespace(namespace).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.store.ping().await
    }

    async fn server_info(&self) -> Result<ServerInfo, Error> {
        self.store.server_info().await
    }
}

/// A write of a request, and a read of it that finds the old entry, since the write is not
/// acknowledged yet.
#[derive(Debug, Clone, Copy)]
enum Way {
    Function,
    Transaction,
    ByHand,
    Delete,
    Pattern,
    Everything,
}

#[tokio::test]
async fn reads_before_a_write_is_acknowledged_are_not_remembered() {
    for way in [
        Way::Function,
        Way::Transaction,
        Way::ByHand,
        Way::Delete,
        Way::Pattern,
        Way::Everything,
    ] {
        bounded(read_beside(way)).await;
    }
}

async fn read_beside(way: Way) {
    let gate = Gate::new();
    let store = Held {
        store: MemoryStore::new(16 << 20),
        gate: Arc::clone(&gate),
    };
    let cache = Cache::with_store(patient(), Arc::new(store)).expect("a thread");
    let accounts = Accounts::new(&cache);
    let first = accounts.get(1).await;
    let write = async {
        match way {
            Way::Function => accounts.write(1).await,
            Way::Transaction => {
                let block = async {
                    accounts.write(1).await;
                    Ok::<_, ()>(())
                };
                cache.after_commit(block).await.expect("committed");
            }
            Way::ByHand => drop(cache.invalidate("accounts", &1).await),
            Way::Delete => drop(cache.delete("accounts:1").await),
            Way::Pattern => drop(cache.invalidate_pattern("accounts:*").await),
            Way::Everything => drop(cache.clear_all().await),
        }
    };
    let read = async {
        gate.arrival().await;
        let old = accounts.get(1).await;
        // Everything takes two steps.
        gate.open();
        gate.open();
        old
    };
    let request = async {
        let ((), old) = join(write, read).await;
        assert_eq!(old, first, "{way:?}: the entry is still there");
        assert_ne!(accounts.get(1).await, old, "{way:?}");
    };
    cache.request(request).await;
}

#[tokio::test]
async fn reads_before_a_write_is_dropped_are_not_remembered() {
    bounded(async {
        let gate = Gate::new();
        let store = Held {
            store: MemoryStore::new(16 << 20),
            gate: Arc::clone(&gate),
        };
        let cache = Cache::with_store(patient(), Arc::new(store)).expect("a thread");
        let accounts = Accounts::new(&cache);
        let first = accounts.get(1).await;
        let request = async {
            let read = async {
                gate.arrival().await;
                accounts.get(1).await
            };
            let old = tokio::select! {
                () = accounts.write(1) => panic!("the gate is closed"),
                old = read => old,
            };
            assert_eq!(old, first, "the entry is still there");
            assert_ne!(accounts.get(1).await, old);
        };
        cache.request(request).await;
        gate.open();
    })
    .await;
}

#[tokio::test]
async fn every_invalidation_says_what_became_of_it() {
    let cache = TestCache::new();
    let accounts = Accounts::new(&cache);
    accounts.get(1).await;
    for (fault, word) in [(None, "delivered"), (Some(Fault::Away), "pending")] {
        if let Some(fault) = fault {
            cache.fail(fault);
        }
        let said = |outcomes: cache_runtime::Outcomes| outcomes.cache_invalidation();
        let (_, outcomes) = observe(cache.delete("accounts:1")).await;
        assert_eq!(said(outcomes), Some(word));
        let (_, outcomes) = observe(cache.clear_all()).await;
        assert_eq!(said(outcomes), Some(word));
        let (done, outcomes) = observe(cache.invalidate_pattern("accounts:*")).await;
        // It is not kept for later.
        let word = if done.is_ok() { "delivered" } else { "lost" };
        assert_eq!(said(outcomes), Some(word));
        assert_eq!(done.is_err(), fault.is_some());
    }
}

#[tokio::test]
async fn a_batch_of_hits_says_how_long_they_last() {
    struct Rows {
        cache: Cache,
    }
    impl Rows {
        #[cached(resource = "rows", batch = ids, ttl = 300, cache = self.cache)]
        async fn many(&self, ids: &[i64]) -> std::collections::HashMap<i64, i64> {
            ids.iter().map(|id| (*id, *id)).collect()
        }
    }
    let pair = Pair::memory().await;
    let rows = Rows { cache: pair.a };
    rows.many(&[1, 2]).await;
    let (_, outcomes) = observe(rows.many(&[1, 2])).await;
    let Status::Hit { ttl } = outcomes[0].status else {
        panic!("{outcomes:?}")
    };
    let limit = Duration::from_secs(200)..Duration::from_secs(301);
    assert!(limit.contains(&ttl), "{ttl:?}");
}
