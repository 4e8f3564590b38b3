//! Generations: what an entry depends on, and the stamp that says how they stood before a load.

use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::clock::Millis;
use crate::entry::Stamp;
use crate::nonce::Nonce;

/// Something entries depend on: `users`, `users~derived`, a tag.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dep {
    key: String,
}

impl Dep {
    /// The dependency whose generation lies under `key`.
    #[must_use]
    pub fn new(key: String) -> Arc<Self> {
        Arc::new(Self { key })
    }

    /// The key of its generation, `{namespace}@gen:{dep}`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// The value under a generation's key: a nonce, and the write intents that stand on it.
///
/// In text `nonce`, then ` token@deadline` per intent. Behind the token's 32 digits are eight more: for how many milliseconds
/// it lasts from when it was set, which tells a deadline that was set before the store's clock was set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// Changes with every invalidation, to a value never seen before.
    pub nonce: Nonce,
    /// Until when writers have announced writes, the last of their deadlines; readers bypass and store nothing while
    /// there is one.
    pub intended: Option<Millis>,
}

impl Generation {
    /// Reads what the scripts write; `None` if it is something else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (nonce, intents) = text.split_at_checked(Nonce::TEXT_LEN)?;
        let nonce = Nonce::parse(nonce)?;
        let intended = match intents {
            [] => None,
            [b' ', ..] => Some(last_deadline(intents)?),
            _ => return None,
        };
        Some(Self { nonce, intended })
    }
}

/// The last deadline in a list of intents, each ` token@deadline`; `None` if it is no such list.
pub(crate) fn last_deadline(intents: &[u8]) -> Option<Millis> {
    let text = std::str::from_utf8(intents).ok()?;
    let deadlines = text.split_ascii_whitespace().map(|intent| {
        let (_, deadline) = intent.split_once('@')?;
        deadline.parse().ok()
    });
    deadlines
        .collect::<Option<Vec<u64>>>()?
        .into_iter()
        .max()
        .map(Millis)
}

impl Stamp {
    /// The stamp of these generations, in the order of the dependencies, on this server.
    ///
    /// `server` names the server and its history, so that one restarted from an older snapshot, whose
    /// generations may have come back, does not bring its entries to life again.
    #[must_use]
    pub fn of(server: Nonce, generations: impl IntoIterator<Item = Nonce>) -> Self {
        let mut hasher = SipHasher13::new();
        std::hash::Hasher::write(&mut hasher, &server.0.to_le_bytes());
        for nonce in generations {
            std::hash::Hasher::write(&mut hasher, &nonce.0.to_le_bytes());
        }
        Self(hasher.finish128().as_u128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_read_back() {
        let nonce = Nonce::fresh();
        let plain = nonce.to_string();
        assert_eq!(
            Generation::parse(plain.as_bytes()),
            Some(Generation {
                nonce,
                intended: None
            })
        );
        let (one, other) = (Nonce::fresh(), Nonce::fresh());
        let intended = format!("{plain} {one}@1700000000002 {other}@1700000000001");
        assert_eq!(
            Generation::parse(intended.as_bytes()),
            Some(Generation {
                nonce,
                intended: Some(Millis(1_700_000_000_002))
            })
        );
        for other in [
            "",
            "1",
            "hello",
            &plain[1..],
            &format!("{plain}x"),
            &format!("{plain} x"),
        ] {
            assert_eq!(Generation::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_stamp_is_of_all_generations_in_order_and_of_the_server() {
        let [server, other, a, b] = std::array::from_fn(|_| Nonce::fresh());
        let stamp = Stamp::of(server, [a, b]);
        assert_eq!(stamp, Stamp::of(server, [a, b]));
        assert_ne!(stamp, Stamp::of(server, [b, a]));
        assert_ne!(stamp, Stamp::of(server, [a]));
        assert_ne!(stamp, Stamp::of(other, [a, b]));
    }
}
