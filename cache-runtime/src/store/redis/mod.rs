//! The shared store: Redis or Valkey, 6.2 and later.

mod cluster;
mod connection;
mod diagnostics;
mod failover;
mod intents;
mod invalidations;
mod key_by_key;
mod limits;
mod logged_refusals;
mod one_server;
mod reads;
mod reply;
mod scripts;
mod sent;
mod slots;
mod switches;
mod tracking;
mod walk;
mod whole_resources;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::cluster::{Cluster, routed};
use self::connection::Connection;
#[cfg(feature = "testing")]
pub(crate) use self::connection::address::given;
use self::connection::connect_task::ConnectTask;
use self::connection::connections::Connections;
use self::connection::connector::driving_runtime;
use self::connection::health::Health;
use self::connection::supervisor_settings::SupervisorSettings;
use self::failover::recent::RecentInvalidations;
use self::failover::replay::Replay;
use self::limits::STEP;
use self::one_server::OneServer;
use self::reply::{millis, miscounted};
use self::switches::SwitchList;
use self::tracking::{Tracking, heartbeat};
use self::walk::server_info_of;
use self::whole_resources::WholeResources;
use super::{
    Circuit, ConnectionWatch, DiagnosticsRequest, EntryRef, Fill, Filled, Intent, IntentReply,
    Invalidated, Invalidation, KeyChange, LeaseReply, LeaseRequest, LookupReply,
    NamespaceInvalidated, PartlyInvalidated, Parts, Representation, ScanFilter, ServerDiagnostics,
    ServerInfo, Store,
};
use crate::base::background::supervised;
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::base::policy::generation_ttl;
use crate::config::{CacheConfig, RedisConfig};
use crate::local::Local;
use crate::protocol::generation::Dependency;

/// Entries and generations in Redis.
pub struct RedisStore {
    connections: Arc<Connections>,
    /// Set once the server is known to be a node of a cluster, or is configured as one. From then
    /// on it is used instead of `connections`.
    cluster: Arc<OnceLock<Arc<Cluster>>>,
    local: Option<Arc<Local>>,
    budget: Duration,
    default_generation_ttl: Duration,
    closing: watch::Sender<bool>,
    redis: RedisConfig,
    /// The server of `connections`, as scripts change it.
    one_server: Arc<OneServer>,
    switches: Arc<SwitchList>,
    /// The prefix of the keys that record for which loads a load waits (see `WAIT`).
    waits: String,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("host", &self.redis.host)
            .field("port", &self.redis.port)
            .field("connected", &self.connections.is_connected())
            .field("cluster", &self.cluster.get())
            .finish_non_exhaustive()
    }
}

/// Starts the task that checks whether Redis still reports changes of keys.
fn spawn_heartbeats(
    background: &Handle,
    connections: &Arc<Connections>,
    tracking: &Tracking,
    budget: Duration,
    closing: &watch::Receiver<bool>,
) {
    let (connections, tracking) = (Arc::clone(connections), tracking.clone());
    let closing = closing.clone();
    background.spawn(supervised("heartbeat", move || {
        let (connections, tracking) = (Arc::clone(&connections), tracking.clone());
        heartbeat::send_heartbeats(connections, tracking, budget, closing.clone())
    }));
}

/// Starts the task that repeats recent invalidations at a new primary.
fn spawn_replay(background: &Handle, replay: Replay, closing: watch::Receiver<bool>) {
    background.spawn(supervised("replay", move || {
        replay.clone().run(closing.clone())
    }));
}

/// The settings for the connection to a single server.
fn supervisor_settings(
    redis: &RedisConfig,
    config: &CacheConfig,
    background: &Handle,
    tracking: Option<Tracking>,
    switches: &Arc<SwitchList>,
) -> SupervisorSettings {
    let probe = config.key_space().generation("probe");
    SupervisorSettings {
        config: redis.clone(),
        trust_restart: config.trust_restart,
        health: Health::new(&probe, config.command_budget, Arc::clone(switches)),
        tracking,
        set_aside: Arc::default(),
        budget: config.command_budget,
        application: driving_runtime(),
        background: background.clone(),
        is_node: false,
        latest: Arc::default(),
        epoch: Arc::default(),
        confirmation: None,
    }
}

