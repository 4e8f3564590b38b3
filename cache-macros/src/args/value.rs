//! One parser for each kind of value.

use proc_macro2::Literal;
use syn::ext::IdentExt as _;
use syn::parse::ParseStream;
use syn::spanned::Spanned as _;
use syn::{Expr, ExprLit, ExprUnary, Ident, Lit, LitStr, Path, UnOp};

use super::kinds::{CODECS, Codec, Dependency, Name, Outcome, Tag, Ttl};
use super::syntax::{Form, RawOption};
use crate::tokens::text;

impl RawOption {
    pub(super) fn expr(&self) -> syn::Result<Expr> {
        match &self.form {
            Form::Value(value) => Ok(ungrouped(value).clone()),
            Form::List(_, paren) => Err(syn::Error::new(
                paren.span.join(),
                format!("`{0}` takes one value; write `{0} = ..`", self.key),
            )),
            Form::Nothing => Err(self.valueless(&format!("`{} = ..`", self.key))),
            Form::Broken => Err(self.error("has no value")),
        }
    }

    fn valueless(&self, example: &str) -> syn::Error {
        self.error(&format!("has no value; write {example}"))
    }

    pub(super) fn exprs(&self) -> syn::Result<Vec<Expr>> {
        match &self.form {
            Form::List(items, _) if items.is_empty() => {
                Err(self.error("is empty; name something in it or remove it"))
            }
            Form::List(items, _) => Ok(items.iter().map(|item| ungrouped(item).clone()).collect()),
            Form::Value(value) => Err(self.list_of(value)),
            Form::Nothing => Err(self.valueless(&format!("`{}(..)`", self.key))),
            Form::Broken => Err(self.error("has no value")),
        }
    }

    /// The error for a value in place of a list. Other libraries write texts where this one has
    /// expressions.
    fn list_of(&self, value: &Expr) -> syn::Error {
        let items: Vec<&Expr> = match ungrouped(value) {
            Expr::Tuple(tuple) => tuple.elems.iter().collect(),
            Expr::Array(array) => array.elems.iter().collect(),
            other => vec![other],
        };
        let texts = ["tags", "depends", "ops", "include_context"];
        let takes_texts = texts.iter().any(|key| self.key == key);
        let fix = |item: &&Expr| match literal(item) {
            _ if takes_texts => Some(text(item)),
            Some(Lit::Str(quoted)) => quoted_expr(&quoted.value()).map(|value| text(&value)),
            Some(_) => None,
            None => Some(text(item)),
        };
        let fixed: Option<Vec<String>> = items.iter().map(fix).collect();
        let fix = match fixed {
            Some(items) => format!("a list; write `{}({})`", self.key, items.join(", ")),
            None if self.key == "skip" => "a list of parameters, e.g. `skip(db)`".to_owned(),
            None => format!("a list of expressions, e.g. `{}(id)`", self.key),
        };
        syn::Error::new_spanned(value, format!("`{}` takes {fix}", self.key))
    }

    /// Parses each item of a list, and reports every one that can't be parsed.
    fn each<T>(&self, read: impl Fn(&Expr) -> syn::Result<T>) -> syn::Result<Vec<T>> {
        let mut mistakes: Option<syn::Error> = None;
        let mut values = Vec::new();
        for item in self.exprs()? {
            match (read(&item), &mut mistakes) {
                (Ok(value), _) => values.push(value),
                (Err(mistake), Some(mistakes)) => mistakes.combine(mistake),
                (Err(mistake), None) => mistakes = Some(mistake),
            }
        }
        mistakes.map_or(Ok(values), Err)
    }

    pub(super) fn parameters(&self) -> syn::Result<Vec<Ident>> {
        let message = format!("`{0}` takes names of parameters, e.g. `{0}(db)`", self.key);
        self.each(|item| {
            let name = single_ident(item).cloned();
            name.ok_or_else(|| syn::Error::new_spanned(item, &message))
        })
    }

    pub(super) fn parameter(&self) -> syn::Result<Ident> {
        let value = self.expr()?;
        let name = single_ident(&value).cloned();
        name.ok_or_else(|| self.error_on(&value, "is the name of a parameter, e.g. `batch = ids`"))
    }

