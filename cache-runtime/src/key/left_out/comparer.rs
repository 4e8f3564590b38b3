//! Compares what was serialised of a value with its `Debug` text, or with its size.

use super::debug_text::{Form, Shown};
use super::facts::{Fact, Kind, Subject, fact, keep, of_variant};
use super::reason::Reason;
use super::record::{Data, Fields, Node};

/// Whether a value leaves something out, from the weakest statement to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Completeness {
    No,
    /// This one does not, by its numbers and texts. Nothing follows for others.
    Once,
    /// This one does not.
    This,
    /// No value of its type does.
    All,
}

impl Completeness {
    fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// Limits the verdict to this value.
    fn this(self) -> Self {
        self.min(Self::This)
    }
}

/// Compares values, and stores what it learns about types.
pub(super) struct ValueComparer {
    has_text: bool,
    keeps: bool,
    /// The first thing that is left out.
    pub(super) reason: Option<Reason>,
}

impl ValueComparer {
    pub(super) fn new(has_text: bool) -> Self {
        Self {
            has_text,
            keeps: true,
            reason: None,
        }
    }

    /// One that stores nothing, because its input is only a hint.
    pub(super) fn of_a_hint() -> Self {
        Self {
            has_text: false,
            keeps: false,
            reason: None,
        }
    }

    fn learn(&self, node: &Node, subject: impl FnOnce(Subject) -> Subject, fact: Fact) {
        if self.keeps {
            let [plain, with_text] = node.subjects;
            keep(subject(if self.has_text { with_text } else { plain }), fact);
        }
    }

    fn refuse(&mut self, reason: Reason) -> Completeness {
        // As a hint it says nothing, and must not hide another reason.
        if self.keeps || !matches!(reason, Reason::Hidden { .. }) {
            self.reason.get_or_insert(reason);
        }
        Completeness::No
    }

    fn differs(&mut self, node: &Node) -> Completeness {
        let ty = node.ty.to_owned();
        self.refuse(Reason::Otherwise { ty })
    }

    /// Stores that values of this kind leave out nothing themselves, or nothing at all.
    fn keep(&self, node: &Node, kind: Kind, name: &'static str, len: usize, inside: Completeness) {
        let fact = match inside {
            Completeness::No | Completeness::Once => return,
            Completeness::This => Fact::Itself,
            Completeness::All => Fact::All,
        };
        // The size shows that there is more than the text. Without a text, it must be a known fact.
        let is_known = match kind {
            Kind::Struct | Kind::TupleStruct | Kind::Newtype => node.parts().is_some(),
            Kind::Leaf => !node.is_wrapper(),
            _ => true,
        };
        if node.room().is_none() && (self.has_text || is_known) {
            self.learn(node, |of| of.kind(kind, name, len), fact);
        }
    }

    fn keep_type(&self, node: &Node) -> Completeness {
        for subject in node.subjects {
            keep(subject, Fact::All);
        }
        Completeness::All
    }

