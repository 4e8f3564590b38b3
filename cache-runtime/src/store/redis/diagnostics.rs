//! Finds out how the server is set up, with commands that change nothing and that the cache sends
//! anyway.
//!
//! `ACL DRYRUN` would tell which commands are permitted. But it needs more permissions than the
//! cache does, and Redis 7.0. So the commands themselves are tried, on a key that does not exist.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use redis::Value;

use super::RedisStore;
use super::connection::Connection;
use super::connection::address;
use super::connection::connector::CONNECT_BUDGET;
use super::connection::dial::{dial, identify};
use super::connection::errors::{NO_PRIMARY, is_refusal, refused_commands};
use super::reply::{info_field, text};
use super::scripts::{Lua, TRY};
use super::walk::{Walk, scan};
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::config::RedisConfig;
use crate::protocol::glob;
use crate::store::{DiagnosticsRequest, ServerDiagnostics};

/// The most steps of a scan: a sample, in a large database.
const STEPS: usize = 16;
/// The most keys whose values are checked.
const SAMPLE: usize = 256;
/// The most foreign keys that are named.
const NAMED: usize = 3;
/// Follows the resource in the key that commands are tried on. In an id it would be escaped.
const PROBE: &str = "@probe";
/// The length of a value's start that tells what the value is.
const HEAD: usize = 40;

/// `KEYS` to check; `ARGV` how many bytes. Returns the start of each value, `!` if it is no string,
/// and nothing if it does not exist.
static HEADS: LazyLock<Lua> =
    LazyLock::new(|| Lua::new(include_str!("scripts/lua/heads.lua").to_owned()));

impl RedisStore {
    pub(super) async fn surveyed(
        &self,
        request: &DiagnosticsRequest,
    ) -> Result<ServerDiagnostics, Error> {
        let connection = match self.cluster() {
            // One of its nodes, which are all set up alike.
            Some(cluster) => cluster
                .any_connection()
                .map_err(|error| cluster.reason().map_or(error, Error::unavailable))?,
            None => self
                .connections
                .current()
                .map_err(|error| self.connections.failure().map_or(error, Error::unavailable))?,
        };
        let mut found = ServerDiagnostics {
            missing: match self.cluster() {
                Some(cluster) => cluster.missing(),
                None => connection.capabilities.missing.clone(),
            },
            ..ServerDiagnostics::default()
        };
        // If INFO is not permitted, the operator has vouched for the answer.
        if let Permitted::Yes(info) = self.try_command::<String>(&connection, &["INFO"]).await? {
            let number = |name| info_field(&info, name).and_then(|value| value.parse().ok());
            found.version = info_field(&info, "redis_version").map(str::to_owned);
            found.memory_limit = number("maxmemory");
            found.eviction = info_field(&info, "maxmemory_policy").map(str::to_owned);
        }
        // Others may answer nothing but that the cluster is down.
        if let Some(cluster) = self.cluster() {
            found.away = cluster.away();
        }
        if !found.away.is_empty() {
            return Ok(found);
        }
        let (others, silent) = match self.cluster() {
            Some(_) => (Vec::new(), Vec::new()),
            // The address comes from the Sentinels, not from a name that may lead to several
            // servers.
            None if self.redis.sentinel.is_some() => (Vec::new(), Vec::new()),
            None => others(&connection, &self.redis).await?,
        };
        if !(others.is_empty() && silent.is_empty()) {
            let text = |address: SocketAddr| address.to_string();
            found.address = Some(connection.address.to_string());
            found.other_servers = others.into_iter().map(text).collect();
            found.silent_addresses = silent.into_iter().map(text).collect();
        }
        let usable = self.usable_keys(&connection, request, &mut found).await?;
        self.try_commands(&connection, &usable, &mut found).await?;
        let walks = !found
            .missing
            .iter()
            .any(|missing| missing.starts_with("SCAN"));
        if walks && found.refused_commands.is_empty() {
            self.look_for_foreign_values(&connection, &usable, request, &mut found)
                .await?;
        }
        Ok(found)
    }

    /// The connection to the server that has this key.
    fn link_of(&self, connection: &Arc<Connection>, key: &str) -> Result<Arc<Connection>, Error> {
        match self.cluster() {
            Some(cluster) => cluster.link_of(key),
            None => Ok(Arc::clone(connection)),
        }
    }

