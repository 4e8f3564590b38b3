//! The report: pieces of advice by kind, each with its fix.

use std::fmt;

/// One thing that should be changed. Prints as one plain line that names the setting and the fix,
/// and never contains a password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// The kind of advice, for code that acts on it.
    pub kind: DiagnosticKind,
    /// The fault, and the fix.
    pub text: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The subject of a [`Diagnostic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DiagnosticKind {
    /// Redis can't be reached, or refuses the login.
    Unreachable,
    /// The host name of Redis resolves to several servers.
    SeveralServers,
    /// Redis is older than 6.2.
    OldServer,
    /// The server lacks a capability of Redis, so that a part of the cache is off.
    MissingCapability,
    /// Redis is on another machine and asks for no password.
    NoPassword,
    /// The user lacks permissions that the cache needs.
    Permissions,
    /// The outbox of the database is not read, or holds what could not be.
    Outbox,
    /// Another program stores values under the cache's keys.
    Foreign,
    /// Redis would evict the intents of `crash_safe` writes first.
    EvictsIntents,
    /// Redis has no memory limit.
    NoMemoryLimit,
    /// Redis stores nothing new once its memory is full.
    NoEviction,
    /// The store can't do what Redis can; there is nothing to mend but to know of it.
    StoreLimit,
    /// A value is kept for a day or longer, and no function invalidates it.
    LongTtl,
    /// A function invalidates an `op` of a resource, and no function has it.
    NoSuchOp,
}

impl DiagnosticKind {
    /// The name of the kind, as used in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::SeveralServers => "several_servers",
            Self::OldServer => "old_server",
            Self::MissingCapability => "missing_capability",
            Self::NoPassword => "no_password",
            Self::Permissions => "permissions",
            Self::Outbox => "outbox",
            Self::Foreign => "foreign",
            Self::EvictsIntents => "evicts_intents",
            Self::NoMemoryLimit => "no_memory_limit",
            Self::NoEviction => "no_eviction",
            Self::StoreLimit => "store_limit",
            Self::LongTtl => "long_ttl",
            Self::NoSuchOp => "no_such_op",
        }
    }

    /// Returns true if ignoring the advice costs only memory or freshness, which the operator may
    /// accept.
    pub(super) fn is_a_hint(self) -> bool {
        matches!(
            self,
            Self::NoMemoryLimit | Self::NoEviction | Self::StoreLimit | Self::LongTtl
        )
    }
}

/// The result of [`Cache::doctor`](crate::Cache::doctor). Prints the advice line by line, then
/// what was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DoctorReport {
    /// The changes to make. Empty if all is well.
    pub advice: Vec<Diagnostic>,
    /// The parts that were checked.
    pub checked: Vec<String>,
    /// The parts that could not be checked, and why.
    pub not_checked: Vec<String>,
}

impl DoctorReport {
    /// The report for a cache that is off.
    pub(crate) fn of_nothing() -> Self {
        Self {
            not_checked: vec!["anything, because the cache is off".into()],
            ..Self::default()
        }
    }

    pub(super) fn advise(&mut self, kind: DiagnosticKind, text: String) {
        self.advice.push(Diagnostic { kind, text });
    }
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for advice in &self.advice {
            writeln!(f, "{advice}")?;
        }
        for (what, names) in [
            ("Checked: ", &self.checked),
            ("Not checked: ", &self.not_checked),
        ] {
            if !names.is_empty() {
                writeln!(f, "{what}{}.", names.join(", "))?;
            }
        }
        Ok(())
    }
}
