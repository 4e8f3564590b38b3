//! A call of a function that is not asynchronous.

use std::pin::Pin;
use std::sync::Arc;

use super::load::{Load, LoadRole};
use super::{Call, StoreFilter};
use crate::call::blocking::block_on;
use crate::call::observe::{BypassReason, Status};
use crate::call::returns::Returns;
use crate::registry::Mistake;

/// Looks up the entry, waits for other threads, or tells the caller to run the body.
///
/// With the store in memory, a call waits only for loads. The cache's own thread keeps their time
/// limits, since the caller may have no runtime, or may block it.
pub(super) fn begin<R: Returns<S>, S>(call: Arc<Call>) -> Result<R, Box<Load>> {
    if !call.cache.store.is_in_process() {
        if let Some(site) = call.site {
            site.report(Mistake::NotAsync, || {
                format!("{site} is not `async` and can't wait for Redis, so it runs without the cache; make it an `async fn`")
            });
        }
        call.answered(Status::Bypass(BypassReason::Blocking));
        return Err(Load::new(call, LoadRole::Alone, None));
    }
    let cache = call.cache.clone();
    let _timers = cache.background.handle().enter();
    let answered = block_on(call.answer_or_load());
    answered.map_err(|mut load| {
        load.keep_alive().renew_elsewhere();
        load
    })
}

/// Stores what the body has returned.
pub(super) fn over<R, S, U>(load: Box<Load>, returned: R, unless: U) -> R
where
    R: Returns<S>,
    U: StoreFilter<R::Value>,
{
    let cache = load.call.cache.clone();
    let _timers = cache.background.handle().enter();
    let over: Pin<Box<_>> = load.over(returned, unless);
    block_on(over)
}
