//! A small HTTP API over SQLite or PostgreSQL whose reads are cached with `cache-runtime`.
//!
//! Where to look first:
//!
//! * [`service`]: the two attributes at work, once for every resource;
//! * [`users`] and [`products`]: what a resource is: a struct, a table and one implementation;
//! * [`filter`]: how two request bodies that mean the same come to share a cache key;
//! * [`api`]: the HTTP side, which knows nothing of the cache but the `Cache-Status` header;
//! * [`outbox`]: how PostgreSQL tells the cache of changes, whoever makes them;
//! * [`server`] and [`access`]: what clients may take of the server, and who may empty the cache.

pub mod access;
pub mod api;
pub mod config;
pub mod db;
pub mod error;
pub mod filter;
pub mod input;
pub mod outbox;
pub mod products;
pub mod purchases;
pub mod resource;
mod resources;
mod seed;
pub mod server;
pub mod service;
pub mod sql;
pub mod tag;
pub mod users;

use cache_runtime::CacheMap;

use crate::products::Product;
use crate::resource::Resource;
use crate::users::User;

/// What the annotated functions read and write: the service is written once, for every resource.
#[must_use]
pub fn cache_map() -> CacheMap {
    cache_runtime::map()
        .bind("R::RESOURCE", resources::RESOURCES)
        .bind("User::RESOURCE", [User::RESOURCE])
        .bind("Product::RESOURCE", [Product::RESOURCE])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_annotations_fit_together() {
        let findings = super::cache_map().check();
        assert!(findings.is_empty(), "{findings:#?}");
    }
}
