//! Helpers of this crate's unit tests: attributes and functions as strings in, mistakes and
//! expansions out.

use proc_macro2::TokenStream;

use crate::diag::Errors;
use crate::{args, check, compile, expand, model};

/// The mistakes in a function under `#[cached]`: what is underlined, and the message.
pub(crate) fn cached_mistakes(args: &str, item: &str) -> Vec<(String, String)> {
    shown(model(tokens(args), tokens(item), args::cached, check::cached).err())
}

/// The mistakes in a function under `#[invalidates]`.
pub(crate) fn invalidates_mistakes(args: &str, item: &str) -> Vec<(String, String)> {
    shown(
        model(
            tokens(args),
            tokens(item),
            args::invalidates,
            check::invalidates,
        )
        .err(),
    )
}

/// A function under `#[cached]` as `cargo expand` would print it.
pub(crate) fn cached(args: &str, item: &str) -> String {
    pretty(expansion("cached", tokens(args), tokens(item)))
}

/// A function under `#[invalidates]` as `cargo expand` would print it.
pub(crate) fn invalidates(args: &str, item: &str) -> String {
    pretty(expansion("invalidates", tokens(args), tokens(item)))
}

/// The expansion of an attribute.
pub(crate) fn expansion(attribute: &str, args: TokenStream, item: TokenStream) -> TokenStream {
    match attribute {
        "cached" => compile(args, item, args::cached, check::cached, expand::cached),
        _ => compile(
            args,
            item,
            args::invalidates,
            check::invalidates,
            expand::invalidates,
        ),
    }
}

/// Asserts that exactly these mistakes are found, in the order of the source.
#[track_caller]
pub(crate) fn assert_mistakes(found: &[(String, String)], expected: &[(&str, &str)]) {
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    assert_eq!(found, expected);
}

fn shown(errors: Option<Errors>) -> Vec<(String, String)> {
    errors.map(|errors| errors.shown()).unwrap_or_default()
}

fn tokens(source: &str) -> TokenStream {
    source
        .parse()
        .expect("a test's source has balanced brackets")
}

fn pretty(tokens: TokenStream) -> String {
    let file = syn::parse2(tokens).expect("what comes out of a macro is a list of items");
    prettyplease::unparse(&file)
}
