//! What the diagnosis found: advice by kind, each with its fix.

use std::fmt;

/// One thing that had better be changed: prints as one plain line, which names the setting and the fix and never holds a
/// password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Advice {
    /// What kind of advice it is, for code that decides.
    pub kind: AdviceKind,
    /// What is wrong, and how to mend it.
    pub text: String,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What kind of thing an [`Advice`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AdviceKind {
    /// Redis can't be reached or logged in to.
    Unreachable,
    /// The name of Redis leads to several servers.
    SeveralServers,
    /// Redis is older than 6.2.
    OldServer,
    /// The server lacks a capability of Redis, so that a part of the cache is off.
    MissingCapability,
    /// Redis is on another machine and asks for no password.
    NoPassword,
    /// The user lacks permissions that the cache needs.
    Permissions,
    /// Another program keeps values under the cache's keys.
    Foreign,
    /// Redis would evict the announcements of `crash_safe` writes first.
    EvictsIntents,
    /// Redis has no memory limit.
    NoMemoryLimit,
    /// Redis stores nothing new once it is full.
    NoEviction,
    /// A value is kept for a day or longer, and nothing invalidates it.
    LongTtl,
}

impl AdviceKind {
    /// The kind's name as it stands in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::SeveralServers => "several_servers",
            Self::OldServer => "old_server",
            Self::MissingCapability => "missing_capability",
            Self::NoPassword => "no_password",
            Self::Permissions => "permissions",
            Self::Foreign => "foreign",
            Self::EvictsIntents => "evicts_intents",
            Self::NoMemoryLimit => "no_memory_limit",
            Self::NoEviction => "no_eviction",
            Self::LongTtl => "long_ttl",
        }
    }

    /// Whether it costs no more than memory or freshness that its operator may have meant to spend.
    pub(super) fn is_a_hint(self) -> bool {
        matches!(self, Self::NoMemoryLimit | Self::NoEviction | Self::LongTtl)
    }
}

/// What [`Cache::checkup`](crate::Cache::checkup) found. Prints as the advice line by line, then what was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkup {
    /// What had better be changed; nothing, where all is well.
    pub advice: Vec<Advice>,
    /// What was looked at.
    pub checked: Vec<String>,
    /// What could not be looked at, and why.
    pub not_checked: Vec<String>,
}

impl Checkup {
    /// Of a cache that is off.
    pub(crate) fn of_nothing() -> Self {
        Self {
            not_checked: vec!["anything, because the cache is off".into()],
            ..Self::default()
        }
    }

    pub(super) fn advise(&mut self, kind: AdviceKind, text: String) {
        self.advice.push(Advice { kind, text });
    }
}

impl fmt::Display for Checkup {
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
