//! A small HTTP API over SQLite or PostgreSQL whose reads are cached with `cache-runtime`.
//!
//! Where to start:
//!
//! * [`service`]: the two attributes, once for every resource;
//! * [`users`] and [`products`]: what a resource is: a struct, a table and one implementation;
//! * [`filter`]: how two request bodies with the same meaning share a cache key;
//! * [`api`]: the HTTP side, which knows of the cache by its middleware, and by `/cache`;
//! * [`outbox`]: how the database reports changes to the cache, whoever makes them;
//! * [`server`] and [`access`]: limits for clients, and who may empty the cache.

pub mod access;
pub mod api;
pub mod config;
pub mod db;
pub mod error;
pub mod filter;
pub mod input;
mod mutation;
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

use cache_runtime::Catalog;

use crate::products::Product;
use crate::resource::Resource;
use crate::users::User;

/// The catalog of the annotated functions. The service is written once, for every resource, so the
/// catalog needs the names that its constant stands for.
#[must_use]
pub fn catalog() -> Catalog {
    cache_runtime::catalog()
        .bind("R::RESOURCE", resources::RESOURCES)
        .bind("User::RESOURCE", [User::RESOURCE])
        .bind("Product::RESOURCE", [Product::RESOURCE])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_annotations_fit_together() {
        let findings = super::catalog().check();
        assert!(findings.is_empty(), "{findings:#?}");
    }
}
