//! What depends on a tenant is kept under the tenant alone, also by the functions around.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cache_runtime::{Cache, Status, cached, observe};

use crate::shop::Gate;
use crate::{Pair, over, over_each_store, over_memcached, patient};

over_each_store! {
    a_result_of_a_tenant_is_not_kept_without_it;
    a_waiter_for_another_tenants_load_loads_itself;
    a_key_with_the_tenant_is_kept;
    a_request_remembers_no_other_tenants_value;
    a_batch_around_a_tenants_rows_is_not_kept;
    a_pattern_means_the_tenant_around_it;
    values_count_that_are_around_a_future_where_it_runs;
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

#[derive(Clone)]
struct Orders {
    cache: Cache,
    loads: Arc<AtomicU32>,
    gate: Option<Arc<Gate>>,
}

impl Orders {
    fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            loads: Arc::default(),
            gate: None,
        }
    }

    #[cached(resource = "orders", cache = self.cache)]
    async fn list(&self, limit: u32) -> u32 {
        let _ = limit;
        let load = self.loads.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        load
    }

    /// Its author forgot the tenant.
    #[cached(resource = "dashboards", cache = self.cache)]
    async fn dashboard(&self, id: i64) -> u32 {
        let _ = id;
        self.list(10).await
    }

    /// The same, by a load that may go on in a task of its own.
    #[cached(resource = "dashboards", op = "refreshed", swr = 60, cache = self.cache)]
    async fn refreshed(&self, id: i64) -> u32 {
        let _ = id;
        self.list(10).await
    }

    #[cached(resource = "dashboards", op = "outer", cache = self.cache)]
    async fn around(&self, id: i64) -> u32 {
        self.dashboard(id).await
    }

    #[cached(resource = "dashboards", batch = ids, cache = self.cache)]
    async fn many(&self, ids: &[i64]) -> std::collections::HashMap<i64, u32> {
        let list = self.list(10).await;
        ids.iter().map(|id| (*id, list)).collect()
    }

    #[cached(resource = "dashboards", op = "aware", include_context("tenant"), cache = self.cache)]
    async fn aware(&self, limit: u32) -> u32 {
        self.list(limit).await
    }

    /// The tenant is one of its arguments.
    #[cached(resource = "dashboards", op = "of", cache = self.cache)]
    async fn of(&self, tenant: i64) -> u32 {
        self.cache.with_key("tenant", tenant, self.list(10)).await
    }
}

fn is_stored(status: Status) -> bool {
    matches!(
        status,
        Status::Hit { .. } | Status::Miss { stored: true, .. }
    )
}

async fn a_result_of_a_tenant_is_not_kept_without_it(pair: Pair) {
    let cache = declared(&pair).await;
    let orders = Orders::new(&cache);
    let under = async |tenant: i64| {
        let calls = async { (orders.list(10).await, orders.around(1).await) };
        let ((list, around), outcomes) = observe(cache.with_key("tenant", tenant, calls)).await;
        // Over Memcached a call inside of a load is not answered from the cache.
        if pair.memcached.is_none() {
            assert_eq!(list, around, "tenant {tenant} sees its own");
        }
        for outcome in outcomes.iter().filter(|it| it.resource == "dashboards") {
            assert!(!is_stored(outcome.status), "{outcome:?}");
        }
        list
    };
    let (seven, eight) = (under(7).await, under(8).await);
    assert_ne!(seven, eight);
    assert_eq!((under(7).await, under(8).await), (seven, eight));
}

async fn a_waiter_for_another_tenants_load_loads_itself(pair: Pair) {
    let cache = declared(&pair).await;
    let gate = Gate::new();
    let orders = Orders {
        gate: Some(Arc::clone(&gate)),
        ..Orders::new(&cache)
    };
    let under = |tenant: i64| {
        let (cache, orders) = (cache.clone(), orders.clone());
        cache_tests::spawn(
            async move { cache.with_key("tenant", tenant, orders.dashboard(1)).await },
        )
    };
    let seven = under(7);
    gate.arrival().await;
    let eight = under(8);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    gate.open();
    assert_ne!(seven.await.expect("ran"), eight.await.expect("ran"));
}

