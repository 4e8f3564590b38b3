//! The entries that a thread was last served, in memory of its own: the *thread cache*.
//!
//! A lookup in the table first checks that the function may use the key. Then it needs the text of
//! the key, a hash of it, and two writes to a lock that all threads share. If the same function
//! gets an equal call again, none of this is needed: an entry is found by the call's arguments as
//! they were given, and all of them are compared. Whether the entry may be served is not decided
//! here: [`EntrySource::again`] applies the rules of the table to the entry itself. The table is
//! that of the local tier, or that of the store in memory.
//!
//! A thread cache is direct-mapped: a slot takes the first entry that is found twice in a row
//! there, and keeps it as long as it is used. So a program that reads more entries than there are
//! slots rarely writes to it: to keep an entry costs as much as ten hits.
//!
//! With a thousand rows, loading cache lines that the processor has evicted takes most of the time.
//! So a hit reads only four of them: a slot, the fields of the thread cache, a flag, and the value.

use std::any::TypeId;
use std::ops::Range;

use super::super::read_options::ReadOptions;
use crate::base::mutation;
use crate::key::{Given, GivenKind, NamedDependency};
use crate::local::{ClockReading, EntrySource, KeptEntry, KeptHit};
use crate::registry::KnownResource;

/// A power of two. The slots themselves take 64 kB per thread that has hits.
const SLOTS: usize = 4096;
/// The functions that a thread cache knows. A power of two; they take up to 25 kB.
const CALLERS: usize = 256;
/// The number of places where a function may be, one after the other.
const PROBES: usize = 4;
/// The most bytes of entries that one thread cache holds, as the local tier weighs them. What would
/// be more is refused. After [`SLOTS`] refusals the thread cache starts empty again, since what it
/// holds may be out of use.
const MOST_BYTES: u64 = 4 << 20;
/// How often a slot refuses other entries after its own was last used. With ten thousand rows read
/// at random, a hit took 440 ns when each entry that was found twice in a row was kept, and takes
/// 230 ns with this.
const REFUSALS: u8 = 8;
/// One hit in this many is shown to the table, which would otherwise evict the entry as unused.
const TO_THE_TABLE: u8 = 32;

/// The entries that a thread was last served.
#[derive(Debug, Default)]
pub(crate) struct ThreadCache {
    /// Empty before the first hit.
    slots: Vec<Option<Box<CachedHit>>>,
    callers: Vec<Option<Caller>>,
    /// The calls that were last looked up in the table, by slot.
    last: Vec<Newcomer>,
    /// How many callers there were so far.
    numbers: u16,
    /// The number of the caller that was looked up last; 0 if another one calls.
    last_caller: u16,
    bytes: u64,
    /// How often an entry was refused since there were too many bytes; 0 if there are not.
    refused: usize,
    /// The time of the last hit.
    now: ClockReading,
}

/// An entry, and the call that may be served it.
// In this order, and aligned, so that a hit reads one cache line of it.
#[derive(Debug)]
#[repr(C, align(64))]
struct CachedHit {
    number: u64,
    /// The version as the plan says it: the attribute's, with what the key does not show.
    version: u32,
    caller: u16,
    form: CallForm,
    uses: u8,
    entry: KeptEntry,
    bytes: Box<[u8]>,
    extras: Box<[NamedDependency]>,
}

/// The last call of a slot that was not answered by the entry there.
#[derive(Debug, Clone, Copy, Default)]
struct Newcomer {
    /// The part of the hash that does not choose the slot.
    rest: u32,
    /// The uses of the slot's entry when another one was last refused, and how often since then.
    uses: u8,
    refused: u8,
}

impl Newcomer {
    /// Whether this call came twice in a row.
    fn is_again(&mut self, place: SlotHash) -> bool {
        std::mem::replace(&mut self.rest, place.rest()) == place.rest()
    }

    /// Whether the slot's entry is still in use.
    fn is_refused(&mut self, held: &CachedHit) -> bool {
        if self.uses != held.uses {
            (self.uses, self.refused) = (held.uses, 0);
        }
        self.refused = self.refused.saturating_add(1);
        self.refused <= REFUSALS
    }
}

