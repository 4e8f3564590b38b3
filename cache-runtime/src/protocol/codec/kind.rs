//! The kinds of a leaf, for the footprint.

pub(super) const UNIT: u64 = 1;
pub(super) const NONE: u64 = 2;
pub(super) const SOME: u64 = 3;
pub(super) const BOOL: u64 = 4;
pub(super) const CHAR: u64 = 5;
pub(super) const TEXT: u64 = 6;
pub(super) const BYTES: u64 = 7;
pub(super) const VARIANT: u64 = 8;
pub(super) const LIST: u64 = 10;
pub(super) const MAP: u64 = 12;
pub(super) const INTEGER: u64 = 20;
pub(super) const F32: u64 = 40;
pub(super) const F64: u64 = 41;
/// Added to the number of parts of a tuple.
pub(super) const PARTS: u64 = 50;
