//! Parses the text that `derive(Debug)` writes.

use super::hash::hash64;
use crate::base::nonce::hash128;

/// One value in the text of `Debug`.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    /// The whole text of the value.
    pub(super) raw: &'a str,
    /// The name of the struct or the variant, if it has one.
    pub(super) name: &'a str,
    pub(super) form: Form<'a>,
}

/// The form of a value in the text.
#[derive(Debug)]
pub(super) enum Form<'a> {
    /// A number, a quoted text, or anything else.
    Leaf,
    /// A name alone: a unit struct, a unit variant, `true`.
    Word,
    /// `[1, 2]`
    List(Vec<Shown<'a>>),
    /// `(1, 2)` or `Name(1, 2)`
    Tuple(Vec<Shown<'a>>),
    /// `Name { a: 1 }`
    Fields(Vec<(&'a str, Shown<'a>)>),
    /// `{1, 2}` or `{1: 2}`; the second is the value of a map's key.
    Braces(Vec<(Shown<'a>, Option<Shown<'a>>)>),
}

impl<'a> Shown<'a> {
    /// Parses a text. A text that `derive(Debug)` would not write becomes one leaf.
    pub(super) fn parse(text: &'a str) -> Self {
        let mut parser = Parser { text, at: 0 };
        match parser.value(false, 0) {
            Some(shown) if parser.at == text.len() => shown,
            _ => Shown::leaf(text),
        }
    }

    /// Whether this is a type without a value (`PhantomData`), which may or may not be serialised.
    fn is_phantom(&self) -> bool {
        self.raw.starts_with("PhantomData<")
    }

    fn leaf(raw: &'a str) -> Self {
        Shown {
            raw,
            name: "",
            form: Form::Leaf,
        }
    }

    /// Where the value begins in the memory of the text.
    pub(super) fn place(&self) -> usize {
        self.raw.as_ptr().addr()
    }

    /// A hash of the text that ignores the order of sets and maps without one.
    pub(super) fn hash(&self, is_unordered: &dyn Fn(&Shown<'_>) -> bool) -> u64 {
        let hash = |shown: &Shown<'_>| shown.hash(is_unordered);
        let mut parts = vec![hash64(self.name.as_bytes())];
        match &self.form {
            Form::Leaf | Form::Word => return hash64(self.raw.as_bytes()),
            Form::List(items) => {
                parts.push(1);
                parts.extend(items.iter().map(hash));
            }
            Form::Tuple(items) => {
                parts.push(2);
                parts.extend(items.iter().map(hash));
            }
            Form::Fields(fields) => {
                parts.push(3);
                for (name, value) in fields {
                    parts.extend([hash64(name.as_bytes()), hash(value)]);
                }
            }
            Form::Braces(entries) => {
                parts.push(4);
                let entry = |(key, value): &(Shown<'_>, Option<Shown<'_>>)| {
                    (hash(key), value.as_ref().map(hash))
                };
                let mut entries: Vec<_> = entries.iter().map(entry).collect();
                if is_unordered(self) {
                    entries.sort_unstable();
                }
                for (key, value) in entries {
                    parts.extend([key, value.unwrap_or_default()]);
                }
            }
        }
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
        hash128(&[4; 16], &bytes) as u64
    }

    /// The contents of a struct of one field, if this is that struct.
    pub(super) fn content(&self, name: &str) -> &Shown<'a> {
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
    pub(super) fn is_named(&self) -> bool {
        match &self.form {
            Form::Fields(_) => true,
            Form::Tuple(_) => !self.name.is_empty(),
            _ => false,
        }
    }

    /// Whether this is a value that fields are usually skipped for. A type has at most one such
    /// value.
    pub(super) fn is_usual(&self) -> bool {
        ["None", "[]", "{}", "\"\"", "0", "0.0", "false", "()"].contains(&self.raw)
    }

    /// The name of the first lock in it that can't be cloned, and is behind an `Arc` where clones of
    /// the value are made.
    pub(super) fn lock(&self) -> Option<&'static str> {
        if let Form::Fields(fields) = &self.form
            && let Some(("data", _)) = fields.first()
            && let Some(lock) = ["Mutex", "RwLock"].into_iter().find(|it| *it == self.name)
        {
            return Some(lock);
        }
        match &self.form {
            Form::Leaf | Form::Word => None,
            Form::List(items) | Form::Tuple(items) => items.iter().find_map(Self::lock),
            Form::Fields(fields) => fields.iter().find_map(|(_, value)| value.lock()),
            Form::Braces(entries) => entries.iter().find_map(|(key, value)| {
                let value = value.as_ref().and_then(Self::lock);
                key.lock().or(value)
            }),
        }
    }

    /// Whether it is a number or a text: a condition may skip others of these, too.
    pub(super) fn is_usual_of_several(&self) -> bool {
        ["\"\"", "0", "0.0"].contains(&self.raw)
    }
}

impl Shown<'_> {
    /// Whether this stands for something that is not shown, such as a secret: `[REDACTED]`,
    /// `"***"`, `Token { .. }`. A lock ends in `..`, too, and shows what is in it, unless somebody
    /// holds it.
    pub(super) fn hides_itself(&self) -> bool {
        let raw = self.raw.to_ascii_lowercase();
        let words = [
            "***",
            "•••",
            "redacted",
            "<hidden>",
            "[hidden]",
            "<secret>",
            "[secret]",
            "<locked>",
            "<borrowed>",
        ];
        let locks = raw.matches("poisoned: ").count();
        let locks = match crate::base::mutation::is_active("locks-hide-the-rest") {
            true if locks > 0 => usize::MAX,
            _ => locks,
        };
        let is_cut = raw == ".." || raw.matches(".. }").count() > locks;
        is_cut || words.iter().any(|word| raw.contains(word))
    }
}

