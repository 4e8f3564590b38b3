//! A small HTTP API over SQLite or PostgreSQL whose reads are cached with `cache-runtime`.
//!
//! Where to look first:
//!
//! * [`service`]: the two attributes at work, once for every resource;
//! * [`users`] and [`products`]: what a resource is: a struct, a table and one implementation;
//! * [`filter`]: how two request bodies that mean the same come to share a cache key;
//! * [`api`]: the HTTP side, which knows nothing of the cache but the `Cache-Status` header.

pub mod api;
pub mod config;
pub mod db;
pub mod error;
pub mod filter;
pub mod input;
pub mod products;
pub mod resource;
mod seed;
pub mod service;
pub mod sql;
pub mod users;
