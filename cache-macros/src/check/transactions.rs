//! Parameters through which a function may take part in its caller's transaction, which has not
//! committed when the function returns.
//!
//! A macro sees only names. Types and trait bounds are recognised by name: those of the database
//! libraries, and common aliases. Under `#[cached]` any `&mut` that is left out of the key is
//! refused too, since a function that only reads has no other reason to borrow mutably than a
//! connection. A parameter named `tx`, of a type with an unknown name, is taken for a transaction. A
//! pool is none of these: each of its statements commits by itself.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::ext::IdentExt as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{
    Expr, FnArg, GenericArgument, GenericParam, Ident, Pat, PathArguments, PathSegment,
    ReceiverKind, Token, Type, TypeParamBound, TypePath, WherePredicate, parse_quote_spanned,
};

use super::values::no_such_parameter;
use crate::args::Setting;
use crate::diag::Errors;
use crate::item::{Binding, Item, bindings_of, is_builtin, ungrouped};
use crate::model::{CandidateType, ConnectionCandidate};

/// A parameter that may be part of a transaction.
pub(super) struct TransactionParam {
    /// Its name, if it has one.
    parameter: Option<Ident>,
    /// What to underline: the name of the type or of the bound.
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

/// What to ask about the parameters that `concerns` selects, each type once.
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
fn aliases<'a>(ty: &'a Type, item: &Item, found: &mut Vec<&'a Type>) {
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
fn is_alias(ty: &Type, item: &Item) -> bool {
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

/// The types among the generic arguments of a path's last part.
fn types_in(segment: &PathSegment) -> impl Iterator<Item = &Type> {
    let arguments = match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => Some(&arguments.args),
        _ => None,
    };
    let arguments = arguments.into_iter().flatten();
    arguments.filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
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

/// The bounds of a type parameter of the function: at its declaration, and in the `where` clause,
/// where they may be those of a reference to it.
fn bounds_of<'a>(
    name: &'a Ident,
    item: &'a Item,
) -> impl Iterator<Item = &'a Punctuated<TypeParamBound, Token![+]>> {
    let generics = &item.sig.generics;
    let declared = generics.params.iter().filter_map(move |param| match param {
        GenericParam::Type(param) if param.ident == *name => Some(&param.bounds),
        _ => None,
    });
    let predicates = generics.where_clause.iter().flat_map(|w| &w.predicates);
    let conditions = predicates.filter_map(move |predicate| match predicate {
        WherePredicate::Type(of) if is_of(&of.bounded_ty, name) => Some(&of.bounds),
        _ => None,
    });
    declared.chain(conditions)
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

const TRANSACTION: &str = "a transaction";
const CONNECTION: &str = "a connection";
const EXECUTOR: &str = "an executor";

/// What is known of a place in a parameter's type.
#[derive(Clone, Copy)]
struct TypePosition {
    /// Behind a `&mut` or in a lock.
    is_exclusive: bool,
    /// Part of the key, or one of several in a collection: more likely data of the program, such as
    /// the transactions of a bank.
    is_data: bool,
}

impl TypePosition {
    const ONE_OF_MANY: Self = Self {
        is_exclusive: false,
        is_data: true,
    };
}

/// The part of a type that may be in a transaction: its place, and its name in messages.
fn found(ty: &Type, at: TypePosition, item: &Item) -> Option<(Span, &'static str)> {
    match ty {
        Type::Reference(reference) if reference.mutability.is_some() => {
            let at = TypePosition {
                is_exclusive: true,
                ..at
            };
            found(&reference.elem, at, item)
        }
        Type::Reference(reference) => found(&reference.elem, at, item),
        Type::Paren(paren) => found(&paren.elem, at, item),
        Type::Group(group) => found(&group.elem, at, item),
        Type::Slice(slice) => found(&slice.elem, TypePosition::ONE_OF_MANY, item),
        Type::Array(array) => found(&array.elem, TypePosition::ONE_OF_MANY, item),
        Type::Tuple(tuple) => {
            let mut elems = tuple.elems.iter();
            elems.find_map(|elem| found(elem, at, item))
        }
        Type::ImplTrait(bounded) => of_bounds(&bounded.bounds),
        Type::TraitObject(bounded) => of_bounds(&bounded.bounds),
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            let generic = path.path.get_ident();
            if let Some(what) = generic.and_then(|name| of_parameter(name, item)) {
                return Some((last.ident.span(), what));
            }
            if let Some(what) = of_type(last, at) {
                return Some((last.ident.span(), what));
            }
            if !at.is_data && may_be_begun_on(path) {
                return Some((last.ident.span(), CONNECTION));
            }
            let (at, mut types) = inside(last, at)?;
            types.find_map(|ty| found(ty, at, item))
        }
        _ => None,
    }
}

