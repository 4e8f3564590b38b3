//! The freshness bound: until when local entries may be served, given the state of the connection
//! that reports changes.

use std::collections::VecDeque;
use std::time::Duration;

use super::tick::Moment;
use crate::base::clock::TICK;
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicU64, Ordering};

/// The epoch of a tier without a connection. No entry belongs to it.
pub(super) const NO_EPOCH: u64 = 0;

/// Identifies one connection. Messages of a connection that is not in use are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session(u64);

/// Identifies one heartbeat of a connection.
pub(crate) type Beat = u64;

/// The most heartbeats to remember. An older one would prove nothing any more.
const MAX_BEATS: usize = 64;

/// The state of the connection, or of the connections to all primaries of a cluster. Hits read parts
/// of it, which are atomics.
///
/// All connections have one epoch, since an entry and its generations come over several: whatever
/// happens to one of them drops everything. The oldest of their heartbeats counts.
#[derive(Debug)]
pub(crate) struct Cover {
    /// Each local entry belongs to one epoch and is served only in that epoch. A new epoch drops
    /// all local entries at once.
    epoch: AtomicU64,
    /// When serving ends: `max_staleness` after the last returned heartbeat was sent.
    until: AtomicU64,
    /// The same on the wall clock. It is stored before `until`, and means nothing without it.
    wall_until: AtomicU64,
    /// When the last returned heartbeat was sent.
    sent: AtomicU64,
    max_staleness: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: u64,
    epochs: u64,
    open: Vec<Connection>,
    beats: Beat,
}

/// A connection in use.
#[derive(Debug)]
struct Connection {
    session: Session,
    on_their_way: VecDeque<(Beat, Moment)>,
    /// When the last returned heartbeat was sent.
    sent: Option<Moment>,
}

impl Connection {
    fn new(session: Session) -> Self {
        Self {
            session,
            on_their_way: VecDeque::new(),
            sent: None,
        }
    }
}

impl State {
    fn connection(&mut self, session: Session) -> Option<&mut Connection> {
        self.open.iter_mut().find(|it| it.session == session)
    }
}

impl Cover {
    pub(crate) fn new(max_staleness: Duration) -> Self {
        Self {
            epoch: AtomicU64::new(NO_EPOCH),
            until: AtomicU64::new(0),
            wall_until: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            max_staleness: max_staleness.saturating_sub(TICK),
            state: Mutex::default(),
        }
    }

    /// The epoch of a read that is sent now.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Returns the age of the last heartbeat, or `None` if nothing may be served now.
    #[inline]
    pub(crate) fn age(&self, now: Moment) -> Option<Duration> {
        self.age_nanos(now).map(Duration::from_nanos)
    }

    /// The same in nanoseconds.
    #[inline]
    pub(crate) fn age_nanos(&self, now: Moment) -> Option<u64> {
        let until = self.until.load(Ordering::Acquire);
        let is_covered = now.tick.0 < until && now.wall.0 < self.wall_until.load(Ordering::Relaxed);
        let is_covered =
            is_covered || (until > 0 && crate::base::mutation::is_active("heartbeat-not-needed"));
        is_covered.then(|| now.tick.0.saturating_sub(self.sent.load(Ordering::Relaxed)))
    }

    /// Registers a connection that is being made.
    pub(crate) fn announce(&self) -> Session {
        let mut state = self.state.lock();
        state.sessions += 1;
        Session(state.sessions)
    }

    /// Starts an epoch: reads now go over this connection alone, which tracks them. Nothing is served
    /// before its first heartbeat has returned.
    pub(crate) fn open(&self, session: Session) {
        let mut state = self.state.lock();
        state.open = vec![Connection::new(session)];
        self.begin_epoch(&mut state);
    }

    /// The same for one connection of several: there is one to each primary of a cluster. If it is
    /// open already, its epoch starts anew.
    #[cfg(any(test, feature = "redis"))]
    pub(crate) fn open_beside(&self, session: Session) {
        let mut state = self.state.lock();
        state.open.retain(|it| it.session != session);
        state.open.push(Connection::new(session));
        self.begin_epoch(&mut state);
    }

    /// Ends the epoch, because a connection that reported changes is lost. Returns whether the
    /// connection was in use.
    pub(crate) fn close(&self, session: Session) -> bool {
        let mut state = self.state.lock();
        let before = state.open.len();
        state.open.retain(|it| it.session != session);
        if state.open.len() == before {
            return false;
        }
        self.begin_epoch(&mut state);
        true
    }

