use std::sync::Arc;

use super::*;
use crate::Cache;
use crate::base::nonce::Nonce;
use crate::call::returns::{Fallible, Owned};
use crate::config::CacheConfig;
use crate::key::Key;

/// Ten thousand callers may wait for one load. Their main cost is memory, which is allocated when
/// they come and freed when they are answered.
#[tokio::test]
async fn a_call_that_waits_is_small() {
    let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
    let key = Key::entity("users", 1).expect("a key");
    let call = || Arc::new(Call::manual(cache.handle().expect("it is on"), &key, None));
    let asked = call().answer_or_load::<Result<String, ()>, Fallible<Owned>>();
    assert!(size_of_val(&*asked) <= 416, "{}", size_of_val(&*asked));

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