async fn a_key_with_the_tenant_is_kept(pair: Pair) {
    let cache = declared(&pair).await;
    let orders = Orders::new(&cache);
    for tenant in [7, 8] {
        let first = cache.with_key("tenant", tenant, orders.aware(1)).await;
        let again = cache.with_key("tenant", tenant, orders.aware(1));
        let (again, outcomes) = observe(again).await;
        assert_eq!(again, first);
        assert!(matches!(outcomes[0].status, Status::Hit { .. }));
        // Whatever is set around it, this one sets the tenant by its argument.
        let of = || cache.with_key("tenant", 9, orders.of(tenant));
        let first = of().await;
        let (again, outcomes) = observe(of()).await;
        assert_eq!(again, first);
        assert!(
            matches!(outcomes[0].status, Status::Hit { .. }),
            "{outcomes:?}"
        );
    }
}

async fn a_request_remembers_no_other_tenants_value(pair: Pair) {
    let cache = declared(&pair).await;
    let orders = Orders::new(&cache);
    let request = async {
        let seven = cache.with_key("tenant", 7, orders.dashboard(1)).await;
        let eight = cache.with_key("tenant", 8, orders.dashboard(1)).await;
        assert_ne!(seven, eight);
        let seven = cache.with_key("tenant", 7, orders.refreshed(1)).await;
        let eight = cache.with_key("tenant", 8, orders.refreshed(1)).await;
        assert_ne!(seven, eight);
    };
    cache.request(request).await;
}

async fn a_batch_around_a_tenants_rows_is_not_kept(pair: Pair) {
    let cache = declared(&pair).await;
    let orders = Orders::new(&cache);
    let seven = cache.with_key("tenant", 7, orders.many(&[1, 2])).await;
    let eight = cache.with_key("tenant", 8, orders.many(&[1, 2])).await;
    assert_ne!(seven, eight);
}

async fn a_pattern_means_the_tenant_around_it(pair: Pair) {
    let cache = declared(&pair).await;
    let orders = Orders::new(&cache);
    let hits = async || {
        let mut hits = Vec::new();
        for tenant in [7, 8] {
            let list = cache.with_key("tenant", tenant, orders.list(10));
            let (_, outcomes) = observe(list).await;
            hits.push(matches!(outcomes[0].status, Status::Hit { .. }));
        }
        hits
    };
    // Memcached lists no keys, and invalidates the resource.
    let of_one = pair.memcached.is_some();
    for pattern in ["orders:list:*", "orders:*", "orders:@7@*"] {
        hits().await;
        assert_eq!(hits().await, [true, true]);
        let removed = cache.with_key("tenant", 7, cache.invalidate_pattern(pattern));
        removed.await.expect("removed");
        assert_eq!(hits().await, [false, !of_one], "{pattern}");
    }
    for pattern in ["orders:list:*", "orders:*"] {
        hits().await;
        cache.invalidate_pattern(pattern).await.expect("removed");
        assert_eq!(hits().await, [false, false], "{pattern}");
    }
}

/// Not those where it was made.
async fn values_count_that_are_around_a_future_where_it_runs(pair: Pair) {
    let cache = declared(&pair).await;
    let orders = Orders::new(&cache);
    let seven = cache.with_key("tenant", 7, orders.list(1)).await;
    // The inner future is made before the outer one runs.
    let nested = cache.with_key("tenant", 7, cache.with_key("locale", "de", orders.list(1)));
    let (list, outcomes) = observe(nested).await;
    assert_eq!(list, seven);
    assert!(
        matches!(outcomes[0].status, Status::Hit { .. }),
        "{outcomes:?}"
    );
    // Made for one tenant, and run for another.
    #[expect(
        clippy::async_yields_async,
        reason = "it is made here and run elsewhere"
    )]
    let making = async { cache.with_key("locale", "de", orders.list(1)) };
    let made = cache.with_key("tenant", 7, making).await;
    assert_ne!(cache.with_key("tenant", 8, made).await, seven);
    // A task has none, and may be given its own without owning the cache.
    let apart = orders.clone();
    let spawned = async move { observe(apart.list(1)).await.1[0].status };
    let spawned = cache_tests::spawn(cache.with_key("locale", "de", spawned));
    let status = cache.with_key("tenant", 7, spawned).await.expect("ran");
    assert!(matches!(status, Status::Bypass { .. }), "{status:?}");
}