    /// Drops all local entries. A reader that sees the new epoch does not see the freshness bound
    /// of connections that are gone.
    fn begin_epoch(&self, state: &mut State) {
        self.until.store(0, Ordering::Release);
        if state.open.is_empty() {
            self.epoch.store(NO_EPOCH, Ordering::Release);
            return;
        }
        let is_kept = crate::base::mutation::is_active("epoch-kept");
        state.epochs = if is_kept { 1 } else { state.epochs + 1 };
        self.epoch.store(state.epochs, Ordering::Release);
        self.set_bound(state);
    }

    /// Computes the freshness bound: that of the oldest heartbeat. There is none until each
    /// connection has had a heartbeat.
    fn set_bound(&self, state: &State) {
        let sent = state.open.iter().map(|it| it.sent);
        let Some(sent) = sent.collect::<Option<Vec<_>>>() else {
            return self.until.store(0, Ordering::Release);
        };
        let tick = sent.iter().map(|it| it.tick).min();
        let wall = sent.iter().map(|it| it.wall).min();
        let (Some(tick), Some(wall)) = (tick, wall) else {
            return self.until.store(0, Ordering::Release);
        };
        self.sent.store(tick.0, Ordering::Relaxed);
        let wall_until = wall.after(self.max_staleness);
        self.wall_until.store(wall_until.0, Ordering::Relaxed);
        let until = tick.after(self.max_staleness);
        self.until.store(until.0, Ordering::Release);
    }

    pub(crate) fn is_open(&self, session: Session) -> bool {
        self.state.lock().connection(session).is_some()
    }

