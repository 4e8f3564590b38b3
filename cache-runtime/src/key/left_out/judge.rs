//! Compares what was serialised of a value with its `Debug` text, or with its size.

use super::debug_text::{Form, Shown};
use super::facts::{Fact, Kind, Subject, fact, keep, of_variant};
use super::record::{Data, Fields, Node};

/// What is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// `Debug` shows a field that is not serialised.
    Field { ty: String, field: Option<String> },
    /// `Debug` shows the name of a variant that is not serialised.
    Variant { ty: String },
    /// `Debug` shows a value differently from how it is serialised.
    Otherwise { ty: String },
    /// A struct is larger than the fields that are serialised.
    Room { ty: String, bytes: usize },
    /// A value is larger than the number or text that is serialised.
    Larger { ty: String, bytes: usize },
    /// The size is not known, or is that of another variant, or the value has its own form.
    Hidden { ty: String },
    /// A field is skipped, and no value has shown it yet.
    Skipped { ty: String, field: &'static str },
    /// It is behind a `dyn`, and nothing shows its type.
    Type { ty: String },
    /// The type neither serialises all that it holds nor shows it.
    Blind { ty: String },
}

impl Reason {
    /// The text for the log. It names a field only if it is certain.
    pub(super) fn told(&self) -> Option<String> {
        match self {
            Self::Field { ty, field } => {
                let field = match field {
                    Some(field) => format!("the field `{field}`"),
                    None => "a field".to_owned(),
                };
                Some(format!(
                    "{field} of `{ty}` is not serialised, so calls that differ in it alone have \
                     one key and replace each other's entries"
                ))
            }
            Self::Room { ty, bytes } => Some(format!(
                "{bytes} bytes of `{ty}` are not serialised, so calls that differ in them alone \
                 have one key and replace each other's entries"
            )),
            Self::Variant { .. }
            | Self::Otherwise { .. }
            | Self::Larger { .. }
            | Self::Hidden { .. }
            | Self::Skipped { .. }
            | Self::Type { .. }
            | Self::Blind { .. } => None,
        }
    }

    /// The text for the log if no hash distinguishes the values.
    pub(super) fn unknown(&self) -> String {
        match self {
            Self::Room { ty, bytes } | Self::Larger { ty, bytes } => format!(
                "{bytes} bytes of `{ty}` are not serialised, and calls that differ in them alone \
                 would share a key"
            ),
            Self::Hidden { ty } => format!(
                "whether `{ty}` is serialised as a whole can't be seen without its `Debug`, and \
                 calls that differ in what is not would share a key; derive `Debug` for it"
            ),
            Self::Skipped { ty, field } => format!(
                "the field `{field}` of `{ty}` may be left out for more than one value, and calls \
                 that differ in it alone would share a key; derive `Debug` for it"
            ),
            Self::Type { ty } => format!(
                "the type of the value behind `{ty}` is not in the key, and values of two types may \
                 look alike; take an enum or a type parameter in its place"
            ),
            Self::Blind { ty } => format!(
                "`{ty}` neither serialises nor shows all that it holds, and calls that differ in \
                 the rest would share a key; name what tells them apart with `key(..)`"
            ),
            Self::Field { ty, .. } | Self::Variant { ty } | Self::Otherwise { ty } => format!(
                "a part of `{ty}` is not serialised, and calls that differ in it alone would share \
                 a key"
            ),
        }
    }

    /// Whether a value has more bytes than the number that it is written as.
    pub(super) fn is_beside_a_number(&self) -> bool {
        matches!(self, Self::Larger { .. })
    }

    /// Whether it was found by the size of a struct, which can't be mistaken for a variant of an
    /// enum.
    pub(super) fn is_of_a_struct(&self) -> bool {
        matches!(self, Self::Room { .. })
    }

    /// Whether a hash by `Hash` covers what is left out.
    pub(super) fn is_hashed(&self) -> bool {
        match self {
            Self::Type { .. } => false,
            // A time with its zone is hashed as a point in time.
            Self::Blind { ty } => !ty.starts_with(TIME_WITH_ZONE),
            _ => true,
        }
    }
}

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

