//! Names: how a call becomes a key, and which generations the entry depends on.
//!
//! An *entity* is one row under its primary id, `users:1`. Anything else is *derived*:
//! `users:list:<hash>`, where the hash covers the arguments. Ids are escaped and hashes have a
//! fixed width, so two calls never share a key by accident.

mod bound;
mod canonical;
mod dependency;
mod disambiguator;
mod draft;
mod error;
mod escape;
mod id;
mod id_form;
mod kind;
mod left_out;
mod manual;
mod names;
mod space;
mod writer;

pub(crate) use self::dependency::{NamedDependency, RowOf};
pub(crate) use self::error::{ElementOrder, KeyError};
#[cfg(any(test, feature = "testing", feature = "outbox-postgres"))]
pub(crate) use self::id::render as render_id;
pub(crate) use self::id_form::IdForm;
pub use self::kind::EntryKind;
pub use self::left_out::{Argument, argument};
pub(crate) use self::left_out::{
    ArgumentCheck, Node, WrittenFor, examined, hash_of_shown, hides, leaves_out, may_lose, record,
    shared_state, text_hash, written_names,
};
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::manual::canonical_bytes;
pub use self::manual::{IntoKey, Key, KeyPart};
pub(crate) use self::names::{is_op, is_resource};
pub(crate) use self::space::KeySpace;
pub(crate) use self::writer::{Given, GivenKind, KeyWriter};
