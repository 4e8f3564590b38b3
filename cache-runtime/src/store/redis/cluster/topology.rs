//! Asks for the owner of each slot: every primary each 750 ms, and at once when one of them
//! redirects a command.
//!
//! A node's answer also contains its epoch, which is part of its identity. The epoch is stored
//! before the node is used for a slot that it has gained. The slot may have come back to the node,
//! with entries from before, and its epoch has risen with that.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::address;
use super::super::batcher::WORKERS;
use super::super::confirmation::{ANSWER_BUDGET, Asked, INTERVAL, RETRY, VALID};
use super::super::connection::Connection;
use super::super::dial::{cluster_nodes, dial};
use super::super::errors::{answers_nobody, described};
use super::super::fence::Fence;
use super::super::health::Health;
use super::super::heartbeat::send_heartbeats;
use super::super::recent::Repetition;
use super::super::slots::{ClusterView, NodeView, SLOTS, SlotSet, owners, slot_of, tag};
use super::super::supervisor::{self, Connections, SupervisorSettings};
use super::super::tracking::Tracking;
use super::batches::keep_sending;
use super::node::{Node, SlotMap};
use super::state::Cluster;
use crate::base::background::supervised;
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::config::RedisConfig;
use crate::key::KeySpace;
use crate::store::Parts;

/// The shortest pause between two rounds, however long the first has taken.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a round waits for the connection to a new node.
const CONNECT_BUDGET: Duration = Duration::from_millis(500);
/// How long a former owner is watched that does not answer. By then no process uses it: those that
/// reach other primaries have heard of the change, and for those that don't the last confirmation
/// is over. The primaries have a second to hear from the new owner, which tells all of them at
/// once.
const FENCE: Duration = VALID.saturating_add(Duration::from_secs(1));
/// The pause before recent invalidations are repeated once more, if a node is away.
const AGAIN_PAUSE: Duration = Duration::from_millis(100);
const FENCE_PAUSE: Duration = Duration::from_millis(5);

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
    let mut topology = Topology {
        cluster,
        plan,
        known: HashSet::new(),
        late: Vec::new(),
        unserved: (0, 0),
        unserved_said: (0, 0),
        said: None,
        repeating: JoinSet::new(),
    };
    let at_work = async {
        // Once more, since one node may not have learnt what others know.
        topology.round().await;
        let mut pause = topology.round().await;
        // Most fences of the start last as long as it takes to ask each replica.
        let _ = tokio::time::timeout(CONNECT_BUDGET, topology.cluster.fences.none()).await;
        attempted.send_replace(true);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
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

/// What the nodes have answered in one round.
struct Answers {
    /// One for each node that has answered.
    views: Vec<ClusterView>,
    /// When they were asked.
    asked: Asked,
}

impl Answers {
    /// Whether they confirm who owns the slots: if half of the primaries have answered, of those
    /// that were known and of those that are named now.
    ///
    /// A replica that replaces a primary needs the votes of the majority, and the primary that it
    /// replaces has none: it is away. So one of the other primaries that answer has given its vote,
    /// and has heard of the new owner. A primary that is alone with this process is at most half of
    /// the cluster if it can be replaced at all.
    fn are_enough<'n>(
        &self,
        known: impl Iterator<Item = &'n str>,
        named: impl Iterator<Item = &'n str>,
    ) -> bool {
        self.are_of_half(known) && self.are_of_half(named)
    }

    /// Whether half of these nodes have answered, as primaries.
    fn are_of_half<'n>(&self, nodes: impl Iterator<Item = &'n str>) -> bool {
        let (mut all, mut answered) = (0, 0);
        for id in nodes {
            let view = self.views.iter().find(|view| view.id == id);
            all += 1;
            answered += usize::from(view.is_some_and(|view| view.epoch().is_some()));
        }
        2 * answered >= all
    }
}

struct Topology {
    cluster: Arc<Cluster>,
    plan: TopologySettings,
    /// The addresses of all known nodes, replicas included.
    known: HashSet<(String, u16)>,
    /// The connections that had no answer in time in the last round.
    late: Vec<Weak<Connection>>,
    /// How many reads were not served when the last round ended, and when this was last logged.
    unserved: (u64, u64),
    unserved_said: (u64, u64),
    /// The reason that was logged.
    said: Option<String>,
    /// The task that repeats recent invalidations after the last change. It ends when all of them
    /// are repeated, or with this.
    repeating: JoinSet<()>,
}

