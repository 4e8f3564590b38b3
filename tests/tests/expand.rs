//! What the attributes write, as `cargo expand` prints it.
//!
//! `MACROTEST=overwrite cargo test -p cache-tests --test expand` writes the snapshots anew.

#[test]
fn snapshots() {
    macrotest::expand("expand/*.rs");
}
