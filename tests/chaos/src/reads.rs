//! What a task does: reads, each noted with what it showed.

use std::marker::PhantomData;
use std::ops::Deref;
use std::time::Duration;

use cache_runtime::{BypassReason, Cache, Key, Lookup, Outcome, Outcomes, Status, observe};
use fastrand::Rng;

use crate::app::{Common, LEASE};
use crate::clock::now;
use crate::context::{CallContext, IDS, Mishap, TEAMS};
use crate::history::{Answer, Read, ReadKind, Time, WriteId};
use crate::shop::{Kind, PLANTED_ROWS, Page, Planted, Row, Shop};

/// What all tasks of a process share.
pub(crate) struct FullWorkload {
    pub(crate) cache: Cache,
    /// Whether this process keeps local entries.
    pub(crate) has_local_entries: bool,
    /// Rows that somebody changes behind the cache's back.
    pub(crate) planted: Option<Planted>,
    /// Whether its hits are audited.
    pub(crate) is_audited: bool,
    pub(crate) common: Common,
}

impl Deref for FullWorkload {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

impl FullWorkload {
    pub(crate) fn shop<K: Kind>(&self, write: WriteId, mishap: Mishap) -> Shop<K> {
        Shop {
            cache: self.cache.clone(),
            context: CallContext::new(&self.pool, &self.recorder, write, mishap),
            strict: false,
            kind: PhantomData,
        }
    }
}

/// The lower, the more often.
pub(crate) fn id(rng: &mut Rng) -> i64 {
    1 + (rng.i64(0..IDS) * rng.i64(1..=IDS)) / IDS
}

pub(crate) fn load_mishap(common: &Common, rng: &mut Rng) -> Mishap {
    if !common.mishaps {
        return Mishap::None;
    }
    let pause = |ms: std::ops::Range<u64>, rng: &mut Rng| Duration::from_millis(rng.u64(ms));
    match rng.u32(..10_000) {
        0..800 => Mishap::Pause(pause(1..40, rng)),
        800..850 => Mishap::Pause(pause(100..1_200, rng)),
        850..852 => Mishap::Block(LEASE + pause(50..200, rng)),
        852..900 => Mishap::Panic,
        900..940 => Mishap::PanicAfter,
        940..1_040 => Mishap::Fail,
        _ => Mishap::None,
    }
}

fn is_copy(outcome: &Outcome) -> bool {
    outcome.store == "local" && matches!(outcome.status, Status::Hit { .. })
}

/// The first of these reasons that one of the calls ran without the cache for.
const REASONS: [(BypassReason, Answer); 8] = [
    (BypassReason::Unavailable, Answer::Unavailable),
    (BypassReason::Fenced, Answer::Fenced),
    (BypassReason::Unconfirmed, Answer::Unconfirmed),
    (BypassReason::Pending, Answer::Pending),
    (BypassReason::WriteInProgress, Answer::Intended),
    (BypassReason::LoadFailed, Answer::NotJoined),
    (BypassReason::WaitLimit, Answer::NotJoined),
    (BypassReason::Requested, Answer::Asked),
];

fn answer(outcomes: &Outcomes) -> Answer {
    let all = |is: fn(&Status) -> bool| outcomes.iter().all(|outcome| is(&outcome.status));
    let any = |is: fn(&Status) -> bool| outcomes.iter().any(|outcome| is(&outcome.status));
    let is_for = |reason| {
        let mut statuses = outcomes.iter().map(|outcome| outcome.status);
        statuses.any(|status| status == Status::Bypass(reason))
    };
    let known = REASONS.iter().find(|(reason, _)| is_for(*reason));
    let known = known.map(|(_, answer)| *answer);
    let is_other = any(|status| matches!(status, Status::Bypass(_)));
    let bypassed = known.or(is_other.then_some(Answer::Bypass));
    if all(|status| matches!(status, Status::Hit { .. })) {
        if outcomes.iter().all(is_copy) {
            Answer::Local
        } else {
            Answer::Hit
        }
    } else if let Some(reason) = bypassed {
        reason
    } else if any(|status| matches!(status, Status::Miss { joined: true, .. })) {
        Answer::Joined
    } else {
        Answer::Miss
    }
}

/// One read in the making.
struct Looking<'a> {
    workload: &'a FullWorkload,
    read: Read,
}

