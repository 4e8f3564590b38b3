use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot::error::TryRecvError;

use super::worker::{at_once, drive, outcome_after, slots};
use super::*;
use crate::base::error::ErrorKind;
use crate::base::unserved::Unserved;
use crate::key::EntryKind;
use crate::protocol::generation::Dependency;

const BUDGET: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_millis(87);

type Waiting = oneshot::Receiver<LookResult>;
type Deps = Arc<[Arc<Dependency>]>;

fn entry_ref(key: &str, deps: &Deps) -> EntryRef {
    EntryRef {
        key: key.into(),
        kind: EntryKind::Entity,
        deps: Arc::clone(deps),
    }
}

fn deps(keys: &[&str]) -> Deps {
    keys.iter()
        .map(|key| Dependency::new((*key).into()))
        .collect()
}

fn join(batcher: &Batcher, key: &str) -> Waiting {
    join_at(batcher, key, clock::system())
}

fn join_at(batcher: &Batcher, key: &str, since: Instant) -> Waiting {
    let entry_ref = entry_ref(key, &deps(&["@gen:users"]));
    batcher.join(&entry_ref, since).expect("not over")
}

fn leave(batcher: &Batcher) -> BatchPlan {
    let (plan, _) = batcher.take(0).expect("not over").expect("somebody waits");
    plan
}

/// Enough small values for it to be known that they are.
fn learn_that_values_are_small(batcher: &Batcher) {
    for _ in 0..50 {
        let _waiting = join(batcher, "users:1");
        leave(batcher);
        let (entries, bytes) = (1, 100);
        batcher.complete(0, &BatchOutcome::Brought { entries, bytes });
    }
}

/// In what parts so many reads leave.
fn parts(batcher: &Batcher, reads: usize, deps: impl Fn(usize) -> Deps) -> Vec<BatchPlan> {
    let waiting: Vec<_> = (0..reads)
        .map(|n| batcher.join(&entry_ref(&format!("users:{n}"), &deps(n)), clock::system()))
        .collect();
    let mut routes = Vec::new();
    while let Some((plan, _)) = batcher.take(0).expect("not over") {
        batcher.complete(0, &BatchOutcome::Empty);
        routes.push(plan);
    }
    drop(waiting);
    routes
}

#[test]
fn present_callers_are_served_whatever_left_before() {
    for is_on_its_way in [false, true] {
        let batcher = Batcher::default();
        let began = Instant::now();
        let mut first = join_at(&batcher, "users:1", began);
        let mut second = join_at(&batcher, "users:2", began + MOST);
        if is_on_its_way {
            leave(&batcher);
        }
        batcher.give_up(began);
        assert!(matches!(first.try_recv(), Err(TryRecvError::Closed)));
        assert!(matches!(second.try_recv(), Err(TryRecvError::Empty)));
        if !is_on_its_way {
            leave(&batcher);
        }
        let waiters = batcher.complete(0, &BatchOutcome::Empty);
        assert_eq!((waiters.gone, waiters.requests.len()), (1, 1));
        assert!(!batcher.is_quiet(), "those who were answered read again");
        batcher.retire();
        assert!(batcher.is_quiet());
    }
}

#[test]
fn a_batch_whose_requests_have_all_been_given_up_is_not_sent() {
    let batcher = Batcher::default();
    let _waiting = [join(&batcher, "users:1"), join(&batcher, "users:2")];
    batcher.give_up(Instant::now());
    assert!(batcher.take(0).expect("not over").is_none());
    assert!(batcher.is_quiet());
}

#[tokio::test]
async fn a_batch_is_bounded_in_reads_and_in_keys() {
    let batcher = Batcher::default();
    learn_that_values_are_small(&batcher);
    let users = deps(&["@gen:users", "@gen:users~derived"]);
    let alike = parts(&batcher, 600, |_| Arc::clone(&users));
    let reads: Vec<_> = alike.iter().map(BatchPlan::len).collect();
    assert_eq!(reads[..2], [MAX_READS; 2]);
    assert_eq!(reads.iter().sum::<usize>(), 600);

    let tagged = parts(&batcher, 600, |n| {
        deps(&["@gen:users", &format!("@gen:~tag{n}")])
    });
    assert_eq!(tagged.iter().map(BatchPlan::len).sum::<usize>(), 600);
    for plan in &tagged {
        let keys = plan.batch_keys(BatchKeys::default()).len();
        assert!(keys <= MAX_KEYS + 2, "{keys} keys");
    }
}

