//! The outbox's database and table, and the settings of its relay.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ::sqlx::postgres::PgConnectOptions;

use super::bounds::LONGEST;
use crate::base::error::{Error, ErrorKind, shortened};
use crate::base::nonce::hash128;

/// The default table.
pub const DEFAULT_TABLE: &str = "public.cache_outbox";

/// PostgreSQL cuts longer names, and refuses longer channels.
const NAME_LIMIT: usize = 63;
const SHORTEST_POLL: Duration = Duration::from_millis(20);
const SHORTEST_RETENTION: Duration = Duration::from_secs(2);

/// The outbox's database and table, and how its relay reads them; for
/// [`CacheConfig::outbox`](crate::CacheConfig::outbox).
///
/// ```
/// use cache_runtime::CacheConfig;
/// use cache_runtime::outbox::OutboxConfig;
///
/// # fn main() -> Result<(), cache_runtime::Error> {
/// let outbox = OutboxConfig::postgres("postgres://app@localhost/shop")?;
/// let config = CacheConfig::default().local_mb(64).outbox(outbox);
/// # let _ = config; Ok(()) }
/// ```
#[derive(Clone)]
pub struct OutboxConfig {
    pub(crate) location: OutboxLocation,
    pub(crate) table: OutboxTable,
    pub(crate) poll: Duration,
    pub(crate) retention: Duration,
}

/// Where an outbox is.
#[derive(Clone)]
pub(crate) enum OutboxLocation {
    Postgres(PgConnectOptions),
    #[cfg(feature = "outbox-sqlite")]
    Sqlite(::sqlx::sqlite::SqliteConnectOptions),
}

impl fmt::Debug for OutboxConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("OutboxConfig");
        match &self.location {
            // The options hold a password.
            OutboxLocation::Postgres(options) => shown
                .field("host", &options.get_host())
                .field("port", &options.get_port())
                .field("database", &options.get_database()),
            #[cfg(feature = "outbox-sqlite")]
            OutboxLocation::Sqlite(options) => shown.field("file", &options.get_filename()),
        };
        shown.field("table", &self.table).finish_non_exhaustive()
    }
}

impl OutboxConfig {
    /// The outbox in the PostgreSQL database at this URL: the primary, not a replica.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if this is no PostgreSQL URL. The text does not show the URL,
    /// since it may hold a password.
    pub fn postgres(url: &str) -> Result<Self, Error> {
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("postgres" | "postgresql")) {
            return Err(invalid(
                "the outbox needs a URL of PostgreSQL: postgres://user@host/database",
            ));
        }
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            invalid("the outbox's URL can't be read; use postgres://user@host/database")
        })?;
        Ok(Self::with_options(options))
    }

    /// Like [`postgres`](Self::postgres), with options that a URL can't express.
    #[must_use]
    pub fn with_options(options: PgConnectOptions) -> Self {
        Self {
            location: OutboxLocation::Postgres(options),
            table: OutboxTable::default(),
            poll: Duration::from_millis(500),
            retention: Duration::from_secs(300),
        }
    }

    /// The outbox in a file of SQLite: `sqlite://path/to/file`. It is read every 20 ms, since
    /// nothing notifies; [`poll`](Self::poll) sets another time.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if this is no URL of SQLite, or one of a database in memory,
    /// which no other connection sees.
    #[cfg(feature = "outbox-sqlite")]
    pub fn sqlite(url: &str) -> Result<Self, Error> {
        let is_memory = url.contains(":memory:") || url.contains("mode=memory");
        let options = ::sqlx::sqlite::SqliteConnectOptions::from_str(url).ok();
        match options.filter(|_| url.starts_with("sqlite:") && !is_memory) {
            Some(options) => Ok(Self {
                location: OutboxLocation::Sqlite(options),
                table: OutboxTable {
                    schema: "main".into(),
                    ..OutboxTable::default()
                },
                poll: SHORTEST_POLL,
                retention: Duration::from_secs(300),
            }),
            None => Err(invalid(
                "the outbox needs a file of SQLite: sqlite://path/to/file; one in memory is seen by one connection only",
            )),
        }
    }

    /// Uses another table than [`DEFAULT_TABLE`], as `schema.name`. Programs that share no cache
    /// need a table each.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if it is not `schema.name`, or too long.
    pub fn table(mut self, table: &str) -> Result<Self, Error> {
        self.table = OutboxTable::parse(table)?;
        Ok(self)
    }

    /// How long the relay waits for a notification before it polls; 500 ms by default. It checks
    /// the connection as often. Without Redis, a quarter of
    /// [`local_max_staleness`](crate::CacheConfig::local_max_staleness) applies if that is less.
    #[must_use]
    pub fn poll(mut self, poll: Duration) -> Self {
        self.poll = poll.clamp(SHORTEST_POLL, LONGEST);
        self
    }

    /// Without Redis: how long rows stay, so that every process can read them; 5 minutes by
    /// default. A process that has not read for half of this time starts cold. The longest time of
    /// all processes that have followed the outbox since the migration was last run counts.
    #[must_use]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention.clamp(SHORTEST_RETENTION, LONGEST);
        self
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidConfig, text)
}

