//! Keys and values as Memcached holds them.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::Millis;
use crate::base::nonce::{Nonce, hash128};
use crate::protocol::entry::{Content, Header};
use crate::protocol::generation::{Dependency, last_deadline};
use crate::protocol::messages::{Found, Payload};

/// The longest key of Memcached, in bytes.
const LONGEST_KEY: usize = 250;

/// How the value under an entry's key begins while writes are announced there. The same text as in
/// Redis.
const INTENTS: &str = "CRT1 i";

/// The client flags of our values. They tell what lies under a key without reading its value, so
/// that an entry of a megabyte can be deleted without fetching it.
pub(super) mod flags {
    pub(in super::super) const ENTRY: u32 = 0x4352_0001;
    pub(in super::super) const LEASE: u32 = 0x4352_0002;
    pub(in super::super) const INTENTS: u32 = 0x4352_0003;
    pub(in super::super) const GENERATION: u32 = 0x4352_0004;
    /// Not an entry: the random number of the server, or a value of the check at connect.
    pub(in super::super) const OWN: u32 = 0x4352_0005;
}

/// The key as Memcached takes it: the same text, if that has at most 250 bytes of visible ASCII;
/// else its beginning and a hash. Two keys that got the same name would be misses for each other,
/// since an entry is bound to its full key.
pub(super) fn key(key: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic();
    // `#` marks the keys made here; keys of the cache have none before an escaped id.
    if (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(is_plain) && !key.contains('#') {
        return key.to_owned();
    }
    const SHOWN: usize = 200;
    let mut name: String = key
        .chars()
        .filter(|c| c.is_ascii_graphic() && *c != '#')
        .take(SHOWN)
        .collect();
    // Writing to a string never fails.
    let _ = write!(name, "#{:032x}", hash128(&[0; 16], key.as_bytes()));
    name
}

/// The key whose value changes when the whole namespace of these dependencies is invalidated.
/// Memcached can't list the generations of a namespace, so each entry depends on this one as well.
pub(super) fn epoch_of(deps: &[std::sync::Arc<Dependency>]) -> Option<String> {
    let (namespace, _) = deps.first()?.key().split_once("@gen:")?;
    Some(epoch(namespace))
}

/// The same by the namespace.
pub(super) fn epoch(namespace: &str) -> String {
    key(&format!("{namespace}@epoch"))
}

/// The value under an entry's key.
#[derive(Debug)]
pub(super) enum Value {
    Entry(Header, Bytes),
    /// Announced writes, as text.
    Intents(String),
    Foreign,
}

impl Value {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        if let Some(intents) = bytes.strip_prefix(INTENTS.as_bytes()) {
            return match String::from_utf8(intents.to_vec()) {
                Ok(intents) if last_deadline(intents.as_bytes()).is_some() => {
                    Self::Intents(intents)
                }
                _ => Self::Foreign,
            };
        }
        match Header::parse(&bytes) {
            Some((header, _)) => Self::Entry(header, Bytes::from(bytes).slice(Header::LEN..)),
            None => Self::Foreign,
        }
    }

    /// The generation as a reader sees it, and the last deadline of the intents on it.
    pub(super) fn found(self, now: Millis) -> (Found, Option<Millis>) {
        match self {
            Self::Foreign => (Found::Foreign, None),
            Self::Intents(intents) => (Found::Nothing, last_deadline(intents.as_bytes())),
            Self::Entry(header, _) if is_over(&header, now) => (Found::Nothing, None),
            Self::Entry(header, payload) => (Found::Entry(header, content(&header, payload)), None),
        }
    }
}

fn content(header: &Header, payload: Bytes) -> Payload {
    match header.content {
        Content::Nothing | Content::Absence => Payload::Empty,
        _ => Payload::Encoded(payload),
    }
}

/// Whether lease and content are past their time. Memcached itself counts in whole seconds.
pub(super) fn is_over(header: &Header, now: Millis) -> bool {
    header.deadline.max(header.stale) <= now
}

/// The bytes of an entry.
pub(super) fn entry(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header.encode().into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// The flags of such an entry.
pub(super) fn flags_of(header: &Header) -> u32 {
    match header.content {
        Content::Nothing => flags::LEASE,
        _ => flags::ENTRY,
    }
}

/// The value under a row's key while writes are announced there.
pub(super) fn row_intents(intents: &str) -> String {
    format!("{INTENTS}{intents}")
}

/// Intents as text, each ` token@deadline` as in [`Generation`](crate::store::Generation).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Intents {
    /// The text; empty if there are none.
    pub(super) text: String,
    /// The last deadline.
    pub(super) last: Option<Millis>,
    /// Whether it lacks some of the intents of the text that it was made from.
    pub(super) has_lost: bool,
}

/// The part of a generation's text behind the nonce.
pub(super) fn behind_nonce(generation: &[u8]) -> &str {
    let rest = generation.get(Nonce::TEXT_LEN..).unwrap_or_default();
    std::str::from_utf8(rest).unwrap_or_default()
}

