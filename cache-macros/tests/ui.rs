//! What the attributes accept and how they refuse, by theme: one mistake a file, and one file with many.
//!
//! `TRYBUILD=overwrite cargo test -p cache-macros --test ui` writes the expected output anew.

#[test]
fn diagnostics() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/options/*.rs");
    cases.compile_fail("tests/ui/signature/*.rs");
    cases.compile_fail("tests/ui/types/*.rs");
}
