//! The parts of its type that a value has used.

use super::path::mix;

const WORDS: usize = 16;

/// The variants, options and kinds of scalars in a value, each with its place, as bits of a small
/// set.
///
/// If a value's footprint lies within those decoded before, it takes the same paths through its
/// type's `Deserialize`. Two parts may share a bit. Then a new part may go unnoticed at first, and
/// is found by the regular checks later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    bits: [u64; WORDS],
    pub(crate) depth: u32,
}

impl Footprint {
    pub(super) fn note(&mut self, path: u64, kind: u64) {
        let bit = mix(path, kind) >> 54;
        self.bits[bit as usize / 64] |= 1 << (bit % 64);
    }

    pub(crate) fn is_within(&self, other: &Self) -> bool {
        let mut pairs = self.bits.iter().zip(&other.bits);
        pairs.all(|(own, other)| own & !other == 0)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (own, other) in self.bits.iter_mut().zip(&other.bits) {
            *own |= other;
        }
    }
}
