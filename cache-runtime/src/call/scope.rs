//! Modes that a caller chooses for the annotated functions inside a future: only return the key,
//! bypass the cache, load a fresh value.
//!
//! They take the call itself, as it would be awaited. So there is no second item beside the
//! function, and they work with methods, generics and traits alike.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use crate::base::error::{Error, ErrorKind};
use crate::base::scope_flags::{self, ScopeFlags};
use crate::base::{mutation, task_locals};
use crate::key::Key;

thread_local! {
    /// The key that the function has stored for the caller. [`ScopeFlags::KEY`] says whether it is
    /// asked for.
    static KEY: Cell<Option<Result<Key, Error>>> = const { Cell::new(None) };
}

tokio::task_local! {
    static MODE: Mode;
}

/// How annotated functions read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As the attribute says.
    Usual,
    /// Without the cache.
    Bypass,
    /// Load and store, whatever the cache holds.
    Refresh,
}

/// Returns the mode of the current task.
#[inline]
pub(crate) fn mode() -> Mode {
    match ScopeFlags::now().has(ScopeFlags::MODE) {
        true => MODE.try_with(|mode| *mode).unwrap_or(Mode::Usual),
        false => Mode::Usual,
    }
}

/// Runs `call` in this mode. The flag is set by whoever calls this.
pub(crate) fn in_mode<T>(mode: Mode, call: impl FnOnce() -> T) -> T {
    match mode {
        Mode::Usual => call(),
        mode => MODE.sync_scope(mode, call),
    }
}

/// Whether [`in_mode`] works. It panics while the thread ends and its values are gone.
pub(crate) fn can_be_in_mode(mode: Mode) -> bool {
    mode == Mode::Usual || task_locals::can_be_set(&MODE, mode)
}

/// Returns true if the current task accepts no local entries: it runs a body, or asked for that.
#[inline]
pub(crate) fn is_strict() -> bool {
    let strict = match mutation::is_active("bodies-read-local-entries") {
        true => ScopeFlags::STRICT,
        false => ScopeFlags::STRICT.and(ScopeFlags::BODY),
    };
    ScopeFlags::now().has(strict)
}

/// Runs `call` without local entries.
pub(crate) fn strict<F: Future>(call: F) -> impl Future<Output = F::Output> + use<F> {
    scope_flags::flagged(ScopeFlags::STRICT, call)
}

/// Returns the key under which a call of a [`#[cached]`](macro@crate::cached) function is stored.
/// The function does not run.
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
/// [`ErrorKind::InvalidKey`] if this is not a call of a cached function, if its cache is off, or if
/// an argument can't be part of a key.
///
/// # Cancel safety
/// `call` is polled once and dropped. It must be the call of the annotated function itself: any
/// other future runs up to its first suspension.
pub fn key_of<F: Future>(call: F) -> Result<Key, Error> {
    let found = {
        let _restore = Restore(ScopeFlags::set(ScopeFlags::KEY, true), KEY.take());
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

/// Restores the previous state, even if the poll panics.
struct Restore(bool, Option<Result<Key, Error>>);

impl Drop for Restore {
    fn drop(&mut self) {
        ScopeFlags::set(ScopeFlags::KEY, self.0);
        KEY.set(self.1.take());
    }
}

/// Whether the caller only wants the key.
#[inline]
pub(crate) fn is_asked_for_key() -> bool {
    ScopeFlags::now().has(ScopeFlags::KEY)
}

/// Returns true if the caller only wants the key. In that case it stores `key` for the caller.
#[inline]
pub(crate) fn takes_key(key: impl FnOnce() -> Result<Key, Error>) -> bool {
    let is_asked = is_asked_for_key();
    if is_asked {
        ScopeFlags::set(ScopeFlags::KEY, false);
        KEY.set(Some(key()));
    }
    is_asked
}

/// Until it is dropped, annotated functions do not store their key for the caller. This is for
/// functions that are called in the expressions of an attribute. These run before the annotated
/// function stores its own key.
#[must_use]
pub(crate) struct KeyHeldBack(bool);

/// Sets the request for a key aside.
#[inline]
pub(crate) fn hold_key_back() -> KeyHeldBack {
    let is_asked = is_asked_for_key();
    if is_asked {
        ScopeFlags::set(ScopeFlags::KEY, false);
    }
    KeyHeldBack(is_asked)
}

impl Drop for KeyHeldBack {
    #[inline]
    fn drop(&mut self) {
        if self.0 {
            ScopeFlags::set(ScopeFlags::KEY, true);
        }
    }
}

/// Runs `call` with every cached function in it bypassing the cache: it neither reads from the
/// cache nor stores. Only a request around it ([`Cache::request`](crate::Cache::request)) remembers
/// the newer result, so that it does not go back in time. Calls in tasks that `call` spawns are not
/// affected.
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
// Not an `async fn`, which would hold the call twice: as its argument and where it is awaited.
pub fn bypass<F: Future>(call: F) -> impl Future<Output = F::Output> {
    scope_flags::flagged(ScopeFlags::MODE, MODE.scope(Mode::Bypass, call))
}

/// Runs `call` with every cached function in it loading and storing a new value, whatever the cache
/// holds. Other readers of the same entry wait for the new value, or get the older one under `swr`.
/// Calls in tasks that `call` spawns are not affected.
///
/// If the function fails, the entry counts as expired: `stale_if_error` may serve it to other
/// callers.
///
/// It does not replace an invalidation, which reaches everything that depends on the data. It
/// renews single entries.
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
    scope_flags::flagged(ScopeFlags::MODE, MODE.scope(Mode::Refresh, call))
}
