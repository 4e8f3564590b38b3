//! Checks that an encoded value decodes to the same value.
//!
//! The bytes are decoded at once and compared with the original. To do so at every fill would cost
//! as much as a hit, so [`Trust`] chooses: the first fills of each function, each value that uses a
//! part of its type for the first time, and one in sixteen of the others. It also chooses every
//! value whose type decodes by trial (untagged enums, `flatten`), every deep value, and every value
//! of a function that has lost something before, or may lose something of other values.
//!
//! A `PartialEq` alone proves nothing: that of a row may compare its id and nothing else. So what
//! serde writes of both values is compared as well, and what `Debug` shows.

use bytes::Bytes;
use parking_lot::Mutex;

use super::footprint::Footprint;
use super::refusal::Refusal;
use crate::key::text_hash;
use crate::protocol::codec_id::CodecId;
use crate::protocol::packable::Packable;

const CHANGED_REMEDY: &str = "`#[serde(skip)]`, an untagged enum or a `with` that rounds may be \
                              the cause; store a type that serde restores";

/// Decodes the encoded `value` again, and compares.
pub(crate) fn verify(codec: CodecId, value: &dyn Packable, bytes: &Bytes) -> Result<(), Refusal> {
    let Some(back) = value.decoded(codec, bytes) else {
        return Err(value.undecodable(codec, bytes));
    };
    let back = &*back;
    let is_equal = match value.equal(back) {
        // A value that is not equal to itself, such as NaN, can't be compared by `==`.
        Some(false) if value.equal(value) == Some(false) => true,
        said => said.unwrap_or(true),
    };
    if is_equal && is_the_same(codec, value, back, bytes) {
        return Ok(());
    }
    let path = difference(codec, value, back);
    let reason = "comes back as a different value";
    Err(Refusal::new(path, reason, CHANGED_REMEDY))
}

/// Checks that a clone is the same value. A hit from memory is one, and a hit from Redis is not.
pub(crate) fn verify_clone(codec: CodecId, value: &dyn Packable) -> Result<(), Refusal> {
    let clone = &*value.cloned();
    let is_equal = value.equal(clone) != Some(false) || value.equal(value) == Some(false);
    let digest = |value: &dyn Packable| value.contents().digest(codec);
    let is_written_alike = || digest(value) == digest(clone);
    let is_shown_alike = || {
        let texts = || Some((value.text()?, clone.text()?));
        texts().is_none_or(|(one, other)| {
            // The text may be different each time, and so for each clone.
            let again = || {
                let text = value.cloned().text();
                text.is_some_and(|it| text_hash(&it) == text_hash(&other))
            };
            text_hash(&one) == text_hash(&other) || !again()
        })
    };
    if is_equal && is_written_alike() && is_shown_alike() {
        return Ok(());
    }
    let path = difference(codec, value, clone);
    let reason = "has a `Clone` that makes a different value, and a hit from memory is a clone";
    let remedy = "let `Clone` copy the whole value";
    Err(Refusal::new(path, reason, remedy))
}

/// The path at which two values differ, as far as it is seen.
fn difference(codec: CodecId, one: &dyn Packable, other: &dyn Packable) -> String {
    let path = one.contents().difference(codec, other.contents());
    let shown = || differing_line(&one.lines()?, &other.lines()?);
    path.or_else(shown).unwrap_or_default()
}

/// Whether two values are the same where a `PartialEq` of the type's own may not look: a row that
/// is compared by its id, a text without its case.
fn is_the_same(codec: CodecId, value: &dyn Packable, back: &dyn Packable, bytes: &Bytes) -> bool {
    let is_compared = || !crate::base::mutation::is_active("equality-trusted");
    let is_asked = value.equal(back).is_none() || is_compared();
    !is_asked
        || is_written_alike(codec, value, back, bytes) && is_shown_alike(codec, value, back, bytes)
}

/// Whether serde writes both alike. Sets and maps are written in another order each time, and so
/// are lists that are made of them.
fn is_written_alike(
    codec: CodecId,
    value: &dyn Packable,
    back: &dyn Packable,
    bytes: &Bytes,
) -> bool {
    let is_same = |(again, _): (Bytes, Footprint)| again == *bytes;
    if back.contents().to_bytes(codec).is_ok_and(is_same) {
        return true;
    }
    if value.contents().digest(codec) != back.contents().digest(codec) {
        return false;
    }
    // `Debug` shows lists in their order.
    if value.text().is_some() {
        return true;
    }
    let of_back = back.contents().ordered_digest(codec);
    value.contents().ordered_digest(codec) == of_back
        || (1..DECODED).any(|_| {
            let back = value.decoded(codec, bytes);
            back.and_then(|back| back.contents().ordered_digest(codec)) != of_back
        })
}

/// How often a value is decoded to see whether it is different each time.
const DECODED: usize = 16;

