//! What this repository's own property tests and fuzz targets look at. Not part of the API: no program may use it, and
//! none of it follows semantic versioning.

#![allow(missing_docs, reason = "for this repository alone")]

use std::time::Duration;

use crate::base::error::Error;
use crate::config::CacheConfig;
use crate::key::{self, IdForm, Key, KeyPart};

/// An id as it stands in a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    pub text: String,
    form: IdForm,
}

impl Id {
    /// `None` for what can't be an id.
    pub fn of(id: &impl KeyPart) -> Option<Self> {
        let mut text = String::new();
        let form = key::render_id(id, &mut text).ok()?;
        Some(Self { text, form })
    }

    /// Whether one would be taken for the other: under the same key, and of one form, so that nobody would object.
    pub fn meets(&self, other: &Self) -> bool {
        self.text == other.text && self.form.fits(other.form)
    }
}

/// The bytes of an argument that are hashed; `None` for what can't be in a key.
pub fn canonical(argument: &impl KeyPart) -> Option<Vec<u8>> {
    key::canonical_bytes(argument).ok()
}

/// The text of a key, in this namespace.
pub fn key_text(key: Result<Key, Error>, config: &CacheConfig) -> Option<String> {
    key.ok().map(|key| key.render(&config.key_space()))
}

pub fn operator_ttl(config: &CacheConfig, resource: &str) -> Option<Duration> {
    config.operator_ttl(resource)
}

/// Lets a name lead to these addresses, for all caches of the process, whatever the system's resolver says; connections
/// look again at once. A redirected name stays so.
#[cfg(feature = "redis")]
pub fn resolve(name: &str, addresses: Vec<std::net::SocketAddr>) {
    crate::store::given_names::set(name, addresses);
}
