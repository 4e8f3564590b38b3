//! Compares what was serialised of a value with its `Debug` text.

use super::comparer::ValueComparer;
use super::completeness::Completeness;
use super::debug_text::{Form, Shown};
use super::facts::Kind;
use super::names::{plain, usual_name};
use super::reason::Reason;
use super::record::{Data, Fields, Node};
use super::same_text::same;

impl ValueComparer {
    /// Whether everything that `Debug` shows was serialised.
    pub(super) fn by_text(&mut self, node: &Node, shown: &Shown<'_>) -> bool {
        self.compare(node, shown) != Completeness::No
    }

    fn compare(&mut self, node: &Node, shown: &Shown<'_>) -> Completeness {
        if node.is_trusted() {
            // A number that is shown as a struct belongs to another part.
            return match node.is_text_or_number() && shown.is_named() {
                true => self.differs(node),
                false => self.keep_type(node),
            };
        }
        let name = node.name();
        let is_own = shown.name == name;
        match (&node.data, &shown.form) {
            (Data::None, Form::Word) if name == "Option" => {
                self.kept(node, Kind::Some, "", 1, Completeness::This)
            }
            (Data::Some(inner), Form::Tuple(items)) if name == "Option" && shown.name == "Some" => {
                let inside = self.each([&**inner], items, node);
                self.keep(node, Kind::Some, "", 1, Completeness::This);
                self.all_of(node, inside)
            }
            (Data::Items(all, _), Form::List(items)) if node.is_of_std() => {
                let inside = self.each(all, items, node);
                self.items(node, Kind::Items, inside, all.is_empty())
            }
            (Data::Items(all, _), Form::Tuple(items))
                if node.is_of_std() && shown.name.is_empty() =>
            {
                let inside = self.each(all, items, node);
                self.items(node, Kind::Items, inside, all.is_empty())
            }
            (Data::Items(all, _), Form::Braces(entries)) if node.is_of_std() => {
                let items = entries.iter().map(|(item, _)| item);
                let inside = self.each(all, items, node);
                self.items(node, Kind::Items, inside, all.is_empty())
            }
            (Data::Map(all, _), Form::Braces(entries)) if node.is_of_std() => {
                let nodes = all.iter().flat_map(|(key, value)| [key, value]);
                let parts = entries
                    .iter()
                    .flat_map(|(key, value)| std::iter::once(key).chain(value));
                let inside = self.each(nodes, parts, node);
                self.items(node, Kind::Map, inside, all.is_empty())
            }
            (Data::Struct(serde_name, fields), _) => {
                self.fields_of(node, serde_name, fields, shown)
            }
            (Data::TupleStruct(serde_name, said, all), Form::Tuple(items)) if is_own => {
                let inside = self.each(all, items, node);
                if all.len() == items.len() {
                    self.keep(node, Kind::TupleStruct, serde_name, *said, inside);
                }
                inside.this()
            }
            (Data::Newtype(serde_name, inner), Form::Tuple(items)) if is_own => {
                let inside = self.each([&**inner], items, node);
                if items.len() == 1 {
                    self.keep(node, Kind::Newtype, serde_name, 1, inside);
                }
                self.all_of(node, inside)
            }
            // Its `Debug` text is that of its contents.
            (Data::Newtype(..), Form::Leaf) => self.same_or_not(node, shown),
            (Data::UnitStruct(serde_name), Form::Word) if is_own => {
                self.kept(node, Kind::UnitStruct, serde_name, 0, Completeness::All)
            }
            _ => match self.variant(node, shown) {
                Some(result) => result,
                None => self.same_or_not(node, shown),
            },
        }
    }

    /// A variant of an enum that is shown as it is written. `None` for any other value.
    fn variant(&mut self, node: &Node, shown: &Shown<'_>) -> Option<Completeness> {
        let result = match (&node.data, &shown.form) {
            (Data::UnitVariant(it), Form::Word) => {
                self.kept_variant(node, Kind::UnitVariant, *it, 0, Completeness::All)
            }
            // `SocketAddr::V4` is shown as what it holds.
            (Data::NewtypeVariant(it, inner), Form::Leaf) if node.is_of_std() => {
                let inside = self.compare(inner, shown);
                self.kept_variant(node, Kind::NewtypeVariant, *it, 1, inside)
            }
            (Data::NewtypeVariant(it, inner), Form::Tuple(items)) => {
                let inside = self.each([&**inner], items, node);
                match items.len() {
                    1 => self.kept_variant(node, Kind::NewtypeVariant, *it, 1, inside),
                    _ => inside.this(),
                }
            }
            (Data::TupleVariant(it, said, all), Form::Tuple(items)) => {
                let inside = self.each(all, items, node);
                match all.len() == items.len() {
                    true => self.kept_variant(node, Kind::TupleVariant, *it, *said, inside),
                    false => inside.this(),
                }
            }
            (Data::StructVariant(it, fields), Form::Fields(parts)) => {
                let inside = self.fields(&fields.all, parts, node);
                match fields.all.len() == parts.len() && fields.is_complete() {
                    true => self.kept_variant(node, Kind::StructVariant, *it, fields.said, inside),
                    false => inside.this(),
                }
            }
            (Data::StructVariant(it, fields), Form::Word) if fields.all.is_empty() => self
                .kept_variant(
                    node,
                    Kind::StructVariant,
                    *it,
                    fields.said,
                    Completeness::All,
                ),
            _ => return None,
        };
        Some(result)
    }