    /// Stores that no value of a type leaves anything out, if this one's contents prove it.
    fn all_of(&self, node: &Node, inside: Completeness) -> Completeness {
        if inside == Completeness::All && node.room().is_none() {
            self.learn(node, |of| of, Fact::All);
            return Completeness::All;
        }
        inside.this()
    }

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
                self.keep(node, Kind::Some, "", 1, Completeness::This);
                Completeness::This
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
                self.keep(node, Kind::UnitStruct, serde_name, 0, Completeness::All);
                Completeness::This
            }
            (Data::UnitVariant(it), Form::Word) => {
                let len = of_variant(it.index, 0);
                self.keep(node, Kind::UnitVariant, it.name, len, Completeness::All);
                Completeness::This
            }
            // `SocketAddr::V4` is shown as what it holds.
            (Data::NewtypeVariant(it, inner), Form::Leaf) if node.is_of_std() => {
                let inside = self.compare(inner, shown);
                let len = of_variant(it.index, 1);
                self.keep(node, Kind::NewtypeVariant, it.name, len, inside);
                inside.this()
            }
            (Data::NewtypeVariant(it, inner), Form::Tuple(items)) => {
                let inside = self.each([&**inner], items, node);
                if items.len() == 1 {
                    let len = of_variant(it.index, 1);
                    self.keep(node, Kind::NewtypeVariant, it.name, len, inside);
                }
                inside.this()
            }
            (Data::TupleVariant(it, said, all), Form::Tuple(items)) => {
                let inside = self.each(all, items, node);
                if all.len() == items.len() {
                    let len = of_variant(it.index, *said);
                    self.keep(node, Kind::TupleVariant, it.name, len, inside);
                }
                inside.this()
            }
            (Data::StructVariant(it, fields), Form::Fields(parts)) => {
                let inside = self.fields(&fields.all, parts, node);
                if fields.all.len() == parts.len() && fields.is_complete() {
                    let len = of_variant(it.index, fields.said);
                    self.keep(node, Kind::StructVariant, it.name, len, inside);
                }
                inside.this()
            }
            (Data::StructVariant(it, fields), Form::Word) if fields.all.is_empty() => {
                let len = of_variant(it.index, fields.said);
                self.keep(node, Kind::StructVariant, it.name, len, Completeness::All);
                Completeness::This
            }
            _ => self.same_or_not(node, shown),
        }
    }

    /// A list, set, tuple or map. An empty one says nothing about other values.
    fn items(
        &mut self,
        node: &Node,
        kind: Kind,
        inside: Completeness,
        is_empty: bool,
    ) -> Completeness {
        self.keep(node, kind, "", 0, Completeness::This);
        match is_empty {
            true => inside.this(),
            false => self.all_of(node, inside),
        }
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
                (None, Some(_)) => {
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
            let first = parts.iter().find(|(part, _)| !names.contains(&plain(part)));
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
                None if shown.is_usual() => Completeness::This,
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

    /// Looks for values that are larger than what was serialised of them.
    pub(super) fn by_size(&mut self, node: &Node) {
        self.size(node);
    }

    fn size(&mut self, node: &Node) -> Completeness {
        if node.is_trusted() {
            return self.keep_type(node);
        }
        if let Some(bytes) = node.room() {
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
            Data::Unit if node.size > 0 && !node.is_of_std() && !node.is_wrapper() => {
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
    /// `skip_serializing_if` may be true for several values. A field that another value showed as
    /// `Some`, as a text, list or map, or as a flag, is taken to be `None`, empty or the other flag
    /// where it is skipped. A number may be any.
    fn skips_any_value(&self, node: &Node) -> Option<&'static str> {
        let (Data::Struct(_, fields), true) = (&node.data, self.keeps) else {
            return None;
        };
        let [of, _] = node.subjects;
        let mut skipped = None;
        for (at, (name, field)) in fields.all.iter().enumerate() {
            let of_field = of.kind(Kind::Skippable, name, at);
            match field {
                Some(field) if field.has_usual_absence() => keep(of_field, Fact::Itself),
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

/// The name that a variant of this tag usually has: `user_id`, `userId` and `USER-ID` are `UserId`.
/// There is one for each tag, so two variants never have the same.
pub(super) fn usual_name(tag: &str) -> String {
    let is_upper = !tag.contains(char::is_lowercase);
    let mut is_first = true;
    let mut name = String::new();
    for c in tag.chars() {
        match c {
            '_' | '-' => is_first = true,
            _ if std::mem::take(&mut is_first) => name.extend(c.to_uppercase()),
            _ if is_upper => name.extend(c.to_lowercase()),
            _ => name.push(c),
        }
    }
    name
}

/// A name without punctuation and in lower case, to compare names in any convention.
pub(super) fn plain(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

/// Whether a value's `Debug` text equals what was serialised, character by character.
fn same(node: &Node, shown: &Shown<'_>) -> bool {
    fn pairs<'n, 's>(
        nodes: impl ExactSizeIterator<Item = &'n Node>,
        shown: impl ExactSizeIterator<Item = &'s Shown<'s>>,
    ) -> bool {
        nodes.len() == shown.len() && nodes.zip(shown).all(|(node, shown)| same(node, shown))
    }
    match (&node.data, &shown.form) {
        (Data::Leaf { text, .. }, _) => is_text_of(text, shown.raw),
        (Data::Unit, _) => shown.raw == "()",
        (Data::None, Form::Word) => shown.name == "None",
        (Data::Some(inner), Form::Tuple(items)) => {
            shown.name == "Some" && pairs([&**inner].into_iter(), items.iter())
        }
        (Data::Items(all, _), Form::List(items)) => pairs(all.iter(), items.iter()),
        (Data::Items(all, _), Form::Tuple(items)) => {
            shown.name.is_empty() && pairs(all.iter(), items.iter())
        }
        (Data::Items(all, _), Form::Braces(entries)) => {
            let are_items = entries.iter().all(|(_, value)| value.is_none());
            are_items && pairs(all.iter(), entries.iter().map(|(item, _)| item))
        }
        (Data::Map(all, _), Form::Braces(entries)) => {
            let entry =
                |((key, value), (k, v)): (&(Node, Node), &(Shown<'_>, Option<Shown<'_>>))| {
                    same(key, k) && v.as_ref().is_some_and(|v| same(value, v))
                };
            all.len() == entries.len() && all.iter().zip(entries).all(entry)
        }
        (Data::Newtype(_, inner), Form::Tuple(items)) => {
            shown.name == node.name() && pairs([&**inner].into_iter(), items.iter())
        }
        (Data::Newtype(_, inner), Form::Leaf) => same(inner, shown),
        _ => false,
    }
}

/// Whether both texts are the same: equal, equal without the quotes (`"1.5"` and `1.5`), or bytes
/// and their hexadecimal form.
fn is_text_of(text: &str, shown: &str) -> bool {
    if text == shown {
        return true;
    }
    let inside = |open, close| text.strip_prefix(open).and_then(|t| t.strip_suffix(close));
    if let Some(inside) = inside('"', '"') {
        return inside == shown && !inside.contains('\\');
    }
    let Some(bytes) = inside('[', ']') else {
        return false;
    };
    let mut digits = shown.bytes().filter(|byte| *byte != b'-');
    let mut bytes = bytes.split(", ").map(str::parse::<u8>);
    let is_same = bytes.all(|byte| {
        let pair = [digits.next(), digits.next()].map(|digit| char::from(digit.unwrap_or(b' ')));
        let [high, low] = pair.map(|digit| digit.to_digit(16));
        matches!((byte, high, low), (Ok(byte), Some(high), Some(low)) if u32::from(byte) == high << 4 | low)
    });
    is_same && digits.next().is_none()
}

impl<'a> Shown<'a> {
    /// The contents of a struct of one field, if this is that struct.
    fn content(&self, name: &str) -> &Shown<'a> {
        match &self.form {
            Form::Tuple(items) if self.name == name && items.len() == 1 => {
                items.first().unwrap_or(self)
            }
            Form::Fields(fields) if self.name == name && fields.len() == 1 => {
                fields.first().map_or(self, |(_, value)| value)
            }
            _ => self,
        }
    }

    /// Whether it is a struct or variant with a name.
    fn is_named(&self) -> bool {
        match &self.form {
            Form::Fields(_) => true,
            Form::Tuple(_) => !self.name.is_empty(),
            _ => false,
        }
    }

    /// Whether this is a value that fields are usually skipped for. A type has at most one such
    /// value.
    fn is_usual(&self) -> bool {
        ["None", "[]", "{}", "\"\"", "0", "0.0", "false", "()"].contains(&self.raw)
    }
}
