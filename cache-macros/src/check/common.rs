//! The rules of both attributes.

use syn::Type;

use crate::args::{Common, Setting, Tag};
use crate::diag::Errors;
use crate::item::{Item, impl_trait};
use crate::model::Env;

pub(super) fn tags_of(tags: &Setting<Vec<Tag>>) -> &[Tag] {
    tags.value().map(Vec::as_slice).unwrap_or_default()
}

/// The rules for any function whose body is wrapped.
pub(super) fn callable(attribute: &str, item: &Item, errors: &mut Errors) {
    // A function that is not `async` can read the process's memory, and can't wait for anything
    // else.
    if item.form().is_none() && attribute == "invalidates" {
        errors.on(
            item.sig.fn_token,
            format!("`#[{attribute}]` needs an `async fn`; add `async` before `fn`"),
        );
    }
    if let Some(constness) = &item.sig.constness {
        let message = format!(
            "`#[{attribute}]` can't be on a `const fn`, which has no cache to look into; remove `const`"
        );
        errors.on(constness, message);
    }
    if let Some(found) = item.output().and_then(impl_trait) {
        errors.at(found, format!("`#[{attribute}]` needs a return type with a name; write the type in place of `impl ..`"));
    }
    if let Some(never @ Type::Never(_)) = item.output() {
        let message =
            format!("the function never returns, so `#[{attribute}]` has nothing to do; remove it");
        errors.on(never, message);
    }
    for pat in item.bindings().1 {
        let message = format!(
            "`#[{attribute}]` can't see which names this pattern binds; bind one name and take it apart in the body"
        );
        errors.on(pat, message);
    }
}

pub(super) fn env(common: Common) -> Env {
    Env {
        krate: common.krate.into_value(),
        cache: common.cache.into_value(),
    }
}
