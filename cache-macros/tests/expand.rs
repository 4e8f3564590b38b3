//! What the attributes write, as `cargo expand` prints it.
//!
//! `MACROTEST=overwrite cargo test -p cache-macros --test expand` writes the snapshots anew.

#[test]
fn snapshots() {
    macrotest::expand("tests/expand/*.rs");
}
