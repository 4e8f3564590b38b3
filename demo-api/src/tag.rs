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
    /// The cache's contents and statistics, and how to invalidate them.
    Cache,
    /// The state of the database and the cache.
    Health,
}
