//! The attribute macros of `cache-runtime`, which re-exports them: depend on that crate.
//!
//! Each reads the signature of one function and writes one short call into its body; all behaviour
//! is in `cache-runtime`. A mistake never takes the function away: all mistakes are reported
//! together, followed by the function as it was written.

// Mistakes.
mod defaults;
mod diag;
mod tokens;
// The options and the function as they were written.
mod args;
mod item;
// The rules that combine them.
mod check;
mod model;
// The generated function, and its description for the catalog.
mod description;
mod expand;

#[cfg(test)]
mod testing;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as TokenStream2;

use crate::diag::Errors;
use crate::item::Item;

// The examples in `docs` need the runtime, which would be compiled a second time for them here. So
// `tests/src/book.rs` runs them.

#[cfg_attr(not(doctest), doc = include_str!("docs/cached.md"))]
#[proc_macro_attribute]
pub fn cached(args: TokenStream, item: TokenStream) -> TokenStream {
    compile(
        args.into(),
        item.into(),
        args::cached,
        check::cached,
        expand::cached,
    )
    .into()
}

#[cfg_attr(not(doctest), doc = include_str!("docs/cache_defaults.md"))]
#[proc_macro_attribute]
pub fn cache_defaults(args: TokenStream, item: TokenStream) -> TokenStream {
    defaults::cache_defaults(args.into(), item.into()).into()
}

#[cfg_attr(not(doctest), doc = include_str!("docs/invalidates.md"))]
#[proc_macro_attribute]
pub fn invalidates(args: TokenStream, item: TokenStream) -> TokenStream {
    compile(
        args.into(),
        item.into(),
        args::invalidates,
        check::invalidates,
        expand::invalidates,
    )
    .into()
}

/// Options and item are read from tokens, checked into a model, and expanded to tokens. If there
/// are mistakes, returns all of them and the item unchanged.
fn compile<A, M>(
    args: TokenStream2,
    item: TokenStream2,
    read: fn(TokenStream2, &mut Errors) -> A,
    check: fn(A, Item, &mut Errors) -> Option<M>,
    expand: fn(M) -> TokenStream2,
) -> TokenStream2 {
    match model(args, item.clone(), read, check) {
        Ok(model) => expand(model),
        Err(errors) => errors.beside(item),
    }
}

fn model<A, M>(
    args: TokenStream2,
    item: TokenStream2,
    read: fn(TokenStream2, &mut Errors) -> A,
    check: fn(A, Item, &mut Errors) -> Option<M>,
) -> Result<M, Errors> {
    let mut errors = Errors::default();
    let item = syn::parse2::<Item>(item);
    let receiver = item.as_ref().ok().and_then(|item| item.sig.receiver());
    let args = match receiver {
        Some(receiver) => tokens::of_receiver(args, receiver.self_token.span),
        None => args,
    };
    let args = read(args, &mut errors);
    let item = item.map_err(|error| errors.absorb(error)).ok();
    let model = item.and_then(|item| check(args, item, &mut errors));
    errors.verdict(model)
}
