//! The local entries of a call: the one that answers it, and the one made from the store's answer.

use std::any::{Any, TypeId};
use std::sync::Arc;
use std::time::Duration;

use super::super::Call;
use super::super::call::{restore, value_of};
use super::super::hit::Hit;
use super::super::timing;
use super::local_lookup::ExpectedValue;
use crate::base::clock;
use crate::call::observe::Status;
use crate::call::returns::Returns;
use crate::local::{AnyValue, NewLocalEntry, ReadToken};
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec;
use crate::protocol::entry::Content;
use crate::protocol::fingerprint::Fingerprint;
use crate::store::Payload;

impl Call {
    /// Returns the local entry for one id of a batch, and how long it is fresh. Does not record the
    /// hit.
    pub(crate) fn find<V: Cacheable>(&self) -> Option<(Option<Arc<V>>, Duration)> {
        let wanted = ExpectedValue {
            type_id: TypeId::of::<V>(),
            fingerprint: Fingerprint::of::<V>,
            absence: true,
        };
        let (value, ttl) = match timing::is_drawn() {
            false => self.find_now(&wanted),
            true => self.find_timed(&wanted),
        }?;
        match value {
            Some(value) => Some((Some(value.downcast().ok()?), ttl)),
            None => Some((None, ttl)),
        }
    }

    fn find_now(&self, wanted: &ExpectedValue) -> Option<(Option<AnyValue>, Duration)> {
        self.lookup().find(self.cache.local.as_ref()?, wanted)
    }

    #[cold]
    fn find_timed(&self, wanted: &ExpectedValue) -> Option<(Option<AnyValue>, Duration)> {
        let (found, nanos) = clock::timed(|| self.find_now(wanted));
        if found.is_some()
            && let Some(function) = self.resource.function()
        {
            function.local_lookup.record(nanos);
        }
        found
    }

    /// Returns the flags to take before the store is asked, if the answer may become a local entry.
    pub(crate) fn read_token(&self) -> Option<ReadToken> {
        let local = self.cache.local.as_ref()?;
        let keeps = self.local_options.kept && !self.local_options.strict && self.problem.is_none();
        keeps.then(|| local.read_token(self.entry_ref())).flatten()
    }

    /// Serves the store's answer, and stores it as a local entry.
    pub(crate) fn serve_and_keep<R: Returns<S>, S>(
        &self,
        hit: &Hit,
        read_token: Option<ReadToken>,
    ) -> Option<R> {
        let returned = match (hit.content, read_token) {
            (Content::Value, Some(read_token)) => {
                let value = value_of::<R::Value>(hit.codec, &hit.payload)?;
                self.keep(hit, Some(&value), Some(read_token));
                R::from_value(value)
            }
            (content, read_token) => {
                let returned = restore(content, hit.codec, &hit.payload)?;
                self.keep::<R::Value>(hit, None, read_token);
                returned
            }
        };
        self.answered(Status::Hit { ttl: hit.ttl });
        Some(returned)
    }

    /// Stores the store's answer as a local entry, if flags were taken before the read.
    pub(crate) fn keep<V: Cacheable>(
        &self,
        hit: &Hit,
        value: Option<&Arc<V>>,
        read_token: Option<ReadToken>,
    ) {
        let (Some(local), Some(read_token)) = (&self.cache.local, read_token) else {
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
                value: value.map(|value| Arc::clone(value) as Arc<dyn Any + Send + Sync>),
                type_id: TypeId::of::<V>(),
                version: self.version,
                extras: self.extras.as_slice().into(),
                ttl: hit.ttl,
                local_ttl: self.local_options.ttl.min(hit.ttl.saturating_sub(early)),
                encoded: match &hit.payload {
                    Payload::Encoded(bytes) => codec::length(hit.codec, bytes),
                    Payload::Empty | Payload::Decoded(_) => 0,
                },
                stamp: None,
            },
        );
    }
}
