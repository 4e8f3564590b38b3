//! Watches a former owner of slots for as long as it may still answer.

use std::time::Duration;

use super::super::connection::errors::answers_nobody;
use super::super::failover::confirmation::{ANSWER_BUDGET, VALID};
use super::super::failover::fence::Fence;
use super::answers::{view_at, view_over};
use crate::base::clock;
use crate::config::RedisConfig;

/// How long a former owner is watched that does not answer. By then no process uses it: those that
/// reach other primaries have heard of the change, and for those that don't the last confirmation
/// is over. The primaries have a second to hear from the new owner, which tells all of them at
/// once.
const FENCE: Duration = VALID.saturating_add(Duration::from_secs(1));

const FENCE_PAUSE: Duration = Duration::from_millis(5);

/// Holds a fence until the former owner no longer claims the slots, can't answer anybody, or the
/// time is over.
pub(super) async fn look_after(config: RedisConfig, fence: Fence) {
    let end = clock::now() + FENCE;
    let mut kept = None;
    while clock::now() < end {
        let asked = async {
            match kept.take() {
                Some(multiplexed) => view_over(multiplexed, &config.host).await,
                None => view_at(&config, &config.host).await,
            }
        };
        match crate::base::time::timeout(ANSWER_BUDGET, asked).await {
            Ok(Ok((view, _))) if !view.owns_any(fence.slots()) => break,
            Ok(Ok((_, multiplexed))) => kept = Some(multiplexed),
            Ok(Err(error)) if answers_nobody(&error) => break,
            _ => {}
        }
        crate::base::time::sleep(FENCE_PAUSE).await;
    }
    drop(fence);
}
