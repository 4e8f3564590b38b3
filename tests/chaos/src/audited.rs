//! Judges the auditors: what they hold for stale has to be so.
//!
//! An auditor says that an entry stood, and was older than the database, for [`CONFIRM_AFTER`]. Of
//! our own writers that can only be where a write has not reached Redis for so long, and nothing
//! was promised of it: its process was killed, or its invalidation waits while Redis is away. So
//! each finding needs a write of the same row that was still excused; for entries that are made of
//! many rows, one of any of their rows. A finding without such a write is a false alarm, or a stale
//! entry that no reader happened to see: either is a violation. What was planted is expected, and
//! is to be found.

use std::time::Duration;

use crate::check::{Duty, World};
use crate::history::{Answer, FoundStale, MILLISECOND, Read, ReadKind, Time};
use crate::shop::PLANTED;

/// For how long a difference has to stand.
pub(crate) const CONFIRM_AFTER: Duration = Duration::from_secs(2);
/// The same; and for as long a process may be stopped between its look and its word.
const WINDOW: Time = 4_000 * MILLISECOND;

/// What the auditors held for stale, by what it was.
#[derive(Debug, Default)]
pub(crate) struct Findings<'w> {
    /// Of the rows that somebody changed behind the cache's back.
    pub(crate) planted: usize,
    /// Those that a write explains of which nothing was promised yet, or any more.
    pub(crate) explained: usize,
    pub(crate) unexplained: Vec<&'w FoundStale>,
}

impl<'w> Findings<'w> {
    pub(crate) fn of(world: &'w World) -> Self {
        let mut findings = Self::default();
        for found in &world.found {
            match resource(found) {
                PLANTED if world.run.planted_writer => findings.planted += 1,
                _ if is_explained(world, found) => findings.explained += 1,
                _ => findings.unexplained.push(found),
            }
        }
        findings
    }

    /// What is wrong with them.
    pub(crate) fn complaints(&self, world: &World) -> Vec<String> {
        let unexplained = self.unexplained.iter().map(|found| {
            let (process, at) = (found.process, found.at / MILLISECOND);
            let key = &found.key;
            format!("the auditor of process {process} held {key} for stale, at {at} ms: no write explains it")
        });
        let is_due = world.run.planted_writer && world.audit.total.checked > 0;
        let unseen = (is_due && self.planted == 0)
            .then(|| "no auditor has found what was planted".to_owned());
        unexplained.chain(unseen).collect()
    }
}

fn resource(found: &FoundStale) -> &str {
    let resource = found.key.split(':').next();
    resource.unwrap_or_default()
}

fn is_explained(world: &World, found: &FoundStale) -> bool {
    let mut kinds = world.run.kinds.iter();
    let kind = kinds.position(|kind| kind == resource(found));
    let kind = kind.and_then(|kind| u8::try_from(kind).ok());
    let id: Option<u32> = found
        .key
        .split_once(':')
        .and_then(|(_, rest)| rest.parse().ok());
    let read = Read {
        process: found.process,
        start: found.at.saturating_sub(WINDOW),
        end: found.at,
        read: id.map_or(ReadKind::List, |_| ReadKind::Get),
        kind: kind.unwrap_or_default(),
        argument: 0,
        answer: Answer::Hit,
        local: false,
        strict: false,
        rows: Vec::new(),
        wrong: None,
    };
    let rows = world.rows.iter().filter(|((of, row), _)| {
        kind.is_none_or(|kind| kind == *of) && id.is_none_or(|id| id == *row)
    });
    rows.flat_map(|(_, makers)| makers).any(|maker| {
        let Some(write) = world.writes.get(maker) else {
            return false;
        };
        if write.begin.at >= found.at {
            return false;
        }
        if !write.begin.form.covers(read.read) {
            // A manual removal of one row: lists keep the old one until their time to live ends.
            return world.expired(write.begin.at) >= found.at;
        }
        let duty = world.duty(*maker, world.known_by(*maker), found.process);
        match world.in_view_of_faults(write, &read, duty) {
            Duty::Owed(from) | Duty::Behind(from) => from + WINDOW >= found.at,
            Duty::Excused(_, until) => until.is_none_or(|until| until + WINDOW >= found.at),
        }
    })
}
