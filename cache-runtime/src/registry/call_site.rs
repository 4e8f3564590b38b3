//! Call sites: the place of an annotated function, and its description.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;

use super::instance::Instance;
use crate::protocol::codec::Refusal;

/// The place of an annotated function, and its description. There is one static per function, which
/// all its instantiations share.
#[derive(Debug)]
pub struct CallSite {
    function: &'static str,
    #[cfg_attr(
        not(feature = "map"),
        expect(dead_code, reason = "only the catalog reads it")
    )]
    role: Role,
    #[cfg_attr(
        not(feature = "map"),
        expect(dead_code, reason = "only the catalog reads it")
    )]
    description: &'static str,
    place: &'static Location<'static>,
    /// The name of a closure's type that stands in the function's static, where no type parameter
    /// is known.
    pub(super) declared: Option<fn() -> &'static str>,
    /// The kinds of mistakes that were logged, one bit for each.
    reported: AtomicU32,
    /// Why a value of the function was not stored: its codec would have lost a part of it. The
    /// first such reason.
    lost: OnceLock<String>,
    /// The first part of an argument that its `Serialize` leaves out.
    left_out: OnceLock<String>,
    /// Whether an option about `None` has no effect, because the return type has none.
    has_no_none: AtomicBool,
}

impl CallSite {
    /// A call site at the caller's source location.
    #[track_caller]
    pub(super) const fn new(role: Role, function: &'static str, description: &'static str) -> Self {
        Self {
            function,
            role,
            description,
            place: Location::caller(),
            declared: None,
            reported: AtomicU32::new(0),
            lost: OnceLock::new(),
            left_out: OnceLock::new(),
            has_no_none: AtomicBool::new(false),
        }
    }

    /// The type or trait that this instance of the function belongs to, if other instances may
    /// exist.
    pub(super) fn instance_of(&self, instance: Instance) -> Option<&'static str> {
        instance.of((self.declared?)())
    }

    pub(crate) fn function(&self) -> &'static str {
        self.function
    }

    /// Logs a mistake of the function, each kind once.
    pub(crate) fn report(&self, mistake: Mistake, text: impl FnOnce() -> String) {
        let bit = mistake.bit();
        if self.reported.load(Ordering::Relaxed) & bit == 0
            && self.reported.fetch_or(bit, Ordering::Relaxed) & bit == 0
        {
            let mistake = mistake.as_str();
            tracing::error!(function = self.function, mistake, "{}", text());
        }
    }

    /// Logs once that the `Serialize` of an argument leaves out a part that distinguishes calls.
    #[cold]
    pub(crate) fn report_left_out(&self, text: &str, is_bypassed: bool) {
        if self.left_out.set(text.to_owned()).is_ok() {
            let remedy = match is_bypassed {
                true => "derive `Debug` for it, or list what tells calls apart with `key(..)`",
                false => "list what tells calls apart with `key(..)`",
            };
            tracing::warn!(
                function = %self,
                bypassed = is_bypassed,
                left_out = text,
                remedy,
                "an argument is not told apart by its key"
            );
        }
    }

    /// Logs once that an option about `None` has no effect, because the return type has none.
    #[cold]
    pub(crate) fn report_no_none(&self) {
        if !self.has_no_none.load(Ordering::Relaxed)
            && !self.has_no_none.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                function = %self,
                remedy = "return an `Option`, or leave the option out",
                "`none_ttl` and `cache_none` have no effect on a function that never returns `None`"
            );
        }
    }

    /// Its address, which identifies the function in this process.
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Compares addresses: one macro invocation may define two functions on the same line.
    pub(super) fn is(&'static self, other: &'static Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// The kinds of mistakes of an annotated function that show only while the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Another function has the keys.
    KeyConflict,
    /// Another function gives ids of another type for the resource.
    IdType,
    /// The name of the function's own resource is none.
    ResourceName,
    /// The name of a resource that it depends on is none.
    DependencyName,
    /// A key is too long.
    KeyTooLong,
    /// A value that the key needs is not set around the call.
    ContextNotSet,
    /// The result depends on a value that is set around the call and is not in the key.
    ContextNotInKey,
    /// It is `in_process`, and there is no local tier.
    NoLocalTier,
    /// It is not `async`, and the store is Redis.
    NotAsync,
    /// It is `after_commit`, and ran outside such a block.
    OutsideAfterCommit,
}

impl Mistake {
    /// Its name in the log, in the field `mistake`.
    fn as_str(self) -> &'static str {
        match self {
            Self::KeyConflict => "key-conflict",
            Self::IdType => "id-type",
            Self::ResourceName => "resource-name",
            Self::DependencyName => "dependency-name",
            Self::KeyTooLong => "key-too-long",
            Self::ContextNotSet => "context-not-set",
            Self::ContextNotInKey => "context-not-in-key",
            Self::NoLocalTier => "no-local-tier",
            Self::NotAsync => "not-async",
            Self::OutsideAfterCommit => "outside-after-commit",
        }
    }

    /// Its bit in a set.
    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Whether an annotated function reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Reads,
    Writes,
}

pub(super) fn address(site: Option<&'static CallSite>) -> usize {
    site.map_or(0, CallSite::address)
}

/// Logs why a value is not stored, once per function and type.
pub(crate) fn report_loss(
    site: Option<&'static CallSite>,
    resource: &str,
    type_id: TypeId,
    refusal: &Refusal,
) {
    static REPORTED: Mutex<BTreeSet<(usize, TypeId)>> = Mutex::new(BTreeSet::new());

    if !REPORTED.lock().insert((address(site), type_id)) {
        return;
    }
    let function = site.map_or_else(|| "a manual operation".to_owned(), CallSite::to_string);
    if let Some(site) = site {
        let _ = site.lost.set(refusal.to_string());
    }
    tracing::warn!(
        resource,
        function,
        field = refusal.place(),
        reason = refusal.reason,
        remedy = refusal.remedy,
        "a value is not stored, since it would come back changed, or not at all"
    );
}

/// Only the catalog uses these.
#[cfg(feature = "map")]
impl CallSite {
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn description(&self) -> &'static str {
        self.description
    }

    pub(crate) fn place(&self) -> &'static Location<'static> {
        self.place
    }

    /// The part of an argument that its `Serialize` leaves out.
    pub(crate) fn left_out(&self) -> Option<&str> {
        self.left_out.get().map(String::as_str)
    }

    /// Whether an option about `None` has no effect, as far as is known.
    pub(crate) fn has_no_none(&self) -> bool {
        self.has_no_none.load(Ordering::Relaxed)
    }

    /// Why a value was not stored: its codec would have lost a part of it.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }
}

impl std::fmt::Display for CallSite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, line) = (self.place.file(), self.place.line());
        write!(f, "`{}` ({file}:{line})", self.function)
    }
}
