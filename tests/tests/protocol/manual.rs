//! The manual operations, and who else uses the keys.

use std::sync::Arc;

use cache_runtime::{
    Acknowledgement, BypassReason, Cache, CacheConfig, ErrorKind, Key, Lookup, Status, cached,
    key_of, observe,
};

use crate::shop::{Fault, Gate, Shop, User};
use crate::{Pair, over_each_store};

over_each_store! {
    entries_of_a_function_can_be_read_by_hand;
    a_value_set_by_hand_is_a_functions_hit;
    a_set_that_was_invalidated_meanwhile_is_not_stored;
    no_error_is_stored_by_hand;
    a_lookup_is_filled_unless_it_was_invalidated;
    delete_removes_one_entry;
    a_pattern_removes_what_it_matches;
    everything_of_a_resource;
    one_row_and_what_is_derived;
    a_tag_reaches_its_entries;
    a_load_from_before_a_tags_invalidation_is_not_joined;
    clear_all_leaves_nothing;
    an_invalidation_is_counted_when_it_is_made;
    figures_are_counted_per_resource;
    two_functions_do_not_share_a_key;
    ids_of_two_types_do_not_meet;
    another_version_is_a_miss;
    values_that_are_too_large_are_not_stored;
}

fn ada() -> User {
    User {
        id: 1,
        name: "Ada".into(),
    }
}

async fn status<T>(call: impl Future<Output = T>) -> Status {
    observe(call).await.1[0].status
}

async fn entries_of_a_function_can_be_read_by_hand(pair: Pair) {
    let shop = Shop::new(&pair.a);
    assert_eq!(pair.a.get::<User>("users:1").await, None);
    shop.get(1).await.expect("read");
    shop.list(0, 2).await.expect("read");
    assert_eq!(
        pair.b.get::<User>("users:1").await.expect("there").name,
        "user 1"
    );
    let list = Key::args("users", "list", &(0, 2));
    assert_eq!(pair.b.get::<Vec<User>>(list).await.expect("there").len(), 2);
    assert_eq!(
        pair.b.get::<String>("users:1").await,
        None,
        "another type is a miss"
    );
}

async fn a_value_set_by_hand_is_a_functions_hit(pair: Pair) {
    let shop = Shop::new(&pair.a);
    pair.b.set("users:1", &ada(), 60).await.expect("stored");
    assert_eq!(shop.name(1).await, "Ada");
    assert_eq!(shop.loads(), 0);
    shop.rename_in_bulk(1, "new").await.expect("written");
    assert_eq!(shop.name(1).await, "new");
    assert_eq!(
        pair.a
            .set("users:1", &ada(), 0)
            .await
            .expect_err("0 s")
            .kind(),
        ErrorKind::Unstorable
    );
    assert_eq!(
        pair.a
            .set("Users", &ada(), 1)
            .await
            .expect_err("no key")
            .kind(),
        ErrorKind::InvalidKey
    );
}

/// A `Result` behind an `Arc` is a value, unless it is an error.
struct Shared(Cache);

impl Shared {
    #[cached(resource = "shared", cache = self.0)]
    async fn get(&self, id: u8) -> Arc<Result<u8, String>> {
        Arc::new(Ok(id))
    }
}

async fn no_error_is_stored_by_hand(pair: Pair) {
    let shared = Shared(pair.a.clone());
    let failed = Err::<u8, String>("failed".into());
    let key = key_of(shared.get(1)).expect("a key");
    let set = pair.b.set(&key, &failed, 60).await;
    assert_eq!(set.expect_err("an error").kind(), ErrorKind::Unstorable);
    match pair.b.lookup::<Result<u8, String>>(&key).await {
        Ok(Lookup::Miss(lease)) => assert!(!lease.fill(&failed).await),
        other => panic!("{other:?}"),
    }
    assert_eq!(*shared.get(1).await, Ok(1));
    let key = key_of(shared.get(2)).expect("a key");
    assert!(pair.b.set(&key, &Ok::<u8, String>(7), 60).await.is_ok());
    assert_eq!(*shared.get(2).await, Ok(7));
}

