//! Asks Sentinels which server is the primary, and watches that it still is.
//!
//! All of them are asked, and the answer with the highest epoch counts: the first usable one may
//! come from a Sentinel that was cut off. Without answers of the majority nothing is served, since
//! a failover may have taken place on the other side.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind};
use tokio::sync::Notify;

use super::address;
use super::connection::Connection;
use super::dial::dial;
use super::errors::described;
use super::fence::Fence;
use super::reply::info_field;
use crate::base::clock::{self, Instant};
use crate::base::error::Error;
use crate::config::{RedisConfig, SentinelConfig};

/// The pause between two rounds. Together with the time of an answer it is a second.
const INTERVAL: Duration = Duration::from_millis(750);
/// How long an answer may take.
const ANSWER_BUDGET: Duration = Duration::from_millis(500);
/// How long the majority may be missing before nothing is served any more.
const MINORITY: Duration = Duration::from_secs(2);
/// How long former primaries are watched that don't answer.
const FENCE: Duration = Duration::from_secs(4);
const FENCE_PAUSE: Duration = Duration::from_millis(10);
/// The message of a Sentinel when another server has become the primary.
const SWITCHED: &str = "+switch-master";

/// The combined answer of the Sentinels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SentinelAnswer {
    pub(super) host: String,
    pub(super) port: u16,
    /// The number of failovers.
    pub(super) epoch: u64,
    /// The other servers. One of them may have been the primary.
    pub(super) others: Vec<(String, u16)>,
}

/// Connections to all Sentinels, made when they are needed.
pub(super) struct Sentinels {
    config: RedisConfig,
    sentinel: SentinelConfig,
    connections: Vec<Option<MultiplexedConnection>>,
    switched: Arc<Notify>,
}

impl Sentinels {
    /// `None` where none are configured.
    pub(super) fn of(config: &RedisConfig) -> Option<Self> {
        let sentinel = config.sentinel.clone()?;
        Some(Self {
            connections: vec![None; sentinel.addresses.len()],
            config: config.clone(),
            sentinel,
            switched: Arc::default(),
        })
    }

    /// Asks all of them.
    ///
    /// # Errors
    /// If fewer than the majority answer, or none of them knows the name.
    pub(super) async fn ask(&mut self) -> Result<SentinelAnswer, Error> {
        let (config, sentinel) = (&self.config, &self.sentinel);
        let asked = self.connections.iter_mut().zip(&sentinel.addresses);
        let asked = asked.map(|(multiplexed, address)| {
            let switched = Arc::clone(&self.switched);
            async move {
                let answer = answer(multiplexed, config, sentinel, address, switched);
                let answer = tokio::time::timeout(ANSWER_BUDGET, answer).await;
                let answer = answer.unwrap_or_else(|_| {
                    let budget = ANSWER_BUDGET.as_millis();
                    Err(Error::unavailable(format!("no answer within {budget} ms")))
                });
                if answer.is_err() {
                    *multiplexed = None;
                }
                answer.map_err(|error| format!("{}:{}: {error}", address.0, address.1))
            }
        });
        let answers = join_all(asked).await;
        let count = answers.len();
        let (mut named, mut faults) = (Vec::new(), Vec::new());
        for answer in answers {
            match answer {
                Ok(answer) => named.push(answer),
                Err(fault) => faults.push(fault),
            }
        }
        if named.len() <= count / 2 {
            let (answered, faults) = (named.len(), faults.join("; "));
            return Err(Error::unavailable(format!(
                "{answered} of {count} Sentinels answer, which is no majority: {faults}"
            )));
        }
        let first = named.first().cloned();
        let latest = match crate::base::mutation::is_active("first-sentinels-answer") {
            true => first,
            false => named.into_iter().max_by_key(|named| named.epoch),
        };
        latest.ok_or_else(|| Error::unavailable("no Sentinel is named"))
    }

