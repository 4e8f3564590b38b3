//! Servers of many kinds: what they can't do, clusters, and Sentinels.

mod capabilities;
mod cluster;
mod cluster_copies;
mod cluster_operators;
mod sentinel;
mod shop;