async fn a_set_that_was_invalidated_meanwhile_is_not_stored(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let held = shop.with_read_gate(&gate);
    let load = cache_tests::spawn(async move { held.name(1).await });
    gate.arrival().await;
    // By force: the load in flight may be older than what the caller vouches for.
    pair.b.set("users:1", &ada(), 60).await.expect("stored");
    gate.open();
    load.await.expect("the load ends");
    assert_eq!(shop.name(1).await, "Ada");
}

async fn a_lookup_is_filled_unless_it_was_invalidated(pair: Pair) {
    let key = Key::entity("users", 7).expect("valid");
    let Lookup::Miss(lease) = pair.a.lookup::<User>(&key).await.expect("a key") else {
        panic!("a hit")
    };
    assert!(lease.fill(&ada()).await);
    let Lookup::Hit(value) = pair.b.lookup::<User>(&key).await.expect("a key") else {
        panic!("a miss")
    };
    assert_eq!(value, ada());

    assert_eq!(
        pair.b.invalidate("users", &7).await,
        Acknowledgement::Delivered
    );
    let Lookup::Miss(lease) = pair.a.lookup::<User>(&key).await.expect("a key") else {
        panic!("a hit")
    };
    assert_eq!(
        pair.b.invalidate("users", &7).await,
        Acknowledgement::Delivered
    );
    assert!(!lease.fill(&ada()).await);
    assert_eq!(pair.a.get::<User>(&key).await, None);
}

async fn delete_removes_one_entry(pair: Pair) {
    let shop = Shop::new(&pair.a);
    shop.name(1).await;
    shop.name(2).await;
    assert!(pair.b.delete("users:1").await.expect("reached"));
    assert!(!pair.b.delete("users:1").await.expect("reached"));
    shop.name(1).await;
    shop.name(2).await;
    assert_eq!(shop.loads(), 3);
}

async fn a_pattern_removes_what_it_matches(pair: Pair) {
    let shop = Shop::new(&pair.a);
    shop.name(1).await;
    shop.list(0, 1).await.expect("read");
    shop.list(0, 2).await.expect("read");
    assert_eq!(
        pair.b
            .invalidate_pattern("users:list:*")
            .await
            .expect("reached"),
        // Memcached can't list its keys: there it is the whole resource.
        pair.memcached.as_ref().map_or(2, |_| 0)
    );
    shop.name(1).await;
    shop.list(0, 1).await.expect("read");
    assert_eq!(shop.loads(), pair.memcached.as_ref().map_or(4, |_| 5));
    assert_eq!(
        pair.b
            .invalidate_pattern("")
            .await
            .expect_err("empty")
            .kind(),
        ErrorKind::InvalidKey
    );
}

async fn everything_of_a_resource(pair: Pair) {
    let shop = Shop::new(&pair.a);
    shop.name(1).await;
    shop.list(0, 1).await.expect("read");
    shop.commit(1, "past the cache");
    assert_eq!(
        pair.b.invalidate_all("users").await,
        Acknowledgement::Delivered
    );
    assert_eq!(shop.name(1).await, "past the cache");
    assert_eq!(
        shop.list(0, 1).await.expect("read")[0].name,
        "past the cache"
    );
}

async fn one_row_and_what_is_derived(pair: Pair) {
    let shop = Shop::new(&pair.a);
    shop.name(1).await;
    shop.name(2).await;
    shop.list(0, 1).await.expect("read");
    shop.commit(1, "past the cache");
    assert_eq!(
        pair.b.invalidate("users", &1).await,
        Acknowledgement::Delivered
    );
    assert_eq!(shop.name(1).await, "past the cache");
    assert_eq!(
        shop.list(0, 1).await.expect("read")[0].name,
        "past the cache"
    );
    shop.name(2).await;
    assert_eq!(shop.loads(), 5);
}

