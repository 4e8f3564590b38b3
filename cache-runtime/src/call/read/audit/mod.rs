//! The auditor: for a share of the hits the body runs as well, and the results are compared.
//!
//! A difference alone proves nothing: a write may have come in between, and some functions never
//! return the same value twice. So an entry whose value differed becomes a *suspect*, and its next
//! hits are audited too. It is stale only under two conditions: a second run returned the same
//! other value, and the entry is still in the store some time after the first difference, not
//! invalidated. The entry in the store counts: a hit may come from an earlier entry, which was
//! replaced while the body ran. The caller gets the result of the body.

pub(crate) mod audit_report;
pub(crate) mod audited_hit;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use self::audited_hit::Audited;
use super::call::{Call, load_result, value_of};
use crate::auditor::{Cleared, Identity, Suspicion};
use crate::base::clock::{self, Instant};
use crate::base::error::Error;
use crate::call::returns::{Gathered, Loaded, Returns};
use crate::coalesce::single_flight::LoadResult;
use crate::engine::Handle;
use crate::invalidation::InvalidationRequest;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::Compare;
use crate::protocol::codec_id::CodecId;
use crate::protocol::entry::{Content, Header, split_list};
use crate::protocol::packable::{Packable, Packed};
use crate::store::{EntryRef, Found, Payload};
use crate::telemetry::audit::{AuditAction, AuditFinding, Verdict};
use crate::telemetry::events::EventKind;
use crate::telemetry::function::FunctionCounters;

/// A suspect that nobody reads is looked up again this often, and so many times.
const WATCH_PAUSE: Duration = Duration::from_secs(30);
const WATCHES: usize = 20;
/// How long a lookup in the store may take on a busy machine.
const SOON: Duration = Duration::from_secs(1);

/// How a hit compares with what the body has returned.
#[derive(Debug)]
pub(super) enum Compared {
    /// They are equal. `is_random` says whether the hit was drawn at random.
    Same { is_random: bool },
    /// The body's result can't be kept to be compared later.
    Unknown,
    /// The body has failed: nothing can be said, and the caller gets the hit.
    Failed(LoadResult),
    /// They differ.
    Differs(Difference),
}

/// A hit, and the result of the body.
#[derive(Debug)]
pub(super) struct Difference {
    /// The result of the body.
    fresh: LoadResult,
    /// Whether the hit was drawn at random.
    is_random: bool,
    /// Whether it is what a body had returned for this entry before; `None` if none had.
    is_as_before: Option<bool>,
    /// Whether an entry of the store has this value.
    has: EntryHas,
}

/// Compares a hit with the result of the body.
pub(super) fn compare<R: Returns<S>, S>(hit: Audited, call: &Call, returned: &R) -> Compared {
    let fresh = match returned.loaded() {
        Loaded::Failed => return Compared::Failed(hit.cached),
        Loaded::Absent => None,
        Loaded::Value(value) => Some(value),
    };
    let fresh = fresh.map(Packed::<_, R::Compare>::unshared);
    let fresh = fresh.as_ref().map(|fresh| fresh as &dyn Packable);
    let has = entry_has::<R::Value, R::Compare>;
    compared(&hit, call, fresh, has, &|| load_result(returned))
}

/// Compares the hit of one id with the result of a batch's body.
pub(super) fn compare_one<R: Gathered<S>, S>(
    hit: Audited,
    call: &Call,
    returned: &R,
    id: &R::Id,
) -> Compared {
    if returned.has_failed() {
        return Compared::Failed(hit.cached);
    }
    let fresh = returned.get(id);
    if fresh.is_some_and(Cacheable::is_error) {
        return Compared::Failed(hit.cached);
    }
    let share = || match fresh {
        Some(_) => returned.share(id).map(|value| LoadResult::Value(value)),
        None => Some(LoadResult::Absence),
    };
    let packed = fresh.map(Packed::<_, R::Compare>::unshared);
    let packed = packed.as_ref().map(|fresh| fresh as &dyn Packable);
    let has = entry_has::<R::Value, R::Compare>;
    compared(&hit, call, packed, has, &share)
}

/// A type that panics can't be compared: its function has returned, and its caller is to get that.
fn compared(
    hit: &Audited,
    call: &Call,
    fresh: Option<&dyn Packable>,
    has: EntryHas,
    share: &dyn Fn() -> Option<LoadResult>,
) -> Compared {
    if crate::base::mutation::is_active("panics-of-types-spread") {
        return compared_unguarded(hit, call, fresh, has, share);
    }
    let compare = || compared_unguarded(hit, call, fresh, has, share);
    catch_unwind(AssertUnwindSafe(compare)).unwrap_or(Compared::Unknown)
}

