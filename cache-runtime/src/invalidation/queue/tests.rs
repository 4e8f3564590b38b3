use super::super::batch::Sweep;
use super::*;
use crate::base::clock::{self, Millis};
use crate::base::nonce::Nonce;
use crate::key::EntryKind;
use crate::store::{Intent, IntentRow};

const SECOND: Duration = Duration::from_secs(1);
const INTENT: Duration = Duration::from_secs(10);

fn dep(name: &str) -> Arc<Dependency> {
    Dependency::new(format!("@gen:{name}"))
}

fn deletion(key: &str) -> InvalidationRequest {
    InvalidationRequest {
        deletes: vec![key.into()],
        rotates: vec![dep("users~derived")],
        ..InvalidationRequest::default()
    }
}

fn announcement(key: &str) -> InvalidationRequest {
    InvalidationRequest {
        intents: vec![Intent {
            token: Nonce::fresh(),
            rows: vec![IntentRow {
                key: key.into(),
                whole: dep("users"),
            }],
            deps: vec![dep("users~derived")],
            length: 5 * SECOND,
        }],
        ..InvalidationRequest::default()
    }
}

fn withdrawal(key: &str) -> InvalidationRequest {
    InvalidationRequest {
        ends: vec![Nonce::fresh()],
        ..deletion(key)
    }
}

fn enter_namespace(queue: &mut Queue) {
    let (sender, _) = oneshot::channel();
    queue.enter(None, sender).expect("open");
}

fn entry_ref(key: &str) -> EntryRef {
    EntryRef {
        key: key.into(),
        kind: EntryKind::Entity,
        deps: [dep("users")].into(),
    }
}

fn queue(limit: usize) -> Queue {
    Queue::new(limit, INTENT, clock::now())
}

fn enter(queue: &mut Queue, request: InvalidationRequest) -> oneshot::Receiver<Acknowledgement> {
    let (sender, receiver) = oneshot::channel();
    // Once the queue is closed, the receiver returns an error.
    let _ = queue.enter(Some(request), sender);
    receiver
}

#[test]
fn waiting_requests_are_sent_once_and_acknowledged_to_all() {
    let mut queue = queue(10);
    let mut answers = [
        enter(&mut queue, deletion("users:1")),
        enter(&mut queue, deletion("users:1")),
    ];
    let sent = queue.send(clock::now()).expect("something to send");
    assert_eq!(
        (
            sent.invalidation.deletes.len(),
            sent.invalidation.rotates.len()
        ),
        (1, 1)
    );
    queue.acknowledge();
    assert!(
        answers
            .iter_mut()
            .all(|r| r.try_recv() == Ok(Acknowledgement::Delivered))
    );
    assert!(queue.send(clock::now()).is_none());
    assert!(!queue.is_degraded());
}

#[test]
fn waiting_invalidations_are_named() {
    let mut queue = queue(10);
    assert_eq!(queue.waiting_of(), [""; 0]);
    drop(enter(&mut queue, deletion("users:1")));
    assert_eq!(
        queue.waiting_of(),
        ["single entries, tags or announced writes"]
    );
    let sweep = |resource: &str| InvalidationRequest {
        sweeps: vec![Sweep {
            resource: resource.into(),
            derived_only: true,
        }],
        ..deletion("x")
    };
    drop(enter(&mut queue, sweep("users")));
    drop(enter(&mut queue, sweep("teams")));
    assert_eq!(queue.waiting_of(), ["`teams`", "`users`"]);
}

#[test]
fn refused_requests_concern_their_readers_until_delivered() {
    let mut queue = queue(10);
    let mut answer = enter(&mut queue, deletion("users:1"));
    queue.send(clock::now());
    assert_eq!(queue.take_back(true).len(), 1);
    assert!(answer.try_recv().is_err(), "its owner is told later");
    assert!(queue.is_degraded() && queue.concerns(&entry_ref("users:1"), |_| 0));
    assert!(!queue.concerns(&entry_ref("users:2"), |_| 0));
    queue.send(clock::now());
    assert!(
        queue.concerns(&entry_ref("users:1"), |_| 0),
        "on its way is not there"
    );
    queue.acknowledge();
    assert!(!queue.is_degraded() && !queue.concerns(&entry_ref("users:1"), |_| 0));
}

