//! What a task does: writes, each noted from its beginning to where its invalidation is known to be
//! out.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use cache_runtime::{Acknowledgement, BypassReason, Key, Outcomes, Status, observe};
use fastrand::Rng;

use crate::app::{Common, IN_DOUBT_WINDOW};
use crate::clock::now;
use crate::context::{IDS, Mishap, TEAMS, Trouble};
use crate::history::{Begin, Event, Form, MILLISECOND, Outcome, Step, Time};
use crate::reads::{FullWorkload, get, id};
use crate::shop::{Kind, Shop, team_of};

/// Steps of a wait that a process which was stopped meanwhile does not skip.
pub(crate) const STEP: Duration = Duration::from_millis(25);
/// What falls due is delivered within this time, unless the store is away.
pub(crate) const GRACE: Duration = Duration::from_millis(1_250);

/// All processes divide time alike. What forgets everything comes in the first part of a window,
/// quiet rows are written in the second, and in the rest nobody touches those: whether an entry of
/// theirs is stale shows for long enough.
const WINDOW: u64 = 10_000 * MILLISECOND;
const UNQUIET: Time = 2_000 * MILLISECOND;
const QUIET: Time = 3_000 * MILLISECOND;

/// A quiet row of this process whose time it is to be written, once in each window.
pub(crate) fn quiet_turn(common: &Common) -> Option<i64> {
    let (window, into) = (now() / WINDOW, now() % WINDOW);
    if !(UNQUIET..QUIET).contains(&into) {
        return None;
    }
    let mut written = common.quiet.lock().unwrap_or_else(PoisonError::into_inner);
    if written.0 != window {
        *written = (window, 0);
    }
    let [apps, slot] = [common.apps, common.slot].map(|it| i64::try_from(it).unwrap_or(1));
    let id = 1 + slot + apps * written.1;
    written.1 += 1;
    (id <= IDS).then_some(id)
}

fn form(rng: &mut Rng) -> Form {
    match rng.u32(..1_000) {
        0..330 => Form::ById,
        330..370 => Form::Whole,
        370..570 => Form::CrashSafe,
        570..590 => Form::CrashSafeWhole,
        590..650 => Form::Required,
        650..750 => Form::Transaction,
        750..810 => Form::AfterCommit,
        810..850 => Form::TransactionCrashSafe,
        850..920 => Form::Invalidate,
        920..940 => Form::InvalidateAll,
        940..965 if now() % WINDOW < UNQUIET => Form::ClearAll,
        940..965 => Form::Pattern,
        _ => Form::Delete,
    }
}

/// Long bypasses follow from what goes wrong with a write, so it goes wrong only now and then.
pub(crate) fn mishap(common: &Common, kind: u8, rng: &mut Rng) -> Mishap {
    let pause = |ms: std::ops::Range<u64>, rng: &mut Rng| Duration::from_millis(rng.u64(ms));
    if !common.mishaps {
        return Mishap::None;
    }
    if common.doomed.load(Ordering::SeqCst) {
        return Mishap::Pause(pause(300..500, rng));
    }
    if rng.u32(..100) < 15 {
        return Mishap::Pause(pause(1..60, rng));
    }
    if common.weather(kind, 1, Duration::from_secs(2)) >= 15 {
        return Mishap::None;
    }
    match rng.u32(..100) {
        0..2 => Mishap::Panic,
        2..4 => Mishap::PanicAfter,
        4..6 => Mishap::Fail,
        6..10 => Mishap::Lose,
        10..13 => Mishap::CommitLater(pause(1..700, rng)),
        _ => Mishap::None,
    }
}

/// When the caller hangs up, if it does.
pub(crate) fn hang_up(common: &Common, kind: u8, rng: &mut Rng) -> Option<Duration> {
    let is_stormy = common.mishaps && common.weather(kind, 1, Duration::from_secs(2)) < 15;
    (is_stormy && rng.u32(..100) < 10).then(|| Duration::from_micros(rng.u64(100..20_000)))
}

