//! The local entries of a call: the one that answers it, and the one made from the store's answer.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use super::super::Call;
use super::super::hit::Hit;
use crate::local::{AnyValue, NewLocalEntry, ReadToken};
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec;
use crate::store::Payload;

impl Call {
    /// Returns the local entry for one id of a batch, and how long it is fresh. Does not record the
    /// hit.
    pub(crate) fn find<V: Cacheable>(&self) -> Option<(Option<Arc<V>>, Duration)> {
        match self.find_any(TypeId::of::<V>())? {
            (Some(value), ttl) => Some((Some(value.downcast().ok()?), ttl)),
            (None, ttl) => Some((None, ttl)),
        }
    }

    /// The same for values of this type.
    pub(in super::super) fn find_any(
        &self,
        type_id: TypeId,
    ) -> Option<(Option<AnyValue>, Duration)> {
        let local = self.cache.local.as_ref()?;
        let lookup = self.lookup();
        lookup.timed(|| lookup.find(local, type_id, true))
    }

    /// Returns the flags to take before the store is asked, if the answer may become a local entry.
    pub(crate) fn read_token(&self) -> Option<ReadToken> {
        let local = self.cache.local.as_ref()?;
        let keeps = self.local_options.kept && !self.local_options.strict && self.problem.is_none();
        keeps.then(|| local.read_token(self.entry_ref())).flatten()
    }

    /// Stores the store's answer as a local entry. The flags were taken before the read.
    pub(crate) fn keep(
        &self,
        hit: &Hit,
        type_id: TypeId,
        value: Option<AnyValue>,
        read_token: ReadToken,
    ) {
        let Some(local) = &self.cache.local else {
            return;
        };
        // The holder of the lease is about to replace the entry.
        if !hit.past.is_zero() || hit.header.is_leased() {
            return;
        }
        // Near its end, one of many callers loads a new value. That is decided in the lookup loop.
        let early = self.stale_policy.early_refresh_window(hit.header.took());
        local.keep(
            read_token,
            NewLocalEntry {
                value,
                type_id,
                version: self.version,
                extras: self.extras.as_slice().into(),
                ttl: hit.ttl,
                local_ttl: self.local_options.ttl.min(hit.ttl.saturating_sub(early)),
                encoded: match &hit.payload {
                    Payload::Encoded(bytes) => codec::length(hit.header.codec, bytes),
                    Payload::Empty | Payload::Decoded(_) => 0,
                },
                stamp: None,
            },
        );
    }
}
