//! The options as written: each key and each value with its span. No other file knows their syntax.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::{Expr, ExprLit, ExprPath, Ident, Lit, LitInt, LitStr, Path, Token, UnOp, token};

use crate::diag::{Errors, listed, nearest};

/// One option, absent or given.
#[derive(Default)]
pub(crate) enum Setting<T> {
    /// Not mentioned.
    #[default]
    Absent,
    /// Mentioned, but its value is a mistake that has been reported.
    Broken { key: Ident },
    /// Mentioned with a value of the right kind.
    Given { key: Ident, value: T },
}

impl<T> Setting<T> {
    /// The option's name where it was written.
    pub(crate) fn key(&self) -> Option<&Ident> {
        match self {
            Self::Absent => None,
            Self::Broken { key } | Self::Given { key, .. } => Some(key),
        }
    }

    pub(crate) fn value(&self) -> Option<&T> {
        match self {
            Self::Given { value, .. } => Some(value),
            Self::Absent | Self::Broken { .. } => None,
        }
    }

    pub(crate) fn into_value(self) -> Option<T> {
        match self {
            Self::Given { value, .. } => Some(value),
            Self::Absent | Self::Broken { .. } => None,
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    fn set(
        &mut self,
        written: Written,
        errors: &mut Errors,
        read: impl FnOnce(&Written) -> syn::Result<T>,
    ) {
        let value = match &written.form {
            Form::Broken => None,
            _ => read(&written).map_err(|error| errors.absorb(error)).ok(),
        };
        let key = written.key;
        if !self.is_absent() {
            errors.on(&key, format!("`{key}` is given twice; keep one of them"));
        } else if let Some(value) = value {
            *self = Self::Given { key, value };
        } else {
            *self = Self::Broken { key };
        }
    }
}

/// A resource or an op.
#[derive(Clone)]
pub(crate) enum Name {
    Literal(LitStr),
    /// A constant: its value is only known to the compiler.
    Path(ExprPath),
}

/// How long something is kept.
pub(crate) enum Ttl {
    Seconds(u64),
    /// Of a string such as `"500ms"`.
    Millis(u64),
    Expr(Expr),
}

/// What both attributes take.
#[derive(Default)]
pub(crate) struct Common {
    /// The instance to use instead of the process-wide one.
    pub(crate) cache: Setting<Expr>,
    /// Where `cache-runtime` is found.
    pub(crate) krate: Setting<Path>,
}

/// What stands in `#[cached(..)]`.
#[derive(Default)]
pub(crate) struct CachedArgs {
    pub(crate) common: Common,
    pub(crate) resource: Setting<Name>,
    pub(crate) op: Setting<Name>,
    pub(crate) id: Setting<Expr>,
    pub(crate) skip: Setting<Vec<Ident>>,
    pub(crate) include: Setting<Vec<Expr>>,
    pub(crate) key: Setting<Vec<Expr>>,
    pub(crate) ttl: Setting<Ttl>,
    pub(crate) none_ttl: Setting<Ttl>,
    pub(crate) cache_none: Setting<bool>,
    pub(crate) version: Setting<u32>,
}

/// What stands in `#[invalidates(..)]`.
#[derive(Default)]
pub(crate) struct InvalidatesArgs {
    pub(crate) common: Common,
    pub(crate) targets: Vec<TargetArgs>,
    /// Whether a target was meant that could not be read, and so is missing in `targets`.
    pub(crate) broken_target: bool,
    pub(crate) on: Setting<Outcome>,
    pub(crate) rejected: Setting<Expr>,
}

/// A resource and the options that belong to it.
pub(crate) struct TargetArgs {
    pub(crate) resource: Name,
    pub(crate) id: Setting<Expr>,
}

/// The results after which a write invalidates; all of them unless `on` says otherwise.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    Ok,
}

/// Names each option once: its reader, and the list for "did you mean", come from the same line.
type Table<A> = &'static [(&'static str, fn(&mut A, Written, &mut Errors))];

