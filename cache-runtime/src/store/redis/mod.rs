//! The shared store: Redis or Valkey, 6.2 and later.

mod address;
mod batcher;
mod breaker;
mod dial;
mod errors;
mod health;
mod heartbeat;
mod limits;
mod link;
mod listeners;
mod mget;
mod misplaced;
mod probe;
mod read_path;
mod reads;
mod reply;
mod scripts;
mod set_aside;
mod steps;
mod stored;
mod supervisor;
mod survey;
mod tracking;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use redis::FromRedisValue;
use tokio::runtime::Handle;
use tokio::sync::watch;

#[cfg(feature = "testing")]
pub(crate) use self::address::given;
use self::health::Health;
use self::limits::{REMOVE_STEP, STEP, STRETCH, TRACKED_REMOVE_STEP, WAITED_WALK_STEP, WALK_STEP};
use self::link::Link;
use self::reply::{millis, miscounted};
use self::scripts::Lua;
use self::supervisor::{Keeper, Links};
use self::tracking::{Tracker, Tracking};
use super::{
    Circuit, ConnectionWatch, Fill, Filled, Form, Inquiry, Intended, Intent, Invalidated,
    Invalidation, LeaseReply, LeaseRequest, Look, Matching, Probe, ServerFacts, Store, Survey,
    Word,
};
use crate::base::background::supervised;
use crate::base::clock::{self, Millis};
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::base::policy::generation_ttl;
use crate::config::{CacheConfig, RedisConfig};
use crate::local::Local;
use crate::protocol::glob;

/// Entries and generations in Redis.
pub struct RedisStore {
    links: Arc<Links>,
    local: Option<Arc<Local>>,
    budget: Duration,
    default_generation_ttl: Duration,
    closing: watch::Sender<bool>,
    redis: RedisConfig,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("host", &self.redis.host)
            .field("port", &self.redis.port)
            .field("connected", &self.links.is_connected())
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Starts to connect, and returns after the first attempt whether or not it succeeded. The connection is
    /// kept, and made again for ever, by a task on `background`.
    pub async fn connect(redis: &RedisConfig, config: &CacheConfig, background: &Handle) -> Self {
        let links = Arc::new(Links::default());
        let (closing, on_closing) = watch::channel(false);
        let (attempted, mut first_attempt) = watch::channel(false);
        let local = (config.local_bytes > 0)
            .then(|| Arc::new(Local::new(config.local_bytes, config.local_max_staleness)));
        let tracking = local
            .as_ref()
            .map(|local| Tracking::new(Arc::clone(local), &config.namespace));
        if let Some(tracking) = &tracking {
            let (links, tracking) = (Arc::clone(&links), tracking.clone());
            let (budget, closing) = (config.command_budget, on_closing.clone());
            background.spawn(supervised("heartbeat", move || {
                let (links, tracking) = (Arc::clone(&links), tracking.clone());
                heartbeat::keep_beating(links, tracking, budget, closing.clone())
            }));
        }
        let keeper = Keeper {
            config: redis.clone(),
            trust_restart: config.trust_restart,
            health: Health::new(
                &config.key_space().generation("probe"),
                config.command_budget,
            ),
            tracking,
            misplaced: Arc::default(),
            set_aside: Arc::default(),
            budget: config.command_budget,
            application: supervisor::driving_runtime(),
        };
        let kept = Arc::clone(&links);
        background.spawn(supervised("connection", move || {
            let (links, keeper) = (Arc::clone(&kept), keeper.clone());
            supervisor::keep(links, keeper, attempted.clone(), on_closing.clone())
        }));
        // An error would mean that the task is gone, and there is nothing to wait for.
        let _ = first_attempt.wait_for(|attempted| *attempted).await;
        Self {
            links,
            local,
            budget: config.command_budget,
            default_generation_ttl: generation_ttl(config.default_ttl),
            closing,
            redis: redis.clone(),
        }
    }

