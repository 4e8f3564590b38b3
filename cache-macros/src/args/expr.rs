//! The form of an expression: a literal, a name, or a part of one.

use syn::ext::IdentExt as _;
use syn::{Expr, Ident, Lit};

pub(super) fn literal(value: &Expr) -> Option<&Lit> {
    match ungrouped(value) {
        Expr::Lit(literal) => Some(&literal.lit),
        _ => None,
    }
}

/// The value inside the invisible groups that `macro_rules!` puts around its arguments.
pub(super) fn ungrouped(value: &Expr) -> &Expr {
    match value {
        Expr::Group(group) => ungrouped(&group.expr),
        value => value,
    }
}

/// The expression that is meant by `"#id"`, `":id"`, `"{id}"` or `"user.id"`: a name or a part of
/// one.
pub(crate) fn quoted_expr(text: &str) -> Option<Expr> {
    let signs = |letter: char| matches!(letter, '#' | '$' | ':' | '{' | ' ');
    let text = text.trim_start_matches(signs).trim_end_matches(['}', ' ']);
    let value: Expr = syn::parse_str(text).ok()?;
    let is_type = |name: &Ident| name.to_string().starts_with(char::is_uppercase);
    root(&value).filter(|name| !is_type(name))?;
    Some(value)
}

/// The `user` of `user`, `user.id` and `user.id()`.
pub(crate) fn root(value: &Expr) -> Option<&Ident> {
    match value {
        Expr::Field(field) => root(&field.base),
        Expr::MethodCall(call) => root(&call.receiver),
        value => single_ident(value),
    }
}

/// The name, if the expression is only a name.
pub(crate) fn single_ident(value: &Expr) -> Option<&Ident> {
    match ungrouped(value) {
        Expr::Path(path) if path.qself.is_none() => path.path.get_ident(),
        _ => None,
    }
}

/// Whether a name is written like a constant.
pub(crate) fn is_constant(name: &Ident) -> bool {
    name.unraw()
        .to_string()
        .chars()
        .all(|letter| !letter.is_lowercase())
}