/// Whether it is a connection that begins a transaction through `&self`, and that a transaction
/// dereferences to. Other crates have connections to brokers.
fn may_be_begun_on(path: &TypePath) -> bool {
    const CRATES: [&str; 5] = ["duckdb", "libsql", "limbo", "rusqlite", "turso"];
    let segments = &path.path.segments;
    let is_connection = segments.last().is_some_and(|it| it.ident == "Connection");
    let first = segments.first().filter(|_| segments.len() > 1);
    is_connection && first.is_none_or(|first| CRATES.iter().any(|it| first.ident == it))
}

/// The types inside a type that may give access to its content, and what is known of their place.
/// A pool and a channel are no such types.
fn inside(
    segment: &PathSegment,
    at: TypePosition,
) -> Option<(TypePosition, impl Iterator<Item = &Type>)> {
    let name = segment.ident.to_string();
    let is_lock = [
        "Mutex",
        "RwLock",
        "RefCell",
        "RefMut",
        "MutexGuard",
        "MappedMutexGuard",
        "OwnedMutexGuard",
        "RwLockWriteGuard",
        "OwnedRwLockWriteGuard",
    ]
    .contains(&name.as_str());
    let is_wrapper = ["Option", "Box", "Arc", "Rc", "Pin", "Cow"].contains(&name.as_str());
    let gives_none = ["Pool", "Sender", "Receiver", "PhantomData", "Manager", "Fn"]
        .iter()
        .any(|ending| name.ends_with(ending));
    let at = match (is_lock, is_wrapper) {
        (true, _) => TypePosition {
            is_exclusive: true,
            ..at
        },
        (_, true) => at,
        _ => TypePosition::ONE_OF_MANY,
    };
    (!gives_none).then(|| (at, types_in(segment)))
}

/// The name in messages for a type of this name.
fn of_type(segment: &PathSegment, at: TypePosition) -> Option<&'static str> {
    const DRIVERS: [&str; 6] = ["Pg", "Sqlite", "MySql", "Mysql", "Mssql", "Any"];
    let name = segment.ident.to_string();
    // With a lifetime it borrows from its connection; without one it may be any data.
    let borrows = matches!(&segment.arguments, PathArguments::AngleBracketed(arguments)
        if arguments.args.iter().any(|argument| matches!(argument, GenericArgument::Lifetime(_))));
    let is_exclusive = at.is_exclusive;
    if name == "Savepoint" && (is_exclusive || borrows) {
        return Some(TRANSACTION);
    }
    if let Some(of) = name.strip_suffix("Transaction")
        && (!at.is_data || is_exclusive || borrows || of == "Database" || DRIVERS.contains(&of))
    {
        return Some(TRANSACTION);
    }
    if name.ends_with("Executor") && (is_exclusive || name.starts_with("Database")) {
        return Some(EXECUTOR);
    }
    if ["Tx", "Txn", "Trx"]
        .iter()
        .any(|short| name.ends_with(short))
        && (is_exclusive || borrows)
    {
        return Some(TRANSACTION);
    }
    // SeaORM's `DatabaseConnection` is a pool, and few shared connections can begin a transaction.
    let pooled = ["Pool", "Pooled"];
    let is_known = name
        .strip_suffix("Connection")
        .map(|driver| driver.strip_prefix("Async").unwrap_or(driver))
        .is_some_and(|driver| DRIVERS.contains(&driver) || pooled.contains(&driver));
    let is_like_one = (name.ends_with("Connection") && name != "DatabaseConnection")
        || name.ends_with("Conn")
        || ["Db", "DB", "Database", "ClientSession"].contains(&name.as_str())
        // A connection of a pool: `Object<AsyncPgConnection>`.
        || (name == "Object" && holds_a_connection(segment));
    (is_known || is_exclusive && is_like_one).then_some(CONNECTION)
}