    /// The prefixes of keys that may be used; those that may not are recorded.
    async fn usable_keys(
        &self,
        connection: &Arc<Connection>,
        request: &DiagnosticsRequest,
        found: &mut ServerDiagnostics,
    ) -> Result<Vec<String>, Error> {
        let namespace = &request.namespace;
        let resources = request.resources.iter();
        let beginnings = std::iter::once(format!("{namespace}@gen:"))
            .chain(resources.map(|resource| format!("{namespace}{resource}:")));
        let mut usable = Vec::new();
        for beginning in beginnings {
            let probe = format!("{beginning}{PROBE}");
            let connection = self.link_of(connection, &probe)?;
            match self
                .try_command::<Value>(&connection, &["MGET", &probe])
                .await?
            {
                Permitted::Yes(_) | Permitted::Unknown => usable.push(beginning),
                Permitted::No(_) => found.refused_keys.push(format!("{beginning}*")),
            }
        }
        Ok(usable)
    }

    async fn try_commands(
        &self,
        connection: &Arc<Connection>,
        usable: &[String],
        found: &mut ServerDiagnostics,
    ) -> Result<(), Error> {
        let mut refused = BTreeSet::new();
        for command in [&["SCAN", "0", "COUNT", "1"][..], &["DBSIZE"]] {
            if let Permitted::No(name) = self.try_command::<Value>(connection, command).await? {
                refused.insert(name.unwrap_or_else(|| command[0].to_lowercase()));
            }
        }
        if let Some(beginning) = usable.first() {
            let key = format!("{beginning}{PROBE}");
            let connection = self.link_of(connection, &key)?;
            let tried = self
                .one_server
                .script(&connection, &TRY, [key.as_str()], [])
                .await;
            match permitted::<Vec<String>>(tried)? {
                Permitted::Yes(refusals) => {
                    refused.extend(refused_commands(&refusals));
                }
                Permitted::No(name) => {
                    refused.insert(name.unwrap_or_else(|| "evalsha".into()));
                }
                Permitted::Unknown => {}
            }
        }
        found.refused_commands = refused.into_iter().collect();
        Ok(())
    }

    /// Checks the generations of the resources, and a sample of all keys.
    async fn look_for_foreign_values(
        &self,
        connection: &Arc<Connection>,
        usable: &[String],
        request: &DiagnosticsRequest,
        found: &mut ServerDiagnostics,
    ) -> Result<(), Error> {
        let generations = format!("{}@gen:", request.namespace);
        let mut keys = BTreeSet::new();
        // In a cluster they have other names, and the walk finds them.
        if self.cluster().is_none() && usable.contains(&generations) {
            for resource in &request.resources {
                keys.insert(format!("{generations}{resource}"));
                keys.insert(format!("{generations}{resource}~derived"));
            }
        }
        let mut walk = Walk::new(format!("{}*", glob::literal(&request.namespace)), true);
        for _ in 0..STEPS {
            match scan(connection, self.budget, &mut walk).await? {
                Some(step) if keys.len() < SAMPLE => keys.extend(step.into_iter().filter(|key| {
                    usable
                        .iter()
                        .any(|beginning| key.starts_with(beginning.as_str()))
                })),
                _ => break,
            }
        }
        let keys: Vec<String> = keys.into_iter().take(SAMPLE).collect();
        let names = keys.iter().map(String::as_str);
        let length = HEAD.to_string().into_bytes();
        let heads: Vec<Value> = match keys.is_empty() {
            true => Vec::new(),
            false if self.cluster().is_some() => {
                let mut heads = Vec::with_capacity(keys.len());
                for name in names {
                    let connection = self.link_of(connection, name)?;
                    let head =
                        self.one_server
                            .script(&connection, &HEADS, [name], [length.clone()]);
                    heads.append(&mut head.await?);
                }
                heads
            }
            false => {
                self.one_server
                    .script(connection, &HEADS, names, [length])
                    .await?
            }
        };
        let heads = keys
            .iter()
            .zip(heads.iter().map(|head| text(head).unwrap_or_default()));
        let there: Vec<_> = heads.filter(|(_, head)| !head.is_empty()).collect();
        found.keys_seen = Some(there.len());
        found.foreign = there
            .into_iter()
            .filter(|(key, head)| match key.starts_with(&generations) {
                true => !is_generation(head),
                false => !is_entry(head),
            })
            .map(|(key, _)| key.clone())
            .take(NAMED)
            .collect();
        Ok(())
    }

