//! The options of one call, as its attribute says them.

use std::time::Duration;

use super::local::local_options::LocalOptions;
use crate::base::policy::{StalePolicy, TtlRequest};
use crate::call::observe::BypassReason;
use crate::key::EntryKind;
use crate::protocol::codec_id::CodecId;
use crate::registry::Instance;

/// The options of a function's attribute, and what follows from them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ReadOptions {
    pub(super) op: Option<&'static str>,
    pub(super) has_id: bool,
    pub(super) shared: bool,
    pub(super) problem: Option<BypassReason>,
    pub(super) ttl: TtlRequest,
    pub(super) stale_policy: StalePolicy,
    pub(super) local_options: LocalOptions,
    /// The share of hits that is audited.
    pub(super) audit: u32,
    pub(super) codec: CodecId,
    pub(super) version: u32,
    /// The limit on loads at a time; 0 for none.
    pub(super) max_loads: usize,
    /// Whether a request remembers the result.
    pub(super) memo: bool,
    /// A hash of the types that tell calls of this function apart.
    pub(super) types: u64,
    /// A hash of those that count like the type that the function belongs to.
    pub(super) instance_types: u32,
    /// Identifies the instance of the function, among those for different type parameters, of the
    /// function or its `impl`, and different types of `self`. `None` for manual operations.
    pub(super) instance: Option<Instance>,
    /// Whether one of the options may keep a hit from being answered by the thread alone: `strict`,
    /// `local`, `audit` or `memo`. It may also be set without need.
    pub(super) is_special: bool,
}

impl ReadOptions {
    /// Resets all options to the configured defaults. Resets fields in place; assigning a fresh
    /// struct would copy it on every hit.
    #[inline]
    pub(super) fn nothing(&mut self, usual: &StalePolicy, audit: u32) {
        self.op = None;
        self.has_id = false;
        self.shared = false;
        self.problem = None;
        self.ttl = TtlRequest::default();
        // These two need a body that can outlive its caller. Only the attribute can ask for that.
        self.stale_policy.swr = Duration::ZERO;
        self.stale_policy.timeout = None;
        self.stale_policy.stale_if_error = usual.stale_if_error;
        self.stale_policy.early = usual.early;
        self.stale_policy.jitter = usual.jitter;
        self.local_options = LocalOptions::default();
        self.audit = audit;
        self.is_special = audit != 0;
        self.codec = CodecId::default();
        self.version = 0;
        self.max_loads = 0;
        self.memo = false;
        self.types = 0;
        self.instance_types = 0;
        self.instance = None;
    }

    /// Resets the options that a plan adds to or may leave alone. The next plan of the same
    /// function sets the others again.
    #[inline]
    pub(super) fn again(&mut self) {
        self.op = None;
        self.has_id = false;
        self.problem = None;
        self.version = 0;
        self.types = 0;
        self.instance_types = 0;
    }

    #[inline]
    pub(super) fn kind(&self) -> EntryKind {
        match self.has_id && self.op.is_none() {
            true => EntryKind::Entity,
            false => EntryKind::Derived,
        }
    }
}
