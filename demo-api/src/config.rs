//! The demo's own settings; `REDIS_*` and `CACHE_*` are read by `cache-runtime`.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::access::Token;

const VARIABLES: [&str; 7] = [
    "HOST",
    "PORT",
    "DATABASE_URL",
    "CACHE_ADMIN_TOKEN",
    "MAX_CONNECTIONS",
    "CLIENT_TIMEOUT_SECS",
    "OUTBOX",
];

/// The address to listen on, the database, and the limits for clients.
#[derive(Debug, Clone)]
pub struct Config {
    /// `HOST`, by default `127.0.0.1`.
    pub host: String,
    /// `PORT`, by default 8000; 0 takes any free one.
    pub port: u16,
    /// `DATABASE_URL`, by default `sqlite://demo.db?mode=rwc`.
    pub database_url: String,
    /// `CACHE_ADMIN_TOKEN`, by default none.
    pub admin_token: Option<Token>,
    /// `MAX_CONNECTIONS`, by default 512.
    pub max_connections: usize,
    /// `CLIENT_TIMEOUT_SECS`, by default 10.
    pub client_timeout: Duration,
    /// `OUTBOX`, by default false: the database invalidates. Needs PostgreSQL, or a file of SQLite.
    pub outbox: bool,
}

/// A variable with an unusable value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    variable: &'static str,
    problem: String,
}

impl ConfigError {
    /// Names the variable and the problem.
    pub fn new(variable: &'static str, problem: impl Into<String>) -> Self {
        Self {
            variable,
            problem: problem.into(),
        }
    }
}

impl Config {
    /// Reads the environment. An empty variable counts as unset.
    ///
    /// # Errors
    /// If a variable has an unusable value.
    pub fn from_env() -> Result<Self, ConfigError> {
        fn of_the_process(name: &str) -> Option<OsString> {
            env::var_os(name)
        }
        Self::from_variables(of_the_process)
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        // Without the token, for instance, what it guards would be open.
        let unreadable = VARIABLES
            .into_iter()
            .find(|name| variable(name).is_some_and(|value| value.to_str().is_none()));
        if let Some(name) = unreadable {
            return Err(ConfigError::new(
                name,
                "is not UTF-8; it may hold UTF-8 text",
            ));
        }
        let variable = |name| {
            let value = variable(name)?.into_string().ok()?;
            Some(value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let admin_token = match variable("CACHE_ADMIN_TOKEN") {
            None => None,
            Some(token) => Some(Token::new(&token).ok_or_else(|| {
                // Its value may be most of a secret.
                ConfigError::new(
                    "CACHE_ADMIN_TOKEN",
                    "can't stand in a header; use ASCII letters, digits and signs without spaces",
                )
            })?),
        };
        let database_url =
            variable("DATABASE_URL").unwrap_or_else(|| "sqlite://demo.db?mode=rwc".into());
        // The rest of the URL may contain a password, so the message shows only the scheme.
        match database_url.split_once(':') {
            Some(("sqlite" | "postgres" | "postgresql", _)) => {}
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
                return Err(ConfigError::new(
                    "DATABASE_URL",
                    format!(
                        "`{scheme}` databases are not supported; use sqlite://.. or postgres://.."
                    ),
                ));
            }
            _ => {
                return Err(ConfigError::new(
                    "DATABASE_URL",
                    "is no URL; use sqlite://.. or postgres://..",
                ));
            }
        }
        let outbox = match variable("OUTBOX")
            .map(|it| it.to_ascii_lowercase())
            .as_deref()
        {
            None | Some("false" | "0" | "no" | "off") => false,
            Some("true" | "1" | "yes" | "on") => true,
            Some(other) => {
                let problem = format!("is `{other}`; it may hold true or false");
                return Err(ConfigError::new("OUTBOX", problem));
            }
        };
        let is_memory = database_url.contains(":memory:") || database_url.contains("mode=memory");
        if outbox && is_memory {
            let problem = "needs a database that others see: set DATABASE_URL to postgres://.. or a file of SQLite, or OUTBOX to false";
            return Err(ConfigError::new("OUTBOX", problem));
        }
        Ok(Self {
            host: variable("HOST").map_or_else(|| "127.0.0.1".into(), without_brackets),
            port: number("PORT", variable("PORT"), 8000, 0..=u16::MAX)?,
            database_url,
            admin_token,
            max_connections: number(
                "MAX_CONNECTIONS",
                variable("MAX_CONNECTIONS"),
                512,
                1..=1_000_000,
            )?,
            client_timeout: Duration::from_secs(number(
                "CLIENT_TIMEOUT_SECS",
                variable("CLIENT_TIMEOUT_SECS"),
                10,
                1..=3_600,
            )?),
            outbox,
        })
    }
}

/// The address in `[::1]`: in a URL it has brackets.
fn without_brackets(host: String) -> String {
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match inside {
        Some(inside) => inside.to_owned(),
        None => host,
    }
}

fn number<T: FromStr + PartialOrd + Display>(
    variable: &'static str,
    value: Option<String>,
    default: T,
    range: RangeInclusive<T>,
) -> Result<T, ConfigError> {
    let Some(value) = value else {
        return Ok(default);
    };
    let number = value.parse().ok();
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            let problem =
                format!("is `{value}`; it may hold a whole number from {least} to {most}");
            ConfigError::new(variable, problem)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &'static str) -> Result<Config, ConfigError> {
        Config::from_variables(move |asked| (asked == name).then(|| value.into()))
    }

