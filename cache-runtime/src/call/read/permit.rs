//! The right to load an entry: held, renewed, and used or given back.

use std::time::Duration;

use super::Call;
use super::dependencies::known::{Verified, with_list};
use super::new_entry::NewEntry;
use crate::base::call_budget::CallBudget;
use crate::base::clock::{self, Instant};
use crate::base::mutation;
use crate::base::nonce::Nonce;
use crate::base::policy;
use crate::call::keep_alive::Renewal;
use crate::coalesce::maintenance::MaintenanceJob;
use crate::coalesce::single_flight::Leader;
use crate::engine::Handle;
use crate::protocol::codec_id::CodecId;
use crate::protocol::entry::{Content, Stamp};
use crate::protocol::fingerprint::Fingerprint;
use crate::store::{Expected, Fill, Filled, LeaseReply, LeaseRequest, Payload, Representation};

/// The right and the duty to load: a lease in the store, and a single-flight load in the process.
///
/// Dropping it without a fill gives the lease back and wakes the waiters.
#[derive(Debug)]
pub(crate) struct Permit {
    cache: Handle,
    key: String,
    token: Nonce,
    stamp: Stamp,
    fingerprint: Fingerprint,
    pub(super) leader: Leader,
    /// How much of the call's budget is left for the store.
    pub(super) call_budget: CallBudget,
    /// When the load began.
    began: Instant,
    held: bool,
    /// Whether the lease may keep an older value, as one that has expired and may still be served.
    keeps_older: bool,
}

impl Permit {
    pub(crate) fn new(call: &Call, stamp: Stamp, fingerprint: Fingerprint) -> Self {
        let token = Nonce::fresh();
        Self {
            cache: call.cache.clone(),
            key: call.own.key.clone(),
            token,
            stamp,
            fingerprint,
            // Registered before the lease is requested, because a reader that meets the lease must
            // find this load.
            leader: call.cache.single_flight.start(token),
            call_budget: CallBudget::new(call.cache.config.command_budget),
            began: clock::now(),
            held: true,
            keeps_older: false,
        }
    }

    /// The body is about to run.
    pub(super) fn begins(&mut self) {
        self.began = clock::now();
    }

    /// The stamp of the generations before the load.
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Returns the key and the token of the lease.
    pub(super) fn lease(&self) -> (String, Nonce) {
        (self.key.clone(), self.token)
    }

    /// Returns the token of the lease.
    pub(super) fn token(&self) -> Nonce {
        self.token
    }

    /// Requests the lease within the call's budget.
    pub(super) async fn take_within(
        &mut self,
        call: &Call,
        expected: Expected,
    ) -> Result<LeaseReply, crate::Error> {
        let mut call_budget = self.call_budget;
        let reply = call_budget.spend(self.take(call, expected)).await;
        self.call_budget = call_budget;
        reply
    }

    pub(crate) async fn take(
        &mut self,
        call: &Call,
        expected: Expected,
    ) -> Result<LeaseReply, crate::Error> {
        let request = self.request(expected);
        self.cache.store.lease(call.entry_ref(), &request).await
    }

    pub(super) fn request(&mut self, expected: Expected) -> LeaseRequest {
        self.keeps_older = expected.keeps().is_some();
        LeaseRequest {
            expected,
            token: self.token,
            stamp: self.stamp,
            fingerprint: self.fingerprint,
            length: self.cache.config.lease,
        }
    }

    /// Drops the permit without giving a lease back, because none is held.
    pub(crate) fn forget(mut self) {
        self.held = false;
    }

    /// Returns the job that renews the lease while the body runs.
    pub(super) fn renewal(&self) -> Renewal {
        let length = self.cache.config.lease;
        let job = MaintenanceJob::Renew {
            key: self.key.clone(),
            token: self.token,
            length,
        };
        Renewal::new(&self.cache, length, job)
    }

    /// Stores the value. Returns `None` if the store failed.
    pub(crate) async fn fill(self, call: &Call, new_entry: NewEntry) -> Option<Filled> {
        self.fill_verified(call, new_entry, None).await
    }