impl Fields {
    /// The fields that have a value.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.all.iter().filter_map(|(_, node)| node.as_ref())
    }

    /// Whether no field was left out.
    fn is_complete(&self) -> bool {
        self.len == self.all.len() && self.all.iter().all(|(_, node)| node.is_some())
    }

    /// Whether the first field is the variant's name: serde writes it as a `str`, which fields are
    /// not.
    fn has_tag(&self) -> bool {
        matches!(self.all.first(), Some((_, Some(first))) if first.ty == "str")
    }

    /// The variant's name, if as many fields are shown as there are.
    fn tag(&self, shown: usize) -> Option<&str> {
        let (_, Some(first)) = self.all.first()? else {
            return None;
        };
        match &first.data {
            Data::Leaf { text, .. } if first.ty == "str" && self.all.len() == shown + 1 => {
                text.strip_prefix('"')?.strip_suffix('"')
            }
            _ => None,
        }
    }
}

/// Crates whose types serialise everything that distinguishes their values.
const TRUSTED: &[&str] = &[
    "alloc",
    "arcstr",
    "arrayvec",
    "bytes",
    "chrono",
    "compact_str",
    "core",
    "either",
    "hashbrown",
    "indexmap",
    "ipnet",
    "jiff",
    "num_bigint",
    "ordered_float",
    "semver",
    "serde_json",
    "smallvec",
    "smol_str",
    "std",
    "time",
    "ulid",
    "url",
    "uuid",
];

/// Has a zone, of which only the offset is written and shown.
const TIME_WITH_ZONE: &str = "chrono::datetime::DateTime<chrono_tz::";

/// Types that neither serialise all that they hold nor show it. An address of IPv6 has a scope and
/// a flow.
const BLIND: &[&str] = &["core::net::socket_addr::SocketAddrV6", TIME_WITH_ZONE];

const PRIMITIVES: &[&str] = &[
    "bool", "char", "f32", "f64", "i128", "i16", "i32", "i64", "i8", "isize", "str", "u128", "u16",
    "u32", "u64", "u8", "usize", "mut",
];

