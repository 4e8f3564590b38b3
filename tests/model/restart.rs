//! A server that comes back from an older snapshot, and a value that is stored by hand.
//!
//! A snapshot may hold an entry together with the generation under which it was stored; both come
//! back, and the entry is as alive as it was. So the stamp covers the identity of the server, which
//! is another one after each start (`run_id`), or after a promotion (`master_replid`); a link
//! learns it before its first use.
//!
//! # Bounds
//!
//! One row with its entity and generation, two readers with two reads each, a writer of the whole
//! resource and one of the row with one write each, one snapshot and one restart, at any moment.
//!
//! # What is not modelled
//!
//! - The connection: what a caller sends after the restart is executed by the new server. In the
//!   runtime it fails instead, since a link ends with its connection.
//! - A server that keeps its data over a restart, and one that comes back empty; both differ in
//!   less.
//! - All that [`protocol`](crate::protocol) is about.

use stateright::{Model, Property};

use crate::check::{holds, is_caught};

const NOTHING_STALE: &str = "nothing stale";

type Version = u8;
/// Only ever compared for equality; each is handed out once.
type Nonce = u8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Variant {
    Design,
    /// The stamp covers generations only.
    ServerLeftOut,
    /// What was missed is stored with the generation as it is then, and nothing is compared: `get`,
    /// load, `SET`.
    BareSet,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writes {
    /// `#[invalidates("users")]`
    Whole,
    /// `#[invalidates("users", id = id)]`
    Row,
}

const WRITERS: [Writes; 2] = [Writes::Whole, Writes::Row];
const READS: u8 = 2;

#[derive(Clone, Copy, Debug)]
struct Restart {
    variant: Variant,
    may_restart: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Stamp {
    generation: Nonce,
    server: Nonce,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Entry {
    Nothing,
    Lease { token: Nonce, stamp: Stamp },
    Value { stamp: Stamp, version: Version },
}

/// What a snapshot holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Data {
    entry: Entry,
    generation: Option<Nonce>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Reading {
    Idle,
    Looked {
        entry: Entry,
        generation: Option<Nonce>,
        server: Nonce,
    },
    Loading {
        stamp: Stamp,
        lease: Option<Nonce>,
    },
    Loaded {
        stamp: Stamp,
        lease: Option<Nonce>,
        version: Version,
    },
    Served {
        version: Version,
        is_hit: bool,
    },
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
    Acknowledged,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    data: Data,
    server: Nonce,
    snapshot: Option<Data>,
    has_restarted: bool,
    database: Version,
    acknowledged: Version,
    readers: [Reader; 2],
    writers: [Writing; 2],
    /// The next nonce.
    next: Nonce,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Action {
    /// `Store::look`
    Look(usize),
    /// The script `ENSURE`
    Ensure(usize),
    /// `Reader::judge`, `Permit::take`: serves a hit, takes the lease, or bypasses.
    Decide(usize),
    /// The function runs.
    Load(usize),
    /// `Permit::fill`
    Fill(usize),
    /// The caller has its value.
    Return(usize),
    Commit(usize),
    /// `Store::invalidate`, acknowledged.
    Invalidate(usize),
    /// `BGSAVE`
    Save,
    /// Killed, and started from the snapshot.
    Restart,
}

impl State {
    fn fresh(&mut self) -> Nonce {
        self.next += 1;
        self.next
    }
}

impl Restart {
    fn stamp(&self, generation: Nonce, server: Nonce) -> Stamp {
        let server = match self.variant {
            Variant::ServerLeftOut => 0,
            Variant::Design | Variant::BareSet => server,
        };
        Stamp { generation, server }
    }

    fn decide(&self, state: &mut State, reading: Reading) -> Option<Reading> {
        let Reading::Looked {
            entry,
            generation: Some(generation),
            server,
        } = reading
        else {
            return None;
        };
        let stamp = self.stamp(generation, server);
        Some(match entry {
            Entry::Value { stamp: of, version } if of == stamp => Reading::Served {
                version,
                is_hit: true,
            },
            // Compare-and-set on what was seen. Somebody's live lease is left to the other model.
            Entry::Lease { stamp: of, .. } if of == stamp => {
                Reading::Loading { stamp, lease: None }
            }
            _ if state.data.entry == entry => {
                let token = state.fresh();
                state.data.entry = Entry::Lease { token, stamp };
                Reading::Loading {
                    stamp,
                    lease: Some(token),
                }
            }
            _ => Reading::Loading { stamp, lease: None },
        })
    }

    fn fill(&self, state: &mut State, stamp: Stamp, lease: Option<Nonce>, version: Version) {
        if self.variant == Variant::BareSet {
            let generation = match state.data.generation {
                Some(generation) => generation,
                None => state.fresh(),
            };
            state.data.generation = Some(generation);
            let stamp = self.stamp(generation, state.server);
            state.data.entry = Entry::Value { stamp, version };
            return;
        }
        let held = lease.map(|token| Entry::Lease { token, stamp });
        if held == Some(state.data.entry) {
            state.data.entry = Entry::Value { stamp, version };
        }
    }
}

impl Model for Restart {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let reader = Reader {
            step: Reading::Idle,
            since: 0,
            reads: 0,
        };
        vec![State {
            data: Data {
                entry: Entry::Nothing,
                generation: None,
            },
            server: 1,
            snapshot: None,
            has_restarted: false,
            database: 0,
            acknowledged: 0,
            readers: [reader; 2],
            writers: [Writing::Idle; 2],
            next: 1,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (n, reader) in state.readers.iter().enumerate() {
            actions.extend(match reader.step {
                Reading::Idle if reader.reads < READS => Some(Action::Look(n)),
                Reading::Idle => None,
                Reading::Looked {
                    generation: None, ..
                } => Some(Action::Ensure(n)),
                Reading::Looked { .. } => Some(Action::Decide(n)),
                Reading::Loading { .. } => Some(Action::Load(n)),
                Reading::Loaded { .. } => Some(Action::Fill(n)),
                Reading::Served { .. } => Some(Action::Return(n)),
            });
        }
        for (n, writer) in state.writers.iter().enumerate() {
            actions.extend(match writer {
                Writing::Idle => Some(Action::Commit(n)),
                Writing::Committed(_) => Some(Action::Invalidate(n)),
                Writing::Acknowledged => None,
            });
        }
        if self.may_restart && state.snapshot.is_none() {
            actions.push(Action::Save);
        }
        if state.snapshot.is_some() && !state.has_restarted {
            actions.push(Action::Restart);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Look(n) => {
                let Data { entry, generation } = state.data;
                let server = state.server;
                state.readers[n].since = state.acknowledged;
                state.readers[n].step = Reading::Looked {
                    entry,
                    generation,
                    server,
                };
            }
            Action::Ensure(n) => {
                let Reading::Looked { entry, server, .. } = state.readers[n].step else {
                    return None;
                };
                if state.data.generation.is_none() {
                    state.data.generation = Some(state.fresh());
                }
                state.readers[n].step = Reading::Looked {
                    entry,
                    generation: state.data.generation,
                    server,
                };
            }
            Action::Decide(n) => {
                let step = state.readers[n].step;
                state.readers[n].step = self.decide(&mut state, step)?;
            }
            Action::Load(n) => {
                let Reading::Loading { stamp, lease } = state.readers[n].step else {
                    return None;
                };
                let version = state.database;
                state.readers[n].step = Reading::Loaded {
                    stamp,
                    lease,
                    version,
                };
            }
            Action::Fill(n) => {
                let Reading::Loaded {
                    stamp,
                    lease,
                    version,
                } = state.readers[n].step
                else {
                    return None;
                };
                self.fill(&mut state, stamp, lease, version);
                state.readers[n].step = Reading::Served {
                    version,
                    is_hit: false,
                };
            }
            Action::Return(n) => {
                state.readers[n].step = Reading::Idle;
                state.readers[n].reads += 1;
            }
            Action::Commit(n) => {
                state.database += 1;
                state.writers[n] = Writing::Committed(state.database);
            }
            Action::Invalidate(n) => {
                let Writing::Committed(version) = state.writers[n] else {
                    return None;
                };
                match WRITERS[n] {
                    Writes::Whole => state.data.generation = Some(state.fresh()),
                    Writes::Row => state.data.entry = Entry::Nothing,
                }
                state.acknowledged = state.acknowledged.max(version);
                state.writers[n] = Writing::Acknowledged;
            }
            Action::Save => state.snapshot = Some(state.data),
            Action::Restart => {
                state.data = state.snapshot?;
                state.server = state.fresh();
                state.has_restarted = true;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NOTHING_STALE, |_, state: &State| {
                state.readers.iter().all(|reader| match reader.step {
                    Reading::Served { version, .. } => version >= reader.since,
                    _ => true,
                })
            }),
            Property::sometimes("a hit is served", |_, state: &State| {
                let is_hit =
                    |reader: &Reader| matches!(reader.step, Reading::Served { is_hit: true, .. });
                state.readers.iter().any(is_hit)
            }),
        ];
        if self.may_restart {
            properties.push(Property::sometimes(
                "an older entry comes back",
                |_, state: &State| {
                    let Entry::Value { version, .. } = state.data.entry else {
                        return false;
                    };
                    state.has_restarted && version < state.acknowledged
                },
            ));
        }
        properties
    }
}

#[test]
fn the_design_holds() {
    let model = Restart {
        variant: Variant::Design,
        may_restart: true,
    };
    holds(model, 100_000);
}

#[test]
fn a_stamp_without_the_servers_identity_is_caught() {
    let model = Restart {
        variant: Variant::ServerLeftOut,
        may_restart: true,
    };
    is_caught(model, NOTHING_STALE);
}

#[test]
fn a_bare_set_after_a_miss_is_caught() {
    let model = Restart {
        variant: Variant::BareSet,
        may_restart: false,
    };
    is_caught(model, NOTHING_STALE);
}
