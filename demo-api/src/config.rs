//! The demo's own settings; `REDIS_*` and `CACHE_*` are read by `cache-runtime`.

use std::env;

use thiserror::Error;

/// Where the API listens and where its data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `HOST`, by default `127.0.0.1`.
    pub host: String,
    /// `PORT`, by default 8000; 0 takes any free one.
    pub port: u16,
    /// `DATABASE_URL`, by default `sqlite://demo.db?mode=rwc`.
    pub database_url: String,
}

/// A variable that holds something unusable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    variable: &'static str,
    problem: String,
}

impl ConfigError {
    /// Names the variable and what is wrong with it.
    pub fn new(variable: &'static str, problem: impl Into<String>) -> Self {
        Self {
            variable,
            problem: problem.into(),
        }
    }
}

impl Config {
    /// Reads the environment. A variable that is set to nothing counts as unset.
    ///
    /// # Errors
    /// When a variable holds something unusable.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let variable = |name| variable(name).filter(|value| !value.trim().is_empty());
        let port = match variable("PORT") {
            None => 8000,
            Some(port) => port.trim().parse().map_err(|_| {
                ConfigError::new(
                    "PORT",
                    format!("`{port}` is no port; use a number from 0 to 65535"),
                )
            })?,
        };
        let database_url =
            variable("DATABASE_URL").unwrap_or_else(|| "sqlite://demo.db?mode=rwc".into());
        // The rest of the URL may hold a password, so the message keeps to the scheme.
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
        Ok(Self {
            host: variable("HOST").unwrap_or_else(|| "127.0.0.1".into()),
            port,
            database_url,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &'static str) -> Result<Config, ConfigError> {
        Config::from_variables(move |asked| (asked == name).then(|| value.to_owned()))
    }

    #[test]
    fn unset_and_empty_are_the_defaults() {
        let config = read("PORT", "").unwrap();
        assert_eq!((config.host.as_str(), config.port), ("127.0.0.1", 8000));
        assert_eq!(config.database_url, "sqlite://demo.db?mode=rwc");
    }

    #[test]
    fn a_wrong_value_is_named_and_a_password_is_not() {
        for port in ["http", "-1", "65536"] {
            assert!(
                read("PORT", port)
                    .unwrap_err()
                    .to_string()
                    .starts_with("PORT: ")
            );
        }
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
}