    /// The copies in this process, if there are any.
    pub(crate) fn local(&self) -> Option<Arc<Local>> {
        self.local.clone()
    }

    /// What this process has changed, as the server has just acknowledged. It takes effect on the copies here before
    /// anybody is told; the server's push of it comes at any time.
    fn changed<'k>(&self, keys: impl IntoIterator<Item = &'k str>) {
        if let Some(local) = &self.local {
            local.forget(keys);
        }
    }

    async fn script<T: FromRedisValue>(
        &self,
        link: &Link,
        script: &Lua,
        keys: impl IntoIterator<Item = &str>,
        args: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<T, Error> {
        let mode = link.capabilities.scripts;
        link.ask(self.budget, async |connection| {
            script.run(connection, mode, keys, args).await
        })
        .await
    }

    /// The next step of a walk over the keys that match; `None` when it is over. A step may be empty.
    async fn scan(&self, link: &Link, walk: &mut Walk) -> Result<Option<Vec<String>>, Error> {
        let Some(cursor) = walk.cursor.take() else {
            return Ok(None);
        };
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(&walk.pattern)
            .arg("COUNT")
            .arg(walk.step);
        let (next, keys): (String, Vec<Vec<u8>>) = link
            .ask(self.budget, async |connection| {
                scan.query_async(connection).await
            })
            .await?;
        walk.cursor = (next != "0").then_some(next);
        // A key that is not UTF-8 is not one of ours.
        Ok(Some(
            keys.into_iter()
                .filter_map(|key| String::from_utf8(key).ok())
                .collect(),
        ))
    }

    async fn db_size(&self, link: &Link) -> Result<u64, Error> {
        link.ask(self.budget, async |connection| {
            redis::cmd("DBSIZE").query_async(connection).await
        })
        .await
    }

    async fn announce(&self, mode: &str, intent: &Intent) -> Result<Intended, Error> {
        let link = self.links.current()?;
        let rows = intent.rows.iter().map(|row| row.key.as_str());
        let generations = intent.rows.iter().map(|row| &row.whole).chain(&intent.deps);
        let keys = rows.chain(generations.clone().map(|dep| dep.key()));
        let args = [
            intent.rows.len().to_string().into_bytes(),
            millis(self.default_generation_ttl),
            intent.token.to_string().into_bytes(),
            millis(intent.length),
            mode.into(),
        ];
        let nonces = generations
            .clone()
            .map(|_| Nonce::fresh().to_string().into_bytes());
        let args = args.into_iter().chain(nonces);
        let (at, on_whole) = self.script(&link, &scripts::INTEND, keys, args).await?;
        self.changed(intent.rows.iter().map(|row| row.key.as_str()));
        self.changed(intent.deps.iter().map(|dep| dep.key()));
        if on_whole {
            self.changed(intent.rows.iter().map(|row| row.whole.key()));
        }
        Ok(Intended {
            at: Millis(at),
            on_whole,
        })
    }
}

/// A walk over the keyspace, in steps.
struct Walk {
    pattern: String,
    /// Where the next step begins; `None` after the last.
    cursor: Option<String>,
    /// How many keys the server looks at in one step.
    step: usize,
}

impl Walk {
    fn new(pattern: String, is_leisurely: bool) -> Self {
        Self {
            pattern,
            cursor: Some("0".into()),
            step: match is_leisurely {
                true => WALK_STEP,
                false => WAITED_WALK_STEP,
            },
        }
    }
}

