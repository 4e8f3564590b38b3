//! The checked form of an annotated function, with defaults applied.
//!
//! Its values can't contradict each other, so `expand` has no errors to report.

use proc_macro2::Span;
use quote::{ToTokens as _, quote};
use syn::{Attribute, Expr, Ident, LitStr, Path, Token, Type};

use crate::args::{Codec, Name, Tag, Ttl};
use crate::item::{Binding, Item};

/// A function under `#[cached]`.
pub(crate) struct CachedFn {
    pub(crate) item: Item,
    pub(crate) env: Env,
    pub(crate) resource: Name,
    pub(crate) key: Key,
    pub(crate) types: Vec<Typing>,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) absence: Absence,
    pub(crate) version: Option<u32>,
    pub(crate) tags: Vec<Tag>,
    pub(crate) depends: Vec<Depends>,
    pub(crate) when: Option<Expr>,
    pub(crate) unless: Option<Expr>,
    pub(crate) codec: Option<Codec>,
    pub(crate) shared: bool,
    pub(crate) local_options: LocalOptions,
    pub(crate) stale_policy: StalePolicy,
    /// The name of the load context in the body.
    pub(crate) context: Option<Ident>,
    /// Given if the body may go on after its caller has the answer.
    pub(crate) detached: Option<Detached>,
    /// The limit on loads at a time.
    pub(crate) max_loads: Option<Expr>,
    /// Whether a request remembers the result.
    pub(crate) memo: bool,
    /// The values around the call that the key contains.
    pub(crate) include_context: Vec<LitStr>,
    /// Parameters that may be a connection under an unknown name.
    pub(crate) reads_through: Vec<ConnectionCandidate>,
}

/// A parameter that may be a connection under an unknown name. The compiler is asked for its type.
pub(crate) struct ConnectionCandidate {
    /// The conditions of the parameter.
    pub(crate) cfg: Vec<Attribute>,
    pub(crate) what: CandidateType,
}

/// How the compiler is asked: by a value if its type can't be written.
pub(crate) enum CandidateType {
    Value(Expr),
    Type(Type),
}

impl ConnectionCandidate {
    /// Whether another one asks the same, by its words: without a further feature of `syn`, types
    /// can't be compared.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let conditions = |asked: &Self| {
            let cfg = &asked.cfg;
            quote!(#(#cfg)*).to_string()
        };
        let words = |asked: &Self| match &asked.what {
            CandidateType::Value(value) => value.to_token_stream().to_string(),
            CandidateType::Type(ty) => ty.to_token_stream().to_string(),
        };
        words(self) == words(other) && conditions(self) == conditions(other)
    }
}

/// A further dependency of a value.
pub(crate) struct Depends {
    pub(crate) resource: Name,
    /// The row; without it the whole resource.
    pub(crate) row: Option<KeyPart>,
}

/// A type that the caller chooses, and how calls with other types are told apart.
pub(crate) enum Typing {
    /// The hash in the key covers the type of this parameter.
    InKey(Ident),
    /// Entries of this type parameter are told apart by their fingerprint.
    Entry(Ident),
    /// The same for the type of this parameter.
    EntryOf(Ident),
    /// The same for a type parameter of parameters that are left out of the key. It counts like the
    /// type that the function belongs to, which manual operations know.
    Instance(Ident),
    /// The same for the type of a parameter that is left out of the key.
    InstanceOf(Ident),
    /// The same for what a parameter refers to that is left out of the key: that of `&impl Db`
    /// counts like the `D` of `&D`.
    InstanceBehind(Ident),
    /// The author declares that the value does not depend on it, or it is the value's own type.
    LeftOut(Ident),
    /// The same for the type of this parameter.
    LeftOutOf(Ident),
}

/// The use of local entries.
pub(crate) enum LocalOptions {
    /// They are kept, for at most this time if one is given.
    Kept(Option<Ttl>),
    /// None are kept.
    NotKept,
    /// None are served or kept.
    Strict,
    /// Values are kept only in the process.
    InProcess,
}

/// The behaviour while the source is slow or fails, and the share of audited hits.
pub(crate) struct StalePolicy {
    pub(crate) swr: Option<Option<Ttl>>,
    pub(crate) stale_if_error: Option<Ttl>,
    pub(crate) timeout: Option<Option<Ttl>>,
    pub(crate) early: Option<Expr>,
    pub(crate) jitter: Option<Expr>,
    pub(crate) audit: Option<Expr>,
}

/// The values that a body owns if it may go on by itself.
pub(crate) struct Detached {
    /// `self` as it was written, and its type in the body, if it is borrowed and the body uses it.
    pub(crate) this: Option<(Token![self], Type)>,
    /// The parameters that are borrowed.
    pub(crate) borrowed: Vec<Borrowed>,
}