const CACHED: Table<CachedArgs> = &[
    ("resource", |args, written, errors| {
        args.resource.set(written, errors, Written::resource)
    }),
    ("ttl", |args, written, errors| {
        args.ttl.set(written, errors, Written::ttl)
    }),
    ("op", |args, written, errors| {
        args.op.set(written, errors, Written::op)
    }),
    ("id", |args, written, errors| {
        args.id.set(written, errors, Written::expr)
    }),
    ("skip", |args, written, errors| {
        args.skip.set(written, errors, Written::parameters)
    }),
    ("include", |args, written, errors| {
        args.include.set(written, errors, Written::exprs)
    }),
    ("key", |args, written, errors| {
        args.key.set(written, errors, Written::exprs)
    }),
    ("none_ttl", |args, written, errors| {
        args.none_ttl.set(written, errors, Written::ttl)
    }),
    ("cache_none", |args, written, errors| {
        args.cache_none.set(written, errors, Written::bool)
    }),
    ("version", |args, written, errors| {
        args.version.set(written, errors, Written::version)
    }),
    ("cache", |args, written, errors| {
        args.common.cache.set(written, errors, Written::expr)
    }),
    ("crate", |args, written, errors| {
        args.common.krate.set(written, errors, Written::path)
    }),
];

const INVALIDATES: Table<InvalidatesArgs> = &[
    ("id", |args, written, errors| {
        match args.targets.last_mut() {
            Some(target) => target.id.set(written, errors, Written::expr),
            None if args.broken_target => {}
            None => errors.on(
                &written.key,
                "`id` comes after its resource; write e.g. `\"users\", id = id`",
            ),
        }
    }),
    ("on", |args, written, errors| {
        args.on.set(written, errors, Written::outcome)
    }),
    ("rejected", |args, written, errors| {
        args.rejected.set(written, errors, Written::expr)
    }),
    ("cache", |args, written, errors| {
        args.common.cache.set(written, errors, Written::expr)
    }),
    ("crate", |args, written, errors| {
        args.common.krate.set(written, errors, Written::path)
    }),
];

/// Words that other caching libraries use, and ours for the same thing.
const SYNONYMS: &[(&str, &str)] = &[
    ("expire", "ttl"),
    ("expires", "ttl"),
    ("expiry", "ttl"),
    ("seconds", "ttl"),
    ("time", "ttl"),
    ("timeout", "ttl"),
    ("entity", "resource"),
    ("name", "resource"),
    ("namespace", "resource"),
    ("prefix", "resource"),
    ("table", "resource"),
    ("exclude", "skip"),
    ("ignore", "skip"),
    ("operation", "op"),
];

/// Reads the options of `#[cached]`.
pub(crate) fn cached(tokens: TokenStream, errors: &mut Errors) -> CachedArgs {
    let mut args = CachedArgs::default();
    for entry in entries(tokens, errors) {
        match entry {
            Entry::Option(written) => dispatch("cached", CACHED, &mut args, written, errors),
            Entry::Bare(value) => {
                if let Some(word) = single_ident(&value) {
                    errors.on(word, unknown("cached", CACHED, &word.to_string()));
                } else if args.resource.is_absent() {
                    let name = value.to_token_stream();
                    errors.on(
                        &value,
                        format!("a value needs the name of its option; write `resource = {name}`"),
                    );
                    args.resource = Setting::Broken {
                        key: Ident::new("resource", Span::call_site()),
                    };
                } else {
                    errors.on(
                        &value,
                        "a value needs the name of its option; write `option = value`",
                    );
                }
            }
        }
    }
    args
}

/// Reads the resources and options of `#[invalidates]`.
pub(crate) fn invalidates(tokens: TokenStream, errors: &mut Errors) -> InvalidatesArgs {
    let mut args = InvalidatesArgs::default();
    for entry in entries(tokens, errors) {
        match entry {
            Entry::Option(written) if written.key == "resource" => {
                args.broken_target = true;
                errors.on(
                    &written.key,
                    "a resource stands here by itself; write e.g. `#[invalidates(\"users\")]`",
                );
            }
            Entry::Option(written) => {
                dispatch("invalidates", INVALIDATES, &mut args, written, errors)
            }
            Entry::Bare(value) => match single_ident(&value).filter(|word| !is_constant(word)) {
                Some(word) => {
                    args.broken_target = true;
                    let quoted = format!(
                        "a resource is a string or the path of a constant; write `\"{word}\"`"
                    );
                    let known = INVALIDATES.iter().any(|(name, _)| word == name);
                    errors.on(
                        word,
                        if known {
                            format!("`{word}` has no value; write `{word} = ..`")
                        } else {
                            quoted
                        },
                    );
                }
                None => match Noun::Resource.read(&value) {
                    Ok(resource) => args.targets.push(TargetArgs {
                        resource,
                        id: Setting::Absent,
                    }),
                    Err(error) => {
                        args.broken_target = true;
                        errors.absorb(error);
                    }
                },
            },
        }
    }
    args
}

