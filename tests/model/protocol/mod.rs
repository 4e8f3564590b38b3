//! Generations, leases and write intents: a cached call against an invalidating one.
//!
//! What is modelled is what `read/reader.rs`, `read/permit.rs`, `flight.rs`, `write.rs`,
//! `delivery/` and the scripts of `store/redis/` do, as far as it touches what another call can
//! see. Each action bears the name of the function it stands for. A step is what the store does
//! atomically, or what a caller does by itself.
//!
//! # Bounds
//!
//! One row, thus one entity (`users:1`), another row that is only read (`users:2`), and one entry
//! derived from its resource (`users:list`), with their two generations. Two readers in this
//! process, with at most two reads each, and two writers of one write each: the first is of this
//! process, the second of another, which may be killed. At most one eviction, of an entry, of a
//! lease or of a generation without intents (or one copy of an entry over another), and at most one
//! message that the network holds back. [`Scenario`] says which of these a check uses; [`checks`]
//! has them. All of them at once, six to eight million states each, take some minutes and are left
//! to `cargo test -p cache-model -- --ignored`.
//!
//! # What is not modelled
//!
//! - Time. A lease may run out at any moment (as an eviction), an intent only once its writer is
//!   dead or done, which is the condition that the documentation states. Times to live are
//!   evictions, entries past their time with a live stamp don't occur, and clocks of processes play
//!   no part in the protocol.
//! - What the store is told and executes at once, but whose answer is late, for reads: a reader
//!   that takes its time is the same. Of messages that are lost on the way only invalidations and
//!   renewals are modelled.
//! - More rows than one that is written, tags and `depends`: further generations in the stamp,
//!   which are read and replaced as these are.
//! - Batches, `refresh`, `set`, sweeps, foreign values, types and payloads, a store without memory,
//!   the bound of the delivery queue and what it merges, and more than one resource.
//! - Transactions of the caller, `required`, and dropped writes. One that fails is modelled as what
//!   hides a commit.
//! - Redis itself: that a script is atomic and that a write it has acknowledged is there. Restarts
//!   are in [`restart`](crate::restart).

mod checks;
mod reader;
mod store;
mod writer;

use stateright::{Model, Property};

use self::reader::{Outcome, Part, Reader, Reading};
use self::store::{Dep, Key, Store};
use self::writer::{Kind, Network, Writer, Writing};
use crate::nonce::{Names, Rename};

/// How many commits the database has seen.
type Version = u8;

/// The protocol, or one that differs in one thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Variant {
    Design,
    /// A loaded value is stored whether or not the lease is still held.
    PlainSet,
    /// The stamp is computed once more when a value is stored.
    StampAtFill,
    /// A load that is under way for the same key is joined, whatever its lease.
    JoinByKey,
    /// A lease says that somebody loads, and not since when.
    LeaseWithoutStamp,
    /// A key says how many intents stand on it, and not whose.
    CountedIntents,
    /// A plain invalidation writes a generation that carries no intents.
    BumpDropsIntents,
    /// The intent of a write with an id does not stand on `users~derived`.
    IntentAtEntityOnly,
    /// What the store has not acknowledged does not keep this process from reading.
    ReadsWhilePending,
    /// After an error there is one invalidation, at once.
    ErrorInvalidatesOnce,
    /// An entry's stamp is made of the generations alone.
    StampWithoutKey,
}

/// What takes part, and what may happen to it.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    variant: Variant,
    readers: [Key; 2],
    writers: [Kind; 2],
    /// How many calls each reader makes.
    reads: [u8; 2],
    /// Whether a look reads entry and generations one by one, in any order, which is all that the
    /// trait promises.
    is_torn: bool,
    /// How many entries, leases and generations may be evicted.
    evictions: u8,
    /// Whether a message may be held back by the network.
    has_late_message: bool,
    /// Whether somebody may copy a row's entry over that of another row, once, instead of an
    /// eviction.
    has_copies: bool,
    /// Whether a plain write may fail with an error that hides a commit.
    has_errors: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    store: Store,
    /// What the next load gets.
    database: Version,
    /// History: the newest version that a read of this process must see if it starts now.
    promised: Version,
    readers: [Reader; 2],
    writers: [Writer; 2],
    network: Network,
    evictions: u8,
}