/// A parameter that is borrowed, and owned by a body that may outlive its caller.
pub(crate) struct Borrowed {
    pub(crate) name: Ident,
    /// Whether the body may assign another borrow to it.
    pub(crate) mutability: Option<Token![mut]>,
    /// Its type in the body.
    pub(crate) ty: Type,
}

/// A function under `#[invalidates]`.
pub(crate) struct InvalidatesFn {
    pub(crate) item: Item,
    pub(crate) env: Env,
    pub(crate) targets: Vec<Target>,
    pub(crate) tags: Vec<Tag>,
    /// Whether the write is announced before it takes place.
    pub(crate) crash_safe: bool,
    /// Whether the write is refused while the store is away.
    pub(crate) required: bool,
    /// Whether the function takes part in its caller's transaction.
    pub(crate) after_commit: bool,
    /// Parameters, borrowed, that may be a connection. The compiler knows their types.
    pub(crate) writes_through: Vec<ConnectionCandidate>,
    /// Given if some target's rows are [`Rows::OfResult`].
    pub(crate) result: Option<AfterResult>,
    pub(crate) on: On,
}

/// The paths that generated code uses.
pub(crate) struct Env {
    /// `crate = ..`; else `::cache_runtime`.
    pub(crate) krate: Option<Path>,
    /// `cache = ..`; else the process-wide one.
    pub(crate) cache: Option<Expr>,
}

/// The form of an entry's name behind its resource.
pub(crate) enum Key {
    /// `users:1`
    Entity(KeyPart),
    /// One `users:1` for each id in a parameter.
    Batch(Batch),
    /// `users:avatar:1`
    Row(Name, KeyPart),
    /// `users:list:<hash>`
    Derived {
        op: Op,
        types: Vec<Ident>,
        parts: Vec<KeyPart>,
    },
}

/// The parameter that holds the ids of a batch.
pub(crate) struct Batch {
    pub(crate) ids: Binding,
    /// The type of one id, as far as it is written.
    pub(crate) id: Option<Type>,
    pub(crate) by: BatchBy,
}

/// How the body takes the ids to load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BatchBy {
    /// `&[K]`
    Slice,
    /// `Vec<K>`
    Vec,
}

/// The middle part of a key.
pub(crate) enum Op {
    Given(Name),
    /// The function's name.
    Function,
}

/// A value in a key.
pub(crate) struct KeyPart {
    pub(crate) value: Expr,
    /// The type, where the value is a parameter.
    pub(crate) ty: Option<Type>,
    /// The part to underline when the value can't be in a key.
    pub(crate) place: Span,
}

/// The handling of `None`.
pub(crate) enum Absence {
    /// Stored for the runtime's default time.
    ByDefault,
    /// `none_ttl = ..`
    KeptFor {
        ttl: Ttl,
        /// Whether it is that of the whole block.
        is_default: bool,
    },
    /// `cache_none = false`
    NotKept,
}

/// One target of a write.
pub(crate) struct Target {
    pub(crate) resource: Name,
    pub(crate) rows: Rows,
    /// The derived entries that are invalidated, if any are named.
    pub(crate) ops: Vec<Name>,
}

/// The rows of a resource that a write invalidates, besides the derived entries.
pub(crate) enum Rows {
    /// No single rows: all of them, unless ops are named.
    NotNamed,
    /// The row with an id that is known before the function runs.
    One(KeyPart),
    /// The row whose id is read from the function's `result`.
    OfResult(KeyPart),
    /// The rows with these ids, which are known before the function runs.
    Many(KeyPart),
    /// The rows whose ids are read from the function's `result`.
    ManyOfResult(KeyPart),
}

impl Rows {
    /// The expression for their ids.
    pub(crate) fn ids(&self) -> Option<&KeyPart> {
        match self {
            Self::NotNamed => None,
            Self::One(ids) | Self::OfResult(ids) | Self::Many(ids) | Self::ManyOfResult(ids) => {
                Some(ids)
            }
        }
    }
}

/// The scope of ids that use `result`.
pub(crate) struct AfterResult {
    /// `result` as it was written in an id, so that the closure's parameter is the same name.
    pub(crate) result: Ident,
    /// By-value parameters that ids use as well: the body takes them before the ids are known.
    pub(crate) kept: Vec<Ident>,
}

/// The results after which a write invalidates.
pub(crate) enum On {
    /// After all of them: an error may hide a commit.
    Always,
    /// `on = ok`
    Ok,
    /// All except the errors for which the expression is true: they wrote nothing.
    UnlessRejected(Box<Expr>),
}
