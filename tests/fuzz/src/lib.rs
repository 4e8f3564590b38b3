//! What the fuzz targets check: the properties of `tests/tests/properties`, which `cargo test`
//! tries with fewer inputs.

#[path = "../../tests/properties/holds/mod.rs"]
pub mod holds;
