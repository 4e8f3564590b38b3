//! Entries between commas: `key = value`, `key(list)`, or a value without a key.

use proc_macro2::{TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::{Expr, Ident, Token, token};

use crate::diag::Errors;

/// The tokens between two commas.
pub(super) enum Entry {
    Option(RawOption),
    /// A value without a key.
    Bare(Expr),
}

pub(super) struct RawOption {
    pub(super) key: Ident,
    pub(super) form: Form,
}

pub(super) enum Form {
    /// `ttl = 300`
    Value(Expr),
    /// `skip(db, pool)`
    List(Punctuated<Expr, Token![,]>, token::Paren),
    /// `shared`
    Nothing,
    /// Not even an expression; the mistake has been reported.
    Broken,
}

impl RawOption {
    /// An option that is only a name.
    pub(super) fn bare(key: Ident) -> Self {
        Self {
            key,
            form: Form::Nothing,
        }
    }
}

/// Splits the attribute's tokens into entries. After a mistake it continues behind the next comma.
pub(super) fn entries(tokens: TokenStream, errors: &mut Errors) -> Vec<Entry> {
    let mut entries = Vec::new();
    let parse = |input: ParseStream<'_>| {
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
        Ok(())
    };
    // Fails only if tokens are left in the brackets of a list, which has been reported.
    let _ = parse.parse2(tokens);
    entries
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
    Some(Entry::Option(RawOption { key, form }))
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
