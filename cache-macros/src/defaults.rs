//! `#[cache_defaults(..)]` on an `impl` block: adds options to the attributes of its methods.
//!
//! It runs before these attributes, and adds the options that they do not have. Everything else,
//! mistakes included, is handled by them.

use std::cell::LazyCell;

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::Token;
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::punctuated::Punctuated;

use crate::args::DEFAULT_NONE_TTL;
use crate::diag::{Errors, listed, nearest};
use crate::item::{Item, braces, never_fails};

/// The options that the block may have for `#[cached]`.
const CACHED: &[&str] = &[
    "resource",
    "cache",
    "crate",
    "ttl",
    "none_ttl",
    "codec",
    "version",
    "stale_if_error",
    "swr",
    "timeout",
    "early",
    "jitter",
    "local_ttl",
];

/// The same for `#[invalidates]`, whose resource is handled separately.
const INVALIDATES: &[&str] = &["cache", "crate", "rejected", "crash_safe", "required"];

/// One option of the block.
struct Default {
    name: Ident,
    /// All of it, such as `ttl = 300`.
    tokens: TokenStream,
    /// The tokens behind the `=`.
    value: TokenStream,
}

impl Default {
    /// As the method's attribute has it. A `none_ttl` of the block may have no effect on a method.
    fn on_a_method(&self) -> TokenStream {
        if self.name != "none_ttl" {
            return self.tokens.clone();
        }
        let (name, value) = (Ident::new(DEFAULT_NONE_TTL, self.name.span()), &self.value);
        quote!(#name = #value)
    }
}

/// The block with the options added, or with its mistakes.
pub(crate) fn cache_defaults(args: TokenStream, block: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let defaults = read(args, &mut errors);
    if !is_impl(&block) {
        let message = "`#[cache_defaults]` goes on an `impl` block, whose methods are annotated";
        errors.at(Span::call_site(), message);
    }
    match errors.verdict(Some(())) {
        Ok(()) => in_block(block, &defaults),
        Err(errors) => errors.beside(block),
    }
}

fn read(args: TokenStream, errors: &mut Errors) -> Vec<Default> {
    let option = |input: ParseStream<'_>| {
        let name = input.call(Ident::parse_any)?;
        let mut value = TokenStream::new();
        if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            value = input.parse::<syn::Expr>()?.to_token_stream();
        }
        let tokens = match value.is_empty() {
            true => quote!(#name),
            false => quote!(#name = #value),
        };
        Ok(Default {
            name,
            tokens,
            value,
        })
    };
    let all =
        |input: ParseStream<'_>| Punctuated::<_, Token![,]>::parse_terminated_with(input, option);
    let defaults: Vec<Default> = match all.parse2(args) {
        Ok(all) => all.into_iter().collect(),
        Err(error) => {
            errors.absorb(error);
            return Vec::new();
        }
    };
    if defaults.is_empty() {
        let message = "`#[cache_defaults]` has no options; write e.g. `#[cache_defaults(resource = \"users\")]`";
        errors.at(Span::call_site(), message);
    }
    for (n, default) in defaults.iter().enumerate() {
        let name = default.name.to_string();
        if defaults[..n].iter().any(|it| it.name == default.name) {
            errors.on(
                &default.name,
                format!("`{name}` is given twice; keep one of them"),
            );
        }
        let known = || CACHED.iter().chain(INVALIDATES).copied();
        if !known().any(|known| name == known) {
            let message = match nearest(&name, known()) {
                Some(meant) => format!("unknown option `{name}`; did you mean `{meant}`?"),
                None => format!(
                    "`{name}` is no option for a whole block, which takes {}",
                    listed(
                        CACHED
                            .iter()
                            .copied()
                            .chain(INVALIDATES[2..].iter().copied())
                    )
                ),
            };
            errors.on(&default.name, message);
        }
    }
    defaults
}

fn is_impl(block: &TokenStream) -> bool {
    block
        .clone()
        .into_iter()
        .take_while(|token| !matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace))
        .any(|token| matches!(token, TokenTree::Ident(ident) if ident == "impl"))
}

/// The last braces of the block contain its methods.
fn in_block(block: TokenStream, defaults: &[Default]) -> TokenStream {
    let mut trees: Vec<TokenTree> = block.into_iter().collect();
    if let Some(TokenTree::Group(body)) = trees.last_mut() {
        let mut changed = Group::new(body.delimiter(), in_methods(body.stream(), defaults));
        changed.set_span(body.span());
        *body = changed;
    }
    trees.into_iter().collect()
}

