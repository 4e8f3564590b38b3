use std::sync::Arc;

use super::answer_slot::Slot;
use super::returnable::ValueType;
use super::*;
use crate::Cache;
use crate::base::nonce::Nonce;
use crate::call::returns::{Fallible, Owned};
use crate::config::CacheConfig;
use crate::key::Key;

/// Most functions remember their type's fingerprint. Others, and calls by hand, need not look at
/// the type again either, and then their lookup begins with the call.
#[tokio::test]
async fn a_type_is_looked_at_once() {
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Fresh(u8);

    let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
    let key = Key::entity("users", 1).expect("a key");
    let call = Call::manual(cache.handle().expect("it is on"), &key, None);
    let (first, was_known) = call.find_fingerprint_of(ValueType::of::<Fresh>());
    assert!(!was_known);
    assert_eq!(
        call.find_fingerprint_of(ValueType::of::<Fresh>()),
        (first, true)
    );
}

/// Ten thousand callers may wait for one load. Their main cost is memory, which is allocated when
/// they come and freed when they are answered.
#[tokio::test]
async fn a_call_that_waits_is_small() {
    let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
    let key = Key::entity("users", 1).expect("a key");
    let call = || Arc::new(Call::manual(cache.handle().expect("it is on"), &key, None));
    let mut slot = Slot::of::<Result<String, ()>, Fallible<Owned>>();
    let asked = call().asks(&mut slot);
    assert!(size_of_val(&*asked) <= 440, "{}", size_of_val(&*asked));
    drop(asked);
    // The rest is part of the caller's own future.
    let whole = call().answer_or_load::<Result<String, ()>, Fallible<Owned>>();
    assert!(size_of_val(&whole) <= 96, "{}", size_of_val(&whole));

    let call = call();
    let mut lookup_loop = LookupLoop::new(&call, call.fingerprint::<String>());
    let leader = call.cache.single_flight.start(Nonce::fresh());
    let waiter = call
        .cache
        .single_flight
        .join(leader.token())
        .expect("under way");
    let waiting = lookup_loop.wait_for_result(waiter, None);
    assert!(size_of_val(&waiting) <= 400, "{}", size_of_val(&waiting));
}
