//! One connection to a server, and the operations that the store is made of.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use async_memcached::{AsciiProtocol, Client, Error, ErrorKind, MetaProtocol, MetaValue, Status};

use super::clock::ServerClock;
use super::text::{flags, identity, number, process};
use crate::base::error::{Error as CacheError, ErrorKind as CacheErrorKind, shortened};
use crate::base::nonce::Nonce;
use crate::config::MemcachedConfig;
use crate::store::farewell;

/// Why an operation failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection is lost, or the server could not be reached.
    Lost(String),
    /// The answer does not fit the command.
    NoAnswer(String),
    /// The server has answered with an error.
    Refused(String),
    /// The server is full, and may not evict or has nothing of this size to evict.
    Full(String),
    /// The value is larger than the server takes.
    TooLarge,
    /// A server other than the one in use answers at this address.
    OtherServer,
    /// The name leads to several servers.
    Several,
}

impl Failure {
    pub(super) fn described(self) -> CacheError {
        match self {
            Self::Lost(text) => CacheError::unavailable(text),
            Self::NoAnswer(text) => CacheError::new(
                CacheErrorKind::Store,
                format!("the answer is not one of Memcached ({text})"),
            ),
            Self::Refused(text) | Self::Full(text) => CacheError::new(CacheErrorKind::Store, text),
            Self::TooLarge => CacheError::new(
                CacheErrorKind::Unstorable,
                "the value is larger than Memcached takes; raise its limit with `-I 8m`",
            ),
            Self::OtherServer => {
                CacheError::unavailable("another Memcached server answers than the one in use")
            }
            Self::Several => CacheError::unavailable(
                "several servers answer at the addresses of this name, so that an invalidation at \
                 one is unknown to the others; name one server",
            ),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Connect(error) | Error::Io(error) => {
                let text = error.to_string();
                let text = text.split(" (os error").next().unwrap_or_default();
                Self::Lost(shortened(text))
            }
            Error::ConnectionClosed => Self::Lost("the connection was closed".into()),
            Error::ParseError(error) => Self::NoAnswer(format!("{error:?}")),
            Error::Protocol(Status::Error(error)) => match error {
                ErrorKind::Server(text) if text.contains("too large") => Self::TooLarge,
                ErrorKind::Server(text)
                    if text.contains("out of memory")
                        && !crate::base::mutation::is_active("full-is-unavailable") =>
                {
                    Self::Full(shortened(&text))
                }
                ErrorKind::Server(text) | ErrorKind::Client(text) => {
                    Self::Refused(shortened(&text))
                }
                ErrorKind::NonexistentCommand => Self::Refused(
                    "it does not know the command; the cache needs Memcached 1.6 or later".into(),
                ),
                ErrorKind::KeyTooLong => Self::Refused("a key is too long".into()),
                other => Self::NoAnswer(shortened(&other.to_string())),
            },
            Error::Protocol(status) => Self::NoAnswer(status.to_string()),
        }
    }
}

/// The server that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerAddress {
    Tcp(SocketAddr),
    Unix(String),
}

impl ServerAddress {
    fn dsn(&self) -> String {
        match self {
            Self::Tcp(address) => format!("tcp://{address}"),
            Self::Unix(path) => format!("unix://{path}"),
        }
    }

    /// Why the server takes no further connection, if it says so. Those that there are stay in use.
    async fn turned_away(&self) -> Option<Failure> {
        let Self::Tcp(address) = self else {
            return None;
        };
        let words = farewell(*address).await?;
        let reason = words.strip_prefix("ERROR ")?;
        Some(Failure::Refused(format!(
            "it takes no further connection: {reason}; raise its limit with `-c 4096`"
        )))
    }
}

/// The addresses of a server's name: in the same order in all processes, so that all use the same
/// one. The client connects by IPv4 alone.
pub(super) async fn targets(config: &MemcachedConfig) -> Result<Vec<ServerAddress>, Failure> {
    if let Some(path) = &config.socket {
        return Ok(vec![ServerAddress::Unix(path.clone())]);
    }
    let (host, port) = (config.host.as_str(), config.port);
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|error| Failure::from(Error::Connect(error)))?;
    let mut addresses: Vec<_> = found
        .filter(|address| matches!(address.ip(), IpAddr::V4(_)))
        .collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(Failure::Lost(format!(
            "`{}` has no IPv4 address",
            shortened(host)
        )));
    }
    Ok(addresses.into_iter().map(ServerAddress::Tcp).collect())
}

