//! The switches of `scripts/mutations`, which take a technique out so that a test can be seen to
//! fail without it. A demo that is compiled with them (`cfg(cache_mutations)`) is for tests alone:
//! one of them opens `DELETE /cache` to everybody. `cargo build` makes one without.

/// Whether the technique of this name is taken out; `false` in every usual build.
pub(crate) fn is_active(name: &str) -> bool {
    cfg!(cache_mutations) && std::env::var("CACHE_MUTATION").is_ok_and(|active| active == name)
}
