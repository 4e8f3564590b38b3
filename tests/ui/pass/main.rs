//! What the attributes accept: each file compiles without a warning, and its `main` passes.

#![allow(
    clippy::let_underscore_future,
    clippy::needless_return,
    clippy::todo,
    reason = "they are in the files for what the compiler itself says of them"
)]

pub mod blocking;
pub mod forbidden;
pub mod generated_by_macros;
pub mod hygiene;
pub mod lints;
pub mod locals;
pub mod pointers;
pub mod renamed;
pub mod traits_for_all_types;

#[test]
fn blocking_runs() {
    blocking::main();
}

#[test]
fn forbidden_runs() {
    forbidden::main();
}

#[test]
fn generated_by_macros_runs() {
    generated_by_macros::main();
}

#[test]
fn hygiene_runs() {
    hygiene::main();
}

#[test]
fn lints_runs() {
    lints::main();
}

#[test]
fn locals_runs() {
    locals::main();
}

#[test]
fn pointers_runs() {
    pointers::main();
}

#[test]
fn renamed_runs() {
    renamed::main();
}

#[test]
fn traits_for_all_types_runs() {
    traits_for_all_types::main();
}
