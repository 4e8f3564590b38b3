//! The headings of the API documentation.

use poem_openapi::Tags;

/// The headings of the API documentation.
#[derive(Debug, Tags)]
pub enum ApiTag {
    /// Every write makes the cache forget all of `users:*`.
    Users,
    /// An update makes the cache forget that product and everything derived from it.
    Products,
    /// One transaction that writes a user and a product.
    Purchases,
    /// What the cache holds, and how to make it forget.
    Cache,
    /// Whether the parts are there.
    Health,
}
