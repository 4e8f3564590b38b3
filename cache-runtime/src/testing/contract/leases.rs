//! The contract for generations, leases and fills.

use std::time::Instant;

use super::*;

impl Case<'_> {
    pub(super) async fn generations_are_made_once(&self) {
        let derived = self.entry_ref("users:list:0", EntryKind::Derived);
        let first = self.lookup(&derived).await;
        assert!(
            matches!(first.found, Found::Nothing) && first.intents_until.is_none(),
            "{}",
            self.name
        );
        assert_eq!(
            self.lookup(&derived).await.stamp,
            first.stamp,
            "{}",
            self.name
        );
        assert_ne!(
            self.lookup(&self.entity()).await.stamp,
            first.stamp,
            "{}",
            self.name
        );
    }

    pub(super) async fn a_lease_is_filled_once(&self) {
        let entry_ref = self.entity();
        let stamp = self.lookup(&entry_ref).await.stamp;
        let token = self.granted(&entry_ref, Expected::Nothing, LONG).await;
        let (lease, content) = self.read(&entry_ref).await.expect("the lease stands there");
        assert_eq!(
            (lease.token, lease.content, content),
            (token, Content::Nothing, None),
            "{}",
            self.name
        );
        assert_eq!(
            (lease.stamp, lease.fingerprint, lease.kind),
            (stamp, fingerprint(), EntryKind::Entity)
        );

        assert_eq!(
            self.fill(&entry_ref, Nonce::fresh(), "other", LONG).await,
            Filled::Refused,
            "{}",
            self.name
        );
        assert_eq!(
            self.fill(&entry_ref, token, "mine", LONG).await,
            Filled::Stored,
            "{}",
            self.name
        );
        let (header, content) = self.read(&entry_ref).await.expect("stored");
        assert_eq!(content.as_deref(), Some("mine"), "{}", self.name);
        assert!(
            !header.is_leased() && header.content == Content::Value,
            "{}",
            self.name
        );
        assert_eq!(
            header.stamp, stamp,
            "{}: the stamp is the load's",
            self.name
        );
        let now = self.lookup(&entry_ref).await.now;
        assert!(
            header.stored <= now.after(LONG / 2) && now < header.fresh,
            "{}: {header:?} at {now:?}",
            self.name
        );

        assert_eq!(
            self.fill(&entry_ref, token, "again", LONG).await,
            Filled::Refused,
            "{}",
            self.name
        );
    }

    pub(super) async fn an_absence_is_stored(&self) {
        let entry_ref = self.entity();
        let stamp = self.lookup(&entry_ref).await.stamp;
        let token = self.granted(&entry_ref, Expected::Nothing, LONG).await;
        assert_eq!(
            self.fill_stamped(&entry_ref, token, stamp, None, LONG)
                .await,
            Filled::Stored,
            "{}",
            self.name
        );
        assert_eq!(
            self.header(&entry_ref).await.content,
            Content::Absence,
            "{}",
            self.name
        );
    }

    pub(super) async fn one_of_many_gets_the_lease(&self) {
        let entry_ref = self.entity();
        let stamp = self.lookup(&entry_ref).await.stamp;
        let mut granted = 0;
        let mut holders = Vec::new();
        let requests: Vec<_> = (0..50)
            .map(|_| LeaseRequest {
                expected: Expected::Nothing,
                token: Nonce::fresh(),
                stamp,
                fingerprint: fingerprint(),
                length: LONG,
            })
            .collect();
        for reply in futures_util::future::join_all(
            requests
                .iter()
                .map(|request| self.store.lease(&entry_ref, request)),
        )
        .await
        {
            match self.ok(reply) {
                LeaseReply::Granted => granted += 1,
                LeaseReply::Taken(header) => holders.push(header.token),
                reply => panic!("{}: another caller's lease is {reply:?}", self.name),
            }
        }
        holders.dedup();
        assert_eq!((granted, holders.len()), (1, 1), "{}", self.name);
    }

    pub(super) async fn a_delete_removes_the_lease_too(&self) {
        let entry_ref = self.entity();
        let token = self.granted(&entry_ref, Expected::Nothing, LONG).await;
        assert_eq!(
            self.delete_entry(&entry_ref).await,
            0,
            "{}: a lease is no entry",
            self.name
        );
        assert_eq!(
            self.fill(&entry_ref, token, "late", LONG).await,
            Filled::Refused,
            "{}",
            self.name
        );
        assert!(self.is_gone(&entry_ref).await, "{}", self.name);

        self.stored(&entry_ref, "new").await;
        assert_eq!(self.delete_entry(&entry_ref).await, 1, "{}", self.name);
        assert_eq!(
            self.delete_entry(&entry_ref).await,
            0,
            "{}: to repeat it is harmless",
            self.name
        );
        assert!(self.is_gone(&entry_ref).await, "{}", self.name);
    }

    pub(super) async fn a_rotated_generation_changes_the_stamp(&self) {
        let (entity, derived) = (
            self.entity(),
            self.entry_ref("users:list:0", EntryKind::Derived),
        );
        self.stored(&entity, "row").await;
        self.stored(&derived, "list").await;
        let lives = async |entry_ref: &EntryRef| {
            let lookup = self.lookup(entry_ref).await;
            matches!(lookup.found, Found::Entry(header, _) if header.stamp == lookup.stamp)
        };
        assert!(
            lives(&entity).await && lives(&derived).await,
            "{}",
            self.name
        );
        self.rotate("users~derived").await;
        assert!(
            lives(&entity).await && !lives(&derived).await,
            "{}",
            self.name
        );
        self.rotate("users").await;
        assert!(!lives(&entity).await, "{}", self.name);
    }

    pub(super) async fn a_lease_replaces_only_what_was_seen(&self) {
        let entry_ref = self.entity();
        self.stored(&entry_ref, "first").await;
        let first = self.header(&entry_ref).await;
        assert!(
            matches!(self.lease(&entry_ref, Expected::Nothing, LONG).await.1, LeaseReply::Taken(h) if h == first)
        );
        assert!(
            matches!(self.lease(&entry_ref, Expected::Leased, LONG).await.1, LeaseReply::Taken(h) if h == first)
        );
        self.rotate("users").await;
        self.stored(&entry_ref, "second").await;
        let second = self.header(&entry_ref).await;
        assert_ne!(first, second, "{}", self.name);
        let stale = self.lease(&entry_ref, Expected::Entry(first), LONG).await.1;
        assert_eq!(stale, LeaseReply::Taken(second), "{}", self.name);
        self.granted(&entry_ref, Expected::Entry(second), LONG)
            .await;
        // The expected entry may also be gone.
        self.delete_entry(&entry_ref).await;
        self.granted(&entry_ref, Expected::Entry(second), LONG)
            .await;
    }

    /// Takes over a lease that is about to expire.
    pub(super) async fn granted_once_lapsed(&self, entry_ref: &EntryRef) -> Nonce {
        let taken_over = async {
            loop {
                let (token, reply) = self.lease(entry_ref, Expected::Leased, LONG).await;
                if reply == LeaseReply::Granted {
                    return token;
                }
                tokio::time::sleep(SHORT / 4).await;
            }
        };
        let taken_over = tokio::time::timeout(TEST_TIMEOUT, taken_over).await;
        taken_over.unwrap_or_else(|_| panic!("{}: the lease never expired", self.name))
    }

    pub(super) async fn an_expired_lease_can_be_replaced(&self) {
        let entry_ref = self.entity();
        let lapsing = self.granted(&entry_ref, Expected::Nothing, SHORT).await;
        let token = self.granted_once_lapsed(&entry_ref).await;
        assert_eq!(
            self.fill(&entry_ref, lapsing, "late", LONG).await,
            Filled::Refused,
            "{}",
            self.name
        );
        assert_eq!(
            self.fill(&entry_ref, token, "new", LONG).await,
            Filled::Stored,
            "{}",
            self.name
        );
    }

    /// A short lease that was renewed before its end. On a busy machine it may be over by then, and
    /// another one is tried.
    async fn renewed(&self) -> (EntryRef, Nonce) {
        for attempt in 0..10 {
            let entry_ref = self.entry_ref(&format!("users:{}", 10 + attempt), EntryKind::Entity);
            let began = Instant::now();
            let token = self.granted(&entry_ref, Expected::Nothing, SHORT).await;
            if self.ok(self.store.renew(&entry_ref.key, token, LONG).await) {
                return (entry_ref, token);
            }
            assert!(began.elapsed() >= SHORT, "{}", self.name);
        }
        panic!("{}: no lease could be renewed within {SHORT:?}", self.name);
    }

    pub(super) async fn a_renewed_lease_does_not_expire(&self) {
        let (entry_ref, token) = self.renewed().await;
        assert!(
            !self.ok(self.store.renew(&entry_ref.key, Nonce::fresh(), LONG).await),
            "{}",
            self.name
        );
        // A second lease of the same length shows when the first one would have expired.
        let sibling = self.entry_ref("users:2", EntryKind::Entity);
        self.granted(&sibling, Expected::Nothing, SHORT).await;
        self.until_gone(&sibling).await;
        assert_eq!(
            self.fill(&entry_ref, token, "value", LONG).await,
            Filled::Stored,
            "{}",
            self.name
        );
        assert!(
            !self.ok(self.store.renew(&entry_ref.key, token, LONG).await),
            "{}",
            self.name
        );
    }

    pub(super) async fn a_lease_is_given_back_by_its_holder(&self) {
        let entry_ref = self.entity();
        let token = self.granted(&entry_ref, Expected::Nothing, LONG).await;
        self.ok(self.store.release(&entry_ref.key, Nonce::fresh()).await);
        assert!(!self.is_gone(&entry_ref).await, "{}", self.name);
        self.ok(self.store.release(&entry_ref.key, token).await);
        assert!(self.is_gone(&entry_ref).await, "{}", self.name);

        let token = self.granted(&entry_ref, Expected::Nothing, LONG).await;
        self.fill(&entry_ref, token, "kept", LONG).await;
        self.ok(self.store.release(&entry_ref.key, token).await);
        assert!(
            !self.is_gone(&entry_ref).await,
            "{}: a filled entry is not a lease any more",
            self.name
        );
    }

    pub(super) async fn a_lease_by_force_refuses_the_older_fill(&self) {
        let entry_ref = self.entity();
        let older = self.granted(&entry_ref, Expected::Nothing, LONG).await;
        let forced = self.granted(&entry_ref, Expected::Anything, LONG).await;
        assert_eq!(
            self.fill(&entry_ref, older, "old", LONG).await,
            Filled::Refused,
            "{}",
            self.name
        );
        assert_eq!(
            self.fill(&entry_ref, forced, "new", LONG).await,
            Filled::Stored,
            "{}",
            self.name
        );
    }

    pub(super) async fn expired_content_stays_under_a_lease(&self) {
        let entry_ref = self.entity();
        let kept_for = async |value, times| {
            let stamp = self.lookup(&entry_ref).await.stamp;
            let expected = match self.read(&entry_ref).await {
                Some((header, _)) => Expected::Entry(header),
                None => Expected::Nothing,
            };
            let token = self.granted(&entry_ref, expected, LONG).await;
            let filled = self.fill_kept(&entry_ref, token, stamp, Some(value), times);
            assert_eq!(filled.await, Filled::Stored, "{}", self.name);
            self.header(&entry_ref).await
        };
        let kept = async |value| kept_for(value, (Duration::from_millis(1), LONG)).await;
        let text = async || self.read(&entry_ref).await.and_then(|(_, text)| text);
        let old = kept("old").await;
        assert_eq!(old.took, 12, "{}: how long the load took", self.name);
        assert!(old.stale > old.fresh, "{}", self.name);

        // After a release, the entry is as before.
        let token = self.granted(&entry_ref, Expected::Past(old), LONG).await;
        let leased = self.header(&entry_ref).await;
        assert_eq!(leased.token, token, "{}", self.name);
        assert_eq!(text().await.as_deref(), Some("old"), "{}", self.name);
        assert!(self.ok(self.store.renew(&entry_ref.key, token, LONG).await));
        assert_eq!(text().await.as_deref(), Some("old"), "{}", self.name);
        self.ok(self.store.release(&entry_ref.key, token).await);
        let released = self.header(&entry_ref).await;
        assert!(!released.is_leased(), "{}", self.name);
        assert_eq!(text().await.as_deref(), Some("old"), "{}", self.name);

        // A caller that takes over an expired lease keeps the content too, and a fill replaces it.
        self.granted(&entry_ref, Expected::Past(released), SHORT)
            .await;
        let token = self.granted_once_lapsed(&entry_ref).await;
        assert_eq!(text().await.as_deref(), Some("old"), "{}", self.name);
        assert_eq!(
            self.fill(&entry_ref, token, "new", LONG).await,
            Filled::Stored
        );
        assert_eq!(text().await.as_deref(), Some("new"), "{}", self.name);

        // A delete removes the lease and the content.
        self.delete_entry(&entry_ref).await;
        let old = kept("old").await;
        let token = self.granted(&entry_ref, Expected::Past(old), LONG).await;
        self.delete_entry(&entry_ref).await;
        assert!(self.read(&entry_ref).await.is_none(), "{}", self.name);
        assert_eq!(
            self.fill(&entry_ref, token, "late", LONG).await,
            Filled::Refused
        );

        // A lease by force keeps it as well, and it counts as expired. So does what has not expired.
        kept("old").await;
        let token = self.granted(&entry_ref, Expected::Anything, LONG).await;
        assert_eq!(text().await.as_deref(), Some("old"), "{}", self.name);
        self.ok(self.store.release(&entry_ref.key, token).await);
        let fresh = kept_for("fresh", (LONG, LONG)).await;
        let token = self.granted(&entry_ref, Expected::Anything, LONG).await;
        let forced = self.header(&entry_ref).await;
        assert_eq!(forced.token, token, "{}", self.name);
        assert!(forced.fresh < fresh.fresh, "{}", self.name);
        assert_eq!(
            forced.stale.since(forced.fresh),
            fresh.stale.since(fresh.fresh),
            "{}",
            self.name
        );
        assert_eq!(text().await.as_deref(), Some("fresh"), "{}", self.name);
        self.ok(self.store.release(&entry_ref.key, token).await);
        assert_eq!(text().await.as_deref(), Some("fresh"), "{}", self.name);
        // Unless it may not be served after it has expired.
        kept_for("brief", (LONG, Duration::ZERO)).await;
        self.granted(&entry_ref, Expected::Anything, LONG).await;
        assert_eq!(text().await, None, "{}", self.name);
        self.delete_entry(&entry_ref).await;

        // A fill without content removes the lease and the content, if the lease is still held.
        let old = kept("old").await;
        let token = self.granted(&entry_ref, Expected::Past(old), LONG).await;
        assert_eq!(
            self.fill_nothing(&entry_ref, Nonce::fresh()).await,
            Filled::Refused
        );
        assert_eq!(text().await.as_deref(), Some("old"), "{}", self.name);
        assert_eq!(self.fill_nothing(&entry_ref, token).await, Filled::Stored);
        assert_eq!(text().await, None, "{}", self.name);
        let there = self.read(&entry_ref).await;
        assert!(there.is_none_or(|(it, _)| !it.is_leased()), "{}", self.name);

        // After a change of generation, the content does not stay.
        let old = kept("old").await;
        self.rotate("users").await;
        self.granted(&entry_ref, Expected::Past(old), LONG).await;
        assert_eq!(text().await, None, "{}", self.name);
    }

    pub(super) async fn a_change_is_notified(&self) {
        let entry_ref = self.entity();
        let token = self.granted(&entry_ref, Expected::Nothing, LONG).await;
        // A store may have no change notifications.
        let Some(mut change) = self.ok(self.store.watch_key(&entry_ref.key).await) else {
            return;
        };
        let filled = self.fill(&entry_ref, token, "value", LONG).await;
        assert_eq!(filled, Filled::Stored, "{}", self.name);
        let notified = tokio::time::timeout(TEST_TIMEOUT, change.changed()).await;
        assert!(notified.is_ok(), "{}: no notification came", self.name);
    }

    pub(super) async fn an_entry_expires(&self) {
        let entry_ref = self.entity();
        let token = self.granted(&entry_ref, Expected::Nothing, LONG).await;
        assert_eq!(
            self.fill(&entry_ref, token, "brief", SHORT).await,
            Filled::Stored,
            "{}",
            self.name
        );
        self.until_gone(&entry_ref).await;
    }
}
