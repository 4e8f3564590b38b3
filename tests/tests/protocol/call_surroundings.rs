//! Options for a call's surroundings: `max_loads`, keys from the caller's context, results that a
//! request remembers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cache_runtime::{
    BypassReason, Cache, ErrorKind, StaleReason, Status, cache_defaults, cached, invalidates,
    key_of, observe,
};

use crate::shop::Gate;
use crate::{Pair, bounded, over, over_each_store, over_memcached, patient};

over_each_store! {
    no_more_loads_than_that_run_at_a_time;
    a_load_inside_a_load_does_not_wait_for_a_permit;
    a_batch_is_one_load;
    tenants_are_apart;
    a_call_without_its_tenant_bypasses;
    rows_of_a_tenant_are_invalidated_with_it;
    an_op_may_ask_for_a_context_by_itself;
    a_request_asks_once;
    a_request_sees_its_own_writes;
    a_read_that_a_write_overtakes_is_not_remembered;
    only_memo_functions_are_remembered_by_a_layer;
    reads_in_a_transaction_are_not_remembered;
}

#[derive(Clone)]
struct Orders {
    cache: Cache,
    loads: Arc<AtomicU32>,
    gate: Option<Arc<Gate>>,
}

#[cache_defaults(resource = "orders", cache = self.cache, ttl = 300)]
impl Orders {
    fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            loads: Arc::default(),
            gate: None,
        }
    }

    fn gated(&self) -> (Self, Arc<Gate>) {
        let gate = Gate::new();
        let gated = Self {
            gate: Some(Arc::clone(&gate)),
            ..self.clone()
        };
        (gated, gate)
    }

    fn loads(&self) -> u32 {
        self.loads.load(Ordering::SeqCst)
    }

    async fn load(&self) -> u32 {
        let loads = self.loads.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        loads
    }

    #[cached]
    async fn get(&self, id: i64) -> u32 {
        let _ = id;
        self.load().await
    }

    #[cached]
    async fn list(&self, limit: u32) -> u32 {
        let _ = limit;
        self.load().await
    }

    #[cached(resource = "reports", op = "report", max_loads = 2)]
    async fn report(&self, month: u32) -> u32 {
        let _ = month;
        self.load().await
    }

    #[cached(
        resource = "reports",
        op = "stale",
        ttl = "1ms",
        stale_if_error = 3600,
        max_loads = 1
    )]
    async fn stale(&self, month: u32) -> Result<u32, String> {
        let _ = month;
        Ok(self.load().await)
    }

    /// Each month needs the one before.
    #[cached(resource = "reports", op = "sum", max_loads = 1)]
    async fn sum(&self, month: u32) -> u32 {
        match month {
            0 => 0,
            month => Box::pin(self.sum(month - 1)).await + month,
        }
    }

    /// The first one needs another, after it has stood at the gate.
    #[cached(resource = "reports", op = "chain", max_loads = 1)]
    async fn chain(&self, number: u32) -> u32 {
        let load = self.load().await;
        match number {
            0 => load,
            number => Box::pin(self.ungated().chain(number - 1)).await,
        }
    }

    fn ungated(&self) -> Self {
        Self {
            gate: None,
            ..self.clone()
        }
    }

    #[cached(resource = "reports", batch = ids, max_loads = 1)]
    async fn many(&self, ids: &[i64]) -> std::collections::HashMap<i64, u32> {
        let load = self.load().await;
        ids.iter().map(|id| (*id, load)).collect()
    }

    #[cached(resource = "reports", op = "open", include_context("tenant"))]
    async fn open(&self, limit: u32) -> u32 {
        let _ = limit;
        self.load().await
    }

    #[cached(resource = "reports", op = "may-read", memo)]
    async fn may_read(&self, user: i64) -> Option<u32> {
        match user {
            0 => {
                self.load().await;
                None
            }
            _ => Some(self.load().await),
        }
    }

    #[invalidates(id = id)]
    async fn write(&self, id: i64) {
        let _ = id;
    }

    #[invalidates("reports")]
    async fn write_reports(&self) {}
}

async fn no_more_loads_than_that_run_at_a_time(pair: Pair) {
    let (orders, gate) = Orders::new(&pair.a).gated();
    let all: Vec<_> = (0..6)
        .map(|month| {
            let orders = orders.clone();
            cache_tests::spawn(async move { orders.report(month).await })
        })
        .collect();
    gate.arrival().await;
    gate.arrival().await;
    for _ in 0..6 {
        gate.open();
    }
    for one in all {
        one.await.expect("ran");
    }
    assert_eq!(gate.most(), 2);
    let (_, outcomes) = observe(orders.report(5)).await;
    assert!(
        matches!(outcomes[0].status, Status::Hit { .. }),
        "those who had waited are stored as well: {outcomes:?}"
    );
}

async fn a_load_inside_a_load_does_not_wait_for_a_permit(pair: Pair) {
    assert_eq!(Orders::new(&pair.a).sum(4).await, 10);
}