impl Node {
    /// Whether the type's name contains only types of trusted crates and of the language.
    fn is_trusted(&self) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        if is_unsure(self.ty) {
            return false;
        }
        self.ty.split(|c| !is_part(c)).all(|path| {
            let path = path.trim_matches(':');
            match path.split_once("::") {
                Some((first, _)) => TRUSTED.contains(&first),
                None => {
                    path.is_empty()
                        || PRIMITIVES.contains(&path)
                        || path.bytes().all(|byte| byte.is_ascii_digit())
                }
            }
        })
    }

    /// Whether the type itself is one of the standard library or the language, or of a trusted crate.
    fn is_of_std(&self) -> bool {
        let ty = bare(self.ty);
        if ty.starts_with(['(', '[']) {
            return true;
        }
        let path = ty.split('<').next().unwrap_or(ty);
        match path.split_once("::") {
            Some((first, _)) => TRUSTED.contains(&first),
            None => PRIMITIVES.contains(&path),
        }
    }

    /// Whether the value is behind a pointer, so that its size is not known, or in a wrapper of
    /// serde.
    fn is_wrapper(&self) -> bool {
        bare(self.ty).len() != self.ty.len()
            || self.ty.contains("__SerializeWith")
            || self.ty.contains("__AdjacentlyTagged")
    }

    /// The name of the type behind references and boxes, in the form of `Debug`.
    fn name(&self) -> &'static str {
        let ty = bare(self.ty);
        let path = ty.split('<').next().unwrap_or(ty);
        let name = path.rsplit("::").next().unwrap_or(path);
        // A wrapper of serde's is shown as what it holds.
        if name.is_empty() { "_" } else { name }
    }

    /// The parts of a struct or tuple, if all of them are known to be in its memory.
    fn parts(&self) -> Option<Vec<&Node>> {
        let parts: Vec<&Node> = match &self.data {
            Data::Struct(_, fields) if fields.is_complete() => fields
                .all
                .iter()
                .filter_map(|(_, node)| node.as_ref())
                .collect(),
            Data::TupleStruct(_, _, all) => all.iter().collect(),
            Data::Newtype(_, inner) => vec![inner],
            // The fields of a struct of which one is flattened.
            Data::Map(all, _) => all.iter().map(|(_, value)| value).collect(),
            _ => return None,
        };
        parts.iter().all(|part| self.holds(part)).then_some(parts)
    }

    /// Whether another value is in the memory of this one.
    fn holds(&self, part: &Self) -> bool {
        self.start <= part.start && part.start + part.size <= self.start + self.size
    }

    fn is_text_or_number(&self) -> bool {
        let ty = bare(self.ty);
        matches!(self.data, Data::Leaf { .. })
            && (PRIMITIVES.contains(&ty) || ty == "alloc::string::String")
    }

    /// How many bytes of a struct are in none of its fields that were serialised, if the alignment
    /// of its fields and its own does not account for them.
    pub(super) fn room(&self) -> Option<usize> {
        if self.is_of_std() {
            return None;
        }
        self.unexplained(&self.parts()?)
    }

    /// How many bytes are in none of these parts, if their alignment does not account for them.
    fn unexplained(&self, parts: &[&Self]) -> Option<usize> {
        let gaps = Gaps::between(parts);
        let first = gaps.start.unwrap_or(self.start);
        let used = gaps.end.unwrap_or(self.start);
        let is_explained = gaps.are_of_alignment
            && first == self.start
            && used.next_multiple_of(self.align.max(1)) == self.start + self.size;
        (!is_explained).then(|| self.size.saturating_sub(gaps.used))
    }

    /// How many bytes a type of its own has besides the number that it is written as: it may hold a
    /// `dyn`, or what it rounds off.
    fn beside_its_number(&self) -> Option<usize> {
        let Data::Leaf { size, .. } = self.data else {
            return None;
        };
        let is_larger = size > 0 && self.size > size && !self.is_of_std() && !self.is_wrapper();
        is_larger.then(|| self.size - size)
    }

    /// Whether a type has one value that is usually left out, such as `None`.
    fn has_usual_absence(&self) -> bool {
        match &self.data {
            Data::Some(_) => true,
            Data::Items(all, _) => !all.is_empty(),
            Data::Map(all, _) => !all.is_empty(),
            Data::Leaf { text, size: 0 } => text != "\"\"",
            Data::Leaf { text, .. } => text == "true" || text == "false",
            _ => false,
        }
    }

    /// Whether a value without a `Debug` may have parts that its size does not show: a type behind
    /// a pointer, a variant that does not fill its enum, a type that serialises as another does.
    fn may_hide(&self) -> bool {
        if bare(self.ty).starts_with("dyn ") {
            return true;
        }
        if self.is_of_std() {
            return matches!(self.data, Data::Leaf { .. }) && is_unsure(bare(self.ty));
        }
        match &self.data {
            Data::Struct(_, fields) => {
                // Two variants may have one tag, and any of them may leave a field out.
                fields.has_tag() || fields.is_complete() && !self.is_within(fields.nodes())
            }
            Data::TupleStruct(_, _, all) => !self.is_within(all),
            Data::Newtype(_, inner) => !self.is_within([&**inner]),
            Data::Map(all, _) => !self.is_within(all.iter().map(|(_, value)| value)),
            // A list of its own form, which may have rounded its elements.
            Data::Items(all, _) => {
                all.is_empty()
                    || !self.is_within(all)
                    || self.unexplained(&all.iter().collect::<Vec<_>>()).is_some()
            }
            Data::Some(inner) => self.size > inner.size + self.align || !self.is_within([&**inner]),
            Data::None => true,
            // Its number, and nothing else.
            Data::UnitVariant(_) => self.size > 1,
            Data::NewtypeVariant(_, inner) => !self.is_filled_by(&[inner]),
            Data::TupleVariant(_, _, all) => !self.is_filled_by(&all.iter().collect::<Vec<_>>()),
            Data::StructVariant(_, fields) => {
                !self.is_filled_by(&fields.nodes().collect::<Vec<_>>())
            }
            // A number or text of its own form, which may be rounded.
            Data::Leaf { .. } => self.is_wrapper() || self.size > 0,
            Data::Unit | Data::UnitStruct(_) => false,
        }
    }

    /// What makes it impossible to tell values like this one apart, in it or in its parts.
    pub(super) fn blind(&self) -> Option<Reason> {
        let ty = bare(self.ty);
        let holds_any = ty.contains("dyn ")
            && self.is_of_std()
            && !matches!(
                self.data,
                Data::Items(..) | Data::Map(..) | Data::Some(_) | Data::None
            );
        if ty.starts_with("dyn ") || holds_any {
            let ty = ty.trim_end_matches('>').to_owned();
            return Some(Reason::Type { ty });
        }
        if BLIND.iter().any(|blind| ty.starts_with(blind)) {
            let ty = ty.to_owned();
            return Some(Reason::Blind { ty });
        }
        let parts: &mut dyn Iterator<Item = &Self> = match &self.data {
            Data::Some(inner) | Data::Newtype(_, inner) | Data::NewtypeVariant(_, inner) => {
                return inner.blind();
            }
            Data::Struct(_, fields) | Data::StructVariant(_, fields) => &mut fields.nodes(),
            Data::TupleStruct(_, _, all) | Data::TupleVariant(_, _, all) | Data::Items(all, _) => {
                &mut all.iter()
            }
            Data::Map(all, _) => &mut all.iter().flat_map(|(key, value)| [key, value]),
            Data::Leaf { .. }
            | Data::Unit
            | Data::UnitStruct(_)
            | Data::None
            | Data::UnitVariant(_) => return None,
        };
        for part in parts {
            let found = part.blind();
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Whether all parts are in this value's memory, whose size is known.
    fn is_within<'n>(&self, parts: impl IntoIterator<Item = &'n Self>) -> bool {
        !self.is_wrapper() && parts.into_iter().all(|part| self.holds(part))
    }

    /// Whether the fields of a variant, behind the variant's number, are all that there is room for.
    fn is_filled_by(&self, parts: &[&Self]) -> bool {
        let gaps = Gaps::between(parts);
        let (Some(first), Some(end)) = (gaps.start, gaps.end) else {
            return false;
        };
        self.is_within(parts.iter().copied())
            && gaps.are_of_alignment
            && first - self.start <= self.align
            && end.next_multiple_of(self.align.max(1)) == self.start + self.size
    }
}

