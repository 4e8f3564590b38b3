//! Finds parts of an argument that its `Serialize` leaves out.
//!
//! A key is made of what is serialised. So two different arguments get one key if they differ in a
//! field under `#[serde(skip)]`, in variants of an untagged enum that look alike, or in digits that
//! a `Serialize` rounds off. serde does not tell a serialiser about any of these. So this module
//! compares the serialised value with two other sources:
//!
//! - The text of `Debug`, if the type has it: `derive(Debug)` writes each field and the variant's
//!   name. If it shows more than was serialised, a hash of the text distinguishes the entries
//!   ([`ArgumentCheck::Apart`]).
//! - The size of the value, which needs no trait. A struct's fields fill it, except for alignment.
//!   If the serialised fields don't, one is missing. If the type has no `Debug`, a hash by `Hash`
//!   distinguishes the values. If it has neither, the call bypasses the cache
//!   ([`ArgumentCheck::Unknown`]). So does a value without both whose `Serialize` may have rounded
//!   it: one that is written as a number, text or list of its own form.
//!
//! Two kinds of values can't be compared: what is behind a `dyn`, since nothing shows its type, and
//! the few types that neither serialise nor show all that they hold (`SocketAddrV6`).
//!
//! The hash of the text becomes a part of the entry's fingerprint, but not of its key, because
//! writes and manual operations know only the key. So two such arguments replace each other's
//! entries, and never get each other's values.
//!
//! Most types are examined once: what holds for all values of a type, or of a variant, is kept in
//! [`facts`]. Later calls only check which types and variants a value contains.

mod by_name;
mod by_size;
mod by_text;
mod comparer;
mod completeness;
mod debug_text;
mod facts;
mod hash;
mod names;
mod node_type;
mod reason;
mod record;
mod same_text;
mod unordered;
mod walk;
mod written_for;
mod written_names;

use std::fmt;
use std::hash::Hash;
use std::ops::Deref;

use serde::Serialize;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

pub(crate) use self::by_name::examined;
use self::comparer::ValueComparer;
use self::debug_text::Shown;
use self::hash::hash64;
use self::reason::Reason;
pub(crate) use self::record::{Node, record};
use self::unordered::Unordered;
pub(crate) use self::written_for::WrittenFor;
pub(crate) use self::written_names::written_names;

/// An argument of a call, with the information that its type provides besides `Serialize`.
pub struct Argument<'a, T: ?Sized> {
    pub(crate) value: &'a T,
    text: Option<fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result>,
    hash: Option<fn(&T, &mut SipHasher13)>,
    elements: Option<Elements<T>>,
}

/// Calls a function for each element of a list.
type Elements<T> = fn(&T, WrittenFor, &mut dyn FnMut(Node));

impl<T: ?Sized> fmt::Debug for Argument<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Argument").finish_non_exhaustive()
    }
}

/// The start of a chain of methods named `__known`. The compiler chooses one by the traits of
/// `value`: `Debug`, else `Hash`, else neither. The elements of a list are examined one by one,
/// because serde hands out references to them, which have another size.
pub fn argument<T: ?Sized>(value: &T) -> ByBoth<'_, T> {
    ByBoth(ByText(ByHashes(ByHash(Plains(Plain(value))))))
}

macro_rules! links {
    ($($(#[$doc:meta])* $link:ident => $next:ident;)*) => {$(
        #[doc(hidden)]
        #[derive(Clone, Copy)]
        pub struct $link<'a, T: ?Sized>($next<'a, T>);

        impl<'a, T: ?Sized> Deref for $link<'a, T> {
            type Target = $next<'a, T>;

            fn deref(&self) -> &$next<'a, T> {
                &self.0
            }
        }
    )*};
}

links! {
    ByBoth => ByText;
    ByText => ByHashes;
    ByHashes => ByHash;
    ByHash => Plains;
    Plains => Plain;
}

#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Plain<'a, T: ?Sized>(&'a T);

impl<'a, T: fmt::Debug + Hash + ?Sized> ByBoth<'a, T> {
    /// With the text of `Debug` and the hash by `Hash`.
    #[must_use]
    pub fn __known(&self) -> Argument<'a, T> {
        Argument {
            text: Some(<T as fmt::Debug>::fmt),
            hash: Some(|value, hasher| value.hash(hasher)),
            ..Plain::__known(self)
        }
    }
}