    /// Resources, each of which may be followed by a row.
    pub(super) fn dependencies(&self) -> syn::Result<Vec<Dependency>> {
        enum Item {
            Resource(Name),
            Id(Expr),
        }
        let items = self.each(|item| {
            let Expr::Assign(assign) = item else {
                return NameKind::Resource.read(item).map(Item::Resource);
            };
            match single_ident(&assign.left) {
                Some(word) if word == "id" => Ok(Item::Id((*assign.right).clone())),
                _ => Err(syn::Error::new_spanned(
                    &assign.left,
                    "a resource may be followed by `id = ..`, the row that is meant",
                )),
            }
        })?;
        let mut dependencies: Vec<Dependency> = Vec::new();
        for item in items {
            match (item, dependencies.last_mut()) {
                (Item::Resource(resource), _) => {
                    dependencies.push(Dependency { resource, id: None });
                }
                (Item::Id(id), Some(last)) if last.id.is_none() => last.id = Some(id),
                (Item::Id(id), _) => {
                    let example = "`depends(\"authors\", id = author_id)`";
                    let message =
                        format!("an `id` comes after its resource, once; write e.g. {example}");
                    return Err(syn::Error::new_spanned(id, message));
                }
            }
        }
        Ok(dependencies)
    }

    pub(super) fn ops(&self) -> syn::Result<Vec<Name>> {
        self.each(|item| NameKind::Op.read(item))
    }

    pub(super) fn tags(&self) -> syn::Result<Vec<Tag>> {
        self.each(Tag::read)
    }

    pub(super) fn flag(&self) -> syn::Result<bool> {
        match self.form {
            Form::Nothing => Ok(true),
            _ => self.bool(),
        }
    }

    pub(super) fn codec(&self) -> syn::Result<Codec> {
        let value = self.expr()?;
        match literal(&value) {
            Some(Lit::Str(name)) if CODECS.contains(&name.value().as_str()) => Ok(Codec {
                name: Ident::new(&name.value().replace('+', "_"), name.span()),
            }),
            _ => {
                let known: Vec<_> = CODECS.iter().map(|name| format!("\"{name}\"")).collect();
                Err(self.error_on(&value, &format!("is one of {}", known.join(", "))))
            }
        }
    }

    pub(super) fn resource(&self) -> syn::Result<Name> {
        NameKind::Resource.read(&self.expr()?)
    }

    pub(super) fn op(&self) -> syn::Result<Name> {
        NameKind::Op.read(&self.expr()?)
    }

    pub(super) fn ttl(&self) -> syn::Result<Ttl> {
        let value = self.expr()?;
        let wrong = |what: &str| {
            let units = "use whole seconds, or a string such as \"5m\" or \"500ms\"";
            Err(self.error_on(&value, &format!("is {what}; {units}")))
        };
        match literal(&value) {
            Some(Lit::Int(seconds)) => match seconds.base10_parse() {
                Ok(0) => Err(self.zero(&value)),
                Ok(seconds) => Ok(Ttl::Seconds(seconds)),
                Err(_) => wrong("more than a 64-bit number holds"),
            },
            Some(Lit::Str(text)) => match milliseconds(&text.value()) {
                Ok(0) => Err(self.zero(&value)),
                Ok(millis) => Ok(Ttl::Millis(millis)),
                Err(message) => Err(syn::Error::new_spanned(text, message)),
            },
            Some(Lit::Float(_)) => wrong("not a whole number"),
            Some(_) => wrong("not a duration"),
            None if is_negative_number(&value) => wrong("negative"),
            None => Ok(Ttl::Expr(Box::new(value))),
        }
    }

    /// A time; without one, that of the configuration.
    pub(super) fn ttl_or_default(&self) -> syn::Result<Option<Ttl>> {
        match self.form {
            Form::Nothing => Ok(None),
            _ => self.ttl().map(Some),
        }
    }

    /// A number of at least one.
    pub(super) fn count(&self) -> syn::Result<Expr> {
        let value = self.expr()?;
        let number: Option<u32> = match literal(&value) {
            Some(Lit::Int(number)) => number.base10_parse().ok(),
            None if !is_negative_number(&value) => return Ok(value),
            _ => None,
        };
        match number {
            Some(1..) => Ok(value),
            _ => Err(self.error_on(&value, "is a whole number above 0, e.g. `max_loads = 32`")),
        }
    }

    /// Names of values that a caller sets around the call.
    pub(super) fn names(&self) -> syn::Result<Vec<LitStr>> {
        self.each(|item| match literal(item) {
            Some(Lit::Str(name)) if is_segment(&name.value()) => Ok(name.clone()),
            _ => Err(self.error_on(
                item,
                "takes names in quotes, e.g. `include_context(\"tenant\")`",
            )),
        })
    }

