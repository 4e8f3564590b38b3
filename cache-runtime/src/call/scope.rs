//! What a caller asks of the annotated functions that a future calls: its key, a run without the cache, a fresh value.
//!
//! These take the call itself, as it would be awaited, so there is no second item beside the function, and they work
//! with methods, generics and traits alike.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use crate::base::error::{Error, ErrorKind};
use crate::key::Key;

thread_local! {
    /// Whether the annotated function that is polled right now is to leave its key, and not to run. Set within one poll only.
    // Apart from the key, which has to be dropped: to look at this takes no time, and every call does.
    static ASKED_FOR_KEY: Cell<bool> = const { Cell::new(false) };
    /// What it has left.
    static KEY: Cell<Option<Result<Key, Error>>> = const { Cell::new(None) };
}

tokio::task_local! {
    static MODE: Mode;
    static STRICT: ();
}

/// How annotated functions are to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As the attribute says.
    Usual,
    /// Without the cache.
    Bypass,
    /// Load, whatever there is, and store.
    Refresh,
}

/// The mode that the current task is in.
#[inline]
pub(crate) fn mode() -> Mode {
    MODE.try_with(|mode| *mode).unwrap_or(Mode::Usual)
}

/// Whether the current task wants what the store says, and no copy of it.
#[inline]
pub(crate) fn is_strict() -> bool {
    STRICT.try_with(|()| ()).is_ok()
}

/// Runs `call` without copies in the process.
pub(crate) fn strict<F: Future>(call: F) -> impl Future<Output = F::Output> + use<F> {
    STRICT.scope((), call)
}

/// The same for what is not awaited.
pub(crate) fn strictly<T>(call: impl FnOnce() -> T) -> T {
    STRICT.sync_scope((), call)
}

/// The key under which a call of a function annotated with [`#[cached]`](macro@crate::cached) is kept. The function
/// does not run.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), cache_runtime::Error> {
/// use cache_runtime::{Cache, CacheConfig, cached, key_of};
///
/// struct Users { cache: Cache }
///
/// impl Users {
///     #[cached(resource = "users", cache = self.cache)]
///     async fn list(&self, skip: u32, limit: u32) -> Vec<String> { unreachable!() }
/// }
///
/// let users = Users { cache: Cache::new(CacheConfig::default().local_mb(4)).await };
/// let key = key_of(users.list(0, 100))?;
/// assert_eq!(key.resource(), "users");
/// users.cache.delete(key).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::InvalidKey`] if the call is none of a cached function, its cache is off, or an argument can't be in a
/// key.
///
/// # Cancel safety
/// `call` is polled once and dropped. It has to be the call of the annotated function itself: of any other future, what
/// comes before its first suspension is run.
pub fn key_of<F: Future>(call: F) -> Result<Key, Error> {
    let found = {
        let _restore = Restore(ASKED_FOR_KEY.replace(true), KEY.take());
        let _ = pin!(call)
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        KEY.take()
    };
    found.unwrap_or_else(|| {
        let text = "this call has no key: it is not one of a function under `#[cached]`";
        Err(Error::new(ErrorKind::InvalidKey, text))
    })
}

/// Puts back what was asked before, also if the poll panics.
struct Restore(bool, Option<Result<Key, Error>>);

impl Drop for Restore {
    fn drop(&mut self) {
        ASKED_FOR_KEY.set(self.0);
        KEY.set(self.1.take());
    }
}

/// Whether the caller wants nothing but the key; if so, `key` is left for it.
#[inline]
pub(crate) fn takes_key(key: impl FnOnce() -> Result<Key, Error>) -> bool {
    let is_asked = ASKED_FOR_KEY.get();
    if is_asked {
        ASKED_FOR_KEY.set(false);
        KEY.set(Some(key()));
    }
    is_asked
}

/// Runs `call` with every cached function in it running without the cache: nothing is read from it and nothing stored.
/// Calls in tasks that it spawns are not concerned.
///
/// ```
/// # async fn example(users: Users) {
/// let as_in_the_database = cache_runtime::bypass(users.get(1)).await;
/// # }
/// # struct Users; impl Users { async fn get(&self, id: i64) -> Option<String> { None } }
/// ```
///
/// # Cancel safety
/// As cancel safe as `call` is.
// No `async fn`: that would hold the call twice, as its argument and where it is awaited.
pub fn bypass<F: Future>(call: F) -> impl Future<Output = F::Output> {
    MODE.scope(Mode::Bypass, call)
}

/// Runs `call` with every cached function in it loading anew and storing what it loads, whatever the cache holds. Who
/// reads the same meanwhile waits for the new value. Calls in tasks that it spawns are not concerned.
///
/// This is no substitute for an invalidation, which reaches all that depends on the data: it renews single entries.
///
/// ```
/// # async fn example(users: Users) {
/// let renewed = cache_runtime::refresh(users.get(1)).await;
/// # }
/// # struct Users; impl Users { async fn get(&self, id: i64) -> Option<String> { None } }
/// ```
///
/// # Cancel safety
/// As cancel safe as `call` is.
pub fn refresh<F: Future>(call: F) -> impl Future<Output = F::Output> {
    MODE.scope(Mode::Refresh, call)
}