impl<'a, T: fmt::Debug + ?Sized> ByText<'a, T> {
    /// With the text of `Debug`.
    #[must_use]
    pub fn __known(&self) -> Argument<'a, T> {
        Argument {
            text: Some(<T as fmt::Debug>::fmt),
            ..Plain::__known(self)
        }
    }
}

impl<'a, X: Hash + Serialize> ByHashes<'a, [X]> {
    /// With the `Hash` of its elements.
    #[must_use]
    pub fn __known(&self) -> Argument<'a, [X]> {
        Argument {
            hash: Some(|value, hasher| value.hash(hasher)),
            ..Plains::<[X]>::__known(self)
        }
    }
}

impl<'a, X: Hash + Serialize> ByHashes<'a, Vec<X>> {
    /// With the `Hash` of its elements.
    #[must_use]
    pub fn __known(&self) -> Argument<'a, Vec<X>> {
        Argument {
            hash: Some(|value, hasher| value.hash(hasher)),
            ..Plains::<Vec<X>>::__known(self)
        }
    }
}

impl<'a, T: Hash + ?Sized> ByHash<'a, T> {
    /// With the hash by `Hash`.
    #[must_use]
    pub fn __known(&self) -> Argument<'a, T> {
        Argument {
            hash: Some(|value, hasher| value.hash(hasher)),
            ..Plain::__known(self)
        }
    }
}

impl<'a, X: Serialize> Plains<'a, [X]> {
    /// With its elements.
    #[must_use]
    pub fn __known(&self) -> Argument<'a, [X]> {
        Argument {
            elements: Some(|value, form, each| {
                let nodes = value.iter().filter_map(|it| record(it, form));
                nodes.for_each(each);
            }),
            ..Plain::__known(self)
        }
    }
}

impl<'a, X: Serialize> Plains<'a, Vec<X>> {
    /// With its elements.
    #[must_use]
    pub fn __known(&self) -> Argument<'a, Vec<X>> {
        Argument {
            elements: Some(|value, form, each| {
                let nodes = value.iter().filter_map(|it| record(it, form));
                nodes.for_each(each);
            }),
            ..Plain::__known(self)
        }
    }
}

impl<'a, T: ?Sized> Plain<'a, T> {
    /// With `Serialize` only.
    #[must_use]
    pub fn __known(&self) -> Argument<'a, T> {
        Argument {
            value: self.0,
            text: None,
            hash: None,
            elements: None,
        }
    }
}

/// The result for one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArgumentCheck {
    /// Nothing is left out, as far as can be seen.
    Whole,
    /// Something may be left out; this hash covers it. The text says which field, if it is certain.
    Apart(u64, Option<String>),
    /// Something is left out, and no hash covers it. The text says what.
    Unknown(String),
}

