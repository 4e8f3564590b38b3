//! Texts and other values that types may accept.

/// Offered one after the other where a type wants a text, until it accepts one: numbers, dates,
/// addresses, ids.
pub(super) const TEXTS: &[&str] = &[
    "a",
    "1",
    "2000-01-01T00:00:00Z",
    "2000-01-01",
    "2000-01-01T00:00:00",
    "00:00:00",
    "00000000-0000-0000-0000-000000000000",
    "127.0.0.1",
    "127.0.0.1:80",
    "a://a",
    "a@a.aa",
    "UTC",
    "",
];

/// The same for a type that wants bytes.
pub(super) const BYTES: &[&[u8]] = &[&[], &[0; 16], &[0; 4]];

/// The number of kinds of value that the probe offers to a type that accepts anything.
pub(super) const ANY: usize = 7;
