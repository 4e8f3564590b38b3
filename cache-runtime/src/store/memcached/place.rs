//! The value under the key of an entry.

use super::connection::{Item, Replaces};
use super::text::{self, Value};
use crate::store::{Header, Millis, Nonce};

/// An entry's key, as Memcached takes it, and what lies there.
pub(super) struct StoredEntry {
    pub(super) key: String,
    pub(super) value: Option<Value>,
    pub(super) version: u64,
}

impl StoredEntry {
    pub(super) fn of(key: String, item: Option<Item>) -> Self {
        match item {
            None => Self {
                key,
                value: None,
                version: 0,
            },
            Some(item) => Self {
                key,
                value: Some(Value::of(item.bytes)),
                version: item.version,
            },
        }
    }

    pub(super) fn over(&self) -> Replaces {
        match self.value {
            None => Replaces::Nothing,
            Some(_) => Replaces::Version(self.version),
        }
    }

    /// The entry, if it is leased under this token.
    pub(super) fn leased(&self, token: Nonce, now: Millis) -> Option<(&Header, &[u8])> {
        match &self.value {
            Some(Value::Entry(header, payload))
                if header.token == token && !text::is_over(header, now) =>
            {
                Some((header, payload))
            }
            _ => None,
        }
    }
}
