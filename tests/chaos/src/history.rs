//! What a run leaves behind: one event per line, as JSON.
//!
//! Times are nanoseconds of the machine's monotonic clock. Lines are in no order, and the last line
//! of a process that was killed may be cut short.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read as _, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cache_runtime::AuditReport;
use serde::{Deserialize, Serialize};

/// Names one write: the number of its process, then its own.
pub(crate) type WriteId = u64;
pub(crate) type Time = u64;

pub(crate) const MILLISECOND: Time = 1_000_000;
/// The version with which every row begins.
pub(crate) const FIRST_VERSION: u64 = 1;
/// A row whose version is a multiple of this reads as absent where one row is read.
pub(crate) const ABSENT_EVERY: u64 = 8;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    Run(Run),
    Life(Life),
    Fault(Fault),
    #[serde(rename = "T")]
    Truth(Truth),
    #[serde(rename = "B")]
    Begin(Begin),
    #[serde(rename = "M")]
    Mark(Mark),
    #[serde(rename = "R")]
    Read(Read),
    Stuck(Stuck),
    #[serde(rename = "F")]
    Failed(Failed),
    #[serde(rename = "S")]
    FoundStale(FoundStale),
    /// What the auditors of all processes have counted.
    Audit(AuditReport),
}

/// What was run. The times are those that the promises speak of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    /// For how long entries are served.
    pub(crate) ttl: Time,
    /// For how long a load may take, and a commit whose process was killed.
    pub(crate) load: Time,
    pub(crate) commit_delay: Time,
    pub(crate) in_doubt_window: Time,
    pub(crate) intent: Time,
    pub(crate) deadline: Time,
    /// How old local entries may be that follow other processes' writes.
    #[serde(default)]
    pub(crate) staleness: Time,
    /// Megabytes of local entries, in the processes that have any.
    #[serde(default)]
    pub(crate) local_mb: u32,
    pub(crate) kinds: Vec<String>,
    /// Whether somebody changed rows behind the cache's back.
    #[serde(default)]
    pub(crate) planted_writer: bool,
    /// Which servers: `one`, a `cluster`, or those that `sentinels` watch.
    #[serde(default)]
    pub(crate) servers: String,
    /// The faults that were to come, and whether callers hung up and bodies failed.
    #[serde(default)]
    pub(crate) faults: Vec<FaultKind>,
    #[serde(default)]
    pub(crate) mishaps: bool,
}

/// One app process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) process: u32,
    pub(crate) slot: usize,
    pub(crate) from: Time,
    /// When it was killed, if it was.
    pub(crate) killed: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FaultKind {
    Kill,
    AppStop,
    RedisStop,
    RestartEmpty,
    RestartSnapshot,
    RestartAof,
    Flush,
    ScriptFlush,
    ClientKill,
    Evict,
    Cut,
    Delay,
    HalfClose,
    SwallowRequests,
    SwallowAnswers,
    Hold,
    TrackingOff,
    /// Redis answers reads and refuses writes.
    RefuseWrites,
    /// All connections are reset, every 300 ms.
    Resets,
    /// Entries are copied and renamed over one another.
    CopyOver,
    /// A value of tens of megabytes that is not ours lies under a row's key.
    Oversized,
    /// The answers on a link come one too late.
    OffByOne,
    /// The primary of a shard is killed, and its replica takes over.
    PrimaryKill,
    /// It is stopped for a while, perhaps for so long that its replica takes over.
    PrimaryStop,
    /// Its replica takes over by command.
    Failover,
    /// Slots go to other nodes, some of them back at once.
    SlotMove,
    /// One of the Sentinels is stopped for a while.
    SentinelStop,
    /// A slot leaves a primary, the other one loses what was invalidated there in a failover, and
    /// the slot returns.
    SlotReturn,
    /// A primary is cut off from the other nodes, and replaced.
    Partition,
    /// The process that is on its side meanwhile.
    CutOff,
}

impl FaultKind {
    pub(crate) const ALL: [Self; 30] = [
        Self::Kill,
        Self::AppStop,
        Self::RedisStop,
        Self::RestartEmpty,
        Self::RestartSnapshot,
        Self::RestartAof,
        Self::Flush,
        Self::ScriptFlush,
        Self::ClientKill,
        Self::Evict,
        Self::Cut,
        Self::Delay,
        Self::HalfClose,
        Self::SwallowRequests,
        Self::SwallowAnswers,
        Self::Hold,
        Self::TrackingOff,
        Self::RefuseWrites,
        Self::Resets,
        Self::CopyOver,
        Self::Oversized,
        Self::OffByOne,
        Self::PrimaryKill,
        Self::PrimaryStop,
        Self::Failover,
        Self::SlotMove,
        Self::SentinelStop,
        Self::SlotReturn,
        Self::Partition,
        Self::CutOff,
    ];