impl<'a> Looking<'a> {
    fn begin<K: Kind>(
        workload: &'a FullWorkload,
        shop: &Shop<K>,
        read: ReadKind,
        argument: i64,
    ) -> Self {
        let read = Read {
            process: workload.process,
            start: now(),
            end: 0,
            read,
            kind: K::NUMBER,
            argument,
            answer: Answer::Hit,
            local: false,
            strict: shop.strict,
            rows: Vec::new(),
            wrong: None,
        };
        Self { workload, read }
    }

    /// What the cache did for it.
    fn outcomes(mut self, outcomes: &Outcomes) -> Self {
        self.read.answer = answer(outcomes);
        self.read.local = outcomes.iter().any(is_copy);
        self
    }

    fn end(mut self, end: Time, rows: Vec<(u32, u64)>) {
        self.read.end = end;
        self.read.rows = rows;
        self.workload.note(self.read);
    }

    fn complain_unless(&mut self, is_right: bool, shown: impl FnOnce() -> String) {
        if !is_right {
            self.read.wrong = Some(shown());
        }
    }

    fn page<K: Kind>(
        mut self,
        end: Time,
        page: Page,
        call: &str,
        wanted: impl Iterator<Item = i64>,
    ) {
        let ids = page.rows.iter().map(|(id, _)| i64::from(*id));
        let is_right = page.of == Shop::<K>::of(call, self.read.argument) && ids.eq(wanted);
        self.complain_unless(is_right, || format!("{page:?}"));
        self.end(end, page.rows);
    }

    fn row<K: Kind>(mut self, end: Time, row: Option<Row>) {
        let id = self.read.argument;
        let is_right = row
            .as_ref()
            .is_none_or(|row| i64::from(row.id) == id && row.of == Shop::<K>::of("row", id));
        self.complain_unless(is_right, || format!("{row:?}"));
        let version = row.map_or(0, |row| row.version);
        self.end(end, vec![(u32::try_from(id).unwrap_or_default(), version)]);
    }
}

/// One read of one of the forms; a read that fails shows nothing.
pub(crate) async fn read<K: Kind>(workload: &FullWorkload, rng: &mut Rng) {
    let mut shop = workload.shop::<K>(0, load_mishap(workload, rng));
    if workload.has_local_entries && rng.u32(..100) < 10 {
        shop.strict = true;
        let asked = read_one(workload, &shop, rng);
        workload.cache.strict(asked).await;
    } else {
        read_one(workload, &shop, rng).await;
    }
}

async fn read_one<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, rng: &mut Rng) {
    match rng.u32(..100) {
        0..30 => drop(get(workload, shop, id(rng)).await),
        30..34 => nested(workload, shop, rng.i64(1..IDS)).await,
        34..52 => list(workload, shop, rng.i64(0..9)).await,
        52..63 => filter(workload, shop, rng.i64(0..TEAMS)).await,
        63..73 => batch(workload, shop, rng).await,
        73..80 => board(workload, shop, rng.i64(0..TEAMS)).await,
        80..85 => total(workload, shop, rng.i64(0..2)).await,
        85..90 => lookup(workload, shop, id(rng)).await,
        90..94 => by_hand(workload, shop, rng.i64(1..IDS)).await,
        94..97 => peek(workload, shop, id(rng)).await,
        97 => vouch(shop, id(rng)).await,
        _ => typed(workload, shop, rng.i64(1..=3)).await,
    }
}