impl RedisStore {
    /// Starts to connect, and returns after the first attempt, successful or not. A task on
    /// `background` keeps the connection and replaces it whenever it is lost.
    ///
    /// # Cancel safety
    /// If dropped, that task ends.
    pub async fn connect(redis: &RedisConfig, config: &CacheConfig, background: &Handle) -> Self {
        let (closing, on_closing) = watch::channel(false);
        let (attempted, mut first_attempt) = watch::channel(false);
        let with_sentinels = redis.sentinel.is_some();
        let recent = with_sentinels.then(Arc::<RecentInvalidations>::default);
        let watch = ConnectionWatch::default();
        let connections = Connections::new(watch, attempted.clone(), recent.clone());
        let connections = Arc::new(connections);
        let local = (config.local_bytes > 0)
            .then(|| Arc::new(Local::new(config.local_bytes, config.local_max_staleness)));
        let tracking = local
            .as_ref()
            .map(|local| Tracking::new(Arc::clone(local), &config.namespace));
        let switches = Arc::new(SwitchList::new(&config.namespace));
        let default_generation_ttl = generation_ttl(config.default_ttl);
        let wholes = Arc::new(WholeResources::new(&config.namespace));
        let one_server = Arc::new(OneServer {
            connections: Arc::clone(&connections),
            local: local.clone(),
            budget: config.command_budget,
            default_generation_ttl,
            wholes: Arc::clone(&wholes),
        });
        if let Some(tracking) = &tracking {
            let budget = config.command_budget;
            spawn_heartbeats(background, &connections, tracking, budget, &on_closing);
        }
        if let Some(recent) = recent {
            let replay = Replay {
                server: Arc::clone(&one_server),
                recent,
                namespace: config.namespace.clone(),
            };
            spawn_replay(background, replay, on_closing.clone());
        }
        let cluster = Arc::new(OnceLock::new());
        let start = ConnectTask {
            connections: Arc::clone(&connections),
            cluster: Arc::clone(&cluster),
            settings: supervisor_settings(redis, config, background, tracking, &switches),
            config: config.clone(),
            wholes,
            attempted,
            closing: on_closing,
        };
        background.spawn(supervised("connection", move || start.clone().run()));
        // An error would mean that the task is gone, and there is nothing to wait for.
        let _ = first_attempt.wait_for(|attempted| *attempted).await;
        Self {
            connections,
            cluster,
            local,
            budget: config.command_budget,
            default_generation_ttl,
            closing,
            redis: redis.clone(),
            one_server,
            switches,
            waits: config.key_space().generation("wait:"),
        }
    }

    /// The cluster, if it is one.
    fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.get()
    }

    /// The local tier of this process, if there is one.
    pub(crate) fn local(&self) -> Option<Arc<Local>> {
        self.local.clone()
    }

    fn changed<'k>(&self, keys: impl IntoIterator<Item = &'k str>) {
        self.one_server.changed(keys);
    }

    fn confirmed(&self, connection: &Connection) -> Result<(), Error> {
        self.one_server.confirmed(connection)
    }
}