async fn a_tag_reaches_its_entries(pair: Pair) {
    let key = || {
        Key::named("report", &("june",))
            .expect("valid")
            .tag("team:1")
    };
    let load = async |value: u8| {
        pair.a
            .get_or_load(key(), 60, async || Ok::<_, std::io::Error>(value))
            .await
            .expect("loaded")
    };
    assert_eq!((load(1).await, load(2).await), (1, 1));
    assert_eq!(
        pair.b.invalidate_tag("team:2").await,
        Acknowledgement::Delivered
    );
    assert_eq!(load(3).await, 1);
    assert_eq!(
        pair.b.invalidate_tag("team:1").await,
        Acknowledgement::Delivered
    );
    assert_eq!(load(4).await, 4);
    assert_eq!(
        pair.b.invalidate_all("report").await,
        Acknowledgement::Delivered
    );
    assert_eq!(load(5).await, 5);
}

/// Nothing sweeps what a tag concerns, so the lease of the old load is still there: only its stamp
/// tells.
async fn a_load_from_before_a_tags_invalidation_is_not_joined(pair: Pair) {
    let key = || {
        Key::named("report", &("june",))
            .expect("valid")
            .tag("team:1")
    };
    let gate = Gate::new();
    let (cache, held) = (pair.a.clone(), gate.clone());
    let old = cache_tests::spawn(async move {
        let load = async || {
            held.pass().await;
            Ok::<_, std::io::Error>(1)
        };
        cache.get_or_load(key(), 60, load).await.expect("loaded")
    });
    gate.arrival().await;
    assert_eq!(
        pair.b.invalidate_tag("team:1").await,
        Acknowledgement::Delivered
    );
    // The old load still stands at its gate, so this returns only if it does not wait for it.
    let new = pair
        .a
        .get_or_load(key(), 60, async || Ok::<_, std::io::Error>(2))
        .await
        .expect("loaded");
    assert_eq!(new, 2);
    gate.open();
    assert_eq!(old.await.expect("the load ends"), 1);
    assert_eq!(pair.b.get::<i32>(key()).await, Some(2));
}

async fn clear_all_leaves_nothing(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let gate = Gate::new();
    let held = shop.with_read_gate(&gate);
    shop.list(0, 1).await.expect("read");
    let load = cache_tests::spawn(async move { held.name(1).await });
    gate.arrival().await;
    shop.commit(1, "past the cache");
    assert_eq!(
        pair.b.clear_all().await.expect("reached"),
        pair.memcached.as_ref().map_or(1, |_| 0),
        "a lease is no entry"
    );
    gate.open();
    load.await.expect("the load ends");
    assert_eq!(shop.name(1).await, "past the cache");
    assert_eq!(
        shop.list(0, 1).await.expect("read")[0].name,
        "past the cache"
    );
}

async fn an_invalidation_is_counted_when_it_is_made(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let counted = async || pair.a.get_stats().await.resources["users"].invalidations;
    shop.create("four").await.expect("created");
    assert_eq!(counted().await, 1, "of the result, and not of the guard");
    let refused = shop.with_fault(Fault::Refused).rename(1, "new").await;
    assert!(refused.is_err());
    assert_eq!(counted().await, 1, "nothing was invalidated");
    let lost = shop
        .with_fault(Fault::LostAfterCommit)
        .rename(1, "new")
        .await;
    assert!(lost.is_err());
    assert_eq!(
        counted().await,
        2,
        "that it is repeated later is the same one"
    );
}

async fn figures_are_counted_per_resource(pair: Pair) {
    let shop = Shop::new(&pair.a);
    shop.name(1).await;
    shop.name(1).await;
    shop.rename(1, "new").await.expect("written");
    let stats = pair.a.get_stats().await;
    assert!(stats.enabled && stats.connected);
    let users = stats.resources["users"];
    assert_eq!(
        (users.hits, users.misses, users.fills, users.invalidations),
        (1, 1, 1, 1)
    );
    assert_eq!(
        (users.bypasses, users.errors, stats.counters.pending),
        (0, 0, 0)
    );
    let json = serde_json::to_string(&stats).expect("serialises");
    let order = [
        "enabled",
        "connected",
        "host",
        "port",
        "db",
        "total_keys",
        "used_memory",
        "uptime_seconds",
        "connected_clients",
        "default_ttl",
        "hits",
        "misses",
        "fills",
        "fills_refused",
        "stale_rejected",
        "invalidations",
        "pending",
        "errors",
        "bypasses",
        "resources",
        "circuit",
        "tasks",
        "front_bytes",
    ];
    let places: Vec<_> = order
        .iter()
        .map(|field| json.find(&format!("\"{field}\":")).expect("there"))
        .collect();
    assert!(places.is_sorted(), "{json}");
}