/// A read, and now and then a write, of the rows that somebody else writes as well. Nobody judges
/// them but the auditor.
pub(crate) async fn planted(planted: &Planted, rng: &mut Rng) {
    let id = rng.i64(1..=PLANTED_ROWS);
    // What fails shows nothing.
    match rng.u32(..4_000) {
        // Seldom: it repairs what somebody else has done.
        0 => drop(planted.write(id).await),
        1..1_000 => drop(planted.get_many(&[id, 1 + id % PLANTED_ROWS]).await),
        _ => drop(planted.get(id).await),
    }
}

/// Everything of a kind, once.
pub(crate) async fn sweep<K: Kind>(workload: &FullWorkload) {
    let shop = workload.shop::<K>(0, Mishap::None);
    for id in 1..=IDS {
        get(workload, &shop, id).await;
        peek(workload, &shop, id).await;
    }
    for skip in 0..9 {
        list(workload, &shop, skip).await;
    }
    for team in 0..TEAMS {
        filter(workload, &shop, team).await;
        board(workload, &shop, team).await;
    }
    for half in 0..2 {
        total(workload, &shop, half).await;
    }
    for first in 1..IDS {
        by_hand(workload, &shop, first).await;
        nested(workload, &shop, first).await;
    }
}

pub(crate) async fn get<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, id: i64) -> Outcomes {
    let looking = Looking::begin(workload, shop, ReadKind::Get, id);
    let (row, outcomes) = observe(shop.get(id)).await;
    if let Ok(row) = row {
        let end = now();
        looking.outcomes(&outcomes).row::<K>(end, row);
    }
    outcomes
}

async fn list<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, skip: i64) {
    let looking = Looking::begin(workload, shop, ReadKind::List, skip);
    let (page, outcomes) = observe(shop.list(skip, 4)).await;
    if let Ok(page) = page {
        let end = now();
        looking.outcomes(&outcomes).page::<K>(
            end,
            page,
            "list",
            skip + 1..=skip + 4.min(IDS - skip),
        );
    }
}

async fn filter<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, team: i64) {
    let looking = Looking::begin(workload, shop, ReadKind::Filter, team);
    let filter = crate::shop::Filter { team, from: 2 };
    let (page, outcomes) = observe(shop.filter(&filter)).await;
    if let Ok(page) = page {
        let wanted = (2..=IDS).filter(|id| id % TEAMS == team);
        let end = now();
        looking
            .outcomes(&outcomes)
            .page::<K>(end, page, "filter", wanted);
    }
}

async fn board<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, team: i64) {
    let looking = Looking::begin(workload, shop, ReadKind::Tagged, team);
    let (page, outcomes) = observe(shop.board(team)).await;
    if let Ok(page) = page {
        let wanted = (1..=IDS).filter(|id| id % TEAMS == team);
        let end = now();
        looking
            .outcomes(&outcomes)
            .page::<K>(end, page, "board", wanted);
    }
}

async fn total<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, half: i64) {
    let looking = Looking::begin(workload, shop, ReadKind::Dependent, half);
    let (page, outcomes) = observe(shop.total(half)).await;
    if let Ok(page) = page {
        let first = half * IDS / 2;
        let end = now();
        looking
            .outcomes(&outcomes)
            .page::<K>(end, page, "total", first + 1..=first + IDS / 2);
    }
}

async fn nested<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, first: i64) {
    let looking = Looking::begin(workload, shop, ReadKind::Nested, first);
    let (page, outcomes) = observe(shop.nested(first)).await;
    if let Ok(page) = page {
        let end = now();
        let looking = looking.outcomes(&outcomes);
        looking.page::<K>(end, page, "nested", first..=first + 1);
    }
}

async fn batch<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, rng: &mut Rng) {
    let mut ids: Vec<i64> = (0..rng.usize(1..6)).map(|_| id(rng)).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut looking = Looking::begin(workload, shop, ReadKind::Batch, ids[0]);
    let (rows, outcomes) = observe(shop.get_many(&ids)).await;
    let end = now();
    let Ok(rows) = rows else { return };
    for (id, row) in &rows {
        let is_right =
            ids.contains(id) && i64::from(row.id) == *id && row.of == Shop::<K>::of("row", *id);
        looking.complain_unless(is_right, || format!("{id} of {ids:?}: {row:?}"));
    }
    let version = |id: &i64| rows.get(id).map_or(0, |row| row.version);
    let shown = ids
        .iter()
        .map(|id| (u32::try_from(*id).unwrap_or_default(), version(id)));
    let shown = shown.collect();
    let mut looking = looking.outcomes(&outcomes);
    // One outcome stands for all ids; some may have been answered here all the same.
    looking.read.local |= workload.has_local_entries && !shop.strict;
    looking.end(end, shown);
}