fn dispatch<A>(
    attribute: &str,
    table: Table<A>,
    args: &mut A,
    written: Written,
    errors: &mut Errors,
) {
    let name = written.key.to_string();
    match table.iter().find(|(option, _)| *option == name) {
        Some((_, read)) => read(args, written, errors),
        None => errors.on(&written.key, unknown(attribute, table, &name)),
    }
}

fn unknown<A>(attribute: &str, table: Table<A>, given: &str) -> String {
    let names = || table.iter().map(|(name, _)| *name);
    let synonym = || {
        SYNONYMS
            .iter()
            .find(|(word, _)| *word == given)
            .map(|(_, option)| *option)
    };
    let elsewhere = |other: &[&str]| other.contains(&given);
    if names().any(|name| name == given) {
        format!("`{given}` has no value; write `{given} = ..`")
    } else if attribute == "cached" && elsewhere(&["on", "rejected"]) {
        format!("`{given}` is an option of `#[invalidates]`; leave it out of `#[cached]`")
    } else if attribute == "invalidates" && CACHED.iter().any(|(name, _)| *name == given) {
        format!("`{given}` is an option of `#[cached]`; leave it out of `#[invalidates]`")
    } else if let Some(meant) = synonym().filter(|option| names().any(|name| name == *option)) {
        format!("unknown option `{given}`; did you mean `{meant}`?")
    } else if let Some(meant) = nearest(given, names()) {
        format!("unknown option `{given}`; did you mean `{meant}`?")
    } else {
        format!(
            "unknown option `{given}`; `#[{attribute}]` takes {}",
            listed(names())
        )
    }
}

/// What stands between two commas.
enum Entry {
    Option(Written),
    /// A value without a name.
    Bare(Expr),
}

struct Written {
    key: Ident,
    form: Form,
}

enum Form {
    /// `ttl = 300`
    Value(Expr),
    /// `skip(db, pool)`
    List(Punctuated<Expr, Token![,]>, token::Paren),
    /// Not even an expression; reported.
    Broken,
}

/// Splits the attribute's tokens into entries; after a mistake it goes on behind the next comma.
fn entries(tokens: TokenStream, errors: &mut Errors) -> Vec<Entry> {
    let parse = |input: ParseStream<'_>| {
        let mut entries = Vec::new();
        while !input.is_empty() {
            entries.extend(entry(input, errors));
            if input.is_empty() {
                break;
            }
            if input.parse::<Token![,]>().is_err() {
                errors.absorb(input.error("expected `,` between two options"));
                if !starts_an_option(input) {
                    skip_past_comma(input);
                }
            }
        }
        Ok(entries)
    };
    // The closure consumes all of its input and never fails.
    parse.parse2(tokens).unwrap_or_default()
}

fn starts_an_option(input: ParseStream<'_>) -> bool {
    input.peek(Ident::peek_any)
        && (input.peek2(Token![=]) && !input.peek2(Token![==]) || input.peek2(token::Paren))
}

fn skip_past_comma(input: ParseStream<'_>) {
    while !input.is_empty() && input.parse::<Token![,]>().is_err() {
        // A token tree can always be taken from input that is not empty.
        let _ = input.parse::<TokenTree>();
    }
}

fn entry(input: ParseStream<'_>, errors: &mut Errors) -> Option<Entry> {
    if !starts_an_option(input) {
        return match input.parse::<Expr>() {
            Ok(value) => Some(Entry::Bare(value)),
            Err(_) => {
                errors.absorb(input.error("expected an option, e.g. `ttl = 300`"));
                to_comma(input);
                None
            }
        };
    }
    let Ok(key) = input.call(Ident::parse_any) else {
        return None;
    };
    let form = if input.peek(token::Paren) {
        list(input)
    } else {
        // `starts_an_option` has seen the `=`.
        let _ = input.parse::<Token![=]>();
        value(&key, input)
    };
    let form = form.unwrap_or_else(|error| {
        errors.absorb(error);
        to_comma(input);
        Form::Broken
    });
    Some(Entry::Option(Written { key, form }))
}

fn value(key: &Ident, input: ParseStream<'_>) -> syn::Result<Form> {
    if input.is_empty() || input.peek(Token![,]) {
        return Err(syn::Error::new_spanned(
            key,
            format!("`{key}` has no value; write one after the `=`"),
        ));
    }
    input.parse().map(Form::Value)
}

fn list(input: ParseStream<'_>) -> syn::Result<Form> {
    let items;
    let paren = syn::parenthesized!(items in input);
    Ok(Form::List(Punctuated::parse_terminated(&items)?, paren))
}

fn to_comma(input: ParseStream<'_>) {
    while !input.is_empty() && !input.peek(Token![,]) {
        // As in `skip_past_comma`.
        let _ = input.parse::<TokenTree>();
    }
}

