//! The end of a block around a transaction.

use super::held::Held;
use super::{a_while_later, engine, entry_ref};
use crate::base::background::Background;
use crate::call::returns::Owned;
use crate::call::transaction::{self, TransactionOutcome};
use crate::call::write::Write;
use crate::engine::StripedEngine;
use crate::registry::{Role, Site};

#[tokio::test(start_paused = true)]
async fn a_block_ends_when_what_was_dropped_in_it_is_announced_or_bypassed() {
    static SITE: Site = Site::new(Role::Writes, "write", "");
    for announced in [false, true] {
        let store = Held::shut();
        // The invalidation is taken. The intent is taken only if there is a second one.
        store.gate.add_permits(1 + usize::from(announced));
        let engine = StripedEngine::new(engine(&store, Background::here()));
        let write: Write<(), Owned, _, _> =
            Write::new(Some(engine.handle()), &SITE, |plan| plan.resource("users"));
        let block = async {
            tokio::select! {
                () = write.run(async |_| std::future::pending().await) => {}
                () = a_while_later() => {}
            }
            ((), TransactionOutcome::Committed)
        };
        transaction::run(engine.handle(), block).await;
        assert_eq!(
            engine.invalidations.is_pending(&entry_ref("users")),
            !announced
        );
        let taken = store.taken.available_permits();
        assert_eq!(taken, 1 + usize::from(announced));
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_ends_when_everything_is_invalidated_or_bypassed() {
    // This store refuses an invalidation of the namespace.
    let store = Held::open();
    let engine = StripedEngine::new(engine(&store, Background::here()));
    let handle = engine.handle();
    let block = async {
        transaction::defer_everything(&handle);
        ((), TransactionOutcome::Committed)
    };
    transaction::run(engine.handle(), block).await;
    assert!(engine.invalidations.is_pending(&entry_ref("users")));
}
