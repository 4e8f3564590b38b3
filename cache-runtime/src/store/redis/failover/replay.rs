//! Repeats recent invalidations at a new primary, if Sentinels name it.

use std::sync::Arc;

use tokio::sync::watch;

use super::super::connection::errors::is_forbidden;
use super::super::one_server::OneServer;
use super::attempts::Attempts;
use super::recent::{RecentInvalidations, Repetition};
use super::replaced_beside::{ReplacedBeside, with_once_more};
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::mutation;
use crate::store::{Invalidation, PartlyInvalidated};

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
        let mut attempts = Attempts::default();
        let mut replaced = ReplacedBeside::default();
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if mutation::is_active("recent-not-done-again") {
                        continue;
                    }
                    left = left.and(self.recent.again());
                    attempts = Attempts::default();
                }
                () = clock::sleep_until(attempts.next()) => {}
                _ = closing.wait_for(|closing| *closing) => return,
            }
            let began = clock::now();
            let (undone, fault) = self.repeat(left, &mut replaced).await;
            left = undone;
            match fault {
                Some(error) => {
                    attempts.failed(began, &error);
                    // The server knows all but what is left here.
                    if error.kind() != ErrorKind::Unavailable {
                        self.recent.is_known();
                    }
                }
                None => {
                    attempts.succeeded();
                    replaced.clear();
                    self.recent.is_known();
                }
            }
        }
    }

    /// Returns what has not arrived, and why. Later invalidations are sent to this primary by
    /// themselves, and to repeat what has arrived would end entries that were loaded meanwhile.
    async fn repeat(
        &self,
        left: Repetition,
        replaced: &mut ReplacedBeside,
    ) -> (Repetition, Option<Error>) {
        match left {
            Repetition::Nothing => (Repetition::Nothing, None),
            Repetition::These(these) => {
                let mut sent = self.send(&these).await;
                if let Some(again) = replaced.once_more(&these, &sent) {
                    sent = with_once_more(&these, sent, self.send(&again).await);
                }
                match sent.undone {
                    Some((_, error)) if mutation::is_active("repeated-as-a-whole") => {
                        (Repetition::These(these), Some(error))
                    }
                    Some((undone, error)) => (Repetition::These(undone), Some(error)),
                    None => (Repetition::Nothing, None),
                }
            }
            Repetition::Everything => {
                match self.server.invalidate_namespace(&self.namespace).await {
                    Ok(_) => (Repetition::Nothing, None),
                    // To try again would replace those that are permitted, each time.
                    Err(error) if is_forbidden(&error) => {
                        tracing::warn!(
                            %error,
                            "the Redis user may not write all generations at the new primary, so \
                             its entries may be older than what was cleared at the former one; \
                             permit `{}@*`",
                            self.namespace,
                        );
                        (Repetition::Nothing, None)
                    }
                    Err(error) => (Repetition::Everything, Some(error)),
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