    /// Those that any cache can be put to: the others know the names of our keys, or what our
    /// commands are.
    pub(crate) fn common() -> Vec<Self> {
        let ours = [
            Self::RefuseWrites,
            Self::Resets,
            Self::CopyOver,
            Self::Oversized,
            Self::OffByOne,
            Self::PrimaryKill,
            Self::PrimaryStop,
            Self::Failover,
            Self::SlotMove,
            Self::SentinelStop,
            Self::SlotReturn,
            Self::Partition,
            Self::CutOff,
        ];
        let all = Self::ALL.into_iter();
        all.filter(|kind| !ours.contains(kind)).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::AppStop => "app-stop",
            Self::RedisStop => "redis-stop",
            Self::RestartEmpty => "restart-empty",
            Self::RestartSnapshot => "restart-snapshot",
            Self::RestartAof => "restart-aof",
            Self::Flush => "flush",
            Self::ScriptFlush => "script-flush",
            Self::ClientKill => "client-kill",
            Self::Evict => "evict",
            Self::Cut => "cut",
            Self::Delay => "delay",
            Self::HalfClose => "half-close",
            Self::SwallowRequests => "swallow-requests",
            Self::SwallowAnswers => "swallow-answers",
            Self::Hold => "hold",
            Self::TrackingOff => "tracking-off",
            Self::RefuseWrites => "refuse-writes",
            Self::Resets => "resets",
            Self::CopyOver => "copy-over",
            Self::Oversized => "oversized",
            Self::OffByOne => "off-by-one",
            Self::PrimaryKill => "primary-kill",
            Self::PrimaryStop => "primary-stop",
            Self::Failover => "failover",
            Self::SlotMove => "slot-move",
            Self::SentinelStop => "sentinel-stop",
            Self::SlotReturn => "slot-return",
            Self::Partition => "partition",
            Self::CutOff => "cut-off",
        }
    }

    /// Whether announcements in Redis may be lost by it.
    pub(crate) fn loses_intents(self) -> bool {
        matches!(
            self,
            Self::RestartEmpty
                | Self::RestartSnapshot
                | Self::RestartAof
                | Self::Flush
                | Self::Evict
                | Self::CopyOver
                | Self::Oversized
                | Self::PrimaryKill
                | Self::PrimaryStop
                | Self::Failover
                | Self::SlotReturn
                | Self::Partition
        )
    }

    /// Whether what was stored before is lost with the announcements, or is not served any more,
    /// since the server is another one.
    pub(crate) fn takes_entries_too(self) -> bool {
        let spares_entries = matches!(
            self,
            Self::CopyOver | Self::Oversized | Self::SlotReturn | Self::Partition
        );
        self.loses_intents() && !spares_entries
    }

    /// Whether an invalidation may have to wait because of it.
    pub(crate) fn holds_invalidations_up(self) -> bool {
        !matches!(
            self,
            Self::Kill | Self::Flush | Self::ScriptFlush | Self::TrackingOff | Self::CopyOver
        )
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) from: Time,
    pub(crate) to: Time,
    /// Of one app only.
    pub(crate) slot: Option<usize>,
}

/// Which write made which version of a row, as the database says afterwards.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Truth {
    #[serde(rename = "w")]
    pub(crate) write: WriteId,
    #[serde(rename = "k")]
    pub(crate) kind: u8,
    #[serde(rename = "i")]
    pub(crate) id: u32,
    #[serde(rename = "v")]
    pub(crate) version: u64,
}

/// A write begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Begin {
    #[serde(rename = "w")]
    pub(crate) write: WriteId,
    #[serde(rename = "p")]
    pub(crate) process: u32,
    pub(crate) at: Time,
    pub(crate) form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    ById,
    Whole,
    CrashSafe,
    CrashSafeWhole,
    Required,
    Transaction,
    AfterCommit,
    TransactionCrashSafe,
    Invalidate,
    InvalidateAll,
    ClearAll,
    Pattern,
    Delete,
}

impl Form {
    /// Whether it reaches what is derived from the resource as well as the row.
    pub(crate) fn covers(self, read: ReadKind) -> bool {
        self != Self::Delete || read.is_entity()
    }

    /// Whether a commit that no annotation knows of is followed by a manual operation.
    pub(crate) fn is_manual(self) -> bool {
        matches!(
            self,
            Self::Invalidate | Self::InvalidateAll | Self::ClearAll | Self::Pattern | Self::Delete
        )
    }

    pub(crate) fn is_crash_safe(self) -> bool {
        matches!(
            self,
            Self::CrashSafe | Self::CrashSafeWhole | Self::TransactionCrashSafe
        )
    }
}