/// Each `#[..]` between the methods; attributes inside methods are left alone.
fn in_methods(methods: TokenStream, defaults: &[Default]) -> TokenStream {
    let methods: Vec<TokenTree> = methods.into_iter().collect();
    let mut is_attribute = false;
    let each = methods.iter().enumerate().map(|(n, tree)| match tree {
        TokenTree::Group(group) if is_attribute && group.delimiter() == Delimiter::Bracket => {
            is_attribute = false;
            let below = &methods[n + 1..];
            let method = Method::new(Box::new(|| method(below)));
            let inside = in_attribute(group, defaults, &method);
            let mut changed = Group::new(Delimiter::Bracket, inside);
            changed.set_span(group.span());
            TokenTree::Group(changed)
        }
        tree => {
            is_attribute = matches!(tree, TokenTree::Punct(punct) if punct.as_char() == '#');
            tree.clone()
        }
    });
    each.collect()
}

/// The function below an attribute, parsed when it is first asked for. `None` for anything else,
/// about which the other macros complain.
type Method<'b> = LazyCell<Option<Item>, Box<dyn FnOnce() -> Option<Item> + 'b>>;

/// Parses the function. Its own tokens are parsed, since the tokens of the whole block may be very
/// many.
fn method(below: &[TokenTree]) -> Option<Item> {
    let is_punct = |tree: Option<&TokenTree>, any: &[char]| matches!(tree, Some(TokenTree::Punct(it)) if any.contains(&it.as_char()));
    let is_end = |n: usize| {
        // Braces may also be around a const argument: `Page<{ N }>`.
        let is_argument = || is_punct(below.get(n + 1), &['>', ',']);
        match braces(below[n].clone()) {
            Some(_) => !is_argument(),
            None => is_punct(below.get(n), &[';']),
        }
    };
    let end = (0..below.len()).find(|n| is_end(*n))?;
    syn::parse2(below[..=end].iter().cloned().collect()).ok()
}

/// Whether a default has a place on a method. With one that has none, each method without a place
/// would be a mistake, which its author could mend only outside of the block.
fn has_a_place(default: &str, written: &TokenStream, method: &Method<'_>) -> bool {
    let value = |option: &str| {
        entries(written)
            .iter()
            .find_map(|entry| match entry.as_slice() {
                [TokenTree::Ident(name)] if name == option => Some(String::new()),
                [TokenTree::Ident(name), TokenTree::Punct(_), value @ ..] if name == option => {
                    Some(value.iter().cloned().collect::<TokenStream>().to_string())
                }
                _ => None,
            })
    };
    let is_on = |option: &str| value(option).is_some_and(|value| value != "false");
    let is_off = |option: &str| value(option).is_some_and(|value| value == "false");
    let is_blocking = || method.as_ref().is_some_and(|it| it.form().is_none());
    let never_fails = || {
        let method = method.as_ref();
        method.is_some_and(|it| it.output().is_none_or(never_fails))
    };
    match default {
        "local_ttl" => !(is_on("strict") || is_off("local") || is_on("in_process")),
        "none_ttl" => !is_off("cache_none"),
        "stale_if_error" => !is_on("in_process"),
        "swr" | "timeout" => !(is_on("batch") || is_on("in_process") || is_blocking()),
        "rejected" => !(is_on("on") || never_fails()),
        _ => true,
    }
}

