//! The contract for generations, leases and fills.

use super::*;

impl Case<'_> {
    pub(super) async fn generations_are_made_once(&self) {
        let derived = self.probe("users:list:0", EntryKind::Derived);
        let first = self.look(&derived).await;
        assert!(
            matches!(first.found, Found::Nothing) && first.intended.is_none(),
            "{}",
            self.name
        );
        assert_eq!(
            self.look(&derived).await.stamp,
            first.stamp,
            "{}",
            self.name
        );
        assert_ne!(
            self.look(&self.entity()).await.stamp,
            first.stamp,
            "{}",
            self.name
        );
    }

    pub(super) async fn a_lease_is_filled_once(&self) {
        let probe = self.entity();
        let stamp = self.look(&probe).await.stamp;
        let token = self.granted(&probe, Seen::Nothing, LONG).await;
        let (lease, content) = self.read(&probe).await.expect("the lease stands there");
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
            self.fill(&probe, Nonce::fresh(), "other", LONG).await,
            Filled::Refused,
            "{}",
            self.name
        );
        assert_eq!(
            self.fill(&probe, token, "mine", LONG).await,
            Filled::Stored,
            "{}",
            self.name
        );
        let (header, content) = self.read(&probe).await.expect("stored");
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
        let now = self.look(&probe).await.now;
        assert!(
            header.stored <= now.after(LONG / 2) && now < header.fresh,
            "{}: {header:?} at {now:?}",
            self.name
        );

        assert_eq!(
            self.fill(&probe, token, "again", LONG).await,
            Filled::Refused,
            "{}",
            self.name
        );
    }

    pub(super) async fn an_absence_is_stored(&self) {
        let probe = self.entity();
        let stamp = self.look(&probe).await.stamp;
        let token = self.granted(&probe, Seen::Nothing, LONG).await;
        assert_eq!(
            self.fill_stamped(&probe, token, stamp, None, LONG).await,
            Filled::Stored,
            "{}",
            self.name
        );
        assert_eq!(
            self.header(&probe).await.content,
            Content::Absence,
            "{}",
            self.name
        );
    }

    pub(super) async fn one_of_many_gets_the_lease(&self) {
        let probe = self.entity();
        let stamp = self.look(&probe).await.stamp;
        let mut granted = 0;
        let mut holders = Vec::new();
        let requests: Vec<_> = (0..50)
            .map(|_| LeaseRequest {
                seen: Seen::Nothing,
                token: Nonce::fresh(),
                stamp,
                fingerprint: fingerprint(),
                length: LONG,
            })
            .collect();
        for reply in futures_util::future::join_all(
            requests
                .iter()
                .map(|request| self.store.lease(&probe, request)),
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

    pub(super) async fn a_kill_takes_the_lease_too(&self) {
        let probe = self.entity();
        let token = self.granted(&probe, Seen::Nothing, LONG).await;
        assert_eq!(
            self.kill(&probe).await,
            0,
            "{}: a lease is no entry",
            self.name
        );
        assert_eq!(
            self.fill(&probe, token, "late", LONG).await,
            Filled::Refused,
            "{}",
            self.name
        );
        assert!(self.is_gone(&probe).await, "{}", self.name);

        self.stored(&probe, "new").await;
        assert_eq!(self.kill(&probe).await, 1, "{}", self.name);
        assert_eq!(
            self.kill(&probe).await,
            0,
            "{}: to repeat it is harmless",
            self.name
        );
        assert!(self.is_gone(&probe).await, "{}", self.name);
    }

    pub(super) async fn a_bump_makes_the_stamp_another(&self) {
        let (entity, derived) = (
            self.entity(),
            self.probe("users:list:0", EntryKind::Derived),
        );
        self.stored(&entity, "row").await;
        self.stored(&derived, "list").await;
        let lives = async |probe: &Probe| {
            let look = self.look(probe).await;
            matches!(look.found, Found::Entry(header, _) if header.stamp == look.stamp)
        };
        assert!(
            lives(&entity).await && lives(&derived).await,
            "{}",
            self.name
        );
        self.bump("users~derived").await;
        assert!(
            lives(&entity).await && !lives(&derived).await,
            "{}",
            self.name
        );
        self.bump("users").await;
        assert!(!lives(&entity).await, "{}", self.name);
    }

    pub(super) async fn a_lease_replaces_only_what_was_seen(&self) {
        let probe = self.entity();
        self.stored(&probe, "first").await;
        let first = self.header(&probe).await;
        assert!(
            matches!(self.lease(&probe, Seen::Nothing, LONG).await.1, LeaseReply::Taken(h) if h == first)
        );
        assert!(
            matches!(self.lease(&probe, Seen::Leased, LONG).await.1, LeaseReply::Taken(h) if h == first)
        );
        self.bump("users").await;
        self.stored(&probe, "second").await;
        let second = self.header(&probe).await;
        assert_ne!(first, second, "{}", self.name);
        let stale = self.lease(&probe, Seen::Entry(first), LONG).await.1;
        assert_eq!(stale, LeaseReply::Taken(second), "{}", self.name);
        self.granted(&probe, Seen::Entry(second), LONG).await;
        // The expected entry may also be gone.
        self.kill(&probe).await;
        self.granted(&probe, Seen::Entry(second), LONG).await;
    }

    /// Takes over a lease that is about to expire.
    pub(super) async fn granted_once_lapsed(&self, probe: &Probe) -> Nonce {
        let taken_over = async {
            loop {
                let (token, reply) = self.lease(probe, Seen::Leased, LONG).await;
                if reply == LeaseReply::Granted {
                    return token;
                }
                tokio::time::sleep(SHORT / 4).await;
            }
        };
        let taken_over = tokio::time::timeout(TEST_TIMEOUT, taken_over).await;
        taken_over.unwrap_or_else(|_| panic!("{}: the lease never expired", self.name))
    }

    pub(super) async fn a_lapsed_lease_gives_way(&self) {
        let probe = self.entity();
        let lapsing = self.granted(&probe, Seen::Nothing, SHORT).await;
        let token = self.granted_once_lapsed(&probe).await;
        assert_eq!(
            self.fill(&probe, lapsing, "late", LONG).await,
            Filled::Refused,
            "{}",
            self.name
        );
        assert_eq!(
            self.fill(&probe, token, "new", LONG).await,
            Filled::Stored,
            "{}",
            self.name
        );
    }

    pub(super) async fn a_renewed_lease_does_not_lapse(&self) {
        let probe = self.entity();
        let token = self.granted(&probe, Seen::Nothing, SHORT).await;
        assert!(
            self.ok(self.store.renew(&probe.key, token, LONG).await),
            "{}",
            self.name
        );
        assert!(
            !self.ok(self.store.renew(&probe.key, Nonce::fresh(), LONG).await),
            "{}",
            self.name
        );
        // A second lease of the same length shows when the first one would have expired.
        let sibling = self.probe("users:2", EntryKind::Entity);
        self.granted(&sibling, Seen::Nothing, SHORT).await;
        self.until_gone(&sibling).await;
        assert_eq!(
            self.fill(&probe, token, "value", LONG).await,
            Filled::Stored,
            "{}",
            self.name
        );
        assert!(
            !self.ok(self.store.renew(&probe.key, token, LONG).await),
            "{}",
            self.name
        );
    }

    pub(super) async fn a_lease_is_given_back_by_its_holder(&self) {
        let probe = self.entity();
        let token = self.granted(&probe, Seen::Nothing, LONG).await;
        self.ok(self.store.release(&probe.key, Nonce::fresh()).await);
        assert!(!self.is_gone(&probe).await, "{}", self.name);
        self.ok(self.store.release(&probe.key, token).await);
        assert!(self.is_gone(&probe).await, "{}", self.name);

        let token = self.granted(&probe, Seen::Nothing, LONG).await;
        self.fill(&probe, token, "kept", LONG).await;
        self.ok(self.store.release(&probe.key, token).await);
        assert!(
            !self.is_gone(&probe).await,
            "{}: a filled entry is not a lease any more",
            self.name
        );
    }

    pub(super) async fn a_lease_by_force_refuses_the_older_fill(&self) {
        let probe = self.entity();
        let older = self.granted(&probe, Seen::Nothing, LONG).await;
        let forced = self.granted(&probe, Seen::Anything, LONG).await;
        assert_eq!(
            self.fill(&probe, older, "old", LONG).await,
            Filled::Refused,
            "{}",
            self.name
        );
        assert_eq!(
            self.fill(&probe, forced, "new", LONG).await,
            Filled::Stored,
            "{}",
            self.name
        );
    }

    pub(super) async fn content_past_its_time_stays_under_a_lease(&self) {
        let probe = self.entity();
        let kept = async |value| {
            let stamp = self.look(&probe).await.stamp;
            let seen = match self.read(&probe).await {
                Some((header, _)) => Seen::Entry(header),
                None => Seen::Nothing,
            };
            let token = self.granted(&probe, seen, LONG).await;
            let times = (Duration::from_millis(1), LONG);
            let filled = self.fill_kept(&probe, token, stamp, Some(value), times);
            assert_eq!(filled.await, Filled::Stored, "{}", self.name);
            self.header(&probe).await
        };
        let text = async || self.read(&probe).await.and_then(|(_, text)| text);
        let old = kept("old").await;
        assert_eq!(old.took, 12, "{}: how long the load took", self.name);
        assert!(old.stale > old.fresh, "{}", self.name);

        // After a release, the entry is as before.
        let token = self.granted(&probe, Seen::Past(old), LONG).await;
        let leased = self.header(&probe).await;
        assert_eq!(leased.token, token, "{}", self.name);
        assert_eq!(text().await.as_deref(), Some("old"), "{}", self.name);
        assert!(self.ok(self.store.renew(&probe.key, token, LONG).await));
        assert_eq!(text().await.as_deref(), Some("old"), "{}", self.name);
        self.ok(self.store.release(&probe.key, token).await);
        let released = self.header(&probe).await;
        assert!(!released.is_leased(), "{}", self.name);
        assert_eq!(text().await.as_deref(), Some("old"), "{}", self.name);

        // A caller that takes over an expired lease keeps the content too, and a fill replaces it.
        self.granted(&probe, Seen::Past(released), SHORT).await;
        let token = self.granted_once_lapsed(&probe).await;
        assert_eq!(text().await.as_deref(), Some("old"), "{}", self.name);
        assert_eq!(self.fill(&probe, token, "new", LONG).await, Filled::Stored);
        assert_eq!(text().await.as_deref(), Some("new"), "{}", self.name);

        // A delete removes the lease and the content.
        self.kill(&probe).await;
        let old = kept("old").await;
        let token = self.granted(&probe, Seen::Past(old), LONG).await;
        self.kill(&probe).await;
        assert!(self.read(&probe).await.is_none(), "{}", self.name);
        assert_eq!(
            self.fill(&probe, token, "late", LONG).await,
            Filled::Refused
        );

        // After a change of generation, the content does not stay.
        let old = kept("old").await;
        self.bump("users").await;
        self.granted(&probe, Seen::Past(old), LONG).await;
        assert_eq!(text().await, None, "{}", self.name);
    }

    pub(super) async fn a_change_is_told_to_those_who_listen(&self) {
        let probe = self.entity();
        let token = self.granted(&probe, Seen::Nothing, LONG).await;
        // A store may have no change notifications.
        let Some(mut word) = self.ok(self.store.listen(&probe.key).await) else {
            return;
        };
        let filled = self.fill(&probe, token, "value", LONG).await;
        assert_eq!(filled, Filled::Stored, "{}", self.name);
        let heard = tokio::time::timeout(TEST_TIMEOUT, word.heard()).await;
        assert!(heard.is_ok(), "{}: nothing was heard", self.name);
    }

    pub(super) async fn an_entry_leaves_by_its_time(&self) {
        let probe = self.entity();
        let token = self.granted(&probe, Seen::Nothing, LONG).await;
        assert_eq!(
            self.fill(&probe, token, "brief", SHORT).await,
            Filled::Stored,
            "{}",
            self.name
        );
        self.until_gone(&probe).await;
    }
}
