//! Makes a connection: opens the socket, logs in, and identifies the server.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, ProtocolVersion,
    PushInfo, RedisConnectionInfo, RedisError,
};
use tokio::net::TcpStream;

use super::super::reply::{info_field, reading};
use super::super::slots::ClusterView;
use super::address::To;
use super::errors::{NO_PRIMARY, described};
use super::probe::{Mode, refuses_resp3};
use crate::base::clock::RemoteClock;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::{Nonce, hash128};
use crate::config::RedisConfig;
use crate::store::farewell;

/// After this idle time keep-alive probes are sent, at the interval below.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// How long sent data may stay unacknowledged by the peer's machine.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(5);

/// Connects and logs in; returns whether the server speaks RESP3. `on_push` gets push messages,
/// which only RESP3 has, and the end of the connection.
///
/// # Errors
/// A text for the operator.
pub(crate) async fn dial(
    config: &RedisConfig,
    address: SocketAddr,
    on_push: impl Fn(PushInfo) + Send + Sync + 'static,
) -> Result<(MultiplexedConnection, bool), Error> {
    let on_push = Arc::new(on_push);
    let dial_resp3 = async || {
        let on_push = Arc::clone(&on_push);
        dial_with(config, address, Some(move |push| on_push(push))).await
    };
    let mut attempt = dial_resp3().await;
    // Some servers close the connection when they are asked for RESP3, and any server does so now
    // and then.
    if attempt
        .as_ref()
        .is_err_and(RedisError::is_connection_dropped)
    {
        attempt = dial_resp3().await;
    }
    let error = match attempt {
        Ok(multiplexed) => return Ok((multiplexed, true)),
        Err(error) => error,
    };
    if !refuses_resp3(&error) {
        return Err(described(error));
    }
    if let Ok(multiplexed) = dial_with(config, address, None::<fn(PushInfo)>).await {
        return Ok((multiplexed, false));
    }
    let words = match error.is_connection_dropped() && !config.tls {
        true => farewell(address).await,
        false => None,
    };
    match words.as_deref().and_then(|words| words.strip_prefix('-')) {
        Some(words) => Err(Error::new(ErrorKind::Store, words)),
        None => Err(described(error)),
    }
}

/// Speaks RESP3 if there is a handler for push messages.
async fn dial_with(
    config: &RedisConfig,
    address: SocketAddr,
    on_push: Option<impl Fn(PushInfo) + Send + Sync + 'static>,
) -> Result<MultiplexedConnection, RedisError> {
    let mut login = RedisConnectionInfo::default()
        .set_db(i64::from(config.db))
        .set_protocol(match on_push {
            Some(_) => ProtocolVersion::RESP3,
            None => ProtocolVersion::RESP2,
        });
    if let Some(username) = &config.username {
        login = login.set_username(username);
    }
    if let Some(password) = password(config) {
        login = login.set_password(password);
    }
    #[cfg(feature = "redis-tls")]
    if config.tls {
        // The client panics without a provider. An error means that the program has installed one
        // already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let named = if config.tls {
        ConnectionAddr::TcpTls {
            host: config.host.clone(),
            port: config.port,
            insecure: false,
            tls_params: None,
        }
    } else {
        ConnectionAddr::Tcp(config.host.clone(), config.port)
    };
    let info = named
        .into_connection_info()?
        .set_redis_settings(login)
        .set_tcp_settings(tcp_settings());
    let client = Client::open(info)?;
    let mut options = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_dns_resolver(To(address));
    if let Some(on_push) = on_push {
        options = options.set_push_sender(move |push: PushInfo| {
            on_push(push);
            Ok::<(), redis::aio::SendError>(())
        });
    }
    client
        .get_multiplexed_async_connection_with_config(&options)
        .await
}

/// The password to log in with. Without one the client would leave out the user, too, and log in
/// as the default one.
fn password(config: &RedisConfig) -> Option<&str> {
    let none = config
        .username
        .as_ref()
        .filter(|_| !crate::base::mutation::is_active("user-without-password-left-out"))
        .map(|_| "");
    config.password.as_deref().or(none)
}

/// The commands that log in and choose the database, on a connection that speaks RESP2.
pub(crate) fn login(config: &RedisConfig) -> Vec<Cmd> {
    let mut commands = Vec::new();
    if let Some(password) = password(config) {
        let mut auth = redis::cmd("AUTH");
        auth.arg(config.username.as_deref());
        commands.push(auth.arg(password).clone());
    }
    if config.db != 0 {
        commands.push(redis::cmd("SELECT").arg(config.db).clone());
    }
    commands
}

/// Sets the options of a socket that the client does not open.
pub(crate) fn set_options(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&keepalive())?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_LIMIT))?;
    Ok(())
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
}

/// The socket's options.
///
/// - Without `TCP_NODELAY` (the client's default) Nagle's algorithm delays a small command until
///   the one before it has been acknowledged, up to 40 ms on a real network (redis-rs#2195).
/// - Keep-alive and a limit on unacknowledged data end a connection whose peer has disappeared (a
///   failed machine, a firewall that forgot the connection), even if no command is sent.
fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive());
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED_LIMIT);
    settings
}