/// One reader for each kind of value.
impl Written {
    fn expr(&self) -> syn::Result<Expr> {
        match &self.form {
            Form::Value(value) => Ok(ungrouped(value).clone()),
            Form::List(_, paren) => Err(syn::Error::new(
                paren.span.join(),
                format!("`{0}` takes one value; write `{0} = ..`", self.key),
            )),
            Form::Broken => Err(self.error("has no value")),
        }
    }

    fn exprs(&self) -> syn::Result<Vec<Expr>> {
        match &self.form {
            Form::List(items, _) if items.is_empty() => {
                Err(self.error("is empty; name something in it or remove it"))
            }
            Form::List(items, _) => Ok(items.iter().map(|item| ungrouped(item).clone()).collect()),
            Form::Value(value) => {
                let items = match ungrouped(value) {
                    Expr::Tuple(tuple) => tuple.elems.to_token_stream(),
                    Expr::Array(array) => array.elems.to_token_stream(),
                    other => other.to_token_stream(),
                };
                let message = format!("`{0}` takes a list; write `{0}({items})`", self.key);
                Err(syn::Error::new_spanned(value, message))
            }
            Form::Broken => Err(self.error("has no value")),
        }
    }

    fn parameters(&self) -> syn::Result<Vec<Ident>> {
        let mut mistakes: Option<syn::Error> = None;
        let mut names = Vec::new();
        for item in self.exprs()? {
            if let Some(name) = single_ident(&item) {
                names.push(name.clone());
                continue;
            }
            let message = format!(
                "`{}` takes names of parameters, e.g. `{}(db)`",
                self.key, self.key
            );
            let mistake = syn::Error::new_spanned(&item, message);
            match &mut mistakes {
                Some(mistakes) => mistakes.combine(mistake),
                None => mistakes = Some(mistake),
            }
        }
        mistakes.map_or(Ok(names), Err)
    }

    fn resource(&self) -> syn::Result<Name> {
        Noun::Resource.read(&self.expr()?)
    }

    fn op(&self) -> syn::Result<Name> {
        Noun::Op.read(&self.expr()?)
    }

    fn ttl(&self) -> syn::Result<Ttl> {
        let value = self.expr()?;
        let zero = || {
            let fix = if self.key == "none_ttl" {
                "use 1 or more seconds, or `cache_none = false`"
            } else {
                "use 1 or more seconds"
            };
            syn::Error::new_spanned(
                &value,
                format!("`{}` is 0, so nothing would be kept; {fix}", self.key),
            )
        };
        let wrong = |what: &str| {
            let message = format!(
                "`{}` is {what}; use whole seconds, or a string such as \"5m\" or \"500ms\"",
                self.key
            );
            Err(syn::Error::new_spanned(&value, message))
        };
        match &value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Int(seconds) => match unsigned(seconds)? {
                    0 => Err(zero()),
                    seconds => Ok(Ttl::Seconds(seconds)),
                },
                Lit::Str(text) => match milliseconds(&text.value()) {
                    Ok(0) => Err(zero()),
                    Ok(millis) => Ok(Ttl::Millis(millis)),
                    Err(message) => Err(syn::Error::new_spanned(text, message)),
                },
                Lit::Float(_) => wrong("not a whole number"),
                _ => wrong("not a duration"),
            },
            Expr::Unary(unary)
                if matches!(unary.op, UnOp::Neg(_)) && matches!(*unary.expr, Expr::Lit(_)) =>
            {
                wrong("negative")
            }
            _ => Ok(Ttl::Expr(value)),
        }
    }

    fn bool(&self) -> syn::Result<bool> {
        let value = self.expr()?;
        match &value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Bool(literal) => Ok(literal.value),
                _ => Err(self.error_on(&value, "is `true` or `false`")),
            },
            _ => Err(self.error_on(&value, "is `true` or `false`")),
        }
    }

    fn version(&self) -> syn::Result<u32> {
        let value = self.expr()?;
        let number = match &value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Int(number) => number.base10_parse().ok(),
                _ => None,
            },
            _ => None,
        };
        number.ok_or_else(|| {
            self.error_on(
                &value,
                "is a whole number; count it up when the stored form changes, e.g. `version = 2`",
            )
        })
    }

    fn path(&self) -> syn::Result<Path> {
        let value = self.expr()?;
        let text = match &value {
            Expr::Path(path) if path.qself.is_none() => return Ok(path.path.clone()),
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => format!(
                    "is a path without quotes; write `{} = {}`",
                    self.key,
                    text.value()
                ),
                _ => "is a path, e.g. `crate = my_crate::cache_runtime`".into(),
            },
            _ => "is a path, e.g. `crate = my_crate::cache_runtime`".into(),
        };
        Err(self.error_on(&value, &text))
    }

    fn outcome(&self) -> syn::Result<Outcome> {
        let value = self.expr()?;
        match single_ident(&value) {
            Some(word) if word == "ok" => Ok(Outcome::Ok),
            _ => Err(self.error_on(
                &value,
                "is `ok` or left out; without it an error invalidates, too",
            )),
        }
    }

    fn error(&self, what: &str) -> syn::Error {
        syn::Error::new_spanned(&self.key, format!("`{}` {what}", self.key))
    }

    fn error_on(&self, value: &Expr, what: &str) -> syn::Error {
        syn::Error::new_spanned(value, format!("`{}` {what}", self.key))
    }
}

