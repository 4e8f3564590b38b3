//! The advisor: what operators forget, found at the start and named with its fix.
//!
//! It delays nothing and fails nothing: the store is asked in the background, once, and what is found is a line each in
//! the log.

#[cfg_attr(not(feature = "map"), path = "advisor/no_map.rs")]
mod program;
mod rules;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::CacheConfig;
use crate::engine::Engine;
use crate::store::{Circuit, Inquiry, Store};

/// How long after the start, or the last attempt, the store is asked. A program that starts has more urgent questions.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is asked, if it does not answer to the end.
const ATTEMPTS: u32 = 3;

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
    fn is_a_hint(self) -> bool {
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

    fn advise(&mut self, kind: AdviceKind, text: String) {
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

/// Asks the store, and goes through all rules.
pub(crate) async fn checkup(config: &CacheConfig, store: &dyn Store) -> Checkup {
    let program = program::Program::of(config);
    let inquiry = Inquiry {
        namespace: config.namespace.clone(),
        resources: program.resources(),
    };
    let mut checkup = Checkup::default();
    match (&config.redis, store.survey(&inquiry).await) {
        (Some(redis), Ok(survey)) => {
            rules::server(&mut checkup, &program, config, redis, &survey);
        }
        (Some(redis), Err(error)) => rules::unreachable(&mut checkup, redis, &error.to_string()),
        (None, _) => checkup.not_checked.push("Redis, because it is off".into()),
    }
    program.ttls(&mut checkup, config);
    checkup.advice.sort_by_key(|advice| advice.kind);
    checkup
}

/// Logs advice once the store has been reached for the first time.
pub(crate) fn advise_once(engine: &Engine) {
    if !engine.config.advice {
        return;
    }
    // Not the engine: it ends when nobody else holds it.
    let (config, store) = (engine.config.clone(), Arc::clone(&engine.store));
    engine.background.spawn(async move {
        for _ in 0..ATTEMPTS {
            tokio::time::sleep(PAUSE).await;
            while store.circuit() != Circuit::Closed {
                tokio::time::sleep(PAUSE).await;
            }
            let Checkup { advice, .. } = checkup(&config, &*store).await;
            let is_whole = advice.iter().all(|it| it.kind != AdviceKind::Unreachable);
            if is_whole {
                advice.iter().for_each(log);
                return;
            }
        }
    });
}

fn log(Advice { kind, text }: &Advice) {
    if kind.is_a_hint() {
        tracing::info!("{text}");
    } else {
        tracing::warn!("{text}");
    }
}
