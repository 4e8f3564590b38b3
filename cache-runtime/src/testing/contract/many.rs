//! The contract where there is more than fits into one step of a store.

use super::*;

/// More than any store is expected to do at a time.
const MANY: usize = 600;

impl Case<'_> {
    pub(super) async fn intents_end_among_many(&self) {
        let (row, list) = (self.entity(), self.probe("users:list", EntryKind::Derived));
        let intent = self.intent(&row, LONG);
        self.ok(self.store.intend(&intent).await);
        let mut withdraws: Vec<_> = (1..MANY).map(|_| Nonce::fresh()).collect();
        withdraws.insert(MANY / 2, intent.token);
        let invalidation = Invalidation {
            kills: (0..MANY)
                .map(|id| format!("{}users:{id}", self.namespace))
                .collect(),
            bumps: intent.deps.clone(),
            withdraws,
        };
        self.ok(self.store.invalidate(&invalidation).await);
        for probe in [&row, &list] {
            assert!(!self.is_intended(probe).await, "{}", self.name);
        }
    }

    /// A deadline that is over as soon as it is set must not be an error: whoever set it would try for ever.
    pub(super) async fn an_intent_may_end_at_once(&self) {
        let row = self.entity();
        let intent = self.intent(&row, Duration::ZERO);
        self.ok(self.store.intend(&intent).await);
        self.ok(self.store.renew_intent(&intent).await);
        self.until_pruned(&row).await;
    }
}
