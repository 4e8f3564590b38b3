//! The API over HTTP, with the cache off, in memory, over Redis, with both tiers, and by two
//! processes in turn.
//!
//! `REALWORLD_SEED` gives another random sequence, `REALWORLD_REQUESTS` a longer one.

mod backend;
mod random;
mod story;
