//! The key of a cached function, from its attribute and its parameters.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Expr, Ident, Type};

use super::left_out::is_of_autocommit;
use super::values::{named, no_such_parameter};
use crate::args::{CachedArgs, Setting, is_segment, repaired, single_ident};
use crate::diag::Errors;
use crate::item::{Binding, Item, first_type, ungrouped};
use crate::model::{Batch, BatchBy, Key, KeyPart, Op};
use crate::tokens::{holds, mention};

/// Decides which of the three forms of a key the function has.
pub(super) fn key(args: &CachedArgs, item: &Item, errors: &mut Errors) -> Option<Key> {
    exclusive_key_options(args, errors);
    let bindings: Vec<Binding> = item.const_params().chain(item.bindings().0).collect();
    let mut skipped = skipped(&args.skip, &bindings, errors);
    let autocommit = args.autocommit.value().into_iter().flatten();
    skipped.extend(autocommit.map(|name| name.unraw().to_string()));
    let keyed: Vec<&Binding> = bindings
        .iter()
        .filter(|binding| !skipped.contains(&binding.name()))
        .collect();

    if let Some(ids) = args.batch.value() {
        return batch(ids, args, item, &keyed, errors);
    }
    if let Some(id) = args.id.value() {
        // Otherwise a mistyped name in `skip` would be reported twice.
        let skips = args.skip.is_absent()
            || skipped
                .iter()
                .all(|name| bindings.iter().any(|b| b.name() == *name));
        if named("id", id, &bindings, errors) && skips {
            all_in_id(id, &keyed, args, errors);
        }
        return with_id(args, part(id, &bindings), item, errors);
    }
    if args.key.is_absent() {
        known(&keyed, errors);
    }
    let parts = match args.key.value() {
        Some(listed) => listed
            .iter()
            .map(|value| written_part("key", value, &bindings, errors))
            .collect(),
        None => default_parts(&keyed, args.include.value(), &bindings, errors),
    };
    if let [only] = &parts[..]
        && single_ident(&only.value).is_some_and(|name| name.unraw() == "id")
    {
        return parts
            .into_iter()
            .next()
            .and_then(|id| with_id(args, id, item, errors));
    }
    let op = match &args.op {
        Setting::Absent => function_op(item, errors)?,
        op => Op::Given(op.value()?.clone()),
    };
    Some(Key::Derived {
        op,
        types: item
            .type_params()
            .filter(|name| !is_of_autocommit(args, item, name))
            .cloned()
            .collect(),
        parts,
    })
}

/// `users:1`, or `users:avatar:1` with an `op`. A hash tells calls with other types apart.
fn with_id(args: &CachedArgs, id: KeyPart, item: &Item, errors: &mut Errors) -> Option<Key> {
    let types = telling_types(&id, item);
    if args.op.is_absent() {
        if let Some(name) = types.first() {
            let message = format!(
                "`{name}` is not in the key of a row, and calls with other types would get each other's values; add an `op`, which has it in the key"
            );
            errors.on(name, message);
        }
        return Some(Key::Entity(id));
    }
    let op = args.op.value()?.clone();
    if types.is_empty() {
        return Some(Key::Row(op, id));
    }
    Some(Key::Derived {
        op: Op::Given(op),
        types,
        parts: vec![id],
    })
}

/// The function's type parameters that the value may depend on: all, except those that only appear
/// in the types of parameters that are left out of the key.
fn telling_types(id: &KeyPart, item: &Item) -> Vec<Ident> {
    fn names(tokens: TokenStream, name: &Ident) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => ident == *name,
            TokenTree::Group(group) => names(group.stream(), name),
            _ => false,
        })
    }
    let in_type = |ty: &Type, name: &Ident| names(ty.to_token_stream(), name);
    let is_left_out = |name: &&Ident| {
        let (bindings, _) = item.bindings();
        let mut of: Vec<&Binding> = bindings
            .iter()
            .filter(|binding| binding.ty.as_ref().is_some_and(|ty| in_type(ty, name)))
            .collect();
        let stands_somewhere = !of.is_empty();
        of.retain(|binding| mention(id.value.to_token_stream(), &binding.name()).is_some());
        let is_returned = item.output().is_some_and(|ty| in_type(ty, name));
        stands_somewhere && of.is_empty() && !is_returned
    };
    item.type_params()
        .filter(|name| !is_left_out(name))
        .cloned()
        .collect()
}