#[test]
fn an_invalidation_that_nobody_waits_for_any_more_outlives_an_earlier_one_of_the_same_name() {
    let mut queue = queue(10);
    let _first = enter(&mut queue, deletion("users:1"));
    queue.send(clock::now());
    let (sender, _second) = oneshot::channel();
    let number = queue
        .enter(Some(deletion("users:1")), sender)
        .expect("open");
    assert_eq!(queue.stop_waiting(number), Acknowledgement::Pending);
    queue.acknowledge();
    assert!(queue.is_degraded() && queue.concerns(&entry_ref("users:1"), |_| 0));
    queue.send(clock::now());
    queue.acknowledge();
    assert!(!queue.is_degraded());
    assert_eq!(queue.stop_waiting(number), Acknowledgement::Delivered);
}

#[test]
fn an_empty_request_is_not_waited_for() {
    let mut queue = queue(10);
    let _waits = enter(&mut queue, deletion("users:1"));
    queue.send(clock::now());
    let (sender, mut answer) = oneshot::channel();
    let number = queue
        .enter(Some(InvalidationRequest::default()), sender)
        .expect("open");
    assert_eq!(queue.stop_waiting(number), Acknowledgement::Delivered);
    assert!(!queue.is_degraded());
    assert_eq!(answer.try_recv(), Ok(Acknowledgement::Delivered));
}

#[test]
fn past_the_limit_everything_is_invalidated_now_and_whenever_it_is_due() {
    let mut queue = queue(4);
    let [soon, later] = [1, 5].map(|s| clock::now() + Duration::from_secs(s));
    for due in [later, soon] {
        queue.enter_at(due, deletion("users:0")).expect("open");
    }
    for id in 0..9 {
        drop(enter(&mut queue, deletion(&format!("users:{id}"))));
    }
    assert!(queue.concerns(&entry_ref("teams:1"), |_| 0));
    for now in [clock::now(), soon + DUE_STEP, later + DUE_STEP] {
        let sent = queue.send(now).expect("something to send");
        assert!(sent.whole_namespace && sent.invalidation.deletes.is_empty());
        queue.acknowledge();
        assert!(queue.send(now).is_none());
    }
}

#[test]
fn with_more_steps_than_room_the_last_covers_all() {
    let mut queue = queue(4);
    let due = |step: u32| clock::now() + DUE_STEP * step;
    for step in 1..=9 {
        queue
            .enter_at(due(step), deletion("users:0"))
            .expect("open");
    }
    queue.send(due(0));
    queue.acknowledge();
    let sent = queue.send(due(10)).expect("something to send");
    assert!(sent.whole_namespace);
    queue.acknowledge();
    assert!(queue.send(due(100)).is_none());
}

#[test]
fn repetitions_of_one_resource_take_one_place() {
    let mut queue = queue(4);
    let later = clock::now() + Duration::from_secs(5);
    for _ in 0..10_000 {
        let request = InvalidationRequest {
            rotates: vec![dep("users")],
            ..InvalidationRequest::default()
        };
        queue.enter_at(later, request).expect("open");
    }
    assert!(queue.send(clock::now()).is_none());
    let sent = queue.send(later + DUE_STEP).expect("something to send");
    assert_eq!(
        (sent.whole_namespace, sent.invalidation.rotates.len()),
        (false, 1)
    );
}

#[test]
fn interrupted_requests_are_sent_again() {
    let mut queue = queue(4);
    let _pending_ack = enter(&mut queue, deletion("users:1"));
    queue.send(clock::now());
    let again = queue.send(clock::now()).expect("something to send");
    assert_eq!(again.invalidation.deletes, ["users:1"]);
}

