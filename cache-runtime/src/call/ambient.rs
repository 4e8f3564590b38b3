//! Values that a caller sets around the calls in a future, for their keys: a tenant, a locale.
//!
//! A resource can be declared to need such a value
//! (`CacheConfig::resource("orders").context("tenant")`). Then all its keys contain it, in front of
//! the id or the op: `orders:@7@1`, `orders:@7@list:<hash>`. Ids and ops contain no `@`.

use std::future::Future;
use std::sync::Arc;

use crate::base::mutation;
use crate::key::{KeyPart, KeyWriter};

tokio::task_local! {
    static INNERMOST: Arc<Ambient>;
}

/// One value, and the values that are set around it.
#[derive(Debug)]
struct Ambient {
    name: String,
    /// The value as it is written in a key, escaped; `None` if it can't be in a key.
    text: Option<String>,
    outer: Option<Arc<Self>>,
}

/// All that is set around the current task, to be compared.
#[derive(Debug, Clone)]
pub(crate) struct AmbientId(Arc<Ambient>);

impl PartialEq for AmbientId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What is set around the current task, if anything is.
pub(crate) fn current() -> Option<AmbientId> {
    INNERMOST.try_with(Arc::clone).ok().map(AmbientId)
}

/// The value of a name, as a call sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Text(String),
    /// It can't be part of a key.
    Unkeyable,
    /// It is not set.
    Absent,
}

/// The value that is set for this name, if any; the innermost one wins.
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

/// The text in front of an id or an op for all these names: `@7@`. Or the first name without a
/// value, and whether its value can't be part of a key.
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

/// Runs `future` with this value set around it.
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
