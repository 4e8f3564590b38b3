//! Findings while a value is serialised: the parts of its type that it uses, and those that the
//! codec would lose.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::hash::Hash;

use serde::ser;

use super::footprint::Footprint;
use super::path::{ValuePath, hash_of, mix};
use super::refusal::{Refusal, name};
use crate::protocol::codec_id::CodecId;

const FLOAT_REMEDY: &str = "use an `Option` or an enum for such numbers, or `codec = \"msgpack\"`";
const SOME_REMEDY: &str =
    "use an enum instead of the inner `Option` or unit, or `codec = \"postcard\"`";
const DEPTH_REMEDY: &str = "store it as a list of its parts";
/// The other codecs read 128 levels of lists and maps, and postcard has no limit of its own. Values
/// in newtypes and options are counted here, too.
const MOST_LEVELS: u32 = 512;
const FIELD_REMEDY: &str = "remove `skip_serializing_if`, or leave `codec` out";

/// The record of one serialization.
pub(crate) struct Check {
    pub(super) codec: CodecId,
    footprint: RefCell<Footprint>,
    /// Why it failed, if the check refused the value.
    refusal: RefCell<Option<Refusal>>,
    /// The path at which it failed, if the codec refused the value.
    failed: RefCell<Option<String>>,
    /// A hash of all scalars with their places.
    digest: Option<Cell<u64>>,
    /// Whether order counts in it where it may be a part of the value: in lists, tuples and ordered
    /// maps.
    pub(super) is_ordered: bool,
    /// The scalars themselves, with their paths.
    leaves: Option<RefCell<Vec<(String, String)>>>,
}

impl Check {
    pub(super) fn new(codec: CodecId) -> Self {
        Self {
            codec,
            footprint: RefCell::default(),
            refusal: RefCell::default(),
            failed: RefCell::default(),
            digest: None,
            is_ordered: false,
            leaves: None,
        }
    }

    pub(super) fn with_digest(codec: CodecId, is_ordered: bool) -> Self {
        Self {
            digest: Some(Cell::new(0)),
            is_ordered,
            ..Self::new(codec)
        }
    }

    pub(super) fn with_leaves(codec: CodecId) -> Self {
        Self {
            leaves: Some(RefCell::default()),
            ..Self::new(codec)
        }
    }

    pub(super) fn footprint(&self) -> Footprint {
        *self.footprint.borrow()
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest.as_ref().map_or(0, Cell::get)
    }

    pub(super) fn into_leaves(self) -> Vec<(String, String)> {
        let mut leaves = self.leaves.map(RefCell::into_inner).unwrap_or_default();
        leaves.sort_unstable();
        leaves
    }

    pub(super) fn makes_digest(&self) -> bool {
        self.digest.is_some()
    }

    /// Whether it looks at the scalars themselves, not only at their kinds.
    pub(super) fn needs_scalars(&self) -> bool {
        self.digest.is_some() || self.leaves.is_some()
    }

    /// Notes where the serialization has failed; the first place counts, which is the innermost.
    pub(super) fn failed_at(&self, path: &ValuePath<'_>) {
        let mut failed = self.failed.borrow_mut();
        failed.get_or_insert_with(|| path.path());
    }

    /// Why a serialization failed that ended with `error`.
    pub(super) fn into_refusal(self, error: impl Display) -> Refusal {
        let path = self.failed.into_inner().unwrap_or_default();
        self.refusal.into_inner().unwrap_or_else(|| {
            Refusal::new(
                path,
                format!("has no {} form: {error}", name(self.codec)),
                "store a type that has one, or use another `codec`",
            )
        })
    }

    /// Notes that a place holds a value of this kind.
    pub(super) fn note(&self, path: &ValuePath<'_>, kind: u64) {
        let mut footprint = self.footprint.borrow_mut();
        footprint.note(path.hash, kind);
        footprint.depth = footprint.depth.max(path.depth);
    }

    /// Notes a scalar, or the length of a collection.
    pub(super) fn leaf<L: Hash + ToString + ?Sized>(
        &self,
        path: &ValuePath<'_>,
        kind: u64,
        value: &L,
    ) {
        self.note(path, kind);
        if let Some(digest) = &self.digest {
            let leaf = mix(path.exact, hash_of(&(kind, value)));
            digest.set(digest.get().wrapping_add(leaf));
        }
        if let Some(leaves) = &self.leaves {
            let leaf = (path.path(), format!("{kind} {}", value.to_string()));
            leaves.borrow_mut().push(leaf);
        }
    }

    fn refuse<E: ser::Error>(
        &self,
        path: &ValuePath<'_>,
        reason: String,
        remedy: &'static str,
    ) -> E {
        let mut refusal = self.refusal.borrow_mut();
        refusal.get_or_insert_with(|| Refusal::new(path.path(), reason, remedy));
        E::custom("refused")
    }

    /// Checks how deeply a part is nested. Each level takes stack, here and where the value is
    /// read.
    pub(super) fn nested<E: ser::Error>(&self, path: &ValuePath<'_>) -> Result<(), E> {
        if path.levels <= MOST_LEVELS || crate::base::mutation::is_active("deep-values-encoded") {
            return Ok(());
        }
        let mut refusal = self.refusal.borrow_mut();
        refusal.get_or_insert_with(|| {
            let reason = format!("is nested more than {MOST_LEVELS} values deep");
            Refusal::new(String::new(), reason, DEPTH_REMEDY)
        });
        Err(E::custom("refused"))
    }

    /// Checks a number.
    pub(super) fn float<E: ser::Error>(
        &self,
        path: &ValuePath<'_>,
        is_finite: bool,
    ) -> Result<(), E> {
        if self.codec != CodecId::Json
            || is_finite
            || crate::base::mutation::is_active("encoder-loses")
        {
            return Ok(());
        }
        let reason = "is infinite or NaN, which JSON can't represent".to_owned();
        Err(self.refuse(path, reason, FLOAT_REMEDY))
    }

    /// Checks a value that is written as `null`, or as `nil`.
    pub(super) fn null<E: ser::Error>(&self, path: &ValuePath<'_>) -> Result<(), E> {
        let is_lost = path.is_in_some && self.codec != CodecId::Postcard;
        if !is_lost || crate::base::mutation::is_active("encoder-loses") {
            return Ok(());
        }
        let reason = format!(
            "is `Some` of a value that {} would read back as `None`",
            name(self.codec)
        );
        Err(self.refuse(path, reason, SOME_REMEDY))
    }

    /// Checks a field that is left out.
    pub(super) fn skipped<E: ser::Error>(&self, path: &ValuePath<'_>) -> Result<(), E> {
        if self.codec != CodecId::Postcard || crate::base::mutation::is_active("encoder-loses") {
            return Ok(());
        }
        let reason = "is left out, and postcard would read the next field in its place".to_owned();
        Err(self.refuse(path, reason, FIELD_REMEDY))
    }
}
