//! A caller that loads without a lease passes through the load gate of its key.

use super::LookupLoop;
use super::decisions::UnleasedRole;
use crate::base::mutation;
use crate::call::enclosing;
use crate::call::observe::BypassReason;
use crate::coalesce::load_gate::{self, GateResult, GateRole};
use crate::coalesce::single_flight::LoadResult;
use crate::coalesce::waits::WaitDecision;
use crate::telemetry::function::Waiting;

impl LookupLoop<'_> {
    /// Enters the load gate, for callers that load without a lease.
    pub(crate) async fn queue(&mut self, reason: BypassReason) -> UnleasedRole {
        // The readers that wait for this one should enter the gate too.
        if !mutation::is_active("poller-keeps-who-waits-in-an-outage") {
            self.stops_polling();
        }
        let mut limit = match reason {
            BypassReason::Unavailable
            | BypassReason::Fenced
            | BypassReason::Unconfirmed
            | BypassReason::Full
            | BypassReason::Pending => load_gate::WITHOUT_STORE,
            BypassReason::LoadFailed => load_gate::AFTER_FAILURE,
            _ => return UnleasedRole::Alone,
        };
        let call = self.call;
        loop {
            let load_gates = &call.cache.load_gates;
            let waiting = match load_gates.enter(&call.own.key, self.fingerprint, limit) {
                GateRole::Lead(run) => return UnleasedRole::Run(run),
                GateRole::Wait(waiting) => waiting,
            };
            let WaitDecision::Fine(_noted) = enclosing::wait(&call.cache, &call.own.key) else {
                return UnleasedRole::Alone;
            };
            let _counted = Waiting::new(call.resource.function());
            match waiting.wait(self.deadline()).await {
                GateResult::Lead(run) => return UnleasedRole::Run(run),
                GateResult::LoadResult(LoadResult::Failure) => limit = load_gate::AFTER_FAILURE,
                GateResult::LoadResult(load_result) => return UnleasedRole::Joined(load_result),
                GateResult::Gone => {}
                GateResult::TimedOut => return UnleasedRole::Alone,
            }
        }
    }
}
