//! Typos: variables that are most likely meant for a setting whose name they miss.

use crate::key::is_resource;

/// All settings except `CACHE_TTL_<RESOURCE>`.
pub(super) const NAMES: [&str; 30] = [
    "REDIS_ENABLED",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_DB",
    "REDIS_USERNAME",
    "REDIS_PASSWORD",
    "REDIS_TLS",
    "REDIS_URL",
    "REDIS_CLUSTER",
    "REDIS_SENTINELS",
    "REDIS_SENTINEL_MASTER",
    "REDIS_SENTINEL_USERNAME",
    "REDIS_SENTINEL_PASSWORD",
    "REDIS_NAT_MAP",
    "MEMCACHED_URL",
    "CACHE_TTL",
    "CACHE_NAMESPACE",
    "CACHE_LOCAL_MB",
    "CACHE_LOCAL_MAX_STALENESS",
    "CACHE_HASH_KEY",
    "CACHE_TIMEOUT_MS",
    "CACHE_TRUST_RESTART",
    "CACHE_STALE_IF_ERROR",
    "CACHE_SWR",
    "CACHE_LOAD_TIMEOUT_MS",
    "CACHE_EARLY",
    "CACHE_JITTER",
    "CACHE_COMPRESS_OVER",
    "CACHE_VALUE_LIMIT",
    "CACHE_AUDIT",
];

/// Names that other programs have for our settings.
const SYNONYMS: [(&str, &str); 6] = [
    ("REDIS_PASS", "REDIS_PASSWORD"),
    ("REDIS_USER", "REDIS_USERNAME"),
    ("REDIS_DATABASE", "REDIS_DB"),
    ("REDIS_SSL", "REDIS_TLS"),
    ("REDIS_NODES", "REDIS_CLUSTER"),
    ("CACHE_DEFAULT_TTL", "CACHE_TTL"),
];

/// Units that end a variable's name. No resource is named like one.
const UNITS: [&str; 5] = ["MB", "MS", "S", "SECS", "SECONDS"];

/// The variables that are typos, each with the setting it was meant for. Other variables with
/// similar names belong to other programs.
pub(super) fn of<'a>(
    variables: impl Iterator<Item = &'a str>,
) -> impl Iterator<Item = (&'a str, &'static str)> {
    let unknown = variables.filter(|name| !NAMES.contains(name) && !is_of_a_resource(name));
    unknown.filter_map(|name| Some((name, meant(name)?)))
}

/// Whether a variable is one of the settings.
pub(super) fn is_setting(name: &str) -> bool {
    NAMES.contains(&name) || is_of_a_resource(name)
}

/// Whether a variable would be the time to live of a resource, whose name none can have.
pub(super) fn is_of_no_resource(name: &str) -> bool {
    name.strip_prefix("CACHE_TTL_")
        .is_some_and(|rest| !rest.is_empty() && !is_resource(&rest.to_ascii_lowercase()))
}

/// Whether a variable is the time to live of a resource.
pub(super) fn is_of_a_resource(name: &str) -> bool {
    name.strip_prefix("CACHE_TTL_")
        .is_some_and(|rest| is_resource(&rest.to_ascii_lowercase()) && !UNITS.contains(&rest))
}

/// The setting with the nearest name: it differs in its case, in its unit, or in a letter or two.
/// Or the one that other programs call so.
fn meant(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    let known = SYNONYMS.iter().find(|(other, _)| *other == upper);
    let known = known.map(|(_, meant)| *meant);
    if let Some(meant) = known.or_else(|| NAMES.into_iter().find(|known| *known == upper)) {
        return Some(meant);
    }
    let distance = |known: &'static str| {
        if without_unit(name) == without_unit(known) {
            return 1;
        }
        strsim::osa_distance(name, known)
    };
    let (distance, known) = NAMES
        .map(|known| (distance(known), known))
        .into_iter()
        .min()?;
    // In a short name, two different letters make another word.
    let at_most = if name.len() < 12 { 1 } else { 2 };
    (distance <= at_most).then_some(known)
}

fn without_unit(name: &str) -> &str {
    match name.rsplit_once('_') {
        Some((rest, unit)) if UNITS.contains(&unit) => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_from_the_names_of_others() {
        for (typo, setting) in [
            ("REDIS_ENABLE", "REDIS_ENABLED"),
            ("REDIS_ULR", "REDIS_URL"),
            ("CACHE_TIMEOUT", "CACHE_TIMEOUT_MS"),
            ("CACHE_TTL_SECONDS", "CACHE_TTL"),
            ("CACHE_LOCAL", "CACHE_LOCAL_MB"),
            ("CACHE_JITER", "CACHE_JITTER"),
            ("redis_url", "REDIS_URL"),
            ("Redis_Enabled", "REDIS_ENABLED"),
            ("REDIS_PASS", "REDIS_PASSWORD"),
            ("REDIS_SSL", "REDIS_TLS"),
        ] {
            assert_eq!(of([typo].into_iter()).next(), Some((typo, setting)));
        }
        let others = [
            "CACHE_DIR",
            "CACHE_SIZE",
            "REDIS_SENTINELS",
            "CACHE_TTL_USERS",
            "PORT",
        ];
        assert_eq!(of(others.into_iter().chain(NAMES)).next(), None);
        assert!(is_of_no_resource("CACHE_TTL_A B") && is_of_no_resource("CACHE_TTL_É"));
        assert!(!is_of_no_resource("CACHE_TTL_A-B_1") && !is_of_no_resource("CACHE_TTL_MS"));
    }
}
