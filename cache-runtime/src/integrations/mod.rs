//! One file per framework or library that the cache works with.

#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "axum")]
mod axum;
pub(crate) mod encoded;
#[cfg_attr(
    not(any(
        feature = "actix",
        feature = "axum",
        feature = "poem",
        feature = "tower"
    )),
    allow(dead_code, unused_imports, reason = "the frameworks' features are off")
)]
mod http;
#[cfg(any(feature = "actix", feature = "poem", feature = "tower"))]
mod layer_options;
#[cfg(feature = "poem")]
pub mod poem;
#[cfg(any(feature = "actix", feature = "poem", feature = "tower"))]
pub(crate) mod request_parts;
pub(crate) mod settled;
#[cfg(feature = "sqlx")]
pub mod sqlx;
#[cfg(feature = "tower")]
pub mod tower;