/// Deeper texts are one leaf.
const DEEPEST: usize = 80;

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, text: &str) -> bool {
        let is_next = self
            .text
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(text));
        if is_next {
            self.at += text.len();
        }
        is_next
    }

    /// Whether a value may end here.
    fn is_at_end(&self, is_key: bool) -> bool {
        match self.peek() {
            None | Some(b',' | b')' | b']' | b'}') => true,
            Some(b' ') => self
                .text
                .get(self.at..)
                .is_some_and(|rest| rest.starts_with(" }")),
            Some(b':') => is_key,
            Some(_) => false,
        }
    }

    /// `is_key`: a map's key, which ends at a colon. `None` if the text can't be parsed.
    fn value(&mut self, is_key: bool, depth: usize) -> Option<Shown<'a>> {
        if depth > DEEPEST {
            return None;
        }
        let start = self.at;
        let read = self.compound(depth);
        if let Some((name, form)) = read
            && self.is_at_end(is_key)
        {
            let raw = self.text.get(start..self.at)?;
            return Some(Shown { raw, name, form });
        }
        self.at = start;
        self.leaf(is_key)
    }

    fn compound(&mut self, depth: usize) -> Option<(&'a str, Form<'a>)> {
        let name = self.word();
        match self.peek() {
            Some(b'(') => {
                self.at += 1;
                Some((name, Form::Tuple(self.items(b')', depth)?)))
            }
            Some(b'[') if name.is_empty() => {
                self.at += 1;
                Some((name, Form::List(self.items(b']', depth)?)))
            }
            Some(b'{') if name.is_empty() => {
                self.at += 1;
                Some((name, Form::Braces(self.entries(depth)?)))
            }
            Some(b' ') if !name.is_empty() && self.take(" { ") => {
                Some((name, Form::Fields(self.fields(depth)?)))
            }
            _ if !name.is_empty() && !name.starts_with(|first: char| first.is_ascii_digit()) => {
                Some((name, Form::Word))
            }
            _ => None,
        }
    }

    /// The name at this place, or an empty text.
    fn word(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '#'))
            .unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn items(&mut self, end: u8, depth: usize) -> Option<Vec<Shown<'a>>> {
        let mut items = Vec::new();
        loop {
            if self.peek()? == end {
                self.at += 1;
                return Some(items);
            }
            let item = self.value(false, depth + 1)?;
            if !item.is_phantom() {
                items.push(item);
            }
            if !self.take(", ") && !self.take(",") && self.peek()? != end {
                return None;
            }
        }
    }

    fn entries(&mut self, depth: usize) -> Option<Vec<(Shown<'a>, Option<Shown<'a>>)>> {
        let mut entries = Vec::new();
        loop {
            if self.take("}") {
                return Some(entries);
            }
            let key = self.value(true, depth + 1)?;
            let value = match self.take(": ") {
                true => Some(self.value(false, depth + 1)?),
                false => None,
            };
            entries.push((key, value));
            if !self.take(", ") && self.peek()? != b'}' {
                return None;
            }
        }
    }

    fn fields(&mut self, depth: usize) -> Option<Vec<(&'a str, Shown<'a>)>> {
        let mut fields = Vec::new();
        loop {
            if self.take("..") {
                // Further fields are not shown.
                fields.push(("", Shown::leaf("..")));
            } else {
                let name = self.word();
                if name.is_empty() || !self.take(": ") {
                    return None;
                }
                let value = self.value(false, depth + 1)?;
                if !value.is_phantom() {
                    fields.push((name, value));
                }
            }
            if self.take(" }") {
                return Some(fields);
            }
            if !self.take(", ") {
                return None;
            }
        }
    }

    /// Anything up to the end of the value. Brackets and quotes in it are balanced.
    fn leaf(&mut self, is_key: bool) -> Option<Shown<'a>> {
        let start = self.at;
        let mut open = 0usize;
        loop {
            let is_colon = is_key
                && open == 0
                && self
                    .text
                    .get(self.at..)
                    .is_some_and(|rest| rest.starts_with(": "));
            if open == 0 && (is_colon || self.peek() != Some(b':') && self.is_at_end(is_key)) {
                break;
            }
            match self.peek()? {
                b'"' => self.quoted()?,
                b'(' | b'[' | b'{' | b'<' => {
                    open += 1;
                    self.at += 1;
                }
                b')' | b']' | b'}' | b'>' => {
                    open = open.saturating_sub(1);
                    self.at += 1;
                }
                b'\'' => self.character(),
                _ => self.at += 1,
            }
        }
        let raw = self.text.get(start..self.at)?;
        (!raw.is_empty()).then(|| Shown::leaf(raw))
    }

    /// A quoted text.
    fn quoted(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                _ => self.at += 1,
            }
        }
    }

    /// A quoted character, or the apostrophe of a lifetime or label.
    fn character(&mut self) {
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        let content = match rest.strip_prefix('\\') {
            // `'\''`, `'\n'`, `'\u{1f}'`
            Some(escaped) => escaped
                .get(1..)
                .and_then(|more| more.find('\''))
                .map(|end| end + 2),
            None => rest.chars().next().map(char::len_utf8),
        };
        let closes = |end: &usize| rest.as_bytes().get(*end) == Some(&b'\'');
        self.at += content.filter(closes).map_or(1, |end| end + 2);
    }
}
