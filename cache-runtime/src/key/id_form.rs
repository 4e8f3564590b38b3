//! The types that an id is made of, to compare ids of one resource.

use super::disambiguator::Disambiguator;

/// The types that an id is made of, in order. All variants of an enum have one form, and so have
/// lists of any length: a form describes the type, as far as a value shows it.
///
/// Two functions that give ids of different forms for one resource would share a key by accident
/// (`1` and `"1"`). The form comes from the id itself and not from its type's name, so `i32`, `i64`
/// and `UserId(i64)` agree. An absent part fits any form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct IdForm {
    pub(super) hash: u64,
    pub(super) open: bool,
    /// The forms of the first parts of a tuple, 0 for an absent one. Parts that both ids have must
    /// agree.
    parts: [u16; 8],
    /// The parts of the id that the text does not show.
    pub(super) disambiguator: Disambiguator,
}

impl IdForm {
    #[inline]
    pub(super) fn add(&mut self, part: u8) {
        // FNV-1a: for a handful of tags a hasher doesn't pay.
        self.hash = (self.hash ^ u64::from(part))
            .wrapping_mul(0x0100_0000_01b3)
            .wrapping_add(1);
    }

    pub(super) fn add_part(&mut self, at: usize, part: Self) {
        self.open |= part.open;
        for byte in part.hash.to_le_bytes() {
            self.add(byte);
        }
        if let Some(place) = self.parts.get_mut(at).filter(|_| !part.open) {
            *place = (part.hash as u16).max(1);
        }
    }

    /// A number that two forms of one function's ids share only if they agree; 0 without an id.
    #[inline]
    pub(crate) fn mark(form: Option<&Self>) -> u64 {
        form.map_or(0, |form| form.hash ^ u64::from(form.open))
    }

    /// The part of the entry's version that tells ids apart which are written alike.
    #[inline]
    pub(crate) fn version(&self) -> u32 {
        self.disambiguator.version()
    }

    /// Whether a part of the id was absent, so that it fits any form.
    #[inline]
    pub(crate) fn is_open(self) -> bool {
        self.open
    }

    /// Whether two ids have one form, as far as their values show.
    #[inline]
    pub(crate) fn fits(self, other: Self) -> bool {
        if !self.open && !other.open {
            return self.hash == other.hash;
        }
        let mut parts = self.parts.iter().zip(other.parts);
        parts.all(|(a, b)| *a == 0 || b == 0 || *a == b)
    }
}
