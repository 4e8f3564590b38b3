//! Servers of many kinds: what they can't do, clusters, and Sentinels.

mod capabilities;
mod cluster;
mod cluster_atomic;
mod cluster_connections;
mod cluster_cut;
mod cluster_local_entries;
mod cluster_operators;
mod cluster_oversized;
mod cluster_partition;
mod cluster_paused;
mod sentinel;
mod shop;
