//! Environment variables, and the problems found in them.

use std::collections::HashMap;

use crate::config::typos::{self, NAMES};
use crate::config::{CacheConfig, ConfigError};

pub(super) const SECRETS: [&str; 3] = [
    "REDIS_PASSWORD",
    "REDIS_SENTINEL_PASSWORD",
    "CACHE_HASH_KEY",
];

/// Settings that may hold any text, quotation marks included.
const TEXTS: [&str; 5] = [
    "REDIS_USERNAME",
    "REDIS_PASSWORD",
    "REDIS_SENTINEL_USERNAME",
    "REDIS_SENTINEL_PASSWORD",
    "CACHE_HASH_KEY",
];

/// Whether a text is in quotation marks. Shells take them off; files of variables (`docker run
/// --env-file`) and YAML in a text do not.
pub(super) fn is_quoted(text: &str) -> bool {
    let in_marks = |mark: char| text.len() > 1 && text.starts_with(mark) && text.ends_with(mark);
    in_marks('"') || in_marks('\'')
}

fn visible(c: char) -> String {
    match c {
        c if c.is_control() => c.escape_default().collect(),
        c => c.into(),
    }
}

/// Variables by name, and the problems found so far.
pub(super) struct Vars {
    values: HashMap<String, String>,
    /// Settings that hold no UTF-8.
    unreadable: Vec<String>,
    pub(super) problems: Vec<String>,
}

impl Vars {
    pub(super) fn new(
        vars: impl IntoIterator<Item = (String, String)>,
        unreadable: Vec<String>,
    ) -> Self {
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
            unreadable,
            problems: Vec::new(),
        }
    }

    /// The text of a setting, without a word about one that holds none.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A setting as text, if it is set to any.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        if self.unreadable.iter().any(|it| it == name) {
            let problem = format!("{name} is not UTF-8; it may hold UTF-8 text");
            self.problems.push(problem);
        }
        self.values.get(name).cloned()
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
        let value = self.text(name)?;
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
        let hint = match is_quoted(held) {
            true => "; write it without the quotation marks",
            false => "",
        };
        self.problems
            .push(format!("{problem}; it may hold {may_hold}{hint}"));
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
        self.values.contains_key(name) || self.unreadable.iter().any(|it| it == name)
    }

    /// Warns of likely mistakes. They are not errors, since other programs have variables with
    /// similar names.
    pub(super) fn warn_of_mistakes(&self) {
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
        for name in TEXTS {
            if self.values.get(name).is_some_and(|text| is_quoted(text)) {
                tracing::warn!(
                    variable = name,
                    "{name} is in quotation marks, which are taken for a part of it"
                );
            }
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
        let mut names: Vec<_> = self.values.keys().chain(&self.unreadable).collect();
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
            .filter(|(name, _)| typos::is_of_a_resource(name))
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
