//! Repeats recent invalidations at the new owners of slots.

use std::sync::Arc;

use super::super::failover::attempts::Attempts;
use super::super::failover::recent::Repetition;
use super::super::failover::replaced_beside::{ReplacedBeside, with_once_more};
use super::state::Cluster;
use crate::base::clock;
use crate::store::Parts;

/// Repeats recent invalidations until all of them have arrived: slots have new owners, and a former
/// owner may have acknowledged them.
pub(super) async fn do_again(cluster: Arc<Cluster>, namespace: String) {
    // Later invalidations go to the new owners, and after a later change there is another
    // repetition. So only the parts that have not arrived are sent once more. Sending the others
    // again would end entries that were loaded meanwhile.
    let mut left = cluster.recent.again();
    let mut parts = Parts::All;
    let mut attempts = Attempts::default();
    let mut replaced = ReplacedBeside::default();
    for attempt in 0_u32.. {
        if attempt == 10 && crate::base::mutation::is_active("repetition-given-up") {
            return;
        }
        let began = clock::now();
        let fault = match &mut left {
            Repetition::Nothing => None,
            Repetition::These(these) => {
                let mut sent = cluster.invalidate_again(these).await;
                if let Some(again) = replaced.once_more(these, &sent) {
                    let again = cluster.invalidate_again(&again).await;
                    sent = with_once_more(these, sent, again);
                }
                sent.undone.map(|(undone, error)| {
                    if !crate::base::mutation::is_active("repeated-as-a-whole") {
                        *these = undone;
                    }
                    error
                })
            }
            Repetition::Everything => {
                let undone = cluster.invalidate_namespace_again(&namespace, &parts);
                undone.await.map(|(undone, error)| {
                    parts = undone;
                    error
                })
            }
        };
        let Some(error) = fault else {
            attempts.succeeded();
            return;
        };
        attempts.failed(began, &error);
        clock::sleep_until(attempts.next()).await;
    }
}
