//! Decides about a lease that a lookup has found: wait for it, poll, or replace it.

use super::LookupLoop;
use super::decisions::LeaseDecision;
use super::poller::RemoteLoadPoller;
use crate::base::clock::Millis;
use crate::base::mutation;
use crate::base::nonce::Nonce;
use crate::call::enclosing;
use crate::call::observe::BypassReason;
use crate::coalesce::single_flight::{FlightRole, Waiter};
use crate::coalesce::waits::WaitDecision;
use crate::protocol::entry::{Header, Stamp};
use crate::store::Expected;

impl LookupLoop<'_> {
    pub(super) fn on_lease(&mut self, lease: Header, stamp: Stamp, now: Millis) -> LeaseDecision {
        if lease.stamp != stamp && !mutation::is_active("joined-by-key") {
            // The lease is dead, unless it was taken between the reads of the generations and of
            // the entry.
            if self.suspect == Some(lease.token) {
                return LeaseDecision::GivesWay(Expected::Entry(lease));
            }
            // A different lease each time, for example because loads keep being refused and
            // invalidated.
            if self.suspect.replace(lease.token).is_some() && self.is_late() {
                return LeaseDecision::Bypass(BypassReason::WaitLimit);
            }
            return LeaseDecision::LookAgain;
        }
        if lease.fingerprint != self.fingerprint {
            return LeaseDecision::Bypass(BypassReason::OtherType);
        }
        if self.polls(lease.token) {
            return self.gives_way(lease, now).unwrap_or(LeaseDecision::Polls);
        }
        self.poller = None;
        if let Some(waiter) = self.call.cache.single_flight.join(lease.token) {
            return self.joins(waiter);
        }
        if let Some(met) = self.gives_way(lease, now) {
            return met;
        }
        match self.call.cache.single_flight.follow(lease.token) {
            FlightRole::Waiter(waiter) => self.joins(waiter),
            FlightRole::Leader(leader) => {
                self.poller = Some(Box::new(RemoteLoadPoller {
                    leader,
                    stamp,
                    word: None,
                    was_told: false,
                }));
                LeaseDecision::Polls
            }
        }
    }

    fn joins(&self, waiter: Waiter) -> LeaseDecision {
        match enclosing::wait(&self.call.cache, &self.call.own.key) {
            WaitDecision::Fine(noted) => LeaseDecision::Joins(waiter, noted),
            WaitDecision::Cycle => LeaseDecision::Bypass(BypassReason::OwnLoad),
        }
    }

    fn polls(&self, token: Nonce) -> bool {
        let poller = self.poller.as_ref();
        poller.is_some_and(|poller| poller.leader.token() == token)
    }

    /// Decides about a lease that should not be waited for. `None` if it should.
    fn gives_way(&mut self, lease: Header, now: Millis) -> Option<LeaseDecision> {
        if !lease.is_held(now, self.call.cache.config.lease) {
            return Some(LeaseDecision::GivesWay(Expected::Leased));
        }
        if self.call.cache.single_flight.is_given_up(lease.token) {
            return Some(LeaseDecision::GivesWay(Expected::Past(lease)));
        }
        self.is_late()
            .then_some(LeaseDecision::Bypass(BypassReason::WaitLimit))
    }
}
