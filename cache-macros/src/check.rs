//! The rules that combine an option with another option, or with the signature.

mod cached;
mod combined;
mod common;
mod connection_candidates;
mod connection_names;
mod detached;
mod invalidates;
mod key;
mod left_out;
mod transactions;
mod types;
mod values;

pub(crate) use self::cached::cached;
pub(crate) use self::invalidates::invalidates;

#[cfg(test)]
mod tests;
