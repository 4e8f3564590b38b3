//! Compares what was serialised of a value with its size.

use super::comparer::ValueComparer;
use super::completeness::Completeness;
use super::facts::{Fact, Kind, fact, keep, of_variant};
use super::reason::Reason;
use super::record::{Data, Node};

impl ValueComparer {
    /// Looks for values that are larger than what was serialised of them.
    pub(super) fn by_size(&mut self, node: &Node) {
        self.size(node);
    }

    fn size(&mut self, node: &Node) -> Completeness {
        if node.is_trusted() {
            return self.keep_type(node);
        }
        // An empty map that is flattened is not seen, and `Debug` shows it.
        let is_shown = self.has_text
            && matches!(node.data, Data::Map(..))
            && !crate::base::mutation::is_active("empty-maps-left-out");
        if let Some(bytes) = node.room().filter(|_| !is_shown) {
            let ty = node.ty.to_owned();
            return self.refuse(Reason::Room { ty, bytes });
        }
        if let Some(bytes) = node.beside_its_number() {
            let ty = node.ty.to_owned();
            return self.refuse(Reason::Larger { ty, bytes });
        }
        if let Some(field) = self.skips_any_value(node) {
            let ty = node.ty.to_owned();
            return self.refuse(Reason::Skipped { ty, field });
        }
        if node.may_hide() {
            let ty = node.ty.to_owned();
            return self.refuse(Reason::Hidden { ty });
        }
        let is_sized = node.parts().is_some();
        match &node.data {
            Data::Leaf { size, .. } => {
                self.keep(node, Kind::Leaf, "", *size, Completeness::All);
                Completeness::This
            }
            Data::Unit | Data::UnitStruct(_) if node.is_more_than_a_unit() => {
                let (ty, bytes) = (node.ty.to_owned(), node.size);
                self.refuse(Reason::Larger { ty, bytes })
            }
            Data::Unit => Completeness::This,
            Data::UnitVariant(it) => {
                let len = of_variant(it.index, 0);
                self.keep(node, Kind::UnitVariant, it.name, len, Completeness::All);
                Completeness::This
            }
            Data::UnitStruct(name) => {
                self.keep(node, Kind::UnitStruct, name, 0, Completeness::All);
                Completeness::This
            }
            Data::None => {
                self.keep(node, Kind::Some, "", 1, Completeness::This);
                Completeness::This
            }
            Data::Some(inner) => {
                let inside = self.size(inner);
                self.keep(node, Kind::Some, "", 1, Completeness::This);
                match node.is_of_std() {
                    true => self.all_of(node, inside),
                    false => inside.this(),
                }
            }
            Data::Newtype(name, inner) => {
                let inside = self.size(inner);
                self.keep(node, Kind::Newtype, name, 1, inside);
                match is_sized {
                    true => self.all_of(node, inside),
                    false => inside.this(),
                }
            }
            Data::NewtypeVariant(it, inner) => {
                let inside = self.size(inner);
                let len = of_variant(it.index, 1);
                self.keep(node, Kind::NewtypeVariant, it.name, len, inside);
                inside.this()
            }
            Data::TupleStruct(name, said, all) => {
                let inside = self.sizes(all);
                self.keep(node, Kind::TupleStruct, name, *said, inside);
                inside.this()
            }
            Data::TupleVariant(it, said, all) => {
                let inside = self.sizes(all);
                let len = of_variant(it.index, *said);
                self.keep(node, Kind::TupleVariant, it.name, len, inside);
                inside.this()
            }
            Data::Struct(name, fields) => {
                let inside = self.sizes(fields.all.iter().filter_map(|(_, node)| node.as_ref()));
                self.keep(node, Kind::Struct, name, fields.said, inside);
                inside.this()
            }
            Data::StructVariant(it, fields) => {
                let inside = self.sizes(fields.all.iter().filter_map(|(_, node)| node.as_ref()));
                if fields.is_complete() {
                    let len = of_variant(it.index, fields.said);
                    self.keep(node, Kind::StructVariant, it.name, len, inside);
                }
                inside.this()
            }
            Data::Items(all, _) => {
                let inside = self.sizes(all);
                match node.is_of_std() {
                    true => self.items(node, Kind::Items, inside, all.is_empty()),
                    false => inside.this(),
                }
            }
            Data::Map(all, _) => {
                let inside = self.sizes(all.iter().flat_map(|(key, value)| [key, value]));
                match node.is_of_std() {
                    true => self.items(node, Kind::Map, inside, all.is_empty()),
                    false => inside.this(),
                }
            }
        }
    }

    /// A field that a struct without a `Debug` leaves out, and whose value is not known.
    ///
    /// `skip_serializing_if` may be true for several values. An `Option` that another value showed
    /// as `Some` is taken to be `None` where it is skipped, a `bool` to be the other flag, and a
    /// text, list or map that was seen with one character or element to be empty. A number, or a
    /// type of its own, may be any.
    fn skips_any_value(&self, node: &Node) -> Option<&'static str> {
        let (Data::Struct(_, fields), true) = (&node.data, self.keeps) else {
            return None;
        };
        let [of, _] = node.subjects;
        let mut skipped = None;
        for (at, (name, field)) in fields.all.iter().enumerate() {
            let of_field = of.kind(Kind::Skippable, name, at);
            match field {
                Some(field) if field.leaves_one_value() => keep(of_field, Fact::Itself),
                None if fact(of_field).is_none() => skipped = skipped.or(Some(*name)),
                _ => {}
            }
        }
        skipped.filter(|_| !crate::base::mutation::is_active("skipped-values-trusted"))
    }

    fn sizes<'n>(&mut self, nodes: impl IntoIterator<Item = &'n Node>) -> Completeness {
        let mut all = Completeness::All;
        for node in nodes {
            all = all.and(self.size(node));
        }
        all
    }
}
