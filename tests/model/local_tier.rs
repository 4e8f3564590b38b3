//! The local tier with Redis: local entries, kept coherent by `CLIENT TRACKING`.
//! `cache-runtime/src/local` was built from it; what the code does with real servers is checked by
//! `tests/local` and `tests/chaos`.
//!
//! A read takes the flags of its keys before it is sent; a push of a key, or an own invalidation of
//! it, sets the flag, and a read with a set flag is not kept. Replies and pushes come over one wire
//! in order, and are handled by two tasks, so in any order. Own invalidations take effect locally
//! after Redis has answered and before they return. A heartbeat is a push of a key that the process
//! owns, handled in the order of pushes; what is kept is covered as of when it was *sent*.
//!
//! # Bounds
//!
//! One entry and its generation, one reader of this process with two reads, one own write and one
//! of another process, each of the row or the whole, one heartbeat, fills by others at any moment.
//!
//! # What is not modelled
//!
//! - The lost connection (which forgets everything by an epoch), eviction, several keys, time
//!   itself: the bound is stated by what a heartbeat covers.
//! - Leases: a fill by another process is of the newest version.

use stateright::{Model, Property};

use crate::check::{holds, is_caught};

const OWN: &str = "nothing older than an own invalidation that has returned";
const SETTLED: &str = "nothing stale once everything has arrived";
const BOUND: &str = "nothing older than what the last heartbeat covers";

type Version = u8;
type Nonce = u8;

/// When an own invalidation takes effect in the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Own {
    AfterTheAnswer,
    BeforeItIsSent,
}

/// Who handles the answer to a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heartbeat {
    /// A push of a key of one's own, in the order of pushes.
    Push,
    /// A `PING`, whose answer overtakes pushes.
    Ping,
}

/// As of when a heartbeat that has arrived covers what is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Covers {
    WhenSent,
    WhenReceived,
}

#[derive(Clone, Copy, Debug)]
struct LocalTier {
    own: Own,
    heartbeat: Heartbeat,
    covers: Covers,
    /// What an own fill stores is kept as well, although that key is not tracked by it.
    keeps_own_fills: bool,
    own_writes: u8,
    heartbeats: u8,
}

const DESIGN: LocalTier = LocalTier {
    own: Own::AfterTheAnswer,
    heartbeat: Heartbeat::Push,
    covers: Covers::WhenSent,
    keeps_own_fills: false,
    own_writes: 1,
    heartbeats: 1,
};

