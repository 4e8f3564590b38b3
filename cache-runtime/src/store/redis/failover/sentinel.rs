//! Asks Sentinels which server is the primary, and watches that it still is.
//!
//! All of them are asked, and the answer with the highest epoch counts: the first usable one may
//! come from a Sentinel that was cut off. Without answers of the majority nothing is served, since
//! a failover may have taken place on the other side.
//!
//! After a failover the former primary goes on as if nothing had happened, for ten seconds if the
//! failover was asked for by hand. So an answer is valid for a short time only. A process that
//! finds a new primary does not use it before the answers of other processes are no longer valid.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind};
use tokio::sync::Notify;

use super::super::connection::Connection;
use super::super::connection::address;
use super::super::connection::dial::dial;
use super::super::connection::errors::{answers_nobody, described, is_login_refused};
use super::super::reply::info_field;
use super::confirmation::{ANSWER_BUDGET, Asked, INTERVAL, RETRY, VALID};
use crate::base::clock::{self, Instant};
use crate::base::error::Error;
use crate::base::join;
use crate::config::{RedisConfig, SentinelConfig};

/// How long Sentinels may take to tell each other of a failover. They do so at once, and every two
/// seconds (`SENTINEL_PUBLISH_PERIOD`).
const TOLD: Duration = Duration::from_secs(2);
/// How long after a failover no other process uses the former primary any more.
const LEFT: Duration = TOLD.saturating_add(VALID);
/// A primary of this age needs no wait: with room for the clocks of the Sentinels.
const CERTAINLY_LEFT: Duration = LEFT.saturating_add(Duration::from_secs(2));
const ROLE_PAUSE: Duration = Duration::from_millis(10);
/// The message of a Sentinel when another server has become the primary.
const SWITCHED: &str = "+switch-master";
/// How long the others may take to learn of a failover from the Sentinel that made it.
const LEARNT: Duration = Duration::from_secs(10);

/// The latest failover that any Sentinel has told of, over all connections of this process.
///
/// The Sentinel that made the failover knows of it first. If it then does not answer in time, the
/// majority still names the former primary.
#[derive(Debug, Default)]
pub(crate) struct LatestEpoch(Mutex<Option<(u64, Instant)>>);

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
pub(crate) struct SentinelAnswer {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The number of failovers.
    pub(crate) epoch: u64,
    /// The other servers. One of them may have been the primary.
    pub(crate) others: Vec<(String, u16)>,
    /// How long the server has been the primary, at least.
    pub(crate) age: Duration,
}

impl SentinelAnswer {
    /// Whether it names another server than an earlier answer, or is of a later failover.
    fn replaces(&self, earlier: &Self) -> bool {
        self.epoch > earlier.epoch || self.epoch == earlier.epoch && !self.is_at(earlier)
    }