impl Topology {
    /// Asks for the owners once. Returns the pause before the next round.
    async fn round(&mut self) -> Duration {
        let rounds = &self.cluster.rounds;
        rounds.send_modify(|rounds| rounds.begun += 1);
        let begun = clock::now();
        let is_confirmed = match self.answers().await {
            Ok(answers) => {
                *self.cluster.failure.lock() = None;
                self.adopt(&answers).await
            }
            Err(error) => {
                self.unreachable(&error);
                false
            }
        };
        let rounds = &self.cluster.rounds;
        rounds.send_modify(|rounds| rounds.done = rounds.begun);
        self.say_unserved();
        pause_after(begun.elapsed(), is_confirmed)
    }

    /// Logs how many reads were not served, when all are again.
    fn say_unserved(&mut self) {
        let now = self.cluster.unserved.counts();
        let is_over = now == std::mem::replace(&mut self.unserved, now);
        if is_over && now != self.unserved_said {
            let before = std::mem::replace(&mut self.unserved_said, now);
            let (fenced, unconfirmed) = (now.0 - before.0, now.1 - before.1);
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
            tracing::warn!("✗ no node of the Redis cluster can be asked: {reason}");
            self.said = Some(reason.clone());
        }
        *self.cluster.failure.lock() = Some(reason);
        self.cluster.watch.failed();
    }

