//! The kinds of option values, after parsing.

use syn::{Expr, ExprPath, Ident, LitStr};

/// A resource or an op.
#[derive(Clone)]
pub(crate) enum Name {
    Literal(LitStr),
    /// A constant, whose value only the compiler knows.
    Path(ExprPath),
}

/// A time.
pub(crate) enum Ttl {
    Seconds(u64),
    /// From a string such as `"500ms"`.
    Millis(u64),
    Expr(Box<Expr>),
}

/// How values are encoded: the names of the codecs.
pub(crate) const CODECS: &[&str] = &["json", "msgpack", "postcard", "json+zstd"];

/// One of [`CODECS`], at its place in the source.
#[derive(Clone)]
pub(crate) struct Codec {
    pub(crate) name: Ident,
}

/// The results after which a write invalidates; all of them unless `on` says otherwise.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    Ok,
}

/// A tag as written.
pub(crate) enum Tag {
    /// `"team:{self.team}"`: a format string without its values, and these values.
    Format(LitStr, Vec<Expr>),
    /// Any other expression.
    Value(Box<Expr>),
}

impl Tag {
    /// The expressions in it.
    pub(crate) fn values(&self) -> &[Expr] {
        match self {
            Self::Format(_, values) => values,
            Self::Value(value) => std::slice::from_ref(value),
        }
    }
}

/// A resource in `depends`, and the row of it that may follow.
pub(crate) struct Dependency {
    pub(crate) resource: Name,
    pub(crate) id: Option<Expr>,
}