    /// A struct, or a variant of an enum that is written as one.
    fn fields_of(
        &mut self,
        node: &Node,
        serde_name: &'static str,
        fields: &Fields,
        shown: &Shown<'_>,
    ) -> Completeness {
        let none = Vec::new();
        let parts = match &shown.form {
            Form::Fields(parts) => parts,
            Form::Word => &none,
            _ => {
                return self
                    .adjacent(fields, shown)
                    .unwrap_or_else(|| self.same_or_not(node, shown));
            }
        };
        if fields.has_tag() {
            // Nothing else says which variant it is: the tag is a text without a position.
            let tag = fields.tag(parts.len());
            if tag.is_none_or(|tag| usual_name(tag) != shown.name) {
                let ty = node.ty.to_owned();
                return self.refuse(Reason::Variant { ty });
            }
            let rest = fields.all.get(1..).unwrap_or_default();
            return self.fields(rest, parts, node).this();
        }
        if shown.name != node.name() {
            return self.adjacent(fields, shown).unwrap_or_else(|| {
                let ty = node.ty.to_owned();
                self.refuse(Reason::Variant { ty })
            });
        }
        let inside = self.fields(&fields.all, parts, node);
        if fields.all.len() == parts.len() && fields.is_complete() {
            self.keep(node, Kind::Struct, serde_name, fields.said, inside);
        }
        inside.this()
    }

    /// A variant next to its tag (`#[serde(tag, content)]`). `None` if it is not one.
    fn adjacent(&mut self, fields: &Fields, shown: &Shown<'_>) -> Option<Completeness> {
        let (_, Some(tag)) = fields.all.first()? else {
            return None;
        };
        if !tag.ty.ends_with("::AdjacentlyTaggedEnumVariant") {
            return None;
        }
        let content = match fields.all.get(1) {
            Some((_, content)) => content.as_ref(),
            None => None,
        };
        let Some(content) = content else {
            return matches!(shown.form, Form::Word).then_some(Completeness::This);
        };
        // serde's own wrapper for several fields.
        let is_wrapped = content.ty.contains("__AdjacentlyTagged");
        let inside = match (&content.data, &shown.form) {
            (Data::Items(all, _), Form::Tuple(items)) if is_wrapped => {
                self.each(all, items, content)
            }
            (Data::Struct(_, inner), Form::Fields(parts)) if is_wrapped => {
                self.fields(&inner.all, parts, content)
            }
            (_, Form::Tuple(items)) if !is_wrapped => self.each([content], items, content),
            _ => return None,
        };
        Some(inside.this())
    }

    /// A part of a struct or variant. A part outside of the value's memory was made during
    /// serialisation, and is compared by its text each time.
    fn part(&mut self, of: &Node, part: &Node, shown: &Shown<'_>) -> Completeness {
        let verdict = self.compare(part, shown);
        if of.is_of_std() || of.is_wrapper() || of.holds(part) || verdict == Completeness::No {
            return verdict;
        }
        match same(part, shown) {
            true => Completeness::Once,
            false => self.differs(of),
        }
    }

    fn each<'n, 's>(
        &mut self,
        nodes: impl IntoIterator<Item = &'n Node>,
        shown: impl IntoIterator<Item = &'s Shown<'s>>,
        of: &Node,
    ) -> Completeness {
        let (mut nodes, mut shown) = (nodes.into_iter(), shown.into_iter());
        let mut all = Completeness::All;
        loop {
            match (nodes.next(), shown.next()) {
                (Some(node), Some(shown)) => all = all.and(self.part(of, node, shown)),
                (None, None) => return all,
                (None, Some(_)) if of.is_of_std() => return self.differs(of),
                (None, Some(shown)) => {
                    self.is_hidden |= shown.hides_itself();
                    let ty = of.ty.to_owned();
                    return self.refuse(Reason::Field { ty, field: None });
                }
                (Some(_), None) => return self.differs(of),
            }
        }
    }

    /// Whether the fields of a struct or variant are those that `Debug` shows, with nothing left
    /// out.
    fn fields(
        &mut self,
        fields: &[(&'static str, Option<Node>)],
        parts: &[(&str, Shown<'_>)],
        of: &Node,
    ) -> Completeness {
        let missing = |name: Option<&str>| Reason::Field {
            ty: of.ty.to_owned(),
            field: name.map(str::to_owned),
        };
        if fields.len() < parts.len() {
            let names: Vec<String> = fields.iter().map(|(name, _)| plain(name)).collect();
            let mut others = parts
                .iter()
                .filter(|(part, _)| !names.contains(&plain(part)));
            let first = others.clone().next();
            self.is_hidden |= others.any(|(_, shown)| shown.hides_itself());
            return match first {
                Some(("", _)) => self.differs(of),
                first => self.refuse(missing(first.map(|(name, _)| *name))),
            };
        }
        if fields.len() > parts.len() {
            return self.differs(of);
        }
        let mut all = Completeness::All;
        for ((name, node), (_, shown)) in fields.iter().zip(parts) {
            all = all.and(match node {
                Some(node) => self.part(of, node, shown),
                None if shown.is_usual() => {
                    self.skips_several |= shown.is_usual_of_several();
                    Completeness::This
                }
                // A condition of the type's own may leave out several values.
                None => self.refuse(missing(Some(name))),
            });
        }
        all
    }

    /// A value with a custom `Serialize`: its text is compared with the `Debug` text each time.
    fn same_or_not(&mut self, node: &Node, shown: &Shown<'_>) -> Completeness {
        if same(node, shown.content(node.name())) {
            return Completeness::This;
        }
        let is_variant = !shown.name.is_empty() && shown.name != node.name();
        match (is_variant, &node.data) {
            (
                true,
                Data::Leaf { .. }
                | Data::Unit
                | Data::UnitVariant(_)
                | Data::Newtype(..)
                | Data::Items(..),
            ) => {
                let ty = node.ty.to_owned();
                self.refuse(Reason::Variant { ty })
            }
            _ => self.differs(node),
        }
    }
}
