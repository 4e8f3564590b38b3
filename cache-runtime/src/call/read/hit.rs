//! An entry that may be served.

use std::time::Duration;

use crate::base::clock::Millis;
use crate::protocol::codec_id::CodecId;
use crate::protocol::entry::{Content, Header};
use crate::protocol::fingerprint::Fingerprint;
use crate::store::{Found, LookupReply, Payload};

/// An entry that may be served. It is boxed when it is made, since it passes through several
/// functions.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) header: Header,
    pub(crate) content: Content,
    pub(crate) codec: CodecId,
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
            content: header.content.plain(),
            codec: header.codec,
            payload,
            ttl: header.left(now),
            past: now.since(header.fresh),
        })
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
