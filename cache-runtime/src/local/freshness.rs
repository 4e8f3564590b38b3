//! The freshness bound: until when local entries may be served, given the state of the connection
//! that reports changes.

use std::collections::VecDeque;
use std::time::Duration;

use super::coarse_clock::ClockReading;
use crate::base::clock::TICK;
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicU64, Ordering};

/// The epoch of a tier without a connection. No entry belongs to it.
pub(super) const NO_EPOCH: u64 = 0;

/// Identifies one connection. Messages of a connection that is not in use are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId(u64);

/// Identifies one heartbeat of a connection.
pub(crate) type HeartbeatId = u64;

/// The most heartbeats to remember. An older one would prove nothing any more.
const MAX_HEARTBEATS: usize = 64;

/// The state of the connection, or of the connections to all primaries of a cluster. Hits read
/// parts of it, which are atomics.
///
/// All connections have one epoch, since an entry and its generations come over several: whatever
/// happens to one of them drops everything. The oldest of their heartbeats counts.
#[derive(Debug)]
pub(crate) struct FreshnessBound {
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
    connection_ids: u64,
    epochs: u64,
    open: Vec<Connection>,
    heartbeats: HeartbeatId,
}

/// A connection in use.
#[derive(Debug)]
struct Connection {
    connection_id: ConnectionId,
    on_their_way: VecDeque<(HeartbeatId, ClockReading)>,
    /// When the last returned heartbeat was sent.
    sent: Option<ClockReading>,
}

impl Connection {
    fn new(connection_id: ConnectionId) -> Self {
        Self {
            connection_id,
            on_their_way: VecDeque::new(),
            sent: None,
        }
    }
}

impl State {
    fn connection(&mut self, connection_id: ConnectionId) -> Option<&mut Connection> {
        self.open
            .iter_mut()
            .find(|it| it.connection_id == connection_id)
    }
}

impl FreshnessBound {
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
    pub(crate) fn age(&self, now: ClockReading) -> Option<Duration> {
        self.age_nanos(now).map(Duration::from_nanos)
    }

    /// The same in nanoseconds.
    #[inline]
    pub(crate) fn age_nanos(&self, now: ClockReading) -> Option<u64> {
        let until = self.until.load(Ordering::Acquire);
        let is_fresh =
            now.monotonic.0 < until && now.wall.0 < self.wall_until.load(Ordering::Relaxed);
        let is_fresh =
            is_fresh || (until > 0 && crate::base::mutation::is_active("heartbeat-not-needed"));
        is_fresh.then(|| {
            now.monotonic
                .0
                .saturating_sub(self.sent.load(Ordering::Relaxed))
        })
    }

    /// Registers a connection that is being made.
    pub(crate) fn announce(&self) -> ConnectionId {
        let mut state = self.state.lock();
        state.connection_ids += 1;
        ConnectionId(state.connection_ids)
    }

    /// Starts an epoch: reads now go over this connection alone, which tracks them. Nothing is
    /// served before its first heartbeat has returned.
    pub(crate) fn open(&self, connection_id: ConnectionId) {
        let mut state = self.state.lock();
        state.open = vec![Connection::new(connection_id)];
        self.begin_epoch(&mut state);
    }

    /// The same for one connection of several: there is one to each primary of a cluster. If it is
    /// open already, its epoch starts anew.
    #[cfg(any(test, feature = "redis"))]
    pub(crate) fn open_beside(&self, connection_id: ConnectionId) {
        let mut state = self.state.lock();
        state.open.retain(|it| it.connection_id != connection_id);
        state.open.push(Connection::new(connection_id));
        self.begin_epoch(&mut state);
    }

    /// Ends the epoch, because a connection that reported changes is lost. Returns whether the
    /// connection was in use.
    pub(crate) fn close(&self, connection_id: ConnectionId) -> bool {
        let mut state = self.state.lock();
        let before = state.open.len();
        state.open.retain(|it| it.connection_id != connection_id);
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
        let monotonic = sent.iter().map(|it| it.monotonic).min();
        let wall = sent.iter().map(|it| it.wall).min();
        let (Some(monotonic), Some(wall)) = (monotonic, wall) else {
            return self.until.store(0, Ordering::Release);
        };
        self.sent.store(monotonic.0, Ordering::Relaxed);
        let wall_until = wall.after(self.max_staleness);
        self.wall_until.store(wall_until.0, Ordering::Relaxed);
        let until = monotonic.after(self.max_staleness);
        self.until.store(until.0, Ordering::Release);
    }

