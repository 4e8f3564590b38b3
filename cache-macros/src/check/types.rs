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
use crate::model::{Batch, Key, KeyPart, Typing};
use crate::tokens::{holds, mention};

/// How each of them is covered.
pub(super) fn types(key: &Key, args: &CachedArgs, item: &Item) -> Vec<Typing> {
    let (bindings, _) = item.bindings();
    let function = Typed {
        args,
        item,
        bindings: &bindings,
    };
    match key {
        Key::Derived { parts, .. } => function.derived(parts),
        Key::Entity(id) | Key::Row(_, id) => function.entity(id),
        Key::Batch(batch) => function.batch(batch),
    }
}

/// A function whose types are to be covered.
struct Typed<'a> {
    args: &'a CachedArgs,
    item: &'a Item,
    bindings: &'a [Binding],
}

impl Typed<'_> {
    fn derived(&self, parts: &[KeyPart]) -> Vec<Typing> {
        let type_params = self.item.type_params();
        let of_autocommit = type_params.filter(|name| self.is_of_autocommit(name));
        let of_params = of_autocommit.cloned().map(Typing::LeftOut);
        let of_unnamed = self.unnamed().map(|binding| {
            let mut values = parts.iter().map(|part| part.value.to_token_stream());
            match values.any(|value| mention(value, &binding.name()).is_some()) {
                true => Typing::InKey(binding.ident.clone()),
                false => self.unnamed_beside_key(binding),
            }
        });
        of_params.chain(of_unnamed).collect()
    }

    fn entity(&self, id: &KeyPart) -> Vec<Typing> {
        let type_params = self.item.type_params();
        let of_params = type_params.map(|name| self.param_beside_key(name));
        let of_unnamed = self.unnamed().map(|binding| {
            match mention(id.value.to_token_stream(), &binding.name()).is_some() {
                true => Typing::EntryOf(binding.ident.clone()),
                false => self.unnamed_beside_key(binding),
            }
        });
        of_params.chain(of_unnamed).collect()
    }

    fn batch(&self, batch: &Batch) -> Vec<Typing> {
        let of_params = self.item.type_params().map(|name| {
            // The fingerprint is that of one value of the map, and does not cover the type of its
            // ids.
            let of_ids = batch.ids.ty.as_ref();
            let is_id = of_ids.is_some_and(|ty| holds(ty.to_token_stream(), &name.to_string()));
            if is_told_by_value(self.item.output(), name) && !is_id {
                Typing::LeftOut(name.clone())
            } else if self.is_left_out(name) {
                self.param_beside_key(name)
            } else {
                Typing::Entry(name.clone())
            }
        });
        let of_unnamed = self
            .unnamed()
            .map(|binding| match binding.is(&batch.ids.ident) {
                true => Typing::EntryOf(binding.ident.clone()),
                false => self.unnamed_beside_key(binding),
            });
        of_params.chain(of_unnamed).collect()
    }

    /// The parameters whose type has no name: `impl Trait`.
    fn unnamed(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().filter(|binding| {
            let ty = binding.whole.as_ref();
            ty.is_some_and(|ty| holds(ty.to_token_stream(), "impl"))
        })
    }

    fn is_of_autocommit(&self, name: &Ident) -> bool {
        is_of_autocommit(self.args, self.item, name)
    }

    fn is_left_out(&self, name: &Ident) -> bool {
        let skip = self.args.skip.value();
        stands_only_in(skip, self.bindings, &name.to_string()) || self.is_of_autocommit(name)
    }

    /// Of a type parameter that the key does not show.
    fn param_beside_key(&self, name: &Ident) -> Typing {
        match self.is_of_autocommit(name) || is_made_at_the_call(self.item, name) {
            true => Typing::LeftOut(name.clone()),
            false => Typing::Instance(name.clone()),
        }
    }

    /// Of a parameter without a named type that is not in the key.
    fn unnamed_beside_key(&self, binding: &Binding) -> Typing {
        let mut permitted = self.args.autocommit.value().into_iter().flatten();
        let is_permitted = permitted.any(|name| binding.is(name));
        let name = binding.ident.clone();
        match is_permitted || binding.whole.as_deref().is_some_and(names_a_closure) {
            true => Typing::LeftOutOf(name),
            false if matches!(binding.ty, Some(Type::Reference(_))) => Typing::InstanceBehind(name),
            false => Typing::InstanceOf(name),
        }
    }
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