#[async_trait]
impl Store for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn form(&self) -> Form {
        Form::Encoded
    }

    fn circuit(&self) -> Circuit {
        self.links.circuit()
    }

    fn reason(&self) -> Option<String> {
        match self.circuit() {
            Circuit::Closed => None,
            _ => self.links.failure(),
        }
    }

    fn connection(&self) -> Option<ConnectionWatch> {
        Some(self.links.connection.clone())
    }

    fn look<'s, 'p, 'l>(&'s self, probe: &'p Probe) -> BoxFuture<'l, Result<Look, Error>>
    where
        's: 'l,
        'p: 'l,
        Self: 'l,
    {
        self.look_at(probe)
    }

    async fn look_many(&self, probes: &[Probe]) -> Result<Vec<Look>, Error> {
        let mut looks = Vec::with_capacity(probes.len());
        for step in probes.chunks(STEP) {
            looks.append(&mut self.look_at_all(step).await?);
        }
        Ok(looks)
    }

    async fn lease(&self, probe: &Probe, request: &LeaseRequest) -> Result<LeaseReply, Error> {
        let mut replies = self.lease_step(&[(probe, request.clone())]).await?;
        replies.pop().ok_or_else(miscounted)
    }

    async fn lease_many(
        &self,
        requests: &[(&Probe, LeaseRequest)],
    ) -> Result<Vec<LeaseReply>, Error> {
        let mut replies = Vec::with_capacity(requests.len());
        for step in requests.chunks(STEP) {
            replies.append(&mut self.lease_step(step).await?);
        }
        Ok(replies)
    }

    async fn listen(&self, key: &str) -> Result<Option<Word>, Error> {
        self.links.current()?.listen(key, self.budget).await
    }

    async fn renew(&self, key: &str, token: Nonce, length: Duration) -> Result<bool, Error> {
        let renewed = self.renew_step(std::iter::once((key, token)), length);
        Ok(renewed.await?.contains(&true))
    }

    async fn renew_many(&self, leases: &[(String, Nonce)], length: Duration) -> Result<(), Error> {
        for step in leases.chunks(STEP) {
            let step = step.iter().map(|(key, token)| (key.as_str(), *token));
            self.renew_step(step, length).await?;
        }
        Ok(())
    }

    async fn release(&self, key: &str, token: Nonce) -> Result<(), Error> {
        let link = self.links.current()?;
        let args = [token.to_string().into_bytes()];
        self.script::<u8>(&link, &scripts::RELEASE, [key], args)
            .await
            .map(drop)
    }

    async fn fill(&self, probe: &Probe, fill: Fill) -> Result<Filled, Error> {
        let mut filled = self.fill_step(vec![(probe, fill)]).await?;
        filled.pop().ok_or_else(miscounted)
    }

    async fn fill_many(&self, fills: Vec<(&Probe, Fill)>) -> Result<Vec<Filled>, Error> {
        let mut filled = Vec::with_capacity(fills.len());
        let mut fills = fills.into_iter().peekable();
        while fills.peek().is_some() {
            let step = fills.by_ref().take(STEP).collect();
            filled.append(&mut self.fill_step(step).await?);
        }
        Ok(filled)
    }

    async fn intend(&self, intent: &Intent) -> Result<Intended, Error> {
        self.announce("intend", intent).await
    }

    async fn renew_intent(&self, intent: &Intent) -> Result<Intended, Error> {
        self.announce("renew", intent).await
    }

    async fn prune(&self, probe: &Probe) -> Result<(), Error> {
        let link = self.links.current()?;
        let keys =
            std::iter::once(probe.key.as_str()).chain(probe.deps.iter().map(|dep| dep.key()));
        let nonces = probe
            .deps
            .iter()
            .map(|_| Nonce::fresh().to_string().into_bytes());
        let args = std::iter::once(millis(self.default_generation_ttl)).chain(nonces);
        self.script::<u8>(&link, &scripts::PRUNE, keys, args)
            .await?;
        self.changed([probe.key.as_str()]);
        self.changed(probe.deps.iter().map(|dep| dep.key()));
        Ok(())
    }

    async fn invalidate(&self, invalidation: &Invalidation) -> Result<Invalidated, Error> {
        let link = self.links.current()?;
        let kills: Vec<_> = invalidation.kills.iter().map(String::as_str).collect();
        let bumps: Vec<_> = invalidation.bumps.iter().map(|dep| dep.key()).collect();
        let withdraws: Vec<_> = invalidation
            .withdraws
            .iter()
            .map(Nonce::to_string)
            .collect();
        let mut done = Invalidated {
            at: Millis(0),
            removed: 0,
        };
        // Without any it is one round all the same.
        let rounds = withdraws.len().div_ceil(STEP).max(1);
        for round in 0..rounds {
            let withdraws = withdraws.iter().skip(round * STEP).take(STEP);
            let withdraws = withdraws.map(String::as_str).collect::<Vec<_>>().join(" ");
            let step = self.invalidate_in_steps(&link, &kills, &bumps, &withdraws);
            let step = step.await?;
            done = Invalidated {
                at: step.at,
                removed: done.removed + step.removed,
            };
        }
        Ok(done)
    }

    async fn remove_matching(&self, matching: &Matching) -> Result<u64, Error> {
        let link = self.links.current()?;
        if let Some(limit) = matching.unless_larger_than
            && self.db_size(&link).await? > limit
        {
            return Ok(0);
        }
        let which = if matching.derived_only {
            "derived"
        } else {
            "all"
        };
        let before = matching
            .stored_before
            .map_or(String::new(), |at| at.0.to_string());
        let mut removed = 0;
        let mut walk = Walk::new(matching.pattern.clone(), matching.is_leisurely);
        let mut began = clock::now();
        while let Some(keys) = self.scan(&link, &mut walk).await? {
            let step = match link.tracker().is_some_and(Tracker::is_on) {
                true => TRACKED_REMOVE_STEP,
                false if matching.is_leisurely => REMOVE_STEP,
                false => STEP,
            };
            for keys in keys.chunks(step) {
                let args = [which.into(), before.clone().into_bytes()];
                let keys = keys.iter().map(String::as_str);
                removed += self
                    .script::<u64>(&link, &scripts::REMOVE, keys.clone(), args)
                    .await?;
                // A sweep leaves what lives, and what it removes is dead by its generations already; the server says so, too.
                if matching.stored_before.is_none() {
                    self.changed(keys);
                }
            }
            let worked = began.elapsed();
            if matching.is_leisurely && worked >= STRETCH {
                tokio::time::sleep(worked).await;
                began = clock::now();
            }
        }
        Ok(removed)
    }

    async fn invalidate_namespace(&self, namespace: &str) -> Result<Millis, Error> {
        let link = self.links.current()?;
        let mut done = link.clock.now();
        let mut walk = Walk::new(format!("{}@gen:*", glob::literal(namespace)), false);
        while let Some(keys) = self.scan(&link, &mut walk).await? {
            for bumps in keys.chunks(STEP) {
                let bumps: Vec<_> = bumps.iter().map(String::as_str).collect();
                done = self.invalidate_on(&link, &[], &bumps, "").await?.at;
            }
        }
        Ok(done)
    }

    /// Asks by writing: who asks is about to invalidate something.
    async fn ping(&self) -> Result<(), Error> {
        let link = self.links.current()?;
        link.check_health().await
    }

    async fn facts(&self) -> Result<ServerFacts, Error> {
        let link = self.links.current()?;
        let total_keys = self.db_size(&link).await?;
        // Where INFO is not permitted there is less to say.
        let info: String = link
            .ask(self.budget, async |connection| {
                redis::cmd("INFO").query_async(connection).await
            })
            .await
            .unwrap_or_default();
        let number = |name| reply::info_field(&info, name).and_then(|value| value.parse().ok());
        Ok(ServerFacts {
            total_keys: Some(total_keys),
            used_memory: reply::info_field(&info, "used_memory_human").map(str::to_owned),
            uptime_seconds: number("uptime_in_seconds"),
            connected_clients: number("connected_clients"),
        })
    }

    async fn survey(&self, inquiry: &Inquiry) -> Result<Survey, Error> {
        self.surveyed(inquiry).await
    }

    async fn close(&self) {
        self.closing.send_replace(true);
    }
}
