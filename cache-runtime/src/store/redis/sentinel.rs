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
use parking_lot::Mutex;
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
/// How long the others may take to learn of a failover from the Sentinel that made it.
const LEARNT: Duration = Duration::from_secs(10);

/// The latest failover that any Sentinel has told of, over all connections of this process.
///
/// The Sentinel that made the failover knows of it first. If it then does not answer in time, the
/// majority still names the former primary.
#[derive(Debug, Default)]
pub(super) struct LatestEpoch(Mutex<Option<(u64, Instant)>>);

impl LatestEpoch {
    fn note(&self, epoch: u64) {
        let mut latest = self.0.lock();
        if latest.is_none_or(|(known, _)| known <= epoch) {
            *latest = Some((epoch, clock::now()));
        }
    }

    /// Whether an answer is as new as what was told before. Sentinels that were set up anew begin
    /// with the first epoch again, so this counts for a while only.
    fn admits(&self, epoch: u64) -> bool {
        let now = clock::now();
        let is_recent = |at: Instant| now.saturating_duration_since(at) < LEARNT;
        let recent = self.0.lock().filter(|(_, at)| is_recent(*at));
        recent.is_none_or(|(known, _)| epoch >= known)
    }
}

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

impl SentinelAnswer {
    /// Whether it names another server than an earlier answer, or is of a later failover.
    fn replaces(&self, earlier: &Self) -> bool {
        self.epoch > earlier.epoch || self.epoch == earlier.epoch && !self.is_at(earlier)
    }

    fn is_at(&self, other: &Self) -> bool {
        if crate::base::mutation::is_active("sentinels-epoch-alone") {
            return true;
        }
        self.host == other.host && self.port == other.port
    }
}

/// The latest of the answers; of several with one epoch that which names the same server as before,
/// since Sentinels may have different names for it.
fn latest(answers: Vec<SentinelAnswer>, before: Option<&SentinelAnswer>) -> Option<SentinelAnswer> {
    if crate::base::mutation::is_active("first-sentinels-answer") {
        return answers.into_iter().next();
    }
    let is_same = |it: &SentinelAnswer| before.is_some_and(|before| it.is_at(before));
    answers.into_iter().max_by_key(|it| (it.epoch, is_same(it)))
}

/// Connections to all Sentinels, made when they are needed.
pub(super) struct Sentinels {
    config: RedisConfig,
    sentinel: SentinelConfig,
    connections: Vec<Option<MultiplexedConnection>>,
    switched: Arc<Notify>,
    latest: Arc<LatestEpoch>,
}

impl Sentinels {
    /// `None` where none are configured.
    pub(super) fn of(config: &RedisConfig, latest: &Arc<LatestEpoch>) -> Option<Self> {
        let sentinel = config.sentinel.clone()?;
        Some(Self {
            connections: vec![None; sentinel.addresses.len()],
            config: config.clone(),
            sentinel,
            switched: Arc::default(),
            latest: Arc::clone(latest),
        })
    }

    /// The primary to connect to.
    ///
    /// # Errors
    /// As `ask`, and if those that answer have not heard of the last failover.
    pub(super) async fn primary(&mut self) -> Result<SentinelAnswer, Error> {
        let named = self.ask(None).await?;
        if !self.latest.admits(named.epoch) {
            let text = "the Sentinels that answer have not heard of the last failover";
            return Err(Error::unavailable(text));
        }
        self.latest.note(named.epoch);
        Ok(named)
    }

    /// Asks all of them; `before` is the primary in use.
    ///
    /// # Errors
    /// If fewer than the majority answer, or none of them knows the name.
    async fn ask(&mut self, before: Option<&SentinelAnswer>) -> Result<SentinelAnswer, Error> {
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
        latest(named, before).ok_or_else(|| Error::unavailable("no Sentinel is named"))
    }