    /// The β of early refresh; without a value, 1.
    pub(super) fn beta(&self) -> syn::Result<Expr> {
        match self.form {
            Form::Nothing => Ok(syn::parse_quote!(1.0)),
            _ => self.number("a number above 0, e.g. `early = 1.0`", |beta| beta > 0.0),
        }
    }

    /// A share of one.
    pub(super) fn part(&self) -> syn::Result<Expr> {
        self.number(
            "a part of the time to live, above 0 and up to 1, e.g. `jitter = 0.1`",
            |part| part > 0.0 && part <= 1.0,
        )
    }

    /// A share of the hits.
    pub(super) fn part_of_hits(&self) -> syn::Result<Expr> {
        self.number("a part of the hits, 0 to 1, e.g. `audit = 0.01`", |part| {
            (0.0..=1.0).contains(&part)
        })
    }

    fn number(&self, what: &str, allows: impl Fn(f64) -> bool) -> syn::Result<Expr> {
        let value = self.expr()?;
        let number: Option<f64> = match literal(&value) {
            Some(Lit::Float(number)) => number.base10_parse().ok(),
            Some(Lit::Int(number)) => number.base10_parse().ok(),
            None if !is_negative_number(&value) => return Ok(value),
            _ => None,
        };
        let number = number.filter(|number| allows(*number));
        let number = number.ok_or_else(|| self.error_on(&value, &format!("is {what}")))?;
        let mut literal = Literal::f64_suffixed(number);
        literal.set_span(value.span());
        Ok(Expr::Lit(ExprLit {
            attrs: Vec::new(),
            lit: Lit::new(literal),
        }))
    }

    /// A name that the body uses for something.
    pub(super) fn name(&self) -> syn::Result<Ident> {
        let value = self.expr()?;
        let name = single_ident(&value).cloned();
        name.ok_or_else(|| self.error_on(&value, "is a name for the body, e.g. `context = load`"))
    }

    fn zero(&self, value: &Expr) -> syn::Error {
        if self.key == "swr" || self.key == "stale_if_error" || self.key == "timeout" {
            return self.error_on(value, "is 0; use 1 or more seconds, or remove it");
        }
        let fix = match self.key == "none_ttl" {
            true => "use 1 or more seconds, or `cache_none = false`",
            false => "use 1 or more seconds",
        };
        self.error_on(value, &format!("is 0, so nothing would be kept; {fix}"))
    }

    pub(super) fn bool(&self) -> syn::Result<bool> {
        let value = self.expr()?;
        match literal(&value) {
            Some(Lit::Bool(literal)) => Ok(literal.value),
            _ => Err(self.error_on(&value, "is `true` or `false`")),
        }
    }

    pub(super) fn version(&self) -> syn::Result<u32> {
        let value = self.expr()?;
        let number = match literal(&value) {
            Some(Lit::Int(number)) => number.base10_parse().ok(),
            _ => None,
        };
        let what =
            "is a whole number; count it up when the stored form changes, e.g. `version = 2`";
        number.ok_or_else(|| self.error_on(&value, what))
    }

    /// The cache to use.
    pub(super) fn instance(&self) -> syn::Result<Expr> {
        let value = self.expr()?;
        let what = match literal(&value) {
            Some(Lit::Str(text)) => {
                let fix = text.value();
                format!("is an expression without quotes; write `cache = {fix}`")
            }
            Some(_) => "is a `Cache`, e.g. `cache = self.cache`".to_owned(),
            None => return Ok(value),
        };
        Err(self.error_on(&value, &what))
    }

    pub(super) fn path(&self) -> syn::Result<Path> {
        let value = self.expr()?;
        if let Expr::Path(path) = &value
            && path.qself.is_none()
        {
            return Ok(path.path.clone());
        }
        Err(match literal(&value) {
            Some(Lit::Str(text)) => {
                let fix = format!("write `{} = {}`", self.key, text.value());
                self.error_on(&value, &format!("is a path without quotes; {fix}"))
            }
            _ => self.error_on(&value, "is a path, e.g. `crate = my_crate::cache_runtime`"),
        })
    }

    pub(super) fn outcome(&self) -> syn::Result<Outcome> {
        let value = self.expr()?;
        match single_ident(&value) {
            Some(word) if word == "ok" => Ok(Outcome::Ok),
            _ => Err(self.error_on(
                &value,
                "is `ok` or left out; without it an error invalidates, too",
            )),
        }
    }

