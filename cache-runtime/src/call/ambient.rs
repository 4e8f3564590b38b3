//! What a caller sets around the calls in a future, for their keys: a tenant, a locale.
//!
//! A resource that is declared to need it (`CacheConfig::resource("orders").context("tenant")`) has it in all its
//! keys, in front of the id or the op: `orders:@7@1`, `orders:@7@list:<hash>`. No id and no op has an `@`.

use std::future::Future;
use std::sync::Arc;

use crate::base::mutation;
use crate::key::{KeyPart, KeyWriter};

tokio::task_local! {
    static INNERMOST: Arc<Ambient>;
}

/// One thing that is set, and what is set around it.
#[derive(Debug)]
struct Ambient {
    name: String,
    /// As it is written in a key, escaped; `None` if it can't be in one.
    text: Option<String>,
    outer: Option<Arc<Self>>,
}

/// What a call finds of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Text(String),
    /// It can't be in a key.
    Unkeyable,
    /// Nobody has set it.
    Absent,
}

/// What is set by this name, if anything is; the innermost counts.
pub(crate) fn find(name: &str) -> Found {
    let Ok(innermost) = INNERMOST.try_with(Arc::clone) else {
        return Found::Absent;
    };
    let mut all = std::iter::successors(Some(&*innermost), |it| it.outer.as_deref());
    match all.find(|it| it.name == name) {
        Some(Ambient { text, .. }) => text.clone().map_or(Found::Unkeyable, Found::Text),
        None => Found::Absent,
    }
}

/// What stands in front of an id or an op for all these names: `@7@`; or the first name that is not set, and whether it
/// can't be in a key.
pub(crate) fn front(names: &[Box<str>]) -> Result<String, (&str, Found)> {
    let mut front = String::new();
    for name in names {
        match find(name) {
            Found::Text(text) => {
                front.push('@');
                front.push_str(&text);
            }
            Found::Absent if mutation::is_active("context-not-needed") => {}
            other => return Err((name, other)),
        }
    }
    if !names.is_empty() {
        front.push('@');
    }
    Ok(front)
}

/// Runs `future` with this set around it.
pub(crate) fn with<K: KeyPart, F: Future>(
    name: String,
    value: &K,
    hash_key: &[u8; 16],
    future: F,
) -> impl Future<Output = F::Output> + use<K, F> {
    let mut key = KeyWriter::default();
    let text = key.id(value, hash_key).ok().map(|_| key.take());
    let ambient = Ambient {
        name,
        text,
        outer: INNERMOST.try_with(Arc::clone).ok(),
    };
    INNERMOST.scope(Arc::new(ambient), future)
}
