//! The contract that every store has to meet.

mod many;

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::EntryKind;
use crate::store::{
    CodecId, Content, Dep, Fill, Filled, Fingerprint, Form, Found, Header, Intent, IntentRow,
    Invalidation, LeaseReply, LeaseRequest, Look, Matching, Millis, Nonce, Payload, Probe, Seen,
    Stamp, Store,
};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(40);
/// How long a case waits for an event that must happen.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks a store against the contract that [`Store`] describes.
///
/// It works in namespaces of its own, so the store may hold other entries. Run it on a runtime
/// whose time is not paused: entries expire by the store's own clock.
///
/// # Panics
/// If the store breaks the contract; the message says which part.
pub async fn check_store(store: &dyn Store) {
    let case = |name| Case {
        store,
        name,
        namespace: format!("t{}:", Nonce::fresh()),
    };
    case("generations").generations_are_made_once().await;
    case("fill").a_lease_is_filled_once().await;
    case("absence").an_absence_is_stored().await;
    case("stampede").one_of_many_gets_the_lease().await;
    case("kill").a_kill_takes_the_lease_too().await;
    case("bump").a_bump_makes_the_stamp_another().await;
    case("compare").a_lease_replaces_only_what_was_seen().await;
    case("lapse").a_lapsed_lease_gives_way().await;
    case("renew").a_renewed_lease_does_not_lapse().await;
    case("release").a_lease_is_given_back_by_its_holder().await;
    case("force")
        .a_lease_by_force_refuses_the_older_fill()
        .await;
    case("past")
        .content_past_its_time_stays_under_a_lease()
        .await;
    case("expiry").an_entry_leaves_by_its_time().await;
    case("word").a_change_is_told_to_those_who_listen().await;
    if store.lists_keys() {
        case("sweep").a_sweep_takes_what_it_is_told().await;
        case("pattern").a_pattern_is_of_its_namespace().await;
    } else {
        case("pattern").a_pattern_is_refused().await;
    }
    case("intent")
        .an_announced_write_stands_until_it_is_withdrawn()
        .await;
    case("names").intents_are_told_apart_by_name().await;
    case("many names").intents_end_among_many().await;
    case("deadline").an_intent_ends_with_its_time().await;
    case("over").an_intent_may_end_at_once().await;
    case("renewal")
        .a_renewed_intent_changes_nothing_else()
        .await;
    case("many").many_are_leased_and_filled().await;
    case("namespace")
        .an_invalidation_of_a_namespace_spares_others()
        .await;
}

struct Case<'a> {
    store: &'a dyn Store,
    name: &'static str,
    namespace: String,
}

fn fingerprint() -> Fingerprint {
    Fingerprint::of::<String>(0)
}

