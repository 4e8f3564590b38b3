//! Tells arguments apart that are written alike in a key.

/// A hash of what a key does not show, although it may change the answer: which of two variants of
/// one name it is, the order of a map that is written by hand, the sign of a zero.
///
/// It becomes a part of the entry's version. So two such calls share a key, writes by that key
/// reach both, and neither gets the other's value. The usual spelling (the first variant, sorted
/// entries, `0.0`) adds nothing: then the hash is 0.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Disambiguator(u64);

/// They don't tell keys apart, only the values that are stored under them.
impl PartialEq for Disambiguator {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Disambiguator {}

impl Disambiguator {
    /// Adds one place where two values may be written alike, with the value that stands there. Two
    /// values of the same bytes have the same places, in the same order.
    #[inline]
    pub(super) fn add(&mut self, value: u64) {
        if crate::base::mutation::is_active("alike-not-told-apart") {
            return;
        }
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Adds a variant, by its position in the enum.
    #[inline]
    pub(super) fn variant(&mut self, index: u32) {
        self.add(index.into());
    }

    /// Adds a number that is written as `0.0` if it is `-0.0`.
    #[inline]
    pub(super) fn float(&mut self, number: f64) {
        self.add(u64::from(number == 0.0 && number.is_sign_negative()));
    }

    #[inline]
    pub(super) fn part(&mut self, part: Self) {
        self.add(part.0);
    }

    /// The part of a version.
    #[inline]
    pub(crate) fn version(self) -> u32 {
        (self.0 ^ (self.0 >> 32)) as u32
    }
}
