//! The names of transactions, connections and executors: those of the database libraries, and
//! common aliases.

use proc_macro2::Span;
use syn::punctuated::Punctuated;
use syn::{
    GenericArgument, GenericParam, Ident, PathArguments, PathSegment, Token, Type, TypeParamBound,
    TypePath, WherePredicate,
};

use crate::item::{Item, is_builtin};

pub(super) const TRANSACTION: &str = "a transaction";
const CONNECTION: &str = "a connection";
const EXECUTOR: &str = "an executor";
const PIPELINE: &str = "a pipeline";

/// The knowledge about a place in a parameter's type.
#[derive(Clone, Copy)]
pub(super) struct TypePosition {
    /// Behind a `&mut` or in a lock.
    pub(super) is_exclusive: bool,
    /// Part of the key, or one of several in a collection: more likely data of the program, such as
    /// the transactions of a bank.
    pub(super) is_data: bool,
}

impl TypePosition {
    pub(super) const ONE_OF_MANY: Self = Self {
        is_exclusive: false,
        is_data: true,
    };
}

/// The part of a type that may be in a transaction: its place, and its name in messages.
pub(super) fn found(ty: &Type, at: TypePosition, item: &Item) -> Option<(Span, &'static str)> {
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
            if at.is_exclusive && is_pipeline(path) {
                return Some((last.ident.span(), PIPELINE));
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

/// Whether it collects commands of Redis, which its owner sends later.
fn is_pipeline(path: &TypePath) -> bool {
    let segments = &path.path.segments;
    let Some(name) = segments.last().map(|it| it.ident.to_string()) else {
        return false;
    };
    let of_redis = |name: &str| name.to_lowercase().contains("redis") || name == "fred";
    let is_named = match segments.first().filter(|_| segments.len() > 1) {
        Some(first) => of_redis(&first.ident.to_string()),
        // Many crates have pipelines of other things.
        None => ["Pipeline", "ClusterPipeline"].contains(&name.as_str()) || of_redis(&name),
    };
    is_named && name.ends_with("Pipeline")
}

/// The types inside a type that may give access to its content, and what is known of their place.
/// A pool and a channel are no such types.
pub(super) fn inside(
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
    // Those of rbatis, which are shared, and of sled.
    let is_shared = ["TxExecutor", "TxExecutorGuard", "TransactionalTree"];
    if is_shared.iter().any(|ending| name.ends_with(ending)) {
        return Some(TRANSACTION);
    }
    if name.ends_with("Executor") && (is_exclusive || name.starts_with("Database")) {
        return Some(EXECUTOR);
    }
    if ["Tx", "Txn", "Trx"]
        .iter()
        .any(|short| name.ends_with(short))
        && (is_exclusive || borrows || is_of_a_driver(segment))
    {
        return Some(TRANSACTION);
    }
    // SeaORM's `DatabaseConnection` is a pool, and few shared connections can begin a transaction.
    let pooled = ["Pool", "Pooled", "MaybePool"];
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

/// Whether a type is one for a database: `Tx<Postgres>`.
fn is_of_a_driver(segment: &PathSegment) -> bool {
    const DATABASES: [&str; 5] = ["Postgres", "Sqlite", "MySql", "Mssql", "Any"];
    types_in(segment).any(|ty| match ty {
        Type::Path(path) => path
            .path
            .segments
            .last()
            .is_some_and(|last| DATABASES.iter().any(|it| last.ident == it)),
        _ => false,
    })
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
pub(super) fn is_of(ty: &Type, name: &Ident) -> bool {
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
            || [
                "Acquire",
                "ConnectionLike",
                "ConnectionTrait",
                "GenericClient",
                "Queryable",
                "StreamTrait",
            ]
            .contains(&name.as_str());
        let what = if is_executor {
            EXECUTOR
        } else if name.ends_with("TransactionTrait") || name.ends_with("Transaction") {
            TRANSACTION
        } else if name.ends_with("Connection") || name == "AsyncConnectionCore" {
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
        let begun_on = || may_be_begun_on(path).then_some(CONNECTION);
        of_type(last, at)
            .or_else(begun_on)
            .map(|what| (last.ident.span(), what))
    })
}

/// The `&mut` in front of a type that may be a connection's, or inside a type.
pub(super) fn mutable(ty: &Type) -> Option<Span> {
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
pub(super) fn is_plain(ty: &Type) -> bool {
    let known = [
        "String", "Vec", "VecDeque", "HashMap", "HashSet", "BTreeMap", "BTreeSet", "PathBuf",
    ];
    is_builtin(ty, &known)
}

/// The types among the generic arguments of a path's last part.
pub(super) fn types_in(segment: &PathSegment) -> impl Iterator<Item = &Type> {
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

/// The bounds of a type parameter of the function: at its declaration, and in the `where` clause,
/// where they may be those of a reference to it.
pub(super) fn bounds_of<'a>(
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
