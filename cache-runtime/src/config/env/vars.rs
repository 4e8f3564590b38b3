//! Environment variables, and the problems found in them.

use std::collections::HashMap;

use crate::config::typos::{self, NAMES};
use crate::config::{CacheConfig, ConfigError};
use crate::key::is_resource;

pub(super) const SECRETS: [&str; 3] = [
    "REDIS_PASSWORD",
    "REDIS_SENTINEL_PASSWORD",
    "CACHE_HASH_KEY",
];

fn visible(c: char) -> String {
    match c {
        c if c.is_control() => c.escape_default().collect(),
        c => c.into(),
    }
}

/// Variables by name, and the problems found so far.
pub(super) struct Vars {
    pub(super) values: HashMap<String, String>,
    pub(super) problems: Vec<String>,
}

impl Vars {
    pub(super) fn new(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = vars
            .into_iter()
            .filter(|(_, value)| !value.trim().is_empty())
            .map(|(name, value)| {
                // Spaces may be part of a secret; the end of its file's last line is not.
                let value = match SECRETS.contains(&name.as_str()) {
                    true => value.trim_end_matches(['\r', '\n']),
                    false => value.trim(),
                };
                (name, value.to_owned())
            })
            .collect();
        Self {
            values,
            problems: Vec::new(),
        }
    }

    pub(super) fn take<T>(
        &mut self,
        name: &str,
        may_hold: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        debug_assert!(
            NAMES.contains(&name) || name.starts_with("CACHE_TTL_"),
            "{name} would be called a typo"
        );
        let value = self.values.get(name)?.clone();
        let parsed = parse(&value);
        if parsed.is_none() {
            self.report(name, &value, may_hold);
        }
        parsed
    }

    pub(super) fn report(&mut self, name: &str, held: &str, may_hold: &str) {
        let problem = if self.may_hold_secret(held) {
            format!("{name} is not usable, and is not shown, since a password may be in it")
        } else {
            // Escaped, so that the problem stays on one line.
            let held: String = held.chars().map(visible).collect();
            format!("{name} is `{held}`")
        };
        self.problems
            .push(format!("{problem}; it may hold {may_hold}"));
    }

    /// Whether a value contains one of the secrets, or looks like an address with a login: a
    /// password may have been put into the wrong variable.
    pub(super) fn may_hold_secret(&self, held: &str) -> bool {
        let is_in = |name| {
            self.values
                .get(name)
                .is_some_and(|secret| held.contains(secret.as_str()))
        };
        let may_hold = held.contains('@')
            || (held.contains("://") && held.contains('?'))
            || SECRETS.into_iter().any(is_in);
        may_hold && !crate::base::mutation::is_active("secrets-in-problems")
    }

    /// Turns the problems reported since `since` into warnings: the settings have no effect.
    pub(super) fn ignore_problems(&mut self, since: usize, why: &str) {
        if crate::base::mutation::is_active("idle-settings-stop") {
            return;
        }
        for problem in self.problems.drain(since..) {
            tracing::warn!(problem, reason = why, "a setting has no effect");
        }
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Warns of likely mistakes. They are not errors, since other programs have variables with
    /// similar names.
    pub(super) fn warn_of_typos(&self) {
        let mut address = [
            "REDIS_URL",
            "REDIS_HOST",
            "REDIS_CLUSTER",
            "REDIS_SENTINELS",
        ]
        .into_iter();
        if let Some(name) = address.find(|name| self.is_set(name))
            && !self.is_set("REDIS_ENABLED")
        {
            tracing::warn!(
                variable = name,
                "{name} is set, and REDIS_ENABLED is not, so Redis is off"
            );
        }
        let names = self.values.keys().map(String::as_str);
        for (typo, meant) in typos::of(names.clone()) {
            tracing::warn!(
                variable = typo,
                suggestion = meant,
                "{typo} has no effect; did you mean {meant}?"
            );
        }
        for name in names.filter(|name| typos::is_of_no_resource(name)) {
            let name = name.escape_debug();
            tracing::warn!(
                variable = %name,
                "{name} has no effect: no resource can have this name"
            );
        }
    }

    /// The variables with this prefix, each with the resource that its name ends in.
    pub(super) fn with_prefix(&self, prefix: &str) -> Vec<(String, String)> {
        let mut names: Vec<_> = self.values.keys().collect();
        // If two variables spell the same resource, the same one wins each time.
        names.sort();
        names
            .into_iter()
            .filter_map(|name| {
                let resource = name.strip_prefix(prefix)?.to_ascii_lowercase();
                let is_link = self
                    .values
                    .get(name)
                    .is_some_and(|it| is_of_a_service(name, it));
                (!is_link).then(|| (name.clone(), resource))
            })
            .filter(|(_, resource)| is_resource(resource))
            .collect()
    }

    pub(super) fn finish(mut self, config: CacheConfig) -> Result<CacheConfig, ConfigError> {
        if self.problems.is_empty() {
            return Ok(config);
        }
        self.problems.sort();
        Err(ConfigError::of(self.problems))
    }
}

/// Whether Kubernetes has set this for a service: `CACHE_TTL_PORT=tcp://10.0.0.5:80` for one that
/// is named `cache-ttl`.
fn is_of_a_service(name: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];
    let scheme = value.split_once("://").map(|(scheme, _)| scheme);
    let is_link = scheme.is_some_and(|scheme| PROTOCOLS.contains(&scheme));
    let is_address = value.parse::<std::net::IpAddr>().is_ok();
    let is_protocol = PROTOCOLS.contains(&value);
    let ends_in = |ends: [&str; 2]| ends.iter().any(|end| name.ends_with(end));
    (is_link && (name.ends_with("_PORT") || name.contains("_PORT_")))
        || (is_address && ends_in(["_SERVICE_HOST", "_ADDR"]))
        || (is_protocol && name.ends_with("_PROTO"))
}