#[async_trait]
impl Store for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn representation(&self) -> Representation {
        Representation::Encoded
    }

    fn openings(&self) -> u64 {
        self.connections.openings()
    }

    fn circuit(&self) -> Circuit {
        match self.cluster() {
            Some(cluster) => cluster.circuit(),
            None => self.connections.circuit(),
        }
    }

    fn reason(&self) -> Option<String> {
        if let Some(cluster) = self.cluster() {
            return cluster.reason();
        }
        match self.circuit() {
            Circuit::Closed => self.connections.full(),
            _ => self.connections.failure(),
        }
    }

    fn connection(&self) -> Option<ConnectionWatch> {
        Some(self.connections.watch.clone())
    }

    async fn lookup(&self, entry_ref: &EntryRef) -> Result<LookupReply, Error> {
        self.lookup_boxed(entry_ref).await.map(|lookup| *lookup)
    }

    fn lookup_boxed<'s, 'p, 'l>(
        &'s self,
        entry_ref: &'p EntryRef,
    ) -> BoxFuture<'l, Result<Box<LookupReply>, Error>>
    where
        's: 'l,
        'p: 'l,
        Self: 'l,
    {
        match self.cluster() {
            None => self.lookup_one(entry_ref),
            Some(cluster) => cluster.lookup_one(entry_ref),
        }
    }

    async fn examine(&self, entry_ref: &EntryRef) -> Result<LookupReply, Error> {
        match self.cluster() {
            Some(cluster) => cluster.examine(entry_ref).await,
            None => self.examine_alone(entry_ref).await,
        }
    }

    async fn lookup_many(&self, entry_refs: &[EntryRef]) -> Result<Vec<LookupReply>, Error> {
        let mut lookups = Vec::with_capacity(entry_refs.len());
        for step in entry_refs.chunks(STEP) {
            lookups.append(&mut match self.cluster() {
                Some(cluster) => cluster.lookup_all(step).await?,
                None => self.lookup_all(step).await?,
            });
        }
        Ok(lookups)
    }

    async fn lease(
        &self,
        entry_ref: &EntryRef,
        request: &LeaseRequest,
    ) -> Result<LeaseReply, Error> {
        let mut replies = self.lease_step(&[(entry_ref, request.clone())]).await?;
        replies.pop().ok_or_else(miscounted)
    }

    async fn lease_many(
        &self,
        requests: &[(&EntryRef, LeaseRequest)],
    ) -> Result<Vec<LeaseReply>, Error> {
        let mut replies = Vec::with_capacity(requests.len());
        for step in requests.chunks(STEP) {
            replies.append(&mut self.lease_step(step).await?);
        }
        Ok(replies)
    }

    async fn watch_key(&self, key: &str) -> Result<Option<KeyChange>, Error> {
        if let Some(cluster) = self.cluster() {
            return cluster.watch_key(key).await;
        }
        self.connections
            .current()?
            .watch_key(key, self.budget)
            .await
    }

    async fn closes_cycle(
        &self,
        loads: &[Nonce],
        lease: Nonce,
        length: Duration,
    ) -> Result<bool, Error> {
        if self.cluster().is_some() {
            // The records of waiting loads would be on several servers.
            return Ok(false);
        }
        let connection = self.connections.current()?;
        let keys: Vec<String> = loads
            .iter()
            .map(|load| format!("{}{load}", self.waits))
            .collect();
        let tokens = loads.iter().map(|load| load.to_string().into_bytes());
        let args = [
            self.waits.as_bytes().to_vec(),
            lease.to_string().into_bytes(),
            millis(length),
        ];
        let keys = keys.iter().map(String::as_str);
        let found = self.one_server.script::<u8>(
            &connection,
            &scripts::WAIT,
            keys,
            args.into_iter().chain(tokens),
        );
        Ok(found.await? == 1)
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
        if let Some(cluster) = self.cluster() {
            return cluster.release(key, token).await;
        }
        let connection = self.connections.current()?;
        let args = [token.to_string().into_bytes()];
        self.one_server
            .script::<u8>(&connection, &scripts::RELEASE, [key], args)
            .await
            .map(drop)
    }

    async fn fill(&self, entry_ref: &EntryRef, fill: Fill) -> Result<Filled, Error> {
        let mut filled = self.fill_step(vec![(entry_ref, fill)]).await?;
        filled.pop().ok_or_else(miscounted)
    }

    async fn fill_many(&self, fills: Vec<(&EntryRef, Fill)>) -> Result<Vec<Filled>, Error> {
        let mut filled = Vec::with_capacity(fills.len());
        let mut fills = fills.into_iter().peekable();
        while fills.peek().is_some() {
            let step = fills.by_ref().take(STEP).collect();
            filled.append(&mut self.fill_step(step).await?);
        }
        Ok(filled)
    }

    async fn intend(&self, intent: &Intent) -> Result<IntentReply, Error> {
        self.announce_permitted("intend", intent).await
    }

    async fn renew_intent(&self, intent: &Intent) -> Result<IntentReply, Error> {
        self.announce_permitted("renew", intent).await
    }

    async fn prune(&self, entry_ref: &EntryRef) -> Result<(), Error> {
        match self.cluster() {
            Some(cluster) => cluster.prune(entry_ref).await,
            None => self.prune_alone(entry_ref).await,
        }
    }

    async fn invalidate(&self, invalidation: &Invalidation) -> Result<Invalidated, Error> {
        let Some(cluster) = self.cluster() else {
            return self.one_server.invalidate(invalidation).await;
        };
        let PartlyInvalidated { done, undone } = cluster.invalidate(invalidation).await;
        match undone {
            None => Ok(done),
            Some((_, error)) => Err(error),
        }
    }

    async fn invalidate_partly(&self, invalidation: &Invalidation) -> PartlyInvalidated {
        match self.cluster() {
            Some(cluster) => cluster.invalidate_permitted(invalidation).await,
            None => self.one_server.invalidate_permitted(invalidation).await,
        }
    }

    fn is_split(&self) -> bool {
        self.cluster().is_some()
    }

    async fn remove_matching(&self, filter: &ScanFilter) -> Result<u64, Error> {
        match self.cluster() {
            Some(cluster) => cluster.remove_matching(filter).await,
            None => self.remove_matching_alone(filter).await,
        }
    }

    async fn invalidate_namespace(&self, namespace: &str) -> Result<Millis, Error> {
        let Some(cluster) = self.cluster() else {
            return self.one_server.invalidate_namespace(namespace).await;
        };
        let done = cluster.invalidate_namespace(namespace, &Parts::All).await;
        match done.undone {
            None => Ok(done.at.unwrap_or(Millis(0))),
            Some((_, error)) => Err(error),
        }
    }

    async fn invalidate_namespace_partly(
        &self,
        namespace: &str,
        parts: &Parts,
    ) -> NamespaceInvalidated {
        if let Some(cluster) = self.cluster() {
            return cluster.invalidate_namespace(namespace, parts).await;
        }
        let result = self.invalidate_namespace(namespace).await;
        NamespaceInvalidated::all_or_nothing(result, parts)
    }

    fn part_of(&self, dep: &Dependency) -> u16 {
        match self.is_split() {
            true => routed(dep).1,
            false => 0,
        }
    }

    /// Checks by writing, since the caller is about to invalidate.
    async fn ping(&self) -> Result<(), Error> {
        if let Some(cluster) = self.cluster() {
            return cluster.ping().await;
        }
        let connection = self.connections.current()?;
        connection.check_health().await
    }

    async fn server_info(&self) -> Result<ServerInfo, Error> {
        if let Some(cluster) = self.cluster() {
            return cluster.server_info().await;
        }
        server_info_of(&*self.connections.current()?, self.budget).await
    }

    async fn diagnose(&self, request: &DiagnosticsRequest) -> Result<ServerDiagnostics, Error> {
        self.surveyed(request).await
    }

    fn switched_off(&self) -> Option<watch::Receiver<BTreeSet<String>>> {
        Some(self.switches.subscribe())
    }

    async fn switch(&self, target: &str, enabled: bool) -> Result<(), Error> {
        let known = self.switches.known().into_bytes();
        let args = [
            target.as_bytes().to_vec(),
            vec![b'0' + u8::from(enabled)],
            known,
            switches::longest(),
        ];
        let key = self.switches.key();
        let list: String = match self.cluster() {
            Some(cluster) => cluster.switch(key, args).await?,
            None => {
                let connection = self.connections.current()?;
                self.one_server
                    .script(&connection, &scripts::SWITCH, [key], args)
                    .await?
            }
        };
        self.switches.learn(&list);
        Ok(())
    }

    async fn close(&self) {
        self.closing.send_replace(true);
    }
}
