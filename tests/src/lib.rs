//! The harness of the tests that need real servers and whole processes.
//!
//! [`RedisServer`] and [`Postgres`] are private servers on free loopback ports, [`Demo`] is the
//! demo API as a process of its own, [`Proxy`] is between a client and a server and causes network
//! faults on request. Each stops what it started when it is dropped, and also when the test's
//! process ends before that. The system's own servers are never used.
//!
//! If a program can't be started, the test panics and names the fix: a missing server is a failed
//! test, not a skipped one.

#[cfg(doctest)]
mod book;
mod cluster;
mod demo;
mod document;
mod frames;
mod links;
mod memcached;
mod postgres;
mod process;
mod proxy;
mod redis;
mod sentinel;
mod slot_moves;
mod tasks;
mod tls;
mod wait;

pub use cluster::{RedisCluster, Refused};
pub use demo::{Answer, CacheStatus, Demo, demo_program};
pub use document::{documents, write_section};
pub use links::Links;
pub use memcached::MemcachedServer;
pub use postgres::Postgres;
pub use process::{Output, Process};
pub use proxy::{Mode, Proxy};
pub use redis::{RedisOptions, RedisServer};
pub use sentinel::Sentinels;
pub use tasks::spawn;
pub use tls::Certificate;
pub use wait::{eventually, free_port, test_timeout};