/// Asks for the server's identity and clock, before the connection's first use.
pub(crate) async fn identify(
    multiplexed: &mut MultiplexedConnection,
    trust_restart: bool,
    is_node: bool,
) -> Result<Identity, Error> {
    let info = redis::cmd("INFO").query_async::<String>(multiplexed).await;
    // First, since a Sentinel has no `TIME`.
    match info.as_deref().map(Mode::of) {
        Ok(Mode::Sentinel) => return Err(sentinel(multiplexed).await),
        Ok(Mode::Cluster) if !is_node => {
            return Err(Error::new(ErrorKind::Store, CLUSTER).with_source(IsCluster));
        }
        Err(error) if error.is_connection_dropped() => {
            return Err(Error::unavailable(HUNG_UP));
        }
        _ => {}
    }
    let time = redis::cmd("TIME")
        .query_async(multiplexed)
        .await
        .map_err(described)?;
    let clock = RemoteClock::from_reading(reading(time));
    let epoch = match is_node {
        true => epoch(multiplexed).await?,
        false => 0,
    };
    let known = |server, history: Option<&str>| Identity {
        server,
        history: history.map(str::to_owned),
        epoch,
        clock,
    };
    let info: String = match info {
        Ok(info) => info,
        // A replica is then noticed when it refuses the first write.
        Err(_) if trust_restart => return Ok(known(Nonce::NONE, None)),
        Err(error) => {
            let hint = "; its run_id is needed to tell a restarted server, allow INFO or set CACHE_TRUST_RESTART";
            let error = described(error);
            let text = format!("INFO was refused ({error}){hint}");
            return Err(Error::new(ErrorKind::Store, text).with_source(error));
        }
    };
    if info_field(&info, "role").is_some_and(|role| role != "master") {
        return Err(Error::new(ErrorKind::Store, NO_PRIMARY));
    }
    if trust_restart {
        return Ok(known(Nonce::NONE, None));
    }
    match (identity_in(&info), info_field(&info, "master_replid")) {
        (Some(server), Some(replid)) => Ok(known(server, Some(replid))),
        _ => Err(Error::new(
            ErrorKind::Store,
            "INFO names no run_id and master_replid, which are needed to tell a restarted server; set CACHE_TRUST_RESTART if it never loses data",
        )),
    }
}

/// The identity of the server and its history, in the answer to `INFO`.
pub(crate) fn identity_in(info: &str) -> Option<Nonce> {
    let (run_id, replid) = (
        info_field(info, "run_id")?,
        info_field(info, "master_replid")?,
    );
    let server = hash128(&[0; 16], format!("{run_id} {replid}").as_bytes());
    Some(Nonce(server))
}

/// The identity of a server.
pub(crate) struct Identity {
    pub(crate) server: Nonce,
    /// The history of its data, its `master_replid`; `None` if nobody looks at it.
    pub(crate) history: Option<String>,
    /// The epoch of a node of a cluster; otherwise 0.
    pub(crate) epoch: u64,
    pub(crate) clock: RemoteClock,
}

/// The epoch of a primary in a cluster. It rises when a slot returns to the primary, at the latest.
async fn epoch(multiplexed: &mut MultiplexedConnection) -> Result<u64, Error> {
    let nodes = cluster_nodes(multiplexed).await.map_err(described)?;
    let view = ClusterView::parse(&nodes);
    view.and_then(|view| view.epoch())
        .ok_or_else(|| Error::new(ErrorKind::Store, NO_PRIMARY))
}

/// A node's answer about all nodes of its cluster.
pub(crate) async fn cluster_nodes(
    multiplexed: &mut MultiplexedConnection,
) -> Result<String, RedisError> {
    redis::cmd("CLUSTER")
        .arg("NODES")
        .query_async(multiplexed)
        .await
}

/// The error for a node of a cluster.
const CLUSTER: &str = "this is a node of a cluster, which has only some of the keys";

/// Marks the error of a node of a cluster that was taken for a single server.
#[derive(Debug)]
pub(crate) struct IsCluster;

impl fmt::Display for IsCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node of a cluster")
    }
}

impl std::error::Error for IsCluster {}

/// The error for a peer that closes the connection at a command that every server has.
const HUNG_UP: &str = "the peer hung up when it was asked who it is (INFO), as proxies such as twemproxy do; connect to Redis itself, since a proxy may read from any replica and can't tell a restarted server";

/// The error for a Sentinel, with the names of the primaries that it knows.
async fn sentinel(multiplexed: &mut MultiplexedConnection) -> Error {
    let mut masters = redis::cmd("SENTINEL");
    masters.arg("MASTERS");
    let masters: Vec<HashMap<String, String>> =
        masters.query_async(multiplexed).await.unwrap_or_default();
    let names = masters.iter().filter_map(|it| {
        let (name, ip, port) = (it.get("name")?, it.get("ip")?, it.get("port")?);
        Some(format!("`{name}` at {ip}:{port}"))
    });
    let names: Vec<_> = names.collect();
    let known = match names.is_empty() {
        true => "; it knows of no primary".to_owned(),
        false => format!(", of which it knows {}", names.join(", ")),
    };
    Error::new(
        ErrorKind::Store,
        format!(
            "this is a Sentinel, which holds no data; name all Sentinels in REDIS_SENTINELS and the primary in REDIS_SENTINEL_MASTER{known}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_fields() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n";
        assert_eq!(info_field(info, "run_id"), Some("abc"));
        assert_eq!(info_field(info, "run"), None);
    }
}
