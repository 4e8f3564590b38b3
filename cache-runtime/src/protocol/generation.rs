//! Generations: what an entry depends on. The stamp records their state before a load.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::base::clock::Millis;
use crate::base::nonce::Nonce;
use crate::protocol::entry::Stamp;

/// Something that entries depend on: `users`, `users~derived`, a tag.
#[derive(Debug)]
pub struct Dependency {
    key: String,
    is_of_row: bool,
    /// Its key in a cluster, and that key's slot.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "only Redis has clusters")
    )]
    routed: OnceLock<(String, u16)>,
}

impl PartialEq for Dependency {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Dependency {}

impl Hash for Dependency {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl PartialOrd for Dependency {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Dependency {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl Dependency {
    /// The dependency whose generation lies under `key`.
    #[must_use]
    pub fn new(key: String) -> Arc<Self> {
        Arc::new(Self {
            key,
            is_of_row: false,
            routed: OnceLock::new(),
        })
    }

    /// The dependency on a single row. Most rows have no generation, since no entry depends on
    /// them. So a store may skip a missing one that is to be replaced.
    #[must_use]
    pub fn of_row(key: String) -> Arc<Self> {
        Arc::new(Self {
            key,
            is_of_row: true,
            routed: OnceLock::new(),
        })
    }

    /// Whether it is the dependency on a single row.
    #[must_use]
    pub fn is_of_row(&self) -> bool {
        self.is_of_row
    }

    /// Whether it is a tag; `~~` stands for any.
    #[must_use]
    pub(crate) fn is_of_tag(&self) -> bool {
        self.name().starts_with('~') && self.name() != "~~"
    }

    /// Whether it is of a row or a tag. A load that names one goes by its window, which is replaced
    /// before it: the other generations of its [`owner`](Self::owner). See `call/read/dependencies/learnt.rs`.
    pub(crate) fn has_window(&self) -> bool {
        self.is_of_row() || self.is_of_tag()
    }

    /// These in the order in which they are replaced: those of rows and tags after their windows.
    // Two passes: a stable sort by this flag would be 80 kB of code.
    pub(crate) fn in_order(deps: impl IntoIterator<Item = Arc<Self>>) -> Vec<Arc<Self>> {
        let (last, mut ordered): (Vec<_>, Vec<_>) =
            deps.into_iter().partition(|dep| dep.has_window());
        ordered.extend(last);
        ordered
    }

    /// The windows that these are generations of, by their owners.
    pub(crate) fn windows<'d>(deps: impl IntoIterator<Item = &'d Arc<Self>>) -> HashSet<&'d str> {
        let deps = deps.into_iter().filter(|dep| !dep.has_window());
        deps.map(|dep| dep.owner()).collect()
    }

    /// Whether its window is among these.
    pub(crate) fn waits_for(&self, windows: &HashSet<&str>) -> bool {
        self.has_window() && windows.contains(self.owner())
    }

    /// The resource, or nothing for tags. No resource name contains `~`.
    pub(crate) fn owner(&self) -> &str {
        let name = self.name();
        name.split_once('~').map_or(name, |(owner, _)| owner)
    }

    /// Whether it is the dependency on a whole resource, which all entries of the resource have.
    #[cfg(feature = "redis")]
    pub(crate) fn is_whole(&self) -> bool {
        !self.owner().is_empty() && self.owner() == self.name()
    }

    /// The dependency on the whole resource that this one is a part of; `None` for a tag, and for
    /// that dependency itself.
    #[cfg(feature = "redis")]
    pub(crate) fn whole(&self) -> Option<Arc<Self>> {
        let (name, owner) = (self.name(), self.owner());
        let end = self.key.len() - name.len() + owner.len();
        (!owner.is_empty() && !self.is_whole()).then(|| Self::new(self.key[..end].to_owned()))
    }

    /// The dependency on the whole resource of the entry under `key`, `{namespace}{resource}:..`.
    #[cfg(feature = "redis")]
    pub(crate) fn whole_of_entry(namespace: &str, key: &str) -> Option<Arc<Self>> {
        let (resource, _) = key.strip_prefix(namespace)?.split_once(':')?;
        let is_resource = !resource.is_empty() && !resource.starts_with('@');
        is_resource.then(|| Self::new(format!("{namespace}@gen:{resource}")))
    }

    /// Its key and slot in a cluster, computed once.
    #[cfg(feature = "redis")]
    pub(crate) fn routed(&self, route: impl FnOnce(&str) -> (String, u16)) -> &(String, u16) {
        self.routed.get_or_init(|| route(&self.key))
    }

