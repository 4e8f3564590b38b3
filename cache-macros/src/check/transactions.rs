//! Parameters through which a function may take part in its caller's transaction, which has not
//! committed when the function returns.
//!
//! A macro sees only names. Types and trait bounds are recognised by name: those of the database
//! libraries, and common aliases. Under `#[cached]` any `&mut` that is left out of the key is
//! refused too, since a function that only reads has no other reason to borrow mutably than a
//! connection. A parameter named `tx`, of a type with an unknown name, is taken for a transaction.
//! A pool is none of these: each of its statements commits by itself.

use proc_macro2::Span;
use syn::ext::IdentExt as _;
use syn::{FnArg, Ident, Pat, Type};

use super::connection_candidates::is_alias;
use super::connection_names::{TRANSACTION, TypePosition, found, mutable};
use super::values::no_such_parameter;
use crate::args::Setting;
use crate::diag::Errors;
use crate::item::{Binding, Item, ungrouped};

/// A parameter that may be part of a transaction.
pub(super) struct TransactionParam {
    /// Its name, if it has one.
    parameter: Option<Ident>,
    /// The part to underline: the name of the type or of the bound.
    place: Span,
    what: &'static str,
}

/// All such parameters, except those that `autocommit` names. `is_in_key` tells those that are in
/// the key, which are data.
pub(super) fn parts(
    item: &Item,
    autocommit: &Setting<Vec<Ident>>,
    is_in_key: impl Fn(&Ident) -> bool,
) -> Vec<TransactionParam> {
    let permitted = autocommit.value().map(Vec::as_slice).unwrap_or_default();
    let mut parts = Vec::new();
    for input in &item.sig.inputs {
        let FnArg::Typed(parameter) = input else {
            continue;
        };
        let name = match &*parameter.pat {
            Pat::Ident(pat) => Some(&pat.ident),
            _ => None,
        };
        let is_permitted = name.is_some_and(|name| {
            let mut permitted = permitted.iter();
            permitted.any(|permitted| permitted.unraw() == name.unraw())
        });
        let at = TypePosition {
            is_exclusive: false,
            is_data: name.is_some_and(&is_in_key),
        };
        let by_name = || name.filter(|name| !at.is_data && is_like_a_transaction(name));
        let found = found(&parameter.ty, at, item).or_else(|| {
            let alias = by_name().filter(|_| is_unknown(&parameter.ty, item))?;
            Some((alias.span(), TRANSACTION))
        });
        if !is_permitted && let Some((place, what)) = found {
            parts.push(TransactionParam {
                parameter: name.cloned(),
                place,
                what,
            });
        }
    }
    parts
}

/// Whether a parameter is named as one that holds a transaction. Its type may be an alias.
fn is_like_a_transaction(name: &Ident) -> bool {
    let name = name.unraw().to_string();
    let last = name.rsplit('_').next();
    last.is_some_and(|last| ["tx", "txn", "trx"].contains(&last))
}

/// Whether a type may be an alias of a transaction: not the end of a channel, nor data by its name.
fn is_unknown(ty: &Type, item: &Item) -> bool {
    match ungrouped(ty) {
        Type::Reference(reference) => is_unknown(&reference.elem, item),
        Type::Path(path) => path.path.segments.last().is_some_and(|last| {
            let name = last.ident.to_string();
            let others = ["Sender", "Receiver", "Client", "Pool", "Id", "Hash", "Tx"];
            is_alias(ty, item) && !others.iter().any(|ending| name.ends_with(ending))
        }),
        _ => false,
    }
}

/// `#[cached]`: data that is read inside a transaction must not be cached for others.
pub(super) fn refuse_reads(parts: &[TransactionParam], errors: &mut Errors) {
    for part in parts {
        let message = format!(
            "what is read through {} may never be committed, and would be served to everybody; read from the pool{}",
            part.what,
            part.remedy(" or, if no caller is in a transaction, add ")
        );
        errors.at(part.place, message);
    }
}

/// `#[cached]`: any other `&mut` that is not in the key may be a connection under another name.
pub(super) fn refuse_mutable(
    item: &Item,
    known: &[TransactionParam],
    is_left_out: impl Fn(&Ident) -> bool,
    errors: &mut Errors,
) {
    for input in &item.sig.inputs {
        if let FnArg::Typed(parameter) = input
            && let Pat::Ident(pat) = &*parameter.pat
            && let Some(place) = mutable(&parameter.ty)
            && is_left_out(&pat.ident)
            && !known
                .iter()
                .any(|part| part.parameter.as_ref() == Some(&pat.ident))
        {
            let message = format!(
                "a hit would leave what is borrowed mutably as it is, and if this is a connection, what it reads may never be committed; take `&`, or add `autocommit({})`",
                pat.ident.unraw()
            );
            errors.at(place, message);
        }
    }
}

/// `#[invalidates]`: the commit comes after the function has returned.
pub(super) fn refuse_writes(parts: &[TransactionParam], errors: &mut Errors) {
    for part in parts {
        let message = format!(
            "`#[invalidates]` acts when the function returns, and through {} that may be before the caller's transaction commits: a reader in between would keep the old data; begin and commit inside the function, or add `after_commit` and call it inside `Cache::after_commit`{}",
            part.what,
            part.remedy("; if no caller is in a transaction, add ")
        );
        errors.at(part.place, message);
    }
}

/// Whether the names in `autocommit(..)` are those of parameters. `self` is allowed too, for a
/// connection that `self` is or holds.
pub(super) fn named(
    autocommit: &Setting<Vec<Ident>>,
    skip: &Setting<Vec<Ident>>,
    bindings: &[Binding],
    may_be_self: bool,
    errors: &mut Errors,
) {
    let mut names: Vec<String> = Vec::new();
    let skipped = skip.value().map(Vec::as_slice).unwrap_or_default();
    for ident in autocommit.value().into_iter().flatten() {
        let name = ident.unraw().to_string();
        let is_self = may_be_self && ident == "self";
        if !is_self && !bindings.iter().any(|binding| binding.is(ident)) {
            errors.on(ident, no_such_parameter("autocommit", &name, bindings));
        } else if names.contains(&name) {
            errors.on(ident, format!("`{name}` is given twice; remove one"));
        } else if let Some(skip) = skipped.iter().find(|skip| skip.unraw() == name) {
            let message = format!(
                "`autocommit({name})` leaves `{name}` out of the key already; remove it from `skip`"
            );
            errors.on(skip, message);
        }
        names.push(name);
    }
}

impl TransactionParam {
    fn remedy(&self, before: &str) -> String {
        self.parameter.as_ref().map_or_else(String::new, |name| {
            format!("{before}`autocommit({})`", name.unraw())
        })
    }
}
