//! 128-bit ids that are never made twice, in this process or another.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use siphasher::sip128::SipHasher13;

/// A random number that may come again. It is drawn for single hits, so no counter is shared by
/// threads: the standard library's hash has keys of its own in each thread, which differ each time.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The same, from 0 to below 1.
pub(crate) fn random_fraction() -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    (random() >> (u64::BITS - BITS)) as f64 / (1_u64 << BITS) as f64
}

/// Names one generation, lease or server: random, 128 bits, 32 hex digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nonce(pub u128);

impl Nonce {
    /// How many characters a nonce has in text.
    pub const TEXT_LEN: usize = 32;

    /// The value that is never handed out. It stands for "none" where a nonce is optional in text.
    pub const NONE: Self = Self(0);

    /// A new one.
    ///
    /// It is a counter under a keyed hash. The operating system gives the hash's key once per
    /// process. So nonces are unique within the process, random to everybody else, and need no
    /// system call each time.
    #[must_use]
    pub fn fresh() -> Self {
        static KEY: OnceLock<[u8; 16]> = OnceLock::new();
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let key = KEY.get_or_init(|| {
            // The standard library's hash has a key from the operating system, too, of as many
            // bits.
            let random = RandomState::new();
            let halves = [random.hash_one(0), random.hash_one(1)];
            (u128::from(halves[0]) << 64 | u128::from(halves[1])).to_le_bytes()
        });
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self(hash128(key, &count.to_le_bytes()).max(1))
    }

    /// Reads the 32 hex digits that [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let ([high, low], []) = text.as_chunks::<HALF>() else {
            return None;
        };
        let (high, low) = (hex16(high), hex16(low));
        let value = u128::from(high.0) << 64 | u128::from(low.0);
        ((high.1 | low.1) == 0).then_some(Self(value))
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of hex digits in half a nonce.
const HALF: usize = Nonce::TEXT_LEN / 2;

/// Reads 16 lower-case hex digits.
#[inline]
pub(crate) fn hex64(digits: &[u8; HALF]) -> Option<u64> {
    let (value, faults) = hex16(digits);
    (faults == 0).then_some(value)
}

/// Returns the value of 16 lower-case hex digits, and a number that is 0 if all of them are digits.
#[inline]
fn hex16(digits: &[u8; HALF]) -> (u64, u64) {
    let text = u128::from_be_bytes(*digits);
    let (high, low) = (hex8((text >> 64) as u64), hex8(text as u64));
    (high.0 << 32 | low.0, high.1 | low.1)
}

/// A one in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;

/// Returns the value of eight lower-case hex digits, of which the first is the highest byte, and a
/// number that is 0 if all of them are digits.
///
/// A read of an entry parses about a hundred digits, so eight are read at a time ("SIMD within a
/// register").
#[inline]
fn hex8(text: u64) -> (u64, u64) {
    // A letter has this bit, and is nine more than its last four bits.
    let letters = (text >> 6) & EACH;
    let values = (text & (0x0f * EACH)) + letters * 9;
    // Written as text again, it has to be what was read. `0x27` is the distance from the character
    // after `9` to `a`.
    let differs = (values + 0x30 * EACH + letters * 0x27) ^ text;
    // Letters and nothing else are 10 or more, and nothing is 16 or more.
    let tens = ((values + 0x76 * EACH) & (0x80 * EACH)) ^ (letters << 7);
    let sixteens = (values + 0x70 * EACH) & (0x80 * EACH);
    let pairs = (values | values >> 4) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    let value = (fours | fours >> 16) & 0xffff_ffff;
    (value, differs | tens | sixteens)
}

/// Reads up to 16 decimal digits.
#[inline(always)]
pub(crate) fn decimal64(digits: &[u8]) -> Option<u64> {
    let mut text = [b'0'; 16];
    text.get_mut(16usize.checked_sub(digits.len())?..)?
        .copy_from_slice(digits);
    let text = u128::from_le_bytes(text);
    let (high, low) = (decimal8(text as u64), decimal8((text >> 64) as u64));
    ((high.1 | low.1) == 0).then_some(high.0 * 100_000_000 + low.0)
}

/// Returns the value of eight decimal digits, of which the first is the lowest byte, and a number
/// that is 0 if all of them are digits.
#[inline]
fn decimal8(text: u64) -> (u64, u64) {
    let ones = text & (0x0f * EACH);
    let tens = (ones + 0x06 * EACH) & (0xf0 * EACH);
    let faults = ((text ^ (0x30 * EACH)) & (0xf0 * EACH)) | tens;
    let pairs = (ones * 10 + (ones >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    let value = (fours * 10_000 + (fours >> 32)) & 0xffff_ffff;
    (value, faults)
}

/// Keyed SipHash-1-3 with 128 bits of output.
#[inline]
pub(crate) fn hash128(key: &[u8; 16], bytes: &[u8]) -> u128 {
    // In one call: the incremental hasher takes half as long again.
    SipHasher13::new_with_key(key).hash(bytes).as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_are_spread() {
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let fraction = random_fraction();
            assert!((0.0..1.0).contains(&fraction));
            tenths[(fraction * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (800..1_200).contains(count)));
    }

    #[test]
    fn nonces_differ_and_read_back() {
        let (a, b) = (Nonce::fresh(), Nonce::fresh());
        assert_ne!(a, b);
        assert_eq!(Nonce::parse(a.to_string().as_bytes()), Some(a));
        assert_eq!(Nonce::parse(b"+0000000000000000000000000000000"), None);
        assert_eq!(Nonce::parse(b"12"), None);
        assert_eq!(Nonce::parse(b"0000000000000000000000000000000G"), None);
        assert_eq!(Nonce::parse(b"0000000000000000000000000000000A"), None);
    }

    #[test]
    fn digits_read_as_the_standard_library_reads_them() {
        for at in 0..16 {
            for byte in 0..=u8::MAX {
                let mut digits = *b"9a0f3c52b7e81d46";
                digits[at] = byte;
                let is_hex = |it: &u8| matches!(it, b'0'..=b'9' | b'a'..=b'f');
                let known = std::str::from_utf8(&digits).ok();
                let expected = known.filter(|_| digits.iter().all(is_hex));
                let expected = expected.and_then(|it| u64::from_str_radix(it, 16).ok());
                assert_eq!(hex64(&digits), expected, "{digits:?}");
            }
        }
        for len in 1..=16 {
            for (at, byte) in (0..len).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
                let mut digits = b"9207315846192705"[..len].to_vec();
                digits[at] = byte;
                let known = std::str::from_utf8(&digits).ok();
                let expected = known.filter(|_| digits.iter().all(u8::is_ascii_digit));
                let expected = expected.and_then(|it| it.parse::<u64>().ok());
                assert_eq!(decimal64(&digits), expected, "{digits:?}");
            }
        }
        assert_eq!(decimal64(b"00000000000000000"), None, "more than 16 digits");
    }
}
