//! The shape of a type as its `Deserialize` asks for it: names of fields and variants, options,
//! lists, kinds of scalars.
//!
//! The shape is part of an entry's fingerprint. So after a type has changed, its old entries are
//! misses by themselves, in every codec. [`probe`] finds the shape: it deserializes the type from
//! made-up values, once per type and process, and notes each request. The technique is that of
//! `serde-reflection`, which needs its caller's help where strings are validated or a type contains
//! itself. Here a part that can't be read is skipped. A partial shape is useful too, as long as
//! each process finds the same one.
//!
//! Serde buffers the value of a tagged, untagged or flattened part, and reads it from the buffer.
//! Such a part is asked afterwards, with many values, and its errors are noted
//! ([`buffered_probe`]).
//!
//! Some things stay hidden, because the type reads them without a request to the deserializer:
//! names that a hand-written `Deserialize` compares, and optional fields behind `flatten`. So a type
//! with such parts is also written, once a value of it has been read. Of fields that
//! `skip_serializing_if` leaves out there, only the size is seen. Changes of `Serialize` alone are
//! hidden in other types. For all of these, the attribute has `version`.
//!
//! A type that contains itself is read to a limited depth, and one that would never end is given up
//! ([`endless`]).

mod access;
mod buffered_probe;
mod endless;
mod error;
mod plan;
mod probe;
mod sample_value;
mod shape;
mod text;

use std::any::TypeId;
use std::collections::BTreeMap;

use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::shape::Schema;
use crate::base::mutation;

/// The schema of `T`: probed once, then remembered. Also returns whether it was known already.
pub(crate) fn find<T: Serialize + DeserializeOwned + 'static>() -> (Schema, bool) {
    match mutation::is_active("flattened-fields-unseen") {
        true => find_of_read::<T>(),
        false => find_by((TypeId::of::<T>(), true), probe::run_and_write::<T>),
    }
}

/// The schema of a `T` that can only be read.
pub(crate) fn find_of_read<T: DeserializeOwned + 'static>() -> (Schema, bool) {
    find_by((TypeId::of::<T>(), false), probe::run::<T>)
}

fn find_by(id: (TypeId, bool), probe: fn() -> Schema) -> (Schema, bool) {
    static KNOWN: RwLock<BTreeMap<(TypeId, bool), Schema>> = RwLock::new(BTreeMap::new());

    let known = KNOWN.read().get(&id).copied();
    // No lock is held here: the type's own code runs.
    match known {
        Some(known) => (known, true),
        None => {
            let schema = probe();
            (*KNOWN.write().entry(id).or_insert(schema), false)
        }
    }
}

#[cfg(test)]
mod tests;
