//! Checks that a value in a key makes sense: a lone name is that of a parameter, the value differs
//! from call to call, and an id is that of one row.

use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::{Expr, Lit, LitStr, Type, UnOp};

use crate::args::{Tag, is_constant, quoted_expr, root, single_ident};
use crate::diag::{Errors, listed, nearest};
use crate::item::{Binding, Item, first_type};
use crate::tokens::{self, mention};

/// Checks a value: a lone name that is no parameter is most likely a typo, and so is a text that
/// contains a parameter's name. A longer expression is left to the compiler.
pub(super) fn named(option: &str, value: &Expr, bindings: &[Binding], errors: &mut Errors) -> bool {
    if constant(option, value, bindings, errors) {
        return false;
    }
    let Some(ident) = single_ident(value) else {
        return true;
    };
    let message = if ident == "self" {
        let example = written(option, "self.tenant");
        format!("all of `self` can't be in a key; name what tells owners apart, e.g. {example}")
    } else if is_constant(ident) || bindings.iter().any(|binding| binding.is(ident)) {
        return true;
    } else {
        no_such_parameter(option, &ident.unraw().to_string(), bindings)
    };
    errors.on(ident, message);
    false
}

/// Checks the names in tags: a function has no other variables than its parameters.
pub(super) fn named_in_tags(tags: &[Tag], item: &Item, errors: &mut Errors) {
    let (bindings, opaque) = item.bindings();
    if !opaque.is_empty() {
        return;
    }
    for ident in tags.iter().flat_map(Tag::values).filter_map(single_ident) {
        let is_known = ident == "self"
            // In a write it has a message of its own.
            || ident == "result"
            || is_constant(ident)
            || bindings.iter().any(|binding| binding.is(ident));
        if !is_known {
            let name = ident.unraw().to_string();
            errors.on(ident, no_such_parameter("tags", &name, &bindings));
        }
    }
}

/// An option and its value as the user writes them.
fn written(option: &str, value: &str) -> String {
    if matches!(option, "id" | "ids" | "batch") {
        format!("`{option} = {value}`")
    } else {
        format!("`{option}({value})`")
    }
}

pub(super) fn no_such_parameter(option: &str, name: &str, bindings: &[Binding]) -> String {
    let names: Vec<String> = bindings.iter().map(Binding::name).collect();
    let given = written(option, name);
    if names.is_empty() {
        return format!("{given} matches no parameter; this function has none");
    }
    let has = format!(
        "this function has {}",
        listed(names.iter().map(String::as_str))
    );
    match nearest(name, names.iter().map(String::as_str)) {
        Some(meant) if names.len() > 1 => {
            format!("{given} matches no parameter; did you mean `{meant}`? {has}")
        }
        _ => format!("{given} matches no parameter; {has}"),
    }
}

/// Reports literals that would give all calls the same entry; returns whether there was one.
///
/// An `id` may be a literal (`id = 1`), for a resource with a single row, unless its text contains
/// the name of a parameter. A part of a tuple may be a literal too, and tell kinds of rows apart.
fn constant(option: &str, value: &Expr, bindings: &[Binding], errors: &mut Errors) -> bool {
    let (parts, is_part) = match value {
        Expr::Tuple(tuple) => (tuple.elems.iter().collect(), true),
        value => (vec![value], false),
    };
    let mut found = false;
    for part in parts {
        let Expr::Lit(literal) = copied(part) else {
            continue;
        };
        let meant = match &literal.lit {
            Lit::Str(text) => meant(option, text, bindings),
            _ => None,
        };
        let fix = match meant {
            Some(meant) if is_part => format!("write `{meant}`"),
            Some(meant) => format!("write {}", written(option, &meant)),
            None if is_part || option == "id" => continue,
            None => {
                let example = match bindings.first() {
                    Some(binding) if option == "key" => binding.name(),
                    _ => "self.tenant".to_owned(),
                };
                let example = written(option, &example);
                format!("name what tells calls apart, e.g. {example}")
            }
        };
        let literal = literal.to_token_stream();
        errors.on(
            part,
            format!("`{literal}` is the same for every call; {fix}"),
        );
        found = true;
    }
    found
}

/// The meaning of `"#id"`, `"user.id"` or `"{team}-{id}"`.
fn meant(option: &str, text: &LitStr, bindings: &[Binding]) -> Option<String> {
    let is_meant = |value: &Expr| match root(value) {
        // A lone one can't be in a key.
        Some(name) if name == "self" => single_ident(value).is_none(),
        Some(name) if name == "result" => option == "id",
        Some(name) => bindings.iter().any(|binding| binding.is(name)),
        None => false,
    };
    if let Some(value) = quoted_expr(&text.value()).filter(is_meant) {
        return Some(tokens::text(&value));
    }
    bindings
        .iter()
        .any(|binding| mention(text.to_token_stream(), &binding.name()).is_some())
        .then(|| format!("format!({})", text.to_token_stream()))
}

/// The inner expression behind references, brackets, signs, casts and copies.
fn copied(value: &Expr) -> &Expr {
    const COPIES: &[&str] = &["clone", "into", "to_owned", "to_string", "to_vec"];
    match value {
        Expr::Paren(value) => copied(&value.expr),
        Expr::Group(value) => copied(&value.expr),
        Expr::Reference(value) => copied(&value.expr),
        Expr::Cast(value) => copied(&value.expr),
        Expr::Unary(value) if !matches!(value.op, UnOp::Deref(_)) => copied(&value.expr),
        Expr::MethodCall(call) if COPIES.iter().any(|copy| call.method == copy) => {
            copied(&call.receiver)
        }
        value => value,
    }
}

/// Reports an id that is a list, as far as the types of parameters and of the result tell.
pub(super) fn one_row(id: &Expr, item: &Item, bindings: &[Binding], errors: &mut Errors) {
    let Some(name) = single_ident(copied(id)) else {
        return;
    };
    let ty = match bindings.iter().find(|binding| binding.is(name)) {
        Some(binding) => binding.ty.as_ref(),
        None if name == "result" => item.output().map(value_of),
        None => None,
    };
    if ty.is_some_and(is_list) {
        let message = format!("`id` is one row, and `{name}` holds many; write `ids = {name}`");
        errors.on(id, message);
    }
}

/// The type inside a `Result`, an `Option` and a pointer.
fn value_of(ty: &Type) -> &Type {
    match ty {
        Type::Reference(reference) => value_of(&reference.elem),
        Type::Paren(paren) => value_of(&paren.elem),
        Type::Group(group) => value_of(&group.elem),
        Type::Path(path) => {
            let around = ["Result", "Option", "Arc", "Rc", "Box", "Cow"];
            path.path
                .segments
                .last()
                .filter(|last| around.iter().any(|name| last.ident == name))
                .and_then(first_type)
                .map_or(ty, value_of)
        }
        _ => ty,
    }
}

/// Whether a type holds many values, by its name. Bytes don't count.
fn is_list(ty: &Type) -> bool {
    let element = match value_of(ty) {
        Type::Slice(slice) => Some(&*slice.elem),
        Type::Array(array) => Some(&*array.elem),
        Type::Path(path) => path
            .path
            .segments
            .last()
            .filter(|last| {
                let lists = ["Vec", "VecDeque", "HashSet", "BTreeSet"];
                lists.iter().any(|name| last.ident == name)
            })
            .and_then(first_type),
        _ => None,
    };
    let is_byte = |ty: &Type| matches!(ty, Type::Path(path) if path.path.is_ident("u8"));
    element.is_some_and(|element| !is_byte(element))
}