#[tokio::test]
async fn large_values_travel_in_smaller_parts_and_in_smaller_ones_yet_if_they_are_late() {
    let batcher = Batcher::default();
    let most = |batcher: &Batcher| {
        let routes = parts(batcher, 80, |_| deps(&["@gen:users"]));
        routes[0].len()
    };
    assert_eq!(most(&batcher), FIRST_READS, "nothing is known yet");
    for _ in 0..50 {
        let _waiting = [join(&batcher, "users:1"), join(&batcher, "users:1")];
        leave(&batcher);
        // Both have read the same.
        let (entries, bytes) = (1, 1 << 20);
        batcher.complete(0, &BatchOutcome::Brought { entries, bytes });
    }
    assert_eq!(most(&batcher), 4);
    let _waiting = join(&batcher, "users:1");
    leave(&batcher);
    batcher.complete(0, &BatchOutcome::Unanswered { reads: 4 });
    assert_eq!(most(&batcher), 2);
}

#[tokio::test]
async fn at_the_end_all_are_told_and_nobody_joins() {
    let batcher = Batcher::default();
    let mut waiters = join(&batcher, "users:1");
    leave(&batcher);
    let mut queue = join(&batcher, "users:2");
    batcher.end();
    for waiting in [&mut waiters, &mut queue] {
        assert!(matches!(waiting.try_recv(), Err(TryRecvError::Closed)));
    }
    assert!(
        batcher
            .join(&entry_ref("users:3", &deps(&[])), clock::system())
            .is_none()
    );
    assert!(batcher.next_batch(0).await.is_none());
    // A worker comes back from what was on its way.
    let waiters = batcher.complete(0, &BatchOutcome::Unanswered { reads: 1 });
    assert!(waiters.requests.is_empty());
    assert!(batcher.is_quiet());
}

#[test]
fn a_driver_who_does_not_come_back_is_overdue_once_for_each_budget() {
    let batcher = Batcher::default();
    let _waiting = join(&batcher, "users:1");
    leave(&batcher);
    let round = BUDGET / ROUNDS;
    let (began, mut overdue) = (Instant::now(), 0);
    for n in 1..=ROUNDS * 3 + 1 {
        overdue += u32::from(batcher.is_overdue(began + round * n, BUDGET, round));
    }
    assert_eq!(overdue, 3);
    batcher.complete(0, &BatchOutcome::Empty);
    assert!(!batcher.is_overdue(began + BUDGET * 9, BUDGET, round));
}

#[test]
fn on_a_long_way_there_are_more_at_once() {
    assert_eq!(at_once(Duration::from_micros(30)), FEWEST_AT_ONCE);
    assert_eq!(at_once(Duration::from_millis(2)), 4);
    assert_eq!(at_once(Duration::from_secs(1)), MOST_AT_ONCE);
}

#[test]
fn a_batch_that_is_answered_and_not_served_makes_no_batch_smaller() {
    let late = Error::unavailable("no answer");
    let is_late = |it| matches!(it, BatchOutcome::Unanswered { reads: 3 });
    assert!(is_late(outcome_after(&late, 3)));
    for error in [
        Unserved::Unconfirmed.into(),
        Error::new(ErrorKind::Store, "refused"),
    ] {
        assert!(matches!(outcome_after(&error, 3), BatchOutcome::Empty));
    }
}

/// The results of so many reads: all have to be repeated alone.
fn nothing(reads: usize) -> Vec<Option<Box<LookupReply>>> {
    (0..reads).map(|_| None).collect()
}