    /// The answers of the primaries; if none answers, those of all known nodes.
    async fn answers(&mut self) -> Result<Answers, Error> {
        let asked = Asked::now();
        let map = self.cluster.map.load_full();
        let were_late = std::mem::take(&mut self.late);
        let was_late = |connection: &Arc<Connection>| {
            let connection = Arc::downgrade(connection);
            were_late.iter().any(|late| late.ptr_eq(&connection))
        };
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
                && !was_late(&connection)
                && !crate::base::mutation::is_active("late-once-is-lost")
            {
                return Some(Err(Arc::downgrade(&connection)));
            }
            connection.give_up(|| format!("it does not say which slots it has: {error}"));
            None
        });
        let mut views = Vec::new();
        for answer in join_all(answers).await.into_iter().flatten() {
            match answer {
                Ok(view) => views.push(view),
                Err(late) => self.late.push(late),
            }
        }
        if views.len() < map.nodes().len() {
            // It may be this process that is cut off, with a primary that goes on acknowledging.
            if !crate::base::mutation::is_active("cut-off-not-remembered") {
                self.cluster.recent.left();
            }
        }
        if !views.is_empty() {
            return Ok(Answers { views, asked });
        }
        let asked = Asked::now();
        let seeds = self.plan.seeds.iter().chain(&self.known);
        let seeds: HashSet<_> = seeds.collect();
        let config = &self.plan.supervisor.config;
        let answers = seeds.iter().map(async |(host, port)| {
            match view_at(&config.settings_at(host, *port), host).await {
                Ok((view, _)) => Ok(view),
                Err(error) => {
                    let text = format!("{host}:{port}: {error}");
                    Err(Error::new(error.kind(), text))
                }
            }
        });
        let (mut views, mut fault) = (Vec::new(), None);
        for view in join_all(answers).await {
            match view {
                // A node may be known by two names.
                Ok(view) if views.iter().any(|it: &ClusterView| it.id == view.id) => {}
                Ok(view) => views.push(view),
                Err(error) => fault = Some(error),
            }
        }
        match views.is_empty() {
            false => Ok(Answers { views, asked }),
            true => Err(fault.unwrap_or_else(|| Error::unavailable("no node is known"))),
        }
    }

    /// Applies the answers of the nodes; returns whether they confirm the owners.
    async fn adopt(&mut self, answers: &Answers) -> bool {
        let views = &answers.views[..];
        let before = self.cluster.map.load_full();
        raise_epochs(before.nodes(), views);
        let owners = owners(views);
        let mut primaries: Vec<&NodeView> = Vec::new();
        let places: Vec<Option<usize>> = owners
            .iter()
            .map(|owner| {
                let owner = (*owner)?;
                let known = primaries.iter().position(|it| it.id == owner.id);
                Some(known.unwrap_or_else(|| {
                    primaries.push(owner);
                    primaries.len() - 1
                }))
            })
            .collect();
        if primaries.is_empty() {
            let error = "its nodes have no slots: `redis-cli --cluster create` gives them some";
            self.unreachable(&Error::unavailable(error));
            return false;
        }
        let known = before.nodes().iter().map(|node| node.id.as_str());
        let named = primaries.iter().map(|node| node.id.as_str());
        let asked = answers.are_enough(known, named).then_some(answers.asked);
        // Not those of earlier answers: an address that has left may be that of another cluster.
        let known = views.iter().flat_map(|view| &view.nodes);
        self.known = known.map(|it| (self.host_of(it), it.port)).collect();
        let is_unchanged = before.nodes().len() == primaries.len()
            && (0..SLOTS).all(|slot| {
                let owner = owners[usize::from(slot)];
                match (before.owner(slot), owner) {
                    (Some(node), Some(owner)) => self.is_at(node, owner),
                    (None, None) => true,
                    _ => false,
                }
            });
        if is_unchanged {
            self.confirm(asked);
            let has_answered = |id: &str| views.iter().any(|view| view.id == id);
            if self.is_repeated() && before.nodes().iter().all(|node| has_answered(&node.id)) {
                self.cluster.recent.is_known();
            }
            return asked.is_some();
        }
        let mut new = Vec::new();
        let nodes: Vec<_> = primaries
            .iter()
            .map(|primary| {
                let known = before.nodes().iter().find(|node| self.is_at(node, primary));
                known.map_or_else(
                    || {
                        let node = self.node(primary);
                        new.push(Arc::clone(&node));
                        node
                    },
                    Arc::clone,
                )
            })
            .collect();
        raise_epochs(&nodes, views);
        let map = Arc::new(SlotMap::new(nodes, places.iter().copied()));
        let fences = match before.nodes().is_empty() {
            true => self.fences_at_start(views, &map),
            false => self.fences(&before, &map),
        };
        for node in map.nodes() {
            node.health.set_key(self.health_key(&map, node));
        }
        self.cluster.map.store(Arc::clone(&map));
        // Before connections to new nodes are waited for, which may take long.
        self.confirm(asked);
        for (config, fence) in fences {
            tokio::spawn(look_after(config, fence));
        }
        for node in &new {
            self.start(node);
        }
        for node in before.nodes() {
            let is_left = !map.nodes().iter().any(|it| Arc::ptr_eq(it, node));
            if is_left && crate::base::mutation::is_active("former-primaries-kept") {
                // Without the last reference to it, the node would end its tasks by itself.
                std::mem::forget(Arc::clone(node));
            } else if is_left {
                node.closing.send_replace(true);
            }
        }
        if !before.nodes().is_empty() {
            self.repeat();
        }
        let connected = new.iter().map(|node| async {
            let mut attempted = node.attempted.clone();
            let _ = attempted.wait_for(|attempted| *attempted).await;
        });
        let _ = tokio::time::timeout(CONNECT_BUDGET, join_all(connected)).await;
        self.said = None;
        let names: Vec<_> = map.nodes().iter().map(|node| node.address()).collect();
        let names = names.join(", ");
        match before.nodes().is_empty() {
            true if self.cluster.is_connected() => {
                tracing::info!(
                    "✓ Redis cache enabled: a cluster of {} primaries, {names}",
                    map.nodes().len()
                );
            }
            _ => tracing::info!(primaries = names, "the cluster's slots have other owners"),
        }
        asked.is_some()
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

    /// A key for the health check that is in one of the node's slots.
    fn health_key(&self, map: &SlotMap, node: &Node) -> Option<String> {
        let is_own = |key: &String| {
            map.owner(slot_of(key))
                .is_some_and(|owner| owner.id == node.id)
        };
        if let Some(key) = node.health.key().filter(|key| is_own(key)) {
            return Some(key.as_str().to_owned());
        }
        let key = |n: u32| self.plan.space.generation(&format!("{{probe-{n}}}"));
        if tag(&self.plan.space.namespace).is_some() {
            // All keys are in one slot, and no other part of the node is used.
            return Some(key(0)).filter(is_own);
        }
        (0..8 * u32::from(SLOTS)).map(key).find(is_own)
    }

    /// The fences in front of slots with a new owner, until the former one knows of the change.
    fn fences(&self, before: &SlotMap, map: &SlotMap) -> Vec<(RedisConfig, Fence)> {
        let mut fences = Vec::new();
        for node in before.nodes() {
            let mut moved = SlotSet::default();
            let mut is_any = false;
            for slot in 0..SLOTS {
                let was_its = before
                    .owner(slot)
                    .is_some_and(|owner| Arc::ptr_eq(owner, node));
                let is_its = map
                    .owner(slot)
                    .is_some_and(|owner| Arc::ptr_eq(owner, node));
                if was_its && !is_its {
                    moved.add(slot);
                    is_any = true;
                }
            }
            if is_any {
                let config = self
                    .plan
                    .supervisor
                    .config
                    .settings_at(&node.host, node.port);
                fences.push((config, self.cluster.fences.put_up(moved)));
            }
        }
        fences
    }

    /// Nothing is known about the time before the process started: each replica may have been the
    /// primary, and each primary without slots may have owned any.
    fn fences_at_start(&self, views: &[ClusterView], map: &SlotMap) -> Vec<(RedisConfig, Fence)> {
        let mut seen = HashSet::new();
        let mut fences = Vec::new();
        for node in views.iter().flat_map(|view| &view.nodes) {
            let owns = map.nodes().iter().any(|it| it.id == node.id);
            if owns || !seen.insert(&node.id) {
                continue;
            }
            let slots = match &node.primary {
                Some(primary) => map.slots_of(primary),
                None => {
                    let mut all = SlotSet::default();
                    (0..SLOTS).for_each(|slot| all.add(slot));
                    all
                }
            };
            let config = self
                .plan
                .supervisor
                .config
                .settings_at(&self.host_of(node), node.port);
            fences.push((config, self.cluster.fences.put_up(slots)));
        }
        fences
    }
}

