//! Asks for the owner of each slot: every primary each 750 ms, and at once when one of them
//! redirects a command.
//!
//! A node's answer also contains its epoch, which is part of its identity. The epoch is stored
//! before the node is used for a slot that it has gained. The slot may have come back to the node,
//! with entries from before, and its epoch has risen with that. So a node is used for a slot once
//! it has said itself that it has it. If others name a primary that was not known, it is connected
//! to, and then asked in the same round.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::connection::Connection;
use super::super::connection::dial::cluster_nodes;
use super::super::connection::errors::says_away;
use super::super::connection::health::Health;
use super::super::connection::supervisor::{self, Connections, SupervisorSettings};
use super::super::failover::confirmation::{ANSWER_BUDGET, Asked, INTERVAL, RETRY};
use super::super::failover::fence::Fence;
use super::super::reads::batcher::WORKERS;
use super::super::slots::{ClusterView, NodeView, SlotSet};
use super::super::tracking::Tracking;
use super::super::tracking::heartbeat::send_heartbeats;
use super::answers::{Answers, AskedView, of_one_cluster, raise_epochs, read, view_at};
use super::batches::keep_sending;
use super::former_owner::look_after;
use super::former_slots::{slots_at_start, slots_that_left};
use super::health_key::{key_of_named, key_of_owner};
use super::late::Late;
use super::node::{Node, SlotMap};
use super::owners::Owners;
use super::repetition::do_again;
use super::state::Cluster;
use super::unserved::UnservedLog;
use crate::base::background::supervised;
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::join;
use crate::config::RedisConfig;
use crate::key::KeySpace;

/// The shortest pause between two rounds, however long the first has taken.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a round waits for the connection to a new node.
const CONNECT_BUDGET: Duration = Duration::from_millis(500);

/// The settings of the task.
#[derive(Clone)]
pub(in crate::store::redis) struct TopologySettings {
    /// As for a single server; for each node the address and the health check's key are replaced.
    pub(in crate::store::redis) supervisor: SupervisorSettings,
    /// The nodes that are asked first.
    pub(in crate::store::redis) seeds: Vec<(String, u16)>,
    pub(in crate::store::redis) space: KeySpace,
}