/// Everything that distinguishes the calls of one function, with the same type parameters, from
/// others.
#[derive(Debug)]
struct Caller {
    /// No other caller of this thread cache has, or ever had, this number.
    number: u16,
    /// The address of the data about the function in one cache, for one resource.
    known: usize,
    instance: Option<TypeId>,
    /// The type of its values.
    type_id: TypeId,
    op: Option<&'static str>,
    /// A hash of the types that tell instances of the function apart.
    types: u64,
}

impl Caller {
    // Field by field. Building a `Caller` and comparing it as a whole took 17 ns, since the
    // processor waits when it reads as a whole what was written in parts.
    #[inline(always)]
    fn is(&self, wanted: &ThreadLookup<'_>) -> bool {
        if mutation::is_active("thread-cache-callers-alike") {
            return true;
        }
        let options = wanted.options;
        self.known == std::ptr::from_ref(wanted.known).addr()
            && self.types == options.types
            && self.instance == options.instance.map(|instance| instance.id)
            && self.type_id == wanted.type_id
            && same(self.op, options.op)
    }
}

/// Whether two ops are the same text at the same place. Another place is another function's.
#[inline]
fn same(a: Option<&'static str>, b: Option<&'static str>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => std::ptr::eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// The form of what a call was given, and whether it has tags or other dependencies. One byte, so
/// that both are compared at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CallForm(u8);

impl CallForm {
    /// Of a call that was given a natural number alone.
    const NATURAL: Self = Self(GivenKind::Natural as u8);
    const EXTRAS: u8 = 1 << 7;
    /// Of an entry that has more flags than those in its first cache line.
    const MORE_FLAGS: u8 = 1 << 6;

    #[inline]
    fn of(kind: GivenKind, extras: &[NamedDependency]) -> Self {
        Self(kind as u8 | if extras.is_empty() { 0 } else { Self::EXTRAS })
    }

    /// The sort of an entry, which was kept for a call of this one.
    fn with(self, entry: &KeptEntry) -> Self {
        Self(
            self.0
                | if entry.has_more() {
                    Self::MORE_FLAGS
                } else {
                    0
                },
        )
    }

    /// The sort of the call that an entry was kept for.
    #[inline]
    fn of_call(self) -> Self {
        Self(self.0 & !Self::MORE_FLAGS)
    }

    #[inline]
    fn has_more_flags(self) -> bool {
        self.0 & Self::MORE_FLAGS != 0
    }

    /// Whether it is a number alone.
    #[inline]
    fn is_number(self) -> bool {
        self.0 == GivenKind::Natural as u8 || self.0 == GivenKind::Negative as u8
    }
}

impl CachedHit {
    /// Whether the call was given the same id or arguments, and has the same dependencies.
    #[inline(always)]
    fn is_given(&self, wanted: &ThreadLookup<'_>) -> bool {
        let given = &wanted.given;
        let form = CallForm::of(given.kind, wanted.extras);
        let is_it = self.number == given.number
            && (self.version == wanted.version
                || mutation::is_active("thread-cache-without-version"))
            && self.form.of_call() == form
            && (form.is_number()
                || (*self.bytes == *given.bytes && *self.extras == *wanted.extras));
        is_it || mutation::is_active("thread-cache-by-hash-alone")
    }
}

/// A call, as far as a thread cache needs it.
pub(crate) struct ThreadLookup<'a> {
    pub(crate) known: &'static KnownResource,
    pub(crate) given: Given<'a>,
    /// The version as the plan says it.
    pub(crate) version: u32,
    /// The type of the function's values.
    pub(crate) type_id: TypeId,
    pub(crate) options: &'a ReadOptions,
    pub(crate) extras: &'a [NamedDependency],
}

impl ThreadCache {
    /// The next call is perhaps that of another function, or of another instance.
    #[inline]
    pub(crate) fn forget_caller(&mut self) {
        self.last_caller = 0;
    }