/// `cached(ttl = 300)`, with the options added that it does not have.
fn in_attribute(attribute: &Group, defaults: &[Default], method: &Method<'_>) -> TokenStream {
    let mut trees: Vec<TokenTree> = attribute.stream().into_iter().collect();
    let arguments = match trees.last() {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
            let group = group.clone();
            trees.pop();
            Some(group)
        }
        _ => None,
    };
    let name = match trees.last() {
        Some(TokenTree::Ident(name)) => name.clone(),
        _ => return attribute.stream(),
    };
    let written = arguments.as_ref().map(Group::stream).unwrap_or_default();
    if name == "cfg_attr" {
        return in_cfg_attr(attribute, &written, defaults, method);
    }
    let added = if name == "cached" {
        added(&written, defaults, CACHED, method)
    } else if name == "invalidates" {
        let mut added = added(&written, defaults, INVALIDATES, method);
        let resource = defaults.iter().find(|default| default.name == "resource");
        if let Some(resource) = resource.filter(|_| !names_a_target(&written)) {
            added.insert(0, resource.value.clone());
        }
        added
    } else {
        return attribute.stream();
    };
    let path: TokenStream = trees.into_iter().collect();
    let rest = (!written.is_empty()).then_some(written);
    // A resource has to precede the `id` that belongs to it; no other order matters.
    let all = added.into_iter().chain(rest);
    let mut all = Group::new(Delimiter::Parenthesis, quote!(#(#all),*));
    all.set_span(arguments.map_or_else(|| name.span(), |arguments| arguments.span()));
    quote!(#path #all)
}

/// `cfg_attr(condition, cached(..), ..)`: each attribute behind the condition.
fn in_cfg_attr(
    attribute: &Group,
    written: &TokenStream,
    defaults: &[Default],
    method: &Method<'_>,
) -> TokenStream {
    let mut entries = entries(written).into_iter();
    let condition: TokenStream = entries.next().into_iter().flatten().collect();
    let attributes = entries.map(|entry| {
        let inner = Group::new(Delimiter::Bracket, entry.into_iter().collect());
        in_attribute(&inner, defaults, method)
    });
    let all = std::iter::once(condition).chain(attributes);
    let all: Punctuated<TokenStream, Token![,]> = all.collect();
    let mut trees: Vec<TokenTree> = attribute.stream().into_iter().collect();
    if let Some(TokenTree::Group(group)) = trees.last_mut() {
        let mut changed = Group::new(Delimiter::Parenthesis, all.into_token_stream());
        changed.set_span(group.span());
        *group = changed;
    }
    trees.into_iter().collect()
}

/// The options that the attribute may have and does not have.
fn added(
    written: &TokenStream,
    defaults: &[Default],
    takes: &[&str],
    method: &Method<'_>,
) -> Vec<TokenStream> {
    let has: Vec<String> = entries(written)
        .iter()
        .filter_map(|entry| match entry.first() {
            Some(TokenTree::Ident(name)) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    let missing = defaults.iter().filter(|default| {
        let name = default.name.to_string();
        takes.contains(&name.as_str())
            && !has.contains(&name)
            && has_a_place(&name, written, method)
    });
    missing.map(Default::on_a_method).collect()
}

/// Whether a write names what it invalidates: a resource, or tags.
fn names_a_target(written: &TokenStream) -> bool {
    entries(written).iter().any(|entry| match entry.as_slice() {
        [TokenTree::Ident(name), TokenTree::Group(_), ..] => name == "tags",
        // An option, or a word such as `crash_safe`.
        [TokenTree::Ident(_), TokenTree::Punct(punct), ..] => punct.as_char() == ':',
        [TokenTree::Ident(name)] => name.unraw() == name.to_string().to_uppercase(),
        [] => false,
        _ => true,
    })
}

/// The tokens between the commas.
fn entries(written: &TokenStream) -> Vec<Vec<TokenTree>> {
    let mut entries = vec![Vec::new()];
    for tree in written.clone() {
        match (&tree, entries.last_mut()) {
            (TokenTree::Punct(punct), _) if punct.as_char() == ',' => entries.push(Vec::new()),
            (_, Some(entry)) => entry.push(tree),
            (_, None) => {}
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cached_mistakes, invalidates_mistakes};

    fn of(args: &str, block: &str) -> String {
        let parse = |source: &str| source.parse().expect("tokens");
        cache_defaults(parse(args), parse(block)).to_string()
    }

    #[track_caller]
    fn assert_same(found: &str, expected: &str) {
        let expected: TokenStream = expected.parse().expect("tokens");
        assert_eq!(found, expected.to_string());
    }

    #[test]
    fn options_missing_on_a_method_come_from_the_block() {
        let block = "impl Users {
            #[cached(op = \"list\")] async fn list(&self) -> Vec<User> { vec![] }
            #[cached] async fn get(&self, id: i64) -> User { todo!() }
            #[cached(resource = \"teams\", ttl = 5)] async fn team(&self, id: i64) -> Team { todo!() }
            #[invalidates] async fn clear(&self) {}
            #[invalidates(id = id)] async fn rename(&self, id: i64) {}
            #[invalidates(\"teams\", id = id, crash_safe)] async fn join(&self, id: i64) {}
            #[invalidates(tags(\"t\"))] async fn tagged(&self) {}
            #[inline] fn other(&self) {}
        }";
        assert_same(
            &of("resource = \"users\", cache = self.cache, ttl = 300", block),
            "impl Users {
            #[cached(resource = \"users\", cache = self.cache, ttl = 300, op = \"list\")] async fn list(&self) -> Vec<User> { vec![] }
            #[cached(resource = \"users\", cache = self.cache, ttl = 300)] async fn get(&self, id: i64) -> User { todo!() }
            #[cached(cache = self.cache, resource = \"teams\", ttl = 5)] async fn team(&self, id: i64) -> Team { todo!() }
            #[invalidates(\"users\", cache = self.cache)] async fn clear(&self) {}
            #[invalidates(\"users\", cache = self.cache, id = id)] async fn rename(&self, id: i64) {}
            #[invalidates(cache = self.cache, \"teams\", id = id, crash_safe)] async fn join(&self, id: i64) {}
            #[invalidates(cache = self.cache, tags(\"t\"))] async fn tagged(&self) {}
            #[inline] fn other(&self) {}
        }",
        );
    }

    #[test]
    fn a_condition_hides_no_attribute() {
        let block = "impl Users {
            #[cfg_attr(feature = \"c\", cached(resource = \"users\"), inline)] async fn get(&self, id: i64) -> User { todo!() }
            #[cfg_attr(all(unix, not(test)), invalidates(\"users\", id = id))] async fn rename(&self, id: i64) {}
            #[cfg_attr(unix, cfg_attr(test, cache_runtime::cached))] async fn list(&self) -> Vec<User> { vec![] }
            #[cfg_attr(unix, inline)] fn other(&self) {}
        }";
        assert_same(
            &of("resource = \"users\", cache = self.cache", block),
            "impl Users {
            #[cfg_attr(feature = \"c\", cached(cache = self.cache, resource = \"users\"), inline)] async fn get(&self, id: i64) -> User { todo!() }
            #[cfg_attr(all(unix, not(test)), invalidates(cache = self.cache, \"users\", id = id))] async fn rename(&self, id: i64) {}
            #[cfg_attr(unix, cfg_attr(test, cache_runtime::cached(resource = \"users\", cache = self.cache)))] async fn list(&self) -> Vec<User> { vec![] }
            #[cfg_attr(unix, inline)] fn other(&self) {}
        }",
        );
    }

    #[test]
    fn options_that_a_method_can_not_have_are_left_out() {
        let reads = "impl Users {
            #[cached(op = \"a\", strict)] async fn a(&self) -> u8 { 1 }
            #[cached(op = \"b\", local = false)] async fn b(&self) -> u8 { 1 }
            #[cached(op = \"c\", in_process)] async fn c(&self) -> u8 { 1 }
            #[cached(op = \"d\", cache_none = false)] async fn d(&self) -> Option<u8> { None }
            #[cached(op = \"e\", cache_none = true, strict = false)] async fn e(&self) -> Option<u8> { None }
            #[cached(batch = ids)] async fn f(&self, ids: &[i64]) -> HashMap<i64, u8> { todo!() }
            #[inline] #[cached] pub(crate) fn g(&self) -> u8 { 1 }
            #[cached] fn h(&self) -> impl Future<Output = u8> { async { 1 } }
            #[cached] fn i(&self) -> Pin<Box<dyn Future<Output = u8> + '_>> { todo!() }
            #[cached] fn j(&self, p: Page<{ N }>) -> Page<{ N }> { todo!() }
            #[cached] async fn k<F: Fn(u8)>(&self, f: F) -> u8 { 1 }
        }";
        assert_same(
            &of("local_ttl = 1, none_ttl = 2, stale_if_error = 3, swr = 4", reads),
            "impl Users {
            #[cached(__default_none_ttl = 2, stale_if_error = 3, swr = 4, op = \"a\", strict)] async fn a(&self) -> u8 { 1 }
            #[cached(__default_none_ttl = 2, stale_if_error = 3, swr = 4, op = \"b\", local = false)] async fn b(&self) -> u8 { 1 }
            #[cached(__default_none_ttl = 2, op = \"c\", in_process)] async fn c(&self) -> u8 { 1 }
            #[cached(local_ttl = 1, stale_if_error = 3, swr = 4, op = \"d\", cache_none = false)] async fn d(&self) -> Option<u8> { None }
            #[cached(local_ttl = 1, __default_none_ttl = 2, stale_if_error = 3, swr = 4, op = \"e\", cache_none = true, strict = false)] async fn e(&self) -> Option<u8> { None }
            #[cached(local_ttl = 1, __default_none_ttl = 2, stale_if_error = 3, batch = ids)] async fn f(&self, ids: &[i64]) -> HashMap<i64, u8> { todo!() }
            #[inline] #[cached(local_ttl = 1, __default_none_ttl = 2, stale_if_error = 3)] pub(crate) fn g(&self) -> u8 { 1 }
            #[cached(local_ttl = 1, __default_none_ttl = 2, stale_if_error = 3, swr = 4)] fn h(&self) -> impl Future<Output = u8> { async { 1 } }
            #[cached(local_ttl = 1, __default_none_ttl = 2, stale_if_error = 3, swr = 4)] fn i(&self) -> Pin<Box<dyn Future<Output = u8> + '_>> { todo!() }
            #[cached(local_ttl = 1, __default_none_ttl = 2, stale_if_error = 3)] fn j(&self, p: Page<{ N }>) -> Page<{ N }> { todo!() }
            #[cached(local_ttl = 1, __default_none_ttl = 2, stale_if_error = 3, swr = 4)] async fn k<F: Fn(u8)>(&self, f: F) -> u8 { 1 }
        }",
        );
        let writes = "impl Users {
            #[invalidates(on = ok)] async fn a(&self) -> Result<(), E> { Ok(()) }
            #[invalidates] async fn b<T>(&self, t: T) where T: Fn() -> u8 {}
            #[invalidates] async fn c(&self) -> Option<u8> { None }
            #[invalidates] async fn d(&self) -> io::Result<u8> { Ok(1) }
            #[invalidates] async fn e<F: Fn(u8)>(&self, f: F) {}
            #[invalidates] fn f(&self) -> BoxFuture<'_, Vec<u8>> { todo!() }
            #[invalidates] fn g(&self) -> Pin<Box<dyn Future<Output = u8> + Send + '_>> { todo!() }
            #[invalidates] fn h(&self) -> BoxFuture<'_, io::Result<u8>> { todo!() }
            #[invalidates] async fn i(&self, page: Page<{ N }>) -> Page<{ N }> { todo!() }
        }";
        assert_same(
            &of("resource = \"users\", rejected = no", writes),
            "impl Users {
            #[invalidates(\"users\", on = ok)] async fn a(&self) -> Result<(), E> { Ok(()) }
            #[invalidates(\"users\")] async fn b<T>(&self, t: T) where T: Fn() -> u8 {}
            #[invalidates(\"users\")] async fn c(&self) -> Option<u8> { None }
            #[invalidates(\"users\", rejected = no)] async fn d(&self) -> io::Result<u8> { Ok(1) }
            #[invalidates(\"users\")] async fn e<F: Fn(u8)>(&self, f: F) {}
            #[invalidates(\"users\")] fn f(&self) -> BoxFuture<'_, Vec<u8>> { todo!() }
            #[invalidates(\"users\")] fn g(&self) -> Pin<Box<dyn Future<Output = u8> + Send + '_>> { todo!() }
            #[invalidates(\"users\", rejected = no)] fn h(&self) -> BoxFuture<'_, io::Result<u8>> { todo!() }
            #[invalidates(\"users\", rejected = no)] async fn i(&self, page: Page<{ N }>) -> Page<{ N }> { todo!() }
        }",
        );
    }

    /// The mistakes in the only method of a block, with what the block adds to it.
    fn mistakes(defaults: &str, attribute: &str, options: &str, method: &str) -> Vec<String> {
        let block = of(
            defaults,
            &format!("impl A {{ #[{attribute}({options})] {method} }}"),
        );
        let block: syn::ItemImpl = syn::parse_str(&block).expect("a block");
        let [syn::ImplItem::Fn(method)] = &block.items[..] else {
            panic!("one method");
        };
        let options = method.attrs[0].meta.require_list().expect("options");
        let options = options.tokens.to_string();
        let method = syn::ImplItemFn {
            attrs: Vec::new(),
            ..method.clone()
        };
        let method = method.to_token_stream().to_string();
        let found = match attribute {
            "cached" => cached_mistakes(&options, &method),
            _ => invalidates_mistakes(&options, &method),
        };
        found.into_iter().map(|(_, message)| message).collect()
    }

    /// A rule about two options concerns defaults, too.
    #[test]
    fn no_default_is_a_mistake_on_a_method() {
        let defaults = [
            "cache = c",
            "ttl = 5",
            "none_ttl = 5",
            "codec = \"postcard\"",
            "version = 2",
            "stale_if_error = 5",
            "swr = 5",
            "timeout = 5, stale_if_error = 5",
            "early = 1.0",
            "jitter = 0.1",
            "local_ttl = 5",
        ];
        let options = [
            "",
            "strict",
            "strict = true",
            "local = false",
            "in_process",
            "cache_none = false",
            "batch = ids",
            "memo",
            "shared",
            "audit = 0.1",
            "max_loads = 3",
            "tags(\"t\")",
            "depends(\"teams\")",
            "when = true",
            "unless = |it: &u8| *it == 1",
            "context = load",
            "op = \"a\", include_context(\"tenant\")",
            "op = \"a\", skip(ids)",
            "op = \"a\", key(ids)",
        ];
        let methods = [
            "async fn a(&self, ids: &[i64]) -> HashMap<i64, u8> { todo!() }",
            "fn a(&self, ids: &[i64]) -> HashMap<i64, u8> { todo!() }",
            "fn a(&self, ids: &[i64]) -> BoxFuture<'_, HashMap<i64, u8>> { todo!() }",
        ];
        // These are told, since the method may be meant to have the option.
        let is_told = |default: &str, method: &str| {
            method.contains("BoxFuture")
                && (default.starts_with("swr") || default.starts_with("timeout"))
        };
        let mut compared = 0;
        for (option, method) in options.iter().flat_map(|it| methods.map(|m| (*it, m))) {
            let resource = "resource = \"users\"";
            if !mistakes(resource, "cached", option, method).is_empty() {
                continue;
            }
            for default in defaults.iter().filter(|it| !is_told(it, method)) {
                let found = mistakes(&format!("{resource}, {default}"), "cached", option, method);
                assert!(
                    found.is_empty(),
                    "{default} on {option}: {method} {found:?}"
                );
                compared += 1;
            }
        }
        assert!(compared > 300, "{compared}");
        for option in ["", "crash_safe", "on = ok", "tags(\"t\")", "after_commit"] {
            for output in ["", "-> u8", "-> Result<u8, E>", "-> BoxFuture<'_, u8>"] {
                let is_async = if output.contains("Future") {
                    ""
                } else {
                    "async"
                };
                let method = format!("{is_async} fn a(&self) {output} {{ todo!() }}");
                let resource = "resource = \"users\"";
                if !mistakes(resource, "invalidates", option, &method).is_empty() {
                    continue;
                }
                for default in ["cache = c", "crash_safe", "rejected = |e: &E| false"] {
                    let defaults = format!("{resource}, {default}");
                    let found = mistakes(&defaults, "invalidates", option, &method);
                    assert!(
                        found.is_empty(),
                        "{default} on {option}: {method} {found:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn constants_are_resources() {
        let block = "impl Users {
            #[invalidates(Self::RESOURCE, id = id)] async fn a(&self, id: i64) {}
            #[invalidates(USERS)] async fn b(&self) {}
        }";
        assert_same(&of("resource = \"users\"", block), block);
    }

    #[test]
    fn mistakes_are_named() {
        for (args, block, message) in [
            (
                "resource = \"users\"",
                "async fn list() {}",
                "goes on an `impl` block",
            ),
            ("", "impl A {}", "has no options"),
            (
                "resourse = \"users\"",
                "impl A {}",
                "did you mean `resource`?",
            ),
            (
                "op = \"list\"",
                "impl A {}",
                "is no option for a whole block",
            ),
            ("ttl = 5, ttl = 6", "impl A {}", "given twice"),
            ("ttl = ", "impl A {}", "compile_error"),
        ] {
            let found = of(args, block);
            assert!(found.contains(message), "{found}");
            assert!(found.contains("compile_error"), "{found}");
        }
    }
}
