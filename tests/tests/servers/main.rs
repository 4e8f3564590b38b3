//! Servers of many kinds: what they can't do, clusters, and Sentinels.

mod capabilities;
mod cluster;
mod sentinel;
mod shop;