/// Keeps the slot map and the connections, until `closing` is set. `attempted` turns true after the
/// first attempt.
pub(in crate::store::redis) async fn run(
    cluster: Arc<Cluster>,
    plan: TopologySettings,
    attempted: watch::Sender<bool>,
    mut closing: watch::Receiver<bool>,
) {
    for number in 0..WORKERS {
        let (cluster, application) = (Arc::clone(&cluster), plan.supervisor.application.clone());
        tokio::spawn(supervised("batches", move || {
            keep_sending(Arc::clone(&cluster), number, application.clone())
        }));
    }
    let (watched, budget) = (Arc::clone(&cluster), plan.supervisor.budget);
    tokio::spawn(supervised("batches' time", move || {
        let cluster = Arc::clone(&watched);
        async move {
            // If a worker does not get to run, the connections notice it.
            match cluster.batcher.watch(budget, || {}).await {}
        }
    }));
    let mut topology = Topology::new(cluster, plan);
    let at_work = async {
        // Once more, since the first node may not have learnt what others know. The first round
        // asks it and those that it names, and only connects to those that these name.
        topology.round().await;
        let mut pause = topology.round().await;
        // Most fences of the start last as long as it takes to ask each replica.
        let _ = crate::base::time::timeout(CONNECT_BUDGET, topology.cluster.fences.none()).await;
        attempted.send_replace(true);
        loop {
            tokio::select! {
                () = crate::base::time::sleep(pause) => {}
                () = topology.cluster.wake.notified() => {}
            }
            pause = topology.round().await;
        }
    };
    tokio::select! {
        () = at_work => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    topology.cluster.batcher.end();
    let nodes = topology.cluster.map.load_full();
    for node in nodes.nodes() {
        node.closing.send_replace(true);
    }
}

struct Topology {
    cluster: Arc<Cluster>,
    plan: TopologySettings,
    /// The addresses of all known nodes, replicas included.
    known: HashSet<(String, u16)>,
    /// Whether a primary was connected to that has not been asked yet.
    has_new: bool,
    /// The connections that had no answer in time.
    late: Late<Connection>,
    /// Which of the reads that were not served were logged.
    unserved: UnservedLog,
    /// The reason that was logged.
    said: Option<String>,
    /// The task that repeats recent invalidations after the last change. It ends when all of them
    /// are repeated, or with this.
    repeating: JoinSet<()>,
}

impl Topology {
    fn new(cluster: Arc<Cluster>, plan: TopologySettings) -> Self {
        Self {
            cluster,
            plan,
            known: HashSet::new(),
            has_new: false,
            late: Late::default(),
            unserved: UnservedLog::default(),
            said: None,
            repeating: JoinSet::new(),
        }
    }

    /// Asks for the owners once. Returns the pause before the next round.
    async fn round(&mut self) -> Duration {
        let rounds = &self.cluster.rounds;
        rounds.send_modify(|rounds| rounds.begun += 1);
        let begun = clock::now();
        self.late.begin();
        let mut interval = self.ask().await;
        if std::mem::take(&mut self.has_new) {
            self.late.begin_again();
            interval = self.ask().await;
            // Nodes that are new since then are asked in the next round.
            self.has_new = false;
        }
        let rounds = &self.cluster.rounds;
        rounds.send_modify(|rounds| rounds.done = rounds.begun);
        self.say_unserved();
        pause_after(begun.elapsed(), interval)
    }

    /// Asks all of them once. A connection that was late before is closed if it is late again.
    /// Returns the time from this round to the next.
    async fn ask(&mut self) -> Duration {
        match self.answers().await {
            Ok(answers) => {
                *self.cluster.failure.lock() = None;
                match self.adopt(&answers).await {
                    true => INTERVAL,
                    false => RETRY,
                }
            }
            // All known nodes have been connected to.
            Err(error) => {
                self.unreachable(&error);
                INTERVAL
            }
        }
    }

    /// Logs how many reads were not served, when all are again.
    fn say_unserved(&mut self) {
        let cluster = &self.cluster;
        let is_certain = cluster.fences.are_none() && cluster.confirmation.is_valid();
        if let Some((fenced, unconfirmed)) =
            self.unserved.due(cluster.unserved.counts(), is_certain)
        {
            tracing::info!(
                fenced,
                unconfirmed,
                "reads went past the cache, as it was not certain who owns their slots"
            );
        }
    }

    fn unreachable(&mut self, error: &Error) {
        let reason = error.to_string();
        if self.said.as_ref() != Some(&reason) {
            tracing::warn!(
                reason,
                "✗ no node of the Redis cluster can be asked: {reason}"
            );
            self.said = Some(reason.clone());
        }
        *self.cluster.failure.lock() = Some(reason);
        self.cluster.watch.failed();
    }

    /// The answers of the primaries; if none answers, those of all known nodes.
    async fn answers(&mut self) -> Result<Answers, Error> {
        let answers = self.of_primaries().await;
        if answers.views.is_empty() {
            self.of_known_nodes().await
        } else {
            Ok(answers)
        }
    }

    /// The answers of the primaries, over their connections. A connection whose answer is missing is
    /// given up, unless it is late for the first time.
    async fn of_primaries(&mut self) -> Answers {
        let asked = Asked::now();
        let map = self.cluster.map.load_full();
        let late = &self.late;
        let answers = map.nodes().iter().map(|node| async {
            let connection = node.connections.current().ok()?;
            let error = match connection.ask(ANSWER_BUDGET, cluster_nodes).await {
                Ok(text) => {
                    let view = read(&text, &node.host).ok()?;
                    // Now: the answers of others may be awaited for long.
                    raise_epochs(map.nodes(), std::slice::from_ref(&view));
                    return Some(Ok(view));
                }
                Err(error) => error,
            };
            // It may be this process that was held up, and then it was so with all nodes.
            if error.kind() == ErrorKind::Unavailable
                && !says_away(&error)
                && !late.was(&connection)
                && !crate::base::mutation::is_active("late-once-is-lost")
            {
                return Some(Err(Arc::downgrade(&connection)));
            }
            connection.give_up(|| format!("it does not say which slots it has: {error}"));
            None
        });
        let mut views = Vec::new();
        for answer in join::all(answers).await.into_iter().flatten() {
            match answer {
                Ok(view) => views.push(view),
                Err(late) => self.late.is(late),
            }
        }
        if views.len() < map.nodes().len() {
            // It may be this process that is cut off, with a primary that goes on acknowledging.
            if !crate::base::mutation::is_active("cut-off-not-remembered") {
                self.cluster.recent.left();
            }
        }
        Answers { views, asked }
    }

    /// The answers of all nodes that were configured or have been in the cluster, over connections
    /// that are made for it.
    async fn of_known_nodes(&self) -> Result<Answers, Error> {
        let asked = Asked::now();
        let map = self.cluster.map.load_full();
        let seeds = self.plan.seeds.iter().chain(&self.known);
        let seeds: HashSet<_> = seeds.collect();
        let config = &self.plan.supervisor.config;
        let answers = seeds.iter().map(async |(host, port)| {
            match view_at(&config.settings_at(host, *port), host).await {
                Ok((view, _)) => {
                    let address = (host.clone(), *port);
                    let is_seed = self.plan.seeds.contains(&address);
                    raise_epochs(map.nodes(), std::slice::from_ref(&view));
                    Ok(AskedView { view, is_seed })
                }
                Err(error) => {
                    let text = format!("{host}:{port}: {error}");
                    Err(Error::new(error.kind(), text))
                }
            }
        });
        let (mut views, mut fault) = (Vec::<AskedView>::new(), None);
        for view in join::all(answers).await {
            match view {
                Ok(asked) => match views.iter_mut().find(|it| it.view.id == asked.view.id) {
                    // A node may be known by two names.
                    Some(known) => known.is_seed |= asked.is_seed,
                    None => views.push(asked),
                },
                Err(error) => fault = Some(error),
            }
        }
        match views.is_empty() {
            false => of_one_cluster(views).map(|views| Answers { views, asked }),
            true => Err(fault.unwrap_or_else(|| Error::unavailable("no node is known"))),
        }
    }

    /// Applies the answers of the nodes; returns whether they confirm the owners.
    async fn adopt(&mut self, answers: &Answers) -> bool {
        let before = self.cluster.map.load_full();
        let owners = Owners::of(answers, &before);
        if owners.primaries.is_empty() {
            let error = "its nodes have no slots: `redis-cli --cluster create` gives them some";
            self.unreachable(&Error::unavailable(error));
            return false;
        }
        let known = before.nodes().iter().map(|node| node.id.as_str());
        let named = owners.primaries.iter().map(|node| node.id.as_str());
        let asked = answers.are_enough(known, named).then_some(answers.asked);
        // Not those of earlier answers: an address that has left may be that of another cluster.
        let known = answers.views.iter().flat_map(|view| &view.nodes);
        self.known = known.map(|it| (self.host_of(it), it.port)).collect();
        let known = owners.known_in(&before, |node, primary| self.is_at(node, primary));
        if owners.are_those_of(&before, &known) {
            self.confirm(asked);
            self.note_repeated(&before, answers);
        } else {
            let (map, new) = self.build_map(&before, &owners, &known);
            raise_epochs(map.nodes(), &answers.views);
            self.replace(&before, &map, &new, &owners, answers, asked)
                .await;
        }
        asked.is_some()
    }

    /// The map of these owners, and the nodes in it that were not known. `known` has the places in
    /// `before` of those that were.
    fn build_map(
        &self,
        before: &SlotMap,
        owners: &Owners<'_>,
        known: &[Option<usize>],
    ) -> (Arc<SlotMap>, Vec<Arc<Node>>) {
        let mut new = Vec::new();
        let nodes: Vec<_> = owners
            .primaries
            .iter()
            .zip(known)
            .map(|(primary, known)| match known {
                Some(known) => Arc::clone(&before.nodes()[*known]),
                None => {
                    let node = self.node(primary);
                    new.push(Arc::clone(&node));
                    node
                }
            })
            .collect();
        let map = SlotMap::new(nodes, owners.places.iter().copied());
        (Arc::new(map), new)
    }

    /// Uses this map in place of the one before, and connects to its new nodes.
    async fn replace(
        &mut self,
        before: &SlotMap,
        map: &Arc<SlotMap>,
        new: &[Arc<Node>],
        owners: &Owners<'_>,
        answers: &Answers,
        asked: Option<Asked>,
    ) {
        // Before the map is used: nothing is acknowledged or read in slots that have a new owner.
        let fences = self.fences_for(before, map, owners, &answers.views);
        self.name_health_keys(map, owners);
        self.cluster.map.store(Arc::clone(map));
        // Before connections to new nodes are waited for, which may take long.
        self.confirm(asked);
        // A node that only begins to be used is no change.
        let is_changed = !new.is_empty() || !fences.is_empty();
        for (config, fence) in fences {
            tokio::spawn(look_after(config, fence));
        }
        for node in new {
            self.start(node);
        }
        close_those_that_left(before, map);
        if !before.nodes().is_empty() {
            self.repeat();
        }
        let connected = new.iter().map(|node| async {
            let mut attempted = node.attempted.clone();
            let _ = attempted.wait_for(|attempted| *attempted).await;
        });
        let _ = crate::base::time::timeout(CONNECT_BUDGET, join::all(connected)).await;
        self.has_new = new.iter().any(|node| node.connections.is_connected());
        self.said = None;
        self.log_owners(map, before.nodes().is_empty(), is_changed);
    }

    /// The fences in front of slots whose former owner may still answer for them.
    fn fences_for(
        &self,
        before: &SlotMap,
        map: &SlotMap,
        owners: &Owners<'_>,
        views: &[ClusterView],
    ) -> Vec<(RedisConfig, Fence)> {
        match before.nodes().is_empty() {
            true => slots_at_start(views, &owners.named)
                .into_iter()
                .map(|(node, slots)| self.fence(&self.host_of(node), node.port, slots))
                .collect(),
            false => slots_that_left(before, map)
                .into_iter()
                .map(|(node, slots)| self.fence(&node.host, node.port, slots))
                .collect(),
        }
    }

    /// Has the health check of each node write a key in a slot of that node.
    fn name_health_keys(&self, map: &SlotMap, owners: &Owners<'_>) {
        let space = &self.plan.space;
        for node in map.nodes() {
            let key = key_of_owner(space, map, node);
            let named = match key {
                Some(_) => None,
                None => key_of_named(space, &owners.named, node),
            };
            node.health.set_key(key, named);
        }
    }

    fn log_owners(&self, map: &SlotMap, is_first: bool, is_changed: bool) {
        let names: Vec<_> = map.nodes().iter().map(|node| node.address()).collect();
        let names = names.join(", ");
        if !is_first && is_changed {
            tracing::info!(primaries = names, "the cluster's slots have other owners");
        } else if is_first && self.cluster.is_connected() {
            tracing::info!(
                primaries = names,
                "✓ Redis cache enabled: a cluster of {} primaries, {names}",
                map.nodes().len()
            );
        }
    }

    fn confirm(&self, asked: Option<Asked>) {
        if let Some(asked) = asked
            && !crate::base::mutation::is_active("slots-known-for-ever")
        {
            self.cluster.confirmation.confirm(asked);
        }
    }

    /// Repeats recent invalidations, in place of an earlier repetition.
    fn repeat(&mut self) {
        // However long it takes, none of them is too old to be repeated.
        self.cluster.recent.left();
        let namespace = self.plan.space.namespace.clone();
        self.repeating = JoinSet::new();
        self.repeating
            .spawn(do_again(Arc::clone(&self.cluster), namespace));
    }

    /// Recent invalidations need not be kept any longer once all of them are repeated, and all
    /// primaries have confirmed that there was no change since.
    fn note_repeated(&mut self, nodes: &SlotMap, answers: &Answers) {
        let has_answered = |node: &Arc<Node>| answers.views.iter().any(|view| view.id == node.id);
        if self.is_repeated() && nodes.nodes().iter().all(has_answered) {
            self.cluster.recent.is_known();
        }
    }

    /// Whether everything was repeated after the last change.
    fn is_repeated(&mut self) -> bool {
        while let Some(ended) = self.repeating.try_join_next() {
            if ended.is_err() {
                // It has panicked.
                self.repeat();
            }
        }
        self.repeating.is_empty()
    }

    /// The address of a node: by name if certificates are checked and it has one.
    fn host_of(&self, node: &NodeView) -> String {
        match &node.name {
            Some(name) if self.plan.supervisor.config.tls => name.clone(),
            _ => node.host.clone(),
        }
    }

    fn is_at(&self, node: &Node, seen: &NodeView) -> bool {
        node.id == seen.id && node.port == seen.port && node.host == self.host_of(seen)
    }

    fn node(&self, seen: &NodeView) -> Arc<Node> {
        let (attempted_sender, attempted) = watch::channel(false);
        let connections = Arc::new(Connections::new(
            self.cluster.watch.clone(),
            attempted_sender,
            None,
        ));
        Arc::new(Node {
            id: seen.id.clone(),
            host: self.host_of(seen),
            port: seen.port,
            connections,
            health: Health::of_node(self.plan.supervisor.budget, &self.plan.supervisor.health),
            epoch: Arc::default(),
            closing: watch::Sender::new(false),
            attempted,
        })
    }

    /// Connects to a node, and keeps the connection until the node is closed.
    fn start(&self, node: &Node) {
        let config = self
            .plan
            .supervisor
            .config
            .settings_at(&node.host, node.port);
        let settings = SupervisorSettings {
            config,
            health: node.health.clone(),
            epoch: Arc::clone(&node.epoch),
            is_node: true,
            set_aside: match crate::base::mutation::is_active("set-aside-on-one-server-only") {
                true => Arc::default(),
                false => Arc::clone(&self.cluster.set_aside),
            },
            confirmation: Some(Arc::clone(&self.cluster.confirmation)),
            tracking: self
                .plan
                .supervisor
                .tracking
                .as_ref()
                .map(Tracking::of_node),
            ..self.plan.supervisor.clone()
        };
        let (connections, closing) = (Arc::clone(&node.connections), node.closing.subscribe());
        if let Some(tracking) = &settings.tracking {
            let (connections, tracking) = (Arc::clone(&connections), tracking.clone());
            let (budget, closing) = (settings.budget, closing.clone());
            tokio::spawn(supervised("heartbeat of a node", move || {
                let (connections, tracking) = (Arc::clone(&connections), tracking.clone());
                send_heartbeats(connections, tracking, budget, closing.clone())
            }));
        }
        tokio::spawn(supervised("connection to a node", move || {
            let (connections, settings, closing) =
                (Arc::clone(&connections), settings.clone(), closing.clone());
            async move {
                supervisor::run(connections, settings, closing).await;
            }
        }));
    }

    /// A fence in front of these slots, which a node at this address may still answer for.
    fn fence(&self, host: &str, port: u16, slots: SlotSet) -> (RedisConfig, Fence) {
        let config = self.plan.supervisor.config.settings_at(host, port);
        (config, self.cluster.fences.put_up(slots))
    }
}

/// Ends the connections to nodes that are in the map of before, and not in this one.
fn close_those_that_left(before: &SlotMap, map: &SlotMap) {
    for node in before.nodes() {
        let is_left = !map.nodes().iter().any(|it| Arc::ptr_eq(it, node));
        if is_left && crate::base::mutation::is_active("former-primaries-kept") {
            // Without the last reference to it, the node would end its tasks by itself.
            std::mem::forget(Arc::clone(node));
        } else if is_left {
            node.closing.send_replace(true);
        }
    }
}

/// The pause after a round that took this long.
fn pause_after(took: Duration, interval: Duration) -> Duration {
    interval.saturating_sub(took).max(PAUSE)
}

#[cfg(test)]
mod tests;