fn function_op(item: &Item, errors: &mut Errors) -> Option<Op> {
    let name = item.name();
    if is_segment(&name) {
        return Some(Op::Function);
    }
    let message = format!(
        "`{name}` can't stand in a key; name the operation, e.g. `op = \"{}\"`",
        repaired(&name, "list")
    );
    errors.on(&item.sig.ident, message);
    None
}

/// The parts of the key if neither `id` nor `key` is given.
fn default_parts(
    keyed: &[&Binding],
    include: Option<&Vec<Expr>>,
    bindings: &[Binding],
    errors: &mut Errors,
) -> Vec<KeyPart> {
    let mut parts: Vec<KeyPart> = keyed
        .iter()
        .map(|binding| parameter_part(binding))
        .collect();
    for value in include.into_iter().flatten() {
        let again =
            single_ident(value).and_then(|name| keyed.iter().find(|binding| binding.is(name)));
        if let Some(binding) = again {
            errors.on(
                value,
                format!(
                    "`{}` is in the key already; remove it from `include`",
                    binding.name()
                ),
            );
        }
        parts.push(written_part("include", value, bindings, errors));
    }
    parts
}

fn parameter_part(binding: &Binding) -> KeyPart {
    let mut name = binding.ident.clone();
    name.set_span(name.span().located_at(binding.place));
    KeyPart {
        value: syn::parse_quote!(#name),
        ty: binding.ty.clone(),
        place: binding.place,
    }
}

/// A value as it was written.
pub(super) fn part(value: &Expr, bindings: &[Binding]) -> KeyPart {
    let parameter = single_ident(value).and_then(|name| bindings.iter().find(|b| b.is(name)));
    KeyPart {
        value: value.clone(),
        ty: parameter.and_then(|binding| binding.ty.clone()),
        place: value.span(),
    }
}

/// The key of a function that gets many ids at once.
fn batch(
    ids: &Ident,
    args: &CachedArgs,
    item: &Item,
    keyed: &[&Binding],
    errors: &mut Errors,
) -> Option<Key> {
    for (name, clash) in [
        ("op", args.op.key()),
        ("id", args.id.key()),
        ("key", args.key.key()),
        ("include", args.include.key()),
    ] {
        if let Some(clash) = clash {
            errors.on(clash, format!("`{name}` can't be combined with `batch`, where each id has the key of its entity; remove it"));
        }
    }
    let Some(binding) = keyed.iter().find(|binding| binding.is(ids)) else {
        let bindings: Vec<Binding> = keyed.iter().map(|&binding| binding.clone()).collect();
        let text = no_such_parameter("batch", &ids.unraw().to_string(), &bindings);
        errors.on(ids, text);
        return None;
    };
    for other in keyed.iter().filter(|binding| !binding.is(ids)) {
        let name = other.name();
        let message = format!(
            "`{name}` is not in the keys, which each hold one of `{ids}` only; leave it out with `skip({name})`, or remove `batch`"
        );
        errors.on(&other.ident, message);
    }
    let Some((by, id)) = binding.ty.as_ref().and_then(batch_of) else {
        let message =
            format!("`batch` needs all ids at once; take `{ids}` as a slice `&[K]` or a `Vec<K>`");
        errors.on(&binding.ident, message);
        return None;
    };
    if item.is_mutable(&binding.ident) {
        let message = format!(
            "the body is given the ids that missed in place of `{ids}`; take it without `mut`"
        );
        errors.on(&binding.ident, message);
    }
    Some(Key::Batch(Batch {
        ids: (*binding).clone(),
        id,
        by,
    }))
}

/// How a parameter holds ids, and the type of an id.
fn batch_of(ty: &Type) -> Option<(BatchBy, Option<Type>)> {
    match ty {
        Type::Group(group) => batch_of(&group.elem),
        Type::Paren(paren) => batch_of(&paren.elem),
        Type::Reference(reference) => match ungrouped(&reference.elem) {
            Type::Slice(slice) => Some((BatchBy::Slice, Some((*slice.elem).clone()))),
            _ => None,
        },
        Type::Path(path) => {
            let last = path
                .path
                .segments
                .last()
                .filter(|last| last.ident == "Vec")?;
            Some((BatchBy::Vec, first_type(last).cloned()))
        }
        _ => None,
    }
}

pub(super) fn written_part(
    option: &str,
    value: &Expr,
    bindings: &[Binding],
    errors: &mut Errors,
) -> KeyPart {
    named(option, value, bindings, errors);
    part(value, bindings)
}

/// The names in `skip(..)`, after checking each.
fn skipped(skip: &Setting<Vec<Ident>>, bindings: &[Binding], errors: &mut Errors) -> Vec<String> {
    let mut names = Vec::new();
    for ident in skip.value().into_iter().flatten() {
        let name = ident.unraw().to_string();
        if ident == "self" {
            errors.on(ident, "`self` is never in the key; remove it here, and add what tells owners apart with e.g. `include(self.tenant)`");
        } else if !bindings.iter().any(|binding| binding.is(ident)) {
            errors.on(ident, no_such_parameter("skip", &name, bindings));
        } else if names.contains(&name) {
            errors.on(ident, format!("`{name}` is skipped twice; remove one"));
        }
        names.push(name);
    }
    names
}

/// With `id = ..`, an argument that is neither in it nor skipped would be missing in the key.
fn all_in_id(id: &Expr, keyed: &[&Binding], args: &CachedArgs, errors: &mut Errors) {
    for binding in keyed {
        let name = binding.name();
        if mention(id.to_token_stream(), &name).is_none() {
            let otherwise = if args.op.is_absent() {
                "give the function an `op` in place of `id`"
            } else {
                "remove `id`"
            };
            let message = format!(
                "`{name}` is not in the key; add it to `id`, leave it out with `skip({name})`, or {otherwise}"
            );
            errors.on(&binding.ident, message);
        }
    }
}

/// `key` and `id` each define the whole key.
fn exclusive_key_options(args: &CachedArgs, errors: &mut Errors) {
    if args.batch.key().is_some() {
        // Neither can be combined with these, and an author who wrote two would be told twice.
        return;
    }
    if args.key.key().is_some() {
        for (name, clash) in [
            ("skip", args.skip.key()),
            ("include", args.include.key()),
            ("id", args.id.key()),
        ] {
            if let Some(clash) = clash {
                errors.on(clash, format!("`{name}` can't be combined with `key`, which lists all that is in the key; remove one of them"));
            }
        }
    } else if let (Some(_), Some(include)) = (args.id.key(), args.include.key()) {
        errors.on(include, "`include` can't be combined with `id`; put its values into `id`, e.g. `id = (self.tenant, id)`");
    }
}

/// Nothing tells which type is behind a `dyn Trait`.
fn known(keyed: &[&Binding], errors: &mut Errors) {
    for binding in keyed {
        if let Some(ty) = &binding.ty
            && holds(ty.to_token_stream(), "dyn")
        {
            let name = binding.name();
            let message = format!(
                "which type is behind this `dyn` is not in the key, so values of different types would share an entry; take `impl` in its place, name what tells calls apart with `key(..)`, or leave it out with `skip({name})`"
            );
            errors.on(ty, message);
        }
    }
}
