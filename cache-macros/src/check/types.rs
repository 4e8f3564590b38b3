//! Types that the caller chooses: type parameters of the function, and `impl Trait` in its
//! parameters.
//!
//! Two calls with different types may return different values. In a derived key a hash of the types
//! is included. The key of a row can't contain it, since a write that names the row has to find the
//! row. There the fingerprint of the entry covers the types, so that an entry of another type is a
//! miss.
//!
//! A parameter that is left out of the key leaves out its value, and not its type: two repositories
//! of different types may lead to two databases. The exceptions are closures and futures, whose
//! types differ from one place of a program to the next, and what `autocommit` names: any executor
//! returns the same rows.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Ident, Type};

use super::left_out::{is_made_at_the_call, is_of_autocommit, names_a_closure, stands_only_in};
use crate::args::CachedArgs;
use crate::item::{Binding, Item};
use crate::model::{Key, Typing};
use crate::tokens::{holds, mention};

/// How each of them is covered.
pub(super) fn types(key: &Key, args: &CachedArgs, item: &Item) -> Vec<Typing> {
    let (bindings, _) = item.bindings();
    let unnamed = bindings.iter().filter(|binding| {
        let ty = binding.whole.as_ref();
        ty.is_some_and(|ty| holds(ty.to_token_stream(), "impl"))
    });
    let is_left_out = |name: &Ident| {
        let text = name.to_string();
        let skip = args.skip.value();
        stands_only_in(skip, &bindings, &text) || is_of_autocommit(args, item, name)
    };
    let without = |name: &Ident| match is_of_autocommit(args, item, name)
        || is_made_at_the_call(item, name)
    {
        true => Typing::LeftOut(name.clone()),
        false => Typing::Instance(name.clone()),
    };
    let without_unnamed = |binding: &Binding| {
        let mut permitted = args.autocommit.value().into_iter().flatten();
        let is_permitted = permitted.any(|name| binding.is(name));
        let name = binding.ident.clone();
        match is_permitted || binding.whole.as_deref().is_some_and(names_a_closure) {
            true => Typing::LeftOutOf(name),
            false if matches!(binding.ty, Some(Type::Reference(_))) => Typing::InstanceBehind(name),
            false => Typing::InstanceOf(name),
        }
    };
    let mut types = Vec::new();
    match key {
        Key::Derived { parts, .. } => {
            let is_in_key = |binding: &&Binding| {
                let mut values = parts.iter().map(|part| part.value.to_token_stream());
                values.any(|value| mention(value, &binding.name()).is_some())
            };
            let of_autocommit = item
                .type_params()
                .filter(|name| is_of_autocommit(args, item, name));
            types.extend(of_autocommit.cloned().map(Typing::LeftOut));
            for binding in unnamed {
                let name = binding.ident.clone();
                types.push(match is_in_key(&binding) {
                    true => Typing::InKey(name),
                    false => without_unnamed(binding),
                });
            }
        }
        Key::Entity(id) | Key::Row(_, id) => {
            types.extend(item.type_params().map(without));
            for binding in unnamed {
                let is_in_id = mention(id.value.to_token_stream(), &binding.name()).is_some();
                let name = binding.ident.clone();
                types.push(match is_in_id {
                    true => Typing::EntryOf(name),
                    false => without_unnamed(binding),
                });
            }
        }
        Key::Batch(batch) => {
            for name in item.type_params() {
                // The fingerprint is that of one value of the map, and does not cover the type of
                // its ids.
                let of_ids = batch.ids.ty.as_ref();
                let is_id = of_ids.is_some_and(|ty| holds(ty.to_token_stream(), &name.to_string()));
                let is_told = is_told_by_value(item.output(), name) && !is_id;
                types.push(if is_told {
                    Typing::LeftOut(name.clone())
                } else if is_left_out(name) {
                    without(name)
                } else {
                    Typing::Entry(name.clone())
                });
            }
            for binding in unnamed {
                let name = binding.ident.clone();
                types.push(match binding.is(&batch.ids.ident) {
                    true => Typing::EntryOf(name),
                    false => without_unnamed(binding),
                });
            }
        }
    }
    types
}

/// Whether a type parameter is the return type of the function, which the entry's fingerprint
/// covers already. It does not cover `T` for a `T::Row`: other `T`s may have the same `Row`.
fn is_told_by_value(output: Option<&Type>, name: &Ident) -> bool {
    fn stands_alone(tokens: TokenStream, name: &Ident) -> bool {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            let is_followed =
                matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
            match token {
                TokenTree::Ident(ident) if ident == *name && !is_followed => return true,
                TokenTree::Group(group) if stands_alone(group.stream(), name) => return true,
                _ => {}
            }
        }
        false
    }
    output.is_some_and(|output| stands_alone(output.to_token_stream(), name))
}
