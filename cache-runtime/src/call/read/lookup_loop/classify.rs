//! The state of an entry, as a lookup shows it.

use super::super::hit::{Fallback, Hit};
use super::LookupLoop;
use super::decisions::EntryState;
use crate::base::clock::Millis;
use crate::base::mutation;
use crate::base::nonce::random_fraction;
use crate::call::observe::BypassReason;
use crate::protocol::entry::{Header, Stamp};
use crate::store::{Expected, Found, LookupReply};

impl LookupLoop<'_> {
    /// Returns what a lookup means for this reader.
    pub(crate) fn classify(&mut self, lookup: LookupReply) -> EntryState {
        self.fallback = None;
        if lookup.intents_until.is_some() && !mutation::is_active("intents-not-seen") {
            return EntryState::Bypass(BypassReason::WriteInProgress);
        }
        let (header, payload) = match lookup.found {
            Found::Foreign => return EntryState::Bypass(BypassReason::Foreign),
            Found::Nothing => return EntryState::Vacant(Expected::Nothing),
            Found::Entry(header, payload) => (header, payload),
        };
        if !self.is_live(&header, lookup.stamp) || header.is_ahead_of(lookup.now) {
            if header.is_leased() {
                return EntryState::Leased(header);
            }
            if header.stamp != lookup.stamp {
                self.call.resource.counters.stale_rejected.add_one();
            }
            return EntryState::Vacant(Expected::Entry(header));
        }
        let hit = Hit::new(header, payload, lookup.now);
        if lookup.now < header.fresh && (header.is_leased() || !self.is_due_early(&hit)) {
            return EntryState::Hit(hit);
        }
        self.classify_due(hit, lookup.now)
    }

    /// Classifies an entry that was not invalidated, and for which a new value is to be loaded. It
    /// may be served meanwhile, or is kept for the case that the load fails or is slow.
    fn classify_due(&mut self, hit: Box<Hit>, now: Millis) -> EntryState {
        let stale_policy = &self.call.stale_policy;
        let (header, past) = (hit.header, hit.past);
        if now < header.fresh {
            self.fallback = Some(Box::new(Fallback {
                hit,
                covers_errors: true,
            }));
            return EntryState::Vacant(Expected::Past(header));
        }
        // The holder of the lease may have died.
        let is_loading = header.is_held(now, self.call.cache.config.lease);
        let expected = match header.is_leased() {
            true => Expected::Leased,
            false => Expected::Past(header),
        };
        if now < header.stale && past < stale_policy.swr {
            return EntryState::Past(hit, (!is_loading).then_some(expected));
        }
        if now < header.stale {
            self.fallback = Some(Box::new(Fallback {
                covers_errors: past < stale_policy.stale_if_error,
                hit,
            }));
        }
        if is_loading {
            EntryState::Leased(header)
        } else {
            EntryState::Vacant(expected)
        }
    }

    /// Whether this caller is to load a new value shortly before the entry expires.
    fn is_due_early(&self, hit: &Hit) -> bool {
        let stale_policy = &self.call.stale_policy;
        stale_policy.is_due_early(hit.ttl, hit.header.took(), random_fraction)
    }

    /// Returns true if the entry was not invalidated, is of the right type and did decode.
    fn is_live(&self, header: &Header, stamp: Stamp) -> bool {
        let (mut stamp, mut fingerprint) = (stamp, self.fingerprint);
        if mutation::is_active("stamp-not-compared") {
            stamp = header.stamp;
        }
        if mutation::is_active("type-not-compared") {
            fingerprint = header.fingerprint;
        }
        header.stays_under(stamp, fingerprint) && self.rejected.as_deref() != Some(header)
    }
}
