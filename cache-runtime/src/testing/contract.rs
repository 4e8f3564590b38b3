//! The contract that every store has to meet.

mod intents;
mod leases;
mod many;
mod patterns;

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
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

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
            tokio::time::timeout(TEST_TIMEOUT, gone).await.is_ok(),
            "{}: it never left",
            self.name
        );
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