    /// The key of its generation, `{namespace}@gen:{dep}`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The dependency's name: `users`, `users~derived`, `~tag`.
    #[must_use]
    pub fn name(&self) -> &str {
        let name = self.key.split_once("@gen:");
        name.map_or(&self.key, |(_, name)| name)
    }
}

/// The value under a generation's key: a nonce and the intents on it.
///
/// As text: `nonce`, then ` token@deadline` per intent. After the token's 32 digits, eight more
/// give the intent's length in milliseconds. They show whether a deadline was set before the
/// store's clock was set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// Changes with every invalidation, to a value never used before.
    pub nonce: Nonce,
    /// The last deadline of the intents. While there is one, readers bypass the store and store
    /// nothing.
    pub intents_until: Option<Millis>,
}

impl Generation {
    /// Reads the text that the scripts write; `None` if it is something else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (nonce, intents) = text.split_at_checked(Nonce::TEXT_LEN)?;
        let nonce = Nonce::parse(nonce)?;
        let intents_until = match intents {
            [] => None,
            [b' ', ..] => Some(last_deadline(intents)?),
            _ => return None,
        };
        Some(Self {
            nonce,
            intents_until,
        })
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

/// The generations on one server. The stamp of each entry that depends on them follows from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StampBase(u128);

/// The half of a stamp that depends only on generations and server.
const SHARED_HALF: u128 = !0 << 64;

impl StampBase {
    /// For these generations, in the order of the dependencies, on this server.
    ///
    /// `server` identifies the server and its history. A server restarted from an older snapshot
    /// may have its old generations again; a new `server` id keeps its old entries dead.
    #[must_use]
    pub fn of(server: Nonce, generations: impl IntoIterator<Item = Nonce>) -> Self {
        let mut hasher = SipHasher13::new();
        if !crate::base::mutation::is_active("server-left-out") {
            std::hash::Hasher::write(&mut hasher, &server.0.to_le_bytes());
        }
        for nonce in generations {
            std::hash::Hasher::write(&mut hasher, &nonce.0.to_le_bytes());
        }
        Self(hasher.finish128().as_u128())
    }

    /// Like [`of`](Self::of), for generations on other servers than the entry. Each one comes with
    /// the identity of its server.
    #[must_use]
    pub fn split(entry: Nonce, generations: impl IntoIterator<Item = (Nonce, Nonce)>) -> Self {
        let mut hasher = SipHasher13::new();
        std::hash::Hasher::write(&mut hasher, &entry.0.to_le_bytes());
        for (nonce, server) in generations {
            std::hash::Hasher::write(&mut hasher, &nonce.0.to_le_bytes());
            std::hash::Hasher::write(&mut hasher, &server.0.to_le_bytes());
        }
        Self(hasher.finish128().as_u128())
    }

    /// The stamp of the entry under this key, the full one with its namespace.
    ///
    /// One half is that of the base. The other half covers the key too, so that an entry under a
    /// wrong key can be told from an invalidated one. Both halves have to match for an entry to be
    /// served.
    #[must_use]
    pub fn stamp(self, key: &str) -> Stamp {
        if crate::base::mutation::is_active("entry-not-bound-to-key") {
            return Stamp(self.0);
        }
        let mut hasher = SipHasher13::new();
        std::hash::Hasher::write(&mut hasher, &self.0.to_le_bytes());
        std::hash::Hasher::write(&mut hasher, key.as_bytes());
        let own = hasher.finish128().as_u128();
        Stamp((self.0 & SHARED_HALF) | (own & !SHARED_HALF))
    }

    /// Whether a stamp is of these generations but of another key: the entry was copied or renamed,
    /// or this is the answer to another command.
    #[must_use]
    pub fn is_of_another_key(self, key: &str, stamp: Stamp) -> bool {
        self.is_base_of(stamp) && stamp != self.stamp(key)
    }

    /// Whether a stamp is of these generations, of whatever key.
    pub(crate) fn is_base_of(self, stamp: Stamp) -> bool {
        (stamp.0 ^ self.0) & SHARED_HALF == 0
    }
}

impl Stamp {
    /// The stamp of the entry under `key` while its dependencies have these generations; see
    /// [`StampBase`].
    #[must_use]
    pub fn of(server: Nonce, key: &str, generations: impl IntoIterator<Item = Nonce>) -> Self {
        StampBase::of(server, generations).stamp(key)
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
                intents_until: None
            })
        );
        let (one, other) = (Nonce::fresh(), Nonce::fresh());
        let intents_until = format!("{plain} {one}@1700000000002 {other}@1700000000001");
        assert_eq!(
            Generation::parse(intents_until.as_bytes()),
            Some(Generation {
                nonce,
                intents_until: Some(Millis(1_700_000_000_002))
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
    fn a_stamp_is_of_the_key_all_generations_in_order_and_the_server() {
        let [server, other, a, b] = std::array::from_fn(|_| Nonce::fresh());
        let stamp = Stamp::of(server, "users:1", [a, b]);
        assert_eq!(stamp, Stamp::of(server, "users:1", [a, b]));
        assert_ne!(stamp, Stamp::of(server, "users:2", [a, b]));
        assert_ne!(stamp, Stamp::of(server, "users:1", [b, a]));
        assert_ne!(stamp, Stamp::of(server, "users:1", [a]));
        assert_ne!(stamp, Stamp::of(other, "users:1", [a, b]));
    }

    #[test]
    fn an_entry_of_another_key_is_told_from_one_that_was_invalidated() {
        let [server, before, now] = std::array::from_fn(|_| Nonce::fresh());
        let base = StampBase::of(server, [now]);
        assert!(base.is_of_another_key("users:1", base.stamp("users:2")));
        assert!(!base.is_of_another_key("users:1", base.stamp("users:1")));
        let invalidated = Stamp::of(server, "users:1", [before]);
        assert!(!base.is_of_another_key("users:1", invalidated));
    }
}