/// One has the only place and needs what the other is about to load, which waits for that place.
#[tokio::test]
async fn the_holder_of_a_permit_does_not_wait_for_its_waiters() {
    bounded(async {
        let pair = Pair::memory().await;
        let orders = Orders::new(&pair.a);
        let (gated, gate) = orders.gated();
        let first = cache_tests::spawn(async move { observe(gated.chain(1)).await });
        gate.arrival().await;
        let second = cache_tests::spawn({
            let orders = orders.clone();
            async move { orders.chain(0).await }
        });
        // In memory it waits for nothing but its place.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        gate.open();
        let (_, outcomes) = first.await.expect("ran");
        let waited = Status::Bypass(BypassReason::WaitLimit);
        assert!(
            outcomes.iter().all(|it| it.status != waited),
            "{outcomes:?}"
        );
        second.await.expect("ran");
    })
    .await;
}

async fn a_batch_is_one_load(pair: Pair) {
    let (orders, gate) = Orders::new(&pair.a).gated();
    let all: Vec<_> = [[1, 2], [3, 4]]
        .map(|ids| {
            let orders = orders.clone();
            cache_tests::spawn(async move { orders.many(&ids).await.len() })
        })
        .into();
    gate.arrival().await;
    gate.open();
    gate.open();
    for one in all {
        assert_eq!(one.await.expect("ran"), 2);
    }
    assert_eq!(gate.most(), 1);
}

#[tokio::test]
async fn an_entry_past_its_time_is_served_in_place_of_waiting() {
    bounded(async {
        let pair = Pair::memory().await;
        let orders = Orders::new(&pair.a);
        let old = orders.stale(1).await;
        let (gated, gate) = orders.gated();
        let busy = cache_tests::spawn(async move { gated.stale(2).await });
        gate.arrival().await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let (value, outcomes) = observe(orders.stale(1)).await;
        assert_eq!(value, old);
        assert!(
            matches!(
                outcomes[0].status,
                Status::Stale {
                    reason: StaleReason::LoadsBusy,
                    ..
                }
            ),
            "{outcomes:?}"
        );
        gate.open();
        busy.await.expect("ran").expect("loaded");
        assert_ne!(orders.stale(1).await, old, "there is a place again");
    })
    .await;
}

/// The same stores with the resource declared to need a tenant.
async fn declared(pair: &Pair) -> Cache {
    let config = match (&pair._server, &pair.memcached) {
        (Some(server), _) => over(server),
        (None, Some(server)) => over_memcached(server.port()),
        (None, None) => patient().local_mb(16),
    };
    Cache::new(config.resource("orders").context("tenant")).await
}

fn is_hit(outcomes: &[cache_runtime::Outcome]) -> bool {
    matches!(outcomes[0].status, Status::Hit { .. })
}

async fn tenants_are_apart(pair: Pair) {
    let cache = declared(&pair).await;
    let orders = Orders::new(&cache);
    let mut seen = Vec::new();
    for tenant in [7, 8, 7, 8] {
        let calls = async { (orders.get(1).await, orders.list(10).await) };
        seen.push(cache.with_key("tenant", tenant, calls).await);
    }
    assert_eq!(seen[0], seen[2]);
    assert_eq!(seen[1], seen[3]);
    assert_ne!(seen[0], seen[1]);
    let (_, outcomes) = observe(cache.with_key("tenant", "a b", orders.get(1))).await;
    assert_eq!(outcomes[0].key, "orders:@a%20b@1");
    let key = cache
        .with_key("tenant", 7, async { key_of(orders.list(10)) })
        .await;
    let by_hand: Option<u32> = cache.get(key.expect("a key")).await;
    assert_eq!(by_hand, Some(seen[0].1));
    let get = async { cache.get::<u32>("orders:1").await };
    assert_eq!(cache.with_key("tenant", 8, get).await, Some(seen[1].0));
    // The innermost counts.
    let nested = cache.with_key("tenant", 7, cache.with_key("tenant", 8, orders.get(1)));
    assert_eq!(nested.await, seen[1].0);
}

async fn a_call_without_its_tenant_bypasses(pair: Pair) {
    let cache = declared(&pair).await;
    let orders = Orders::new(&cache);
    for _ in 0..2 {
        let (_, outcomes) = observe(orders.get(1)).await;
        assert_eq!(
            outcomes[0].status,
            Status::Bypass(BypassReason::NoContext),
            "{outcomes:?}"
        );
        let (_, outcomes) = observe(cache.with_key("region", 7, orders.list(1))).await;
        assert_eq!(outcomes[0].status, Status::Bypass(BypassReason::NoContext));
        let (_, outcomes) = observe(cache.with_key("tenant", f64::NAN, orders.list(1))).await;
        assert_eq!(outcomes[0].status, Status::Bypass(BypassReason::InvalidKey));
    }
    assert_eq!(orders.loads(), 6);

    // What nobody has said whose it is can't be removed, and nothing else is told.
    let read = orders.get(1);
    cache.with_key("tenant", 7, read).await;
    let refused = cache.delete("orders:1").await.expect_err("no tenant");
    assert_eq!(refused.kind(), ErrorKind::InvalidKey, "{refused}");
    let delete = cache.with_key("tenant", 7, cache.delete("orders:1"));
    assert!(delete.await.expect("removed"));
}

