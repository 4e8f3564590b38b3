//! Parameters and types that stay out of the key.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::{Ident, Type};

use super::connection_names::bounds_of;
use crate::args::{CachedArgs, Setting};
use crate::item::{Binding, Item};
use crate::tokens::{holds, mention};

/// Whether a parameter is not in the key.
pub(super) fn is_left_out(args: &CachedArgs, name: &Ident) -> bool {
    let named = [&args.skip, &args.autocommit].map(Setting::value);
    if named
        .into_iter()
        .flatten()
        .any(|names| names.contains(name))
    {
        return true;
    }
    let written = args.id.value().into_iter();
    let written = written.chain(args.key.value().into_iter().flatten());
    let written: TokenStream = written.map(ToTokens::to_token_stream).collect();
    let says_all = !args.id.is_absent() || !args.key.is_absent();
    says_all && mention(written, &name.unraw().to_string()).is_none()
}

/// Whether a type parameter only appears in the types of parameters that `autocommit` names. Any
/// executor returns the same rows.
pub(super) fn is_of_autocommit(args: &CachedArgs, item: &Item, name: &Ident) -> bool {
    let text = name.to_string();
    let is_returned = item
        .output()
        .is_some_and(|output| holds(output.to_token_stream(), &text));
    !is_returned && stands_only_in(args.autocommit.value(), &item.bindings().0, &text)
}

/// Whether a type parameter appears in the types of these parameters, and of no others.
pub(super) fn stands_only_in(
    names: Option<&Vec<Ident>>,
    bindings: &[Binding],
    parameter: &str,
) -> bool {
    let names = names.map(Vec::as_slice).unwrap_or_default();
    let mut of = bindings.iter().filter(|binding| {
        let ty = binding.ty.as_ref();
        ty.is_some_and(|ty| holds(ty.to_token_stream(), parameter))
    });
    let mut any = false;
    of.all(|binding| {
        any = true;
        names.iter().any(|name| binding.is(name))
    }) && any
}

/// Whether a type parameter stands for a closure or a future. Each place of a program makes another
/// type, for the same values.
pub(super) fn is_made_at_the_call(item: &Item, name: &Ident) -> bool {
    bounds_of(name, item).any(|bounds| names_one(&bounds.to_token_stream()))
}

/// The same for an `impl Trait`.
pub(super) fn names_a_closure(ty: &Type) -> bool {
    names_one(&ty.to_token_stream())
}

fn names_one(tokens: &TokenStream) -> bool {
    const TRAITS: [&str; 8] = [
        "AsyncFn",
        "AsyncFnMut",
        "AsyncFnOnce",
        "Fn",
        "FnMut",
        "FnOnce",
        "Future",
        "IntoFuture",
    ];
    TRAITS.iter().any(|name| holds(tokens.clone(), name))
}
