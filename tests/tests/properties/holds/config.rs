//! Settings: whatever the variables hold, it is taken or named, and a secret is never printed.

use arbitrary::{Result, Unstructured};
use cache_runtime::CacheConfig;
use cache_runtime::testing::internals::operator_ttl;

use super::text;

/// Those that are read, and some that are not.
const NAMES: [&str; 28] = [
    "REDIS_ENABLED",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_DB",
    "REDIS_USERNAME",
    "REDIS_PASSWORD",
    "REDIS_TLS",
    "REDIS_URL",
    "CACHE_TTL",
    "CACHE_TTL_USERS",
    "CACHE_TTL_users",
    "CACHE_TTL_USER-NOTES",
    "CACHE_TTL_USER_NOTES",
    "CACHE_TTL_",
    "CACHE_TTL_A:B",
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
    "CACHE_AUDIT",
    "PATH",
];

const AWKWARD: [&str; 38] = [
    "",
    " ",
    "0",
    "1",
    "-1",
    "+1",
    "01",
    "0.5",
    "-0",
    "1e3",
    "NaN",
    "inf",
    "true",
    "ON",
    "maybe",
    "5m",
    "65536",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "localhost",
    "::1",
    "[::1]",
    "a b",
    "shop",
    "redis://",
    "redis://h",
    "redis://[::1]:7/0",
    "rediss://h:1/2?x#y",
    "redis://h:notaport",
    "redis://a%zz@h",
    "redis://h/x",
    "valkeys://@:/",
    "http://h",
    "tcp://10.0.0.3:6379",
    "one\nREDIS_DB is `two`",
    "`",
];

/// What can't be part of any message or name, and of no value that is taken but a secret.
const SECRET: &str = "§hunter2";
/// What of it is not to be seen either.
const PART: &str = "hunter2";

/// Where a secret is by mistake, or by intent.
const WITH_SECRET: [&str; 12] = [
    "redis://:§hunter2@localhost",
    "redis://me:§hunter2@cache.local:7000/3",
    "rediss://me:§hunter2@h:notaport",
    "redis://me:§hunter2@h/x",
    "redis://me:§hunter2@a b",
    "redis://me:§hunter2%@h",
    "redis://me:§hun@ter2:§hunter2/@h",
    "http://me:§hunter2@h",
    "me:§hunter2@localhost",
    ":§hunter2@h:6379",
    "redis://h?password=§hunter2",
    "§hunter2",
];

/// Whatever is set.
pub fn holds(bytes: &[u8]) {
    let _ = settings(&mut Unstructured::new(bytes));
}

fn settings(input: &mut Unstructured<'_>) -> Result<()> {
    let knows_secret: bool = input.arbitrary()?;
    let mut vars: Vec<(String, String)> = Vec::new();
    if knows_secret {
        let name = *input.choose(&["REDIS_PASSWORD", "CACHE_HASH_KEY"])?;
        vars.push((name.into(), SECRET.into()));
    }
    for _ in 0..input.int_in_range(0..=6)? {
        let name = match input.ratio(7, 8)? {
            true => (*input.choose(&NAMES)?).to_owned(),
            false => format!("CACHE_TTL_{}", text(input, &NAMES)?),
        };
        // A name may be shown, and each is there once.
        if vars.iter().any(|(known, _)| *known == name) || name.contains(PART) {
            continue;
        }
        let value = match input.ratio(1, 3)? && name != "REDIS_USERNAME" {
            true => {
                // A bare secret is known as one only where it is set as one.
                let most = WITH_SECRET.len() - if knows_secret { 0 } else { 1 };
                (*input.choose(&WITH_SECRET[..most])?).to_owned()
            }
            // A fuzzer finds the secret out, and puts it where nobody can know it for one.
            false => text(input, &AWKWARD)?.replace(PART, "-"),
        };
        vars.push((name, value));
    }
    match CacheConfig::from_vars(vars.clone()) {
        Ok(config) => {
            let shown = format!("{config:?}");
            assert!(!shown.contains(SECRET), "{shown}");
            for (name, value) in &vars {
                accepted(&config, name, value.trim(), &vars);
            }
        }
        Err(error) => {
            let shown = format!("{error}");
            assert!(!shown.contains(PART), "{shown}");
            assert!(!format!("{error:?}").contains(PART), "{error:?}");
            for line in shown.lines() {
                named(line, &vars);
            }
        }
    }
    Ok(())
}

/// A line of an error names a variable that is set, what it held unless that may be a secret, and
/// what it may hold.
fn named(line: &str, vars: &[(String, String)]) {
    let is_secret = |name: &str| ["REDIS_PASSWORD", "CACHE_HASH_KEY"].contains(&name);
    let secrets = vars.iter().filter(|(name, _)| is_secret(name));
    let secrets = secrets.map(|(_, value)| value.trim());
    let secrets = secrets.filter(|value| !value.is_empty());
    let fits = |(name, value): &&(String, String)| {
        let value = value.trim();
        let rest = line
            .strip_prefix(name.as_str())
            .filter(|_| !value.is_empty());
        rest.and_then(|rest| rest.strip_prefix(" is "))
            .is_some_and(|rest| {
                let may_be_secret = name == "REDIS_URL"
                    || value.contains(['@', '?'])
                    || secrets.clone().any(|secret| value.contains(secret));
                let is_control = value.contains(char::is_control);
                may_be_secret
                || is_control
                || rest.starts_with(&format!("`{value}`"))
                // With a value of its own in the text: the feature it would need is not there.
                || rest.contains("this program was built without")
            })
    };
    assert!(vars.iter().any(|var| fits(&var)), "{line:?} {vars:?}");
    assert!(line.contains("; it may hold "), "{line:?}");
}

/// What is taken takes effect.
fn accepted(config: &CacheConfig, name: &str, value: &str, vars: &[(String, String)]) {
    let Some(resource) = name
        .strip_prefix("CACHE_TTL_")
        .filter(|_| !value.is_empty())
    else {
        return;
    };
    let is_resource = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if resource.is_empty() || !resource.chars().all(is_resource) {
        return;
    }
    let normal = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let ttl = operator_ttl(config, &resource.to_ascii_lowercase()).expect("in effect");
    let said = vars
        .iter()
        .filter(|(other, _)| normal(other) == normal(name));
    let mut said = said.filter_map(|(_, value)| value.trim().parse().ok());
    assert!(said.any(|seconds: u64| seconds == ttl.as_secs()));
}
