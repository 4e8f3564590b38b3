//! Finds the sets and maps without an order in the text of `Debug`.
//!
//! `Debug` shows a `HashSet` as it shows an `IndexSet`, whose order may change the answer. Which of
//! them it is, the serialised value tells.

use super::debug_text::{Form, Shown};
use super::names::plain;
use super::record::{Data, Fields, Node};
use crate::key::error::ElementOrder;

/// The sets and maps of a text whose order is arbitrary.
pub(super) enum Unordered {
    All,
    /// Those that begin at these places.
    At(Vec<usize>),
}

impl Unordered {
    /// Those of an argument with this text. A set or map that is not found has an order, which at
    /// worst tells equal values apart.
    pub(super) fn of(node: &Node, shown: &Shown<'_>) -> Self {
        let mut places = Places::default();
        places.find(node, shown);
        Self::At(places.of_none)
    }

    /// Those of a value that a function has returned. If a map is written by hand, flattened, or as
    /// a list of pairs, its order may be any: then none counts, since a value that only seems to
    /// come back in another order must not be refused.
    pub(super) fn of_value(node: &Node, shown: &Shown<'_>) -> Self {
        let mut places = Places::default();
        places.find(node, shown);
        match places.is_unsure || has_map_by_hand(node) {
            true => Self::All,
            false => Self::At(places.of_none),
        }
    }

    /// A hash of the text that ignores their order.
    pub(super) fn hash(&self, shown: &Shown<'_>) -> u64 {
        shown.hash(&|shown| self.has(shown))
    }

    fn has(&self, shown: &Shown<'_>) -> bool {
        match self {
            Self::All => true,
            Self::At(places) => places.contains(&shown.place()),
        }
    }
}

/// Where a value's sets and maps are in its text.
#[derive(Default)]
struct Places {
    /// Those without an order.
    of_none: Vec<usize>,
    /// Whether one of them is written as a list.
    is_unsure: bool,
}

impl Places {
    fn find(&mut self, node: &Node, shown: &Shown<'_>) {
        match (&node.data, &shown.form) {
            (Data::Items(all, order), Form::Braces(entries)) => {
                self.is_unsure |= entries.iter().any(|(_, value)| value.is_some());
                self.note(Some(*order), shown);
                self.pairs(all, entries.iter().map(|(item, _)| item));
            }
            (Data::Map(all, order), Form::Braces(entries)) => {
                self.note(*order, shown);
                let keys = entries.iter().map(|(key, _)| key);
                self.pairs(all.iter().map(|(key, _)| key), keys);
                let values = entries.iter().filter_map(|(_, value)| value.as_ref());
                self.pairs(all.iter().map(|(_, value)| value), values);
            }
            (
                Data::Items(all, _) | Data::TupleStruct(_, _, all) | Data::TupleVariant(_, _, all),
                Form::List(items) | Form::Tuple(items),
            ) if all.len() == items.len() => self.pairs(all, items),
            (
                Data::Some(inner) | Data::Newtype(_, inner) | Data::NewtypeVariant(_, inner),
                Form::Tuple(items),
            ) => self.pairs([&**inner], items),
            (Data::Struct(_, fields) | Data::StructVariant(_, fields), Form::Fields(parts)) => {
                self.fields(fields, parts);
            }
            // Of a struct with a flattened part, the keys are the names of its fields.
            (Data::Map(all, _), Form::Fields(parts)) => {
                for (key, value) in all {
                    if let Data::Leaf { text, .. } = &key.data {
                        self.field(text, value, parts);
                    }
                }
                self.only(node, parts);
            }
            (Data::Items(..), Form::Fields(parts)) => self.only(node, parts),
            // A wrapper that is written as its contents, or shown as them.
            (_, Form::Tuple(items)) if items.len() == 1 => self.pairs([node], items),
            (Data::Newtype(_, inner), _) => self.find(inner, shown),
            _ => {}
        }
    }

    fn note(&mut self, order: Option<ElementOrder>, shown: &Shown<'_>) {
        if order == Some(ElementOrder::None) {
            self.of_none.push(shown.place());
        }
    }

    fn pairs<'n, 's>(
        &mut self,
        nodes: impl IntoIterator<Item = &'n Node>,
        shown: impl IntoIterator<Item = &'s Shown<'s>>,
    ) {
        for (node, shown) in nodes.into_iter().zip(shown) {
            self.find(node, shown);
        }
    }

    /// A struct of one field that is written as that field.
    fn only(&mut self, node: &Node, parts: &[(&str, Shown<'_>)]) {
        if let [(_, shown)] = parts {
            self.find(node, shown);
        }
    }

    fn fields(&mut self, fields: &Fields, parts: &[(&str, Shown<'_>)]) {
        if fields.all.len() == parts.len() {
            for ((_, node), (_, shown)) in fields.all.iter().zip(parts) {
                if let Some(node) = node {
                    self.find(node, shown);
                }
            }
            return;
        }
        for (name, node) in &fields.all {
            if let Some(node) = node {
                self.field(name, node, parts);
            }
        }
    }

    fn field(&mut self, name: &str, node: &Node, parts: &[(&str, Shown<'_>)]) {
        let name = plain(name);
        if let Some((_, shown)) = parts.iter().find(|(part, _)| plain(part) == name) {
            self.find(node, shown);
        }
    }
}

/// Whether nothing tells what the order of a map in it is worth.
fn has_map_by_hand(node: &Node) -> bool {
    match &node.data {
        Data::Map(_, None) => true,
        Data::Map(all, _) => all
            .iter()
            .any(|(key, value)| has_map_by_hand(key) || has_map_by_hand(value)),
        Data::Items(all, _) | Data::TupleStruct(_, _, all) | Data::TupleVariant(_, _, all) => {
            all.iter().any(has_map_by_hand)
        }
        Data::Some(inner) | Data::Newtype(_, inner) | Data::NewtypeVariant(_, inner) => {
            has_map_by_hand(inner)
        }
        Data::Struct(_, fields) | Data::StructVariant(_, fields) => {
            fields.nodes().any(has_map_by_hand)
        }
        Data::Leaf { .. }
        | Data::Unit
        | Data::UnitStruct(_)
        | Data::None
        | Data::UnitVariant(_) => false,
    }
}