    /// Closes the connection once another server is the primary, or the majority of the Sentinels
    /// is away.
    pub(super) async fn watch(
        mut self,
        connection: &Connection,
        primary: SentinelAnswer,
    ) -> Infallible {
        let mut missing: Option<Instant> = None;
        loop {
            match self.ask(Some(&primary)).await {
                Ok(named) if named.replaces(&primary) => {
                    self.latest.note(named.epoch);
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
    // A Sentinel that is making a failover raises the epoch when the new primary is promoted, and
    // replaces the address in `MASTER` and `REPLICAS` at the end. Only `GET-MASTER-ADDR-BY-NAME`
    // names the new primary from then on. It is asked last: an old address never comes with the new
    // epoch.
    let mut all = redis::pipe();
    for command in ["MASTER", "REPLICAS", "GET-MASTER-ADDR-BY-NAME"] {
        all.cmd("SENTINEL").arg(command).arg(&sentinel.master);
    }
    type Fields = HashMap<String, String>;
    type Answers = (Fields, Vec<Fields>, Option<(String, u16)>);
    let answered = all.query_async(multiplexed).await;
    let (primary, replicas, named): Answers = answered.map_err(|error| {
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
    let named = match crate::base::mutation::is_active("sentinel-names-who-was-primary") {
        true => address(&primary),
        false => named,
    };
    let (Some((host, port)), Some(epoch)) = (named, epoch) else {
        return Err(Error::unavailable("it does not say where the primary is"));
    };
    let others = std::iter::once(&primary).chain(&replicas);
    let others = others.filter_map(address);
    Ok(SentinelAnswer {
        others: others.filter(|it| (&it.0, it.1) != (&host, port)).collect(),
        host,
        port,
        epoch,
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
    let mut kept = None;
    while clock::now() < end {
        let asked = role_at(&config, kept.take());
        match tokio::time::timeout(ANSWER_BUDGET, asked).await {
            Ok(Ok((role, _))) if role != "master" => break,
            Ok(Ok((_, multiplexed))) => kept = Some(multiplexed),
            Ok(Err(error)) if is_refusal(&error) => break,
            _ => {}
        }
        tokio::time::sleep(FENCE_PAUSE).await;
    }
    drop(fence);
}

/// Asks a server for its role, over this connection or a new one, which is returned.
async fn role_at(
    config: &RedisConfig,
    kept: Option<MultiplexedConnection>,
) -> Result<(String, MultiplexedConnection), Error> {
    let mut multiplexed = match kept {
        Some(kept) => kept,
        None => dial_any(config).await?,
    };
    let mut info = redis::cmd("INFO");
    info.arg("replication");
    let info: String = info
        .query_async(&mut multiplexed)
        .await
        .map_err(described)?;
    let role = info_field(&info, "role").unwrap_or("master").to_owned();
    Ok((role, multiplexed))
}

async fn dial_any(config: &RedisConfig) -> Result<MultiplexedConnection, Error> {
    let mut last = Error::unavailable("it has no address");
    for address in address::of(config).await? {
        match dial(config, address, |_| {}).await {
            Ok((multiplexed, _)) => return Ok(multiplexed),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(port: u16, epoch: u64) -> SentinelAnswer {
        SentinelAnswer {
            host: "redis".into(),
            port,
            epoch,
            others: Vec::new(),
        }
    }

    #[test]
    fn another_server_or_a_later_failover_replaces_the_primary() {
        let primary = answer(1, 5);
        assert!(answer(2, 6).replaces(&primary) && answer(1, 6).replaces(&primary));
        assert!(answer(2, 5).replaces(&primary));
        assert!(!answer(1, 5).replaces(&primary) && !answer(2, 4).replaces(&primary));
        // As long as one of the latest answers names it, it stays.
        let answers = || vec![answer(1, 5), answer(2, 5), answer(3, 4)];
        assert_eq!(latest(answers(), Some(&primary)), Some(primary));
        assert_eq!(latest(answers(), None).map(|it| it.epoch), Some(5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_from_before_a_failover_counts_again_after_a_while() {
        let epochs = LatestEpoch::default();
        assert!(epochs.admits(0));
        epochs.note(7);
        epochs.note(6);
        assert!(epochs.admits(7) && epochs.admits(8) && !epochs.admits(6));
        // Sentinels that were set up anew.
        tokio::time::advance(LEARNT).await;
        assert!(epochs.admits(0));
    }
}
