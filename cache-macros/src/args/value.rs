//! One parser for each kind of value.

use proc_macro2::Literal;
use syn::spanned::Spanned as _;
use syn::{Expr, ExprLit, ExprUnary, Ident, Lit, LitStr, Path, UnOp};

use super::expr::{literal, quoted_expr, single_ident, ungrouped};
use super::kinds::{CODECS, Codec, Dependency, Name, Outcome, Tag, Ttl};
use super::name::{NameKind, is_segment};
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
            // `5m`, which a macro may be given, and which would be five seconds.
            Some(Lit::Int(number)) if has_unit(number.suffix()) => {
                let message = format!("has a unit, so it needs quotes; write `\"{number}\"`");
                Err(self.error_on(&value, &message))
            }
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
            Some(Lit::Int(number)) if !has_unit(number.suffix()) => number.base10_parse().ok(),
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
            Some(Lit::Float(number)) if !has_unit(number.suffix()) => number.base10_parse().ok(),
            Some(Lit::Int(number)) if !has_unit(number.suffix()) => number.base10_parse().ok(),
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
            Some(Lit::Int(number)) if !has_unit(number.suffix()) => number.base10_parse().ok(),
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

/// Whether a number ends with letters that are no type: `5m`, `10x`. The compiler reports them only
/// where they are left in the code.
fn has_unit(suffix: &str) -> bool {
    const TYPES: [&str; 14] = [
        "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize",
        "f32", "f64",
    ];
    !suffix.is_empty() && !TYPES.contains(&suffix)
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
