//! The contract for more items than fit into one step of a store.

use super::*;

/// More items than any store should handle in one step.
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
        let probes: Vec<Probe> = (0..MANY)
            .map(|id| self.probe(&format!("users:{id}"), EntryKind::Entity))
            .collect();
        let taken = self.granted(&probes[7], Seen::Nothing, LONG).await;
        // Each entry has its own stamp, since the stamp covers the key.
        let looks = self.ok(self.store.look_many(&probes).await);
        let requests: Vec<_> = probes
            .iter()
            .zip(&looks)
            .map(|(probe, look)| {
                let request = LeaseRequest {
                    seen: Seen::Nothing,
                    token: Nonce::fresh(),
                    stamp: look.stamp,
                    fingerprint: fingerprint(),
                    length: LONG,
                };
                (probe, request)
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
            .map(|(probe, request)| (probe.key.clone(), request.token))
            .collect();
        let deadline = self.header(&probes[MANY - 1]).await.deadline;
        self.ok(self.store.renew_many(&leases, LONG * 2).await);
        assert!(
            self.header(&probes[MANY - 1]).await.deadline > deadline,
            "{}",
            self.name
        );
        assert_eq!(self.header(&probes[7]).await.token, taken, "{}", self.name);

        self.kill(&probes[9]).await;
        let fills = requests
            .iter()
            .map(|(probe, request)| {
                let value = Some(probe.key.as_str());
                let kept = (LONG, Duration::ZERO);
                (
                    *probe,
                    self.fill_with(request.token, request.stamp, value, kept),
                )
            })
            .collect();
        let filled = self.ok(self.store.fill_many(fills).await);
        for (id, (filled, probe)) in filled.iter().zip(&probes).enumerate() {
            let is_stored = *filled == Filled::Stored;
            assert_eq!(is_stored, id != 7 && id != 9, "{}: {id}", self.name);
            let content = self.read(probe).await.and_then(|(_, content)| content);
            assert_eq!(
                content.as_deref(),
                is_stored.then_some(probe.key.as_str()),
                "{}",
                self.name
            );
        }
        assert_eq!(filled.len(), MANY, "{}", self.name);
    }
}
