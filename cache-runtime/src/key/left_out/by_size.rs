//! Compares what was serialised of a value with its size.

use super::comparer::ValueComparer;
use super::completeness::Completeness;
use super::facts::{Fact, Kind, fact, keep};
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
        if let Some(reason) = self.more_than_written(node) {
            return self.refuse(reason);
        }
        let is_sized = node.parts().is_some();
        match &node.data {
            Data::Leaf { size, .. } => self.kept(node, Kind::Leaf, "", *size, Completeness::All),
            Data::Unit => Completeness::This,
            Data::UnitStruct(name) => self.kept(node, Kind::UnitStruct, name, 0, Completeness::All),
            Data::UnitVariant(it) => {
                self.kept_variant(node, Kind::UnitVariant, *it, 0, Completeness::All)
            }
            Data::None => self.kept(node, Kind::Some, "", 1, Completeness::This),
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
                self.kept_variant(node, Kind::NewtypeVariant, *it, 1, inside)
            }
            Data::TupleStruct(name, said, all) => {
                let inside = self.sizes(all);
                self.kept(node, Kind::TupleStruct, name, *said, inside)
            }
            Data::TupleVariant(it, said, all) => {
                let inside = self.sizes(all);
                self.kept_variant(node, Kind::TupleVariant, *it, *said, inside)
            }
            Data::Struct(name, fields) => {
                let inside = self.sizes(fields.nodes());
                self.kept(node, Kind::Struct, name, fields.said, inside)
            }
            Data::StructVariant(it, fields) => {
                let inside = self.sizes(fields.nodes());
                match fields.is_complete() {
                    true => self.kept_variant(node, Kind::StructVariant, *it, fields.said, inside),
                    false => inside.this(),
                }
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

    /// Why the value itself, apart from its parts, may hold more than was serialised of it.
    fn more_than_written(&self, node: &Node) -> Option<Reason> {
        let ty = || node.ty.to_owned();
        // An empty map that is flattened is not seen, and `Debug` shows it.
        let is_shown = self.has_text
            && matches!(node.data, Data::Map(..))
            && !crate::base::mutation::is_active("empty-maps-left-out");
        if let Some(bytes) = node.room().filter(|_| !is_shown) {
            return Some(Reason::Room { ty: ty(), bytes });
        }
        if let Some(bytes) = node.beside_its_number() {
            return Some(Reason::Larger { ty: ty(), bytes });
        }
        if let Some(field) = self.skips_any_value(node) {
            return Some(Reason::Skipped { ty: ty(), field });
        }
        if node.may_hide() {
            return Some(Reason::Hidden { ty: ty() });
        }
        let is_unit = matches!(node.data, Data::Unit | Data::UnitStruct(_));
        (is_unit && node.is_more_than_a_unit()).then(|| Reason::Larger {
            ty: ty(),
            bytes: node.size,
        })
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