/// Whether `Debug` shows the decoded value like `value`. It also shows fields that serde skips. If
/// the text of a type is different each time, it proves nothing.
fn is_shown_alike(
    codec: CodecId,
    value: &dyn Packable,
    back: &dyn Packable,
    bytes: &Bytes,
) -> bool {
    let (Some(one), Some(other)) = (value.text(), back.text()) else {
        return true;
    };
    if one == other || crate::base::mutation::is_active("texts-not-compared") {
        return true;
    }
    let decoded = || {
        let back = value.decoded(codec, bytes)?;
        let text = back.text()?;
        Some((back, text))
    };
    if text_hash(&one) != text_hash(&other) {
        let again = decoded().map(|(_, text)| text_hash(&text));
        return again != Some(text_hash(&other));
    }
    // Nothing but an order differs. The sets and maps whose order is arbitrary may be hidden.
    let of_back = back.contents().hash_of_shown(&other);
    value.contents().hash_of_shown(&one) == of_back
        || (1..DECODED).any(|_| {
            let again = decoded().map(|(back, text)| back.contents().hash_of_shown(&text));
            again != Some(of_back)
        })
}

/// The path of the first line in which two texts of `{:#?}` differ.
fn differing_line(one: &str, other: &str) -> Option<String> {
    let mut steps: Vec<(usize, &str)> = Vec::new();
    let mut others = other.lines();
    for line in one.lines() {
        let indent = line.len() - line.trim_start().len();
        steps.retain(|(other, _)| *other < indent);
        // Lines of the form `name: value,`; the elements of lists have no name.
        if let Some((name, _)) = line.trim_start().split_once(": ") {
            steps.push((indent, name));
        }
        if others.next() != Some(line) {
            let names: Vec<&str> = steps.iter().map(|(_, name)| *name).collect();
            return Some(names.join("."));
        }
    }
    None
}

/// How many values of a function are decoded again at first.
const AT_FIRST: u64 = 8;
/// Later, one in this many.
const ONE_IN: u64 = 16;
/// From this depth on, a codec may refuse to read what it wrote.
const DEEP: u32 = 60;

/// The results of one function's fills so far, for one type and codec.
#[derive(Debug, Default)]
pub(crate) struct Trust(Mutex<Record>);

#[derive(Debug, Default)]
struct Record {
    fills: u64,
    verified: Footprint,
    has_lost: bool,
    /// How many loads have had callers that waited for them.
    waited_for: u64,
    has_lost_clones: bool,
}

impl Trust {
    /// Whether a value with this footprint should be decoded again.
    pub(crate) fn wants(&self, footprint: &Footprint) -> bool {
        if crate::base::mutation::is_active("fills-not-verified") {
            return false;
        }
        let mut record = self.0.lock();
        let fills = record.fills;
        record.fills += 1;
        fills < AT_FIRST
            || fills.is_multiple_of(ONE_IN)
            || record.has_lost
            || footprint.depth >= DEEP
            || !footprint.is_within(&record.verified)
    }

    /// Notes that a value with this footprint came back unchanged.
    pub(crate) fn keeps(&self, footprint: &Footprint) {
        self.0.lock().verified.add(footprint);
    }

    /// Whether this is the function's first value, or has a part that none had before. A field that
    /// is not serialised shows only in values that have it.
    pub(crate) fn is_news(&self, footprint: &Footprint) -> bool {
        let record = self.0.lock();
        record.fills == 1 || !footprint.is_within(&record.verified)
    }

    /// Whether a value should be compared with its clone, before others get one each.
    pub(crate) fn wants_clone(&self) -> bool {
        let mut record = self.0.lock();
        let waited_for = record.waited_for;
        record.waited_for += 1;
        waited_for < AT_FIRST || waited_for.is_multiple_of(ONE_IN) || record.has_lost_clones
    }

    /// Notes that a clone was another value, or shares what its callers can change.
    pub(crate) fn loses_clones(&self) {
        self.0.lock().has_lost_clones = true;
    }

    /// Notes that a value did not come back unchanged, or may not have: every value is decoded
    /// again from now on.
    pub(crate) fn loses(&self) {
        self.0.lock().has_lost = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fills_are_verified_and_then_some() {
        let (trust, footprint) = (Trust::default(), Footprint::default());
        let wanted: Vec<u64> = (0..40).filter(|_| trust.wants(&footprint)).collect();
        assert_eq!(wanted, [0, 1, 2, 3, 4, 5, 6, 7, 16, 32]);
        let mut other = footprint;
        other.note(1, 2);
        assert!(trust.wants(&other), "a part that no value had before");
        trust.keeps(&other);
        assert!(!trust.wants(&other));
        trust.loses();
        assert!(trust.wants(&other), "a function that has lost something");
    }

    #[test]
    fn the_line_that_differs_has_a_path() {
        let text = |secret: &str| {
            format!(
                "User {{\n    id: 1,\n    login: Login {{\n        secret: {secret},\n    }},\n}}"
            )
        };
        let path = differing_line(&text("\"a\""), &text("\"\""));
        assert_eq!(path.as_deref(), Some("login.secret"));
        assert_eq!(differing_line("a", "a"), None);
    }
}
