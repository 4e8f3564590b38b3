//! An entry that may be served.

use std::sync::Arc;
use std::time::Duration;

use super::call::value_of;
use crate::base::clock::Millis;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::entry::{Content, Header};
use crate::protocol::fingerprint::Fingerprint;
use crate::store::{Found, LookupReply, Payload};

/// An entry that may be served. It is boxed when it is made, since it passes through several
/// functions.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) header: Header,
    pub(crate) payload: Payload,
    /// How long it will still be served. Zero if it has expired.
    pub(crate) ttl: Duration,
    /// How long ago it expired.
    pub(crate) past: Duration,
}

impl Hit {
    #[inline]
    pub(super) fn new(header: Header, payload: Payload, now: Millis) -> Box<Self> {
        Box::new(Self {
            header,
            payload,
            ttl: header.left(now),
            past: now.since(header.fresh),
        })
    }

    /// Its value. `None` if that does not decode, or if it is an absence.
    pub(crate) fn value<V: Cacheable>(&self) -> Option<Arc<V>> {
        match self.is_absence() {
            true => None,
            false => value_of(self.header.codec, &self.payload),
        }
    }

    pub(super) fn is_absence(&self) -> bool {
        self.header.content.plain() == Content::Absence
    }

    /// Returns the entry of a lookup, if it may be served by a caller that only reads.
    #[inline]
    pub(crate) fn of(lookup: LookupReply, fingerprint: Fingerprint) -> Option<Box<Self>> {
        let Found::Entry(header, payload) = lookup.found else {
            return None;
        };
        let may_be_served = header.stays_under(lookup.stamp, fingerprint)
            && lookup.intents_until.is_none()
            && lookup.now < header.fresh
            && !header.is_ahead_of(lookup.now);
        may_be_served.then(|| Self::new(header, payload, lookup.now))
    }
}

/// An expired entry that is served if the load fails or is slow.
#[derive(Debug)]
pub(crate) struct Fallback {
    pub(crate) hit: Box<Hit>,
    /// Whether it may be served instead of an error.
    pub(crate) covers_errors: bool,
}
