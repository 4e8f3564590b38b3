//! Texts and other values that types may accept.

/// Offered one after the other where a type wants a text and refuses the one before: numbers, dates, addresses, ids.
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

/// The same where a type wants bytes.
pub(super) const BYTES: &[&[u8]] = &[&[], &[0; 16], &[0; 4]];

/// In how many kinds something is offered to a type that takes anything: see the probe.
pub(super) const ANY: usize = 7;