impl<T: Serialize + ?Sized> Argument<'_, T> {
    /// Compares what is serialised in this form with the other information.
    #[inline]
    pub(crate) fn check(&self, form: WrittenFor) -> ArgumentCheck {
        let has_text = self.text.is_some();
        if crate::base::mutation::is_active("left-out-not-looked-for")
            || walk::is_whole(self.value, has_text, form)
        {
            return ArgumentCheck::Whole;
        }
        self.examine(form)
    }

    #[cold]
    #[inline(never)]
    fn examine(&self, form: WrittenFor) -> ArgumentCheck {
        let text = self.text();
        let seen = match &text {
            Text::Of(text) => {
                let of = facts::Subject::of::<T>(true, form);
                Some(of.shown(hash64(text.as_bytes())))
            }
            Text::None | Text::TooLong => None,
        };
        if seen.is_some_and(facts::was_whole) {
            return ArgumentCheck::Whole;
        }
        let found = self.compare(text, form);
        if let (ArgumentCheck::Whole, Some(seen)) = (&found, seen) {
            facts::is_whole(seen);
        }
        found
    }

    fn compare(&self, text: Text, form: WrittenFor) -> ArgumentCheck {
        let Some(node) = record(self.value, form) else {
            // It can't be serialised, which the key reports, or is nested too deeply.
            return match text {
                Text::Of(text) => self.apart(hash64(text.as_bytes()), None),
                Text::None => ArgumentCheck::Unknown(not_examined::<T>("is nested too deeply")),
                Text::TooLong => ArgumentCheck::Unknown(not_examined::<T>(TOO_LONG)),
            };
        };
        if let Some(reason) = node
            .blind()
            .filter(|_| !crate::base::mutation::is_active("blind-types-trusted"))
        {
            let text = match &text {
                Text::Of(text) => hash64(text.as_bytes()),
                Text::None | Text::TooLong => 0,
            };
            return match self.hashed().filter(|_| reason.is_hashed()) {
                Some(hash) => ArgumentCheck::Apart(hash ^ text, reason.told()),
                None => ArgumentCheck::Unknown(reason.unknown()),
            };
        }
        match text {
            Text::Of(text) => self.compare_text(&node, &text),
            Text::None => self.compare_size(&node, form),
            Text::TooLong => ArgumentCheck::Unknown(not_examined::<T>(TOO_LONG)),
        }
    }

    fn compare_size(&self, node: &Node, form: WrittenFor) -> ArgumentCheck {
        let mut comparer = ValueComparer::new(self.text.is_some());
        match self.elements {
            Some(elements) => elements(self.value, form, &mut |node| comparer.by_size(&node)),
            None => comparer.by_size(node),
        }
        let Some(reason) = comparer.reason else {
            return ArgumentCheck::Whole;
        };
        match self.hashed() {
            Some(hash) => ArgumentCheck::Apart(hash, reason.told()),
            None => ArgumentCheck::Unknown(reason.unknown()),
        }
    }

    fn compare_text(&self, node: &Node, text: &str) -> ArgumentCheck {
        let mut comparer = ValueComparer::new(self.text.is_some());
        let shown = Shown::parse(text);
        let is_whole = comparer.by_text(node, &shown);
        let shows_more = matches!(
            comparer.reason,
            Some(Reason::Field { .. } | Reason::Variant { .. })
        );
        // Neither the text nor the serialised value contains it.
        if !shows_more && let Some(reason) = hidden_by_both(node, is_whole) {
            return match self.hashed().filter(|_| reason.is_beside_a_number()) {
                Some(hash) => ArgumentCheck::Apart(hash ^ hash64(text.as_bytes()), None),
                None => ArgumentCheck::Unknown(reason.unknown()),
            };
        }
        if is_whole {
            return ArgumentCheck::Whole;
        }
        if comparer.is_hidden
            && self.hash.is_none()
            && !crate::base::mutation::is_active("hidden-parts-trusted")
            && let Some(reason) = comparer.reason
        {
            return ArgumentCheck::Unknown(reason.unknown());
        }
        let text = Unordered::of(node, &shown).hash(&shown);
        self.apart(text, comparer.reason.and_then(|reason| reason.told()))
    }

    /// `Debug` shows a part that is not serialised. It may hide what is in it, such as a secret,
    /// and `Hash` need not.
    fn apart(&self, text: u64, told: Option<String>) -> ArgumentCheck {
        let hash = match crate::base::mutation::is_active("hidden-parts-trusted") {
            true => None,
            false => self.hashed(),
        };
        ArgumentCheck::Apart(hash.map_or(text, |hash| text ^ hash.rotate_left(1)), told)
    }

    /// The hash by `Hash`.
    fn hashed(&self) -> Option<u64> {
        let mut hasher = SipHasher13::new();
        (self.hash?)(self.value, &mut hasher);
        Some(hasher.finish128().as_u128() as u64)
    }

    /// The text of `Debug`.
    fn text(&self) -> Text {
        let Some(write) = self.text else {
            return Text::None;
        };
        let mut text = Limited::default();
        match fmt::write(&mut text, format_args!("{}", Show(self.value, write))) {
            Ok(()) => Text::Of(text.text),
            Err(_) if text.is_full => Text::TooLong,
            Err(_) => Text::None,
        }
    }
}

/// The part of a value that its size shows, and neither its text nor its serialised form.
/// `is_whole`: whether these two agree.
fn hidden_by_both(node: &Node, is_whole: bool) -> Option<Reason> {
    let mut sizes = ValueComparer::of_a_hint_beside_text();
    sizes.by_size(node);
    let hides =
        |reason: &Reason| reason.is_of_a_struct() || is_whole && reason.is_beside_a_number();
    sizes.reason.filter(hides)
}