    pub(crate) fn is_open(&self, connection_id: ConnectionId) -> bool {
        self.state.lock().connection(connection_id).is_some()
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
    pub(crate) fn start_heartbeat(
        &self,
        connection_id: ConnectionId,
        now: ClockReading,
    ) -> Option<HeartbeatId> {
        let mut state = self.state.lock();
        let heartbeat = state.heartbeats + 1;
        let connection = state.connection(connection_id)?;
        connection.on_their_way.push_back((heartbeat, now));
        if connection.on_their_way.len() > MAX_HEARTBEATS {
            connection.on_their_way.pop_front();
        }
        state.heartbeats = heartbeat;
        Some(heartbeat)
    }

    /// Records that a heartbeat has returned. The pushes of all earlier changes came before it.
    pub(crate) fn returned(&self, connection_id: ConnectionId, heartbeat: HeartbeatId) {
        let mut state = self.state.lock();
        let Some(connection) = state.connection(connection_id) else {
            return;
        };
        let on_their_way = &mut connection.on_their_way;
        let known = on_their_way.iter().position(|(on, _)| *on == heartbeat);
        // Earlier heartbeats that have not returned prove less than this one: drop them.
        if let Some((_, sent)) = known.and_then(|at| on_their_way.drain(..=at).next_back()) {
            let is_late = crate::base::mutation::is_active("heartbeat-from-when-it-came");
            connection.sent = Some(if is_late { ClockReading::now() } else { sent });
            self.set_bound(&state);
        }
    }

    /// Returns true if the heartbeat was sent and has not returned.
    pub(crate) fn is_missing(&self, connection_id: ConnectionId, heartbeat: HeartbeatId) -> bool {
        let mut state = self.state.lock();
        let connection = state.connection(connection_id);
        connection.is_some_and(|it| it.on_their_way.iter().any(|(on, _)| *on == heartbeat))
    }
}

#[cfg(all(test, cache_loom))]
mod schedules;
#[cfg(test)]
mod tests {
    use super::super::coarse_clock::CoarseInstant;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const START: CoarseInstant = CoarseInstant(1_000_000_000_000);

    fn open() -> (FreshnessBound, ConnectionId) {
        let freshness = FreshnessBound::new(SECOND);
        let connection_id = freshness.announce();
        freshness.open(connection_id);
        (freshness, connection_id)
    }

    fn at(millis: u64) -> ClockReading {
        by(millis, millis)
    }

    fn by(millis: u64, wall: u64) -> ClockReading {
        ClockReading {
            monotonic: START.after(Duration::from_millis(millis)),
            wall: START.after(Duration::from_millis(wall)),
        }
    }

    #[test]
    fn a_heartbeat_covers_no_sleep_of_the_machine_and_no_clock_that_is_set_back() {
        let (freshness, connection_id) = open();
        let heartbeat = freshness
            .start_heartbeat(connection_id, at(0))
            .expect("open");
        freshness.returned(connection_id, heartbeat);
        assert!(freshness.age(by(500, 500)).is_some());
        assert_eq!(freshness.age(by(500, 3_600_000)), None, "it slept");
        assert_eq!(freshness.age(by(1000, 100)), None, "it was set back");
    }

    #[test]
    fn a_heartbeat_covers_from_when_it_was_sent() {
        let (freshness, connection_id) = open();
        assert_eq!(freshness.age(at(0)), None, "nothing has come back yet");
        let heartbeat = freshness
            .start_heartbeat(connection_id, at(0))
            .expect("open");
        assert!(freshness.is_missing(connection_id, heartbeat));
        // It took 900 ms to return.
        freshness.returned(connection_id, heartbeat);
        assert_eq!(freshness.age(at(900)), Some(Duration::from_millis(900)));
        assert_eq!(freshness.age(at(1000)), None);
    }