#[test]
fn requests_held_by_or_after_a_closed_queue_are_lost_and_named() {
    let mut queue = queue(4);
    let mut before = enter(&mut queue, deletion("users:1"));
    assert!(!queue.close_if_done());
    assert_eq!(queue.close().to_string(), "@gen:users~derived");
    assert!(before.try_recv().is_err(), "nobody waits");
    assert_eq!(queue.len(), 2);

    let mut lose = |request| {
        let (sender, mut answer) = oneshot::channel();
        let lost = queue.enter(request, sender).expect_err("closed");
        assert!(answer.try_recv().is_err());
        lost
    };
    assert!(
        !lose(Some(deletion("users:2"))).is_news(),
        "it is in the log"
    );
    let teams = InvalidationRequest {
        rotates: vec![dep("teams")],
        ..InvalidationRequest::default()
    };
    assert_eq!(lose(Some(teams.clone())).to_string(), "@gen:teams");
    assert_eq!(lose(None).to_string(), "the whole namespace");
    assert!(
        !queue
            .enter_at(clock::now(), teams)
            .expect_err("closed")
            .is_news()
    );
    assert_eq!(queue.len(), 2 + 2 + 1 + 1 + 1);
}

#[test]
fn a_loss_is_named_by_a_few_names() {
    let names = (0..12).map(|n| n.to_string()).collect();
    assert_eq!(
        LostInvalidations { names, count: 12 }.to_string(),
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    );
}

#[test]
fn an_invalidation_of_everything_absorbs_no_announcement_and_no_withdrawal() {
    for namespace_first in [false, true] {
        let mut queue = queue(10);
        if namespace_first {
            enter_namespace(&mut queue);
        }
        drop(enter(&mut queue, announcement("users:1")));
        drop(enter(&mut queue, withdrawal("users:2")));
        enter_namespace(&mut queue);
        for _ in 0..2 {
            let sent = queue.send(clock::now()).expect("something to send");
            assert!(sent.whole_namespace);
            assert_eq!(sent.intents.len(), 1);
            assert_eq!(sent.invalidation.ends.len(), 1);
            assert_eq!(sent.invalidation.deletes, ["users:2"], "where it stands");
            drop(queue.take_back(true));
        }
    }
}

#[test]
fn past_the_limit_everything_is_invalidated_again_when_the_announcements_would_have_ended() {
    let mut queue = queue(4);
    for id in 0..9 {
        drop(enter(&mut queue, announcement(&format!("users:{id}"))));
    }
    for now in [clock::now(), clock::now() + 5 * SECOND + DUE_STEP] {
        let sent = queue.send(now).expect("something to send");
        assert!(sent.whole_namespace);
        queue.acknowledge();
    }
}

#[test]
fn withdrawn_intents_are_forgotten_once_they_have_ended() {
    let mut queue = queue(10);
    drop(enter(&mut queue, withdrawal("users:1")));
    let sent = queue.send(clock::now()).expect("something to send");
    assert_eq!(sent.invalidation.ends.len(), 1);
    drop(queue.take_back(true));
    let sent = queue.send(clock::now() + INTENT).expect("still to be sent");
    assert_eq!(sent.invalidation.ends, []);
    assert_eq!(sent.invalidation.deletes, ["users:1"]);
}

#[test]
fn withdrawals_of_one_row_are_bounded() {
    let mut queue = queue(10);
    for _ in 0..100 {
        drop(enter(&mut queue, withdrawal("users:1")));
        assert!(queue.len() <= 10);
    }
    let sent = queue.send(clock::now()).expect("something to send");
    assert!(sent.whole_namespace && sent.invalidation.ends.len() < 10);
}

