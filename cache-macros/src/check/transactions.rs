//! Parameters through which a function may take part in its caller's transaction, which has not
//! committed when the function returns.
//!
//! A macro sees only names. Types and trait bounds are recognised by name: those of the database
//! libraries, and common aliases. Under `#[cached]` any `&mut` that is left out of the key is
//! refused too, since a function that only reads has no other reason to borrow mutably than a
//! connection. A pool is none of these: each of its statements commits by itself.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{
    Expr, FnArg, GenericArgument, GenericParam, Ident, Pat, PathArguments, PathSegment, Token,
    Type, TypeParamBound, WherePredicate, parse_quote_spanned,
};

use super::values::no_such_parameter;
use crate::args::Setting;
use crate::diag::Errors;
use crate::item::{Binding, Item, is_builtin};

/// A parameter that may be part of a transaction.
pub(super) struct Part {
    /// Its name, if it has one.
    parameter: Option<Ident>,
    /// What to underline: the name of the type or of the bound.
    place: Span,
    what: &'static str,
}

/// All such parameters, except those that `autocommit` names.
pub(super) fn parts(item: &Item, autocommit: &Setting<Vec<Ident>>) -> Vec<Part> {
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
        if !is_permitted && let Some((place, what)) = found(&parameter.ty, false, item) {
            parts.push(Part {
                parameter: name.cloned(),
                place,
                what,
            });
        }
    }
    parts
}