    pub(super) fn error(&self, what: &str) -> syn::Error {
        syn::Error::new_spanned(&self.key, format!("`{}` {what}", self.key))
    }

    fn error_on(&self, value: &Expr, what: &str) -> syn::Error {
        syn::Error::new_spanned(value, format!("`{}` {what}", self.key))
    }
}

impl Tag {
    fn read(value: &Expr) -> syn::Result<Self> {
        let Some(Lit::Str(text)) = literal(value) else {
            return Ok(Self::Value(Box::new(ungrouped(value).clone())));
        };
        let wrong = |what: &str| {
            let how = "write an expression between the braces, e.g. `\"team:{team_id}\"`";
            syn::Error::new_spanned(text, format!("{what}; {how}"))
        };
        let raw = text.value();
        if raw.is_empty() {
            let message = "this tag is empty; name what it reaches, e.g. `\"team:{team_id}\"`";
            return Err(syn::Error::new_spanned(text, message));
        }
        let (mut format, mut values) = (String::new(), Vec::new());
        let mut rest = raw.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            let (before, braced) = rest.split_at(at);
            format.push_str(before);
            if braced.starts_with("{{") || braced.starts_with("}}") {
                format.push_str(&braced[..2]);
                rest = &braced[2..];
                continue;
            }
            let end = braced.find('}').filter(|_| braced.starts_with('{'));
            let end = end.ok_or_else(|| wrong("this tag has a brace without its pair"))?;
            if braced[1..end].trim().is_empty() {
                return Err(wrong("this tag has nothing between its braces"));
            }
            let inner = LitStr::new(&braced[1..end], text.span());
            let value = inner
                .parse::<Expr>()
                .or_else(|_| inner.parse_with(raw_name))
                .map_err(|_| match without_format(&inner) {
                    Some(value) => {
                        let message = format!(
                            "a tag takes no format such as that in `{{{}}}`; write `{{{value}}}`, or an expression that makes the text",
                            inner.value()
                        );
                        syn::Error::new_spanned(text, message)
                    }
                    None => wrong(&format!("`{}` is no expression", inner.value())),
                })?;
            format.push_str("{}");
            values.push(value);
            rest = &braced[end + 1..];
        }
        format.push_str(rest);
        Ok(Self::Format(LitStr::new(&format, text.span()), values))
    }
}

/// `id` of `id:02`, as a format string has it.
fn without_format(inner: &LitStr) -> Option<String> {
    let text = inner.value();
    let (value, _) = text.rsplit_once(':')?;
    let value = value.trim_end();
    syn::parse_str::<Expr>(value)
        .is_ok()
        .then(|| value.to_owned())
}

/// A keyword alone is the parameter of that name, as in a format string: `"{type}"` is `r#type`.
fn raw_name(input: ParseStream<'_>) -> syn::Result<Expr> {
    let word = input.call(Ident::parse_any)?;
    if ["self", "Self", "super", "crate"]
        .iter()
        .any(|it| word == it)
    {
        return Err(syn::Error::new(word.span(), "no name"));
    }
    let name = Ident::new_raw(&word.to_string(), word.span());
    Ok(syn::parse_quote!(#name))
}

/// The two kinds of things that have names in a key.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum NameKind {
    Resource,
    Op,
}

impl NameKind {
    pub(super) fn read(self, value: &Expr) -> syn::Result<Name> {
        let value = ungrouped(value);
        if let Expr::Path(path) = value {
            return Ok(Name::Path(path.clone()));
        }
        match literal(value) {
            Some(Lit::Str(text)) if self.allows(&text.value()) => Ok(Name::Literal(text.clone())),
            Some(Lit::Str(text)) => {
                Err(syn::Error::new_spanned(text, self.misnamed(&text.value())))
            }
            _ => Err(syn::Error::new_spanned(
                value,
                match self {
                    Self::Resource => {
                        "a resource is a string or the path of a constant, \
                     e.g. `\"users\"` or `Self::RESOURCE`"
                    }
                    Self::Op => "an op is a string or the path of a constant, e.g. `\"list\"`",
                },
            )),
        }
    }

    fn allows(self, name: &str) -> bool {
        match self {
            Self::Resource => is_segment(name),
            Self::Op => name.split(':').all(is_segment),
        }
    }

    fn misnamed(self, name: &str) -> String {
        let letters = "use lower-case letters, digits, `-` and `_`";
        match self {
            Self::Resource => {
                let example = repaired(name, "users");
                format!("`{name}` is not a resource name; {letters}, e.g. `{example}`")
            }
            Self::Op => {
                let parts: Vec<String> = name.split(':').map(|part| repaired(part, "")).collect();
                let example = parts.join(":");
                let example = if self.allows(&example) {
                    &example
                } else {
                    "list"
                };
                format!(
                    "`{name}` is not an op; {letters}, in parts joined by `:`, e.g. `{example}`"
                )
            }
        }
    }
}

/// The allowed name that is nearest: `UserAccounts` becomes `user-accounts`.
pub(crate) fn repaired(name: &str, default: &str) -> String {
    let mut fixed = String::new();
    let mut was_lower = false;
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() || letter == '_' {
            if was_lower && letter.is_ascii_uppercase() {
                fixed.push('-');
            }
            fixed.push(letter.to_ascii_lowercase());
        } else if !fixed.ends_with('-') {
            fixed.push('-');
        }
        was_lower = letter.is_ascii_lowercase();
    }
    match fixed.trim_matches('-') {
        "" => default.to_owned(),
        fixed => fixed.to_owned(),
    }
}