    /// Whether it says that the server of an earlier answer, which it does not replace, still is
    /// the primary.
    fn confirms(&self, earlier: &Self) -> bool {
        self.is_at(earlier) || crate::base::mutation::is_active("older-failover-confirms")
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
pub(crate) struct Sentinels {
    config: RedisConfig,
    sentinel: SentinelConfig,
    connections: Vec<Option<MultiplexedConnection>>,
    switched: Arc<Notify>,
    latest: Arc<LatestEpoch>,
}

impl Sentinels {
    /// `None` where none are configured.
    pub(crate) fn of(config: &RedisConfig, latest: &Arc<LatestEpoch>) -> Option<Self> {
        let sentinel = config.sentinel.clone()?;
        Some(Self {
            connections: vec![None; sentinel.addresses.len()],
            config: config.clone(),
            sentinel,
            switched: Arc::default(),
            latest: Arc::clone(latest),
        })
    }

    /// The primary to connect to, and when the Sentinels were asked.
    ///
    /// # Errors
    /// As `ask`, and if those that answer do not know of the last failover yet.
    pub(crate) async fn primary(&mut self) -> Result<(SentinelAnswer, Asked), Error> {
        let asked = Asked::now();
        let named = self.ask(None).await?;
        if !self.latest.admits(named.epoch) {
            let text = "the Sentinels that answer do not know of the last failover yet";
            return Err(Error::unavailable(text));
        }
        self.latest.note(named.epoch);
        Ok((named, asked))
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
                let answer = crate::base::time::timeout(ANSWER_BUDGET, answer).await;
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
        let answers = join::all(asked).await;
        let count = answers.len();
        let (mut named, mut faults) = (Vec::new(), Vec::new());
        for answer in answers {
            match answer {
                Ok(answer) => named.push(answer),
                Err(fault) => faults.push(fault),
            }
        }
        if named.len() <= count / 2 {
            // It is their own login, and not that of the servers.
            let hint = match faults.iter().any(|fault| is_login_refused(fault)) {
                true => "; correct REDIS_SENTINEL_PASSWORD and REDIS_SENTINEL_USERNAME",
                false => "",
            };
            let (answered, faults) = (named.len(), faults.join("; "));
            return Err(Error::unavailable(format!(
                "{answered} of {count} Sentinels name a primary, which is no majority: {faults}{hint}"
            )));
        }
        latest(named, before).ok_or_else(|| Error::unavailable("no Sentinel is named"))
    }

    /// Confirms the connection as long as the Sentinels name its server. Closes it once another
    /// server is the primary, or the majority of the Sentinels is away.
    pub(crate) async fn watch(
        mut self,
        connection: &Connection,
        primary: SentinelAnswer,
    ) -> Infallible {
        let mut missing: Option<Instant> = None;
        loop {
            let asked = Asked::now();
            let fault = match self.ask(Some(&primary)).await {
                Ok(named) if named.replaces(&primary) => {
                    self.latest.note(named.epoch);
                    connection.has_moved(&self.sentinel.master);
                    None
                }
                Ok(named) if named.confirms(&primary) => {
                    connection.state.confirmation.confirm(asked);
                    missing = None;
                    None
                }
                // Those that know of the last failover do not answer, or all were set up anew.
                Ok(named) => Some(format!(
                    "the Sentinels that answer name {}:{}, by an older failover",
                    named.host, named.port
                )),
                Err(error) => Some(error.to_string()),
            };
            let pause = if fault.is_none() { INTERVAL } else { RETRY };
            if let Some(fault) = fault {
                let now = clock::now();
                let since = *missing.get_or_insert(now);
                if now.saturating_duration_since(since) >= VALID {
                    connection.give_up(|| fault);
                }
            }
            tokio::select! {
                () = crate::base::time::sleep(pause) => {}
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
            username: sentinel.username.clone(),
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
    let number = |field: &str| primary.get(field).and_then(|it| it.parse().ok());
    let shown = address(&primary);
    let named = match crate::base::mutation::is_active("sentinel-names-who-was-primary") {
        true => shown.clone(),
        false => named,
    };
    let (Some((host, port)), Some(epoch)) = (named, number("config-epoch")) else {
        return Err(Error::unavailable("it does not say where the primary is"));
    };
    // While a failover is being made, the time is that of the former primary.
    let is_over = shown.as_ref() == Some(&(host.clone(), port));
    let age = number("role-reported-time").filter(|_| is_over);
    let others = replicas.iter().filter_map(address).chain(shown);
    Ok(SentinelAnswer {
        others: others.filter(|it| (&it.0, it.1) != (&host, port)).collect(),
        host,
        port,
        epoch,
        age: Duration::from_millis(age.unwrap_or(0)),
    })
}

async fn connect(
    config: &RedisConfig,
    switched: Arc<Notify>,
) -> Result<MultiplexedConnection, Error> {
    let mut last = address::no_address(config);
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

/// Returns once no process uses a server other than the one that was named. Either all others say
/// that they are replicas, or can't answer anybody, or the answers that named them are no longer
/// valid.
///
/// `former` is the primary that this process has used. A Sentinel that has just started, or was
/// reset, does not list it. If nobody knows any other server, only the time remains.
pub(crate) async fn former_primaries_left(
    config: &RedisConfig,
    named: &SentinelAnswer,
    former: Option<&(String, u16)>,
) {
    if named.age >= CERTAINLY_LEFT || crate::base::mutation::is_active("former-primary-not-awaited")
    {
        return;
    }
    let mut others: Vec<_> = named.others.iter().collect();
    if !crate::base::mutation::is_active("unlisted-primary-not-awaited") {
        let is_named = |it: &(String, u16)| it.0 == named.host && it.1 == named.port;
        others.extend(former.filter(|it| !is_named(it) && !named.others.contains(it)));
        if others.is_empty() {
            return crate::base::time::sleep(LEFT).await;
        }
    }
    let others = others.into_iter();
    let left = others.map(|(host, port)| is_left(config.settings_at(host, *port)));
    // A timeout is the usual end where a former primary is cut off.
    let _ = crate::base::time::timeout(LEFT, join::all(left)).await;
}

/// Returns once this server is no primary any more, or can't answer anybody.
///
/// A Sentinel that makes a server a replica closes its connections in the same transaction.
async fn is_left(config: RedisConfig) {
    let mut kept = None;
    loop {
        let asked = role_at(&config, kept.take());
        match crate::base::time::timeout(ANSWER_BUDGET, asked).await {
            Ok(Ok((role, _))) if role != "master" => return,
            Ok(Ok((_, multiplexed))) => kept = Some(multiplexed),
            Ok(Err(error)) if answers_nobody(&error) => return,
            _ => {}
        }
        crate::base::time::sleep(ROLE_PAUSE).await;
    }
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
    let mut last = address::no_address(config);
    for address in address::of(config).await? {
        match dial(config, address, |_| {}).await {
            Ok((multiplexed, _)) => return Ok(multiplexed),
            Err(error) => last = error,
        }
    }
    Err(last)
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
            age: Duration::ZERO,
        }
    }

    #[test]
    fn another_server_or_a_later_failover_replaces_the_primary() {
        let primary = answer(1, 5);
        assert!(answer(2, 6).replaces(&primary) && answer(1, 6).replaces(&primary));
        assert!(answer(2, 5).replaces(&primary));
        assert!(!answer(1, 5).replaces(&primary) && !answer(2, 4).replaces(&primary));
        // Sentinels that were set up anew confirm only what they name.
        assert!(answer(1, 4).confirms(&primary) && !answer(2, 4).confirms(&primary));
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