impl Case<'_> {
    fn probe(&self, name: &str, kind: EntryKind) -> Probe {
        let dep = |name: &str| Dep::new(format!("{}@gen:{name}", self.namespace));
        let deps = match kind {
            EntryKind::Entity => [dep("users")].into(),
            EntryKind::Derived => [dep("users"), dep("users~derived")].into(),
        };
        Probe {
            key: format!("{}{name}", self.namespace),
            kind,
            deps,
        }
    }

    fn entity(&self) -> Probe {
        self.probe("users:1", EntryKind::Entity)
    }

    fn ok<T>(&self, result: Result<T, crate::Error>) -> T {
        result.unwrap_or_else(|error| panic!("{}: the store failed: {error}", self.name))
    }

    async fn look(&self, probe: &Probe) -> Look {
        let glance = Cell::new(None);
        self.store
            .glance(&probe.key, &probe.deps, &|header, payload, now| {
                glance.set(Some((*header, text(payload), now)));
            });
        let look = self.ok(self.store.look(probe).await);
        self.agree(glance.take(), &look);
        look
    }

    /// A glance sees the same as a look, or nothing.
    fn agree(&self, glance: Option<(Header, Option<String>, Millis)>, look: &Look) {
        /// An entry that ends between the two does not matter.
        const MOMENT: Duration = Duration::from_millis(20);

        let Some((header, shown, now)) = glance else {
            return;
        };
        if header.fresh.since(now) > MOMENT {
            let is_there = matches!(
                &look.found,
                Found::Entry(there, payload) if *there == header && text(payload) == shown
            );
            assert!(
                is_there && header.stamp == look.stamp && look.intended.is_none(),
                "{}: {look:?}",
                self.name
            );
        }
    }

    /// The entry's text and header, if there is one.
    async fn read(&self, probe: &Probe) -> Option<(Header, Option<String>)> {
        match self.look(probe).await.found {
            Found::Nothing => None,
            Found::Foreign => panic!("{}: an entry was read as foreign", self.name),
            Found::Entry(header, payload) => Some((header, text(&payload))),
        }
    }

    async fn header(&self, probe: &Probe) -> Header {
        self.read(probe)
            .await
            .unwrap_or_else(|| panic!("{}: the entry is not there", self.name))
            .0
    }

    async fn lease(&self, probe: &Probe, seen: Seen, length: Duration) -> (Nonce, LeaseReply) {
        let stamp = self.look(probe).await.stamp;
        let token = Nonce::fresh();
        let request = LeaseRequest {
            seen,
            token,
            stamp,
            fingerprint: fingerprint(),
            length,
        };
        (token, self.ok(self.store.lease(probe, &request).await))
    }

    async fn granted(&self, probe: &Probe, seen: Seen, length: Duration) -> Nonce {
        let (token, reply) = self.lease(probe, seen, length).await;
        assert_eq!(reply, LeaseReply::Granted, "{}", self.name);
        token
    }

    async fn fill(&self, probe: &Probe, token: Nonce, value: &str, ttl: Duration) -> Filled {
        let stamp = self.look(probe).await.stamp;
        self.fill_stamped(probe, token, stamp, Some(value), ttl)
            .await
    }

    async fn fill_stamped(
        &self,
        probe: &Probe,
        token: Nonce,
        stamp: Stamp,
        value: Option<&str>,
        ttl: Duration,
    ) -> Filled {
        self.fill_kept(probe, token, stamp, value, (ttl, Duration::ZERO))
            .await
    }

    async fn fill_kept(
        &self,
        probe: &Probe,
        token: Nonce,
        stamp: Stamp,
        value: Option<&str>,
        kept: (Duration, Duration),
    ) -> Filled {
        let fill = self.fill_with(token, stamp, value, kept);
        self.ok(self.store.fill(probe, fill).await)
    }

    fn fill_with(
        &self,
        token: Nonce,
        stamp: Stamp,
        value: Option<&str>,
        (fresh_for, stale_for): (Duration, Duration),
    ) -> Fill {
        let payload = match (value, self.store.form()) {
            (None, _) => Payload::Empty,
            (Some(value), Form::Encoded) => Payload::Encoded(value.to_owned().into()),
            (Some(value), Form::Decoded) => Payload::Decoded(Arc::new(value.to_owned())),
        };
        Fill {
            token,
            stamp,
            fingerprint: fingerprint(),
            content: if value.is_some() {
                Content::Value
            } else {
                Content::Absence
            },
            payload,
            codec: CodecId::Json,
            size: value.map_or(4, str::len),
            fresh_for,
            stale_for,
            took: Duration::from_millis(12),
            generation_ttl: LONG * 2,
        }
    }

    async fn stored(&self, probe: &Probe, value: &str) {
        let seen = match self.read(probe).await {
            Some((header, _)) => Seen::Entry(header),
            None => Seen::Nothing,
        };
        let token = self.granted(probe, seen, LONG).await;
        assert_eq!(
            self.fill(probe, token, value, LONG).await,
            Filled::Stored,
            "{}",
            self.name
        );
    }

    async fn kill(&self, probe: &Probe) -> u64 {
        let invalidation = Invalidation {
            kills: vec![probe.key.clone()],
            ..Invalidation::default()
        };
        self.ok(self.store.invalidate(&invalidation).await).removed
    }

    async fn bump(&self, dep: &str) -> Millis {
        let bumps = vec![Dep::new(format!("{}@gen:{dep}", self.namespace))];
        self.ok(self
            .store
            .invalidate(&Invalidation {
                bumps,
                ..Invalidation::default()
            })
            .await)
            .at
    }

    async fn is_gone(&self, probe: &Probe) -> bool {
        self.read(probe).await.is_none()
    }

    async fn until_gone(&self, probe: &Probe) {
        let gone = async {
            while !self.is_gone(probe).await {
                tokio::time::sleep(SHORT / 4).await;
            }
        };
        assert!(
            tokio::time::timeout(ACK_TIMEOUT, gone).await.is_ok(),
            "{}: it never left",
            self.name
        );
    }

    async fn generations_are_made_once(&self) {
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

    async fn a_lease_is_filled_once(&self) {
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

    async fn an_absence_is_stored(&self) {
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

    async fn one_of_many_gets_the_lease(&self) {
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

    async fn a_kill_takes_the_lease_too(&self) {
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

    async fn a_bump_makes_the_stamp_another(&self) {
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

    async fn a_lease_replaces_only_what_was_seen(&self) {
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
    async fn granted_once_lapsed(&self, probe: &Probe) -> Nonce {
        let taken_over = async {
            loop {
                let (token, reply) = self.lease(probe, Seen::Leased, LONG).await;
                if reply == LeaseReply::Granted {
                    return token;
                }
                tokio::time::sleep(SHORT / 4).await;
            }
        };
        let taken_over = tokio::time::timeout(ACK_TIMEOUT, taken_over).await;
        taken_over.unwrap_or_else(|_| panic!("{}: the lease never expired", self.name))
    }

    async fn a_lapsed_lease_gives_way(&self) {
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

    async fn a_renewed_lease_does_not_lapse(&self) {
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

    async fn a_lease_is_given_back_by_its_holder(&self) {
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

    async fn a_lease_by_force_refuses_the_older_fill(&self) {
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

    async fn content_past_its_time_stays_under_a_lease(&self) {
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

    async fn a_change_is_told_to_those_who_listen(&self) {
        let probe = self.entity();
        let token = self.granted(&probe, Seen::Nothing, LONG).await;
        // A store may have no change notifications.
        let Some(mut word) = self.ok(self.store.listen(&probe.key).await) else {
            return;
        };
        let filled = self.fill(&probe, token, "value", LONG).await;
        assert_eq!(filled, Filled::Stored, "{}", self.name);
        let heard = tokio::time::timeout(ACK_TIMEOUT, word.heard()).await;
        assert!(heard.is_ok(), "{}: nothing was heard", self.name);
    }

    async fn an_entry_leaves_by_its_time(&self) {
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

    async fn a_sweep_takes_what_it_is_told(&self) {
        let (entity, derived) = (
            self.entity(),
            self.probe("users:list:0", EntryKind::Derived),
        );
        let other = self.probe("teams:1", EntryKind::Entity);
        for probe in [&entity, &derived, &other] {
            self.stored(probe, "value").await;
        }
        let before = self.header(&entity).await.stored;
        let sweep = |derived_only, stored_before| Matching {
            pattern: format!("{}users:*", self.namespace),
            derived_only,
            stored_before,
            unless_larger_than: None,
            is_leisurely: false,
        };
        let run = async |matching: Matching| self.ok(self.store.remove_matching(&matching).await);
        assert_eq!(
            run(sweep(false, Some(before))).await,
            0,
            "{}: none was stored before",
            self.name
        );
        assert_eq!(
            run(Matching {
                unless_larger_than: Some(0),
                ..sweep(false, None)
            })
            .await,
            0,
            "{}",
            self.name
        );
        assert_eq!(run(sweep(true, None)).await, 1, "{}", self.name);
        assert!(
            self.is_gone(&derived).await && !self.is_gone(&entity).await,
            "{}",
            self.name
        );
        assert_eq!(
            run(sweep(false, Some(before.after(LONG)))).await,
            1,
            "{}",
            self.name
        );
        assert!(
            self.is_gone(&entity).await && !self.is_gone(&other).await,
            "{}",
            self.name
        );
    }

    async fn a_pattern_is_of_its_namespace(&self) {
        let stranger = Case {
            store: self.store,
            name: self.name,
            namespace: format!("x{}", self.namespace),
        };
        let (own, strange) = (self.entity(), stranger.entity());
        self.stored(&own, "own").await;
        stranger.stored(&strange, "strange").await;
        let token = self
            .granted(
                &self.probe("users:9", EntryKind::Entity),
                Seen::Nothing,
                LONG,
            )
            .await;
        let matching = Matching {
            pattern: format!("{}users:[0-9]", self.namespace),
            derived_only: false,
            stored_before: None,
            unless_larger_than: None,
            is_leisurely: false,
        };
        assert_eq!(
            self.ok(self.store.remove_matching(&matching).await),
            1,
            "{}",
            self.name
        );
        assert!(
            self.is_gone(&own).await && !stranger.is_gone(&strange).await,
            "{}",
            self.name
        );
        let late = self
            .fill(
                &self.probe("users:9", EntryKind::Entity),
                token,
                "late",
                LONG,
            )
            .await;
        assert_eq!(
            late,
            Filled::Refused,
            "{}: a load in flight goes too",
            self.name
        );
    }

    async fn a_pattern_is_refused(&self) {
        let own = self.entity();
        self.stored(&own, "own").await;
        let everything = Matching::all(&self.namespace, "*");
        let refused = self.store.remove_matching(&everything).await;
        let kind = refused.map_err(|error| error.kind());
        assert_eq!(kind, Err(crate::ErrorKind::Unsupported), "{}", self.name);
        assert!(!self.is_gone(&own).await, "{}", self.name);
    }

    fn intent(&self, probe: &Probe, length: Duration) -> Intent {
        let whole = Arc::clone(&probe.deps[0]);
        let derived = Dep::new(format!("{}@gen:users~derived", self.namespace));
        let key = probe.key.clone();
        Intent {
            token: Nonce::fresh(),
            rows: vec![IntentRow { key, whole }],
            deps: vec![derived],
            length,
        }
    }

    async fn withdraw(&self, intent: &Intent) {
        let invalidation = Invalidation {
            kills: intent.rows.iter().map(|row| row.key.clone()).collect(),
            bumps: intent.deps.clone(),
            withdraws: vec![intent.token],
        };
        self.ok(self.store.invalidate(&invalidation).await);
    }

    async fn is_intended(&self, probe: &Probe) -> bool {
        self.look(probe).await.intended.is_some()
    }

    /// Prunes until no intent is left.
    async fn until_pruned(&self, probe: &Probe) {
        let pruned = async {
            while self.is_intended(probe).await {
                self.ok(self.store.prune(probe).await);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(ACK_TIMEOUT, pruned).await.is_ok();
        assert!(in_time, "{}: the intent stands for ever", self.name);
    }

    async fn an_announced_write_stands_until_it_is_withdrawn(&self) {
        let (row, list) = (self.entity(), self.probe("users:list", EntryKind::Derived));
        let other = self.probe("users:2", EntryKind::Entity);
        for probe in [&row, &list, &other] {
            self.stored(probe, "before").await;
        }
        let late = self.probe("users:count", EntryKind::Derived);
        let late_token = self.granted(&late, Seen::Nothing, LONG).await;
        let late_stamp = self.look(&late).await.stamp;

        let intent = self.intent(&row, LONG);
        self.ok(self.store.intend(&intent).await);
        for probe in [&row, &list, &late] {
            assert!(
                self.is_intended(probe).await,
                "{}: {}",
                self.name,
                probe.key
            );
        }
        assert!(
            !self.is_intended(&other).await,
            "{}: another row",
            self.name
        );
        let (_, reply) = self.lease(&row, Seen::Anything, LONG).await;
        assert_eq!(reply, LeaseReply::Intended, "{}", self.name);

        // Other operations don't end the intent.
        if self.store.lists_keys() {
            let everything = Matching::all(&self.namespace, "*");
            self.ok(self.store.remove_matching(&everything).await);
        }
        self.kill(&row).await;
        self.bump("users~derived").await;
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
        for probe in [&row, &list] {
            assert!(!self.is_intended(probe).await, "{}: withdrawn", self.name);
            // What a store can't find by a pattern may still lie there, dead.
            let look = self.look(probe).await;
            let is_dead = match look.found {
                Found::Entry(header, _) => !self.store.lists_keys() && header.stamp != look.stamp,
                _ => true,
            };
            assert!(is_dead, "{}: {}", self.name, probe.key);
            self.stored(probe, "after").await;
        }
        // A value read before the announcement is not served after it, though it may still be
        // stored.
        self.fill_stamped(&late, late_token, late_stamp, Some("before"), LONG)
            .await;
        assert_ne!(self.look(&late).await.stamp, late_stamp, "{}", self.name);
    }

    async fn intents_are_told_apart_by_name(&self) {
        let row = self.entity();
        let (one, two) = (self.intent(&row, LONG), self.intent(&row, LONG));
        self.ok(self.store.intend(&one).await);
        self.ok(self.store.intend(&two).await);
        // Repeated and late messages about one intent don't affect the other.
        self.ok(self.store.intend(&one).await);
        self.withdraw(&one).await;
        self.withdraw(&one).await;
        let list = self.probe("users:list", EntryKind::Derived);
        for probe in [&row, &list] {
            assert!(
                self.is_intended(probe).await,
                "{}: the other stands",
                self.name
            );
        }
        self.withdraw(&two).await;
        for probe in [&row, &list] {
            assert!(
                !self.is_intended(probe).await,
                "{}: none is left",
                self.name
            );
        }
    }

    async fn an_intent_ends_with_its_time(&self) {
        let (row, list) = (self.entity(), self.probe("users:list", EntryKind::Derived));
        self.stored(&list, "before").await;
        let before = self.look(&list).await.stamp;
        self.ok(self.store.intend(&self.intent(&row, SHORT)).await);
        let announced = self.look(&list).await.stamp;
        assert_ne!(
            announced, before,
            "{}: announcing replaces generations",
            self.name
        );
        self.until_pruned(&row).await;
        self.until_pruned(&list).await;
        assert_ne!(
            self.look(&list).await.stamp,
            announced,
            "{}: and so does the end of an intent",
            self.name
        );
        self.stored(&row, "after").await;
    }

    async fn a_renewed_intent_changes_nothing_else(&self) {
        let (row, list) = (self.entity(), self.probe("users:list", EntryKind::Derived));
        let intent = self.intent(&row, SHORT);
        self.ok(self.store.intend(&intent).await);
        let stamp = self.look(&list).await.stamp;
        let longer = Intent {
            length: LONG,
            ..intent.clone()
        };
        self.ok(self.store.renew_intent(&longer).await);
        assert_eq!(self.look(&list).await.stamp, stamp, "{}", self.name);
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
        let stamp = self.look(&list).await.stamp;
        self.ok(self.store.renew_intent(&longer).await);
        assert!(
            self.is_intended(&row).await && self.is_intended(&list).await,
            "{}",
            self.name
        );
        assert_ne!(self.look(&list).await.stamp, stamp, "{}", self.name);
        self.withdraw(&intent).await;
        assert!(self.is_gone(&row).await, "{}", self.name);
    }

    async fn an_invalidation_of_a_namespace_spares_others(&self) {
        let stranger = Case {
            store: self.store,
            name: self.name,
            namespace: format!("x{}", self.namespace),
        };
        let (own, strange) = (self.entity(), stranger.entity());
        self.stored(&own, "own").await;
        stranger.stored(&strange, "strange").await;
        let (before, strange_before) = (
            self.look(&own).await.stamp,
            stranger.look(&strange).await.stamp,
        );
        let at = self.ok(self.store.invalidate_namespace(&self.namespace).await);
        assert!(at >= self.header(&own).await.stored, "{}", self.name);
        assert_ne!(self.look(&own).await.stamp, before, "{}", self.name);
        assert_eq!(
            stranger.look(&strange).await.stamp,
            strange_before,
            "{}",
            self.name
        );
        assert!(!stranger.is_gone(&strange).await, "{}", self.name);
    }
}

fn text(payload: &Payload) -> Option<String> {
    match payload {
        Payload::Empty => None,
        Payload::Encoded(bytes) => String::from_utf8(bytes.to_vec()).ok(),
        Payload::Decoded(value) => {
            let value: &dyn Any = &**value;
            value.downcast_ref::<String>().cloned()
        }
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_memory_store_keeps_the_contract() {
        super::check_store(&crate::store::MemoryStore::new(1 << 20)).await;
    }
}
