//! Why a call must not be answered from the cache. Each kind of read goes through the reasons in
//! this order, so that a cause has the same `detail` in all of them.

use super::Call;
use crate::base::mutation;
use crate::call::observe::BypassReason;
use crate::call::scope::{self, Mode};
use crate::call::{enclosing, transaction};

impl Call {
    /// The first reason of all, if there is one.
    pub(super) fn bypass_reason(&self) -> Option<BypassReason> {
        self.barred_by_caller()
            .or_else(|| self.barred_from_asking())
    }

    /// The same for one of many ids, where the scope is asked for once for all of them.
    pub(super) fn bypass_reason_of_entry(&self) -> Option<BypassReason> {
        self.barred_by_body().or_else(|| self.barred_from_asking())
    }

    /// Why the code around the call forbids it.
    pub(super) fn barred_by_caller(&self) -> Option<BypassReason> {
        if mutation::is_active("scopes-hide-own-writes") {
            return self.barred_by_scope().or_else(|| self.barred_by_body());
        }
        self.barred_by_body().or_else(|| self.barred_by_scope())
    }

    /// Why a body that is being run around the call forbids it. Has to be asked first: a load inside
    /// a write learns by this that its value contains what the write may still undo.
    pub(crate) fn barred_by_body(&self) -> Option<BypassReason> {
        enclosing::bars(&self.cache, self.entry_ref())
    }

    /// Why a transaction or a mode around the call forbids it.
    pub(super) fn barred_by_scope(&self) -> Option<BypassReason> {
        // Data that is read in an open transaction may never be committed.
        if transaction::is_open(&self.cache) && !mutation::is_active("reads-cached-in-transactions")
        {
            return Some(BypassReason::Transaction);
        }
        match scope::mode() {
            Mode::Bypass => Some(BypassReason::Requested),
            Mode::Usual | Mode::Refresh => None,
        }
    }

    /// Why the store must not be asked for the entry now.
    #[inline]
    pub(crate) fn barred_from_asking(&self) -> Option<BypassReason> {
        if self.problem.is_some() {
            return self.problem;
        }
        if self.cache.is_closed() {
            return Some(BypassReason::Unavailable);
        }
        if let Some(reason) = self.is_behind() {
            return Some(reason);
        }
        let is_pending = self.cache.invalidations.is_pending(self.entry_ref());
        is_pending.then_some(BypassReason::Pending)
    }
}
