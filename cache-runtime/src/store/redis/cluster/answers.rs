//! The answers of a cluster's nodes about its slots and epochs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::aio::MultiplexedConnection;

use super::super::connection::address;
use super::super::connection::dial::{cluster_nodes, dial};
use super::super::connection::errors::described;
use super::super::failover::confirmation::{ANSWER_BUDGET, Asked};
use super::super::slots::{ClusterView, NodeView, owners};
use super::node::Node;
use crate::base::error::{Error, ErrorKind, shortened};
use crate::config::RedisConfig;

/// The nodes' answers in one round.
pub(super) struct Answers {
    /// One for each node that has answered.
    pub(super) views: Vec<ClusterView>,
    /// When they were asked.
    pub(super) asked: Asked,
}

impl Answers {
    /// The owner of each slot, according to all of them.
    pub(super) fn named(&self) -> Vec<Option<&NodeView>> {
        owners(&self.views)
    }

    /// Whether a node that is named the owner of a slot may be used for it: if it says so itself,
    /// or the slot was its before.
    ///
    /// Others may say it too early: whoever moves a slot tells each node separately, perhaps the
    /// new owner last. Until then that has the epoch of before. If the slot was its at an earlier
    /// time, entries from then would be alive in the moment in which it takes the slot. Its own
    /// answer contains the epoch with which it took the slot, which is later than any of an earlier
    /// time: whoever has had the slot meanwhile took it with a later one.
    pub(super) fn may_be_used(&self, owner: &NodeView, was_its: bool) -> bool {
        was_its
            || self.views.iter().any(|view| view.id == owner.id)
            || crate::base::mutation::is_active("slot-gains-by-other-nodes")
    }

    /// Whether they confirm who owns the slots: if half of the primaries have answered, of those
    /// that were known and of those that are named now.
    ///
    /// A replica that replaces a primary needs the votes of the majority, and the primary that it
    /// replaces has none: it is away. So one of the other primaries that answer has given its vote,
    /// and has heard of the new owner. A primary that is alone with this process is at most half of
    /// the cluster if it can be replaced at all.
    pub(super) fn are_enough<'n>(
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

/// The answer of a node that was asked at an address, and whether that address is configured.
pub(super) struct AskedView {
    pub(super) view: ClusterView,
    pub(super) is_seed: bool,
}

/// The answers of one cluster. Addresses may lead to nodes of several: because they are configured
/// so, or because an address now belongs to another cluster.
///
/// # Errors
/// If the configured addresses lead to several clusters. Each process could use another one.
pub(super) fn of_one_cluster(asked: Vec<AskedView>) -> Result<Vec<ClusterView>, Error> {
    let is_linked = |one: &ClusterView, other: &ClusterView| {
        let lists = |view: &ClusterView, id: &str| view.nodes.iter().any(|node| node.id == id);
        lists(one, &other.id) || lists(other, &one.id)
    };
    let mut clusters: Vec<Vec<AskedView>> = Vec::new();
    for asked in asked {
        let linked = |them: &Vec<AskedView>| them.iter().any(|it| is_linked(&it.view, &asked.view));
        let (linked, others): (Vec<_>, Vec<_>) = clusters.into_iter().partition(linked);
        clusters = others;
        clusters.push(linked.into_iter().flatten().chain([asked]).collect());
    }
    let has_slots = |them: &Vec<AskedView>| them.iter().any(|it| it.view.has_slots());
    if clusters.len() > 1 && clusters.iter().any(has_slots) {
        // A node that has just started, or was reset, knows only itself.
        clusters.retain(has_slots);
    }
    let is_configured = |them: &Vec<AskedView>| them.iter().any(|it| it.is_seed);
    if clusters.iter().any(is_configured) {
        clusters.retain(is_configured);
    }
    if let [one, other, ..] = clusters.as_slice()
        && !crate::base::mutation::is_active("several-clusters-as-one")
    {
        let node = |them: &Vec<AskedView>| {
            let own = them.first().and_then(|it| it.view.own());
            own.map_or_else(String::new, |own| format!("{}:{}", own.host, own.port))
        };
        return Err(Error::new(
            ErrorKind::Store,
            format!(
                "{} and {} are of different clusters; name nodes of one in REDIS_CLUSTER",
                node(one),
                node(other)
            ),
        ));
    }
    let views = clusters.into_iter().flatten().map(|it| it.view);
    Ok(views.collect())
}

/// Stores the epochs of the nodes, those too that only others have said. It takes effect before the
/// nodes are used for slots that they have gained, also for a connection that is being made.
pub(super) fn raise_epochs(nodes: &[Arc<Node>], views: &[ClusterView]) {
    let by_id: HashMap<&str, &Node> = nodes
        .iter()
        .map(|node| (node.id.as_str(), &**node))
        .collect();
    let seen = views.iter().flat_map(|view| {
        let own = |it: &&NodeView| {
            it.id == view.id || !crate::base::mutation::is_active("epochs-of-others-ignored")
        };
        view.nodes.iter().filter(own)
    });
    for seen in seen.filter(|it| it.is_primary) {
        if let Some(node) = by_id.get(seen.id.as_str()) {
            node.epoch.fetch_max(seen.epoch, Ordering::AcqRel);
        }
    }
}

/// Reads a node's answer, which may omit the node's own address.
pub(super) fn read(text: &str, host: &str) -> Result<ClusterView, Error> {
    let mut view = ClusterView::parse(text).ok_or_else(|| {
        Error::new(
            ErrorKind::Store,
            format!(
                "the answer to CLUSTER NODES can't be parsed: `{}`",
                shortened(text)
            ),
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
pub(super) type AnsweredView = Result<(ClusterView, MultiplexedConnection), Error>;

pub(super) async fn view_over(mut multiplexed: MultiplexedConnection, host: &str) -> AnsweredView {
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
pub(super) async fn view_at(config: &RedisConfig, host: &str) -> AnsweredView {
    let asked = async {
        let mut last = address::no_address(config);
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
    crate::base::time::timeout(budget, asked)
        .await
        .unwrap_or_else(|_| {
            Err(Error::unavailable(format!(
                "no answer within {} ms",
                budget.as_millis()
            )))
        })
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
}
