//! What limits a goal, for the page of a run that misses it. Looked into by profiles, and written by people.

/// How a goal's name begins, and why it may be missed; without a full stop.
const LIMITS: &[(&str, &str)] = &[
    (
        "Redis hit, 100 rows in MessagePack",
        "of its time, three quarters are the round trip of one small row and the way of 11.7 kB; decoding takes 15 µs, of which \
         the 300 strings are 5.5. Positions in place of the fields' names would spare 5 µs and 4.4 kB, and take a changed \
         struct's old entries for its new ones; `cached`, which does that, misses the goal as well",
    ),
    (
        "Whole resource",
        "the server takes 5 µs; the rest is the way to the cache's own thread and back, beside a round trip that takes 66 µs \
         for a `PING` after the same reads",
    ),
    (
        "The same: p99 of the waiters",
        "the processors: 10,000 callers take 58 ms to arrive and 38 ms to be woken and answered, in all four processes \
         together, on two processors. A profile of that has no summit: the highest are copies of futures, memory and timers",
    ),
];

/// What is known of the goal of this name.
pub fn of(what: &str) -> Option<&'static str> {
    let known = LIMITS.iter().find(|(name, _)| what.starts_with(name));
    known.map(|(_, why)| *why)
}