/// The two things that have names in a key.
#[derive(Clone, Copy, PartialEq)]
enum Noun {
    Resource,
    Op,
}

impl Noun {
    fn read(self, value: &Expr) -> syn::Result<Name> {
        let value = ungrouped(value);
        match value {
            Expr::Path(path) => Ok(Name::Path(path.clone())),
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) if self.allows(&text.value()) => Ok(Name::Literal(text.clone())),
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) => Err(syn::Error::new_spanned(text, self.misnamed(&text.value()))),
            _ => {
                let what = match self {
                    Self::Resource => {
                        "a resource is a string or the path of a constant, e.g. `\"users\"` or `Self::RESOURCE`"
                    }
                    Self::Op => "an op is a string or the path of a constant, e.g. `\"list\"`",
                };
                Err(syn::Error::new_spanned(value, what))
            }
        }
    }

    fn allows(self, name: &str) -> bool {
        match self {
            Self::Resource => is_segment(name),
            Self::Op => name.split(':').all(is_segment),
        }
    }

    fn misnamed(self, name: &str) -> String {
        let parts = |name: &str| {
            name.split(':')
                .map(|part| repaired(part, ""))
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(":")
        };
        let letters = "use lower-case letters, digits, `-` and `_`";
        match self {
            Self::Resource => format!(
                "`{name}` is not a resource name; {letters}, e.g. `{}`",
                repaired(name, "users")
            ),
            Self::Op => {
                let fixed = parts(name);
                let example = if fixed.is_empty() { "list" } else { &fixed };
                format!(
                    "`{name}` is not an op; {letters}, in parts joined by `:`, e.g. `{example}`"
                )
            }
        }
    }
}

/// A name that is allowed and as near as can be: `UserAccounts` becomes `user-accounts`.
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

/// Whether a name consists of what a resource, or one part of an op, may hold.
pub(crate) fn is_segment(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

fn unsigned(literal: &LitInt) -> syn::Result<u64> {
    literal.base10_parse().map_err(|_| {
        syn::Error::new_spanned(
            literal,
            format!("`{literal}` seconds is more than a 64-bit number holds"),
        )
    })
}

/// Reads `"5m"`, `"1h30m"`, `"500ms"`.
fn milliseconds(text: &str) -> Result<u64, String> {
    const UNITS: &str = "the units are `ms`, `s`, `m`, `h`, `d`, as in \"5m\" or \"1h30m\"";
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "\"{text}\" has no unit; write `{text}` for seconds, or \"{text}s\""
        ));
    }
    let mut total = Some(0_u64);
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(
            rest.find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len()),
        );
        let (unit, after) = after.split_at(
            after
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(after.len()),
        );
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            "d" => 24 * 60 * 60 * 1000,
            _ => return Err(format!("\"{text}\" is not a duration; {UNITS}")),
        };
        if number.is_empty() {
            return Err(format!("\"{text}\" is not a duration; {UNITS}"));
        }
        let amount = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor));
        total = total
            .zip(amount)
            .and_then(|(total, amount)| total.checked_add(amount));
        rest = after;
    }
    match total {
        _ if text.is_empty() => Err(format!("\"\" is not a duration; {UNITS}")),
        Some(total) => Ok(total),
        None => Err(format!(
            "\"{text}\" is more than a 64-bit number of milliseconds holds; use less"
        )),
    }
}

/// The value inside the invisible groups that `macro_rules!` puts around what it passes on.
fn ungrouped(value: &Expr) -> &Expr {
    match value {
        Expr::Group(group) => ungrouped(&group.expr),
        value => value,
    }
}

/// The name, if the expression is nothing else.
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
