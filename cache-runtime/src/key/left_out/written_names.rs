//! The names with which a value was written.

use serde::Serialize;

use super::record::{Data, Node, record};
use super::written_for::WrittenFor;

/// Notes each name that `value` is written with, by a path that `step` makes of `around` and the
/// names on the way.
pub(crate) fn written_names<T: Serialize + ?Sized>(
    value: &T,
    around: u64,
    step: fn(u64, &str) -> u64,
    note: &mut dyn FnMut(u64),
) {
    if let Some(node) = record(value, WrittenFor::Programs) {
        node.names(around, step, note);
    }
}

impl Node {
    fn names(&self, around: u64, step: fn(u64, &str) -> u64, note: &mut dyn FnMut(u64)) {
        let mut part = |name: &str, part: Option<&Self>| {
            let path = step(around, name);
            note(path);
            if let Some(part) = part {
                part.names(path, step, note);
            }
        };
        match &self.data {
            Data::Some(inner) | Data::Newtype(_, inner) => part("inside", Some(inner)),
            Data::UnitVariant(it) => part(it.name, None),
            Data::NewtypeVariant(it, inner) => part(it.name, Some(inner)),
            Data::TupleVariant(it, _, all) => {
                all.iter().for_each(|node| part(it.name, Some(node)));
            }
            Data::TupleStruct(_, _, all) | Data::Items(all, _) => {
                all.iter().for_each(|node| part("item", Some(node)));
            }
            Data::Struct(_, fields) => {
                let all = fields.all.iter();
                all.for_each(|(name, node)| part(name, node.as_ref()));
            }
            Data::StructVariant(it, fields) => {
                part(it.name, None);
                let all = fields.all.iter();
                all.for_each(|(name, node)| part(name, node.as_ref()));
            }
            Data::Map(all, order) => all
                .iter()
                .for_each(|(key, value)| match (&key.data, order) {
                    // A struct with flattened parts, whose names are the keys.
                    (Data::Leaf { text, .. }, None) => part(text, Some(value)),
                    _ => part("value", Some(value)),
                }),
            Data::Leaf { .. } | Data::Unit | Data::UnitStruct(_) | Data::None => {}
        }
    }
}