/// A step. The number says which reader, or which writer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Action {
    /// `Store::look`: `MGET entry gen..` in one.
    Look(usize),
    /// A part of `Store::look`, where it is not atomic.
    LookAt(usize, Part),
    /// The other half of `Store::look`: the script `ENSURE` creates generations that are missing.
    Ensure(usize),
    /// `Permit::take`, thus `Store::lease`.
    Lease(usize),
    /// `Flights::join`.
    Join(usize),
    /// `Met::LookAgain`, after a pause.
    LookAgain(usize),
    /// `BypassReason::WaitLimit`.
    GiveUp(usize),
    /// The function runs, and reads the database; `Leader::complete` for those who wait.
    Load(usize),
    /// `Permit::fill`, thus `Store::fill`.
    Fill(usize),
    /// `Permit::drop`: the caller went away, or the function failed; `Store::release`.
    Release(usize),
    /// The same where the release is lost, so that the lease stays until it runs out.
    Abandon(usize),
    /// The value is handed out.
    Return(usize),
    /// `Store::intend`, before the body of a crash-safe write.
    Intend(usize),
    /// The body's transaction is committed.
    Commit(usize),
    /// The body returns an error while its commit is on its way; `Store::invalidate` at once.
    Fail(usize),
    /// The first half of `Store::invalidate`: the entity goes.
    Kill(usize),
    /// The other half of `Store::invalidate`: a new generation. The store acknowledges.
    Bump(usize),
    /// `Store::invalidate` that takes the writer's own intent away as well.
    Withdraw(usize),
    /// `Queue::take_back` or `stop_waiting`: no answer to an invalidation, which the network holds
    /// back.
    TakeBack(usize),
    /// `Queue::send`, once more, and `Queue::acknowledge`.
    Deliver(usize),
    /// The renewal of an intent is sent, and held back.
    SendRenewal(usize),
    /// What the network held back reaches the store.
    Arrive,
    /// The process is killed between commit and invalidation.
    Die(usize),
    /// The deadline of a dead writer's intents passes.
    Expire(usize),
    /// Whoever meets an expired intent on a generation removes it.
    Prune(Dep),
    /// Whoever meets an expired intent in an entity's place removes it.
    PruneEntity,
    /// An entry, or a lease, is evicted or runs out.
    Evict(Key),
    /// A generation without intents is evicted.
    EvictGeneration(Dep),
    /// `COPY`, by somebody else.
    Copy(Key, Key),
}

impl Rename for State {
    fn rename(&mut self, names: &mut Names) {
        self.store.rename(names);
        self.readers.rename(names);
    }
}

impl State {
    fn any_served(&self, outcome: Outcome) -> bool {
        self.readers.iter().any(
            |reader| matches!(reader.step, Reading::Served { outcome: it, .. } if it == outcome),
        )
    }
}

/// The promise, over the history that the state keeps.
const NOTHING_STALE: &str =
    "no read that starts after an acknowledged invalidation gets older data";

/// The promise of keys.
const NOTHING_OF_ANOTHER: &str = "no read gets what was stored under another key";

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let reader = Reader {
            reads: 0,
            step: Reading::Idle,
        };
        vec![State {
            store: Store::default(),
            database: 0,
            promised: 0,
            readers: [reader; 2],
            writers: [Writer::default(); 2],
            network: Network::Quiet,
            evictions: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // To hand a value out touches nothing that others see, so it need not be tried at every
        // later moment.
        let served = state
            .readers
            .iter()
            .position(|reader| matches!(reader.step, Reading::Served { .. }));
        if let Some(who) = served {
            actions.push(Action::Return(who));
            return;
        }
        for who in 0..state.readers.len() {
            self.reader_actions(state, who, actions);
        }
        for who in 0..state.writers.len() {
            self.writer_actions(state, who, actions);
        }
        self.environment_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Look(who) => self.look(&mut state, who, None)?,
            Action::LookAt(who, part) => self.look(&mut state, who, Some(part))?,
            Action::Ensure(who) => self.ensure(&mut state, who)?,
            Action::Lease(who)
            | Action::Join(who)
            | Action::LookAgain(who)
            | Action::GiveUp(who)
            | Action::Load(who)
            | Action::Fill(who)
            | Action::Release(who)
            | Action::Abandon(who)
            | Action::Return(who) => self.read(&mut state, who, action)?,
            _ => self.write(&mut state, action)?,
        }
        state.rename(&mut Names::none_yet());
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NOTHING_STALE, |_, state: &State| {
                state.readers.iter().all(|reader| match reader.step {
                    Reading::Served { since, version, .. } => version >= since,
                    _ => true,
                })
            }),
            Property::always(NOTHING_OF_ANOTHER, |_, state: &State| {
                !state.any_served(Outcome::Another)
            }),
            Property::sometimes("a hit is served", |_, state: &State| {
                state.any_served(Outcome::Hit)
            }),
            Property::sometimes("a fill succeeds", |_, state: &State| {
                state.any_served(Outcome::Filled)
            }),
            Property::sometimes("a fill is refused", |_, state: &State| {
                state.any_served(Outcome::Refused)
            }),
            Property::sometimes("what was written is served as a hit", |_, state: &State| {
                state.readers.iter().any(|reader| {
                    let step = reader.step;
                    matches!(
                        step,
                        Reading::Served {
                            since: 2,
                            version: 2,
                            outcome: Outcome::Hit
                        }
                    )
                })
            }),
        ];
        if self.readers[0] == self.readers[1] && self.reads[1] > 0 {
            properties.push(Property::sometimes(
                "a load is joined",
                |_, state: &State| state.any_served(Outcome::Joined),
            ));
        }
        if self.writers[1].is_crash_safe() {
            properties.push(Property::sometimes(
                "an intent expires",
                |_, state: &State| {
                    let is_expired = state.writers[1].step == Writing::Expired;
                    is_expired && !state.standing_intents().any()
                },
            ));
        }
        properties
    }
}