/// What is known of a write from a point in time on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mark {
    #[serde(rename = "w")]
    pub(crate) write: WriteId,
    pub(crate) at: Time,
    pub(crate) step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Its announcement was seen to stand.
    Announced,
    /// It was not, because Redis did not answer.
    Away,
    /// The announcement that a dropped or panicked write leaves was seen to be out.
    Held,
    /// The database has committed it.
    Committed,
    /// The caller has got its answer.
    Done(Outcome),
    /// The cache said in so many words that the store has the invalidation.
    Delivered,
    /// The process was seen to hold the invalidation back for the store.
    Pending,
    /// The invalidation was seen not to wait any more, be it the one at the end of the
    /// in-doubt window.
    InForce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// It returned, be it an error, and what it committed it had committed by then.
    Returned,
    /// It returned an error behind which a commit may come.
    Unknown,
    /// Its caller hung up.
    Dropped,
    Panicked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ReadKind {
    Get,
    Batch,
    Lookup,
    Peek,
    List,
    Filter,
    Tagged,
    Dependent,
    ByHand,
    Typed,
    Nested,
}

impl ReadKind {
    pub(crate) fn is_entity(self) -> bool {
        matches!(self, Self::Get | Self::Batch | Self::Lookup | Self::Peek)
    }
}

/// How a read was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// A local entry.
    Local,
    Hit,
    Miss,
    Joined,
    /// Past the cache: the store was not asked, or did not answer.
    Unavailable,
    /// Past the cache: a slot had just got another owner, and the former one may still have
    /// answered.
    Fenced,
    /// Past the cache: nobody had confirmed in time which server is the primary.
    Unconfirmed,
    /// Past the cache: an invalidation of the process had not arrived.
    Pending,
    /// Past the cache: a write stood as an intent.
    Intended,
    /// Past the cache: another caller's load had failed, or took too long.
    NotJoined,
    /// Past the cache: the caller asked for it.
    Asked,
    /// Past the cache for another reason.
    Bypass,
}

/// A read that returned something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Read {
    #[serde(rename = "p")]
    pub(crate) process: u32,
    #[serde(rename = "s")]
    pub(crate) start: Time,
    #[serde(rename = "e")]
    pub(crate) end: Time,
    #[serde(rename = "r")]
    pub(crate) read: ReadKind,
    #[serde(rename = "k")]
    pub(crate) kind: u8,
    #[serde(rename = "a")]
    pub(crate) argument: i64,
    #[serde(rename = "h")]
    pub(crate) answer: Answer,
    /// Whether a local entry answered it, or may have answered part of it.
    #[serde(rename = "l", default, skip_serializing_if = "is_not")]
    pub(crate) local: bool,
    /// Whether it asked for the state in Redis, and no local entry.
    #[serde(rename = "t", default, skip_serializing_if = "is_not")]
    pub(crate) strict: bool,
    /// Rows with their versions; version 0 is a row that reads as absent.
    #[serde(rename = "v")]
    pub(crate) rows: Vec<(u32, u64)>,
    /// What is wrong with it besides its age: another call's value, or another type's.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub(crate) wrong: Option<String>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn is_not(is: &bool) -> bool {
    !is
}

/// A caller who got no answer before the deadline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stuck {
    pub(crate) process: u32,
    pub(crate) start: Time,
    pub(crate) end: Time,
    pub(crate) what: String,
}

/// A caller who got an error, or a panic, of the cache's making.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failed {
    #[serde(rename = "p")]
    pub(crate) process: u32,
    pub(crate) at: Time,
    #[serde(rename = "x")]
    pub(crate) what: String,
}

/// An entry that the auditor of a process holds for stale.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FoundStale {
    #[serde(rename = "p")]
    pub(crate) process: u32,
    pub(crate) at: Time,
    pub(crate) key: String,
}

/// Writes events to a file; those of reads are buffered.
#[derive(Debug)]
pub(crate) struct Recorder(Mutex<BufWriter<File>>);

impl Recorder {
    pub(crate) fn create(path: &Path) -> std::io::Result<Self> {
        let file = File::create(path)?;
        Ok(Self(Mutex::new(BufWriter::with_capacity(1 << 16, file))))
    }

    /// Adds an event. What is said of writes outlives the process from here on: it may be killed at
    /// any time.
    pub(crate) fn note(&self, event: &Event) {
        let line = serde_json::to_vec(event).expect("events are plain data");
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = file.write_all(&line).and_then(|()| file.write_all(b"\n"));
        written.expect("the history can be written");
        if !matches!(event, Event::Read(_) | Event::Failed(_)) {
            file.flush().expect("the history can be written");
        }
    }

    pub(crate) fn flush(&self) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().expect("the history can be written");
    }
}

/// The events in the last bytes of a history that somebody is writing.
pub(crate) fn last_events(path: &Path, bytes: u64) -> std::io::Result<Vec<Event>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let lines = text.split(|byte| *byte == b'\n');
    // The first is half a line, and so may be the last.
    Ok(lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

/// All events of a file, one after the other; lines that are cut short are left out.
pub(crate) fn events(path: &Path) -> std::io::Result<impl Iterator<Item = Event>> {
    let lines = BufReader::new(File::open(path)?).split(b'\n');
    Ok(lines
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_slice(&line).ok()))
}
