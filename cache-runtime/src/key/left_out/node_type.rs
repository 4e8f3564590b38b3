//! Whether a value may hold more than was serialised, by its type and its place in memory.

use super::reason::{Reason, TIME_WITH_ZONE};
use super::record::{Data, Fields, Node};

impl Fields {
    /// The fields that have a value.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.all.iter().filter_map(|(_, node)| node.as_ref())
    }

    /// Whether no field was left out.
    pub(super) fn is_complete(&self) -> bool {
        self.len == self.all.len() && self.all.iter().all(|(_, node)| node.is_some())
    }

    /// Whether the first field is the variant's name: serde writes it as a `str`, which fields are
    /// not.
    pub(super) fn has_tag(&self) -> bool {
        matches!(self.all.first(), Some((_, Some(first))) if first.ty == "str")
    }

    /// The variant's name, if as many fields are shown as there are.
    pub(super) fn tag(&self, shown: usize) -> Option<&str> {
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

/// Texts, by name or by module. One of one character shows that only the empty text is left out.
const TEXTS: &[&str] = &[
    "alloc::string::String",
    "arcstr::",
    "arrayvec::array_string::",
    "compact_str::",
    "smol_str::",
    "std::path::",
    "str",
];

/// Lists, sets and maps of any length. A `BigUint` is written as a list and is a number, and a
/// `serde_json::Value` may be anything.
const COLLECTIONS: &[&str] = &[
    "alloc::collections::",
    "alloc::vec::Vec",
    "arrayvec::arrayvec::",
    "hashbrown::",
    "indexmap::",
    "serde_json::map::Map",
    "smallvec::",
    "std::collections::",
];

/// Types that neither serialise all that they hold nor show it. An address of IPv6 has a scope and
/// a flow.
const BLIND: &[&str] = &["core::net::socket_addr::SocketAddrV6", TIME_WITH_ZONE];

const PRIMITIVES: &[&str] = &[
    "bool", "char", "f32", "f64", "i128", "i16", "i32", "i64", "i8", "isize", "str", "u128", "u16",
    "u32", "u64", "u8", "usize", "mut",
];

/// How newer compilers write each lifetime in the name of a type, behind a `'`.
const LIFETIME: &str = "_";

impl Node {
    /// Whether the type's name contains only types of trusted crates and of the language.
    pub(super) fn is_trusted(&self) -> bool {
        is_trusted(self.ty)
    }

    /// Whether the type itself is one of the standard library or the language, or of a trusted
    /// crate.
    pub(super) fn is_of_std(&self) -> bool {
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
    pub(super) fn is_wrapper(&self) -> bool {
        bare(self.ty).len() != self.ty.len()
            || self.ty.contains("__SerializeWith")
            || self.ty.contains("__AdjacentlyTagged")
    }

    /// The name of the type behind references and boxes, in the form of `Debug`.
    pub(super) fn name(&self) -> &'static str {
        let ty = bare(self.ty);
        let path = ty.split('<').next().unwrap_or(ty);
        let name = path.rsplit("::").next().unwrap_or(path);
        // A wrapper of serde's is shown as what it holds.
        if name.is_empty() { "_" } else { name }
    }

    /// The parts of a struct or tuple, if all of them are known to be in its memory.
    pub(super) fn parts(&self) -> Option<Vec<&Node>> {
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
    pub(super) fn holds(&self, part: &Self) -> bool {
        self.start <= part.start && part.start + part.size <= self.start + self.size
    }

    pub(super) fn is_text_or_number(&self) -> bool {
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
    pub(super) fn beside_its_number(&self) -> Option<usize> {
        let Data::Leaf { size, .. } = self.data else {
            return None;
        };
        let is_larger = size > 0 && self.size > size && !self.is_of_std() && !self.is_wrapper();
        is_larger.then(|| self.size - size)
    }

    /// Whether a type of its own that is written as a unit has something in it.
    pub(super) fn is_more_than_a_unit(&self) -> bool {
        let is_unit = matches!(self.data, Data::Unit)
            || !crate::base::mutation::is_active("one-for-several-trusted");
        self.size > 0 && is_unit && !self.is_of_std() && !self.is_wrapper()
    }

    /// Whether this value of a field, which was serialised, shows that the field has one value
    /// alone where it is left out: `None`, nothing in a text, list or map, or the other flag.
    ///
    /// A condition by length, such as "shorter than three", leaves several texts out, so only a
    /// text of one character shows that the empty one is left out. A tuple or array is never empty.
    /// A type that is known by name is what it is written as. Any other, such as a grade that is
    /// written as a letter, may have several values that are left out.
    pub(super) fn leaves_one_value(&self) -> bool {
        let ty = bare(self.ty).trim_end_matches('>');
        let path = ty.split('<').next().unwrap_or(ty);
        let is_one_of = |types: &[&str]| {
            let mut types = types.iter();
            types.any(|it| path == *it || it.ends_with("::") && path.starts_with(it))
                || crate::base::mutation::is_active("own-types-leave-one-value")
        };
        match &self.data {
            Data::Some(_) => is_one_of(&["core::option::Option"]),
            Data::Items(all, _) => all.len() == 1 && (is_slice(ty) || is_one_of(COLLECTIONS)),
            Data::Map(all, _) => all.len() == 1 && is_one_of(COLLECTIONS),
            Data::Leaf { text, size: 0 } => {
                let is_one = text.trim_matches('"').chars().nth(1).is_none() && text != "\"\"";
                is_one && is_one_of(TEXTS)
            }
            Data::Leaf { text, .. } => (text == "true" || text == "false") && is_one_of(&["bool"]),
            _ => false,
        }
    }

    /// Whether a value without a `Debug` may have parts that its size does not show: a type behind
    /// a pointer, a variant that does not fill its enum, a type that serialises as another does.
    pub(super) fn may_hide(&self) -> bool {
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
            // Its number, and nothing else. A variant of another enum may stand for several.
            Data::UnitVariant(it) => {
                let is_own = it.of == self.name()
                    || crate::base::mutation::is_active("one-for-several-trusted");
                self.size > 1 || !is_own
            }
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

    /// The part that can't be told apart in values like this one, in it or in its parts.
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
        self.first_part(&mut Self::blind)
    }

    /// Whether a lock or an atomic was serialised.
    pub(super) fn holds_a_lock(&self) -> bool {
        let is_inside = &mut |part: &Self| part.holds_a_lock().then_some(());
        names_a_lock(self.ty) || self.first_part(is_inside).is_some()
    }

    /// The type of the first lock or atomic in an `Arc`, which all clones of the value share.
    pub(super) fn shared_state(&self, is_in_arc: bool) -> Option<&'static str> {
        let arc = self.ty.find("alloc::sync::Arc<");
        let shared = match is_in_arc {
            true => Some(self.ty),
            false => arc.and_then(|arc| self.ty.get(arc..)),
        };
        if shared.is_some_and(names_a_lock) {
            return Some(self.ty);
        }
        // That a list has an `Arc` somewhere says nothing of what else is in it.
        let front = arc.and_then(|arc| self.ty.get(..arc));
        let is_in_arc = is_in_arc || front.is_some_and(|front| bare(front).is_empty());
        self.first_part(&mut |part| part.shared_state(is_in_arc))
    }

    /// Whether a part is written by a function that its field names (`with`). It may round some
    /// values, and not others. Bytes are all there.
    pub(super) fn has_a_form_of_its_own(&self) -> bool {
        let are_bytes =
            || matches!(&self.data, Data::Leaf { text, size: 0 } if text.starts_with('['));
        let is_here = self.ty.contains("__SerializeWith")
            && !are_bytes()
            && !crate::base::mutation::is_active("own-forms-not-verified");
        let is_inside = &mut |part: &Self| part.has_a_form_of_its_own().then_some(());
        is_here || self.first_part(is_inside).is_some()
    }

    /// Whether a field is skipped, here or in a part.
    pub(super) fn skips_a_field(&self) -> bool {
        let is_here = match &self.data {
            Data::Struct(_, fields) | Data::StructVariant(_, fields) => {
                fields.all.iter().any(|(_, node)| node.is_none())
            }
            _ => false,
        };
        let is_inside = &mut |part: &Self| part.skips_a_field().then_some(());
        is_here || self.first_part(is_inside).is_some()
    }

    /// The first answer that one of the parts gives.
    fn first_part<T>(&self, ask: &mut dyn FnMut(&Self) -> Option<T>) -> Option<T> {
        match &self.data {
            Data::Some(inner) | Data::Newtype(_, inner) | Data::NewtypeVariant(_, inner) => {
                ask(inner)
            }
            Data::Struct(_, fields) | Data::StructVariant(_, fields) => {
                fields.nodes().find_map(ask)
            }
            Data::TupleStruct(_, _, all) | Data::TupleVariant(_, _, all) | Data::Items(all, _) => {
                all.iter().find_map(ask)
            }
            Data::Map(all, _) => {
                let mut all = all.iter().flat_map(|(key, value)| [key, value]);
                all.find_map(ask)
            }
            Data::Leaf { .. }
            | Data::Unit
            | Data::UnitStruct(_)
            | Data::None
            | Data::UnitVariant(_) => None,
        }
    }

    /// Whether all parts are in this value's memory, whose size is known.
    fn is_within<'n>(&self, parts: impl IntoIterator<Item = &'n Self>) -> bool {
        !self.is_wrapper() && parts.into_iter().all(|part| self.holds(part))
    }

    /// Whether the fields of a variant, behind the variant's number, are all that there is room
    /// for.
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

/// Whether a type's name contains only types of trusted crates and of the language.
pub(super) fn is_trusted(ty: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    if is_unsure(ty) {
        return false;
    }
    ty.split(|c| !is_part(c)).all(|path| {
        let path = path.trim_matches(':');
        match path.split_once("::") {
            Some((first, _)) => TRUSTED.contains(&first),
            None => {
                path.is_empty()
                    || path == LIFETIME && !crate::base::mutation::is_active("lifetimes-are-types")
                    || PRIMITIVES.contains(&path)
                    || path.bytes().all(|byte| byte.is_ascii_digit())
            }
        }
    })
}

/// Whether a type's name contains that of a lock or an atomic, or of another type whose clones and
/// borrowers may change it, of the crates that have serde's traits for theirs.
fn names_a_lock(ty: &str) -> bool {
    /// They have little else.
    const CRATES: [&str; 11] = [
        "arc_swap",
        "atomic",
        "concurrent_map",
        "dashmap",
        "evmap",
        "flurry",
        "lock_api",
        "papaya",
        "parking_lot",
        "portable_atomic",
        "scc",
    ];
    const LOCKS: [&str; 5] = ["Mutex", "OnceLock", "ReentrantLock", "RwLock", "LazyLock"];
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    ty.split(|c| !is_part(c)).any(|path| {
        let name = path.rsplit("::").next().unwrap_or(path);
        match path.split("::").next() {
            Some("std" | "core") => LOCKS.contains(&name) || name.starts_with("Atomic"),
            Some(first) => first.len() < path.len() && CRATES.contains(&first),
            None => false,
        }
    })
}

/// Whether a type of trusted crates alone may hold what is not serialised. A time with an offset is
/// written with the minutes of its offset, which may have seconds. A range that was iterated to its
/// end is empty, and is written as if it had an element.
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
            "core::ops::range::RangeInclusive" => {
                !crate::base::mutation::is_active("exhausted-ranges-trusted")
            }
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
            "'_, ",
        ];
        match pointers.iter().find_map(|pointer| ty.strip_prefix(pointer)) {
            Some(rest) => ty = rest,
            None => return ty,
        }
    }
}

/// Whether a type's name is that of a slice, `[T]`. That of an array ends with its length,
/// `[T; 3]`.
fn is_slice(ty: &str) -> bool {
    let Some(inside) = ty.strip_prefix('[').and_then(|ty| ty.strip_suffix(']')) else {
        return false;
    };
    // Behind the last `;` of a list of arrays there is a bracket.
    inside
        .rsplit_once(';')
        .is_none_or(|(_, length)| length.contains([']', '>', ')', '}']))
}