    /// Closes the connection once another server is the primary, or the majority of the Sentinels
    /// is away.
    pub(super) async fn watch(mut self, connection: &Connection, epoch: u64) -> Infallible {
        let mut missing: Option<Instant> = None;
        loop {
            match self.ask().await {
                Ok(named) if named.epoch > epoch => {
                    connection.has_moved(&self.sentinel.master);
                }
                Ok(_) => missing = None,
                Err(error) => {
                    let now = clock::now();
                    let since = *missing.get_or_insert(now);
                    if now.saturating_duration_since(since) >= MINORITY {
                        connection.give_up(|| error.to_string());
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = self.switched.notified() => {}
            }
        }
    }
}

/// Asks one Sentinel over its connection.
async fn answer(
    multiplexed: &mut Option<MultiplexedConnection>,
    config: &RedisConfig,
    sentinel: &SentinelConfig,
    (host, port): &(String, u16),
    switched: Arc<Notify>,
) -> Result<SentinelAnswer, Error> {
    if multiplexed.is_none() {
        let config = RedisConfig {
            db: 0,
            username: None,
            password: sentinel.password.clone(),
            ..config.settings_at(host, *port)
        };
        *multiplexed = Some(connect(&config, switched).await?);
    }
    let Some(multiplexed) = multiplexed else {
        return Err(Error::unavailable("not connected"));
    };
    let mut both = redis::pipe();
    both.cmd("SENTINEL").arg("MASTER").arg(&sentinel.master);
    both.cmd("SENTINEL").arg("REPLICAS").arg(&sentinel.master);
    type Fields = HashMap<String, String>;
    let answered = both.query_async(multiplexed).await;
    let (primary, replicas): (Fields, Vec<Fields>) = answered.map_err(|error| {
        let error = described(error);
        match error.to_string().contains("No such master") {
            true => Error::unavailable(format!(
                "it knows no primary of the name `{}`; correct REDIS_SENTINEL_MASTER",
                sentinel.master
            )),
            false => error,
        }
    })?;
    let address =
        |fields: &Fields| Some((fields.get("ip")?.clone(), fields.get("port")?.parse().ok()?));
    let epoch = primary
        .get("config-epoch")
        .and_then(|epoch| epoch.parse().ok());
    let (Some((host, port)), Some(epoch)) = (address(&primary), epoch) else {
        return Err(Error::unavailable("it does not say where the primary is"));
    };
    Ok(SentinelAnswer {
        host,
        port,
        epoch,
        others: replicas.iter().filter_map(address).collect(),
    })
}

async fn connect(
    config: &RedisConfig,
    switched: Arc<Notify>,
) -> Result<MultiplexedConnection, Error> {
    let mut last = Error::unavailable("it has no address");
    for address in address::of(config).await? {
        let switched = Arc::clone(&switched);
        let on_push = move |push: PushInfo| {
            if matches!(push.kind, PushKind::Message | PushKind::Disconnection) {
                switched.notify_one();
            }
        };
        match dial(config, address, on_push).await {
            Ok((mut multiplexed, is_resp3)) => {
                if is_resp3 {
                    // If this fails, the next round learns of a failover.
                    let _ = multiplexed.subscribe(SWITCHED).await;
                }
                return Ok(multiplexed);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Holds a fence until the server is no primary any more, can't answer anybody, or the time is
/// over.
pub(super) async fn look_after(config: RedisConfig, fence: Fence) {
    let end = clock::now() + FENCE;
    while clock::now() < end {
        match tokio::time::timeout(ANSWER_BUDGET, role_at(&config)).await {
            Ok(Ok(role)) if role != "master" => break,
            Ok(Err(error)) if is_refusal(&error) => break,
            _ => {}
        }
        tokio::time::sleep(FENCE_PAUSE).await;
    }
    drop(fence);
}

async fn role_at(config: &RedisConfig) -> Result<String, Error> {
    let mut last = Error::unavailable("it has no address");
    for address in address::of(config).await? {
        match dial(config, address, |_| {}).await {
            Ok((mut multiplexed, _)) => {
                let mut info = redis::cmd("INFO");
                info.arg("replication");
                let info: String = info
                    .query_async(&mut multiplexed)
                    .await
                    .map_err(described)?;
                return Ok(info_field(&info, "role").unwrap_or("master").to_owned());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether nobody can connect: the process is gone, or it is loading its data and answers no reads.
fn is_refusal(error: &Error) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    text.contains("connection refused") || text.starts_with("loading")
}
