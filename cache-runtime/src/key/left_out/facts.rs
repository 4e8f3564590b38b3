//! Facts about types, for the whole process: a hash table that is read without a lock.

use std::any::TypeId;
use std::cell::Cell;
use std::hash::{Hash as _, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use super::written_for::WrittenFor;

/// Identifies a type, or a kind of its values: a struct with a number of fields, or a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject(u64);

/// A fact about a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    /// It leaves out nothing itself. Its contents have to be examined.
    Itself,
    /// Neither it nor its contents leave out anything, in any value.
    All,
}

/// Kinds of values, for [`Subject::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Struct,
    TupleStruct,
    Newtype,
    UnitStruct,
    StructVariant,
    TupleVariant,
    NewtypeVariant,
    UnitVariant,
    /// A list, set, array or tuple.
    Items,
    Map,
    Some,
    /// A number, flag or text; with its size in bytes (0: a text).
    Leaf,
    /// A field that tells what its type leaves out when it is skipped; with its position.
    Skippable,
}

impl Subject {
    /// A type. Facts from its `Debug` are kept apart from facts from its size, and so are those of
    /// each form in which it is written.
    #[inline]
    pub(super) fn of<T: ?Sized>(has_text: bool, form: WrittenFor) -> Self {
        Self::of_id(typeid::of::<T>(), has_text, form)
    }

    /// Those of a type in the facts from its size and in those from its `Debug`.
    pub(super) fn both(id: TypeId, form: WrittenFor) -> [Self; 2] {
        [false, true].map(|has_text| Self::of_id(id, has_text, form))
    }

    #[inline]
    fn of_id(id: TypeId, has_text: bool, form: WrittenFor) -> Self {
        /// A `TypeId` is a hash already.
        struct Taken(u64);
        impl Hasher for Taken {
            fn write(&mut self, bytes: &[u8]) {
                for byte in bytes {
                    self.0 = (self.0.rotate_left(8)) ^ u64::from(*byte);
                }
            }
            fn write_u64(&mut self, n: u64) {
                self.0 ^= n;
            }
            fn finish(&self) -> u64 {
                self.0
            }
        }
        let mut taken = Taken(0);
        id.hash(&mut taken);
        Self(mix(taken.0, u64::from(has_text) | (form as u64) << 1))
    }

    /// A kind of value of this type.
    #[inline]
    pub(super) fn kind(self, kind: Kind, name: &'static str, len: usize) -> Self {
        // By its characters: one literal may be at several addresses of a program.
        let name = name.as_bytes().chunks(8).fold(0, |hash, chunk| {
            let mut word = [0; 8];
            if let Some(part) = word.get_mut(..chunk.len()) {
                part.copy_from_slice(chunk);
            }
            mix(hash, u64::from_le_bytes(word))
        });
        Self(mix(self.0 ^ name, (kind as u64 + 2) << 32 | len as u64))
    }

    /// A value of this type, by the hash of its `Debug`.
    pub(super) fn shown(self, text: u64) -> Self {
        Self(mix(self.0 ^ text, text))
    }

    /// Its value in the table: never 0, and without the lowest bit.
    #[inline]
    fn entry(self) -> u64 {
        self.0 & !1 | 2
    }
}

/// The number of a variant's fields, with the variant's position: two variants may have one name.
#[inline]
pub(super) fn of_variant(index: u32, len: usize) -> usize {
    len | (index as usize) << 16
}

/// Folded multiplication, as in wyhash.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let wide = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd6e8_feb8_6659_fd93);
    (wide >> 64) as u64 ^ wide as u64
}

/// A program has a few hundred types. If the table is full, further types are examined in each
/// call.
const PLACES: usize = 2048;
/// How many places of the table one subject may be at.
const TRIES: usize = 8;

static FACTS: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];

#[inline]
fn places(entry: u64) -> impl Iterator<Item = &'static AtomicU64> {
    let first = (entry >> 20) as usize;
    (0..TRIES).filter_map(move |offset| FACTS.get((first + offset) % PLACES))
}

/// The fact that is known about a subject.
#[inline]
pub(super) fn fact(subject: Subject) -> Option<Fact> {
    let entry = subject.entry();
    for place in places(entry) {
        match place.load(Ordering::Relaxed) {
            0 => return None,
            found if found == entry => return Some(Fact::Itself),
            found if found == entry | 1 => return Some(Fact::All),
            _ => {}
        }
    }
    None
}

/// Stores a fact, if there is a place. A fact never changes, except from [`Fact::Itself`] to
/// [`Fact::All`].
pub(super) fn keep(subject: Subject, fact: Fact) {
    let entry = subject.entry();
    let wanted = entry | u64::from(fact == Fact::All);
    for place in places(entry) {
        let mut found = place.load(Ordering::Relaxed);
        if found == 0 {
            match place.compare_exchange(0, wanted, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
        if found & !1 == entry {
            place.fetch_or(wanted, Ordering::Relaxed);
            return;
        }
    }
}

/// How many values each thread remembers, of those that are examined in each call.
const VALUES: usize = 256;

thread_local! {
    static WHOLE: [Cell<u64>; VALUES] = const { [const { Cell::new(0) }; VALUES] };
}

/// Whether a value with this `Debug` text left nothing out. Another value with the same text either
/// is serialised differently, and has another key, or can't be distinguished by its text anyway.
pub(super) fn was_whole(Subject(value): Subject) -> bool {
    WHOLE.with(|values| {
        values
            .get(value as usize % VALUES)
            .is_some_and(|it| it.get() == value)
    })
}

/// Remembers that it left nothing out.
pub(super) fn is_whole(Subject(value): Subject) {
    WHOLE.with(|values| {
        if let Some(place) = values.get(value as usize % VALUES) {
            place.set(value);
        }
    });
}
