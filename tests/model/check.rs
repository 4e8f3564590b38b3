//! Runs a model to its end, or to what refutes it.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

#[expect(
    clippy::print_stdout,
    reason = "a test's own words, for who asks for them"
)]
fn say(text: &str) {
    println!("{text}");
}

/// The model keeps all its promises in all states that can be reached, and these are not few.
pub(crate) fn holds<M>(model: M, at_least: usize)
where
    M: Model + Debug + Send + Sync + 'static,
    M::State: Hash + Debug + Clone + PartialEq + Send + Sync,
    M::Action: Debug + Clone + PartialEq + Send + Sync,
{
    let (start, text) = (Instant::now(), format!("{model:?}"));
    let checker = model.checker().spawn_bfs().join();
    let states = checker.unique_state_count();
    say(&format!("{states} states in {:?}: {text}", start.elapsed()));
    checker.assert_properties();
    assert!(
        states >= at_least,
        "{states} states only, of {at_least}: the model does not do what it is said to"
    );
}

/// The checker finds a way to break this promise.
pub(crate) fn is_caught<M>(model: M, promise: &'static str)
where
    M: Model + Debug + Send + Sync + 'static,
    M::State: Hash + Debug + Clone + PartialEq + Send + Sync,
    M::Action: Debug + Clone + PartialEq + Send + Sync,
{
    let text = format!("{model:?}");
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let steps = checker.assert_any_discovery(promise).into_actions();
    say(&format!(
        "refuted in {} steps by {steps:?}: {text}",
        steps.len()
    ));
}
