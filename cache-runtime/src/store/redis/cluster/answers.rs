//! The answers of a cluster's nodes about its slots and epochs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::aio::MultiplexedConnection;

use super::super::address;
use super::super::confirmation::{ANSWER_BUDGET, Asked};
use super::super::dial::{cluster_nodes, dial};
use super::super::errors::described;
use super::super::slots::{ClusterView, NodeView, SLOTS, owners};
use super::node::Node;
use crate::base::error::{Error, ErrorKind};
use crate::config::RedisConfig;

/// The nodes' answers in one round.
pub(super) struct Answers {
    /// One for each node that has answered.
    pub(super) views: Vec<ClusterView>,
    /// When they were asked.
    pub(super) asked: Asked,
    /// The epochs of the nodes that were known, from before they were asked; by id.
    pub(super) epochs: HashMap<String, u64>,
}

/// The epochs of these nodes, as far as they are known; by id.
pub(super) fn known_epochs(nodes: &[Arc<Node>]) -> HashMap<String, u64> {
    let epoch = |node: &Arc<Node>| (node.id.clone(), node.epoch.load(Ordering::Acquire));
    nodes.iter().map(epoch).collect()
}

impl Answers {
    /// The owner of each slot. `is_of` says whether a slot was a node's before.
    ///
    /// A slot that returns to a node raises the node's epoch, since whoever has had it meanwhile had
    /// a later one. But others may name the node before, with its former epoch: whoever moves the
    /// slot tells all of them. Entries from an earlier time at the node would count until its new
    /// epoch is known. So a slot that a node has gained, according to others alone, needs a later
    /// epoch than the one that was known, and has no owner until then or until the node has
    /// answered. A node that had no slots at all before is not known here.
    pub(super) fn owners(&self, is_of: impl Fn(u16, &str) -> bool) -> Vec<Option<&NodeView>> {
        let mut owners = owners(&self.views);
        let has_answered = |id: &str| self.views.iter().any(|view| view.id == id);
        let silent: Vec<_> = self
            .epochs
            .iter()
            .filter(|it| !has_answered(it.0))
            .collect();
        if silent.is_empty() || crate::base::mutation::is_active("gains-by-hearsay") {
            return owners;
        }
        for (slot, place) in (0..SLOTS).zip(&mut owners) {
            let Some(owner) = *place else { continue };
            let known = silent.iter().find(|(id, _)| **id == owner.id);
            if known.is_some_and(|(_, epoch)| owner.epoch <= **epoch) && !is_of(slot, &owner.id) {
                *place = None;
            }
        }
        owners
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
            epochs: HashMap::new(),
        }
    }

    /// Of a node, what it says of itself, and of another one.
    fn told(by: &str, of: &str, epoch: u64, slots: &str) -> ClusterView {
        let view = format!(
            "{by} 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-5\n\
             {of} 127.0.0.1:3@4 master - 0 0 {epoch} connected {slots}"
        );
        ClusterView::parse(&view).expect("a view")
    }

    #[test]
    fn what_a_silent_node_gains_needs_a_later_epoch() {
        let owner_of_7 = |views: Vec<ClusterView>, was_its: bool| {
            let answers = Answers {
                views,
                asked: Asked::now(),
                epochs: HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 4)]),
            };
            let owners = answers.owners(|_, id| was_its && id == "b");
            owners[7].map(|owner| owner.id.clone())
        };
        let b = Some("b".to_owned());
        assert_eq!(owner_of_7(vec![told("a", "b", 4, "6-8")], false), None);
        assert_eq!(owner_of_7(vec![told("a", "b", 5, "6-8")], false), b);
        assert_eq!(
            owner_of_7(vec![told("a", "b", 4, "6-8")], true),
            b,
            "its before"
        );
        // It has answered.
        let own = ClusterView::parse("b 127.0.0.1:3@4 myself,master - 0 0 4 connected 6-8");
        let views = vec![told("a", "b", 4, "6-8"), own.expect("a view")];
        assert_eq!(owner_of_7(views, false), b);
        // A node that was not known is asked for its epoch when it is connected to.
        let c = Some("c".to_owned());
        assert_eq!(owner_of_7(vec![told("a", "c", 4, "6-8")], false), c);
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