/// How many of a thousand operations write.
pub(crate) fn share(common: &Common, kind: u8) -> u32 {
    match common.weather(kind, 2, Duration::from_secs(1)) {
        0..30 => 3,
        30..60 => 12,
        60..90 => 40,
        _ => 120,
    }
}

/// So many writes of a process that is about to be killed stand between their commit and their
/// invalidation.
const LAST_WRITES: u32 = 8;

/// Whether a process that is about to be killed writes once more what a crash must not undo.
/// Otherwise hardly any such write would be met: most operations read.
pub(crate) fn is_last(common: &Common) -> bool {
    common.mishaps
        && common.doomed.load(Ordering::SeqCst)
        && common.unsettled.load(Ordering::SeqCst) < LAST_WRITES
}

/// Such a write.
pub(crate) async fn write_last<K: Kind>(workload: &Arc<FullWorkload>, rng: &mut Rng) {
    let form = match rng.u32(..10) {
        0 => Form::CrashSafeWhole,
        _ => Form::CrashSafe,
    };
    let mishap = mishap(workload, K::NUMBER, rng);
    write_as::<K>(workload, form, mishap, None, id(rng)).await;
}

/// What came of a write as far as its caller knows.
enum Ended {
    Returned(Result<(), Trouble>),
    /// A manual invalidation that says where it is.
    Told {
        delivered: bool,
    },
    Dropped,
}

pub(crate) async fn write<K: Kind>(workload: &Arc<FullWorkload>, rng: &mut Rng) {
    let form = form(rng);
    let (mishap, hang_up) = if form.is_manual() {
        // Nobody sees to it but the caller, who therefore goes through with it.
        (Mishap::None, None)
    } else {
        (
            mishap(workload, K::NUMBER, rng),
            hang_up(workload, K::NUMBER, rng),
        )
    };
    write_as::<K>(workload, form, mishap, hang_up, id(rng)).await;
}

/// What goes wrong with a write of a quiet row, and when its caller hangs up.
pub(crate) fn quiet_mishap(common: &Common, kind: u8, rng: &mut Rng) -> (Mishap, Option<Duration>) {
    let pause = Duration::from_millis(rng.u64(5..700));
    match rng.u32(..100) {
        _ if !common.mishaps => (Mishap::None, None),
        _ if common.doomed.load(Ordering::SeqCst) => (mishap(common, kind, rng), None),
        0..40 => (Mishap::CommitLater(pause), None),
        40..50 => (
            Mishap::CommitLater(pause),
            Some(Duration::from_micros(rng.u64(100..5_000))),
        ),
        50..60 => (Mishap::Lose, None),
        60..65 => (Mishap::PanicAfter, None),
        65..85 => (
            Mishap::None,
            Some(Duration::from_micros(rng.u64(100..20_000))),
        ),
        _ => (Mishap::None, None),
    }
}

/// Of a row that nobody writes again soon, so that it shows what an outcome that is not known
/// leaves behind.
pub(crate) async fn write_quietly<K: Kind>(workload: &Arc<FullWorkload>, rng: &mut Rng, id: i64) {
    let (mishap, hang_up) = quiet_mishap(workload, K::NUMBER, rng);
    write_as::<K>(workload, Form::ById, mishap, hang_up, id).await;
}

