//! What is left of an annotated function when all is checked and defaults are applied.
//!
//! Nothing here can contradict itself, which is why `expand` has no error to report.

use proc_macro2::Span;
use syn::{Expr, Ident, LitStr, Path, Token, Type};

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
    pub(crate) copies: Copies,
    pub(crate) grace: Grace,
    /// By what name the body knows its load context.
    pub(crate) context: Option<Ident>,
    /// Given if the body may go on when its caller has been answered.
    pub(crate) detached: Option<Detached>,
    /// How many loads may run at a time.
    pub(crate) max_loads: Option<Expr>,
    /// Whether a request remembers what it was answered.
    pub(crate) memo: bool,
    /// What the key takes from what is set around the call.
    pub(crate) include_context: Vec<LitStr>,
    /// What may be a connection, for all that its name says.
    pub(crate) reads_through: Vec<Expr>,
}

/// What else a value is made of.
pub(crate) struct Depends {
    pub(crate) resource: Name,
    /// The row; without it all of the resource.
    pub(crate) row: Option<Part>,
}

/// A type that the caller chooses, and what tells calls with other types apart.
pub(crate) enum Typing {
    /// The hash in the key covers the type of this parameter.
    InKey(Ident),
    /// Entries of this type parameter are told apart by their fingerprint.
    Entry(Ident),
    /// The same of the type of this parameter.
    EntryOf(Ident),
    /// The author says that the value does not depend on it, or it is the value's own type.
    LeftOut(Ident),
    /// The same of the type of this parameter.
    LeftOutOf(Ident),
}

/// What becomes of copies in the process.
pub(crate) enum Copies {
    /// They are kept, for no longer than this if it says so.
    Kept(Option<Ttl>),
    /// None is kept.
    NotKept,
    /// None answers, nor is one kept.
    Strict,
    /// There is nothing else.
    InProcess,
}

/// What the function does while its source is slow or fails, and how often that is checked.
pub(crate) struct Grace {
    pub(crate) swr: Option<Option<Ttl>>,
    pub(crate) stale_if_error: Option<Ttl>,
    pub(crate) timeout: Option<Option<Ttl>>,
    pub(crate) early: Option<Expr>,
    pub(crate) jitter: Option<Expr>,
    pub(crate) audit: Option<Expr>,
}

/// What a body that goes on by itself has to own.
pub(crate) struct Detached {
    /// `self` as it was written, and its type in the body, if it is borrowed and the body mentions it.
    pub(crate) this: Option<(Token![self], Type)>,
    /// The parameters that are borrowed, with the type each has in the body.
    pub(crate) borrowed: Vec<(Ident, Type)>,
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
    /// What may be a connection, borrowed. The compiler knows its type.
    pub(crate) writes_through: Vec<Expr>,
    /// Given if some target's rows are [`Rows::OfResult`].
    pub(crate) result: Option<AfterResult>,
    pub(crate) on: On,
}

/// What generated code refers to.
pub(crate) struct Env {
    /// `crate = ..`; else `::cache_runtime`.
    pub(crate) krate: Option<Path>,
    /// `cache = ..`; else the process-wide one.
    pub(crate) cache: Option<Expr>,
}

/// The name of an entry behind its resource.
pub(crate) enum Key {
    /// `users:1`
    Entity(Part),
    /// One `users:1` for each id in a parameter.
    Batch(Batch),
    /// `users:avatar:1`
    Row(Name, Part),
    /// `users:list:<hash>`
    Derived {
        op: Op,
        types: Vec<Ident>,
        parts: Vec<Part>,
    },
}

/// The parameter that holds the ids of a batch.
pub(crate) struct Batch {
    pub(crate) ids: Binding,
    /// The type of one id, as far as it is written.
    pub(crate) id: Option<Type>,
    pub(crate) by: BatchBy,
}

/// How the body takes the ids it is to load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BatchBy {
    /// `&[K]`
    Slice,
    /// `Vec<K>`
    Vec,
}

/// The middle of a key.
pub(crate) enum Op {
    Given(Name),
    /// The function's name.
    Function,
}

/// A value in a key.
pub(crate) struct Part {
    pub(crate) value: Expr,
    /// The type, where the value is a parameter.
    pub(crate) ty: Option<Type>,
    /// What to underline when the value can't be in a key.
    pub(crate) place: Span,
}

/// What happens to `None`.
pub(crate) enum Absence {
    /// Kept for the runtime's default.
    ByDefault,
    /// `none_ttl = ..`
    KeptFor(Ttl),
    /// `cache_none = false`
    NotKept,
}

/// What a write makes stale.
pub(crate) struct Target {
    pub(crate) resource: Name,
    pub(crate) rows: Rows,
    /// Of what is derived only this, if anything is named.
    pub(crate) ops: Vec<Name>,
}

/// Which rows of a resource a write makes stale; what is derived from it is, too.
pub(crate) enum Rows {
    /// None by themselves: all of them, unless ops are named.
    NotNamed,
    /// The row with an id that is known before the function runs.
    One(Part),
    /// The row whose id is read from the function's `result`.
    OfResult(Part),
    /// The rows with these ids, which are known before the function runs.
    Many(Part),
    /// The rows whose ids are read from the function's `result`.
    ManyOfResult(Part),
}

impl Rows {
    /// The expression for their ids.
    pub(crate) fn ids(&self) -> Option<&Part> {
        match self {
            Self::NotNamed => None,
            Self::One(ids) | Self::OfResult(ids) | Self::Many(ids) | Self::ManyOfResult(ids) => {
                Some(ids)
            }
        }
    }
}

/// The scope of ids that mention `result`.
pub(crate) struct AfterResult {
    /// `result` as it was written in an id, so that the closure's parameter is the same name.
    pub(crate) result: Ident,
    /// Parameters by value that ids mention as well: the body takes them before the ids are known.
    pub(crate) kept: Vec<Ident>,
}

/// After which results a write invalidates.
pub(crate) enum On {
    /// After all of them: an error may hide a commit.
    Always,
    /// `on = ok`
    Ok,
    /// All but the errors the expression knows to have written nothing.
    UnlessRejected(Box<Expr>),
}