async fn rows_of_a_tenant_are_invalidated_with_it(pair: Pair) {
    let cache = declared(&pair).await;
    let orders = Orders::new(&cache);
    let both = async || {
        let mut hits = Vec::new();
        for tenant in [7, 8] {
            let (_, outcomes) = observe(cache.with_key("tenant", tenant, orders.get(1))).await;
            hits.push(is_hit(&outcomes));
        }
        hits
    };
    both().await;
    assert_eq!(both().await, [true, true]);
    cache.with_key("tenant", 7, orders.write(1)).await;
    assert_eq!(both().await, [false, true]);
    // Whose row it is nobody has said.
    orders.write(1).await;
    assert_eq!(both().await, [false, false]);
    let by_hand = cache.delete("orders:1").await.expect_err("no entry");
    assert_eq!(by_hand.kind(), ErrorKind::InvalidKey);
    let delete = async { cache.delete("orders:1").await };
    assert!(cache.with_key("tenant", 7, delete).await.expect("deleted"));
    assert_eq!(both().await, [false, true]);
}

async fn an_op_may_ask_for_a_context_by_itself(pair: Pair) {
    let (cache, orders) = (&pair.a, Orders::new(&pair.a));
    let one = cache.with_key("tenant", 7, orders.open(1)).await;
    let other = cache.with_key("tenant", 8, orders.open(1)).await;
    assert_ne!(one, other);
    assert_eq!(cache.with_key("tenant", 7, orders.open(1)).await, one);
    let (_, outcomes) = observe(orders.open(1)).await;
    assert_eq!(outcomes[0].status, Status::Bypass(BypassReason::NoContext));
}

async fn a_request_asks_once(pair: Pair) {
    let orders = Orders::new(&pair.a);
    let ((first, absent), outcomes) = observe(pair.a.request(async {
        let first = orders.list(1).await;
        let absent = orders.may_read(0).await;
        // Somebody else writes, of whom the request knows nothing.
        let elsewhere = Orders {
            cache: pair.b.clone(),
            ..orders.clone()
        };
        cache_tests::spawn(async move { elsewhere.write_all().await })
            .await
            .expect("written");
        assert_eq!(orders.list(1).await, first);
        assert_eq!(orders.may_read(0).await, absent);
        assert_ne!(orders.list(2).await, first, "another call");
        (first, absent)
    }))
    .await;
    assert_eq!(absent, None);
    let told: Vec<_> = outcomes.iter().map(|it| it.store).collect();
    assert_eq!(told[2..4], ["request", "request"]);
    assert_ne!(orders.list(1).await, first, "the request has ended");
}

impl Orders {
    async fn write_all(&self) {
        let _ = self.cache.invalidate_all("orders").await;
        self.write_reports().await;
    }
}

async fn a_request_sees_its_own_writes(pair: Pair) {
    let orders = Orders::new(&pair.a);
    let request = pair.a.request(async {
        let first = orders.get(1).await;
        orders.write(1).await;
        let second = orders.get(1).await;
        assert_ne!(first, second);
        let _ = pair.a.invalidate_all("orders").await;
        assert_ne!(orders.get(1).await, second);
    });
    request.await;
}

async fn a_read_that_a_write_overtakes_is_not_remembered(pair: Pair) {
    let orders = Orders::new(&pair.a);
    let (gated, gate) = orders.gated();
    let request = pair.a.request(async {
        let read = async { gated.get(1).await };
        let write = async {
            gate.arrival().await;
            orders.write(1).await;
            gate.open();
        };
        let (before, ()) = futures_util::future::join(read, write).await;
        assert_ne!(orders.get(1).await, before);
    });
    request.await;
}

async fn only_memo_functions_are_remembered_by_a_layer(pair: Pair) {
    let orders = Orders::new(&pair.a);
    let first = orders.may_read(1).await;
    assert_eq!(orders.may_read(1).await, first);
    let (_, outcomes) = observe(orders.may_read(1)).await;
    assert_ne!(outcomes[0].store, "request", "there is no request");
}

/// A block that is dropped after it has read: whether it is committed nobody knows.
async fn reads_in_a_transaction_are_not_remembered(pair: Pair) {
    let orders = Orders::new(&pair.a);
    let request = pair.a.request(async {
        let (read, has_read) = tokio::sync::oneshot::channel();
        let block = pair.a.after_commit(async {
            orders.list(1).await;
            read.send(()).expect("awaited");
            std::future::pending::<Result<(), ()>>().await
        });
        tokio::select! {
            _ = block => unreachable!("it waits"),
            _ = has_read => {}
        }
        let (_, outcomes) = observe(orders.list(1)).await;
        assert_ne!(outcomes[0].store, "request", "{outcomes:?}");
        assert_eq!(orders.loads(), 2);
    });
    request.await;
}