#[test]
fn each_part_is_done_with_when_it_is_delivered() {
    let mut queue = queue(10);
    let (sender, one) = oneshot::channel();
    let request_number = queue
        .enter(Some(announcement("users:2")), sender)
        .expect("open");
    queue.send(clock::now());
    assert_eq!(queue.take_back(true).len(), 1);
    drop(one);
    let mut plain = enter(&mut queue, deletion("users:1"));
    let mut other = enter(&mut queue, announcement("teams:1"));
    let sent = queue.send(clock::now()).expect("something to send");
    queue.acknowledge();
    assert_eq!(plain.try_recv(), Ok(Acknowledgement::Delivered));
    assert_eq!(queue.stop_waiting(request_number), Acknowledgement::Pending);

    assert_eq!(sent.intents[0].rows[0].key, "users:2");
    queue.defer_intent(sent.intents[0].token);
    queue.acknowledge_intent(sent.intents[1].token);
    assert!(other.try_recv().is_err(), "nobody knows which it was");
    assert_eq!(queue.take_back(true).len(), 1);
    assert!(queue.concerns(&entry_ref("users:2"), |_| 0));
    assert!(
        !queue.concerns(&entry_ref("users:1"), |_| 0)
            && !queue.concerns(&entry_ref("teams:1"), |_| 0)
    );

    let sent = queue.send(clock::now()).expect("the one that is left");
    assert!(!sent.invalidates && sent.intents.len() == 1);
    queue.acknowledge_intent(sent.intents[0].token);
    assert!(!queue.is_degraded());
    assert_eq!(
        queue.stop_waiting(request_number),
        Acknowledgement::Delivered
    );
    assert!(queue.send(clock::now()).is_none());
}

fn token(request: &InvalidationRequest) -> Nonce {
    request.intents[0].token
}

#[test]
fn announcements_that_were_not_sent_become_one_that_nobody_can_withdraw() {
    let mut queue = queue(10_000);
    let alone = announcement("users:0");
    let name = token(&alone);
    drop(enter(&mut queue, alone));
    let sent = queue.send(clock::now()).expect("something to send");
    assert_eq!(sent.intents[0].token, name);
    drop(queue.take_back(true));

    let mut names = HashSet::from([name]);
    for id in 1..=600 {
        let mut request = announcement(&format!("users:{id}"));
        names.insert(token(&request));
        if id == 7 {
            request.intents[0].length = 60 * SECOND;
        }
        drop(enter(&mut queue, request));
    }
    assert!(queue.concerns(&entry_ref("users:600"), |_| 0));
    let sent = queue.send(clock::now()).expect("something to send");
    assert_eq!(sent.intents[0].token, name, "it may have arrived");
    let together = &sent.intents[1..];
    assert_eq!(together.len(), 3);
    let rows: HashSet<_> = together
        .iter()
        .flat_map(|intent| &intent.rows)
        .map(|row| &row.key)
        .collect();
    assert_eq!(rows.len(), 600);
    assert_eq!(together[0].deps, [dep("users~derived")]);
    for intent in together {
        assert_eq!(intent.length, 60 * SECOND);
        assert!(names.insert(intent.token), "a name of its own");
    }
}

#[test]
fn an_announcement_that_is_lost_is_named() {
    let mut queue = queue(10);
    drop(enter(&mut queue, announcement("users:1")));
    assert_eq!(queue.close().to_string(), "@gen:users~derived");
    let mut row = announcement("users:1");
    row.intents[0].deps.clear();
    let (sender, _) = oneshot::channel();
    let lost = queue.enter(Some(row), sender).expect_err("closed");
    assert_eq!(lost.to_string(), "users:1");
}

#[tokio::test(start_paused = true)]
async fn the_oldest_that_waits_is_known() {
    let mut queue = queue(10);
    assert_eq!(queue.oldest(), None);
    let first = clock::now();
    enter(&mut queue, deletion("users:1"));
    tokio::time::advance(SECOND).await;
    enter(&mut queue, deletion("users:2"));
    assert_eq!(queue.oldest(), Some(first));

    // It still waits while it is in flight and after it was put back.
    assert!(queue.send(clock::now()).is_some());
    tokio::time::advance(SECOND).await;
    enter(&mut queue, deletion("users:3"));
    assert_eq!(queue.oldest(), Some(first));
    drop(queue.take_back(true));
    assert_eq!(queue.oldest(), Some(first));
    assert!(queue.send(clock::now()).is_some());
    queue.acknowledge();
    assert_eq!(queue.oldest(), None);

    // A delayed invalidation has waited since it became due.
    let due = clock::now() + 10 * SECOND;
    queue.enter_at(due, deletion("users:4")).expect("open");
    assert_eq!(queue.oldest(), None);
    tokio::time::advance(11 * SECOND).await;
    assert!(queue.send(clock::now()).is_some());
    assert!(queue.oldest() >= Some(due), "{:?}", queue.oldest());
}