async fn by_hand<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, first: i64) {
    let key = Key::args(K::RESOURCE, "by-hand", &(first,)).expect("a key");
    let looking = Looking::begin(workload, shop, ReadKind::ByHand, first);
    let load = async || shop.by_hand(first).await;
    let (page, outcomes) = observe(shop.cache.get_or_load(&key, 10, load)).await;
    if let Ok(page) = page {
        let end = now();
        looking
            .outcomes(&outcomes)
            .page::<K>(end, page, "by hand", first..=first + 1);
    }
}

async fn lookup<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, id: i64) {
    let key = Key::entity(K::RESOURCE, id).expect("a key");
    let mut looking = Looking::begin(workload, shop, ReadKind::Lookup, id);
    match shop.cache.lookup::<Row>(&key).await {
        Ok(Lookup::Hit(row)) => looking.row::<K>(now(), Some(row)),
        Ok(Lookup::Miss(lease)) => {
            let Ok(row) = shop.load(id).await else { return };
            if let Some(row) = &row {
                lease.fill(row).await;
            }
            looking.read.answer = Answer::Miss;
            looking.row::<K>(now(), row);
        }
        Err(_) => {}
    }
}

async fn peek<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, id: i64) {
    let key = Key::entity(K::RESOURCE, id).expect("a key");
    let looking = Looking::begin(workload, shop, ReadKind::Peek, id);
    if let Some(row) = shop.cache.get::<Row>(&key).await {
        looking.row::<K>(now(), Some(row));
    }
}

/// `set`, where its contract holds: the row is locked, so that nobody commits a newer one before it
/// is stored.
async fn vouch<K: Kind>(shop: &Shop<K>, id: i64) {
    let Ok(mut tx) = shop.begin().await else {
        return;
    };
    let version: Result<i64, _> =
        sqlx::query_scalar("SELECT version FROM rows WHERE kind = $1 AND id = $2 FOR UPDATE")
            .bind(i16::from(K::NUMBER))
            .bind(id)
            .fetch_one(&mut *tx)
            .await;
    let (Ok(version), Ok(id)) = (version.map(i64::unsigned_abs), u32::try_from(id)) else {
        return;
    };
    if let Some(row) = Shop::<K>::row((id, version)) {
        let key = Key::entity(K::RESOURCE, i64::from(id)).expect("a key");
        // A write that concerns the row may be under way; then nothing is stored.
        let _ = shop.cache.set(&key, &row, 10).await;
    }
    let _ = tx.rollback().await;
}

/// Two programs that keep different types under one key.
async fn typed<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, id: i64) {
    let mut looking = Looking::begin(workload, shop, ReadKind::Typed, id);
    let (shown, outcomes) = if workload.slot.is_multiple_of(2) {
        let (value, outcomes) = observe(shop.one_type(id)).await;
        (value.map(|value| (value.of, value.version)), outcomes)
    } else {
        let (value, outcomes) = observe(shop.other_type(id)).await;
        let doubled = value
            .as_ref()
            .map_or(true, |value| value.twice == 2 * value.version);
        looking.complain_unless(doubled, || format!("{value:?}"));
        (value.map(|value| (value.of, value.version)), outcomes)
    };
    let end = now();
    if let Ok((of, version)) = shown {
        looking = looking.outcomes(&outcomes);
        looking.complain_unless(of == Shop::<K>::of("typed", id), || of.clone());
        looking.end(end, vec![(u32::try_from(id).unwrap_or_default(), version)]);
    }
}
