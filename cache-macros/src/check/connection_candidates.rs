//! Parameters that may be connections under a name that the macro does not know. The compiler is
//! asked for the types.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{
    Expr, FnArg, Ident, Pat, PathSegment, ReceiverKind, Token, Type, TypeParamBound, TypePath,
    parse_quote_spanned,
};

use super::connection_names::{bounds_of, is_plain, types_in};
use crate::args::Setting;
use crate::item::{Item, bindings_of, ungrouped};
use crate::model::{CandidateType, ConnectionCandidate};

/// `#[invalidates]`: what may be a connection under an unknown name, an alias or a trait of the
/// program. The compiler is asked for the types. `rows` are the parameters that are ids: an id is
/// no connection.
pub(super) fn to_ask(
    item: &Item,
    autocommit: &Setting<Vec<Ident>>,
    rows: &[Ident],
) -> Vec<ConnectionCandidate> {
    let permitted = autocommit.value().map(Vec::as_slice).unwrap_or_default();
    let mut asked = of_parameters(item, permitted, |name| !rows.contains(name));
    if !names_self(permitted) {
        asked.extend(of_receiver(item));
        asked.extend(of_self(item));
    }
    asked
}

/// `#[cached]`: the same for arguments that are not in the key. An argument in the key is no
/// connection.
pub(super) fn to_ask_of_reads(
    item: &Item,
    autocommit: &Setting<Vec<Ident>>,
    is_left_out: impl Fn(&Ident) -> bool,
) -> Vec<ConnectionCandidate> {
    let permitted = autocommit.value().map(Vec::as_slice).unwrap_or_default();
    let mut asked = of_parameters(item, permitted, is_left_out);
    if !names_self(permitted) {
        asked.extend(of_receiver(item));
    }
    asked
}

fn names_self(names: &[Ident]) -> bool {
    names.iter().any(|name| name == "self")
}

/// The questions about the parameters that `concerns` selects, each type once.
fn of_parameters(
    item: &Item,
    permitted: &[Ident],
    concerns: impl Fn(&Ident) -> bool,
) -> Vec<ConnectionCandidate> {
    let mut asked: Vec<ConnectionCandidate> = Vec::new();
    for input in &item.sig.inputs {
        let FnArg::Typed(parameter) = input else {
            continue;
        };
        let attrs = parameter.attrs.iter();
        let when: Vec<_> = attrs.filter(|it| it.path().is_ident("cfg")).collect();
        for (pat, ty) in parts_of(&parameter.pat, &parameter.ty) {
            let names = bindings_of(pat);
            let is_permitted = names
                .iter()
                .any(|name| permitted.iter().any(|permitted| name.is(permitted)));
            if is_permitted || !names.iter().any(|name| concerns(&name.ident)) {
                continue;
            }
            let mut add = |what| {
                let cfg = when.iter().map(|attr| (*attr).clone()).collect();
                let new = ConnectionCandidate { cfg, what };
                if !asked.iter().any(|known| known.is_like(&new)) {
                    asked.push(new);
                }
            };
            if let Some(value) = with_bounds(pat, ty) {
                add(CandidateType::Value(value));
                continue;
            }
            let mut leaves = Vec::new();
            aliases(ty, item, &mut leaves);
            for leaf in leaves {
                add(CandidateType::Type(leaf.clone()));
            }
        }
    }
    asked
}

/// A pattern and its type, or the elements of a tuple of patterns with theirs.
fn parts_of<'a>(pat: &'a Pat, ty: &'a Type) -> Vec<(&'a Pat, &'a Type)> {
    match (pat, ungrouped(ty)) {
        (Pat::Paren(paren), ty) => parts_of(&paren.pat, ty),
        (Pat::Tuple(pats), Type::Tuple(types))
            if pats.elems.len() == types.elems.len()
                && !pats.elems.iter().any(|pat| matches!(pat, Pat::Rest(_))) =>
        {
            let elems = pats.elems.iter().zip(&types.elems);
            elems.flat_map(|(pat, ty)| parts_of(pat, ty)).collect()
        }
        (_, ty) => vec![(pat, ty)],
    }
}