    /// The same for a load that has named new dependencies, with the stamp over them.
    pub(super) async fn fill_verified(
        mut self,
        call: &Call,
        new_entry: NewEntry,
        verified: Option<Verified>,
    ) -> Option<Filled> {
        let mut fill = self.to_fill(call, new_entry, verified.as_ref());
        let entry_ref = verified
            .as_ref()
            .map_or(call.entry_ref(), Verified::entry_ref);
        if mutation::is_active("stamp-read-at-fill")
            && let Ok(lookup) = self.cache.store.lookup(entry_ref).await
        {
            fill.stamp = lookup.stamp;
        }
        // A shutdown waits for the fill.
        let _running = call.cache.invalidations.begin();
        let (size, began) = (fill.size, clock::now());
        let filling = call.cache.store.fill(entry_ref, fill);
        let filled = self.call_budget.spend(filling).await;
        call.filled_for(began.elapsed(), size, &filled);
        match filled {
            Ok(filled) => {
                self.filled(call, filled);
                Some(filled)
            }
            Err(error) => {
                call.resource.counters.errors.add_one();
                tracing::debug!(key = call.own.key, %error, "a value was not stored");
                None
            }
        }
    }

    pub(super) fn to_fill(
        &self,
        call: &Call,
        new_entry: NewEntry,
        verified: Option<&Verified>,
    ) -> Fill {
        let (stamp, list) = match verified {
            Some(verified) => (verified.stamp, Some(verified.list())),
            None => (self.stamp, call.list()),
        };
        let list = list.filter(|list| !list.is_empty());
        let (mut payload, mut size) = (new_entry.payload, new_entry.size);
        let lists = list.is_some() && call.cache.store.representation() == Representation::Encoded;
        if let (true, Some(list)) = (lists, list) {
            let bytes = match &payload {
                Payload::Encoded(bytes) => &**bytes,
                // For readers with `redis-cli`: an absence is shown as null.
                Payload::Empty | Payload::Decoded(_) => b"null",
            };
            let with_list = with_list(list, bytes);
            size += with_list.len() - bytes.len();
            payload = Payload::Encoded(with_list.into());
        }
        Fill {
            token: self.token,
            stamp,
            fingerprint: self.fingerprint,
            content: match lists {
                true => new_entry.content.listed(),
                false => new_entry.content,
            },
            payload,
            codec: new_entry.codec,
            size,
            fresh_for: new_entry.fresh_for,
            stale_for: new_entry.stale_for,
            took: self.began.elapsed(),
            generation_ttl: policy::generation_ttl(new_entry.fresh_for + new_entry.stale_for),
        }
    }

    /// Ends the older value that the lease keeps, since the load has returned another one, which is
    /// not stored: otherwise later callers would get the older one again.
    pub(super) async fn end_older(mut self, call: &Call) {
        if !self.keeps_older || mutation::is_active("older-values-outlive-a-load") {
            return;
        }
        let fill = Fill {
            token: self.token,
            stamp: self.stamp,
            fingerprint: self.fingerprint,
            content: Content::Nothing,
            payload: Payload::Empty,
            codec: CodecId::default(),
            size: 0,
            fresh_for: Duration::ZERO,
            // For a store that keeps it like a value, until its time is over.
            stale_for: Duration::from_millis(1),
            took: Duration::ZERO,
            generation_ttl: Duration::ZERO,
        };
        let ending = self.cache.store.fill(call.entry_ref(), fill);
        match self.call_budget.spend(ending).await {
            Ok(_) => self.forget(),
            Err(error) => {
                call.resource.counters.errors.add_one();
                tracing::debug!(key = call.own.key, %error, "an older value was not removed");
            }
        }
    }

    /// Handles the answer to a fill. The lease has ended, so there is nothing to give back.
    pub(super) fn filled(self, call: &Call, filled: Filled) {
        let counters = &call.resource.counters;
        match filled {
            Filled::Stored => counters.fills.add_one(),
            Filled::Refused => counters.fills_refused.add_one(),
        }
        self.forget();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held && !mutation::is_active("lease-not-released-on-drop") {
            let key = std::mem::take(&mut self.key);
            let token = self.token;
            let expires = clock::now() + self.cache.config.lease;
            self.cache.single_flight.give_up(token, expires);
            self.cache
                .maintenance
                .send(MaintenanceJob::Release { key, token });
        }
    }
}