async fn write_as<K: Kind>(
    workload: &Arc<FullWorkload>,
    form: Form,
    mishap: Mishap,
    hang_up: Option<Duration>,
    id: i64,
) {
    let write = workload.next_write();
    let shop = workload.shop::<K>(write, mishap);
    let process = workload.process;
    let at = now();
    workload.recorder.note(&Event::Begin(Begin {
        write,
        process,
        at,
        form,
    }));
    workload.unsettled.fetch_add(1, Ordering::SeqCst);
    let running = {
        let shop = shop.clone();
        tokio::spawn(async move {
            let written = observe(run(&shop, form, id));
            match hang_up {
                None => written.await,
                Some(limit) => {
                    let written = tokio::time::timeout(limit, written).await;
                    written.unwrap_or((Ended::Dropped, Outcomes::default()))
                }
            }
        })
    };
    // In a cluster the invalidation of the row may be in force, and that of a tag may not.
    let mut told = None;
    let ended = running.await.map(|(ended, outcomes)| {
        told = outcomes.invalidation();
        ended
    });
    let had_committed = shop.committed.load(Ordering::SeqCst);
    match ended {
        Ok(Ended::Returned(Ok(()) | Err(Trouble::Lost | Trouble::Planned | Trouble::Refused))) => {
            shop.mark(Step::Done(Outcome::Returned));
            let is_pending = match told {
                Some(told) => told != Acknowledgement::Delivered,
                None => is_pending(workload, &shop, id).await,
            };
            if is_pending {
                shop.mark(Step::Pending);
                settle(workload, shop, Duration::ZERO, false);
            } else {
                shop.mark(Step::InForce);
                settled(workload);
            }
        }
        Ok(Ended::Told { delivered }) => {
            shop.mark(Step::Done(Outcome::Returned));
            if delivered {
                shop.mark(Step::Delivered);
                settled(workload);
            } else {
                shop.mark(Step::Pending);
                settle(workload, shop, Duration::ZERO, false);
            }
        }
        Ok(Ended::Returned(Err(Trouble::Database | Trouble::Later))) if form.is_manual() => {
            shop.mark(Step::Done(Outcome::Unknown));
            settled(workload);
        }
        Ok(Ended::Returned(Err(Trouble::Database | Trouble::Later))) => {
            shop.mark(Step::Done(Outcome::Unknown));
            settle(workload, shop, IN_DOUBT_WINDOW + GRACE, false);
        }
        // Its caller hung up on the invalidation. The body had returned an error by then, and what
        // is promised is what is promised of an error: an invalidation at once, and one at the
        // deadline.
        Ok(Ended::Dropped) if shop.is_doubtful.load(Ordering::SeqCst) => {
            shop.mark(Step::Done(Outcome::Unknown));
            settle(workload, shop, IN_DOUBT_WINDOW + GRACE, false);
        }
        Ok(Ended::Dropped) => {
            shop.mark(Step::Done(Outcome::Dropped));
            let wait = if had_committed {
                Duration::ZERO
            } else {
                IN_DOUBT_WINDOW + GRACE
            };
            settle(workload, shop, wait, true);
        }
        Err(_) => {
            shop.mark(Step::Done(Outcome::Panicked));
            let wait = if had_committed {
                Duration::ZERO
            } else {
                IN_DOUBT_WINDOW + GRACE
            };
            settle(workload, shop, wait, true);
        }
    }
}

fn settled(workload: &FullWorkload) {
    workload.unsettled.fetch_sub(1, Ordering::SeqCst);
}

/// Reads what was just written, as callers do; says whether this process holds an invalidation of
/// it back.
async fn is_pending<K: Kind>(workload: &FullWorkload, shop: &Shop<K>, id: i64) -> bool {
    let outcomes = get(workload, &shop.calm(), id).await;
    let pending = Status::Bypass(BypassReason::Pending);
    outcomes.iter().any(|outcome| outcome.status == pending)
}

/// Notes, in the background, when nothing waits in this process any more that was there after
/// `wait`.
fn settle<K: Kind>(
    workload: &Arc<FullWorkload>,
    shop: Shop<K>,
    wait: Duration,
    is_announced: bool,
) {
    let workload = Arc::clone(workload);
    tokio::spawn(async move {
        if is_announced {
            delivered(&workload).await;
            shop.mark(Step::Held);
        }
        let mut waited = Duration::ZERO;
        while waited < wait {
            tokio::time::sleep(STEP).await;
            waited += STEP;
        }
        delivered(&workload).await;
        shop.mark(Step::InForce);
        settled(&workload);
    });
}

/// Returns when the store has everything that this process had to deliver.
async fn delivered(workload: &FullWorkload) {
    while workload.cache.get_stats().await.counters.pending > 0 {
        tokio::time::sleep(STEP).await;
    }
}