/// The value to ask about if its type is `impl Trait`, which can't be written elsewhere.
fn with_bounds(pat: &Pat, ty: &Type) -> Option<Expr> {
    let Pat::Ident(pat) = pat else {
        return None;
    };
    let name = (pat.by_ref.is_none() && pat.subpat.is_none()).then_some(&pat.ident)?;
    let (bounded, value): (_, Expr) = match ty {
        Type::Reference(reference) => {
            let place = reference.elem.span();
            (&*reference.elem, parse_quote_spanned!(place=> &*#name))
        }
        ty => (ty, parse_quote_spanned!(ty.span()=> &#name)),
    };
    match ungrouped(bounded) {
        Type::ImplTrait(bounded) if any_unknown(&bounded.bounds) => Some(value),
        _ => None,
    }
}

/// The types in a type that may be aliases of a connection, or parameters that stand for one.
/// References and the usual containers are looked into; the names of standard types and of pools
/// are no aliases.
pub(super) fn aliases<'a>(ty: &'a Type, item: &Item, found: &mut Vec<&'a Type>) {
    match ty {
        // As a whole, since a bound may be that of a reference: `&'e mut C: Executor<'e>`.
        Type::Reference(reference)
            if reference.mutability.is_some() && is_alias(&reference.elem, item) =>
        {
            found.push(ty);
        }
        Type::Reference(reference) => aliases(&reference.elem, item, found),
        Type::Paren(paren) => aliases(&paren.elem, item, found),
        Type::Group(group) => aliases(&group.elem, item, found),
        Type::Slice(slice) => aliases(&slice.elem, item, found),
        Type::Array(array) => aliases(&array.elem, item, found),
        Type::Tuple(tuple) => tuple.elems.iter().for_each(|ty| aliases(ty, item, found)),
        Type::Path(path) => {
            if is_alias(ty, item) {
                found.push(ty);
            }
            let last = path.path.segments.last();
            let is_pool = |last: &&PathSegment| last.ident.to_string().ends_with("Pool");
            for ty in last
                .filter(|it| !is_pool(it))
                .into_iter()
                .flat_map(types_in)
            {
                aliases(ty, item, found);
            }
        }
        _ => {}
    }
}

/// Whether a type's name may be an alias of a connection.
pub(super) fn is_alias(ty: &Type, item: &Item) -> bool {
    let Type::Path(path) = ungrouped(ty) else {
        return false;
    };
    let Some(last) = path.path.segments.last() else {
        return false;
    };
    let name = last.ident.to_string();
    !name.ends_with("Pool")
        && !STANDARD.contains(&name.as_str())
        && !is_plain(ty)
        && !is_bounded_by_known(path, item)
        && !mentions_impl(ty)
}

/// The names of generic standard types, which are no aliases themselves.
const STANDARD: [&str; 21] = [
    "Arc",
    "BinaryHeap",
    "Box",
    "Cell",
    "Cow",
    "Duration",
    "LinkedList",
    "ManuallyDrop",
    "Mutex",
    "MutexGuard",
    "OnceCell",
    "Option",
    "PhantomData",
    "Pin",
    "Rc",
    "RefCell",
    "RefMut",
    "Result",
    "RwLock",
    "Uuid",
    "Weak",
];

/// Whether a type is a parameter of the function itself, and has no bound but known ones. The
/// bounds of a block's parameters can't be seen here.
fn is_bounded_by_known(path: &TypePath, item: &Item) -> bool {
    path.path.get_ident().is_some_and(|name| {
        item.type_params().any(|param| param == name)
            && bounds_of(name, item).all(|bounds| !any_unknown(bounds))
    })
}

/// Whether `impl Trait` is somewhere in a type, which then can't be written elsewhere.
fn mentions_impl(ty: &Type) -> bool {
    fn any(tokens: TokenStream) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(word) => word == "impl",
            TokenTree::Group(group) => any(group.stream()),
            _ => false,
        })
    }
    any(ty.to_token_stream())
}

/// The type of `self`, if it can be used as a connection: behind `&mut`, or by value.
fn of_receiver(item: &Item) -> Option<ConnectionCandidate> {
    let receiver = item.sig.receiver()?;
    let place = receiver.self_token.span;
    let ty = match &receiver.kind {
        ReceiverKind::Value => parse_quote_spanned!(place=> Self),
        ReceiverKind::Reference(_, _, Some(_)) => parse_quote_spanned!(place=> &mut Self),
        ReceiverKind::Typed(_, ty) => match ungrouped(ty) {
            ty @ Type::Reference(reference) if reference.mutability.is_some() => ty.clone(),
            _ => return None,
        },
        _ => return None,
    };
    Some(ConnectionCandidate {
        cfg: Vec::new(),
        what: CandidateType::Type(ty),
    })
}

/// Whether one of the traits is neither a standard one nor one of serde.
fn any_unknown(bounds: &Punctuated<TypeParamBound, Token![+]>) -> bool {
    const KNOWN: [&str; 26] = [
        "AsMut",
        "AsRef",
        "AsyncFn",
        "AsyncFnMut",
        "AsyncFnOnce",
        "Borrow",
        "Clone",
        "Copy",
        "Debug",
        "Default",
        "Deserialize",
        "DeserializeOwned",
        "Display",
        "Eq",
        "Fn",
        "FnMut",
        "FnOnce",
        "Hash",
        "Into",
        "IntoIterator",
        "Iterator",
        "Ord",
        "PartialEq",
        "Send",
        "Serialize",
        "Sync",
    ];
    bounds.iter().any(|bound| match bound {
        TypeParamBound::Trait(bound) => bound.path.segments.last().is_some_and(|last| {
            let name = last.ident.to_string();
            !KNOWN.contains(&name.as_str())
                && !["PartialOrd", "ToString", "Sized", "Unpin"].contains(&name.as_str())
        }),
        _ => false,
    })
}

/// The fields of `self` that the body uses and whose names end like that of a connection.
fn of_self(item: &Item) -> impl Iterator<Item = ConnectionCandidate> {
    const ENDINGS: [&str; 11] = [
        "tx",
        "txn",
        "trx",
        "transaction",
        "conn",
        "connection",
        "executor",
        "link",
        "session",
        "db",
        "database",
    ];
    fn is_like_one(field: &Ident) -> bool {
        let name = field.to_string();
        let last = name.rsplit('_').next();
        last.is_some_and(|last| ENDINGS.contains(&last))
    }
    fn collect(tokens: TokenStream, found: &mut Vec<(Ident, Ident)>) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is_dot = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(dot)) if dot.as_char() == '.');
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(this) if this == "self" && is_dot(at + 1) => {
                    let called = matches!(tokens.get(at + 3), Some(TokenTree::Group(group))
                        if group.delimiter() == Delimiter::Parenthesis);
                    if let Some(TokenTree::Ident(field)) = tokens.get(at + 2)
                        && !called
                        && is_like_one(field)
                        && !found.iter().any(|(_, known)| known == field)
                    {
                        found.push((this.clone(), field.clone()));
                    }
                }
                TokenTree::Group(group) => collect(group.stream(), found),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    if item.sig.receiver().is_some() {
        collect(item.body.stream(), &mut found);
    }
    found.into_iter().map(|(this, field)| ConnectionCandidate {
        cfg: Vec::new(),
        what: CandidateType::Value(parse_quote_spanned!(field.span()=> &#this.#field)),
    })
}
