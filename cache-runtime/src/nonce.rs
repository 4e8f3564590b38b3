//! 128-bit names that no process ever makes twice.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use siphasher::sip128::{Hasher128, SipHasher13};

/// Names one generation, lease or server: random, 128 bits, 32 hex digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nonce(pub u128);

impl Nonce {
    /// How many characters a nonce has in text.
    pub const TEXT_LEN: usize = 32;

    /// The value that is never handed out; it stands for "none" where a nonce is optional in text.
    pub const NONE: Self = Self(0);

    /// A new one.
    ///
    /// A counter under a keyed hash whose key is drawn from the operating system once per process: unique
    /// within the process, random to everybody else, and without a system call each time.
    #[must_use]
    pub fn fresh() -> Self {
        static KEY: OnceLock<[u8; 16]> = OnceLock::new();
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let key = KEY.get_or_init(|| {
            let mut key = [0; 16];
            if getrandom::fill(&mut key).is_err() {
                // No randomness from the system: what differs between processes has to do.
                let seed = (std::process::id(), std::time::SystemTime::now());
                key = hash128(&[0; 16], format!("{seed:?}").as_bytes()).to_le_bytes();
            }
            key
        });
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self(hash128(key, &count.to_le_bytes()).max(1))
    }

    /// Reads the 32 hex digits that [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let valid = text.len() == Self::TEXT_LEN
            && text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let text = str::from_utf8(text).ok().filter(|_| valid)?;
        u128::from_str_radix(text, 16).ok().map(Self)
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

/// Keyed SipHash-1-3 with 128 bits of output.
pub(crate) fn hash128(key: &[u8; 16], bytes: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new_with_key(key);
    std::hash::Hasher::write(&mut hasher, bytes);
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_differ_and_read_back() {
        let (a, b) = (Nonce::fresh(), Nonce::fresh());
        assert_ne!(a, b);
        assert_eq!(Nonce::parse(a.to_string().as_bytes()), Some(a));
        assert_eq!(Nonce::parse(b"+0000000000000000000000000000000"), None);
        assert_eq!(Nonce::parse(b"12"), None);
    }
}
