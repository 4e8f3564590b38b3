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
    CodecId, Content, Dependency, EntryRef, Expected, Fill, Filled, Fingerprint, Found, Header,
    Intent, IntentRow, Invalidation, LeaseReply, LeaseRequest, LookupReply, Millis, Nonce, Payload,
    Representation, ScanFilter, Stamp, Store,
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
    case("delete").a_delete_removes_the_lease_too().await;
    case("rotate")
        .a_rotated_generation_changes_the_stamp()
        .await;
    case("compare").a_lease_replaces_only_what_was_seen().await;
    case("expired lease")
        .an_expired_lease_can_be_replaced()
        .await;
    case("renew").a_renewed_lease_does_not_expire().await;
    case("release").a_lease_is_given_back_by_its_holder().await;
    case("refresh")
        .a_lease_by_force_refuses_the_older_fill()
        .await;
    case("expired content")
        .expired_content_stays_under_a_lease()
        .await;
    case("expiry").an_entry_expires().await;
    case("notification").a_change_is_notified().await;
    if store.lists_keys() {
        case("sweep").a_sweep_removes_what_its_filter_names().await;
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
    case("ended intent").an_intent_may_end_at_once().await;
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
    fn entry_ref(&self, name: &str, kind: EntryKind) -> EntryRef {
        let dep = |name: &str| Dependency::new(format!("{}@gen:{name}", self.namespace));
        let deps = match kind {
            EntryKind::Entity => [dep("users")].into(),
            EntryKind::Derived => [dep("users"), dep("users~derived")].into(),
        };
        EntryRef {
            key: format!("{}{name}", self.namespace),
            kind,
            deps,
        }
    }

    fn entity(&self) -> EntryRef {
        self.entry_ref("users:1", EntryKind::Entity)
    }

    fn ok<T>(&self, result: Result<T, crate::Error>) -> T {
        result.unwrap_or_else(|error| panic!("{}: the store failed: {error}", self.name))
    }

    async fn lookup(&self, entry_ref: &EntryRef) -> LookupReply {
        let try_lookup = Cell::new(None);
        self.store
            .try_lookup(&entry_ref.key, &entry_ref.deps, &|header, payload, now| {
                try_lookup.set(Some((*header, text(payload), now)));
            });
        let lookup = self.ok(self.store.lookup(entry_ref).await);
        self.agree(try_lookup.take(), &lookup);
        lookup
    }

    /// `try_lookup` finds the same as `lookup`, or nothing.
    fn agree(&self, try_lookup: Option<(Header, Option<String>, Millis)>, lookup: &LookupReply) {
        /// An entry that ends between the two does not matter.
        const MOMENT: Duration = Duration::from_millis(20);

        let Some((header, shown, now)) = try_lookup else {
            return;
        };
        if header.fresh.since(now) > MOMENT {
            let is_there = matches!(
                &lookup.found,
                Found::Entry(there, payload) if *there == header && text(payload) == shown
            );
            assert!(
                is_there && header.stamp == lookup.stamp && lookup.intents_until.is_none(),
                "{}: {lookup:?}",
                self.name
            );
        }
    }

    /// The entry's text and header, if there is one.
    async fn read(&self, entry_ref: &EntryRef) -> Option<(Header, Option<String>)> {
        match self.lookup(entry_ref).await.found {
            Found::Nothing => None,
            Found::Foreign => panic!("{}: an entry was read as foreign", self.name),
            Found::Entry(header, payload) => Some((header, text(&payload))),
        }
    }

    async fn header(&self, entry_ref: &EntryRef) -> Header {
        self.read(entry_ref)
            .await
            .unwrap_or_else(|| panic!("{}: the entry is not there", self.name))
            .0
    }

    async fn lease(
        &self,
        entry_ref: &EntryRef,
        expected: Expected,
        length: Duration,
    ) -> (Nonce, LeaseReply) {
        let stamp = self.lookup(entry_ref).await.stamp;
        let token = Nonce::fresh();
        let request = LeaseRequest {
            expected,
            token,
            stamp,
            fingerprint: fingerprint(),
            length,
        };
        (token, self.ok(self.store.lease(entry_ref, &request).await))
    }

    async fn granted(&self, entry_ref: &EntryRef, expected: Expected, length: Duration) -> Nonce {
        let (token, reply) = self.lease(entry_ref, expected, length).await;
        assert_eq!(reply, LeaseReply::Granted, "{}", self.name);
        token
    }

    async fn fill(&self, entry_ref: &EntryRef, token: Nonce, value: &str, ttl: Duration) -> Filled {
        let stamp = self.lookup(entry_ref).await.stamp;
        self.fill_stamped(entry_ref, token, stamp, Some(value), ttl)
            .await
    }

    async fn fill_stamped(
        &self,
        entry_ref: &EntryRef,
        token: Nonce,
        stamp: Stamp,
        value: Option<&str>,
        ttl: Duration,
    ) -> Filled {
        self.fill_kept(entry_ref, token, stamp, value, (ttl, Duration::ZERO))
            .await
    }

    async fn fill_kept(
        &self,
        entry_ref: &EntryRef,
        token: Nonce,
        stamp: Stamp,
        value: Option<&str>,
        kept: (Duration, Duration),
    ) -> Filled {
        let fill = self.fill_with(token, stamp, value, kept);
        self.ok(self.store.fill(entry_ref, fill).await)
    }

    /// Removes what the lease has kept.
    async fn fill_nothing(&self, entry_ref: &EntryRef, token: Nonce) -> Filled {
        let stamp = self.lookup(entry_ref).await.stamp;
        let kept = (Duration::ZERO, Duration::from_millis(1));
        let fill = Fill {
            content: Content::Nothing,
            size: 0,
            ..self.fill_with(token, stamp, None, kept)
        };
        self.ok(self.store.fill(entry_ref, fill).await)
    }

    fn fill_with(
        &self,
        token: Nonce,
        stamp: Stamp,
        value: Option<&str>,
        (fresh_for, stale_for): (Duration, Duration),
    ) -> Fill {
        let payload = match (value, self.store.representation()) {
            (None, _) => Payload::Empty,
            (Some(value), Representation::Encoded) => Payload::Encoded(value.to_owned().into()),
            (Some(value), Representation::Decoded) => Payload::Decoded(Arc::new(value.to_owned())),
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

    async fn stored(&self, entry_ref: &EntryRef, value: &str) {
        let expected = match self.read(entry_ref).await {
            Some((header, _)) => Expected::Entry(header),
            None => Expected::Nothing,
        };
        let token = self.granted(entry_ref, expected, LONG).await;
        assert_eq!(
            self.fill(entry_ref, token, value, LONG).await,
            Filled::Stored,
            "{}",
            self.name
        );
    }

    async fn delete_entry(&self, entry_ref: &EntryRef) -> u64 {
        let invalidation = Invalidation {
            deletes: vec![entry_ref.key.clone()],
            ..Invalidation::default()
        };
        self.ok(self.store.invalidate(&invalidation).await).removed
    }

    async fn rotate(&self, dep: &str) -> Millis {
        let rotates = vec![Dependency::new(format!("{}@gen:{dep}", self.namespace))];
        self.ok(self
            .store
            .invalidate(&Invalidation {
                rotates,
                ..Invalidation::default()
            })
            .await)
            .at
    }

    async fn is_gone(&self, entry_ref: &EntryRef) -> bool {
        self.read(entry_ref).await.is_none()
    }

    async fn until_gone(&self, entry_ref: &EntryRef) {
        let gone = async {
            while !self.is_gone(entry_ref).await {
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
