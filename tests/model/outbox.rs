//! The outbox in the database: rows that relays take for Redis, and rows that a process reads for
//! itself.
//!
//! [`Shared`] is the first: a relay takes rows in a transaction of its own, tells Redis, and
//! commits their deletion when Redis has acknowledged. [`Followed`] is the second: a process reads
//! what was committed since the snapshot of its last read, and rows are deleted by time.
//!
//! # Bounds
//!
//! `Shared`: two transactions of writers, two relays, each of which dies once at most; Redis is
//! away as it likes. `Followed`: three transactions, which begin in order and end in any, one
//! reader, one snapshot that is noted, one lost connection, one failover that loses the last
//! commit, whose number the next transaction gets again.
//!
//! # What is not modelled
//!
//! - What an invalidation does; [`protocol`](crate::protocol) is about that.
//! - Time. How long a read covers what is served is in [`local_tier`](crate::local_tier): the code
//!   is the same.

use stateright::{Model, Property};

use crate::check::{holds, is_caught};

const NOTHING_LOST: &str = "nothing lost";
const NOTHING_SKIPPED: &str = "nothing skipped";

/// How rows are shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sharing {
    Design,
    /// The deletion is committed before Redis is told.
    DeletedBeforeAcknowledged,
    /// The row is written by a transaction of its own, behind the commit of the data.
    RowNotWrittenInTheTransaction,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Tx {
    NotBegun,
    Open,
    Committed,
    Aborted,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Row {
    /// Not there, or not to be seen yet.
    No,
    There,
    /// A relay holds its lock.
    Taken(usize),
    Deleted,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Relay {
    /// Whether Redis has acknowledged what it holds.
    is_acknowledged: bool,
    has_died: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Table {
    writers: [Tx; 2],
    /// Whether the process of a writer lives.
    alive: [bool; 2],
    rows: [Row; 2],
    /// What Redis has acknowledged since it was committed.
    invalidated: [bool; 2],
    relays: [Relay; 2],
    is_redis_there: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Sharer {
    Begin(usize),
    Commit(usize),
    Abort(usize),
    /// Of the variant: the row behind the commit.
    Write(usize),
    WriterDies(usize),
    /// `shared::take`, up to its query
    Take(usize),
    /// `shared::deliver`
    Deliver(usize),
    /// The deletion is committed.
    Delete(usize),
    /// It is rolled back, since Redis does not answer.
    Roll(usize),
    RelayDies(usize),
    Redis(bool),
}

#[derive(Clone, Copy, Debug)]
struct Shared(Sharing);

impl Shared {
    fn holds_any(table: &Table, relay: usize) -> bool {
        table.rows.contains(&Row::Taken(relay))
    }

    fn release(table: &mut Table, relay: usize, to: Row) {
        for row in &mut table.rows {
            if *row == Row::Taken(relay) {
                *row = to;
            }
        }
    }
}

impl Model for Shared {
    type State = Table;
    type Action = Sharer;

    fn init_states(&self) -> Vec<Table> {
        let relay = Relay {
            is_acknowledged: false,
            has_died: false,
        };
        vec![Table {
            writers: [Tx::NotBegun; 2],
            alive: [true; 2],
            rows: [Row::No; 2],
            invalidated: [false; 2],
            relays: [relay; 2],
            is_redis_there: true,
        }]
    }

    fn actions(&self, table: &Table, actions: &mut Vec<Sharer>) {
        for at in 0..2 {
            match table.writers[at] {
                Tx::NotBegun => actions.push(Sharer::Begin(at)),
                Tx::Open => actions.extend([Sharer::Commit(at), Sharer::Abort(at)]),
                Tx::Committed if table.rows[at] == Row::No && table.alive[at] => {
                    actions.extend([Sharer::Write(at), Sharer::WriterDies(at)]);
                }
                Tx::Committed | Tx::Aborted => {}
            }
            if Self::holds_any(table, at) {
                let is_early = self.0 == Sharing::DeletedBeforeAcknowledged;
                if table.relays[at].is_acknowledged || is_early {
                    actions.push(Sharer::Delete(at));
                }
                if !table.relays[at].is_acknowledged && !is_early {
                    actions.push(if table.is_redis_there {
                        Sharer::Deliver(at)
                    } else {
                        Sharer::Roll(at)
                    });
                }
                if !table.relays[at].has_died {
                    actions.push(Sharer::RelayDies(at));
                }
            } else if table.rows.contains(&Row::There) {
                actions.push(Sharer::Take(at));
            }
        }
        actions.push(Sharer::Redis(!table.is_redis_there));
    }

    fn next_state(&self, last: &Table, action: Sharer) -> Option<Table> {
        let mut table = *last;
        match action {
            Sharer::Begin(at) => table.writers[at] = Tx::Open,
            Sharer::Commit(at) => {
                table.writers[at] = Tx::Committed;
                if self.0 != Sharing::RowNotWrittenInTheTransaction {
                    table.rows[at] = Row::There;
                }
            }
            Sharer::Abort(at) => table.writers[at] = Tx::Aborted,
            Sharer::Write(at) => table.rows[at] = Row::There,
            Sharer::WriterDies(at) => table.alive[at] = false,
            Sharer::Take(relay) => {
                for row in &mut table.rows {
                    // `SKIP LOCKED`
                    if *row == Row::There {
                        *row = Row::Taken(relay);
                    }
                }
                table.relays[relay].is_acknowledged = false;
            }
            Sharer::Deliver(relay) => {
                table.relays[relay].is_acknowledged = true;
                for (row, invalidated) in table.rows.iter().zip(&mut table.invalidated) {
                    *invalidated |= *row == Row::Taken(relay);
                }
            }
            Sharer::Delete(relay) => {
                let is_late = self.0 == Sharing::DeletedBeforeAcknowledged;
                let held = table.rows.map(|row| row == Row::Taken(relay));
                Self::release(&mut table, relay, Row::Deleted);
                if is_late && table.is_redis_there {
                    for (held, invalidated) in held.into_iter().zip(&mut table.invalidated) {
                        *invalidated |= held;
                    }
                }
            }
            Sharer::Roll(relay) => Self::release(&mut table, relay, Row::There),
            Sharer::RelayDies(relay) => {
                Self::release(&mut table, relay, Row::There);
                table.relays[relay] = Relay {
                    is_acknowledged: false,
                    has_died: true,
                };
            }
            Sharer::Redis(is_there) => table.is_redis_there = is_there,
        }
        (table != *last).then_some(table)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOTHING_LOST, |model: &Self, table: &Table| {
                (0..2).all(|at| {
                    let waits = matches!(table.rows[at], Row::There | Row::Taken(_));
                    // Of the variant: its writer is about to.
                    let is_about_to = model.0 == Sharing::RowNotWrittenInTheTransaction
                        && table.alive[at]
                        && table.rows[at] == Row::No;
                    table.writers[at] != Tx::Committed
                        || table.invalidated[at]
                        || waits
                        || is_about_to
                })
            }),
            Property::always("a rollback writes nothing", |_, table: &Table| {
                (0..2).all(|at| table.writers[at] != Tx::Aborted || table.rows[at] == Row::No)
            }),
            Property::sometimes("a row is delivered twice", |_, table: &Table| {
                table.rows.contains(&Row::There) && table.invalidated[0] && table.invalidated[1]
            }),
            Property::sometimes("all is delivered", |_, table: &Table| {
                table.rows == [Row::Deleted; 2]
            }),
        ]
    }
}

const TRANSACTIONS: usize = 3;

/// Transactions by their numbers.
type Set = [bool; TRANSACTIONS];

/// How a process reads for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reading {
    Design,
    /// The position is the largest id that was read.
    HorizonIgnored,
    /// Rows are deleted by when they were written.
    DeletedByWhenWritten,
    /// A process that was away for too long goes on from where it was.
    AwayUnnoticed,
    /// The position outlives the connection.
    PositionKept,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Position {
    /// What had ended.
    ended: Set,
    /// How many ids were seen; only the variant goes by it.
    ids: usize,
}

/// A read on its way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Query {
    No,
    /// What was committed when it was sent.
    Sent(Set),
    /// The database has answered.
    Answered {
        sent: Set,
        position: Position,
        rows: Set,
        committed: Set,
        /// Whether the retention was over since the last answer, by the database's clock.
        is_away: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Log {
    txs: [Tx; TRANSACTIONS],
    deleted: Set,
    position: Option<Position>,
    query: Query,
    /// What the process has invalidated since it was committed.
    applied: Set,
    /// What had been committed when the last read was sent that has come back.
    promised: Set,
    /// Rows of these may be deleted once the retention is over.
    noted: Option<Set>,
    has_read_since: bool,
    is_over: bool,
    is_away: bool,
    has_lost: bool,
    has_failed_over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Step {
    Begin(usize),
    Commit(usize),
    Abort(usize),
    /// `followed::read`: sent, answered and carried out
    Send,
    Answer,
    Apply,
    /// `Snapshots::note`
    Note,
    /// The retention is over.
    Over,
    /// `followed::delete_old`
    Delete,
    Lose,
    /// The server is another one, without the last commit.
    Failover,
}

#[derive(Clone, Copy, Debug)]
struct Followed(Reading);

fn set(txs: &[Tx; TRANSACTIONS], is: impl Fn(Tx) -> bool) -> Set {
    txs.map(is)
}

fn committed(log: &Log) -> Set {
    set(&log.txs, |tx| tx == Tx::Committed)
}

impl Model for Followed {
    type State = Log;
    type Action = Step;

    fn init_states(&self) -> Vec<Log> {
        let none = [false; TRANSACTIONS];
        vec![Log {
            txs: [Tx::NotBegun; TRANSACTIONS],
            deleted: none,
            position: None,
            query: Query::No,
            applied: none,
            promised: none,
            noted: None,
            has_read_since: false,
            is_over: false,
            is_away: false,
            has_lost: false,
            has_failed_over: false,
        }]
    }

    fn actions(&self, log: &Log, steps: &mut Vec<Step>) {
        // Numbers are given in order.
        if let Some(next) = log.txs.iter().position(|tx| *tx == Tx::NotBegun) {
            steps.push(Step::Begin(next));
        }
        for at in (0..TRANSACTIONS).filter(|at| log.txs[*at] == Tx::Open) {
            steps.extend([Step::Commit(at), Step::Abort(at)]);
        }
        steps.push(match log.query {
            Query::No => Step::Send,
            Query::Sent(_) => Step::Answer,
            Query::Answered { .. } => Step::Apply,
        });
        match log.noted {
            None => steps.push(Step::Note),
            Some(_) if !log.is_over => steps.push(Step::Over),
            Some(_) => steps.push(Step::Delete),
        }
        if !log.has_lost {
            steps.push(Step::Lose);
        }
        let last = log.txs.iter().rposition(|tx| *tx != Tx::NotBegun);
        if !log.has_failed_over && last.is_some_and(|at| log.txs[at] == Tx::Committed) {
            steps.push(Step::Failover);
        }
    }

    fn next_state(&self, last: &Log, step: Step) -> Option<Log> {
        let mut log = *last;
        match step {
            Step::Begin(at) => log.txs[at] = Tx::Open,
            Step::Commit(at) => log.txs[at] = Tx::Committed,
            Step::Abort(at) => log.txs[at] = Tx::Aborted,
            Step::Send => log.query = Query::Sent(committed(&log)),
            Step::Answer => {
                let Query::Sent(sent) = log.query else {
                    return None;
                };
                let committed = committed(&log);
                let is_new = |at: usize| match log.position {
                    None => false,
                    Some(position) if self.0 == Reading::HorizonIgnored => at >= position.ids,
                    Some(position) => !position.ended[at],
                };
                let there = |at: usize| committed[at] && !log.deleted[at];
                let seen = (0..TRANSACTIONS).rfind(|at| there(*at));
                log.query = Query::Answered {
                    sent,
                    rows: std::array::from_fn(|at| there(at) && is_new(at)),
                    position: Position {
                        ended: set(&log.txs, |tx| matches!(tx, Tx::Committed | Tx::Aborted)),
                        ids: seen.map_or(0, |at| at + 1),
                    },
                    committed,
                    is_away: std::mem::take(&mut log.is_away),
                };
                log.has_read_since = log.noted.is_some();
            }
            Step::Apply => {
                let Query::Answered {
                    sent,
                    position,
                    rows,
                    committed,
                    is_away,
                } = log.query
                else {
                    return None;
                };
                let is_cold =
                    log.position.is_none() || (is_away && self.0 != Reading::AwayUnnoticed);
                for at in 0..TRANSACTIONS {
                    // Cold, everything is forgotten, whatever it was loaded from.
                    log.applied[at] |= if is_cold { committed[at] } else { rows[at] };
                }
                log.promised = sent;
                log.position = Some(position);
                log.query = Query::No;
            }
            Step::Note => {
                log.noted = Some(match self.0 {
                    Reading::DeletedByWhenWritten => set(&log.txs, |tx| tx != Tx::NotBegun),
                    _ => committed(&log),
                });
                log.has_read_since = false;
            }
            Step::Over => {
                log.is_over = true;
                log.is_away = !log.has_read_since;
            }
            Step::Delete => {
                let noted = log.noted?;
                for at in (0..TRANSACTIONS).filter(|at| noted[*at]) {
                    log.deleted[at] |= log.txs[at] == Tx::Committed;
                }
            }
            Step::Lose => {
                log.has_lost = true;
                log.query = Query::No;
                if self.0 != Reading::PositionKept {
                    log.position = None;
                }
            }
            Step::Failover => {
                let at = log.txs.iter().rposition(|tx| *tx != Tx::NotBegun)?;
                log.has_failed_over = true;
                log.txs[at] = Tx::NotBegun;
                for of in [&mut log.deleted, &mut log.applied, &mut log.promised] {
                    of[at] = false;
                }
                // What was noted was another server's.
                (log.noted, log.is_over, log.has_read_since) = (None, false, false);
                log.query = Query::No;
                if self.0 != Reading::PositionKept {
                    log.position = None;
                }
            }
        }
        (log != *last).then_some(log)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOTHING_SKIPPED, |_, log: &Log| {
                (0..TRANSACTIONS).all(|at| !log.promised[at] || log.applied[at])
            }),
            Property::sometimes("a late commit is read", |_, log: &Log| {
                let position = log.position.map(|position| position.ended);
                log.applied[0] && position.is_some_and(|ended| ended[1] && ended[0])
            }),
            Property::sometimes("rows are deleted", |_, log: &Log| log.deleted[0]),
        ]
    }
}

#[test]
fn a_committed_row_is_delivered_or_waits() {
    holds(Shared(Sharing::Design), 300);
    is_caught(Shared(Sharing::DeletedBeforeAcknowledged), NOTHING_LOST);
    is_caught(Shared(Sharing::RowNotWrittenInTheTransaction), NOTHING_LOST);
}

#[test]
fn a_read_takes_effect_after_commits_before_it() {
    holds(Followed(Reading::Design), 10_000);
    for variant in [
        Reading::HorizonIgnored,
        Reading::DeletedByWhenWritten,
        Reading::AwayUnnoticed,
        Reading::PositionKept,
    ] {
        is_caught(Followed(variant), NOTHING_SKIPPED);
    }
}
