//! Checks that a body can own all that it needs, so that it may go on after its caller has the
//! answer.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::{FnArg, Pat, PatIdent, ReceiverKind, Type, TypeReference};

use crate::args::CachedArgs;
use crate::diag::Errors;
use crate::item::{Form, Item};
use crate::model::{Borrowed, Detached};
use crate::tokens::{mention, outside_of_items};

/// The values that the body has to own, if an option needs that.
pub(super) fn detached(args: &CachedArgs, item: &Item, errors: &mut Errors) -> Option<Detached> {
    if let Some(timeout) = args.timeout.key()
        && args.swr.is_absent()
        && args.stale_if_error.is_absent()
    {
        errors.on(timeout, "`timeout` serves an entry past its time, and nothing says for how long one is kept; add e.g. `stale_if_error = 600`");
    }
    let (option, key) = [("swr", args.swr.key()), ("timeout", args.timeout.key())]
        .into_iter()
        .find_map(|(name, key)| Some((name, key?)))?;
    if args.batch.key().is_some() {
        let message = format!(
            "`{option}` can't be combined with `batch`, whose entries are loaded together; remove it"
        );
        errors.on(key, message);
        return None;
    }
    if matches!(item.form(), Some(Form::Boxed | Form::Opaque)) {
        let message = format!(
            "`{option}` needs an `async fn`: the load may outlive its caller, and a returned future borrows from it; put the attribute on an inherent `async fn` that this one calls"
        );
        errors.on(key, message);
        return None;
    }
    let mut detached = Detached {
        this: None,
        borrowed: Vec::new(),
    };
    for input in &item.sig.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                let (mutable, ty) = match &receiver.kind {
                    ReceiverKind::Reference(_, _, mutable) => {
                        (mutable.is_some(), syn::parse_quote!(&Self))
                    }
                    ReceiverKind::Typed(_, ty) => match &**ty {
                        Type::Reference(ty) => (ty.mutability.is_some(), without_lifetime(ty)),
                        _ => continue,
                    },
                    _ => continue,
                };
                if mutable {
                    let message = format!(
                        "with `{option}` the load may outlive its caller, and can't keep a `&mut self`; take `&self`"
                    );
                    errors.on(receiver.self_token, message);
                } else if mention(item.body.stream(), "self").is_some() {
                    detached.this = Some((receiver.self_token, ty));
                    if let Some(text) = in_a_text(item.body.stream()) {
                        let message = format!(
                            "with `{option}` the load may outlive its caller, and `self` inside a text can't be replaced by what it keeps; pass it behind the text, as in `\"{{}}\", self`"
                        );
                        errors.at(text, message);
                    }
                }
            }
            FnArg::Typed(parameter) => match (&*parameter.pat, &*parameter.ty) {
                (Pat::Ident(name), Type::Reference(ty)) => {
                    let named = name.ident.unraw().to_string();
                    let kept = kept(option, name, ty, errors);
                    // A lint of clippy counts a parameter `_name` as used where it is kept.
                    let kept = kept.filter(|_| may_name(item.body.stream(), &named));
                    detached.borrowed.extend(kept);
                }
                (_, ty) => {
                    if let Some(borrow) = borrow(ty) {
                        errors.on(borrow, not_owned(option));
                    }
                }
            },
        }
    }
    Some(detached)
}

/// Whether a body may read the variable `name`, perhaps in a text that a macro takes apart.
fn may_name(body: TokenStream, name: &str) -> bool {
    body.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident.unraw() == name,
        TokenTree::Literal(literal) => literal.to_string().contains(name),
        TokenTree::Group(group) => may_name(group.stream(), name),
        TokenTree::Punct(_) => false,
    })
}

/// A borrowed parameter whose value can be owned.
fn kept(option: &str, pat: &PatIdent, ty: &TypeReference, errors: &mut Errors) -> Option<Borrowed> {
    let name = &pat.ident;
    if ty
        .lifetime
        .as_ref()
        .is_some_and(|lifetime| lifetime.ident == "static")
    {
        return None;
    }
    if let Some(mutability) = &ty.mutability {
        let message = format!(
            "with `{option}` the load may outlive its caller, and can't keep what is borrowed mutably; take `{name}` by value"
        );
        errors.on(mutability, message);
        return None;
    }
    if matches!(&*ty.elem, Type::TraitObject(_) | Type::ImplTrait(_)) {
        let message = format!(
            "with `{option}` the load may outlive its caller, and this has no type that could be kept; take `{name}` by value"
        );
        errors.on(&ty.elem, message);
        return None;
    }
    if let Some(borrow) = borrow(&ty.elem) {
        errors.on(borrow, not_owned(option));
        return None;
    }
    Some(Borrowed {
        name: name.clone(),
        mutability: pat.mutability,
        ty: without_lifetime(ty),
    })
}

/// The first text that reads `self`, as in `format!("{self:?}")`.
fn in_a_text(body: TokenStream) -> Option<Span> {
    outside_of_items(body).find_map(|(token, is_outside)| match token {
        TokenTree::Literal(literal) => {
            let text = literal.to_string();
            (text.contains("{self}") || text.contains("{self:")).then(|| literal.span())
        }
        TokenTree::Group(group) if is_outside => in_a_text(group.stream()),
        _ => None,
    })
}

fn without_lifetime(ty: &TypeReference) -> Type {
    Type::Reference(TypeReference {
        lifetime: None,
        ..ty.clone()
    })
}

fn not_owned(option: &str) -> String {
    format!(
        "with `{option}` the load may outlive its caller, and can't keep what is borrowed; take an owned value"
    )
}

/// The first borrow within a type.
fn borrow(ty: &Type) -> Option<TokenStream> {
    fn find(tokens: TokenStream) -> Option<TokenStream> {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            let found = match &token {
                TokenTree::Punct(punct) if punct.as_char() == '&' => true,
                TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                    !matches!(tokens.peek(), Some(TokenTree::Ident(name)) if name == "static")
                }
                TokenTree::Group(group) => match find(group.stream()) {
                    Some(found) => return Some(found),
                    None => false,
                },
                _ => false,
            };
            if found {
                // With the name of the lifetime, or the borrowed type.
                return Some(std::iter::once(token).chain(tokens.next()).collect());
            }
        }
        None
    }
    find(ty.to_token_stream())
}
