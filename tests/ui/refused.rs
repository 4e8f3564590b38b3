//! What has to be refused, as one crate: the compiler reads the runtime once, and then reports all
//! mistakes. The test `ui` compiles it, and compares what is said of each file.

#![allow(warnings, clippy::all, reason = "each file is about its own mistake")]

// Formatted by hand: some mistakes are in how it is written.
#[rustfmt::skip]
mod options;
#[rustfmt::skip]
mod signature;
#[rustfmt::skip]
mod types;