fn compared_unguarded(
    hit: &Audited,
    call: &Call,
    fresh: Option<&dyn Packable>,
    has: EntryHas,
    share: &dyn Fn() -> Option<LoadResult>,
) -> Compared {
    let is_random = hit.draw.is_random;
    let same = |one: &LoadResult| is_same(one, fresh, call.codec);
    if same(&hit.cached) {
        return Compared::Same { is_random };
    }
    let suspects = &call.cache.auditor;
    let is_as_before = suspects.value_before(&call.own.key).map(|it| same(&it));
    match share() {
        Some(fresh) => Compared::Differs(Difference {
            fresh,
            is_random,
            is_as_before,
            has,
        }),
        None => Compared::Unknown,
    }
}

/// `None` is an absence.
fn is_same(one: &LoadResult, other: Option<&dyn Packable>, codec: CodecId) -> bool {
    match (one, other) {
        (LoadResult::Absence, None) => true,
        (LoadResult::Value(one), Some(other)) => other
            .of_same_type(&**one)
            .is_some_and(|one| equal(&*one, other, codec)),
        _ => false,
    }
}

/// Whether an entry of the store has this value.
type EntryHas = fn(&Header, &Payload, &LoadResult, CodecId) -> bool;

/// The same for values of one type.
fn entry_has<V: Cacheable, C: Compare<V>>(
    header: &Header,
    payload: &Payload,
    fresh: &LoadResult,
    codec: CodecId,
) -> bool {
    let payload = match payload {
        // A list of dependencies may precede the value.
        Payload::Encoded(bytes) if header.content.lists() => match split_list(bytes) {
            Some((_, rest)) => &Payload::Encoded(rest),
            None => return false,
        },
        payload => payload,
    };
    match header.content.plain() {
        Content::Absence => is_same(fresh, None, codec),
        _ => value_of::<V>(header.codec, payload).is_some_and(|stored| {
            let stored = Packed::<V, C>::unshared(&stored);
            let compare = || is_same(fresh, Some(&stored), codec);
            // A type that panics says nothing against the entry.
            catch_unwind(AssertUnwindSafe(compare)).unwrap_or(true)
        }),
    }
}

fn equal(one: &dyn Packable, other: &dyn Packable, codec: CodecId) -> bool {
    // A value that is not equal to itself, such as NaN, can't be compared with `==`.
    match one.equal(other) {
        Some(true) => true,
        _ => one.contents().digest(codec) == other.contents().digest(codec),
    }
}

impl Call {
    /// Counts the result of an audit, and looks up the entry again if there is a difference.
    pub(super) async fn conclude(&self, compared: &Compared) {
        let Some(function) = self.resource.function() else {
            return;
        };
        let stats = &function.audit;
        match compared {
            Compared::Failed(_) | Compared::Unknown => {}
            Compared::Same { is_random } => {
                stats.checked.add(u64::from(*is_random));
                // The entry that differed has been replaced.
                if let Some(cleared) = self.cache.auditor.clear(&self.own.key) {
                    self.suspect(function).is_replaced(cleared);
                }
            }
            Compared::Differs(difference) => {
                stats.checked.add(u64::from(difference.is_random));
                self.compare_again(function, difference).await;
            }
        }
    }

    fn suspect(&self, function: &Arc<FunctionCounters>) -> SuspectEntry {
        SuspectEntry {
            cache: self.cache.clone(),
            entry_ref: self.entry_ref().clone(),
            function: Arc::clone(function),
            resource: self.resource.name.clone(),
        }
    }

    async fn compare_again(&self, function: &Arc<FunctionCounters>, difference: &Difference) {
        let suspect = self.suspect(function);
        let Ok(standing) = suspect.standing().await else {
            // The reason for the difference is unknown.
            return function.audit.doubtful.add(u64::from(difference.is_random));
        };
        // If the entry of the hit has been replaced, the difference says nothing about the current
        // one.
        let is_of_another = |it: &StoredEntry| {
            (difference.has)(&it.header, &it.payload, &difference.fresh, self.codec)
                && !crate::base::mutation::is_active("audit-blames-the-next-entry")
        };
        let Some(StoredEntry { identity, age, .. }) = standing.filter(|it| !is_of_another(it))
        else {
            // A write came in between, or the store is away.
            let cleared = self.cache.auditor.clear(&self.own.key);
            if let Some(cleared) = cleared {
                suspect.is_replaced(cleared);
            }
            return suspect.report(Verdict::Changed, None);
        };
        let auditor = &self.cache.auditor;
        let stats = &function.audit;
        let fresh = difference.fresh.clone();
        let (is_as_before, is_random) = (difference.is_as_before, difference.is_random);
        stats.doubtful.add(u64::from(is_random));
        if !auditor.is_suspect(&self.own.key, identity)
            && let Some(cleared) = auditor.clear(&self.own.key)
        {
            suspect.is_replaced(cleared);
        }
        match auditor.suspect(&self.own.key, identity, fresh, is_as_before, is_random) {
            _ if crate::base::mutation::is_active("one-audit-is-enough") => suspect.confirm(age),
            Suspicion::First => {
                suspect.report(Verdict::Suspected, Some(age));
                let background = &self.cache.background;
                background.spawn(suspect.watch(identity));
            }
            Suspicion::Unstable { drawn } => {
                stats.decide(Verdict::Unstable, drawn);
                suspect.report(Verdict::Unstable, Some(age));
            }
            Suspicion::Agreed { since } => {
                // The write may be done, and its invalidation on its way.
                let due = since + self.cache.config.audit_confirm_after;
                let background = &self.cache.background;
                background.spawn(suspect.confirm_at(due, identity));
            }
            Suspicion::Waiting => {}
        }
    }
}