#[test]
fn of_everything_only_the_undone_parts_are_sent_again() {
    let some = |parts: &[u16]| Parts::Only(parts.iter().copied().collect());
    let mut queue = queue(10);
    queue.set_split(true);
    let mut absorbed = enter(&mut queue, deletion("users:1"));
    let (sender, mut everything) = oneshot::channel();
    queue.enter(None, sender).expect("open");
    let sent = queue.send(clock::now()).expect("something to send");
    assert_eq!(
        (sent.parts, sent.invalidation.deletes.len()),
        (Parts::All, 0)
    );
    let began = queue.acknowledge_parts(some(&[3]), Some(Millis(7)));
    assert_eq!(began, Some(Millis(7)));
    queue.acknowledge_part(&sent.invalidation);
    assert!(absorbed.try_recv().is_err() && everything.try_recv().is_err());
    drop(queue.take_back(true));
    assert!(queue.concerns(&entry_ref("users:1"), |_| 3));
    assert!(!queue.concerns(&entry_ref("users:1"), |_| 4));

    // What comes later may lie in the parts that are done.
    let mut later = enter(&mut queue, deletion("users:2"));
    let sent = queue.send(clock::now()).expect("something to send");
    assert_eq!(
        (sent.parts, sent.invalidation.deletes.len()),
        (some(&[3]), 1)
    );
    let began = queue.acknowledge_parts(some(&[3]), Some(Millis(9)));
    assert_eq!(
        began,
        Some(Millis(7)),
        "what is swept was stored before that"
    );
    queue.acknowledge_part(&sent.invalidation);
    assert_eq!(later.try_recv(), Ok(Acknowledgement::Delivered));
    drop(queue.take_back(true));

    // Again everything: all parts.
    enter_namespace(&mut queue);
    let sent = queue.send(clock::now()).expect("something to send");
    assert_eq!(sent.parts, Parts::All);
    // It is done, and something else is not: it is not sent again, and its scan follows.
    queue.acknowledge_parts(some(&[]), Some(Millis(11)));
    drop(queue.take_back(true));
    let sent = queue
        .send(clock::now())
        .expect("it is not acknowledged yet");
    assert!(sent.whole_namespace && sent.parts.is_empty());
    assert!(queue.acknowledge().everything.is_some());
    assert!(queue.send(clock::now()).is_none() && !queue.is_degraded());
}

/// Enqueues a request whose caller is to send it; returns its number.
fn enter_direct(
    queue: &mut Queue,
    request: InvalidationRequest,
) -> (oneshot::Receiver<Acknowledgement>, Option<u64>) {
    let (sender, receiver) = oneshot::channel();
    let entered = queue.enter_to_send(request, sender, clock::now());
    let (_, sent) = entered.expect("open");
    (receiver, sent.map(|(number, _)| number))
}

#[test]
fn a_caller_sends_what_waits_behind_nothing() {
    let mut queue = queue(10);
    let (mut first, number) = enter_direct(&mut queue, deletion("users:1"));
    let number = number.expect("nothing waits before it");
    let (mut second, none) = enter_direct(&mut queue, deletion("users:2"));
    assert_eq!(none, None, "the first is on its way");
    assert!(queue.send(clock::now()).is_none());
    let done = queue.acknowledge_direct(number).expect("its own");
    assert!(done.wakes, "for the second");
    assert_eq!(first.try_recv(), Ok(Acknowledgement::Delivered));
    let sent = queue.send(clock::now()).expect("the second");
    assert_eq!(sent.invalidation.deletes, ["users:2"]);
    queue.acknowledge();
    assert_eq!(second.try_recv(), Ok(Acknowledgement::Delivered));

    let (_, none) = enter_direct(&mut queue, announcement("users:1"));
    assert_eq!(none, None, "the worker announces");
}

