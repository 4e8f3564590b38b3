//! A cluster: an entry whose slot may move between two nodes and back, and its generation on a node
//! of its own.
//!
//! Entry and generation are read in any order, and changed by themselves. The stamp names the
//! servers of both; a node's identity holds its epoch, which rises when a slot returns to it.
//!
//! # Bounds
//!
//! One or two readers with up to three reads each, one writer with one write, one failover of each
//! kind, two moves of the slot, one copy that a broken `MIGRATE` leaves behind, one eviction: not
//! all of them at once, see the tests.
//!
//! # What is not modelled
//!
//! - Replicas that are asked, slots of several keys, and `ASK`: nothing is read or stored by it.
//! - How a client finds out: it hears of a move at some point, with the poll before the next fault.

use stateright::{Model, Property};

use crate::check::{holds, is_caught};
use crate::nonce::{Names, Nonce, Rename};

const NOTHING_STALE: &str = "nothing stale";
/// The owner of a slot that clients know no owner of.
const NOBODY: usize = 2;

type Version = u8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writes {
    /// `#[invalidates("users", id = id)]`
    Row,
    /// `#[invalidates("users")]`
    Whole,
}

/// What the design does, and what happens.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    /// Whether the entry's server is in the stamp, and the generation's.
    names_entry_server: bool,
    names_generation_server: bool,
    /// Whether a server's identity holds its epoch.
    names_epoch: bool,
    /// Whether clients hear of a move before the next fault.
    polls: bool,
    /// Whether other nodes say that a node has the slot before it takes it.
    others_first: bool,
    /// Whether a node is used for the slot only once it has said itself that it has it.
    own_word: bool,
    /// Whether an invalidation is acknowledged only when no former primary answers.
    fences: bool,
    /// Whether a former primary goes on answering.
    former_answers: bool,
    /// Whether it also acknowledges invalidations, which the new one does not get.
    former_takes_writes: bool,
    /// Whether nothing is read from the new primary while a former one answers.
    awaits_former: bool,
    writes: Writes,
    readers: usize,
    reads: u8,
    failovers: u8,
    generation_failovers: u8,
    moves: u8,
    copies: u8,
    evictions: u8,
}