/// The intents of a text for which `stays` returns true, by token and deadline. An intent that
/// can't be read is removed.
pub(super) fn kept(text: &str, stays: impl Fn(Nonce, Millis) -> bool) -> Intents {
    let mut kept = Intents::default();
    for intent in text.split_ascii_whitespace() {
        let parsed = intent.split_once('@').and_then(|(name, deadline)| {
            let token = Nonce::parse(name.as_bytes().get(..Nonce::TEXT_LEN)?)?;
            Some((token, Millis(deadline.parse().ok()?)))
        });
        match parsed {
            Some((token, deadline)) if stays(token, deadline) => {
                kept.text.push(' ');
                kept.text.push_str(intent);
                kept.last = kept.last.max(Some(deadline));
            }
            _ => kept.has_lost = true,
        }
    }
    kept
}

impl Intents {
    /// Adds one.
    pub(super) fn add(&mut self, token: Nonce, deadline: Millis, length: Duration) {
        let length = u32::try_from(length.as_millis()).unwrap_or(u32::MAX);
        let _ = write!(self.text, " {token}{length:08x}@{:013}", deadline.0);
        self.last = self.last.max(Some(deadline));
    }
}

/// Whether an intent has ended: its time is over.
pub(super) fn has_ended(intent: (Nonce, Millis), now: Millis) -> bool {
    intent.1 <= now
}

/// A time to live as Memcached takes it: whole seconds, at least one, and past 30 days a date.
pub(super) fn ttl(until: Millis, now: Millis) -> String {
    const LONGEST: u64 = 30 * 24 * 3_600;
    // One more, since the server's clock ticks once a second.
    let seconds = until.0.saturating_sub(now.0).div_ceil(1_000) + 1;
    match seconds < LONGEST {
        true => format!("T{seconds}"),
        false => format!("T{}", now.0 / 1_000 + seconds),
    }
}

/// A number that a server has sent as text.
pub(super) fn number(text: Option<&String>) -> Option<u64> {
    text?.parse().ok()
}

/// The process of a server. A restarted server is another one, even if it has kept its entries
/// (`-e`).
pub(super) fn process(pid: u64, started: u64) -> Nonce {
    Nonce(hash128(&[0; 16], format!("{pid} {started}").as_bytes()).max(1))
}

/// The identity of a server: its process, and the random number that it holds. In containers each
/// server has the pid 1, and the replicas of one deployment may start in the same second.
pub(super) fn identity(process: Nonce, mark: &[u8]) -> Nonce {
    if crate::base::mutation::is_active("memcached-known-by-its-pid") {
        return process;
    }
    let both = [process.to_string().as_bytes(), b" ", mark].concat();
    Nonce(hash128(&[0; 16], &both).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fit_and_stay_apart() {
        assert_eq!(key("shop:users:1"), "shop:users:1");
        let longest = "k".repeat(LONGEST_KEY);
        assert_eq!(key(&longest), longest);
        let odd = [
            "k".repeat(LONGEST_KEY + 1),
            format!("{}x", "k".repeat(LONGEST_KEY)),
            "users:a b".to_owned(),
            "users:a\r\nflush_all".to_owned(),
            "users:ä".to_owned(),
            "users:ü".to_owned(),
            "users:\u{7f}".to_owned(),
            "users:#1".to_owned(),
            key("users:ä"),
            String::new(),
        ];
        let mut names: Vec<_> = odd.iter().map(|it| key(it)).collect();
        for name in &names {
            assert!(name.len() <= LONGEST_KEY, "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), odd.len());
    }

    #[test]
    fn intents_are_kept_by_name_and_time() {
        let [one, other] = [Nonce::fresh(), Nonce::fresh()];
        let mut intents = Intents::default();
        intents.add(one, Millis(1_700_000_000_001), Duration::from_secs(1));
        intents.add(other, Millis(1_700_000_000_002), Duration::from_secs(1));
        assert_eq!(intents.last, Some(Millis(1_700_000_000_002)));
        assert_eq!(intents.text.find('@'), Some(41), "{}", intents.text);

        let all = kept(&intents.text, |_, _| true);
        assert_eq!((&all.text, all.has_lost), (&intents.text, false));
        let rest = kept(&intents.text, |token, _| token != other);
        assert_eq!(
            (rest.last, rest.has_lost),
            (Some(Millis(1_700_000_000_001)), true)
        );
        let none = kept(&intents.text, |token, at| {
            !has_ended((token, at), Millis(1_700_000_000_002))
        });
        assert_eq!(
            (none.text.as_str(), none.last, none.has_lost),
            ("", None, true)
        );
        assert!(kept(" nonsense", |_, _| true).has_lost);
    }

    #[test]
    fn times_to_live_are_seconds_or_dates() {
        let now = Millis(1_700_000_000_000);
        assert_eq!(ttl(now, now), "T1");
        assert_eq!(ttl(now.after(Duration::from_millis(1)), now), "T2");
        let year = Duration::from_secs(365 * 24 * 3_600);
        assert_eq!(ttl(now.after(year), now), "T1731536001");
    }

    #[test]
    fn values_are_told_apart() {
        let intents = row_intents(" 00000000000000000000000000000001000003e8@1700000000001");
        assert!(matches!(Value::of(intents.into()), Value::Intents(_)));
        for foreign in ["", "hello", "CRT1 i nonsense", "CRT9 e v j"] {
            assert!(
                matches!(Value::of(foreign.into()), Value::Foreign),
                "{foreign}"
            );
        }
    }
}