    /// Starts a new epoch, because every key may have changed.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock();
        if !state.open.is_empty() {
            state.epochs += 1;
            self.epoch.store(state.epochs, Ordering::Release);
        }
    }

    pub(crate) fn epochs(&self) -> u64 {
        self.state.lock().epochs
    }

    /// Records that a heartbeat is about to be sent. Returns `None` if the connection is not in
    /// use.
    pub(crate) fn beat(&self, session: Session, now: Moment) -> Option<Beat> {
        let mut state = self.state.lock();
        let beat = state.beats + 1;
        let connection = state.connection(session)?;
        connection.on_their_way.push_back((beat, now));
        if connection.on_their_way.len() > MAX_BEATS {
            connection.on_their_way.pop_front();
        }
        state.beats = beat;
        Some(beat)
    }

    /// Records that a heartbeat has returned. The pushes of all earlier changes came before it.
    pub(crate) fn returned(&self, session: Session, beat: Beat) {
        let mut state = self.state.lock();
        let Some(connection) = state.connection(session) else {
            return;
        };
        let on_their_way = &mut connection.on_their_way;
        let known = on_their_way.iter().position(|(on, _)| *on == beat);
        // Earlier heartbeats that have not returned prove less than this one: drop them.
        if let Some((_, sent)) = known.and_then(|at| on_their_way.drain(..=at).next_back()) {
            let is_late = crate::base::mutation::is_active("heartbeat-from-when-it-came");
            connection.sent = Some(if is_late { Moment::now() } else { sent });
            self.set_bound(&state);
        }
    }

    /// Returns true if the heartbeat was sent and has not returned.
    pub(crate) fn is_missing(&self, session: Session, beat: Beat) -> bool {
        let mut state = self.state.lock();
        let connection = state.connection(session);
        connection.is_some_and(|it| it.on_their_way.iter().any(|(on, _)| *on == beat))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tick::Tick;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const START: Tick = Tick(1_000_000_000_000);

    fn open() -> (Cover, Session) {
        let cover = Cover::new(SECOND);
        let session = cover.announce();
        cover.open(session);
        (cover, session)
    }

    fn at(millis: u64) -> Moment {
        by(millis, millis)
    }

    fn by(millis: u64, wall: u64) -> Moment {
        Moment {
            tick: START.after(Duration::from_millis(millis)),
            wall: START.after(Duration::from_millis(wall)),
        }
    }

    #[test]
    fn a_heartbeat_covers_no_sleep_of_the_machine_and_no_clock_that_is_set_back() {
        let (cover, session) = open();
        let beat = cover.beat(session, at(0)).expect("open");
        cover.returned(session, beat);
        assert!(cover.age(by(500, 500)).is_some());
        assert_eq!(cover.age(by(500, 3_600_000)), None, "it slept");
        assert_eq!(cover.age(by(1000, 100)), None, "it was set back");
    }

    #[test]
    fn a_heartbeat_covers_from_when_it_was_sent() {
        let (cover, session) = open();
        assert_eq!(cover.age(at(0)), None, "nothing has come back yet");
        let beat = cover.beat(session, at(0)).expect("open");
        assert!(cover.is_missing(session, beat));
        // It took 900 ms to return.
        cover.returned(session, beat);
        assert_eq!(cover.age(at(900)), Some(Duration::from_millis(900)));
        assert_eq!(cover.age(at(1000)), None);
    }

    #[test]
    fn a_late_heartbeat_is_not_taken_for_a_later_one() {
        let (cover, session) = open();
        let first = cover.beat(session, at(0)).expect("open");
        let second = cover.beat(session, at(800)).expect("open");
        cover.returned(session, first);
        assert_eq!(cover.age(at(1100)), None);
        cover.returned(session, second);
        assert_eq!(cover.age(at(1100)), Some(Duration::from_millis(300)));
        cover.returned(session, first);
        assert_eq!(cover.age(at(1100)), Some(Duration::from_millis(300)));
    }

    #[test]
    fn an_earlier_connection_has_no_say() {
        let (cover, old) = open();
        let beat = cover.beat(old, at(0)).expect("open");
        let epoch = cover.epoch();
        assert!(cover.close(old));
        assert_eq!(cover.epoch(), NO_EPOCH);
        let new = cover.announce();
        cover.open(new);
        assert_ne!(cover.epoch(), epoch);
        cover.returned(old, beat);
        assert_eq!(cover.age(at(1)), None);
        assert!(!cover.close(old), "it is closed already");
        assert_ne!(cover.epoch(), NO_EPOCH);
    }

    #[test]
    fn to_forget_everything_is_a_new_epoch() {
        let (cover, session) = open();
        let epoch = cover.epoch();
        cover.forget();
        assert_ne!(cover.epoch(), epoch);
        cover.close(session);
        cover.forget();
        assert_eq!(cover.epoch(), NO_EPOCH);
    }
    #[test]
    fn of_several_connections_the_oldest_heartbeat_counts() {
        let (cover, one) = (Cover::new(SECOND), Session(1));
        let other = Session(2);
        cover.open_beside(one);
        let beat = cover.beat(one, at(0)).expect("open");
        cover.returned(one, beat);
        assert!(cover.age(at(1)).is_some());
        let epoch = cover.epoch();
        cover.open_beside(other);
        assert_ne!(
            cover.epoch(),
            epoch,
            "what came over it before was not tracked"
        );
        assert_eq!(cover.age(at(1)), None, "the other has had no heartbeat");
        let beat = cover.beat(other, at(500)).expect("open");
        cover.returned(other, beat);
        assert_eq!(cover.age(at(900)), Some(Duration::from_millis(900)));
        assert_eq!(cover.age(at(1100)), None, "that of the first is too old");
        let beat = cover.beat(one, at(600)).expect("open");
        cover.returned(one, beat);
        assert_eq!(cover.age(at(1100)), Some(Duration::from_millis(600)));
    }

    #[test]
    fn a_lost_connection_among_several_drops_everything_and_the_others_go_on() {
        let (cover, one, other) = (Cover::new(SECOND), Session(1), Session(2));
        for (session, sent) in [(one, 0), (other, 500)] {
            cover.open_beside(session);
            let beat = cover.beat(session, at(sent)).expect("open");
            cover.returned(session, beat);
        }
        let epoch = cover.epoch();
        assert!(cover.close(one));
        assert_ne!(cover.epoch(), epoch);
        assert_eq!(cover.age(at(1100)), Some(Duration::from_millis(600)));
        let epoch = cover.epoch();
        cover.open_beside(other);
        assert_ne!(cover.epoch(), epoch, "it begins anew");
        assert_eq!(cover.age(at(1100)), None);
        assert!(cover.close(other));
        assert_eq!((cover.epoch(), cover.age(at(1100))), (NO_EPOCH, None));
    }
}