fn holds_a_connection(segment: &PathSegment) -> bool {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return false;
    };
    arguments.args.iter().any(|argument| match argument {
        GenericArgument::Type(Type::Path(path)) => path.path.segments.last().is_some_and(|last| {
            let name = last.ident.to_string();
            name.ends_with("Connection") || name.ends_with("Client")
        }),
        _ => false,
    })
}

/// The name in messages for a type parameter, from its bounds, which may be in a `where` clause and
/// be those of a reference to it.
fn of_parameter(name: &Ident, item: &Item) -> Option<&'static str> {
    bounds_of(name, item)
        .find_map(of_bounds)
        .map(|(_, what)| what)
}

/// Whether a type is this parameter, or a reference to it.
fn is_of(ty: &Type, name: &Ident) -> bool {
    match ty {
        Type::Reference(reference) => is_of(&reference.elem, name),
        Type::Paren(paren) => is_of(&paren.elem, name),
        Type::Group(group) => is_of(&group.elem, name),
        Type::Path(path) => path.path.is_ident(name),
        _ => false,
    }
}

/// Whether `scripts/mutations` takes this technique out; see `cache-runtime/src/base/mutation.rs`.
fn is_mutated(name: &str) -> bool {
    cfg!(cache_mutations) && std::env::var("CACHE_MUTATION").is_ok_and(|active| active == name)
}

/// The name in messages for a value with these bounds: the traits of SQLx, SeaORM, Diesel and the
/// drivers that transactions implement.
fn of_bounds(bounds: &Punctuated<TypeParamBound, Token![+]>) -> Option<(Span, &'static str)> {
    bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else {
            return None;
        };
        let last = bound.path.segments.last()?;
        let name = last.ident.to_string();
        let is_executor = name.ends_with("Executor") && !is_mutated("executors-not-known")
            || ["Acquire", "ConnectionTrait", "GenericClient"].contains(&name.as_str());
        let what = if is_executor {
            EXECUTOR
        } else if name.ends_with("TransactionTrait") || name.ends_with("Transaction") {
            TRANSACTION
        } else if name.ends_with("Connection") {
            CONNECTION
        } else if [
            "AsRef",
            "AsMut",
            "Borrow",
            "BorrowMut",
            "Deref",
            "DerefMut",
            "Into",
        ]
        .contains(&name.as_str())
        {
            return of_target(last);
        } else {
            return None;
        };
        Some((last.ident.span(), what))
    })
}

/// The type in `impl DerefMut<Target = PgConnection>` or `impl AsMut<PgConnection>`.
fn of_target(bound: &PathSegment) -> Option<(Span, &'static str)> {
    let PathArguments::AngleBracketed(arguments) = &bound.arguments else {
        return None;
    };
    let is_exclusive = bound.ident.to_string().ends_with("Mut");
    arguments.args.iter().find_map(|argument| {
        let ty = match argument {
            GenericArgument::Type(ty) => ty,
            GenericArgument::AssocType(assoc) => &assoc.ty,
            _ => return None,
        };
        let Type::Path(path) = ty else {
            return None;
        };
        let last = path.path.segments.last()?;
        let at = TypePosition {
            is_exclusive,
            is_data: false,
        };
        of_type(last, at).map(|what| (last.ident.span(), what))
    })
}

/// The `&mut` in front of a type that may be a connection's, or inside a type.
fn mutable(ty: &Type) -> Option<Span> {
    match ty {
        Type::Reference(reference) => match &reference.mutability {
            Some(mutability) => (!is_plain(&reference.elem)).then_some(mutability.span),
            None => mutable(&reference.elem),
        },
        Type::Paren(paren) => mutable(&paren.elem),
        Type::Group(group) => mutable(&group.elem),
        Type::Slice(slice) => mutable(&slice.elem),
        Type::Array(array) => mutable(&array.elem),
        Type::Tuple(tuple) => tuple.elems.iter().find_map(mutable),
        Type::Path(path) => types_in(path.path.segments.last()?).find_map(mutable),
        _ => None,
    }
}

/// Whether a type has the name of a standard type, and so is no alias of a connection.
fn is_plain(ty: &Type) -> bool {
    let known = [
        "String", "Vec", "VecDeque", "HashMap", "HashSet", "BTreeMap", "BTreeSet", "PathBuf",
    ];
    is_builtin(ty, &known)
}