/// The outbox's table, and the names of the objects that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxTable {
    schema: String,
    name: String,
}

impl Default for OutboxTable {
    fn default() -> Self {
        Self {
            schema: "public".into(),
            name: "cache_outbox".into(),
        }
    }
}

impl OutboxTable {
    pub(crate) fn parse(table: &str) -> Result<Self, Error> {
        // `_set_aside` is the longest suffix of the names.
        let is_name = |name: &str| !name.is_empty() && name.len() <= 40 && !name.contains('\0');
        match table.split_once('.') {
            Some((schema, name))
                if is_name(schema)
                    && is_name(name)
                    && !name.contains('.')
                    && table.len() <= NAME_LIMIT =>
            {
                Ok(Self {
                    schema: schema.into(),
                    name: name.into(),
                })
            }
            _ => Err(invalid(format!(
                "`{}` is no table for the outbox; use `schema.name`, each of up to 40 bytes",
                shortened(table)
            ))),
        }
    }

    /// The table for SQL, `"schema"."name"`.
    pub(crate) fn quoted(&self) -> String {
        self.side_table("")
    }

    /// An object in the table's schema, named like the table with this suffix.
    pub(crate) fn side_table(&self, suffix: &str) -> String {
        let name = format!("{}{suffix}", self.name);
        format!("{}.{}", quote_name(&self.schema), quote_name(&name))
    }

    /// An object whose name takes no schema and that is the table's own: an index, a trigger.
    pub(crate) fn bare(&self, suffix: &str) -> String {
        quote_name(&format!("{}{suffix}", self.name))
    }

    /// A trigger on somebody else's table, which outboxes of the same name in several schemas may
    /// share: all of them but that in `public` have a hash of their schema in the name.
    pub(crate) fn trigger(&self, suffix: &str) -> String {
        match self.schema.as_str() {
            "public" => self.bare(suffix),
            schema => {
                let hash = hash128(b"cache-runtime 20", schema.as_bytes()) as u32;
                self.bare(&format!("_{hash:08x}{suffix}"))
            }
        }
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// Without its schema.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The channel that is notified when a row has been committed.
    pub(crate) fn channel(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// A quoted name for SQL, whatever it contains.
pub(crate) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted text for SQL, whatever it contains and whatever `standard_conforming_strings` is set
/// to.
pub(crate) fn quote_text(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// The same for SQLite, where a backslash is no escape and has no form of its own.
#[cfg(feature = "outbox-sqlite")]
pub(crate) fn quote_sqlite_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(quote_name(r#"a"b"#), r#""a""b""#);
        assert_eq!(quote_text("it's"), "'it''s'");
        assert_eq!(quote_text(r"a\'b"), r"E'a\\''b'");
        let table = OutboxTable::parse(r#"a"x.b"#).expect("a table");
        assert_eq!(table.quoted(), r#""a""x"."b""#);
    }

    #[test]
    fn other_objects_than_tables_are_refused() {
        for table in ["", "outbox", ".", "a.", ".a", "a.b.c", "a.b\0"] {
            assert!(OutboxTable::parse(table).is_err(), "{table}");
        }
        assert!(OutboxTable::parse(&format!("a.{}", "b".repeat(41))).is_err());
    }

    #[test]
    fn an_unusable_url_is_refused_without_its_password() {
        for url in [
            "mysql://root:secret@h/d",
            "secret",
            "postgres://u:secret@h:x/d",
        ] {
            let error = OutboxConfig::postgres(url).expect_err(url).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        #[cfg(feature = "outbox-sqlite")]
        for url in [
            "sqlite::memory:",
            "sqlite://x?mode=memory",
            "x.db",
            "postgres://h/d",
        ] {
            OutboxConfig::sqlite(url).expect_err(url);
        }
        let config = OutboxConfig::postgres("postgres://u:secret@h/d").expect("a URL");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
