//! Writes the key of one call.

use serde::Serialize;

use super::bound::{self, ARGUMENT_LIMIT, LONGEST_ID, push_hash};
use super::canonical;
use super::disambiguator::Disambiguator;
use super::draft::Draft;
use super::error::KeyError;
use super::id;
use super::id_form::IdForm;
use super::space::KeySpace;
use crate::base::nonce::hash128;

/// Builds one key from left to right.
#[derive(Debug, Default)]
pub(crate) struct KeyWriter {
    pub(super) text: String,
    /// The canonical bytes of the arguments, hashed together at the end.
    pub(crate) args: Vec<u8>,
    /// The parts of them that these bytes don't show.
    disambiguator: Disambiguator,
    /// The id, if it is not written yet.
    draft: Draft,
    /// The draft's text.
    noted: String,
    /// Whether the text is written as the key grows, and not from a draft.
    at_once: bool,
}

/// The arguments of a call, as far as they distinguish calls of one function. Calls for which it is
/// equal have equal keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) kind: GivenKind,
    /// A number, or a part of `bytes` that may be compared first.
    pub(crate) number: u64,
    /// Empty for a number.
    pub(crate) bytes: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GivenKind {
    Natural,
    Negative,
    /// The text of an id as it was given.
    Text,
    /// The canonical bytes of the arguments.
    Arguments,
    /// The whole key. The number identifies the form of the id.
    Key,
}

impl KeyWriter {
    pub(crate) fn new(space: &KeySpace, resource: &str) -> Self {
        let mut key = Self::default();
        key.begin(&space.prefix(resource));
        key
    }

    /// Forgets the last key, and keeps its memory.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.args.clear();
        self.disambiguator = Disambiguator::default();
        self.noted.clear();
        self.draft = Draft::None;
        self.at_once = false;
    }

    /// From here on, the text is written as the key grows.
    pub(crate) fn begin_at_once(&mut self, prefix: &str) {
        self.at_once = true;
        self.begin(prefix);
    }

    /// Begins the text. `prefix` is the [beginning of all keys](KeySpace::prefix) of the resource.
    pub(crate) fn begin(&mut self, prefix: &str) {
        self.text.clear();
        self.text.reserve(prefix.len() + 48);
        self.text.push_str(prefix);
    }

    /// Whether the text is written as the key grows.
    #[inline]
    pub(crate) fn is_at_once(&self) -> bool {
        self.at_once
    }

    #[inline]
    pub(crate) fn op(&mut self, op: &str) {
        self.text.push_str(op);
        self.text.push(':');
    }

    /// Notes the id, to be written later. Returns false if it has to be written at once.
    #[inline]
    pub(crate) fn notes_id<T: Serialize + ?Sized>(&mut self, id: &T) -> bool {
        self.draft = Draft::of(id, &mut self.noted);
        self.draft != Draft::None
    }

    /// The id or the arguments, which tell this call apart from others of its function. `form` is
    /// the form of a written id.
    #[inline(always)]
    pub(crate) fn given(&self, form: impl FnOnce() -> u64) -> Given<'_> {
        let (kind, number, bytes) = match self.draft {
            Draft::Natural(n) => (GivenKind::Natural, n, &[][..]),
            Draft::Negative(n) => (GivenKind::Negative, n.cast_unsigned(), &[][..]),
            Draft::Text => (GivenKind::Text, 0, self.noted.as_bytes()),
            Draft::None if self.at_once => (GivenKind::Key, form(), self.text.as_bytes()),
            Draft::None => (GivenKind::Arguments, 0, &*self.args),
        };
        Given {
            kind,
            number,
            bytes,
        }
    }

    /// Writes the noted id, whose type has this name.
    pub(crate) fn noted_id(&mut self, type_name: &str, hash_key: &[u8; 16]) -> IdForm {
        let start = self.text.len();
        let form = id::render_draft(self.draft, &self.noted, type_name, &mut self.text);
        bound::bound(&mut self.text, start, hash_key);
        form
    }

    /// The id is written, and what tells the call apart is the text from here on.
    pub(crate) fn forget_note(&mut self) {
        self.draft = Draft::None;
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
        let encoded = canonical::encode(arg, &mut self.args, &mut self.disambiguator);
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
        self.disambiguator.version()
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

    /// The id, if it is a natural number that is not written yet: most are.
    #[inline]
    pub(crate) fn natural(&self) -> Option<u64> {
        match self.draft {
            Draft::Natural(number) => Some(number),
            _ => None,
        }
    }

    /// Whether there is only a number so far, which takes no memory.
    #[inline]
    pub(crate) fn is_number(&self) -> bool {
        matches!(self.draft, Draft::Natural(_) | Draft::Negative(_))
    }

    /// Whether the writer's memory is worth keeping.
    #[inline]
    pub(crate) fn is_small(&self) -> bool {
        self.text.capacity() + self.args.capacity() + self.noted.capacity() <= SPARE_LIMIT
    }
}

/// The memory of a larger key is not kept.
const SPARE_LIMIT: usize = 1024;
