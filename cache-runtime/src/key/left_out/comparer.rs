//! The result of comparing one value, and its consequences for other values.

use super::completeness::Completeness;
use super::facts::{Fact, Kind, Subject, keep, of_variant};
use super::reason::Reason;
use super::record::{Node, Variant};

/// Compares values, by their text (`by_text.rs`) or by their size (`by_size.rs`), and stores what
/// it learns about types.
pub(super) struct ValueComparer {
    pub(super) has_text: bool,
    pub(super) keeps: bool,
    /// The first thing that is left out.
    pub(super) reason: Option<Reason>,
    /// Whether `Debug` shows something that is left out, and hides what is in it.
    pub(super) is_hidden: bool,
    /// Whether a number or a text is skipped: the condition may be true for several.
    pub(super) skips_several: bool,
}

impl ValueComparer {
    pub(super) fn new(has_text: bool) -> Self {
        Self {
            has_text,
            keeps: true,
            reason: None,
            is_hidden: false,
            skips_several: false,
        }
    }

    /// One that stores nothing, because its input is only a hint.
    pub(super) fn of_a_hint() -> Self {
        Self {
            has_text: false,
            keeps: false,
            reason: None,
            is_hidden: false,
            skips_several: false,
        }
    }

    /// The same for a value whose `Debug` has been looked at.
    pub(super) fn of_a_hint_beside_text() -> Self {
        Self {
            has_text: true,
            ..Self::of_a_hint()
        }
    }

    pub(super) fn learn(&self, node: &Node, subject: impl FnOnce(Subject) -> Subject, fact: Fact) {
        if self.keeps {
            let [plain, with_text] = node.subjects;
            keep(subject(if self.has_text { with_text } else { plain }), fact);
        }
    }

    pub(super) fn refuse(&mut self, reason: Reason) -> Completeness {
        // As a hint it says nothing, and must not hide another reason.
        if self.keeps || !matches!(reason, Reason::Hidden { .. }) {
            self.reason.get_or_insert(reason);
        }
        Completeness::No
    }

    pub(super) fn differs(&mut self, node: &Node) -> Completeness {
        let ty = node.ty.to_owned();
        self.refuse(Reason::Otherwise { ty })
    }

    /// Stores that values of this kind leave out nothing themselves, or nothing at all.
    pub(super) fn keep(
        &self,
        node: &Node,
        kind: Kind,
        name: &'static str,
        len: usize,
        inside: Completeness,
    ) {
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

    /// The same, and what it says of this value.
    pub(super) fn kept(
        &self,
        node: &Node,
        kind: Kind,
        name: &'static str,
        len: usize,
        inside: Completeness,
    ) -> Completeness {
        self.keep(node, kind, name, len, inside);
        inside.this()
    }

    /// The same for a variant of an enum.
    pub(super) fn kept_variant(
        &self,
        node: &Node,
        kind: Kind,
        variant: Variant,
        len: usize,
        inside: Completeness,
    ) -> Completeness {
        let len = of_variant(variant.index, len);
        self.kept(node, kind, variant.name, len, inside)
    }

    pub(super) fn keep_type(&self, node: &Node) -> Completeness {
        for subject in node.subjects {
            keep(subject, Fact::All);
        }
        Completeness::All
    }

    /// Stores that no value of a type leaves anything out, if this one's contents prove it.
    pub(super) fn all_of(&self, node: &Node, inside: Completeness) -> Completeness {
        if inside == Completeness::All && node.room().is_none() {
            self.learn(node, |of| of, Fact::All);
            return Completeness::All;
        }
        inside.this()
    }

    /// A list, set, tuple or map. An empty one says nothing about other values.
    pub(super) fn items(
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
}
