//! Values that a caller sets around the calls in a future, for their keys: a tenant, a locale.
//!
//! A resource can be declared to need such a value
//! (`CacheConfig::resource("orders").context("tenant")`). Then all its keys contain it, in front of
//! the id or the op: `orders:@7@1`, `orders:@7@list:<hash>`. Ids and ops contain no `@`.

use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{Either, lazy};

use crate::base::{mutation, task_locals};
use crate::key::{KeyPart, KeyWriter};

tokio::task_local! {
    static INNERMOST: Arc<Ambient>;
}

/// Values as they are written in a key, escaped, behind their names. `None` can't be in a key.
pub(crate) type Written = Arc<[(String, Option<String>)]>;

/// Values that are set together, and those that are set around them.
#[derive(Debug)]
struct Ambient {
    values: Written,
    outer: Option<Arc<Self>>,
}

/// All values that are set around the current task, for comparison.
#[derive(Debug, Clone)]
pub(crate) struct AmbientId(Arc<Ambient>);

impl PartialEq for AmbientId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The values that are set around the current task, if there are any.
pub(crate) fn current() -> Option<AmbientId> {
    INNERMOST.try_with(Arc::clone).ok().map(AmbientId)
}

/// Runs `call` under these values.
pub(crate) fn under<T>(values: Option<&AmbientId>, call: impl FnOnce() -> T) -> T {
    match values {
        Some(AmbientId(values)) => INNERMOST.sync_scope(Arc::clone(values), call),
        None => call(),
    }
}

/// Whether [`under`] works. It panics while the thread ends and its values are gone.
pub(crate) fn can_be_under(values: Option<&AmbientId>) -> bool {
    values.is_none_or(|AmbientId(it)| task_locals::can_be_set(&INNERMOST, Arc::clone(it)))
}

/// Whether the value of a name is the same one here and in `around`: it was not set in between.
pub(crate) fn is_that_of(name: &str, around: Option<&AmbientId>) -> bool {
    let Some(around) = around else {
        return false;
    };
    let is_one = |here: &Arc<Ambient>| match (innermost(here, name), innermost(&around.0, name)) {
        (Some(here), Some(there)) => std::ptr::eq(here, there),
        _ => false,
    };
    INNERMOST.try_with(is_one).unwrap_or(false)
}

/// The text of the value that is set for this name, if one is.
fn innermost<'a>(all: &'a Ambient, name: &str) -> Option<&'a Option<String>> {
    let all = std::iter::successors(Some(all), |it| it.outer.as_deref());
    // The last one of a name counts.
    let mut values = all.flat_map(|it| it.values.iter().rev());
    values.find_map(|(it, text)| (it == name).then_some(text))
}

/// The value of a name, as a call sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AmbientValue {
    Text(String),
    /// It can't be part of a key.
    InvalidKey,
    /// It is not set.
    Absent,
}

/// The value that is set for this name, if any; the innermost one wins.
pub(crate) fn find(name: &str) -> AmbientValue {
    let find = |all: &Arc<Ambient>| match innermost(all, name) {
        Some(Some(text)) => AmbientValue::Text(text.clone()),
        Some(None) => AmbientValue::InvalidKey,
        None => AmbientValue::Absent,
    };
    INNERMOST.try_with(find).unwrap_or(AmbientValue::Absent)
}

/// The text in front of an id or an op for all these names: `@7@`. Or the first name without a
/// value, and whether its value can't be part of a key.
pub(crate) fn front(names: &[Box<str>]) -> Result<String, (&str, AmbientValue)> {
    let mut front = String::new();
    for name in names {
        match find(name) {
            AmbientValue::Text(text) => {
                front.push('@');
                front.push_str(&text);
            }
            AmbientValue::Absent if mutation::is_active("context-not-needed") => {}
            other => return Err((name, other)),
        }
    }
    if !names.is_empty() {
        front.push('@');
    }
    Ok(front)
}

/// Writes these values.
#[cfg(any(feature = "actix", feature = "poem", feature = "tower"))]
pub(crate) fn all_written(
    values: impl IntoIterator<Item = (String, String)>,
    hash_key: &[u8; 16],
) -> Written {
    let write = |(name, value)| {
        let text = written(&value, hash_key);
        (name, text)
    };
    values.into_iter().map(write).collect()
}

fn written<K: KeyPart>(value: &K, hash_key: &[u8; 16]) -> Option<String> {
    let mut key = KeyWriter::default();
    key.id(value, hash_key).ok().map(|_| key.take())
}

/// These values within all that is set around the current task.
fn inside(values: Written) -> Option<Arc<Ambient>> {
    let outer = INNERMOST.try_with(Arc::clone).ok();
    match values.is_empty() {
        true => outer,
        false => Some(Arc::new(Ambient { values, outer })),
    }
}

/// Runs `future` with these values set around it. What is set around that is what the task has when
/// the future is first polled, and not where it was made.
pub(crate) fn around<F: Future>(
    values: Written,
    future: F,
) -> impl Future<Output = F::Output> + use<F> {
    lazy(move |_| match inside(values) {
        Some(innermost) => Either::Left(INNERMOST.scope(innermost, future)),
        None => Either::Right(future),
    })
    .flatten()
}

/// Does the same for code that is not awaited.
#[cfg(any(feature = "actix", feature = "tower"))]
pub(crate) fn around_now<T>(values: &Written, call: impl FnOnce() -> T) -> T {
    match inside(Arc::clone(values)) {
        Some(innermost) => INNERMOST.sync_scope(innermost, call),
        None => call(),
    }
}

/// [`around`] with one value.
pub(crate) fn with<K: KeyPart, F: Future>(
    name: String,
    value: &K,
    hash_key: &[u8; 16],
    future: F,
) -> impl Future<Output = F::Output> + use<K, F> {
    let text = written(value, hash_key);
    around(Arc::new([(name, text)]), future)
}