#[cached(resource = "clash", op = "op", skip(cache), cache = cache)]
async fn first(cache: &Cache, n: u8) -> String {
    format!("first {n}")
}

#[cached(resource = "clash", op = "op", skip(cache), cache = cache)]
async fn second(cache: &Cache, n: u8) -> String {
    format!("second {n}")
}

async fn two_functions_do_not_share_a_key(pair: Pair) {
    assert_eq!(first(&pair.a, 1).await, "first 1");
    assert_eq!(second(&pair.a, 1).await, "second 1");
    assert_eq!(
        status(second(&pair.a, 1)).await,
        Status::Bypass(BypassReason::KeyConflict)
    );
    assert!(matches!(
        status(first(&pair.a, 1)).await,
        Status::Hit { .. }
    ));
}

#[cached(resource = "mixed", id = id, skip(cache), cache = cache)]
async fn by_number(cache: &Cache, id: i64) -> String {
    format!("number {id}")
}

#[cached(resource = "mixed", op = "name", id = id, skip(cache), cache = cache)]
async fn by_name(cache: &Cache, id: &str) -> String {
    format!("name {id}")
}

#[cache_runtime::invalidates("mixed", id = id, cache = cache)]
async fn rename(cache: &Cache, id: &str) {
    let _ = id;
}

async fn ids_of_two_types_do_not_meet(pair: Pair) {
    assert_eq!(by_number(&pair.a, 1).await, "number 1");
    assert_eq!(by_name(&pair.a, "1").await, "name 1");
    assert!(matches!(
        status(by_number(&pair.a, 1)).await,
        Status::Hit { .. }
    ));
    // An invalidation by an id of another type is of the whole resource.
    rename(&pair.a, "1").await;
    assert_eq!(
        status(by_number(&pair.a, 1)).await,
        Status::Miss {
            stored: true,
            joined: false
        }
    );
}

mod versions {
    use super::{Cache, cached};

    #[cached(resource = "versioned", op = "old", skip(cache), version = 1, cache = cache)]
    pub(super) async fn old(cache: &Cache) -> u8 {
        1
    }
}

#[cached(resource = "versioned", op = "old", skip(cache), version = 2, cache = cache)]
async fn new(cache: &Cache) -> u8 {
    2
}

async fn another_version_is_a_miss(pair: Pair) {
    // Two versions of a program are two processes: in one, the second function would have no claim.
    let Some(server) = &pair._server else { return };
    let next = Cache::new(crate::over(server)).await;
    assert_eq!(versions::old(&pair.a).await, 1);
    assert_eq!(new(&next).await, 2);
    assert!(matches!(status(new(&next)).await, Status::Hit { .. }));
    assert_eq!(versions::old(&pair.a).await, 1);
}

#[cached(resource = "blobs", cache = cache, skip(cache))]
async fn blob(cache: &Cache, id: usize) -> String {
    "x".repeat(id)
}

async fn values_that_are_too_large_are_not_stored(pair: Pair) {
    let config = match &pair._server {
        Some(server) => crate::over(server),
        None => CacheConfig::default().local_mb(16),
    };
    let cache = Cache::new(config.value_limit(100)).await;
    assert_eq!(
        status(blob(&cache, 98)).await,
        Status::Miss {
            stored: true,
            joined: false
        }
    );
    assert_eq!(
        status(blob(&cache, 99)).await,
        Status::Miss {
            stored: false,
            joined: false
        }
    );
    assert_eq!(blob(&cache, 99).await.len(), 99);
    assert_eq!(cache.get_stats().await.counters.errors, 2);
}