    #[test]
    fn unset_and_empty_are_the_defaults() {
        let config = read("PORT", "").unwrap();
        assert_eq!((config.host.as_str(), config.port), ("127.0.0.1", 8000));
        assert_eq!(config.database_url, "sqlite://demo.db?mode=rwc");
        assert!(config.admin_token.is_none());
        let limits = (config.max_connections, config.client_timeout.as_secs());
        assert_eq!(limits, (512, 10));
    }

    #[test]
    fn an_address_may_have_brackets_and_spaces_around_it() {
        for (value, host) in [
            ("[::1]", "::1"),
            ("::1", "::1"),
            (" 0.0.0.0 \n", "0.0.0.0"),
            ("example", "example"),
        ] {
            assert_eq!(read("HOST", value).unwrap().host, host);
        }
        assert_eq!(read("PORT", " 80 ").unwrap().port, 80);
        let url = read("DATABASE_URL", " sqlite::memory:\n").unwrap();
        assert_eq!(url.database_url, "sqlite::memory:");
    }

    #[test]
    fn a_wrong_value_is_named_and_a_password_is_not() {
        for (variable, value) in [
            ("PORT", "http"),
            ("PORT", "-1"),
            ("PORT", "65536"),
            ("MAX_CONNECTIONS", "0"),
            ("MAX_CONNECTIONS", "many"),
            ("CLIENT_TIMEOUT_SECS", "0"),
            ("CLIENT_TIMEOUT_SECS", "1.5"),
            ("CLIENT_TIMEOUT_SECS", "3601"),
            ("OUTBOX", "perhaps"),
        ] {
            let error = read(variable, value).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{variable}: is `{value}`; it may hold")),
                "{error}"
            );
        }
        let error = read("CACHE_ADMIN_TOKEN", "secret with spaces").unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("CACHE_ADMIN_TOKEN: ") && !error.contains("secret"),
            "{error}"
        );
        let error = read("DATABASE_URL", "mysql://root:secret@localhost/db")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("DATABASE_URL: ")
                && error.contains("mysql")
                && !error.contains("secret"),
            "{error}"
        );
        assert!(
            !read("DATABASE_URL", "root secret@localhost")
                .unwrap_err()
                .to_string()
                .contains("secret")
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_no_text_does_not_count_as_unset() {
        use std::os::unix::ffi::OsStringExt as _;

        for variable in VARIABLES {
            let error = Config::from_variables(|asked| {
                (asked == variable).then(|| OsString::from_vec(vec![b'1', 0xff]))
            });
            let error = error.unwrap_err().to_string();
            assert_eq!(
                error,
                format!("{variable}: is not UTF-8; it may hold UTF-8 text")
            );
        }
    }
}
