//! The namespace and the hash key, which keep the keys of deployments apart.

use std::fmt;

use super::bound;
use super::escape::escape;

/// Tells one deployment's keys from another's: the namespace in front, and the secret key of the
/// hash.
#[derive(Clone, Default)]
pub(crate) struct KeySpace {
    pub(crate) namespace: String,
    pub(crate) hash_key: [u8; 16],
}

impl fmt::Debug for KeySpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The hash key is a secret.
        f.debug_struct("KeySpace")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl KeySpace {
    /// The beginning of all keys of a resource.
    pub(crate) fn prefix(&self, resource: &str) -> String {
        format!("{}{resource}:", self.namespace)
    }

    /// The key of the generation of `dep`.
    pub(crate) fn generation(&self, dep: &str) -> String {
        format!("{}@gen:{dep}", self.namespace)
    }

    /// The key of the generation of a tag. No resource name contains `~`, so it can't collide.
    pub(crate) fn tag(&self, tag: &str) -> String {
        let mut key = self.generation("~");
        let start = key.len();
        escape(tag, &mut key);
        bound::bound(&mut key, start, &self.hash_key);
        key
    }
}

/// Keys for ids and tags that are text already, and may be too long for a key.
#[cfg(any(feature = "outbox-postgres", feature = "admin"))]
impl KeySpace {
    /// The key of a row. `front` precedes its id, and has been bounded separately.
    pub(crate) fn rendered(&self, resource: &str, front: &str, id: &str) -> String {
        let mut key = self.prefix(resource);
        key.push_str(front);
        self.bounded(key, id)
    }

    #[cfg(feature = "outbox-postgres")]
    pub(crate) fn rendered_tag(&self, tag: &str) -> String {
        self.bounded(self.generation("~"), tag)
    }

    fn bounded(&self, mut key: String, text: &str) -> String {
        let start = key.len();
        key.push_str(text);
        bound::bound_parts(&mut key, start, &self.hash_key);
        key
    }
}
