//! One file per framework or library that the cache works with.

pub(crate) mod encoded;
#[cfg(feature = "poem")]
pub mod poem;
#[cfg(feature = "sqlx")]
pub mod sqlx;