#[test]
fn a_batch_is_answered_in_halves_while_there_is_no_other() {
    let batcher = Batcher::default();
    let halves = |reads: usize| {
        let mut waiting: Vec<_> = (0..reads).map(|_| join(&batcher, "users:1")).collect();
        leave(&batcher);
        let is_halved = batcher.serve_first_half(0, &mut nothing(reads));
        let answered = waiting.iter_mut().filter_map(|it| it.try_recv().ok());
        let answered = answered.count();
        let rest = batcher.complete(0, &BatchOutcome::Empty);
        batcher.retire();
        (is_halved, answered, rest.gone, rest.requests.len())
    };
    assert_eq!(halves(5), (true, 3, 3, 2));
    assert_eq!(halves(3), (false, 0, 0, 3), "too small");

    let _waiting: Vec<_> = (0..5).map(|_| join(&batcher, "users:1")).collect();
    leave(&batcher);
    let _next = join(&batcher, "users:2");
    let is_halved = batcher.serve_first_half(0, &mut nothing(5));
    assert!(!is_halved, "another is queued");
}

#[tokio::test]
async fn on_one_thread_the_halves_of_a_batch_stay_apart() {
    const CALLERS: usize = 16;
    let (batcher, sizes) = (Arc::new(Batcher::default()), Arc::default());
    for number in 0..WORKERS {
        let (batcher, sizes): (_, Arc<Mutex<Vec<usize>>>) =
            (Arc::clone(&batcher), Arc::clone(&sizes));
        tokio::spawn(async move {
            let send = async |slot, plan: BatchPlan| {
                sizes.lock().push(plan.len());
                let mut lookups = nothing(plan.len());
                // The server answers at once.
                tokio::task::yield_now().await;
                if batcher.serve_first_half(slot, &mut lookups) {
                    batcher.others_send().await;
                }
                let rest = batcher.complete(slot, &BatchOutcome::Empty);
                rest.serve(lookups.into_iter());
            };
            let slots = slots(number, Duration::from_micros(30));
            drive(&batcher, slots, send).await;
        });
    }
    let callers = (0..CALLERS).map(|_| {
        let batcher = Arc::clone(&batcher);
        tokio::spawn(async move {
            for _ in 0..20 {
                let answer = join(&batcher, "users:1").await;
                assert!(matches!(answer, Ok(Ok(None))));
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no panic");
    }
    batcher.end();
    let sizes = sizes.lock();
    assert_eq!(sizes[0], CALLERS);
    assert!(
        sizes[1..].iter().all(|size| *size <= CALLERS / 2),
        "{sizes:?}"
    );
}

#[test]
fn the_second_half_of_a_batch_waits_no_longer_than_any_read() {
    let batcher = Batcher::default();
    let mut waiting: Vec<_> = (0..6).map(|_| join(&batcher, "users:1")).collect();
    leave(&batcher);
    assert!(batcher.serve_first_half(0, &mut nothing(6)));
    batcher.give_up(Instant::now());
    let mut states = waiting.iter_mut().map(|it| it.try_recv().err());
    assert!(states.by_ref().take(3).all(|it| it.is_none()), "answered");
    assert!(states.all(|it| it == Some(TryRecvError::Closed)));
    assert!(
        batcher
            .complete(0, &BatchOutcome::Empty)
            .requests
            .is_empty()
    );
}

#[test]
fn the_second_half_of_a_batch_is_repeated_if_its_connection_is_given_up() {
    let batcher = Batcher::default();
    let mut waiting: Vec<_> = (0..4).map(|_| join(&batcher, "users:1")).collect();
    leave(&batcher);
    assert!(batcher.serve_first_half(0, &mut nothing(4)));
    let (first, second) = waiting.split_at_mut(2);
    let mut is_told = |it: &mut Waiting| matches!(it.try_recv(), Ok(Ok(None)));
    assert!(first.iter_mut().all(&mut is_told), "answered");
    assert!(!second.iter_mut().any(&mut is_told));
    batcher.give_back();
    assert!(second.iter_mut().all(is_told), "repeated");
}
