//! A body that may go on after its caller has the answer, and so owns all that it needs.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::{FnArg, Pat};

use super::{body, mixed};
use crate::item::Item;
use crate::model::{Borrowed, Detached};
use crate::tokens::outside_of_items;

impl Detached {
    // With `swr` or `timeout` the body owns what the function borrows:
    //
    // .run_detached(move |__kind| {
    //     let (__this, __query) = (__crt::owned(self), __crt::owned(query));
    //     async move {
    //         let (__this, query): (&Self, &UserFilter) = (&__this, &__query);
    //         let _ = (&__this, &query);
    //         BODY, in which `self` is `__this`
    //     }
    // })
    pub(super) fn run(&self, item: &Item) -> TokenStream {
        let place = mixed().located_at(item.output_place());
        let this = syn::Ident::new("__this", mixed());
        let mut statements = body(item).stream();
        if self.this.is_some() {
            statements = with_this(statements, &this);
        }
        let receiver = self
            .this
            .as_ref()
            .map(|(own, ty)| (quote!(#own), this.clone(), quote!(#this), ty, quote!(#this)));
        let borrowed = self.borrowed.iter().map(|borrowed| {
            let Borrowed {
                name,
                mutability,
                ty,
            } = borrowed;
            let keeps = format_ident!("__{}", name.unraw(), span = mixed());
            (
                quote!(#name),
                keeps,
                quote!(#mutability #name),
                ty,
                quote!(#name),
            )
        });
        let kept: Vec<_> = receiver.into_iter().chain(borrowed).collect();
        let given = kept.iter().map(|(given, ..)| given);
        let keeps: Vec<_> = kept.iter().map(|(_, keeps, ..)| keeps).collect();
        let names = kept.iter().map(|(_, _, name, ..)| name);
        let types = kept.iter().map(|(.., ty, _)| ty);
        let used = kept.iter().map(|(.., used)| used);
        let (owned, borrowed) = match kept.is_empty() {
            true => (None, None),
            false => (
                Some(quote_spanned!(mixed()=> let (#(#keeps,)*) = (#(__crt::owned(#given),)*);)),
                // The second statement uses what the body does not. An `allow` would be an error in
                // a crate that forbids unused variables.
                Some(quote_spanned! {mixed()=>
                    let (#(#names,)*): (#(#types,)*) = (#(&#keeps,)*);
                    let _ = (#(&#used,)*);
                }),
            ),
        };
        let mut block = Group::new(
            item.body.delimiter(),
            quote_spanned!(mixed()=> #borrowed #statements),
        );
        block.set_span(item.body.span());
        quote_spanned!(place=> run_detached(move |__kind| { #owned async move #block }))
    }
}

impl Detached {
    /// The body may assign to a variable of its own, and not to the function's parameter.
    pub(super) fn without_mut(&self, item: &mut Item) {
        for input in &mut item.sig.inputs {
            if let FnArg::Typed(parameter) = input
                && let Pat::Ident(pat) = &mut *parameter.pat
                && self.borrowed.iter().any(|it| it.name == pat.ident)
            {
                pat.mutability = None;
            }
        }
    }
}

/// The same tokens with another name for `self`.
fn with_this(tokens: TokenStream, this: &syn::Ident) -> TokenStream {
    let renamed = outside_of_items(tokens).map(|(token, is_outside)| match token {
        token if !is_outside => token,
        TokenTree::Ident(name) if name == "self" => {
            let mut this = this.clone();
            this.set_span(mixed().located_at(name.span()));
            TokenTree::Ident(this)
        }
        TokenTree::Group(group) => {
            let mut renamed = Group::new(group.delimiter(), with_this(group.stream(), this));
            renamed.set_span(group.span());
            TokenTree::Group(renamed)
        }
        other => other,
    });
    renamed.collect()
}