    #[test]
    fn a_late_heartbeat_is_not_taken_for_a_later_one() {
        let (freshness, connection_id) = open();
        let first = freshness
            .start_heartbeat(connection_id, at(0))
            .expect("open");
        let second = freshness
            .start_heartbeat(connection_id, at(800))
            .expect("open");
        freshness.returned(connection_id, first);
        assert_eq!(freshness.age(at(1100)), None);
        freshness.returned(connection_id, second);
        assert_eq!(freshness.age(at(1100)), Some(Duration::from_millis(300)));
        freshness.returned(connection_id, first);
        assert_eq!(freshness.age(at(1100)), Some(Duration::from_millis(300)));
    }

    #[test]
    fn an_earlier_connection_has_no_say() {
        let (freshness, old) = open();
        let heartbeat = freshness.start_heartbeat(old, at(0)).expect("open");
        let epoch = freshness.epoch();
        assert!(freshness.close(old));
        assert_eq!(freshness.epoch(), NO_EPOCH);
        let new = freshness.announce();
        freshness.open(new);
        assert_ne!(freshness.epoch(), epoch);
        freshness.returned(old, heartbeat);
        assert_eq!(freshness.age(at(1)), None);
        assert!(!freshness.close(old), "it is closed already");
        assert_ne!(freshness.epoch(), NO_EPOCH);
    }

    #[test]
    fn to_forget_everything_is_a_new_epoch() {
        let (freshness, connection_id) = open();
        let epoch = freshness.epoch();
        freshness.forget();
        assert_ne!(freshness.epoch(), epoch);
        freshness.close(connection_id);
        freshness.forget();
        assert_eq!(freshness.epoch(), NO_EPOCH);
    }
    #[test]
    fn of_several_connections_the_oldest_heartbeat_counts() {
        let (freshness, one) = (FreshnessBound::new(SECOND), ConnectionId(1));
        let other = ConnectionId(2);
        freshness.open_beside(one);
        let heartbeat = freshness.start_heartbeat(one, at(0)).expect("open");
        freshness.returned(one, heartbeat);
        assert!(freshness.age(at(1)).is_some());
        let epoch = freshness.epoch();
        freshness.open_beside(other);
        assert_ne!(
            freshness.epoch(),
            epoch,
            "what came over it before was not tracked"
        );
        assert_eq!(freshness.age(at(1)), None, "the other has had no heartbeat");
        let heartbeat = freshness.start_heartbeat(other, at(500)).expect("open");
        freshness.returned(other, heartbeat);
        assert_eq!(freshness.age(at(900)), Some(Duration::from_millis(900)));
        assert_eq!(
            freshness.age(at(1100)),
            None,
            "that of the first is too old"
        );
        let heartbeat = freshness.start_heartbeat(one, at(600)).expect("open");
        freshness.returned(one, heartbeat);
        assert_eq!(freshness.age(at(1100)), Some(Duration::from_millis(600)));
    }

    #[test]
    fn a_lost_connection_among_several_drops_everything_and_the_others_go_on() {
        let (freshness, one, other) = (
            FreshnessBound::new(SECOND),
            ConnectionId(1),
            ConnectionId(2),
        );
        for (connection_id, sent) in [(one, 0), (other, 500)] {
            freshness.open_beside(connection_id);
            let heartbeat = freshness
                .start_heartbeat(connection_id, at(sent))
                .expect("open");
            freshness.returned(connection_id, heartbeat);
        }
        let epoch = freshness.epoch();
        assert!(freshness.close(one));
        assert_ne!(freshness.epoch(), epoch);
        assert_eq!(freshness.age(at(1100)), Some(Duration::from_millis(600)));
        let epoch = freshness.epoch();
        freshness.open_beside(other);
        assert_ne!(freshness.epoch(), epoch, "it begins anew");
        assert_eq!(freshness.age(at(1100)), None);
        assert!(freshness.close(other));
        assert_eq!(
            (freshness.epoch(), freshness.age(at(1100))),
            (NO_EPOCH, None)
        );
    }
}