/// The text of a value's `Debug`.
enum Text {
    Of(String),
    /// There is none, or writing it failed.
    None,
    TooLong,
}

/// A longer text is not examined: a field that is left out may have megabytes, and each call would
/// have to read it.
const LONGEST_TEXT: usize = 256 * 1024;
const TOO_LONG: &str = "shows more than 256 KiB of itself";

fn not_examined<T: ?Sized>(why: &str) -> String {
    let ty = std::any::type_name::<T>();
    format!("`{ty}` {why}, so whether it is serialised as a whole is not known")
}

#[derive(Default)]
struct Limited {
    text: String,
    is_full: bool,
}

impl fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.is_full |= self.text.len() + text.len() > LONGEST_TEXT;
        if self.is_full {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// Writes a value with `Debug`, or with the function.
struct Show<'a, T: ?Sized>(&'a T, fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result);

impl<T: ?Sized> fmt::Display for Show<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.1)(self.0, f)
    }
}

/// Whether a struct, or one inside it, has a field that is not serialised, judging by its size or
/// the text of its `Debug`.
pub(crate) fn leaves_out(node: &Node, text: Option<&str>) -> bool {
    let mut sizes = ValueComparer::of_a_hint();
    sizes.by_size(node);
    let is_blind = node.blind().is_some();
    let by_size = is_blind || sizes.reason.is_some_and(|reason| reason.is_of_a_struct());
    let by_text = || {
        let text = text.filter(|text| text.len() <= LONGEST_TEXT)?;
        let mut shown = ValueComparer::of_a_hint();
        shown.by_text(node, &Shown::parse(text));
        shown.reason
    };
    by_size || matches!(by_text(), Some(Reason::Field { .. }))
}

/// Whether another value of the type may lose a part where this one does not: a part is written in
/// a form of its own (`with`, `into`, a `Serialize` by hand), or a field is skipped by a condition
/// that may be true for several values, since it is a number or a text, or nothing shows what it
/// is.
pub(crate) fn may_lose(node: &Node, text: Option<&str>) -> bool {
    if node.has_a_form_of_its_own() {
        return true;
    }
    let Some(text) = text.filter(|text| text.len() <= LONGEST_TEXT) else {
        return node.skips_a_field()
            && !crate::base::mutation::is_active("skipped-numbers-not-verified");
    };
    let mut comparer = ValueComparer::of_a_hint();
    let is_shown_alike = comparer.by_text(node, &Shown::parse(text))
        || crate::base::mutation::is_active("own-forms-not-verified");
    let skips_several =
        comparer.skips_several && !crate::base::mutation::is_active("skipped-numbers-not-verified");
    !is_shown_alike || skips_several
}

/// Whether `Debug`, which writes this text, shows a field that is not serialised, and hides what is
/// in it.
pub(crate) fn hides(node: &Node, text: &str) -> bool {
    if text.len() > LONGEST_TEXT {
        return false;
    }
    let mut comparer = ValueComparer::of_a_hint();
    comparer.by_text(node, &Shown::parse(text));
    comparer.is_hidden
}

/// The type of a lock or an atomic in this value that its clones share: what one caller changes in
/// what it got would reach all others.
///
/// A lock that only `Debug` shows is in a field that serde skips. It is no atomic, which `Debug`
/// shows as a number, and no `OnceLock`, which can be cloned.
pub(crate) fn shared_state(node: &Node, text: Option<&str>) -> Option<&'static str> {
    let shown = || {
        let text = text.filter(|text| text.len() <= LONGEST_TEXT)?;
        let is_serialised =
            node.holds_a_lock() || crate::base::mutation::is_active("skipped-locks-trusted");
        Shown::parse(text).lock().filter(|_| !is_serialised)
    };
    node.shared_state(false).or_else(shown)
}

/// A hash of a `Debug` text that ignores the order of all sets and maps.
pub(crate) fn text_hash(text: &str) -> u64 {
    Unordered::All.hash(&Shown::parse(text))
}

/// A hash of a value's `Debug` text that ignores the order of the sets and maps that have none.
pub(crate) fn hash_of_shown(node: &Node, text: &str) -> u64 {
    let shown = Shown::parse(text);
    Unordered::of_value(node, &shown).hash(&shown)
}

#[cfg(test)]
mod tests;
