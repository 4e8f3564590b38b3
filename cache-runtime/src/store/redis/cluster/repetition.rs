//! Repeats recent invalidations at the new owners of slots.

use std::sync::Arc;
use std::time::Duration;

use super::super::failover::recent::Repetition;
use super::state::Cluster;
use crate::store::Parts;

/// The pause before recent invalidations are repeated once more, if a node is away.
const AGAIN_PAUSE: Duration = Duration::from_millis(100);

/// Repeats recent invalidations until all of them have arrived: slots have new owners, and a former
/// owner may have acknowledged them.
pub(super) async fn do_again(cluster: Arc<Cluster>, namespace: String) {
    // Later invalidations go to the new owners, and after a later change there is another
    // repetition. So only the parts that have not arrived are sent once more. Sending the others
    // again would end entries that were loaded meanwhile.
    let mut left = cluster.recent.again();
    let mut parts = Parts::All;
    for attempt in 0_u32.. {
        if attempt == 10 && crate::base::mutation::is_active("repetition-given-up") {
            return;
        }
        left = match left {
            Repetition::Nothing => return,
            Repetition::These(these) => match cluster.invalidate_again(&these).await.undone {
                Some(_) if crate::base::mutation::is_active("repeated-as-a-whole") => {
                    Repetition::These(these)
                }
                Some((undone, _)) => Repetition::These(undone),
                None => return,
            },
            Repetition::Everything => {
                let undone = cluster.invalidate_namespace_again(&namespace, &parts);
                match undone.await {
                    Some(undone) => parts = undone,
                    None => return,
                }
                Repetition::Everything
            }
        };
        crate::base::time::sleep(AGAIN_PAUSE).await;
    }
}