#[test]
fn a_caller_that_stops_is_not_waited_for() {
    let mut queue = queue(10);
    let (mut first, number) = enter_direct(&mut queue, deletion("users:1"));
    let number = number.expect("nothing waits before it");
    let (mut second, _) = enter_direct(&mut queue, deletion("users:2"));
    assert!(queue.send(clock::now()).is_none());
    let later = clock::now() + TAKEOVER;
    assert!(queue.wake_at().is_some_and(|at| at <= later));
    let sent = queue.send(later).expect("both");
    assert_eq!(sent.invalidation.deletes.len(), 2);
    // It goes on after all. What it has sent is only a part of what is in flight now.
    assert!(queue.acknowledge_direct(number).is_none());
    assert!(queue.take_back_direct(number, true).is_none() && !queue.hand_back(number));
    assert!(first.try_recv().is_err() && second.try_recv().is_err());
    queue.acknowledge();
    assert_eq!(first.try_recv(), Ok(Acknowledgement::Delivered));
    assert_eq!(second.try_recv(), Ok(Acknowledgement::Delivered));
}

#[test]
fn a_batch_that_a_caller_hands_back_is_sent_again() {
    let mut queue = queue(10);
    let (mut told, number) = enter_direct(&mut queue, deletion("users:1"));
    assert!(queue.hand_back(number.expect("nothing waits before it")));
    assert!(queue.concerns(&entry_ref("users:1"), |_| 0));
    let sent = queue.send(clock::now()).expect("again");
    assert_eq!(sent.invalidation.deletes, ["users:1"]);
    queue.acknowledge();
    assert_eq!(told.try_recv(), Ok(Acknowledgement::Delivered));

    let (_told, number) = enter_direct(&mut queue, deletion("users:1"));
    let waiters = queue.take_back_direct(number.expect("nothing waits before it"), false);
    assert_eq!(waiters.map(|waiters| waiters.len()), Some(1));
    assert!(queue.is_degraded());
    let (_, none) = enter_direct(&mut queue, deletion("users:2"));
    assert_eq!(none, None, "it would only be tried in vain once more");
}

/// In a cluster, what is left of an invalidation of everything replaces no smaller ones, which may
/// be refused for ever.
#[test]
fn what_is_known_to_be_refused_is_bounded() {
    let mut queue = queue(10);
    drop(enter(&mut queue, deletion("users:1")));
    let sent = queue.send(clock::now()).expect("the row").invalidation;
    let undone = sent.part(vec!["users:1".to_owned()], Vec::new());
    let error = Error::new(crate::base::error::ErrorKind::Store, "NOPERM");
    for n in 0..100 {
        // The row is refused again and again, and another tag is replaced beside it each time.
        let sent = sent.part(undone.deletes.clone(), vec![dep(&format!("~team:{n}"))]);
        queue.refuse(&sent, &undone, &error);
        drop(enter(&mut queue, deletion("users:1")));
    }
    assert!(queue.refused.len() <= 25, "{}", queue.refused.len());
}

/// What others load between the two is made of the refused row.
#[test]
fn what_comes_while_a_row_is_being_refused_is_replaced_once_more() {
    let mut queue = queue(10);
    drop(enter(&mut queue, deletion("users:1")));
    let sent = queue.send(clock::now()).expect("the row");
    let with_tag = InvalidationRequest {
        rotates: vec![dep("~team")],
        ..deletion("users:1")
    };
    drop(enter(&mut queue, with_tag));
    let error = Error::new(crate::base::error::ErrorKind::Store, "NOPERM");
    let mut undone = sent.invalidation.clone();
    undone.rotates.clear();
    queue.refuse(&sent.invalidation, &undone, &error);
    assert!(queue.replaced_meanwhile().contains(&dep("~team")));
}
