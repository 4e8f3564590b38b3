//! Checks whether a server may be used: it takes writes, and it is the primary.
//!
//! A server that answers reads and refuses writes takes no invalidations, so its entries may be
//! stale. This happens with a full disk (`MISCONF`), with too few replicas (`NOREPLICAS`), during
//! `CLIENT PAUSE WRITE`, or for a user without the permission. A demoted primary keeps its
//! connections and goes on answering. So each process *writes* once a second, with the script of an
//! invalidation, and asks for the role and for the history that the server's data are of
//! (`master_replid`). A server gets another history when it was a replica for a moment, so its data
//! may be older ones of another server, and when its first replica connects. It writes a key of its
//! own among the generations. The key expires after the process has ended. The script also removes
//! an entry and replaces a row's generation, neither of which exists, so that a permission that
//! only these need is not missing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::join;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::super::reply::{info_field, millis};
use super::super::scripts::{INVALIDATE, ScriptMode, TRY};
use super::super::switches::SwitchList;
use super::errors::{NO_PRIMARY, is_refusal, refused_commands};
use super::probe::refuses_scripts;
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::base::paused::PauseGuard;
use crate::store::Fullness;

/// The pause between an answer and the next check. Together with the time of an answer it is a
/// second.
pub(crate) const INTERVAL: Duration = Duration::from_millis(750);

/// How long an answer may take, unless commands may take longer.
const ANSWER_BUDGET: Duration = Duration::from_millis(500);

/// The TTL of the key that is written.
const TIME_TO_LIVE: Duration = Duration::from_secs(60);

/// The check, and what it needs.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    /// The key that this process writes. `None` if there is no key that it could write, as on a
    /// node of a cluster none of whose slots is used.
    key: Arc<ArcSwapOption<String>>,
    /// For a node none of whose slots is used yet: a key in a slot that others say it has.
    named: Arc<ArcSwapOption<String>>,
    budget: Duration,
    /// Read with each check: the reads that operators have switched off for all processes.
    switches: Arc<SwitchList>,
    fullness: Arc<Fullness>,
}

/// Why a server can't be used.
#[derive(Debug)]
pub(crate) enum HealthError {
    /// It answers, and refuses writes.
    RefusesWrites(String),
    /// It runs no scripts in this mode.
    RunsNoScripts(String),
    /// It is not the primary, or did not answer.
    Unusable(String),
    /// Its data are of another history than when the connection was made.
    OtherHistory,
}

impl Health {
    /// `key` is the prefix of the key that is written; a random suffix tells processes apart.
    pub(crate) fn new(key: &str, command_budget: Duration, switches: Arc<SwitchList>) -> Self {
        Self {
            key: Arc::new(ArcSwapOption::from_pointee(format!(
                "{key}~{}",
                Nonce::fresh()
            ))),
            named: Arc::default(),
            budget: ANSWER_BUDGET.max(command_budget),
            switches,
            fullness: Arc::default(),
        }
    }

    /// The same, with this budget at most.
    pub(crate) fn within(mut self, budget: Duration) -> Self {
        self.budget = self.budget.min(budget);
        self
    }

    /// For a node of a cluster, before its slots are known.
    pub(crate) fn of_node(command_budget: Duration, of_cluster: &Self) -> Self {
        Self {
            key: Arc::default(),
            named: Arc::default(),
            budget: ANSWER_BUDGET.max(command_budget),
            // Only the node that has the list answers; the others redirect, which is no answer.
            switches: Arc::clone(&of_cluster.switches),
            fullness: Arc::default(),
        }
    }

    /// Writes another key from now on: one in a slot of the node that is used, otherwise one in a
    /// slot that others say it has, otherwise none.
    pub(crate) fn set_key(&self, key: Option<String>, named: Option<String>) {
        for (place, key) in [(&self.key, key), (&self.named, named)] {
            if place.load().as_deref() != key.as_ref() {
                place.store(key.map(Arc::new));
            }
        }
    }

    /// The key that this process writes, in a slot that is used.
    pub(crate) fn key(&self) -> Option<Arc<String>> {
        self.key.load_full()
    }

    /// The key that a check writes. The answer may be that another node has its slot.
    pub(crate) fn key_to_write(&self) -> Option<Arc<String>> {
        self.key().or_else(|| self.named.load_full())
    }

    /// Whether the server takes new entries.
    pub(crate) fn fullness(&self) -> &Fullness {
        &self.fullness
    }

