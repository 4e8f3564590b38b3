//! Whether what was encoded comes back as the value that it was.
//!
//! An encoded value is decoded at once and compared with the original. To do so at every fill would cost as much as a
//! hit, so [`Trust`] chooses: the first fills of each function, each value that uses a part of its type which none
//! before it has used, one in sixteen of the others, and all of those whose type decodes by trial (untagged enums,
//! `flatten`), that are deep, or whose function has lost something before.

use std::fmt::Debug;

use bytes::Bytes;
use parking_lot::Mutex;

use super::footprint::Footprint;
use super::refusal::Refusal;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec_id::CodecId;

/// How the values of a function are compared: found by the chain in [`shape`](crate::shape), from what the type has.
pub trait Compare<V> {
    /// Whether both are equal; `None` where nobody can say.
    fn equal(one: &V, other: &V) -> Option<bool>;
    /// The value as text, one field a line.
    fn lines(value: &V) -> Option<String>;
}

/// By what serde writes of them: the type has no `PartialEq`.
#[derive(Debug)]
pub struct AsEncoded;
/// By `PartialEq`.
#[derive(Debug)]
pub struct AsEqual;
/// By `PartialEq`, and with `Debug` to say which field differs.
#[derive(Debug)]
pub struct AsShown;

impl<V> Compare<V> for AsEncoded {
    fn equal(_: &V, _: &V) -> Option<bool> {
        None
    }
    fn lines(_: &V) -> Option<String> {
        None
    }
}

impl<V: PartialEq> Compare<V> for AsEqual {
    fn equal(one: &V, other: &V) -> Option<bool> {
        Some(one == other)
    }
    fn lines(_: &V) -> Option<String> {
        None
    }
}

impl<V: PartialEq + Debug> Compare<V> for AsShown {
    fn equal(one: &V, other: &V) -> Option<bool> {
        Some(one == other)
    }
    fn lines(value: &V) -> Option<String> {
        Some(format!("{value:#?}"))
    }
}

const CHANGED_REMEDY: &str = "`#[serde(skip)]`, an untagged enum or a `with` that rounds may be the cause; store a type that serde restores";

/// Decodes what `value` was encoded to, and compares.
pub(crate) fn verify<V: Cacheable, C: Compare<V>>(
    codec: CodecId,
    value: &V,
    bytes: &Bytes,
) -> Result<(), Refusal> {
    let Some(back) = V::from_bytes(codec, bytes) else {
        return Err(V::undecodable(codec, bytes));
    };
    let is_equal = match C::equal(value, &back) {
        // What is not equal to itself, as NaN is not, can't be told by `==`.
        Some(false) if C::equal(value, value) == Some(false) => None,
        said => said,
    };
    let is_equal = is_equal.unwrap_or_else(|| value.digest(codec) == back.digest(codec));
    if is_equal {
        return Ok(());
    }
    let path = value.difference(codec, &back);
    let path = path.or_else(|| differing_line(&C::lines(value)?, &C::lines(&back)?));
    let reason = "comes back as another value";
    Err(Refusal::new(
        path.unwrap_or_default(),
        reason,
        CHANGED_REMEDY,
    ))
}

/// The path of the first line in which two texts of `{:#?}` differ.
fn differing_line(one: &str, other: &str) -> Option<String> {
    let mut steps: Vec<(usize, &str)> = Vec::new();
    let mut others = other.lines();
    for line in one.lines() {
        let indent = line.len() - line.trim_start().len();
        steps.retain(|(other, _)| *other < indent);
        // Of `name: value,`; the elements of lists have no name.
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

/// So many values of a function are decoded again at first.
const AT_FIRST: u64 = 8;
/// One in so many later.
const ONE_IN: u64 = 16;
/// From this depth on a codec may refuse to read what it wrote.
const DEEP: u32 = 60;

/// What the fills of one function have shown so far, for one type and codec.
#[derive(Debug, Default)]
pub(crate) struct Trust(Mutex<Record>);

#[derive(Debug, Default)]
struct Record {
    fills: u64,
    verified: Footprint,
    has_lost: bool,
}

impl Trust {
    /// Whether a value with this footprint is to be decoded again.
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

    /// A value with this footprint came back as it was.
    pub(crate) fn keeps(&self, footprint: &Footprint) {
        self.0.lock().verified.add(footprint);
    }

    /// A value did not.
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
