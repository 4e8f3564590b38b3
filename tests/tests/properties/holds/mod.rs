//! What holds for any bytes whatever: each function takes some, makes of them what it is about, and
//! panics where it does not hold. `cargo test` calls them with a few thousand inputs, and the fuzz
//! targets of `tests/fuzz` with as many as there is time for.

pub mod config;
pub mod entry;
pub mod filter;
pub mod generation;
pub mod keys;

use arbitrary::{Arbitrary, Result, Unstructured};

/// A target's name, and what holds.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 5] = [
    ("config", config::holds),
    ("entry", entry::holds),
    ("filter", filter::holds),
    ("generation", generation::holds),
    ("keys", keys::holds),
];

/// A few of something, and rarely many.
fn some<'a, T: Arbitrary<'a>>(input: &mut Unstructured<'a>, most: usize) -> Result<Vec<T>> {
    let number = input.int_in_range(0..=most)?;
    (0..number).map(|_| input.arbitrary()).collect()
}

/// A text: one of these, which are known to be awkward, or any.
fn text(input: &mut Unstructured<'_>, awkward: &[&str]) -> Result<String> {
    if input.ratio(3, 4)? {
        input.choose(awkward).map(|text| (*text).to_owned())
    } else {
        input.arbitrary()
    }
}

/// Puts other bytes in place of a few.
fn damage(bytes: &mut [u8], input: &mut Unstructured<'_>) -> Result<()> {
    let Some(last) = bytes.len().checked_sub(1) else {
        return Ok(());
    };
    for _ in 0..input.int_in_range(0..=3)? {
        bytes[input.int_in_range(0..=last)?] = input.arbitrary()?;
    }
    Ok(())
}
