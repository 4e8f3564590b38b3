//! Repeats recent invalidations at a new primary, if Sentinels name it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::super::connection::errors::is_forbidden;
use super::super::one_server::OneServer;
use super::recent::{RecentInvalidations, Repetition};
use crate::base::mutation;
use crate::store::{Invalidation, PartlyInvalidated};

/// The pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// The data of the task.
#[derive(Clone)]
pub(crate) struct Replay {
    pub(in crate::store::redis) server: Arc<OneServer>,
    pub(crate) recent: Arc<RecentInvalidations>,
    pub(crate) namespace: String,
}

impl Replay {
    /// Runs each time another server has become the primary.
    pub(crate) async fn run(self, mut closing: watch::Receiver<bool>) {
        let mut changes = self.server.connections.changes.subscribe();
        let mut left = Repetition::Nothing;
        loop {
            let is_done = matches!(left, Repetition::Nothing);
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if mutation::is_active("recent-not-done-again") {
                        continue;
                    }
                    left = left.and(self.recent.again());
                }
                () = crate::base::time::sleep(PAUSE), if !is_done => {}
                _ = closing.wait_for(|closing| *closing) => return,
            }
            left = self.repeat(left).await;
            if matches!(left, Repetition::Nothing) {
                self.recent.is_known();
            }
        }
    }

    /// Returns what has not arrived. Later invalidations are sent to this primary by themselves, and
    /// to repeat what has arrived would end entries that were loaded meanwhile.
    async fn repeat(&self, left: Repetition) -> Repetition {
        match left {
            Repetition::Nothing => Repetition::Nothing,
            Repetition::These(these) => match self.send(&these).await.undone {
                Some(_) if mutation::is_active("repeated-as-a-whole") => Repetition::These(these),
                Some((undone, _)) => Repetition::These(undone),
                None => Repetition::Nothing,
            },
            Repetition::Everything => {
                match self.server.invalidate_namespace(&self.namespace).await {
                    Ok(_) => Repetition::Nothing,
                    // To try again would replace those that are permitted, each time.
                    Err(error) if is_forbidden(&error) => {
                        tracing::warn!(
                            %error,
                            "the Redis user may not write all generations at the new primary, so \
                             its entries may be older than what was cleared at the former one; \
                             permit `{{namespace}}@*`"
                        );
                        Repetition::Nothing
                    }
                    Err(_) => Repetition::Everything,
                }
            }
        }
    }

    async fn send(&self, these: &Invalidation) -> PartlyInvalidated {
        match mutation::is_active("repetition-ends-at-refusals") {
            true => PartlyInvalidated::all_or_nothing(self.server.invalidate(these).await, these),
            false => self.server.invalidate_permitted(these).await,
        }
    }
}
