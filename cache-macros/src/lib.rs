//! The attribute macros of `cache-runtime`.
//!
//! Each reads the signature of one function and writes one short call into its body; all behaviour is in
//! `cache-runtime`, which re-exports both. A mistake never takes the function away: all mistakes are reported
//! together, followed by the function as it was written.

mod diag;
// Options and function as written.
mod args;
mod item;
// What they mean together.
mod check;
mod model;
// The function that comes out.
mod expand;

#[cfg(test)]
mod testing;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as TokenStream2;

use crate::diag::Errors;
use crate::item::Item;

/// Placeholder.
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

/// Placeholder.
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

/// Tokens to options and item, these to a model, the model to tokens; or all mistakes and the item untouched.
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
    let args = read(args, &mut errors);
    let item = syn::parse2(item).map_err(|error| errors.absorb(error)).ok();
    let model = item.and_then(|item| check(args, item, &mut errors));
    errors.verdict(model)
}