    /// Finds out whether a server that was full has room again, by a write that needs some.
    /// Invalidations need none.
    pub(crate) async fn look_for_room(
        &self,
        multiplexed: &mut MultiplexedConnection,
        server: SocketAddr,
    ) {
        let Some(key) = self.key().filter(|_| self.fullness.is_full()) else {
            return;
        };
        let mut set = redis::cmd("SET");
        set.arg(format!("{key}~")).arg("").arg("PX").arg(1_000);
        let set = set.query_async::<Value>(multiplexed);
        if let Ok(Ok(_)) = crate::base::time::timeout(self.budget, set).await {
            self.fullness.has_room(server);
        }
    }

    /// Reads the list of switches. If there is no answer, the list stays as it was.
    pub(crate) async fn learn(&self, multiplexed: &mut MultiplexedConnection) {
        let read = self.switches.read(multiplexed);
        let _ = crate::base::time::timeout(self.budget, read).await;
    }

    /// Checks once. `history` is that of the server when the connection was made, if it has one.
    /// `reads` says whether to read as well: somebody's read was refused, and it is not known
    /// whether all are.
    pub(crate) async fn check(
        &self,
        multiplexed: &mut MultiplexedConnection,
        scripts: ScriptMode,
        history: Option<&str>,
        reads: bool,
        describe: impl Fn(RedisError) -> Error,
    ) -> Result<(), HealthError> {
        if crate::base::mutation::is_active("health-is-a-read") {
            return Ok(());
        }
        // A `required` write asks on its caller's runtime, whose time may be paused.
        let _held = PauseGuard::for_at_most(self.budget * 4);
        self.check_write(multiplexed, scripts, &describe).await?;
        if reads {
            self.check_read(multiplexed, &describe).await?;
        }
        self.check_role(multiplexed, history).await
    }

    /// Whether the server takes a write, and if it does not, whether it answers anything.
    async fn check_write(
        &self,
        multiplexed: &mut MultiplexedConnection,
        scripts: ScriptMode,
        describe: impl Fn(RedisError) -> Error,
    ) -> Result<(), HealthError> {
        let is_heard = AtomicBool::new(false);
        // Sent first, and answered first. During `CLIENT PAUSE WRITE` nothing that is sent after a
        // write over the same connection is answered, so only this tells such a server from one
        // that hangs. If an earlier write waits there, the next connection tells. The answer has
        // another form than that to the write, so it is never taken for it.
        let asked = async {
            // No such section, so the answer is empty. Everybody may ask who the server is.
            let info = redis::cmd("INFO").arg("nothing").to_owned();
            let told = info.query_async::<Value>(&mut multiplexed.clone()).await;
            let is_answer = told.is_ok() || told.is_err_and(|error| error.code().is_some());
            is_heard.store(is_answer, Ordering::Relaxed);
        };
        let mut writing = multiplexed.clone();
        let written = join(asked, self.write(&mut writing, scripts));
        let error = match crate::base::time::timeout(self.budget, written).await {
            Ok(((), Ok(()))) => return Ok(()),
            // The slot has moved to another node, which says nothing about this one.
            Ok(((), Err(error))) if is_elsewhere(&error) => return Ok(()),
            Ok(((), Err(error))) => error,
            Err(_) => {
                let text = self.no_answer("a write");
                let is_heard = is_heard.load(Ordering::Relaxed)
                    || crate::base::mutation::is_active("hung-is-reads-only");
                return Err(match is_heard {
                    true => HealthError::RefusesWrites(text),
                    false => HealthError::Unusable(text),
                });
            }
        };
        let is_demoted = error.code() == Some("READONLY");
        let is_lost = error.is_io_error() || error.is_connection_dropped();
        let answers_nothing = answers_nothing(error.code().unwrap_or_default());
        let runs_none = refuses_scripts(&error);
        let mut text = describe(error).to_string();
        if !runs_none && is_refusal(&text) {
            let refused = self.refused(multiplexed, scripts);
            if let Ok(Some(refused)) = crate::base::time::timeout(self.budget, refused).await {
                text = refused;
            }
        }
        Err(match is_demoted || is_lost || answers_nothing {
            true => HealthError::Unusable(text),
            false if runs_none => HealthError::RunsNoScripts(text),
            false => HealthError::RefusesWrites(text),
        })
    }

