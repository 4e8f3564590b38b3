//! Switches that take one technique out, so that a test can be seen to fail without it (mutation
//! testing).
//!
//! They exist only where the crate is compiled with `--cfg cache_mutations`. Everywhere else
//! [`is_active`] is a constant `false`, and the compiler removes the code behind it.
//! `scripts/mutations` compiles the tests once with the `cfg`, and runs them once per switch; the
//! environment variable `CACHE_MUTATION` names the switch. A file `tests/mutations/NAME.switch`
//! says what the switch takes out and which test has to fail. Unlike a patch, a switch survives a
//! rename of the code around it.

/// Whether the technique of this name is taken out.
#[cfg(not(cache_mutations))]
#[inline(always)]
pub(crate) const fn is_active(_: &str) -> bool {
    false
}

/// Whether the technique of this name is taken out.
#[cfg(cache_mutations)]
pub(crate) fn is_active(name: &str) -> bool {
    use std::sync::LazyLock;
    static ACTIVE: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("CACHE_MUTATION").ok());
    ACTIVE.as_deref() == Some(name)
}