    /// The entry for a call that was given a natural number alone, by the function that was looked
    /// up last. What it does not find, [`find`](Self::find) may.
    // Apart from `find`, and with nothing of it inlined: together with it a hit took 100
    // instructions more, since the registers did not suffice.
    #[inline(always)]
    pub(crate) fn find_natural(
        &mut self,
        source: &impl EntrySource,
        known: &KnownResource,
        number: u64,
        version: u32,
    ) -> Option<KeptHit<'_>> {
        let place = SlotHash::of_number(known, number).slot();
        let held = self.slots.get_mut(place)?.as_mut()?;
        let is_it = held.number == number
            && held.version == version
            && held.caller == self.last_caller
            && held.form == CallForm::NATURAL;
        if !is_it {
            return None;
        }
        held.uses = held.uses.wrapping_add(1);
        if held.uses.is_multiple_of(TO_THE_TABLE) && !self.is_current(source, place) {
            return None;
        }
        let held = self.slots.get(place)?.as_ref()?;
        source.again(&held.entry, &mut self.now)
    }

    /// Shows an entry to the table. If that has another one by now, or none, the entry is dropped.
    #[inline(never)]
    fn is_current(&mut self, source: &impl EntrySource, place: usize) -> bool {
        let Some(slot) = self.slots.get_mut(place) else {
            return false;
        };
        let is_current = slot
            .as_ref()
            .is_some_and(|held| source.is_current(&held.entry));
        if !is_current && let Some(held) = slot.take() {
            self.bytes -= held.entry.weight();
        }
        is_current
    }

    /// The entry that this thread was served for this call before, if it may be served now.
    pub(crate) fn find(
        &mut self,
        source: &impl EntrySource,
        wanted: &ThreadLookup<'_>,
    ) -> Option<KeptHit<'_>> {
        let caller = self.number_of(wanted)?;
        self.last_caller = caller;
        let place = SlotHash::of(wanted.known, &wanted.given);
        let place = place.slot();
        let held = self.slots.get_mut(place)?.as_mut()?;
        if held.caller != caller || !held.is_given(wanted) {
            return None;
        }
        held.uses = held.uses.wrapping_add(1);
        if held.uses.is_multiple_of(TO_THE_TABLE) && !self.is_current(source, place) {
            return None;
        }
        let held = self.slots.get(place)?.as_ref()?;
        if held.form.has_more_flags()
            && !held.entry.is_rest_alive()
            && !mutation::is_active("thread-cache-not-checked")
        {
            return None;
        }
        source.again(&held.entry, &mut self.now)
    }

    /// The number of a call's function, if this thread cache has it.
    // A loop, since the compiler makes a function of the iterators that say the same, and passes
    // all that is compared through memory.
    fn number_of(&self, wanted: &ThreadLookup<'_>) -> Option<u16> {
        for caller in self.callers.get(callers_of(wanted.known))? {
            if let Some(caller) = caller
                && caller.is(wanted)
            {
                return Some(caller.number);
            }
        }
        None
    }

    /// Notes that the table has an entry for this call. The entry is kept the second time: `kept`
    /// returns it, and is told how many bytes are kept beside it.
    pub(crate) fn note(
        &mut self,
        wanted: &ThreadLookup<'_>,
        kept: impl FnOnce(u64) -> Option<KeptEntry>,
    ) {
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, || None);
            self.callers.resize_with(CALLERS + PROBES, || None);
            self.last.resize(SLOTS, Newcomer::default());
        }
        let place = SlotHash::of(wanted.known, &wanted.given);
        let last = self.last.get_mut(place.slot());
        if last.is_none_or(|last| !last.is_again(place)) || self.is_refused(place, wanted) {
            return;
        }
        let Given {
            kind,
            number,
            bytes,
        } = wanted.given;
        let beside = size_of::<CachedHit>() + bytes.len() + size_of_val(wanted.extras);
        let Some(entry) = kept(beside as u64) else {
            return;
        };
        let held = self.slots.get(place.slot()).and_then(Option::as_ref);
        let total = self.bytes + entry.weight() - held.map_or(0, |held| held.entry.weight());
        if total > MOST_BYTES {
            self.refuse();
            return;
        }
        let Some(caller) = self.caller(wanted) else {
            *self = Self::default();
            return;
        };
        let Some(slot) = self.slots.get_mut(place.slot()) else {
            return;
        };
        self.bytes = total;
        *slot = Some(Box::new(CachedHit {
            number,
            version: wanted.version,
            caller,
            form: CallForm::of(kind, wanted.extras).with(&entry),
            uses: 0,
            entry,
            bytes: bytes.into(),
            extras: wanted.extras.into(),
        }));
    }

    /// Whether the entry of this call is not kept: its slot has another one that is in use, or
    /// there are too many bytes.
    fn is_refused(&mut self, place: SlotHash, wanted: &ThreadLookup<'_>) -> bool {
        let Some(held) = self.slots.get(place.slot()).and_then(Option::as_ref) else {
            let is_full = self.refused > 0;
            if is_full {
                self.refuse();
            }
            return is_full;
        };
        // The entry that is held for this very call can't be served any more.
        let is_own = Some(held.caller) == self.number_of(wanted) && held.is_given(wanted);
        let last = self.last.get_mut(place.slot());
        !is_own && last.is_some_and(|last| last.is_refused(held))
    }

    /// Counts an entry that is not kept, since there are too many bytes.
    fn refuse(&mut self) {
        self.refused += 1;
        if self.refused > SLOTS {
            *self = Self::default();
        }
    }

    /// The number of a call's function. `None` once there are no numbers any more.
    fn caller(&mut self, wanted: &ThreadLookup<'_>) -> Option<u16> {
        if let Some(number) = self.number_of(wanted) {
            return Some(number);
        }
        let places = self.callers.get_mut(callers_of(wanted.known))?;
        self.numbers = self.numbers.checked_add(1)?;
        let free = places.iter().position(Option::is_none);
        // The entries of a function that is replaced are not found any more.
        let place = free.unwrap_or(usize::from(self.numbers) % PROBES);
        *places.get_mut(place)? = Some(Caller {
            number: self.numbers,
            known: std::ptr::from_ref(wanted.known).addr(),
            instance: wanted.options.instance.map(|instance| instance.id),
            type_id: wanted.type_id,
            op: wanted.options.op,
            types: wanted.options.types,
        });
        Some(self.numbers)
    }
}

