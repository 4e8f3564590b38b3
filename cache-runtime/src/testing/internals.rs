//! Internals for this repository's own property tests and fuzz targets. They are not part of the
//! API: no program may use them, and none of them follows semantic versioning.

#![allow(missing_docs, reason = "for this repository alone")]

use std::time::Duration;

use crate::base::error::Error;
use crate::config::CacheConfig;
use crate::key::{self, IdForm, Key, KeyPart};

/// The text of an id in a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    pub text: String,
    form: IdForm,
}

impl Id {
    /// `None` if `id` can't be an id.
    pub fn of(id: &impl KeyPart) -> Option<Self> {
        let mut text = String::new();
        let form = key::render_id(id, &mut text).ok()?;
        Some(Self { text, form })
    }

    /// Whether the two ids would be confused: they have the same key and one form, so no check
    /// would object.
    pub fn meets(&self, other: &Self) -> bool {
        self.text == other.text && self.form.fits(other.form)
    }
}

/// The bytes of an argument that are hashed; `None` if it can't be in a key.
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

/// Resolves a name to these addresses, for all caches of the process, instead of asking the
/// system's resolver. Connections resolve again at once. There is no way back.
#[cfg(all(feature = "redis", feature = "testing"))]
pub fn resolve(name: &str, addresses: Vec<std::net::SocketAddr>) {
    crate::store::given_names::set(name, addresses);
}