/// A valid entry in the store.
struct StoredEntry {
    identity: Identity,
    age: Duration,
    header: Header,
    payload: Payload,
}

/// An entry that may be stale.
struct SuspectEntry {
    cache: Handle,
    entry_ref: EntryRef,
    function: Arc<FunctionCounters>,
    resource: Box<str>,
}

impl SuspectEntry {
    /// The entry under the key, and its age; `None` if there is no valid one.
    async fn standing(&self) -> Result<Option<StoredEntry>, Error> {
        let lookup = self.cache.store.lookup(&self.entry_ref).await?;
        let Found::Entry(header, payload) = lookup.found else {
            return Ok(None);
        };
        let is_valid = header.stamp == lookup.stamp && lookup.intents_until.is_none();
        // The holder of a lease is about to replace it.
        Ok((is_valid && !header.is_leased()).then(|| StoredEntry {
            identity: (header.stamp, header.stored),
            age: lookup.now.since(header.stored),
            header,
            payload,
        }))
    }

    async fn confirm_at(self, due: Instant, identity: Identity) {
        crate::base::time::sleep_until(due).await;
        match self.standing().await {
            Ok(Some(now)) if now.identity == identity => self.confirm(now.age),
            // Nothing is known, and its hits stay undecided.
            Err(_) => drop(self.cache.auditor.clear(&self.entry_ref.key)),
            Ok(_) => {
                if let Some(cleared) = self.cache.auditor.clear(&self.entry_ref.key) {
                    self.function.audit.decide(Verdict::Changed, cleared.drawn);
                }
                self.report(Verdict::Changed, None);
            }
        }
    }

    /// Removes a suspect whose entry is gone, even if nobody reads the key again.
    async fn watch(self, identity: Identity) {
        let auditor = &self.cache.auditor;
        let mut pause = self.cache.config.audit_confirm_after;
        for _ in 0..WATCHES {
            crate::base::time::sleep(pause).await;
            pause = WATCH_PAUSE;
            if !auditor.is_suspect(&self.entry_ref.key, identity) {
                return;
            }
            let standing = self.standing().await;
            let is_gone = |it: Option<StoredEntry>| it.is_none_or(|it| it.identity != identity);
            if standing.is_ok_and(is_gone) {
                break;
            }
        }
        if auditor.is_suspect(&self.entry_ref.key, identity)
            && let Some(cleared) = auditor.clear(&self.entry_ref.key)
        {
            self.is_replaced(cleared);
        }
    }

    /// The entry that differed has been replaced. If that happened soon after the difference was
    /// seen, a write had come in between. Otherwise the entry may have been stale, and its hits
    /// stay undecided.
    fn is_replaced(&self, cleared: Cleared) {
        let stood = clock::now().saturating_duration_since(cleared.since);
        if stood <= self.cache.config.audit_confirm_after + SOON {
            self.function.audit.decide(Verdict::Changed, cleared.drawn);
        }
    }

    fn confirm(&self, age: Duration) {
        if let Some(cleared) = self.cache.auditor.clear(&self.entry_ref.key) {
            self.function.audit.decide(Verdict::Stale, cleared.drawn);
        }
        self.report(Verdict::Stale, Some(age));
    }

    fn report(&self, verdict: Verdict, age: Option<Duration>) {
        self.function.audit.count(verdict);
        let telemetry = &self.cache.telemetry;
        let ago = telemetry.last_invalidation(&self.resource);
        let millis = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
        let finding = AuditFinding {
            key: self.entry_ref.key.clone(),
            resource: self.resource.to_string(),
            op: self.function.op.to_string(),
            verdict,
            age_ms: age.map(millis),
            last_invalidated_ms: ago.map(millis),
        };
        telemetry
            .events
            .publish(|| EventKind::Audited(finding.clone()));
        if verdict != Verdict::Stale {
            return;
        }
        let auditor = &self.cache.auditor;
        auditor.keep(finding.clone());
        if auditor.may_log(&self.resource) {
            tracing::error!(
                key = finding.key,
                resource = finding.resource,
                op = finding.op,
                age_ms = finding.age_ms,
                last_invalidated_ms = finding.last_invalidated_ms,
                "the audit found a stale entry: its data changed, and nothing invalidated it"
            );
        }
        let on_stale = self.cache.config.on_stale.as_ref();
        let action = on_stale.map(|it| it.ask(&finding));
        if action == Some(AuditAction::Invalidate) {
            let request = InvalidationRequest {
                deletes: vec![self.entry_ref.key.clone()],
                ..InvalidationRequest::default()
            };
            drop(self.cache.invalidations.enqueue(request));
        }
    }
}