/// Stores the epochs of the nodes, those too that only others have said. It takes effect before the
/// nodes are used for slots that they have gained, also for a connection that is being made.
fn raise_epochs(nodes: &[Arc<Node>], views: &[ClusterView]) {
    let seen = views.iter().flat_map(|view| {
        let own = |it: &&NodeView| {
            it.id == view.id || !crate::base::mutation::is_active("epochs-of-others-ignored")
        };
        view.nodes.iter().filter(own)
    });
    for seen in seen.filter(|it| it.is_primary) {
        if let Some(node) = nodes.iter().find(|node| node.id == seen.id) {
            node.epoch.fetch_max(seen.epoch, Ordering::AcqRel);
        }
    }
}

/// The pause after a round that took this long.
fn pause_after(took: Duration, is_confirmed: bool) -> Duration {
    let interval = if is_confirmed { INTERVAL } else { RETRY };
    interval.saturating_sub(took).max(PAUSE)
}

/// Repeats recent invalidations until all of them have arrived: slots have new owners, and a former
/// owner may have acknowledged them.
async fn do_again(cluster: Arc<Cluster>, namespace: String) {
    // What is requested from now on goes to the new owners, and after a later change there is another
    // repetition. So only what has not arrived is sent once more: sent again, the rest would end
    // entries that were loaded meanwhile.
    let mut left = cluster.recent.again();
    let mut parts = Parts::All;
    for attempt in 0_u32.. {
        if attempt == 10 && crate::base::mutation::is_active("repetition-given-up") {
            return;
        }
        left = match left {
            Repetition::Nothing => return,
            Repetition::These(these) => match cluster.invalidate_again(&these).await.undone {
                Some(_) if crate::base::mutation::is_active("repeated-as-a-whole") => {
                    Repetition::These(these)
                }
                Some((undone, _)) => Repetition::These(undone),
                None => return,
            },
            Repetition::Everything => {
                let undone = cluster.invalidate_namespace_again(&namespace, &parts);
                match undone.await {
                    Some(undone) => parts = undone,
                    None => return,
                }
                Repetition::Everything
            }
        };
        tokio::time::sleep(AGAIN_PAUSE).await;
    }
}

/// Reads a node's answer, which may omit the node's own address.
fn read(text: &str, host: &str) -> Result<ClusterView, Error> {
    let view = ClusterView::parse(text);
    let mut view = view.ok_or_else(|| {
        Error::new(
            ErrorKind::Store,
            "CLUSTER NODES is answered with something else",
        )
    })?;
    for node in &mut view.nodes {
        if node.host.is_empty() {
            host.clone_into(&mut node.host);
        }
    }
    Ok(view)
}

