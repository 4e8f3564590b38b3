//! How values are compared, by the traits that their type has.

use std::fmt::Debug;

/// How the values of a function are compared. The chain in [`shape`](crate::shape) finds it from
/// the traits that the type implements.
pub trait Compare<V>: 'static {
    /// Whether both are equal; `None` if it can't be told.
    fn equal(one: &V, other: &V) -> Option<bool>;
    /// The text of the value's `Debug`.
    fn text(value: &V) -> Option<String>;
    /// The same, one field per line.
    fn lines(value: &V) -> Option<String>;
}

/// Compares what serde writes: the type has neither `PartialEq` nor `Debug`.
#[derive(Debug)]
pub struct AsEncoded;
/// Compares what serde writes and what `Debug` shows: the type has no `PartialEq`.
#[derive(Debug)]
pub struct AsText;
/// Compares by `PartialEq`, and what serde writes: the type has no `Debug`.
#[derive(Debug)]
pub struct AsEqual;
/// Compares by `PartialEq`, what serde writes, and what `Debug` shows.
#[derive(Debug)]
pub struct AsShown;

impl<V> Compare<V> for AsEncoded {
    fn equal(_: &V, _: &V) -> Option<bool> {
        None
    }
    fn text(_: &V) -> Option<String> {
        None
    }
    fn lines(_: &V) -> Option<String> {
        None
    }
}

impl<V: Debug> Compare<V> for AsText {
    fn equal(_: &V, _: &V) -> Option<bool> {
        None
    }
    fn text(value: &V) -> Option<String> {
        Some(format!("{value:?}"))
    }
    fn lines(value: &V) -> Option<String> {
        Some(format!("{value:#?}"))
    }
}

impl<V: PartialEq> Compare<V> for AsEqual {
    fn equal(one: &V, other: &V) -> Option<bool> {
        Some(one == other)
    }
    fn text(_: &V) -> Option<String> {
        None
    }
    fn lines(_: &V) -> Option<String> {
        None
    }
}

impl<V: PartialEq + Debug> Compare<V> for AsShown {
    fn equal(one: &V, other: &V) -> Option<bool> {
        Some(one == other)
    }
    fn text(value: &V) -> Option<String> {
        Some(format!("{value:?}"))
    }
    fn lines(value: &V) -> Option<String> {
        Some(format!("{value:#?}"))
    }
}
