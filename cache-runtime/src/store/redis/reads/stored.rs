//! Decodes the values of the keys that a read has asked for.

use bytes::{Buf, Bytes};
pub(crate) use redis::Value;

use super::super::limits::{INTENTS, READ_LIMIT};
use super::super::reply::{miscounted, text};
use crate::base::clock::Millis;
use crate::base::error::{Error, ErrorKind, shortened};
use crate::base::nonce::Nonce;
use crate::protocol::entry::{Content, Header};
use crate::protocol::generation::{Generation, StampBase, last_deadline};
use crate::store::{Found, LookupReply, Payload};

/// The generation in a value; `None` if there is none, or something else.
pub(crate) fn generation(value: &Value) -> Option<Generation> {
    Generation::parse(text(value)?)
}

/// The values of the keys that a command has asked for, in the order of the keys.
pub(crate) trait Values {
    fn len(&self) -> usize;

    /// The bytes of a string; `None` for a missing key.
    fn get(&self, at: usize) -> Option<&[u8]>;

    /// The entry's value under a key. It may be gone then.
    fn take(&mut self, at: usize) -> StoredValue;
}

impl Values for Vec<Value> {
    fn len(&self) -> usize {
        self.len()
    }

    fn get(&self, at: usize) -> Option<&[u8]> {
        text(<[Value]>::get(self, at)?)
    }

    fn take(&mut self, at: usize) -> StoredValue {
        let value = self.get_mut(at).map(|it| std::mem::replace(it, Value::Nil));
        StoredValue::of(value.unwrap_or(Value::Nil))
    }
}

/// The generations that the server has just created or read, one for each key.
pub(crate) fn generations(values: &[Value], keys: &[&str]) -> Result<Vec<Generation>, Error> {
    if values.len() != keys.len() {
        return Err(miscounted());
    }
    let read = values.iter().zip(keys).map(|(value, key)| {
        generation(value).ok_or_else(|| {
            let text = format!(
                "`{}` should hold a generation and holds another value; delete it, or set another \
                 namespace",
                shortened(key)
            );
            Error::new(ErrorKind::Foreign, text)
        })
    });
    read.collect()
}

/// The treatment of a missing generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is created.
    Created,
    /// It is represented by a number that no entry was stored under.
    Unknown,
}

/// The generations in these values. Those that are missing are ones that no entry has.
pub(crate) fn generations_or_unknown(values: &[Value]) -> Vec<Generation> {
    let unknown = || Generation {
        nonce: Nonce::fresh(),
        intents_until: None,
    };
    let read = values.iter().map(generation);
    read.map(|read| read.unwrap_or_else(unknown)).collect()
}

/// The generations that one or more entries depend on.
pub(crate) struct GenerationSet {
    base: StampBase,
    /// The last deadline of the intents on them.
    intents_until: Option<Millis>,
}

impl GenerationSet {
    /// From generations of several servers.
    pub(crate) fn new(base: StampBase, intents_until: Option<Millis>) -> Self {
        Self {
            base,
            intents_until,
        }
    }

    pub(crate) fn of(server: Nonce, generations: impl IntoIterator<Item = Generation>) -> Self {
        let mut intents_until = None;
        let nonces = generations.into_iter().map(|generation| {
            intents_until = intents_until.max(generation.intents_until);
            generation.nonce
        });
        let base = StampBase::of(server, nonces);
        Self {
            base,
            intents_until,
        }
    }

    /// The generations in these values; `None` if one of them holds none.
    pub(crate) fn of_all<'v>(
        server: Nonce,
        values: impl Iterator<Item = Option<&'v [u8]>>,
    ) -> Option<Self> {
        let mut is_complete = true;
        let generations = values.map_while(|value| {
            let generation = value.and_then(Generation::parse);
            is_complete &= generation.is_some();
            generation
        });
        let set = Self::of(server, generations);
        is_complete.then_some(set)
    }

    /// Whether the read has found an entry of another key, which is not invalidated.
    pub(crate) fn is_misplaced(&self, lookup: &LookupReply) -> bool {
        match &lookup.found {
            Found::Entry(Header { stamp, .. }, _) => {
                *stamp != lookup.stamp && self.base.is_base_of(*stamp)
            }
            Found::Nothing | Found::Foreign => false,
        }
    }
}

/// The value of an entry's key.
#[derive(Clone)]
pub(crate) struct StoredValue {
    found: Found,
    /// The last deadline of the intents that are stored instead of an entry.
    intents_until: Option<Millis>,
}

impl StoredValue {
    const NOTHING: Self = Self {
        found: Found::Nothing,
        intents_until: None,
    };

    pub(crate) fn of(value: Value) -> Self {
        match value {
            Value::BulkString(value) => Self::of_bytes(Bytes::from(value)),
            // Nothing, or a value that is not a string; the lease script tells them apart.
            _ => Self::NOTHING,
        }
    }

    pub(crate) fn of_bytes(value: Bytes) -> Self {
        Self::parsed(value, |mut value| {
            value.advance(Header::LEN);
            value
        })
    }

    /// The same for a value that is still in the buffer of a socket: its payload is copied.
    pub(crate) fn of_slice(value: Option<&[u8]>) -> Self {
        let Some(value) = value else {
            return Self::NOTHING;
        };
        Self::parsed(value, |value| {
            let payload = value.get(Header::LEN..);
            Bytes::copy_from_slice(payload.unwrap_or_default())
        })
    }

    /// `payload` is called for the value of an entry, and returns the bytes behind its header.
    fn parsed<B: AsRef<[u8]>>(value: B, payload: impl FnOnce(B) -> Bytes) -> Self {
        let bytes = value.as_ref();
        let Some((header, _)) = Header::parse(bytes) else {
            return Self {
                found: Found::Foreign,
                intents_until: intents(bytes),
            };
        };
        let is_empty = matches!(header.content, Content::Absence | Content::Nothing);
        let payload = match is_empty || bytes.len() > READ_LIMIT {
            true => Payload::Empty,
            false => Payload::Encoded(payload(value)),
        };
        Self {
            found: Found::Entry(header, payload),
            intents_until: None,
        }
    }

    /// The result of the read for this key.
    pub(crate) fn lookup(
        self,
        key: &str,
        generation_set: &GenerationSet,
        now: Millis,
    ) -> LookupReply {
        LookupReply {
            found: self.found,
            stamp: generation_set.base.stamp(key),
            intents_until: self.intents_until.max(generation_set.intents_until),
            now,
        }
    }
}

/// The last deadline of the intents that are stored instead of an entry.
fn intents(bytes: &[u8]) -> Option<Millis> {
    let intents = bytes.strip_prefix(INTENTS.as_bytes())?;
    // Damaged intents are left for the server to prune.
    Some(last_deadline(intents).unwrap_or(Millis(0)))
}