/// A connection. It is used by one caller at a time; dropped in the middle of an operation, it
/// closes itself.
pub(super) struct Connection {
    client: Client,
    /// The identity of the server, learnt before the connection is used.
    pub(super) server: Nonce,
    /// Its process, as its statistics name it.
    pub(super) process: Nonce,
}

/// The identity of a server.
pub(super) struct ServerIdentity {
    pub(super) process: Nonce,
    pub(super) server: Nonce,
}

/// The value under a key, with the version that a change of it has to name.
pub(super) struct Item {
    pub(super) bytes: Vec<u8>,
    pub(super) version: u64,
}

/// The metadata of a key, without its value.
pub(super) struct KeyMeta {
    pub(super) flags: u32,
    pub(super) version: u64,
}

/// The old value that a new one replaces.
#[derive(Clone, Copy)]
pub(super) enum Replaces {
    /// Nothing.
    Nothing,
    /// The value of this version.
    Version(u64),
}

impl Connection {
    /// Connects, and asks the server who it is.
    pub(super) async fn open(target: &ServerAddress, clock: &ServerClock) -> Result<Self, Failure> {
        let client = Client::new(target.dsn()).await?;
        let mut connection = Self {
            client,
            server: Nonce::NONE,
            process: Nonce::NONE,
        };
        match connection.ask_who(clock).await {
            Ok(who) => {
                (connection.process, connection.server) = (who.process, who.server);
                Ok(connection)
            }
            Err(failure) => Err(target.turned_away().await.unwrap_or(failure)),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Asks the server who it is and what time it has.
    pub(super) async fn ask_who(&mut self, clock: &ServerClock) -> Result<ServerIdentity, Failure> {
        let sent = Instant::now();
        let stats = self.stats().await?;
        let told = (
            number(stats.get("pid")),
            number(stats.get("time")),
            number(stats.get("uptime")),
        );
        let (Some(pid), Some(time), Some(uptime)) = told else {
            return Err(Failure::NoAnswer(
                "`stats` does not tell pid, time and uptime".into(),
            ));
        };
        clock.learn(time, sent, Instant::now());
        let process = process(pid, time.saturating_sub(uptime));
        let mark = self.mark().await?;
        Ok(ServerIdentity {
            process,
            server: identity(process, &mark),
        })
    }

    /// The random number that the server holds. If it has lost it, it gets another one. Each
    /// process reads it every second, so it is the last to be evicted.
    async fn mark(&mut self) -> Result<Vec<u8>, Failure> {
        const ATTEMPTS: usize = 3;
        let key = "cache-runtime@server".to_owned();
        for _ in 0..ATTEMPTS {
            if let Some(item) = self.get(&key).await? {
                return Ok(item.bytes);
            }
            let fresh = Nonce::fresh().to_string();
            let put = self.put(&key, fresh.as_bytes(), flags::OWN, "T0", Replaces::Nothing);
            match put.await {
                // Another process may have been faster.
                Ok(_) => {}
                // The server is full and must not evict. Its entries can still be read and
                // invalidated.
                Err(Failure::Refused(_) | Failure::Full(_)) => break,
                Err(failure) => return Err(failure),
            }
        }
        Ok(Vec::new())
    }

    pub(super) async fn stats(&mut self) -> Result<HashMap<String, String>, Failure> {
        Ok(self.client.stats().await?.into_iter().collect())
    }

    /// Whether the server answers.
    pub(super) async fn ping(&mut self) -> Result<(), Failure> {
        let key = "cache-runtime@probe";
        self.get_many(&[key.to_owned()]).await.map(drop)
    }

    /// Whether the server knows the commands that the cache uses, and compares versions.
    pub(super) async fn try_commands(&mut self) -> Result<(), Failure> {
        let key = format!("cache-runtime@probe:{}", Nonce::fresh());
        let put = self.put(&key, b"1", flags::OWN, "T10", Replaces::Nothing);
        match put.await {
            Ok(_) => {}
            // The entries of a full server can still be read and invalidated.
            Err(Failure::Refused(_) | Failure::Full(_)) => return self.ping().await,
            Err(failure) => return Err(failure),
        }
        let Some(item) = self.get(&key).await? else {
            return Ok(());
        };
        let over = Replaces::Version(item.version);
        let is_replaced = self.put(&key, b"2", flags::OWN, "T10", over).await?;
        let is_replaced_again = self.put(&key, b"3", flags::OWN, "T10", over).await?;
        self.delete_any(&key).await?;
        match is_replaced && !is_replaced_again {
            true => Ok(()),
            false => Err(Failure::Refused(
                "it does not compare versions, which the cache relies on; start it without `-C`"
                    .into(),
            )),
        }
    }

    /// Reads many keys in one round trip: `None` for those that hold nothing.
    pub(super) async fn get_many(&mut self, keys: &[String]) -> Result<Vec<Option<Item>>, Failure> {
        let items = self.client.meta_get_multi(keys, Some(&["v", "c"])).await?;
        in_order(keys, items, |item| {
            Some(Item {
                version: item.cas?,
                bytes: item.data.unwrap_or_default(),
            })
        })
    }

    pub(super) async fn get(&mut self, key: &String) -> Result<Option<Item>, Failure> {
        let items = self.get_many(std::slice::from_ref(key)).await?;
        Ok(items.into_iter().next().flatten())
    }

    /// The same without the values.
    pub(super) async fn shapes(
        &mut self,
        keys: &[String],
    ) -> Result<Vec<Option<KeyMeta>>, Failure> {
        let items = self.client.meta_get_multi(keys, Some(&["f", "c"])).await?;
        in_order(keys, items, |item| {
            Some(KeyMeta {
                flags: item.flags?,
                version: item.cas?,
            })
        })
    }

    /// Stores a value; `false` if something else is there than what it is to replace.
    pub(super) async fn put(
        &mut self,
        key: &str,
        value: &[u8],
        flags: u32,
        ttl: &str,
        over: Replaces,
    ) -> Result<bool, Failure> {
        let mode = match over {
            Replaces::Nothing => "ME".to_owned(),
            Replaces::Version(version) => format!("C{version}"),
        };
        let flags = format!("F{flags}");
        let options = [flags.as_str(), ttl, mode.as_str()];
        let stored = self
            .client
            .meta_set(key, value, false, None, Some(&options));
        match stored.await {
            Ok(_) => Ok(true),
            Err(Error::Protocol(Status::Exists | Status::NotFound | Status::NotStored)) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stores values where there are none, in one round trip; says for each whether it is stored.
    pub(super) async fn add_many(
        &mut self,
        items: &[(String, Vec<u8>)],
        flags: u32,
        ttl: &str,
    ) -> Result<Vec<bool>, Failure> {
        let flags = format!("F{flags}");
        let options = [flags.as_str(), ttl, "ME"];
        let values: Vec<_> = items
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()))
            .collect();
        let refused = self.client.meta_set_multi(&values, Some(&options)).await?;
        let keys: Vec<_> = items.iter().map(|(key, _)| key.clone()).collect();
        let refused = in_order(&keys, refused, |_| Some(()))?;
        Ok(refused
            .into_iter()
            .map(|refused| refused.is_none())
            .collect())
    }

    /// Deletes the value of this version; `false` if another one is there.
    pub(super) async fn delete(&mut self, key: &str, version: u64) -> Result<bool, Failure> {
        let version = format!("C{version}");
        let options = [version.as_str()];
        let deleted = self.client.meta_delete(key, false, None, Some(&options));
        match deleted.await {
            Ok(_) | Err(Error::Protocol(Status::NotFound)) => Ok(true),
            Err(Error::Protocol(Status::Exists)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes whatever is there.
    pub(super) async fn delete_any(&mut self, key: &str) -> Result<(), Failure> {
        match self.client.delete(key).await {
            Ok(()) | Err(Error::Protocol(Status::NotFound)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives what is under these keys another time to live.
    pub(super) async fn touch(&mut self, keys: &[String], ttl: &str) -> Result<(), Failure> {
        let touched = self.client.meta_get_multi(keys, Some(&[ttl])).await?;
        in_order(keys, touched, |_| Some(())).map(drop)
    }
}

/// The answers in the order of the keys that were asked for. The server leaves out missing keys. A
/// key that was not asked for shows that the answer belongs to another command.
fn in_order<T>(
    keys: &[String],
    items: Vec<MetaValue>,
    read: impl Fn(MetaValue) -> Option<T>,
) -> Result<Vec<Option<T>>, Failure> {
    let mut items = items.into_iter().peekable();
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let is_its = |item: &MetaValue| item.key.as_deref() == Some(key.as_bytes());
        found.push(match items.next_if(is_its) {
            Some(item) => {
                Some(read(item).ok_or_else(|| unexpected("a value without its version"))?)
            }
            None => None,
        });
    }
    match items.next() {
        None => Ok(found),
        Some(_) => Err(unexpected("a value that was not asked for")),
    }
}

fn unexpected(text: &str) -> Failure {
    Failure::NoAnswer(text.into())
}