/// `#[cached]`: data that is read inside a transaction must not be cached for others.
pub(super) fn refuse_reads(parts: &[Part], errors: &mut Errors) {
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
    known: &[Part],
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
pub(super) fn refuse_writes(parts: &[Part], errors: &mut Errors) {
    for part in parts {
        let message = format!(
            "`#[invalidates]` acts when the function returns, and through {} that may be before the caller's transaction commits: a reader in between would keep the old data; begin and commit inside the function, or add `after_commit` and call it inside `Cache::after_commit`{}",
            part.what,
            part.remedy("; if no caller is in a transaction, add ")
        );
        errors.at(part.place, message);
    }
}

/// `#[invalidates]`: the arguments that may be a connection under an unknown name, an alias or a
/// trait of the program. The compiler is asked for their types.
pub(super) fn to_ask(item: &Item, autocommit: &Setting<Vec<Ident>>) -> Vec<Expr> {
    let permitted = autocommit.value().map(Vec::as_slice).unwrap_or_default();
    let mut asked = Vec::new();
    for input in &item.sig.inputs {
        if let FnArg::Typed(parameter) = input
            && let Pat::Ident(pat) = &*parameter.pat
            && pat.by_ref.is_none()
            && parameter
                .attrs
                .iter()
                .all(|attr| !attr.path().is_ident("cfg"))
            && !permitted
                .iter()
                .any(|name| name.unraw() == pat.ident.unraw())
        {
            let name = &pat.ident;
            match &*parameter.ty {
                Type::Reference(reference)
                    if reference.mutability.is_some() && !is_plain(&reference.elem)
                        || may_execute(&reference.elem, item) =>
                {
                    let place = reference.elem.span();
                    asked.push(parse_quote_spanned!(place=> &*#name));
                }
                ty if borrows(ty) || may_execute(ty, item) => {
                    asked.push(parse_quote_spanned!(ty.span()=> &#name));
                }
                _ => {}
            }
        }
    }
    if !permitted.iter().any(|name| name == "self") {
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
) -> Vec<Expr> {
    let permitted = autocommit.value().map(Vec::as_slice).unwrap_or_default();
    let is_asked = |name: &Ident| is_left_out(name) && !permitted.contains(name);
    let mut asked = Vec::new();
    for input in &item.sig.inputs {
        if let FnArg::Typed(parameter) = input
            && let Pat::Ident(pat) = &*parameter.pat
            && is_asked(&pat.ident)
            && found(&parameter.ty, false, item).is_none()
            && !parameter.attrs.iter().any(|it| it.path().is_ident("cfg"))
        {
            let name = &pat.ident;
            match &*parameter.ty {
                Type::Reference(reference)
                    if reference.mutability.is_some() || may_execute(&reference.elem, item) =>
                {
                    let place = reference.elem.span();
                    asked.push(parse_quote_spanned!(place=> &*#name));
                }
                ty if borrows(ty) || may_execute(ty, item) || may_be_an_alias(ty) => {
                    asked.push(parse_quote_spanned!(ty.span()=> &#name));
                }
                _ => {}
            }
        }
    }
    asked
}

/// Whether a type's name may be an alias. Those of pools and pointers are not.
fn may_be_an_alias(ty: &Type) -> bool {
    let Type::Path(path) = ty else {
        return false;
    };
    path.path.segments.last().is_some_and(|last| {
        let name = last.ident.to_string();
        last.arguments.is_empty() && !name.ends_with("Pool") && !is_plain(ty)
    })
}

/// Whether a type has a lifetime, like a transaction.
fn borrows(ty: &Type) -> bool {
    let Type::Path(path) = ty else {
        return false;
    };
    path.path.segments.last().is_some_and(|last| {
        let PathArguments::AngleBracketed(arguments) = &last.arguments else {
            return false;
        };
        let mut arguments = arguments.args.iter();
        last.ident != "Cow" && arguments.any(|it| matches!(it, GenericArgument::Lifetime(_)))
    })
}

/// Whether a type has trait bounds, one of which may be that of an executor.
fn may_execute(ty: &Type, item: &Item) -> bool {
    match ty {
        Type::ImplTrait(bounded) => any_unknown(&bounded.bounds),
        Type::Path(path) => path.path.get_ident().is_some_and(|name| {
            let generics = &item.sig.generics;
            let declared = generics.params.iter().filter_map(|param| match param {
                GenericParam::Type(param) if param.ident == *name => Some(&param.bounds),
                _ => None,
            });
            let predicates = generics.where_clause.iter().flat_map(|w| &w.predicates);
            let conditions = predicates.filter_map(|predicate| match predicate {
                WherePredicate::Type(of) if is_of(&of.bounded_ty, name) => Some(&of.bounds),
                _ => None,
            });
            declared.chain(conditions).any(any_unknown)
        }),
        _ => false,
    }
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

/// The fields of `self` that the body uses and that are named like a connection.
fn of_self(item: &Item) -> Vec<Expr> {
    const NAMES: [&str; 9] = [
        "tx",
        "txn",
        "trx",
        "transaction",
        "conn",
        "connection",
        "executor",
        "link",
        "session",
    ];
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
                        && NAMES.iter().any(|name| field == name)
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
    if !matches!(item.sig.inputs.first(), Some(FnArg::Receiver(_))) {
        return Vec::new();
    }
    let mut found = Vec::new();
    collect(item.body.stream(), &mut found);
    let field = |(this, field): &(Ident, Ident)| parse_quote_spanned!(field.span()=> &#this.#field);
    found.iter().map(field).collect()
}

/// Whether the names in `autocommit(..)` are those of parameters. In a write, `self` is allowed
/// too, for a connection that `self` holds.
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

impl Part {
    fn remedy(&self, before: &str) -> String {
        self.parameter.as_ref().map_or_else(String::new, |name| {
            format!("{before}`autocommit({})`", name.unraw())
        })
    }
}

const TRANSACTION: &str = "a transaction";
const CONNECTION: &str = "a connection";
const EXECUTOR: &str = "an executor";

/// The part of a type that may be in a transaction: its place, and its name in messages.
/// `is_exclusive` if it is behind a `&mut` or in a lock.
fn found(ty: &Type, is_exclusive: bool, item: &Item) -> Option<(Span, &'static str)> {
    match ty {
        Type::Reference(reference) => {
            let is_exclusive = is_exclusive || reference.mutability.is_some();
            found(&reference.elem, is_exclusive, item)
        }
        Type::Paren(paren) => found(&paren.elem, is_exclusive, item),
        Type::Group(group) => found(&group.elem, is_exclusive, item),
        Type::Tuple(tuple) => {
            let mut elems = tuple.elems.iter();
            elems.find_map(|elem| found(elem, is_exclusive, item))
        }
        Type::ImplTrait(bounded) => of_bounds(&bounded.bounds),
        Type::TraitObject(bounded) => of_bounds(&bounded.bounds),
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            let generic = path.path.get_ident();
            if let Some(what) = generic.and_then(|name| of_parameter(name, item)) {
                return Some((last.ident.span(), what));
            }
            if let Some(what) = of_type(last, is_exclusive) {
                return Some((last.ident.span(), what));
            }
            inside(last).and_then(|(is_lock, mut types)| {
                types.find_map(|ty| found(ty, is_exclusive || is_lock, item))
            })
        }
        _ => None,
    }
}

/// The types inside a type that gives access to its content, and whether that access is mutable. A
/// pool is no such type.
fn inside(segment: &PathSegment) -> Option<(bool, impl Iterator<Item = &Type>)> {
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
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    (is_lock || is_wrapper).then_some((is_lock, types))
}

/// The name in messages for a type of this name.
fn of_type(segment: &PathSegment, is_exclusive: bool) -> Option<&'static str> {
    let name = segment.ident.to_string();
    if name.ends_with("Transaction") {
        return Some(TRANSACTION);
    }
    if name.ends_with("Executor") && (is_exclusive || name.starts_with("Database")) {
        return Some(EXECUTOR);
    }
    // With a lifetime it borrows from its connection; without one it may be any data.
    let borrows = matches!(&segment.arguments, PathArguments::AngleBracketed(arguments)
        if arguments.args.iter().any(|argument| matches!(argument, GenericArgument::Lifetime(_))));
    if ["Tx", "Txn", "Trx"]
        .iter()
        .any(|short| name.ends_with(short))
        && (is_exclusive || borrows)
    {
        return Some(TRANSACTION);
    }
    // SeaORM's `DatabaseConnection` is a pool, and a shared connection can't begin a transaction.
    let drivers = ["Pg", "Sqlite", "MySql", "Mysql", "Mssql", "Any"];
    let pooled = ["Pool", "Pooled"];
    let is_known = name
        .strip_suffix("Connection")
        .map(|driver| driver.strip_prefix("Async").unwrap_or(driver))
        .is_some_and(|driver| drivers.contains(&driver) || pooled.contains(&driver));
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
    let generics = &item.sig.generics;
    let declared = generics.params.iter().find_map(|param| match param {
        GenericParam::Type(param) if param.ident == *name => Some(param),
        _ => None,
    })?;
    let predicates = generics.where_clause.iter().flat_map(|w| &w.predicates);
    let conditions = predicates.filter_map(|predicate| match predicate {
        WherePredicate::Type(of) if is_of(&of.bounded_ty, name) => Some(&of.bounds),
        _ => None,
    });
    std::iter::once(&declared.bounds)
        .chain(conditions)
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
        of_type(last, is_exclusive).map(|what| (last.ident.span(), what))
    })
}

/// The `&mut` in front of a type that may be a connection's, or of an `Option` with one.
fn mutable(ty: &Type) -> Option<Span> {
    match ty {
        Type::Reference(reference) => match &reference.mutability {
            Some(mutability) => (!is_plain(&reference.elem)).then_some(mutability.span),
            None => mutable(&reference.elem),
        },
        Type::Paren(paren) => mutable(&paren.elem),
        Type::Group(group) => mutable(&group.elem),
        Type::Path(path) => {
            let (_, mut types) = inside(path.path.segments.last()?)?;
            types.find_map(mutable)
        }
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
