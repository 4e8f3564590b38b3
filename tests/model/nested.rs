//! Values that are made of other values: a load calls cached functions.
//!
//! An invalidation names a row, a list that is made of the row, and a summary that is made of the
//! list. If it reaches them in several steps, the summary may be loaded after its own generation
//! was replaced, from a list or row that was not reached yet. Then it has a live stamp and an old
//! value. Three things prevent it:
//!
//! - One step, as a script of one server does it for up to 256 keys, and the store in memory.
//! - Several steps, and after the last one the generations of lists and summaries once more, in one
//!   step (`replace_windows_again`, `invalidate_in_steps`).
//! - Where there is no such step, in a cluster and over Memcached: calls inside of loads go past
//!   the cache (`BypassReason::InsideLoad`).
//!
//! To replace them once more, one after the other, is not enough: a summary is made of a list that
//! was loaded during the first steps.
//!
//! # Bounds
//!
//! A row, a list and a summary, two readers with two reads each of any of them, and a writer with
//! one write.
//!
//! # What is not modelled
//!
//! Leases, intents, failures: all that [`protocol`](crate::protocol) is about. A value is stored
//! under the generation that was read before its load, whatever lies there.

use stateright::{Model, Property};

use crate::check::{holds, is_caught};

const NOTHING_STALE: &str = "nothing stale";

type Version = u8;
/// How often it was replaced.
type Generation = u8;

/// A row, the list that is made of it, and the summary that is made of the list.
const LEVELS: usize = 3;
const READERS: usize = 2;
const READS: u8 = 2;
const WRITES: u8 = 1;

/// The steps of an invalidation: each replaces the generations of these levels.
type Steps = &'static [&'static [usize]];

const ONE_STEP: Steps = &[&[0, 1, 2]];
const ROW_LAST: Steps = &[&[1, 2], &[0]];
const ONCE_MORE: Steps = &[&[1, 2], &[0], &[1, 2]];
const ONE_BY_ONE: Steps = &[&[2], &[1], &[0]];
const ONE_BY_ONE_ONCE_MORE: Steps = &[&[2], &[1], &[0], &[2], &[1]];

