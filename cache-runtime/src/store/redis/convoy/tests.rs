use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::advance;

use super::*;
use crate::generation::Dep;
use crate::key::EntryKind;

const BUDGET: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_millis(87);

type Waiting = oneshot::Receiver<Answer>;
type Deps = Arc<[Arc<Dep>]>;

fn probe(key: &str, deps: &Deps) -> Probe {
    Probe {
        key: key.into(),
        kind: EntryKind::Entity,
        deps: Arc::clone(deps),
    }
}

fn deps(keys: &[&str]) -> Deps {
    keys.iter().map(|key| Dep::new((*key).into())).collect()
}

fn join(convoys: &Convoys, key: &str) -> Waiting {
    let probe = probe(key, &deps(&["@gen:users"]));
    convoys.join(&probe, clock::now()).expect("not over")
}

fn leave(convoys: &Convoys) -> Route {
    convoys.take(0).expect("not over").expect("somebody waits")
}

/// Enough small values for it to be known that they are.
fn learn_that_values_are_small(convoys: &Convoys) {
    for _ in 0..50 {
        let _waiting = join(convoys, "users:1");
        leave(convoys);
        let (entries, bytes) = (1, 100);
        convoys.arrive(0, &Fared::Brought { entries, bytes });
    }
}

/// In what parts so many reads leave.
fn parts(convoys: &Convoys, reads: usize, deps: impl Fn(usize) -> Deps) -> Vec<Route> {
    let waiting: Vec<_> = (0..reads)
        .map(|n| convoys.join(&probe(&format!("users:{n}"), &deps(n)), clock::now()))
        .collect();
    let mut routes = Vec::new();
    while let Some(route) = convoys.take(0).expect("not over") {
        convoys.arrive(0, &Fared::Empty);
        routes.push(route);
    }
    drop(waiting);
    routes
}

#[tokio::test(start_paused = true)]
async fn nobody_is_given_up_for_those_who_came_before() {
    for is_on_its_way in [false, true] {
        let convoys = Convoys::default();
        let mut first = join(&convoys, "users:1");
        advance(MOST).await;
        let mut second = join(&convoys, "users:2");
        if is_on_its_way {
            leave(&convoys);
        }
        convoys.give_up_after(MOST);
        assert!(matches!(first.try_recv(), Err(TryRecvError::Closed)));
        assert!(matches!(second.try_recv(), Err(TryRecvError::Empty)));
        if !is_on_its_way {
            leave(&convoys);
        }
        let aboard = convoys.arrive(0, &Fared::Empty);
        assert_eq!((aboard.gone, aboard.passengers.len()), (1, 1));
        assert!(!convoys.is_quiet(), "those who were answered read again");
        convoys.disband();
        assert!(convoys.is_quiet());
    }
}

#[tokio::test(start_paused = true)]
async fn a_convoy_whose_passengers_have_all_been_given_up_does_not_leave() {
    let convoys = Convoys::default();
    let _waiting = [join(&convoys, "users:1"), join(&convoys, "users:2")];
    advance(BUDGET).await;
    convoys.give_up_after(MOST);
    assert!(convoys.take(0).expect("not over").is_none());
    assert!(convoys.is_quiet());
}

#[tokio::test]
async fn a_convoy_is_bounded_in_reads_and_in_keys() {
    let convoys = Convoys::default();
    learn_that_values_are_small(&convoys);
    let users = deps(&["@gen:users", "@gen:users~derived"]);
    let alike = parts(&convoys, 600, |_| Arc::clone(&users));
    let reads: Vec<_> = alike.iter().map(Route::len).collect();
    assert_eq!(reads[..2], [MAX_READS; 2]);
    assert_eq!(reads.iter().sum::<usize>(), 600);

    let tagged = parts(&convoys, 600, |n| {
        deps(&["@gen:users", &format!("@gen:~tag{n}")])
    });
    assert_eq!(tagged.iter().map(Route::len).sum::<usize>(), 600);
    for route in &tagged {
        let keys = route.stops().keys().count();
        assert!(keys <= MAX_KEYS + 2, "{keys} keys");
    }
}

#[tokio::test]
async fn large_values_travel_in_smaller_parts_and_in_smaller_ones_yet_if_they_are_late() {
    let convoys = Convoys::default();
    let most = |convoys: &Convoys| {
        let routes = parts(convoys, 80, |_| deps(&["@gen:users"]));
        routes[0].len()
    };
    assert_eq!(most(&convoys), FIRST_READS, "nothing is known yet");
    for _ in 0..50 {
        let _waiting = [join(&convoys, "users:1"), join(&convoys, "users:1")];
        leave(&convoys);
        // Both have read the same.
        let (entries, bytes) = (1, 1 << 20);
        convoys.arrive(0, &Fared::Brought { entries, bytes });
    }
    assert_eq!(most(&convoys), 4);
    let _waiting = join(&convoys, "users:1");
    leave(&convoys);
    convoys.arrive(0, &Fared::Unanswered { reads: 4 });
    assert_eq!(most(&convoys), 2);
}

#[tokio::test]
async fn at_the_end_all_are_told_and_nobody_joins() {
    let convoys = Convoys::default();
    let mut aboard = join(&convoys, "users:1");
    leave(&convoys);
    let mut gathering = join(&convoys, "users:2");
    convoys.end();
    for waiting in [&mut aboard, &mut gathering] {
        assert!(matches!(waiting.try_recv(), Err(TryRecvError::Closed)));
    }
    assert!(
        convoys
            .join(&probe("users:3", &deps(&[])), clock::now())
            .is_none()
    );
    assert!(convoys.leave(0).await.is_none());
    // A driver comes back from what was on its way.
    let aboard = convoys.arrive(0, &Fared::Unanswered { reads: 1 });
    assert!(aboard.passengers.is_empty());
    assert!(convoys.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn a_driver_who_does_not_come_back_is_overdue_once_for_each_budget() {
    let convoys = Convoys::default();
    let _waiting = join(&convoys, "users:1");
    leave(&convoys);
    let round = BUDGET / ROUNDS;
    let mut overdue = 0;
    for _ in 0..ROUNDS * 3 + 1 {
        advance(round).await;
        overdue += u32::from(convoys.is_overdue(BUDGET, round));
    }
    assert_eq!(overdue, 3);
    convoys.arrive(0, &Fared::Empty);
    advance(BUDGET * 9).await;
    assert!(!convoys.is_overdue(BUDGET, round));
}

#[test]
fn on_a_long_way_there_are_more_at_once() {
    assert_eq!(at_once(Duration::from_micros(30)), FEWEST_AT_ONCE);
    assert_eq!(at_once(Duration::from_millis(2)), 4);
    assert_eq!(at_once(Duration::from_secs(1)), MOST_AT_ONCE);
}