/// Whether a name has only the characters that a resource, or one part of an op, may have.
pub(crate) fn is_segment(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

fn is_negative_number(value: &Expr) -> bool {
    matches!(value, Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) if literal(expr).is_some())
}

/// Parses `"5m"`, `"1h30m"`, `"500ms"`.
fn milliseconds(text: &str) -> Result<u64, String> {
    let is_digit = |letter: char| letter.is_ascii_digit();
    if !text.is_empty() && text.chars().all(is_digit) {
        return Err(format!(
            "\"{text}\" has no unit; write `{text}` for seconds, or \"{text}s\""
        ));
    }
    let units = "the units are `ms`, `s`, `m`, `h`, `d`, as in \"5m\" or \"1h30m\"";
    let no_duration = || format!("\"{text}\" is not a duration; {units}");
    let too_long = || format!("\"{text}\" is longer than can be counted; use less");
    let mut rest = text;
    let mut total = 0_u64;
    loop {
        let (number, after) = rest.split_at(rest.find(|c| !is_digit(c)).unwrap_or(rest.len()));
        let (unit, after) = after.split_at(after.find(is_digit).unwrap_or(after.len()));
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            "d" => 24 * 60 * 60 * 1000,
            _ => return Err(no_duration()),
        };
        if number.is_empty() {
            return Err(no_duration());
        }
        let amount = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor));
        total = amount
            .and_then(|amount| total.checked_add(amount))
            .ok_or_else(too_long)?;
        if after.is_empty() {
            return Ok(total);
        }
        rest = after;
    }
}

fn literal(value: &Expr) -> Option<&Lit> {
    match ungrouped(value) {
        Expr::Lit(literal) => Some(&literal.lit),
        _ => None,
    }
}

/// The value inside the invisible groups that `macro_rules!` puts around its arguments.
fn ungrouped(value: &Expr) -> &Expr {
    match value {
        Expr::Group(group) => ungrouped(&group.expr),
        value => value,
    }
}

/// The expression that is meant by `"#id"`, `":id"`, `"{id}"` or `"user.id"`: a name or a part of
/// one.
pub(crate) fn quoted_expr(text: &str) -> Option<Expr> {
    let signs = |letter: char| matches!(letter, '#' | '$' | ':' | '{' | ' ');
    let text = text.trim_start_matches(signs).trim_end_matches(['}', ' ']);
    let value: Expr = syn::parse_str(text).ok()?;
    let is_type = |name: &Ident| name.to_string().starts_with(char::is_uppercase);
    root(&value).filter(|name| !is_type(name))?;
    Some(value)
}

/// The `user` of `user`, `user.id` and `user.id()`.
pub(crate) fn root(value: &Expr) -> Option<&Ident> {
    match value {
        Expr::Field(field) => root(&field.base),
        Expr::MethodCall(call) => root(&call.receiver),
        value => single_ident(value),
    }
}

/// The name, if the expression is only a name.
pub(crate) fn single_ident(value: &Expr) -> Option<&Ident> {
    match ungrouped(value) {
        Expr::Path(path) if path.qself.is_none() => path.path.get_ident(),
        _ => None,
    }
}

/// Whether a name is written like a constant.
pub(crate) fn is_constant(name: &Ident) -> bool {
    name.unraw()
        .to_string()
        .chars()
        .all(|letter| !letter.is_lowercase())
}