#[derive(Clone, Copy, Debug)]
struct Nested {
    steps: Steps,
    /// Calls inside of loads go past the cache.
    bypasses_inside: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Entry {
    under: Generation,
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Reading {
    Idle,
    /// Asks for the entry at `level`, inside of the loads of those from there up to `top`.
    Asking {
        top: usize,
        level: usize,
        under: [Generation; LEVELS],
    },
    /// Has the value of the level below `level`, and stores its own.
    Filling {
        top: usize,
        level: usize,
        under: [Generation; LEVELS],
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
struct State {
    entries: [Option<Entry>; LEVELS],
    generations: [Generation; LEVELS],
    database: Version,
    acknowledged: Version,
    readers: [Reader; READERS],
    /// How many steps of its invalidation the write has made, once it has committed.
    writing: Option<usize>,
    /// A list was loaded between two steps of an invalidation.
    was_between: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Action {
    /// A read of this level.
    Begin(usize, usize),
    /// `Store::lookup`, and the source's answer where the lowest level is not there.
    Look(usize),
    /// `Permit::fill`
    Fill(usize),
    /// The caller has its value.
    Return(usize),
    Commit,
    /// A step of the invalidation. The last one is acknowledged.
    Invalidate,
}

impl Nested {
    fn look(&self, state: &State, reading: Reading) -> Option<Reading> {
        let Reading::Asking {
            top,
            level,
            mut under,
        } = reading
        else {
            return None;
        };
        let is_past = level < top && self.bypasses_inside;
        let generation = state.generations[level];
        let hit = state.entries[level].filter(|entry| entry.under == generation && !is_past);
        under[level] = generation;
        Some(match hit {
            Some(Entry { version, .. }) if level == top => Reading::Served {
                version,
                is_hit: true,
            },
            Some(Entry { version, .. }) => Reading::Filling {
                top,
                level: level + 1,
                under,
                version,
            },
            None if level == 0 => Reading::Filling {
                top,
                level,
                under,
                version: state.database,
            },
            None => Reading::Asking {
                top,
                level: level - 1,
                under,
            },
        })
    }

    fn fill(&self, state: &mut State, reading: Reading) -> Option<Reading> {
        let Reading::Filling {
            top,
            level,
            under,
            version,
        } = reading
        else {
            return None;
        };
        if level == top || !self.bypasses_inside {
            state.entries[level] = Some(Entry {
                under: under[level],
                version,
            });
            let is_between = state.writing.is_some_and(|steps| steps > 0);
            state.was_between |= is_between && level > 0 && version < state.database;
        }
        Some(match level == top {
            true => Reading::Served {
                version,
                is_hit: false,
            },
            false => Reading::Filling {
                top,
                level: level + 1,
                under,
                version,
            },
        })
    }
}

impl Model for Nested {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let reader = Reader {
            step: Reading::Idle,
            since: 0,
            reads: 0,
        };
        vec![State {
            entries: [None; LEVELS],
            generations: [0; LEVELS],
            database: 0,
            acknowledged: 0,
            readers: [reader; READERS],
            writing: None,
            was_between: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (n, reader) in state.readers.iter().enumerate() {
            match reader.step {
                Reading::Idle if reader.reads < READS => {
                    actions.extend((0..LEVELS).map(|level| Action::Begin(n, level)));
                }
                Reading::Idle => {}
                Reading::Asking { .. } => actions.push(Action::Look(n)),
                Reading::Filling { .. } => actions.push(Action::Fill(n)),
                Reading::Served { .. } => actions.push(Action::Return(n)),
            }
        }
        actions.extend(match state.writing {
            None if state.database < WRITES => Some(Action::Commit),
            None => None,
            Some(_) => Some(Action::Invalidate),
        });
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Begin(n, level) => {
                state.readers[n].since = state.acknowledged;
                state.readers[n].step = Reading::Asking {
                    top: level,
                    level,
                    under: [0; LEVELS],
                };
            }
            Action::Look(n) => {
                state.readers[n].step = self.look(&state, state.readers[n].step)?;
            }
            Action::Fill(n) => {
                let step = state.readers[n].step;
                state.readers[n].step = self.fill(&mut state, step)?;
            }
            Action::Return(n) => {
                state.readers[n].step = Reading::Idle;
                state.readers[n].reads += 1;
            }
            Action::Commit => {
                state.database += 1;
                state.writing = Some(0);
            }
            Action::Invalidate => {
                let made = state.writing?;
                for level in self.steps[made] {
                    state.generations[*level] += 1;
                }
                let is_over = made + 1 == self.steps.len();
                state.writing = (!is_over).then_some(made + 1);
                if is_over {
                    state.acknowledged = state.database;
                }
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
        if self.steps.len() > 1 && !self.bypasses_inside {
            properties.push(Property::sometimes(
                "an old list is stored between two steps",
                |_, state: &State| state.was_between,
            ));
        }
        properties
    }
}

fn in_these(steps: Steps) -> Nested {
    Nested {
        steps,
        bypasses_inside: false,
    }
}

#[test]
fn one_step_holds() {
    holds(in_these(ONE_STEP), 50_000);
}

#[test]
fn several_steps_hold_if_lists_are_replaced_once_more() {
    holds(in_these(ONCE_MORE), 100_000);
}

#[test]
fn several_steps_hold_if_calls_inside_of_loads_go_past_the_cache() {
    let model = Nested {
        bypasses_inside: true,
        ..in_these(ONE_BY_ONE)
    };
    holds(model, 100_000);
}

#[test]
fn a_row_after_its_list_is_caught() {
    is_caught(in_these(ROW_LAST), NOTHING_STALE);
}

#[test]
fn one_key_after_the_other_is_caught() {
    is_caught(in_these(ONE_BY_ONE), NOTHING_STALE);
}

#[test]
fn lists_replaced_once_more_one_by_one_are_caught() {
    is_caught(in_these(ONE_BY_ONE_ONCE_MORE), NOTHING_STALE);
}