const DESIGN: Cluster = Cluster {
    names_entry_server: true,
    names_generation_server: true,
    names_epoch: true,
    polls: true,
    others_first: false,
    own_word: true,
    fences: true,
    former_answers: false,
    former_takes_writes: false,
    awaits_former: true,
    writes: Writes::Row,
    readers: 1,
    reads: 3,
    failovers: 0,
    generation_failovers: 0,
    moves: 0,
    copies: 0,
    evictions: 0,
};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Stamp {
    server: Option<Nonce>,
    epoch: Option<Nonce>,
    generation: Nonce,
    generation_server: Option<Nonce>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Entry {
    Nothing,
    Lease { token: Nonce, stamp: Stamp },
    Value { stamp: Stamp, version: Version },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Node {
    data: Entry,
    replica: Entry,
    server: Nonce,
    epoch: Nonce,
    /// A former primary that still answers: what it has, and who it is.
    former: Option<(Entry, Nonce)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Generation {
    value: Option<Nonce>,
    replica: Option<Nonce>,
    server: Nonce,
}

/// What clients know: the epochs, and where the slot is; [`NOBODY`] if they don't know that.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Known {
    epochs: [Nonce; 2],
    owner: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Seen {
    entry: Entry,
    server: Nonce,
    epoch: Nonce,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Reading {
    Idle,
    Looking {
        seen: Option<Seen>,
        generation: Option<(Nonce, Nonce)>,
    },
    Joined(Nonce),
    Loading {
        stamp: Stamp,
        lease: Option<Nonce>,
    },
    Loaded {
        stamp: Stamp,
        lease: Option<Nonce>,
        version: Version,
    },
    Served(Version),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Reader {
    step: Reading,
    /// The newest version acknowledged when this read began.
    since: Version,
    reads: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Writing {
    Idle,
    Committed(Version),
    Sent(Version),
    Acknowledged,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    nodes: [Node; 2],
    owner: usize,
    generation: Generation,
    known: Known,
    /// Whether clients have heard of the last move.
    have_heard: bool,
    database: Version,
    acknowledged: Version,
    readers: [Reader; 2],
    writer: Writing,
    failovers: u8,
    moves: u8,
    copies: u8,
    evictions: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Action {
    Begin(usize),
    /// `GET` at the owner; who is sent on asks it first who it is.
    ReadEntry(usize),
    /// `GET` at the former primary of the owner.
    ReadFormer(usize),
    /// `MGET`, and the script `ENSURE`.
    ReadGeneration(usize),
    Decide(usize),
    Load(usize),
    Fill(usize),
    Return(usize),
    Commit,
    Invalidate,
    InvalidateFormer,
    Acknowledge,
    CatchUp(usize),
    CatchUpGeneration,
    FailOver(usize),
    FailOverGeneration,
    /// The former primary has heard of it.
    FormerEnds(usize),
    /// The topology task.
    Hear,
    /// Others say that the other node has the slot, with the epoch that it had before.
    NameFirst,
    /// The slot moves to the other node.
    Move,
    LeaveCopy,
    EvictEntry,
    EvictGeneration,
}

impl Rename for Stamp {
    fn rename(&mut self, names: &mut Names) {
        self.server.rename(names);
        self.epoch.rename(names);
        self.generation.rename(names);
        self.generation_server.rename(names);
    }
}

impl Rename for Entry {
    fn rename(&mut self, names: &mut Names) {
        match self {
            Self::Nothing => {}
            Self::Lease { token, stamp } => {
                token.rename(names);
                stamp.rename(names);
            }
            Self::Value { stamp, .. } => stamp.rename(names),
        }
    }
}

impl Rename for Node {
    fn rename(&mut self, names: &mut Names) {
        self.data.rename(names);
        self.replica.rename(names);
        self.server.rename(names);
        self.epoch.rename(names);
        if let Some((entry, server)) = &mut self.former {
            entry.rename(names);
            server.rename(names);
        }
    }
}

impl Rename for Reader {
    fn rename(&mut self, names: &mut Names) {
        match &mut self.step {
            Reading::Idle | Reading::Served(_) => {}
            Reading::Looking { seen, generation } => {
                if let Some(Seen {
                    entry,
                    server,
                    epoch,
                }) = seen
                {
                    entry.rename(names);
                    server.rename(names);
                    epoch.rename(names);
                }
                if let Some((nonce, server)) = generation {
                    nonce.rename(names);
                    server.rename(names);
                }
            }
            Reading::Joined(token) => token.rename(names),
            Reading::Loading { stamp, lease } | Reading::Loaded { stamp, lease, .. } => {
                stamp.rename(names);
                lease.rename(names);
            }
        }
    }
}

impl State {
    fn rename(&mut self) {
        let names = &mut Names::none_yet();
        self.nodes.rename(names);
        self.generation.value.rename(names);
        self.generation.replica.rename(names);
        self.generation.server.rename(names);
        self.known.epochs.rename(names);
        self.readers.rename(names);
    }

    fn entry(&self) -> Entry {
        self.nodes[self.owner].data
    }

    /// The owner is asked who it is.
    fn identify(&mut self) {
        self.known.epochs[self.owner] = self.nodes[self.owner].epoch;
        self.known.owner = self.owner;
    }
}

impl Cluster {
    fn stamp(&self, seen: Seen, generation: Nonce, server: Nonce) -> Stamp {
        let names_epoch = self.names_entry_server && self.names_epoch;
        Stamp {
            server: self.names_entry_server.then_some(seen.server),
            epoch: names_epoch.then_some(seen.epoch),
            generation,
            generation_server: self.names_generation_server.then_some(server),
        }
    }

    fn decide(&self, state: &mut State, reading: Reading) -> Option<Reading> {
        let Reading::Looking {
            seen: Some(seen),
            generation: Some((generation, server)),
        } = reading
        else {
            return None;
        };
        let stamp = self.stamp(seen, generation, server);
        let is_running = |token: Nonce| {
            state.readers.iter().any(|reader| {
                matches!(reader.step, Reading::Loading { lease, .. } | Reading::Loaded { lease, .. } if lease == Some(token))
            })
        };
        Some(match seen.entry {
            Entry::Value { stamp: of, version } if of == stamp => Reading::Served(version),
            Entry::Lease { token, stamp: of } if of == stamp => match is_running(token) {
                true => Reading::Joined(token),
                false => Reading::Loading { stamp, lease: None },
            },
            entry if state.entry() == entry => {
                let token = Nonce::FRESH;
                state.nodes[state.owner].data = Entry::Lease { token, stamp };
                Reading::Loading {
                    stamp,
                    lease: Some(token),
                }
            }
            _ => Reading::Loading { stamp, lease: None },
        })
    }

    fn look(state: &mut State, reader: usize, now: Seen) {
        if let Reading::Looking { seen, .. } = &mut state.readers[reader].step {
            *seen = Some(now);
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let node = |n: u8| Node {
            data: Entry::Nothing,
            replica: Entry::Nothing,
            server: Nonce::nth(1 + n),
            epoch: Nonce::nth(3 + n),
            former: None,
        };
        let nodes = [node(0), node(1)];
        let reader = |number: usize| Reader {
            step: Reading::Idle,
            since: 0,
            reads: match number < self.readers {
                true => 0,
                false => self.reads,
            },
        };
        let mut state = State {
            nodes,
            owner: 0,
            generation: Generation {
                value: Some(Nonce::nth(5)),
                replica: Some(Nonce::nth(5)),
                server: Nonce::nth(6),
            },
            known: Known {
                epochs: nodes.map(|node| node.epoch),
                owner: 0,
            },
            have_heard: true,
            database: 0,
            acknowledged: 0,
            readers: [reader(0), reader(1)],
            writer: Writing::Idle,
            failovers: 0,
            moves: 0,
            copies: 0,
            evictions: 0,
        };
        state.rename();
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (number, reader) in state.readers.iter().enumerate() {
            match reader.step {
                Reading::Idle if reader.reads < self.reads => actions.push(Action::Begin(number)),
                Reading::Idle | Reading::Joined(_) => {}
                Reading::Looking { seen, generation } => {
                    if seen.is_none() {
                        if !(self.awaits_former && state.nodes[state.owner].former.is_some()) {
                            actions.push(Action::ReadEntry(number));
                        }
                        if state.nodes[state.owner].former.is_some() {
                            actions.push(Action::ReadFormer(number));
                        }
                    }
                    if generation.is_none() {
                        actions.push(Action::ReadGeneration(number));
                    }
                    if seen.is_some() && generation.is_some() {
                        actions.push(Action::Decide(number));
                    }
                }
                Reading::Loading { .. } => actions.push(Action::Load(number)),
                Reading::Loaded { .. } => actions.push(Action::Fill(number)),
                Reading::Served(_) => actions.push(Action::Return(number)),
            }
        }
        let is_answered = state.nodes.iter().any(|node| node.former.is_some());
        match state.writer {
            Writing::Idle => actions.push(Action::Commit),
            Writing::Committed(_) => {
                actions.push(Action::Invalidate);
                if self.former_takes_writes && state.nodes[state.owner].former.is_some() {
                    actions.push(Action::InvalidateFormer);
                }
            }
            Writing::Sent(_) if !(self.fences && is_answered) => actions.push(Action::Acknowledge),
            Writing::Sent(_) | Writing::Acknowledged => {}
        }
        let is_quiet = state.have_heard || !self.polls;
        for (number, node) in state.nodes.iter().enumerate() {
            if node.data != node.replica {
                actions.push(Action::CatchUp(number));
            }
            if state.failovers < self.failovers && is_quiet {
                actions.push(Action::FailOver(number));
            }
            if node.former.is_some() {
                actions.push(Action::FormerEnds(number));
            }
        }
        let all = self.failovers + self.generation_failovers;
        if self.generation_failovers > 0 && state.failovers < all && is_quiet {
            actions.push(Action::FailOverGeneration);
        }
        if state.generation.value != state.generation.replica {
            actions.push(Action::CatchUpGeneration);
        }
        let knows = state.known.owner == state.owner
            && state.known.epochs[state.owner] == state.nodes[state.owner].epoch;
        if !knows {
            actions.push(Action::Hear);
        }
        if state.moves < self.moves && is_quiet {
            actions.push(Action::Move);
            if self.others_first && knows {
                actions.push(Action::NameFirst);
            }
        }
        if state.copies < self.copies && state.entry() != Entry::Nothing {
            actions.push(Action::LeaveCopy);
        }
        if state.evictions < self.evictions {
            actions.extend([Action::EvictEntry, Action::EvictGeneration]);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        let owner = state.owner;
        match action {
            Action::Begin(reader) => {
                state.readers[reader].since = state.acknowledged;
                state.readers[reader].step = Reading::Looking {
                    seen: None,
                    generation: None,
                };
            }
            Action::ReadEntry(reader) => {
                if state.known.owner != owner {
                    state.identify();
                    state.have_heard = true;
                }
                let seen = Seen {
                    entry: state.entry(),
                    server: state.nodes[owner].server,
                    epoch: state.known.epochs[owner],
                };
                Self::look(&mut state, reader, seen);
            }
            Action::ReadFormer(reader) => {
                let (entry, server) = state.nodes[owner].former?;
                let epoch = state.known.epochs[owner];
                let seen = Seen {
                    entry,
                    server,
                    epoch,
                };
                Self::look(&mut state, reader, seen);
            }
            Action::ReadGeneration(reader) => {
                let value = *state.generation.value.get_or_insert(Nonce::FRESH);
                let server = state.generation.server;
                if let Reading::Looking { generation, .. } = &mut state.readers[reader].step {
                    *generation = Some((value, server));
                }
            }
            Action::Decide(reader) => {
                let step = self.decide(&mut state, last.readers[reader].step)?;
                state.readers[reader].step = step;
            }
            Action::Load(reader) => {
                let Reading::Loading { stamp, lease } = state.readers[reader].step else {
                    return None;
                };
                state.readers[reader].step = Reading::Loaded {
                    stamp,
                    lease,
                    version: state.database,
                };
            }
            Action::Fill(reader) => {
                let Reading::Loaded {
                    stamp,
                    lease,
                    version,
                } = state.readers[reader].step
                else {
                    return None;
                };
                if let Some(own) = lease {
                    if matches!(state.entry(), Entry::Lease { token, .. } if token == own) {
                        state.nodes[owner].data = Entry::Value { stamp, version };
                    }
                    for other in &mut state.readers {
                        if other.step == Reading::Joined(own) {
                            other.step = Reading::Served(version);
                        }
                    }
                }
                state.readers[reader].step = Reading::Served(version);
            }
            Action::Return(reader) => {
                state.readers[reader].step = Reading::Idle;
                state.readers[reader].since = 0;
                state.readers[reader].reads += 1;
            }
            Action::Commit => {
                state.database += 1;
                state.writer = Writing::Committed(state.database);
            }
            Action::Invalidate => {
                let Writing::Committed(version) = state.writer else {
                    return None;
                };
                match self.writes {
                    Writes::Row => state.nodes[owner].data = Entry::Nothing,
                    Writes::Whole => state.generation.value = Some(Nonce::FRESH),
                }
                state.writer = Writing::Sent(version);
            }
            // The process that does so has not heard of the new primary, and nobody else awaits it.
            Action::InvalidateFormer => {
                let Writing::Committed(version) = state.writer else {
                    return None;
                };
                if let Some((entry, _)) = &mut state.nodes[owner].former {
                    *entry = Entry::Nothing;
                }
                state.acknowledged = state.acknowledged.max(version);
                state.writer = Writing::Acknowledged;
            }
            Action::Acknowledge => {
                let Writing::Sent(version) = state.writer else {
                    return None;
                };
                state.acknowledged = state.acknowledged.max(version);
                state.writer = Writing::Acknowledged;
            }
            Action::CatchUp(node) => state.nodes[node].replica = state.nodes[node].data,
            Action::CatchUpGeneration => state.generation.replica = state.generation.value,
            Action::FailOver(number) => {
                let node = &mut state.nodes[number];
                node.former = self.former_answers.then_some((node.data, node.server));
                node.data = node.replica;
                node.server = Nonce::FRESH;
                state.failovers += 1;
            }
            Action::FailOverGeneration => {
                state.generation.value = state.generation.replica;
                state.generation.server = Nonce::FRESH;
                state.failovers += 1;
            }
            Action::FormerEnds(node) => state.nodes[node].former = None,
            Action::Hear => {
                state.identify();
                state.have_heard = true;
            }
            Action::NameFirst => {
                state.known.owner = match self.own_word {
                    true => NOBODY,
                    false => 1 - owner,
                };
            }
            Action::Move => {
                let target = 1 - owner;
                if state.entry() != Entry::Nothing {
                    state.nodes[target].data = state.entry();
                }
                state.nodes[owner].data = Entry::Nothing;
                state.nodes[target].epoch = Nonce::FRESH;
                state.owner = target;
                state.moves += 1;
                state.have_heard = !self.polls;
            }
            Action::LeaveCopy => {
                state.nodes[1 - owner].data = state.entry();
                state.copies += 1;
            }
            Action::EvictEntry => {
                state.nodes[owner].data = Entry::Nothing;
                state.evictions += 1;
            }
            Action::EvictGeneration => {
                state.generation.value = None;
                state.evictions += 1;
            }
        }
        state.rename();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(NOTHING_STALE, |_, state: &State| {
            state.readers.iter().all(|reader| match reader.step {
                Reading::Served(version) => version >= reader.since,
                _ => true,
            })
        })]
    }
}

#[test]
fn entry_and_generation_on_two_nodes() {
    let model = Cluster {
        readers: 2,
        reads: 2,
        evictions: 1,
        ..DESIGN
    };
    holds(model, 10_000);
}

#[test]
fn failovers_of_either_node() {
    for writes in [Writes::Row, Writes::Whole] {
        let model = Cluster {
            writes,
            failovers: 1,
            generation_failovers: 1,
            ..DESIGN
        };
        holds(model, 1_000);
    }
}

#[test]
fn the_entrys_server_is_in_the_stamp() {
    let model = Cluster {
        names_entry_server: false,
        failovers: 1,
        ..DESIGN
    };
    is_caught(model, NOTHING_STALE);
    // The same without a failover, where a move has left a copy behind.
    let model = Cluster {
        names_entry_server: false,
        moves: 1,
        copies: 1,
        ..DESIGN
    };
    is_caught(model, NOTHING_STALE);
}

#[test]
fn the_generations_server_is_in_the_stamp() {
    let model = Cluster {
        names_generation_server: false,
        writes: Writes::Whole,
        generation_failovers: 1,
        ..DESIGN
    };
    is_caught(model, NOTHING_STALE);
}

#[test]
fn a_slot_moves_and_returns() {
    let model = Cluster {
        failovers: 1,
        moves: 2,
        copies: 1,
        ..DESIGN
    };
    holds(model, 10_000);
}

#[test]
fn the_epoch_is_in_the_identity_and_known_in_time() {
    let moves = Cluster {
        failovers: 1,
        moves: 2,
        ..DESIGN
    };
    let without_epoch = Cluster {
        names_epoch: false,
        ..moves
    };
    let heard_late = Cluster {
        polls: false,
        ..moves
    };
    is_caught(without_epoch, NOTHING_STALE);
    is_caught(heard_late, NOTHING_STALE);
}

/// Whoever moves a slot may tell the new owner last.
#[test]
fn a_slot_is_its_new_owners_once_that_says_so_itself() {
    let others_first = Cluster {
        failovers: 1,
        moves: 2,
        copies: 1,
        others_first: true,
        ..DESIGN
    };
    holds(others_first, 10_000);
    let by_hearsay = Cluster {
        copies: 0,
        own_word: false,
        ..others_first
    };
    is_caught(by_hearsay, NOTHING_STALE);
}

#[test]
fn a_former_primary_that_answers_is_waited_for() {
    let answers = Cluster {
        former_answers: true,
        failovers: 1,
        ..DESIGN
    };
    holds(
        Cluster {
            readers: 2,
            reads: 2,
            ..answers
        },
        10_000,
    );
    let unfenced = Cluster {
        fences: false,
        ..answers
    };
    is_caught(unfenced, NOTHING_STALE);
    // A generation on another node is not what the former primary of the entry's has.
    holds(
        Cluster {
            fences: false,
            writes: Writes::Whole,
            readers: 2,
            reads: 2,
            ..answers
        },
        10_000,
    );
}

/// What the former primary acknowledges, the new one does not get.
#[test]
fn a_new_primary_is_read_once_the_former_one_is_left() {
    let takes_writes = Cluster {
        former_answers: true,
        former_takes_writes: true,
        failovers: 1,
        readers: 2,
        reads: 2,
        ..DESIGN
    };
    holds(takes_writes, 10_000);
    let read_at_once = Cluster {
        awaits_former: false,
        ..takes_writes
    };
    is_caught(read_at_once, NOTHING_STALE);
}