    /// Whether the user may read.
    async fn check_read(
        &self,
        multiplexed: &mut MultiplexedConnection,
        describe: impl Fn(RedisError) -> Error,
    ) -> Result<(), HealthError> {
        match crate::base::time::timeout(self.budget, self.read(multiplexed)).await {
            Ok(Err(error)) if !is_elsewhere(&error) => {
                Err(HealthError::Unusable(describe(error).to_string()))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(HealthError::Unusable(self.no_answer("a read"))),
        }
    }

    /// Whether the server is the primary, and its data are of this history.
    async fn check_role(
        &self,
        multiplexed: &mut MultiplexedConnection,
        history: Option<&str>,
    ) -> Result<(), HealthError> {
        let asked = crate::base::time::timeout(self.budget, replication(multiplexed)).await;
        let Ok(told) = asked else {
            let text = self.no_answer("the question for its role");
            return Err(HealthError::Unusable(text));
        };
        // Without permission to ask for the role, the write has to be enough.
        let Some(info) = told else {
            return Ok(());
        };
        let now = |field| info_field(&info, field);
        if now("role").is_some_and(|role| role != "master") {
            return Err(HealthError::Unusable(NO_PRIMARY.into()));
        }
        let is_another = now("master_replid").zip(history);
        match is_another.is_some_and(|(now, history)| now != history)
            && !crate::base::mutation::is_active("history-not-asked")
        {
            true => Err(HealthError::OtherHistory),
            false => Ok(()),
        }
    }

    fn no_answer(&self, to: &str) -> String {
        format!("{to} had no answer within {} ms", self.budget.as_millis())
    }

    /// Names the commands that the user may not run. The error of a script does not.
    async fn refused(
        &self,
        multiplexed: &mut MultiplexedConnection,
        scripts: ScriptMode,
    ) -> Option<String> {
        let absent = format!("{}~", self.key_to_write()?);
        let tried = TRY.run(multiplexed, scripts, [absent.as_str()], []);
        let answer: Vec<String> = tried.await.ok()?;
        let refused = refused_commands(&answer);
        let names = refused.join(", ");
        (!refused.is_empty()).then(|| format!("NOPERM: the user may not run {names}"))
    }

    /// Reads with the command of a lookup, which the user may not run any more.
    async fn read(&self, multiplexed: &mut MultiplexedConnection) -> Result<(), RedisError> {
        match self.key_to_write() {
            Some(key) if !crate::base::mutation::is_active("health-reads-nothing") => {
                let read = redis::cmd("MGET").arg(key.as_str()).to_owned();
                read.query_async::<Value>(multiplexed).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Writes with the script of an invalidation.
    async fn write(
        &self,
        multiplexed: &mut MultiplexedConnection,
        scripts: ScriptMode,
    ) -> Result<(), RedisError> {
        let Some(key) = self.key_to_write() else {
            return Ok(());
        };
        let (absent, nonce) = (format!("{key}~"), Nonce::fresh().to_string());
        let keys = [absent.as_str(), absent.as_str(), key.as_str()];
        let args = [
            b"1".into(),
            millis(TIME_TO_LIVE),
            Vec::new(),
            format!("?{nonce}").into(),
            nonce.clone().into(),
        ];
        let written: Result<(u64, u64), _> =
            match crate::base::mutation::is_active("health-writes-one-key") {
                false => INVALIDATE.run(multiplexed, scripts, keys, args).await,
                true => Err(RedisError::from((
                    ErrorKind::Server(ServerErrorKind::TryAgain),
                    "",
                ))),
            };
        match written {
            // The slot is being moved, and what is absent may be on the other node.
            Err(error) if error.code() == Some("TRYAGAIN") => {
                let args = [b"0".into(), millis(TIME_TO_LIVE), Vec::new(), nonce.into()];
                let key = [key.as_str()];
                let written: (u64, u64) = INVALIDATE.run(multiplexed, scripts, key, args).await?;
                let _ = written;
                Ok(())
            }
            written => written.map(drop),
        }
    }
}

/// Whether a server that gives this error answers no reads either.
fn answers_nothing(code: &str) -> bool {
    ["BUSY", "LOADING", "CLUSTERDOWN", "NOAUTH"].contains(&code)
}

/// Whether another node of the cluster has the key.
pub(crate) fn is_elsewhere(error: &RedisError) -> bool {
    matches!(error.code(), Some("MOVED" | "ASK" | "TRYAGAIN"))
}

/// The section `replication` of `INFO`: the role (`master`, `slave`, or `replica` in other
/// implementations) and its history; `None` without permission to ask.
async fn replication(multiplexed: &mut MultiplexedConnection) -> Option<String> {
    if crate::base::mutation::is_active("role-not-asked") {
        return None;
    }
    let asked = redis::cmd("INFO").arg("replication").to_owned();
    asked.query_async(multiplexed).await.ok()
}
