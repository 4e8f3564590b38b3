//! What lies under the keys of a read, decoded.

use bytes::{Buf, Bytes};
pub(super) use redis::Value;

use super::limits::{INTENTS, READ_LIMIT};
use super::reply::text;
use crate::base::clock::Millis;
use crate::base::nonce::Nonce;
use crate::protocol::entry::{Content, Header, Stamp};
use crate::protocol::generation::{Generation, StampBase, last_deadline};
use crate::store::{Found, Look, Payload};

/// What a generation's key holds; `None` if it holds nothing, or something else.
pub(super) fn generation(value: &Value) -> Option<Generation> {
    Generation::parse(text(value)?)
}

/// What the generations say that one or more entries depend on.
pub(super) struct GenerationSet {
    base: StampBase,
    /// The last deadline of the intents on them.
    intended: Option<Millis>,
}

impl GenerationSet {
    /// Of generations that lie on several servers.
    pub(super) fn new(base: StampBase, intended: Option<Millis>) -> Self {
        Self { base, intended }
    }

    pub(super) fn of(server: Nonce, generations: impl IntoIterator<Item = Generation>) -> Self {
        let mut intended = None;
        let nonces = generations.into_iter().map(|generation| {
            intended = intended.max(generation.intended);
            generation.nonce
        });
        let base = StampBase::of(server, nonces);
        Self { base, intended }
    }
}

/// What lies under an entry's key.
#[derive(Clone)]
pub(super) struct StoredValue {
    found: Found,
    /// The last deadline of the intents in its place.
    intended: Option<Millis>,
}

impl StoredValue {
    pub(super) fn of(value: Value) -> Self {
        match value {
            Value::BulkString(bytes) => Self::of_bytes(bytes),
            // Nothing, or something that is not a string; the lease will tell them apart.
            _ => Self {
                found: Found::Nothing,
                intended: None,
            },
        }
    }

    fn of_bytes(bytes: Vec<u8>) -> Self {
        let found = match Header::parse(&bytes) {
            Some((header, _))
                if header.content != Content::Absence
                    && header.content != Content::Nothing
                    && bytes.len() <= READ_LIMIT =>
            {
                let mut payload = Bytes::from(bytes);
                payload.advance(Header::LEN);
                Found::Entry(header, Payload::Encoded(payload))
            }
            Some((header, _)) => Found::Entry(header, Payload::Empty),
            None => {
                return Self {
                    found: Found::Foreign,
                    intended: intents(&bytes),
                };
            }
        };
        Self {
            found,
            intended: None,
        }
    }

    /// How many bytes the value has.
    pub(super) fn len(&self) -> usize {
        match &self.found {
            Found::Entry(_, payload) => Header::LEN + payload.len(),
            Found::Nothing | Found::Foreign => 0,
        }
    }

    /// What there is to see under this key; `None` if an entry of another key was answered, and the connection was given
    /// up for it.
    pub(super) fn look(
        self,
        key: &str,
        standing: &GenerationSet,
        is_off_by_others: impl FnOnce(&str, Stamp) -> bool,
        now: Millis,
    ) -> Option<Look> {
        if let Found::Entry(Header { stamp, .. }, _) = &self.found
            && standing.base.is_of_another_key(key, *stamp)
            && is_off_by_others(key, *stamp)
        {
            return None;
        }
        Some(Look {
            found: self.found,
            stamp: standing.base.stamp(key),
            intended: self.intended.max(standing.intended),
            now,
        })
    }
}

/// The last deadline of the intents that stand in the place of an entry.
fn intents(bytes: &[u8]) -> Option<Millis> {
    let intents = bytes.strip_prefix(INTENTS.as_bytes())?;
    // What is damaged is for the server to prune.
    Some(last_deadline(intents).unwrap_or(Millis(0)))
}
