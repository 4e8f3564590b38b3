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
        if text.len() != Self::TEXT_LEN {
            return None;
        }
        let (high, low) = text.split_at_checked(HALF)?;
        let value = u128::from(hex64(high)?) << 64 | u128::from(hex64(low)?);
        Some(Self(value))
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

/// Reads up to 16 lower-case hex digits. A read of an entry parses about a hundred of them, and one
/// table is several times as fast as the standard library.
pub(crate) fn hex64(digits: &[u8]) -> Option<u64> {
    const NONE: u8 = 0xf0;
    const VALUES: [u8; 256] = {
        let mut values = [NONE; 256];
        let mut digit = 0;
        while digit < 16 {
            values[b"0123456789abcdef"[digit] as usize] = digit as u8;
            digit += 1;
        }
        values
    };
    let (mut value, mut seen) = (0, 0);
    for digit in digits {
        let digit = VALUES[usize::from(*digit)];
        seen |= digit;
        value = value << 4 | u64::from(digit);
    }
    (seen & NONE == 0 && digits.len() <= HALF).then_some(value)
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
        assert_eq!(hex64(b"00000000000000000"), None, "more than 16 digits");
    }
}