/// The room between the parts of a value.
///
/// `#[repr(C)]` leaves room in front of a field that has to be aligned. Rust's own order leaves
/// none, so that such room is a field that was not serialised; it is seen, because that field is
/// aligned at least as the next one is.
struct Gaps {
    /// Where the first part starts.
    start: Option<usize>,
    /// Where the last part ends.
    end: Option<usize>,
    /// How many bytes the parts have.
    used: usize,
    /// Whether each part stands at the first place behind the one before that fits it.
    are_of_alignment: bool,
}

impl Gaps {
    fn between(parts: &[&Node]) -> Self {
        let mut parts: Vec<&Node> = parts.iter().copied().filter(|part| part.size > 0).collect();
        parts.sort_by_key(|part| part.start);
        let mut gaps = Self {
            start: parts.first().map(|part| part.start),
            end: None,
            used: 0,
            are_of_alignment: true,
        };
        for part in parts {
            let before = gaps.end.unwrap_or(part.start);
            let end = part.start + part.size;
            if end > before {
                gaps.are_of_alignment &= part.start <= before.next_multiple_of(part.align.max(1));
                gaps.used += end - before.max(part.start);
                gaps.end = Some(end);
            }
        }
        gaps
    }
}

/// Whether a type of trusted crates alone may hold what is not serialised. A time with an offset is
/// written with the minutes of its offset, which may have seconds.
pub(super) fn is_unsure(ty: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut paths = ty
        .split(|c| !is_part(c))
        .filter(|path| !path.is_empty())
        .peekable();
    while let Some(path) = paths.next() {
        let is_it = match path {
            "chrono::datetime::DateTime" => paths.peek() != Some(&"chrono::offset::utc::Utc"),
            "core::net::socket_addr::SocketAddr" => true,
            path => BLIND.contains(&path),
        };
        if is_it {
            return true;
        }
    }
    false
}

/// A type's name behind references and the pointers of the standard library.
fn bare(ty: &'static str) -> &'static str {
    let mut ty = ty;
    loop {
        let pointers = [
            "&",
            "mut ",
            "alloc::boxed::Box<",
            "alloc::sync::Arc<",
            "alloc::rc::Rc<",
            "alloc::borrow::Cow<",
        ];
        match pointers.iter().find_map(|pointer| ty.strip_prefix(pointer)) {
            Some(rest) => ty = rest,
            None => return ty,
        }
    }
}
