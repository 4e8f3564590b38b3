//! Writes the key of one call.

use serde::Serialize;

use super::apart::Apart;
use super::bound::{self, ARGUMENT_LIMIT, LONGEST_ID, push_hash};
use super::canonical;
use super::error::KeyError;
use super::id::{self, IdForm};
use super::space::KeySpace;
use crate::base::nonce::hash128;

/// Builds one key from left to right.
#[derive(Debug, Default)]
pub(crate) struct KeyWriter {
    pub(super) text: String,
    /// The canonical bytes of the arguments, hashed together at the end.
    pub(crate) args: Vec<u8>,
    /// What these don't show.
    apart: Apart,
}

impl KeyWriter {
    pub(crate) fn new(space: &KeySpace, resource: &str) -> Self {
        let mut key = Self::default();
        key.begin(&space.prefix(resource));
        key
    }

    /// Starts a new key in the memory of the last one. `prefix` is the [beginning of all
    /// keys](KeySpace::prefix) of the resource.
    #[inline]
    pub(crate) fn begin(&mut self, prefix: &str) {
        self.args.clear();
        self.apart = Apart::default();
        self.text.clear();
        self.text.reserve(prefix.len() + 48);
        self.text.push_str(prefix);
    }

    #[inline]
    pub(crate) fn op(&mut self, op: &str) {
        self.text.push_str(op);
        self.text.push(':');
    }

    /// Writes the id; a long one as its beginning and a hash.
    #[inline]
    pub(crate) fn id<T: Serialize + ?Sized>(
        &mut self,
        id: &T,
        hash_key: &[u8; 16],
    ) -> Result<IdForm, KeyError> {
        let start = self.text.len();
        let form = id::render(id, &mut self.text);
        let is_too_long = self.text.len() - start > LONGEST_ID;
        bound::bound(&mut self.text, start, hash_key);
        if is_too_long {
            return Err(KeyError::too_long());
        }
        form
    }

    /// The context that precedes the rest, as it is written in keys: `@7@`.
    pub(crate) fn front(&mut self, front: &str) {
        self.text.push_str(front);
    }

    /// The context behind an id.
    pub(crate) fn behind(&mut self, text: &str) {
        self.text.push('@');
        self.text.push_str(text);
    }

    pub(crate) fn arg<T: Serialize + ?Sized>(&mut self, arg: &T) -> Result<(), KeyError> {
        let encoded = canonical::encode(arg, &mut self.args, &mut self.apart);
        if self.args.len() > ARGUMENT_LIMIT {
            // The arguments won't be hashed, and their memory is not kept.
            self.args = Vec::new();
            return Err(KeyError::too_long());
        }
        encoded
    }

    /// The part of the entry's version that tells arguments apart which are written alike.
    #[inline]
    pub(crate) fn version(&self) -> u32 {
        self.apart.version()
    }

    /// Ends the key with the hash of the arguments (there may be none).
    #[inline]
    pub(crate) fn end_hashed(&mut self, space: &KeySpace) {
        push_hash(&mut self.text, hash128(&space.hash_key, &self.args));
    }

    /// The text written so far.
    #[inline]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Hands over the key with its memory.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// Whether the writer's memory is worth keeping.
    #[inline]
    pub(crate) fn is_small(&self) -> bool {
        self.text.capacity() + self.args.capacity() <= SPARE_LIMIT
    }
}

/// The memory of a larger key is not kept.
const SPARE_LIMIT: usize = 1024;
