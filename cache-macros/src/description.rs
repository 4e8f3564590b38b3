//! The description of a function for the catalog: `users:{id: i64}, ttl 300`.
//! `cache_runtime::catalog` reads it.
//!
//! The name of an entry comes first, or of each target of a write. Parts that are known only at run
//! time are in braces. Options follow, separated by commas; a comma inside braces belongs to the
//! part in the braces.

use syn::Type;

use crate::args::{Name, Tag, Ttl};
use crate::model::{Batch, CachedFn, InvalidatesFn, Key, KeyPart, Op};
use crate::tokens::text;

pub(crate) fn cached(function: &CachedFn) -> String {
    let name = named(&function.resource);
    let key = match &function.key {
        Key::Entity(id) => format!("{name}:{}", row(id)),
        Key::Batch(Batch { ids, id, .. }) => format!("{name}:{}", typed(&ids.name(), id.as_ref())),
        Key::Row(op, id) => format!("{name}:{}:{}", named(op), row(id)),
        Key::Derived { op, .. } => match op {
            Op::Given(op) => format!("{name}:{}", named(op)),
            Op::Function => format!("{name}:{}", function.item.name()),
        },
    };
    let mut description = vec![key];
    description.extend(function.ttl.as_ref().map(|ttl| match ttl {
        Ttl::Seconds(seconds) => format!("ttl {seconds}"),
        Ttl::Millis(millis) if millis % 1000 == 0 => format!("ttl {}", millis / 1000),
        Ttl::Millis(millis) => format!("ttl {millis}ms"),
        Ttl::Expr(value) => format!("ttl {{{}}}", text(value)),
    }));
    description.extend(function.depends.iter().map(|on| match &on.row {
        Some(id) => format!("depends {}:{}", named(&on.resource), row(id)),
        None => format!("depends {}", named(&on.resource)),
    }));
    description.extend(function.tags.iter().map(tag));
    if function.shared {
        description.push("keys shared".to_owned());
    }
    if let Key::Batch(_) = function.key {
        description.push("a batch".to_owned());
    }
    description.join(", ")
}

pub(crate) fn invalidates(function: &InvalidatesFn) -> String {
    let mut description = Vec::new();
    for target in &function.targets {
        let name = named(&target.resource);
        description.push(match target.rows.ids() {
            Some(ids) => format!("{name}:{}", row(ids)),
            None => name,
        });
        let ops = target.ops.iter().map(|op| format!("op {}", named(op)));
        description.extend(ops);
    }
    description.extend(function.tags.iter().map(tag));
    if function.crash_safe {
        // A space, because a resource may have the name of any single word.
        description.push("crash safe".to_owned());
    }
    description.join(", ")
}

fn named(name: &Name) -> String {
    match name {
        Name::Literal(name) => name.value(),
        Name::Path(path) => format!("{{{}}}", text(path)),
    }
}

fn row(id: &KeyPart) -> String {
    typed(&text(&id.value), id.ty.as_ref())
}

fn typed(name: &str, ty: Option<&Type>) -> String {
    match ty {
        Some(Type::Reference(reference)) => typed(name, Some(&reference.elem)),
        Some(ty) => format!("{{{name}: {}}}", text(ty)),
        None => format!("{{{name}}}"),
    }
}

fn tag(tag: &Tag) -> String {
    // A comma would end it.
    tag_text(tag).replace(',', "%2C")
}

fn tag_text(tag: &Tag) -> String {
    match tag {
        Tag::Format(format, values) => {
            let mut filled = format.value();
            for value in values {
                filled = filled.replacen("{}", &format!("{{{}}}", text(value)), 1);
            }
            format!("tag {filled}")
        }
        Tag::Value(value) => format!("tag {{{}}}", text(value)),
    }
}

#[cfg(test)]
mod tests;
