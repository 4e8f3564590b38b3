use std::sync::atomic::Ordering;

use tokio::runtime::Handle;

use super::super::super::slots::slot_of;
use super::super::super::switches::SwitchList;
use super::*;
use crate::CacheConfig;
use crate::store::redis::failover::confirmation::VALID;
use crate::store::redis::whole_resources::WholeResources;

fn topology() -> Topology {
    let (config, redis) = (CacheConfig::default(), RedisConfig::default());
    let watch = crate::store::ConnectionWatch::default();
    let wholes = Arc::new(WholeResources::new(&config.namespace));
    let cluster = Cluster::new(&config, watch, None, redis.clone(), wholes);
    let switches = Arc::new(SwitchList::new(&config.namespace));
    let supervisor = SupervisorSettings {
        config: redis,
        trust_restart: false,
        health: Health::new("probe", config.command_budget, switches),
        tracking: None,
        set_aside: Arc::default(),
        budget: config.command_budget,
        application: None,
        background: Handle::current(),
        is_node: false,
        latest: Arc::default(),
        epoch: Arc::default(),
        confirmation: None,
    };
    let space = config.key_space();
    let plan = TopologySettings {
        supervisor,
        seeds: Vec::new(),
        space,
    };
    Topology::new(Arc::new(cluster), plan)
}

/// Nobody listens at these ports.
fn view(by: &str, nodes: &[(&str, u64, &str)]) -> ClusterView {
    let line = |(id, epoch, slots): &(&str, u64, &str)| {
        let (own, port) = (
            if *id == by { "myself," } else { "" },
            id.as_bytes()[0] - b'a' + 1,
        );
        format!("{id} 127.0.0.1:{port}@1 {own}master - 0 0 {epoch} connected {slots}\n")
    };
    let text: String = nodes.iter().map(line).collect();
    ClusterView::parse(&text).expect("a view")
}

/// Others say that a node has a slot before it takes it: whoever moves it tells them first.
#[tokio::test]
async fn a_node_is_used_for_a_slot_once_it_says_itself_that_it_has_it() {
    let mut topology = topology();
    let mut adopted = async |views| {
        let asked = Asked::now();
        topology.adopt(&Answers { views, asked }).await;
        let map = topology.cluster.map.load_full();
        let epoch = |node: &Arc<Node>| (node.id.clone(), node.epoch.load(Ordering::Acquire));
        let nodes: Vec<_> = map.nodes().iter().map(epoch).collect();
        (map.owner(7).map(epoch), nodes.len())
    };
    let is = |node: &str, epoch| Some((node.to_owned(), epoch));
    let both = [("a", 1, "0-5"), ("b", 2, "6-8")];
    let own = vec![view("a", &both), view("b", &both)];
    assert_eq!(adopted(own).await, (is("b", 2), 2));
    // It does not answer, and has the slot as before.
    assert_eq!(adopted(vec![view("a", &both)]).await, (is("b", 2), 2));
    // All its slots leave it.
    let all = [("a", 3, "0-8"), ("b", 2, "")];
    let left = vec![view("a", &all), view("b", &all)];
    assert_eq!(adopted(left).await, (is("a", 3), 1));
    // It is named with the epoch of before, and does not answer: it is connected to.
    let named = [("a", 3, "0-5"), ("b", 2, "6-8")];
    assert_eq!(adopted(vec![view("a", &named)]).await, (None, 2));
    // Nor with a later one, which it may have from another slot.
    let named = [("a", 3, "0-5"), ("b", 4, "6-8")];
    assert_eq!(adopted(vec![view("a", &named)]).await, (None, 2));
    let taken = [("a", 3, "0-5"), ("b", 5, "6-8")];
    let own = vec![view("a", &named), view("b", &taken)];
    assert_eq!(adopted(own).await, (is("b", 5), 2));
}

/// A process that starts has heard of it from another node, and connects to it before it asks it.
#[tokio::test]
async fn the_key_to_write_is_in_a_slot_that_others_name() {
    let mut topology = topology();
    let both = [("a", 1, "0-8000"), ("b", 2, "8001-16383")];
    let mut keys = async |views| {
        let asked = Asked::now();
        topology.adopt(&Answers { views, asked }).await;
        let map = topology.cluster.map.load_full();
        let node = map.nodes().iter().find(|node| node.id == "b");
        let health = &node.expect("it is named").health;
        (health.key(), health.key_to_write().expect("it has slots"))
    };
    let (used, written) = keys(vec![view("a", &both)]).await;
    assert_eq!(used, None);
    assert!(slot_of(&written) > 8_000, "{written}");
    let (used, written) = keys(vec![view("a", &both), view("b", &both)]).await;
    assert!(slot_of(&written) > 8_000, "{written}");
    assert_eq!(used, Some(written));
}

#[test]
fn a_question_comes_before_the_last_answer_has_lost_its_validity() {
    let none = Duration::ZERO;
    assert_eq!(pause_after(none, INTERVAL), INTERVAL);
    assert_eq!(pause_after(none, RETRY), RETRY);
    // A round in which one node does not answer, and another can't be connected to.
    let longest = ANSWER_BUDGET + CONNECT_BUDGET;
    for interval in [INTERVAL, RETRY] {
        let next_answers = longest + pause_after(longest, interval) + ANSWER_BUDGET;
        assert!(next_answers < VALID, "{next_answers:?}");
    }
}