/// The view of a node, and the separate connection that it was asked over. `host` is the node's
/// name in the cluster.
type AnsweredView = Result<(ClusterView, MultiplexedConnection), Error>;

async fn view_over(mut multiplexed: MultiplexedConnection, host: &str) -> AnsweredView {
    let text = cluster_nodes(&mut multiplexed).await.map_err(|error| {
        let error = described(error);
        let hint = match error.to_string().contains("cluster support disabled") {
            true => "; it is not in cluster mode: name it in REDIS_HOST and REDIS_PORT",
            false => "; CLUSTER NODES is needed to find the owners of slots",
        };
        Error::new(error.kind(), format!("{error}{hint}"))
    })?;
    Ok((read(&text, host)?, multiplexed))
}

/// Asks a node over a new connection.
async fn view_at(config: &RedisConfig, host: &str) -> AnsweredView {
    let asked = async {
        let mut last = Error::unavailable("it has no address");
        for address in address::of(config).await? {
            let asked = match dial(config, address, |_| {}).await {
                Ok((multiplexed, _)) => view_over(multiplexed, host).await,
                Err(error) => Err(error),
            };
            match asked {
                Ok(asked) => return Ok(asked),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let budget = ANSWER_BUDGET * 2;
    tokio::time::timeout(budget, asked)
        .await
        .unwrap_or_else(|_| {
            Err(Error::unavailable(format!(
                "no answer within {} ms",
                budget.as_millis()
            )))
        })
}

/// Holds a fence until the former owner no longer claims the slots, can't answer anybody, or the
/// time is over.
async fn look_after(config: RedisConfig, fence: Fence) {
    let end = clock::now() + FENCE;
    let mut kept = None;
    while clock::now() < end {
        let asked = async {
            match kept.take() {
                Some(multiplexed) => view_over(multiplexed, &config.host).await,
                None => view_at(&config, &config.host).await,
            }
        };
        match tokio::time::timeout(ANSWER_BUDGET, asked).await {
            Ok(Ok((view, _))) if !view.owns_any(fence.slots()) => break,
            Ok(Ok((_, multiplexed))) => kept = Some(multiplexed),
            Ok(Err(error)) if answers_nobody(&error) => break,
            _ => {}
        }
        tokio::time::sleep(FENCE_PAUSE).await;
    }
    drop(fence);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These nodes have answered.
    fn answers(nodes: &[&str]) -> Answers {
        let view = |id: &&str| {
            let line = format!("{id} 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-5");
            ClusterView::parse(&line).expect("a view")
        };
        Answers {
            views: nodes.iter().map(view).collect(),
            asked: Asked::now(),
        }
    }

    #[test]
    fn half_of_the_primaries_confirm_of_those_before_and_of_those_now() {
        let are_enough = |nodes: &[&str], known: &[&'static str], named: &[&'static str]| {
            answers(nodes).are_enough(known.iter().copied(), named.iter().copied())
        };
        let (two, three) = (["a", "b"], ["a", "b", "c"]);
        // At the start nothing is known.
        assert!(are_enough(&["a", "b"], &[], &three));
        assert!(!are_enough(&["a"], &[], &three));
        assert!(are_enough(&["a"], &two, &two));
        assert!(!are_enough(&["a"], &three, &three));
        // `b` has been replaced by `d`, which has not answered.
        assert!(are_enough(&["a", "c"], &three, &["a", "d", "c"]));
        assert!(!are_enough(&["a"], &three, &["a", "d", "c"]));
        assert!(
            !are_enough(&["a"], &two, &["a", "d", "c"]),
            "there are more now"
        );
        // Others than those that are named don't count, such as replicas.
        assert!(!are_enough(&["a", "x", "y"], &[], &three));
    }

    #[test]
    fn a_question_comes_before_the_last_answer_has_lost_its_validity() {
        let none = Duration::ZERO;
        assert_eq!(pause_after(none, true), INTERVAL);
        assert_eq!(pause_after(none, false), RETRY);
        // A round in which one node does not answer, and another can't be connected to.
        let longest = ANSWER_BUDGET + CONNECT_BUDGET;
        for is_confirmed in [true, false] {
            let next_answers = longest + pause_after(longest, is_confirmed) + ANSWER_BUDGET;
            assert!(next_answers < VALID, "{next_answers:?}");
        }
    }
}