    async fn try_command<T: redis::FromRedisValue>(
        &self,
        connection: &Connection,
        words: &[&str],
    ) -> Result<Permitted<T>, Error> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        let answer = connection.ask(self.budget, async |multiplexed| {
            command.query_async(multiplexed).await
        });
        permitted(answer.await)
    }
}

enum Permitted<T> {
    Yes(T),
    /// The command, if the error names it.
    No(Option<String>),
    /// The server does not have it; this was found out before the connection was used.
    Unknown,
}

fn permitted<T>(answer: Result<T, Error>) -> Result<Permitted<T>, Error> {
    match answer {
        Ok(answer) => Ok(Permitted::Yes(answer)),
        Err(error) if error.kind() == ErrorKind::Store && is_refusal(&error.to_string()) => {
            Ok(Permitted::No(named(&error.to_string())))
        }
        Err(error) if error.to_string().contains("unknown command") => Ok(Permitted::Unknown),
        Err(error) => Err(error),
    }
}

/// The command in `.. has no permissions to run the 'script|load' command`.
fn named(error: &str) -> Option<String> {
    let (_, rest) = error.split_once("run the '")?;
    Some(rest.split_once('\'')?.0.to_lowercase())
}

/// An entry of any format version.
fn is_entry(head: &[u8]) -> bool {
    matches!(head, [b'C', b'R', b'T', version, b' ', ..] if version.is_ascii_digit())
}

fn is_generation(head: &[u8]) -> bool {
    let (nonce, rest) = head.split_at(head.len().min(32));
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    nonce.len() == 32 && nonce.iter().all(is_hex) && matches!(rest.first(), None | Some(b' '))
}

/// Other servers that answer under the same name, and the addresses that did not answer.
async fn others(
    connection: &Connection,
    config: &RedisConfig,
) -> Result<(Vec<SocketAddr>, Vec<SocketAddr>), Error> {
    let (mut others, mut silent) = (Vec::new(), Vec::new());
    for address in address::of(config).await? {
        if address == connection.address {
            continue;
        }
        let asked = async {
            let (mut multiplexed, _) = dial(config, address, |_| {}).await?;
            identify(&mut multiplexed, false, false).await
        };
        match crate::base::time::timeout(CONNECT_BUDGET, asked).await {
            // Without `run_id`s nothing tells servers apart.
            Ok(Ok(_)) if connection.server == Nonce::NONE => silent.push(address),
            Ok(Ok(it)) if it.server == connection.server => {}
            Ok(Ok(_)) => others.push(address),
            // A replica is skipped when a connection is made.
            Ok(Err(error)) if error.to_string() == NO_PRIMARY => {}
            _ => silent.push(address),
        }
    }
    Ok((others, silent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_each_version_are_known() {
        let seven = "NOPERM User app has no permissions to run the 'script|load' command";
        let six =
            "NOPERM this user has no permissions to run the 'evalsha' command or its subcommand";
        assert_eq!(named(seven).as_deref(), Some("script|load"));
        assert_eq!(named(six).as_deref(), Some("evalsha"));
        let in_scripts = [
            "ERR The user executing the script can't run this command or subcommand script: 5fd0",
            "The user executing the script can't access at least one of the keys mentioned in the command arguments",
        ];
        for refusal in [seven, six].into_iter().chain(in_scripts) {
            assert!(is_refusal(refusal), "{refusal}");
        }
        assert!(!is_refusal(
            "OOM command not allowed when used memory > 'maxmemory'."
        ));
        assert!(!is_refusal(
            "READONLY You can't write against a read only replica."
        ));
    }

    #[test]
    fn own_values_are_known_by_their_beginning() {
        assert!(is_entry(b"CRT1 e v j 0000") && is_entry(b"CRT1 i abc@1"));
        assert!(!is_entry(b"{\"id\":1}") && !is_entry(b"!"));
        let nonce = [b'a'; 32];
        assert!(is_generation(&nonce));
        assert!(is_generation(&[&nonce[..], b" 00ff"].concat()));
        assert!(!is_generation(b"17") && !is_generation(&[&nonce[..], b"a"].concat()));
    }
}
