//! The contract for announced writes.

use super::*;

impl Case<'_> {
    pub(super) fn intent(&self, entry_ref: &EntryRef, length: Duration) -> Intent {
        let whole = Arc::clone(&entry_ref.deps[0]);
        let derived = Dependency::new(format!("{}@gen:users~derived", self.namespace));
        let key = entry_ref.key.clone();
        Intent {
            token: Nonce::fresh(),
            rows: vec![IntentRow { key, whole }],
            deps: vec![derived],
            length,
        }
    }

    pub(super) async fn withdraw(&self, intent: &Intent) {
        let invalidation = Invalidation {
            deletes: intent.rows.iter().map(|row| row.key.clone()).collect(),
            rotates: intent.deps.clone(),
            ends: vec![intent.token],
        };
        self.ok(self.store.invalidate(&invalidation).await);
    }

    pub(super) async fn is_intended(&self, entry_ref: &EntryRef) -> bool {
        self.lookup(entry_ref).await.intents_until.is_some()
    }

    /// Prunes until no intent is left.
    pub(super) async fn until_pruned(&self, entry_ref: &EntryRef) {
        let pruned = async {
            while self.is_intended(entry_ref).await {
                self.ok(self.store.prune(entry_ref).await);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(TEST_TIMEOUT, pruned).await.is_ok();
        assert!(in_time, "{}: the intent stands for ever", self.name);
    }

    pub(super) async fn an_announced_write_stands_until_it_is_withdrawn(&self) {
        let (row, list) = (
            self.entity(),
            self.entry_ref("users:list", EntryKind::Derived),
        );
        let other = self.entry_ref("users:2", EntryKind::Entity);
        for entry_ref in [&row, &list, &other] {
            self.stored(entry_ref, "before").await;
        }
        let late = self.entry_ref("users:count", EntryKind::Derived);
        let late_token = self.granted(&late, Expected::Nothing, LONG).await;
        let late_stamp = self.lookup(&late).await.stamp;

        let intent = self.intent(&row, LONG);
        self.ok(self.store.intend(&intent).await);
        for entry_ref in [&row, &list, &late] {
            assert!(
                self.is_intended(entry_ref).await,
                "{}: {}",
                self.name,
                entry_ref.key
            );
        }
        assert!(
            !self.is_intended(&other).await,
            "{}: another row",
            self.name
        );
        let (_, reply) = self.lease(&row, Expected::Anything, LONG).await;
        assert_eq!(reply, LeaseReply::WriteInProgress, "{}", self.name);

        // Other operations don't end the intent.
        if self.store.lists_keys() {
            let everything = ScanFilter::all(&self.namespace, "*");
            self.ok(self.store.remove_matching(&everything).await);
        }
        self.delete_entry(&row).await;
        self.rotate("users~derived").await;
        self.ok(self.store.invalidate_namespace(&self.namespace).await);
        self.ok(self.store.prune(&row).await);
        self.ok(self.store.prune(&list).await);
        assert!(
            self.is_intended(&row).await,
            "{}: kept at the row",
            self.name
        );
        assert!(
            self.is_intended(&list).await,
            "{}: kept at the list",
            self.name
        );

        self.withdraw(&intent).await;
        for entry_ref in [&row, &list] {
            assert!(
                !self.is_intended(entry_ref).await,
                "{}: withdrawn",
                self.name
            );
            // Entries that a store can't find by a pattern may still be there, dead.
            let lookup = self.lookup(entry_ref).await;
            let is_dead = match lookup.found {
                Found::Entry(header, _) => !self.store.lists_keys() && header.stamp != lookup.stamp,
                _ => true,
            };
            assert!(is_dead, "{}: {}", self.name, entry_ref.key);
            self.stored(entry_ref, "after").await;
        }
        // A value read before the announcement is not served after it, though it may still be
        // stored.
        self.fill_stamped(&late, late_token, late_stamp, Some("before"), LONG)
            .await;
        assert_ne!(self.lookup(&late).await.stamp, late_stamp, "{}", self.name);
    }

    pub(super) async fn intents_are_told_apart_by_name(&self) {
        let row = self.entity();
        let (one, two) = (self.intent(&row, LONG), self.intent(&row, LONG));
        self.ok(self.store.intend(&one).await);
        self.ok(self.store.intend(&two).await);
        // Repeated and late messages about one intent don't affect the other.
        self.ok(self.store.intend(&one).await);
        self.withdraw(&one).await;
        self.withdraw(&one).await;
        let list = self.entry_ref("users:list", EntryKind::Derived);
        for entry_ref in [&row, &list] {
            assert!(
                self.is_intended(entry_ref).await,
                "{}: the other stands",
                self.name
            );
        }
        self.withdraw(&two).await;
        for entry_ref in [&row, &list] {
            assert!(
                !self.is_intended(entry_ref).await,
                "{}: none is left",
                self.name
            );
        }
    }

    pub(super) async fn an_intent_ends_with_its_time(&self) {
        let (row, list) = (
            self.entity(),
            self.entry_ref("users:list", EntryKind::Derived),
        );
        self.stored(&list, "before").await;
        let before = self.lookup(&list).await.stamp;
        self.ok(self.store.intend(&self.intent(&row, SHORT)).await);
        let announced = self.lookup(&list).await.stamp;
        assert_ne!(
            announced, before,
            "{}: announcing replaces generations",
            self.name
        );
        self.until_pruned(&row).await;
        self.until_pruned(&list).await;
        assert_ne!(
            self.lookup(&list).await.stamp,
            announced,
            "{}: and so does the end of an intent",
            self.name
        );
        self.stored(&row, "after").await;
    }

    pub(super) async fn a_renewed_intent_changes_nothing_else(&self) {
        let (row, list) = (
            self.entity(),
            self.entry_ref("users:list", EntryKind::Derived),
        );
        let intent = self.intent(&row, SHORT);
        self.ok(self.store.intend(&intent).await);
        let stamp = self.lookup(&list).await.stamp;
        let longer = Intent {
            length: LONG,
            ..intent.clone()
        };
        self.ok(self.store.renew_intent(&longer).await);
        assert_eq!(self.lookup(&list).await.stamp, stamp, "{}", self.name);
        tokio::time::sleep(SHORT).await;
        self.ok(self.store.prune(&row).await);
        self.ok(self.store.prune(&list).await);
        assert!(
            self.is_intended(&row).await,
            "{}: renewed at the row",
            self.name
        );
        assert!(
            self.is_intended(&list).await,
            "{}: renewed at the list",
            self.name
        );

        // An intent that is gone comes back. The entries stored meanwhile become dead.
        self.withdraw(&intent).await;
        self.stored(&row, "meanwhile").await;
        self.stored(&list, "meanwhile").await;
        let stamp = self.lookup(&list).await.stamp;
        self.ok(self.store.renew_intent(&longer).await);
        assert!(
            self.is_intended(&row).await && self.is_intended(&list).await,
            "{}",
            self.name
        );
        assert_ne!(self.lookup(&list).await.stamp, stamp, "{}", self.name);
        self.withdraw(&intent).await;
        assert!(self.is_gone(&row).await, "{}", self.name);
    }
}
