//! The contract for more items than fit into one step of a store.

use super::*;

/// More items than any store should handle in one step.
const MANY: usize = 600;

impl Case<'_> {
    pub(super) async fn intents_end_among_many(&self) {
        let (row, list) = (
            self.entity(),
            self.entry_ref("users:list", EntryKind::Derived),
        );
        let intent = self.intent(&row, LONG);
        self.ok(self.store.intend(&intent).await);
        let mut ends: Vec<_> = (1..MANY).map(|_| Nonce::fresh()).collect();
        ends.insert(MANY / 2, intent.token);
        let invalidation = Invalidation {
            deletes: (0..MANY)
                .map(|id| format!("{}users:{id}", self.namespace))
                .collect(),
            rotates: intent.deps.clone(),
            ends,
        };
        self.ok(self.store.invalidate(&invalidation).await);
        for entry_ref in [&row, &list] {
            assert!(!self.is_intended(entry_ref).await, "{}", self.name);
        }
    }

    /// A deadline that passes as soon as it is set must not be an error: the caller would retry for
    /// ever.
    pub(super) async fn an_intent_may_end_at_once(&self) {
        let row = self.entity();
        let intent = self.intent(&row, Duration::ZERO);
        self.ok(self.store.intend(&intent).await);
        self.ok(self.store.renew_intent(&intent).await);
        self.until_pruned(&row).await;
    }

    pub(super) async fn many_are_leased_and_filled(&self) {
        let entry_refs: Vec<EntryRef> = (0..MANY)
            .map(|id| self.entry_ref(&format!("users:{id}"), EntryKind::Entity))
            .collect();
        let taken = self.granted(&entry_refs[7], Expected::Nothing, LONG).await;
        // Each entry has its own stamp, since the stamp covers the key.
        let lookups = self.ok(self.store.lookup_many(&entry_refs).await);
        let requests: Vec<_> = entry_refs
            .iter()
            .zip(&lookups)
            .map(|(entry_ref, lookup)| {
                let request = LeaseRequest {
                    expected: Expected::Nothing,
                    token: Nonce::fresh(),
                    stamp: lookup.stamp,
                    fingerprint: fingerprint(),
                    length: LONG,
                };
                (entry_ref, request)
            })
            .collect();
        let replies = self.ok(self.store.lease_many(&requests).await);
        assert_eq!(replies.len(), MANY, "{}", self.name);
        for (id, reply) in replies.iter().enumerate() {
            let fits = match reply {
                LeaseReply::Taken(header) => id == 7 && header.token == taken,
                reply => id != 7 && *reply == LeaseReply::Granted,
            };
            assert!(fits, "{}: {id}: {reply:?}", self.name);
        }

        let leases: Vec<_> = requests
            .iter()
            .map(|(entry_ref, request)| (entry_ref.key.clone(), request.token))
            .collect();
        let deadline = self.header(&entry_refs[MANY - 1]).await.deadline;
        self.ok(self.store.renew_many(&leases, LONG * 2).await);
        assert!(
            self.header(&entry_refs[MANY - 1]).await.deadline > deadline,
            "{}",
            self.name
        );
        assert_eq!(
            self.header(&entry_refs[7]).await.token,
            taken,
            "{}",
            self.name
        );

        self.delete_entry(&entry_refs[9]).await;
        let fills = requests
            .iter()
            .map(|(entry_ref, request)| {
                let value = Some(entry_ref.key.as_str());
                let kept = (LONG, Duration::ZERO);
                (
                    *entry_ref,
                    self.fill_with(request.token, request.stamp, value, kept),
                )
            })
            .collect();
        let filled = self.ok(self.store.fill_many(fills).await);
        for (id, (filled, entry_ref)) in filled.iter().zip(&entry_refs).enumerate() {
            let is_stored = *filled == Filled::Stored;
            assert_eq!(is_stored, id != 7 && id != 9, "{}: {id}", self.name);
            let content = self.read(entry_ref).await.and_then(|(_, content)| content);
            assert_eq!(
                content.as_deref(),
                is_stored.then_some(entry_ref.key.as_str()),
                "{}",
                self.name
            );
        }
        assert_eq!(filled.len(), MANY, "{}", self.name);
    }
}
