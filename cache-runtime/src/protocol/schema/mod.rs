//! The shape of a type as its `Deserialize` asks for it: names of fields and variants, options, lists, kinds of scalars.
//!
//! It joins the fingerprint of an entry, so that an entry of a type that has changed is a miss by itself, in every codec.
//! It is found by [`probe`]: the type is deserialized from made-up values, once for each type of a process, and what it
//! asks for on the way is noted. The technique is that of `serde-reflection`, which needs the help of its caller where
//! strings are validated or a type contains itself; here a part that can't be read is left aside, and a partial shape is
//! one too, as long as each process finds the same.
//!
//! Not found: what a type reads without a question to the deserializer (names that a hand-written `Deserialize` compares,
//! optional fields behind `flatten` and in untagged enums, fields of internally tagged enums). For changes there, the
//! attribute has `version`.

mod access;
mod error;
mod plan;
mod probe;
mod shape;
mod text;

use std::any::TypeId;
use std::collections::BTreeMap;

use parking_lot::RwLock;
use serde::de::DeserializeOwned;

pub(crate) use self::shape::Schema;

/// The schema of `T`: probed once, then remembered.
pub(crate) fn of<T: DeserializeOwned + 'static>() -> Schema {
    static KNOWN: RwLock<BTreeMap<TypeId, Schema>> = RwLock::new(BTreeMap::new());

    let id = TypeId::of::<T>();
    let known = KNOWN.read().get(&id).copied();
    // Without the lock: a type's own code runs here.
    known.unwrap_or_else(|| {
        let schema = probe::run::<T>();
        *KNOWN.write().entry(id).or_insert(schema)
    })
}

#[cfg(test)]
mod tests;