const READS: u8 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Key {
    Entry,
    Generation,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Value {
    stamp: Nonce,
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Reply {
    Look(Option<Value>, Nonce),
    Invalidated(Key, Version),
    Pong(Version),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Push {
    Key(Key),
    Heartbeat(Version),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Reading {
    Idle,
    Sent,
    OnTheWire,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Writing {
    Idle,
    Committed(Version),
    Sent(Key, Version),
    Executed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum HeartbeatState {
    Idle,
    Sent(Version),
    Executed,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    // The server.
    entry: Option<Value>,
    generation: Nonce,
    tracks_entry: bool,
    tracks_generation: bool,
    database: Version,
    /// The newest version that anybody's invalidation was acknowledged for, and this process's.
    acknowledged: Version,
    own_acknowledged: Version,
    // The process.
    local: Option<Value>,
    local_generation: Option<Nonce>,
    reading: Reading,
    is_discarded: bool,
    reads: u8,
    own: Writing,
    own_writes: u8,
    /// What was acknowledged when the last heartbeat that has arrived was sent.
    covered: Version,
    sent_heartbeat: HeartbeatState,
    heartbeats_done: u8,
    // Another process.
    other: Writing,
    other_writes: u8,
    // The wire.
    replies: Vec<Reply>,
    pushes: Vec<Push>,
    next: Nonce,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Action {
    MarkAndSend,
    ExecuteLook,
    HandleReply,
    HandlePush,
    OwnCommit,
    OwnSend(Key),
    OwnExecute,
    OtherCommit,
    OtherInvalidate(Key),
    OtherFill,
    OwnFill,
    SendHeartbeat,
    ExecuteHeartbeat,
}

impl State {
    /// A change of a key that is tracked is pushed, once.
    fn change(&mut self, key: Key) {
        let tracked = match key {
            Key::Entry => &mut self.tracks_entry,
            Key::Generation => &mut self.tracks_generation,
        };
        if std::mem::take(tracked) {
            self.pushes.push(Push::Key(key));
        }
    }

    fn invalidate(&mut self, key: Key) {
        self.change(key);
        match key {
            Key::Entry => self.entry = None,
            Key::Generation => {
                self.next += 1;
                self.generation = self.next;
            }
        }
    }

    /// The process forgets a key, and what it has asked for of it.
    fn forget(&mut self, key: Key) {
        match key {
            Key::Entry => self.local = None,
            Key::Generation => self.local_generation = None,
        }
        self.is_discarded |= self.reading != Reading::Idle;
    }

    /// What a read would be served without asking.
    fn served(&self) -> Option<Version> {
        let value = self.local?;
        (Some(value.stamp) == self.local_generation).then_some(value.version)
    }

    fn is_settled(&self) -> bool {
        self.replies.is_empty()
            && self.pushes.is_empty()
            && self.reading == Reading::Idle
            && self.own == Writing::Idle
            && self.sent_heartbeat == HeartbeatState::Idle
    }
}

impl LocalTier {
    fn handle_reply(&self, state: &mut State) {
        match state.replies.remove(0) {
            Reply::Look(entry, generation) => {
                if !std::mem::take(&mut state.is_discarded) {
                    state.local_generation = Some(generation);
                    if let Some(value) = entry.filter(|value| value.stamp == generation) {
                        state.local = Some(value);
                    }
                }
                state.reading = Reading::Idle;
                state.reads += 1;
            }
            Reply::Invalidated(key, version) => {
                if self.own == Own::AfterTheAnswer {
                    state.forget(key);
                }
                state.acknowledged = state.acknowledged.max(version);
                state.own_acknowledged = state.own_acknowledged.max(version);
                state.own = Writing::Idle;
            }
            Reply::Pong(sent) => self.cover(state, sent),
        }
    }

    fn cover(&self, state: &mut State, sent: Version) {
        let covered = match self.covers {
            Covers::WhenSent => sent,
            Covers::WhenReceived => state.acknowledged,
        };
        state.covered = state.covered.max(covered);
        state.sent_heartbeat = HeartbeatState::Idle;
        state.heartbeats_done += 1;
    }
}

impl Model for LocalTier {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            entry: None,
            generation: 1,
            tracks_entry: false,
            tracks_generation: false,
            database: 0,
            acknowledged: 0,
            own_acknowledged: 0,
            local: None,
            local_generation: None,
            reading: Reading::Idle,
            is_discarded: false,
            reads: 0,
            own: Writing::Idle,
            own_writes: 0,
            covered: 0,
            sent_heartbeat: HeartbeatState::Idle,
            heartbeats_done: 0,
            other: Writing::Idle,
            other_writes: 0,
            replies: Vec::new(),
            pushes: Vec::new(),
            next: 1,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let keys = [Key::Entry, Key::Generation];
        match state.reading {
            Reading::Idle if state.reads < READS => actions.push(Action::MarkAndSend),
            Reading::Sent => actions.push(Action::ExecuteLook),
            Reading::Idle | Reading::OnTheWire => {}
        }
        if !state.replies.is_empty() {
            actions.push(Action::HandleReply);
        }
        if !state.pushes.is_empty() {
            actions.push(Action::HandlePush);
        }
        match state.own {
            Writing::Idle if state.own_writes < self.own_writes => actions.push(Action::OwnCommit),
            Writing::Committed(_) => actions.extend(keys.map(Action::OwnSend)),
            Writing::Sent(..) => actions.push(Action::OwnExecute),
            Writing::Idle | Writing::Executed => {}
        }
        match state.other {
            Writing::Idle if state.other_writes < 1 => actions.push(Action::OtherCommit),
            Writing::Committed(_) => actions.extend(keys.map(Action::OtherInvalidate)),
            _ => {}
        }
        if state.entry.is_none() {
            actions.push(Action::OtherFill);
            if self.keeps_own_fills {
                actions.push(Action::OwnFill);
            }
        }
        match state.sent_heartbeat {
            HeartbeatState::Idle if state.heartbeats_done < self.heartbeats => {
                actions.push(Action::SendHeartbeat)
            }
            HeartbeatState::Sent(_) => actions.push(Action::ExecuteHeartbeat),
            HeartbeatState::Idle | HeartbeatState::Executed => {}
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::MarkAndSend => state.reading = Reading::Sent,
            Action::ExecuteLook => {
                (state.tracks_entry, state.tracks_generation) = (true, true);
                state
                    .replies
                    .push(Reply::Look(state.entry, state.generation));
                state.reading = Reading::OnTheWire;
            }
            Action::HandleReply => self.handle_reply(&mut state),
            Action::HandlePush => match state.pushes.remove(0) {
                Push::Key(key) => state.forget(key),
                Push::Heartbeat(sent) => self.cover(&mut state, sent),
            },
            Action::OwnCommit => {
                state.database += 1;
                state.own_writes += 1;
                state.own = Writing::Committed(state.database);
            }
            Action::OwnSend(key) => {
                let Writing::Committed(version) = state.own else {
                    return None;
                };
                if self.own == Own::BeforeItIsSent {
                    state.forget(key);
                }
                state.own = Writing::Sent(key, version);
            }
            Action::OwnExecute => {
                let Writing::Sent(key, version) = state.own else {
                    return None;
                };
                state.invalidate(key);
                state.replies.push(Reply::Invalidated(key, version));
                state.own = Writing::Executed;
            }
            Action::OtherCommit => {
                state.database += 1;
                state.other_writes += 1;
                state.other = Writing::Committed(state.database);
            }
            Action::OtherInvalidate(key) => {
                let Writing::Committed(version) = state.other else {
                    return None;
                };
                state.invalidate(key);
                state.acknowledged = state.acknowledged.max(version);
                state.other = Writing::Idle;
            }
            Action::OtherFill | Action::OwnFill => {
                state.change(Key::Entry);
                let value = Value {
                    stamp: state.generation,
                    version: state.database,
                };
                state.entry = Some(value);
                if action == Action::OwnFill {
                    // Without a read behind it, nobody tells this process of the next change.
                    state.local = Some(value);
                    state.local_generation = Some(value.stamp);
                }
            }
            Action::SendHeartbeat => {
                state.sent_heartbeat = HeartbeatState::Sent(state.acknowledged)
            }
            Action::ExecuteHeartbeat => {
                let HeartbeatState::Sent(sent) = state.sent_heartbeat else {
                    return None;
                };
                match self.heartbeat {
                    Heartbeat::Push => state.pushes.push(Push::Heartbeat(sent)),
                    Heartbeat::Ping => state.replies.push(Reply::Pong(sent)),
                }
                state.sent_heartbeat = HeartbeatState::Executed;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(OWN, |_, state: &State| {
                state
                    .served()
                    .is_none_or(|served| served >= state.own_acknowledged)
            }),
            Property::always(SETTLED, |_, state: &State| {
                let is_new = state
                    .served()
                    .is_none_or(|served| served >= state.acknowledged);
                is_new || !state.is_settled()
            }),
            Property::always(BOUND, |_, state: &State| {
                state.served().is_none_or(|served| served >= state.covered)
            }),
            Property::sometimes("a local hit", |_, state: &State| state.served().is_some()),
            Property::sometimes("a local hit of what was written", |_, state: &State| {
                state
                    .served()
                    .is_some_and(|served| served > 0 && served == state.acknowledged)
            }),
            Property::sometimes(
                "a local hit while a push is on its way",
                |_, state: &State| {
                    state
                        .served()
                        .is_some_and(|served| served < state.acknowledged)
                },
            ),
        ];
        if self.heartbeats > 0 {
            properties.push(Property::sometimes(
                "a heartbeat covers a write",
                |_, state: &State| state.covered > 0,
            ));
        }
        properties
    }
}

#[test]
fn the_design_holds() {
    holds(DESIGN, 10_000);
}

#[test]
fn a_local_effect_before_redis_has_answered_is_caught() {
    let model = LocalTier {
        own: Own::BeforeItIsSent,
        ..DESIGN
    };
    is_caught(model, OWN);
}

#[test]
fn a_ping_for_a_heartbeat_is_caught() {
    let model = LocalTier {
        heartbeat: Heartbeat::Ping,
        own_writes: 0,
        ..DESIGN
    };
    is_caught(model, BOUND);
}

#[test]
fn a_heartbeat_that_covers_when_it_is_received_is_caught() {
    let model = LocalTier {
        covers: Covers::WhenReceived,
        own_writes: 0,
        ..DESIGN
    };
    is_caught(model, BOUND);
}

#[test]
fn an_own_fill_that_is_kept_untracked_is_caught() {
    let model = LocalTier {
        keeps_own_fills: true,
        own_writes: 0,
        heartbeats: 0,
        ..DESIGN
    };
    is_caught(model, SETTLED);
}