async fn run<K: Kind>(shop: &Shop<K>, form: Form, id: i64) -> Ended {
    Ended::Returned(match form {
        Form::ById => shop.write_by_id(id).await,
        Form::Whole => shop.write_whole(id).await,
        Form::CrashSafe => shop.write_crash_safe(id).await,
        Form::CrashSafeWhole => shop.write_whole_crash_safe(id).await,
        Form::Required => shop.write_required(id).await,
        Form::Transaction => transaction(shop, id, false).await,
        Form::TransactionCrashSafe => transaction(shop, id, true).await,
        Form::AfterCommit => after_commit(shop, id).await,
        _ => match shop.commit(id).await {
            Ok(()) => return by_hand(shop, form, id).await,
            Err(trouble) => Err(trouble),
        },
    })
}

/// Two rows, in the order of their ids, so that nobody waits for each other.
fn pair(id: i64) -> [i64; 2] {
    let other = 1 + id % TEAMS;
    [id.min(other), id.max(other)]
}

async fn transaction<K: Kind>(shop: &Shop<K>, id: i64, crash_safe: bool) -> Result<(), Trouble> {
    cache_runtime::sqlx::transaction(
        &shop.cache,
        &shop.pool,
        async |tx: &mut sqlx::PgConnection| {
            for id in pair(id) {
                if crash_safe {
                    shop.touch_crash_safe(tx, id).await?;
                } else {
                    shop.touch(tx, id).await?;
                }
            }
            match shop.mishap {
                Mishap::Pause(time) => tokio::time::sleep(time / 8).await,
                Mishap::Panic => panic!("{}", crate::context::PLANNED),
                Mishap::Fail => return Err(Trouble::Planned),
                _ => {}
            }
            Ok(())
        },
    )
    .await
}

async fn after_commit<K: Kind>(shop: &Shop<K>, id: i64) -> Result<(), Trouble> {
    let block = async {
        let mut tx = shop.begin().await?;
        shop.touch(&mut tx, id).await?;
        tx.commit().await?;
        shop.mark(Step::Committed);
        shop.committed.store(true, Ordering::SeqCst);
        match shop.mishap {
            Mishap::Pause(time) => tokio::time::sleep(time).await,
            Mishap::PanicAfter => panic!("{}", crate::context::PLANNED),
            Mishap::Lose => return Err(Trouble::Lost),
            _ => {}
        }
        Ok(())
    };
    shop.cache.after_commit(block).await
}

/// The manual operations, after a commit that no annotation knows of.
async fn by_hand<K: Kind>(shop: &Shop<K>, form: Form, id: i64) -> Ended {
    let cache = &shop.cache;
    let is_delivered = |told: Acknowledgement| told == Acknowledgement::Delivered;
    let tag = format!("{}:{}", K::RESOURCE, team_of(id));
    let delivered = match form {
        Form::Invalidate => {
            let row = cache.invalidate(K::RESOURCE, &id).await;
            let board = cache.invalidate_tag(&tag).await;
            is_delivered(row) && is_delivered(board)
        }
        Form::ClearAll => cache.clear_all().await.is_ok(),
        Form::Delete => {
            let key = Key::entity(K::RESOURCE, id).expect("a key");
            cache.delete(&key).await.is_ok()
        }
        Form::Pattern if remove(shop).await => true,
        _ => {
            let all = cache.invalidate_all(K::RESOURCE).await;
            let board = cache.invalidate_tag(&tag).await;
            is_delivered(all) && is_delivered(board)
        }
    };
    Ended::Told { delivered }
}

async fn remove<K: Kind>(shop: &Shop<K>) -> bool {
    for pattern in [
        &format!("{}:*", K::RESOURCE),
        "boards:*",
        "pairs:*",
        "totals:*",
    ] {
        if shop.cache.invalidate_pattern(pattern).await.is_err() {
            return false;
        }
    }
    true
}