/// The golden ratio, by which the highest bits depend on all others (Knuth, TAOCP 6.4).
const RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn callers_of(known: &KnownResource) -> Range<usize> {
    let hash = (std::ptr::from_ref(known).addr() as u64).wrapping_mul(RATIO);
    let first = (hash >> (u64::BITS - CALLERS.trailing_zeros())) as usize;
    first..first + PROBES
}

/// Where the entry for a call is, by a hash of what it was given. The hash needs no secret: calls
/// that collide are compared, and only replace each other here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct SlotHash(u64);

impl SlotHash {
    #[inline]
    fn of(known: &KnownResource, given: &Given<'_>) -> Self {
        let numbered = Self::of_number(known, given.number);
        match given.kind {
            GivenKind::Natural | GivenKind::Negative => numbered,
            _ => Self(hash(numbered.0, given.bytes).wrapping_mul(RATIO)),
        }
    }

    /// For a call that was given this number alone.
    #[inline]
    fn of_number(known: &KnownResource, number: u64) -> Self {
        let start = std::ptr::from_ref(known).addr() as u64 ^ number;
        Self(start.wrapping_mul(RATIO))
    }

    #[inline]
    fn slot(self) -> usize {
        (self.0 >> (u64::BITS - SLOTS.trailing_zeros())) as usize
    }

    #[inline]
    fn rest(self) -> u32 {
        (self.0 >> (u32::BITS - SLOTS.trailing_zeros())) as u32
    }
}

#[inline]
fn hash(start: u64, bytes: &[u8]) -> u64 {
    let mut hash = start;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        hash = (hash.wrapping_mul(RATIO) ^ u64::from_le_bytes(*chunk)).rotate_left(29);
    }
    for byte in rest {
        hash = hash.rotate_left(8) ^ u64::from(*byte);
    }
    hash
}
