//! The scopes around a call, carried over into a task or thread of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Cache, scoped};
use crate::base::mutation;
use crate::base::scope_flags::{self, ScopeFlags};
use crate::call::ambient::{self, AmbientId};
use crate::call::enclosing::{self, Frame};
use crate::call::keep_alive::polled_after_end;
use crate::call::memo::{self, RequestId};
use crate::call::scope::{self, Mode};

/// Makes a future part of what is around the call of this function, also in a task of its own: of
/// the body of the annotated function that is running, of the request, of the values that are set
/// with [`Cache::with_key`], of a [`Cache::scope`], of `strict`, [`bypass`](crate::bypass) and
/// [`refresh`](crate::refresh).
///
/// Tokio's tasks know nothing of the task that has spawned them. So without this, a task that is
/// spawned inside a body under `#[invalidates]` may read what was cached before the write, and a
/// load that needs its own key through a task waits for itself up to the wait limit.
///
/// A task that outlives the body is no part of it any more: after a load, as soon as its body has
/// ended; after a write, as soon as its invalidation is acknowledged or waits in the queue. From
/// then on its calls are answered like any others. That is noticed when the future is polled; a
/// closure of [`inherit_blocking`] reads no local entries as long as it runs. If a write is dropped
/// while its body runs, the task stays part of it, since it may go on with what was to be written.
/// A task that outlives the request finds nothing any more that the request remembers.
///
/// It is not for transactions: inside [`Cache::after_commit`], reads in the future bypass the
/// cache, and its writes are invalidated as if it were not part of the transaction.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::sync::Arc;
/// use cache_runtime::{Cache, CacheConfig, cached, inherit, invalidates};
/// # use std::sync::Mutex;
/// # struct Db(Mutex<String>);
/// # impl Db {
/// #     fn name(&self, _id: i64) -> String { self.0.lock().unwrap().clone() }
/// #     fn rename(&self, _id: i64, name: &str) { *self.0.lock().unwrap() = name.into(); }
/// # }
///
/// struct Users { db: Db, cache: Cache }
///
/// impl Users {
///     #[cached(resource = "users", cache = self.cache)]
///     async fn name(&self, id: i64) -> String {
///         self.db.name(id)
///     }
///
///     #[invalidates("users", id = id, cache = self.cache)]
///     async fn rename(self: &Arc<Self>, id: i64, name: &str) -> String {
///         self.db.rename(id, name);
///         let users = Arc::clone(self);
///         tokio::spawn(inherit(async move { users.name(id).await })).await.unwrap()
///     }
/// }
///
/// let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
/// let users = Arc::new(Users { db: Db(Mutex::new("Ada".into())), cache });
/// assert_eq!(users.name(1).await, "Ada");
/// assert_eq!(users.rename(1, "Grace").await, "Grace");
/// # }
/// ```
///
/// # Cancel safety
/// As cancel safe as `future` is.
pub fn inherit<F: Future>(future: F) -> impl Future<Output = F::Output> + use<F> {
    let around = Surroundings::now();
    let future = Some(future);
    Inherited { around, future }
}

/// Does the same as [`inherit`] for code that blocks its thread, as for
/// [`spawn_blocking`](tokio::task::spawn_blocking).
pub fn inherit_blocking<T>(call: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let around = Surroundings::now();
    move || around.run(call)
}

/// The scopes around a task.
#[derive(Debug)]
struct Surroundings {
    flags: ScopeFlags,
    mode: Mode,
    body: Option<Arc<Frame>>,
    request: Option<RequestId>,
    keys: Option<AmbientId>,
    cache: Option<Cache>,
}

impl Surroundings {
    fn now() -> Self {
        let flags = ScopeFlags::now();
        // The transaction may be over before the future is.
        let (flags, mode) = match flags.has(ScopeFlags::TRANSACTION) {
            true => (flags.and(ScopeFlags::MODE), Mode::Bypass),
            false => (flags, scope::mode()),
        };
        Self {
            flags: flags.only(ScopeFlags::INHERITED),
            mode,
            body: enclosing::innermost(),
            request: memo::current(),
            keys: ambient::current(),
            cache: scoped::in_scope(),
        }
    }

    /// Runs `call` as if it ran there.
    fn run<T>(&self, call: impl FnOnce() -> T) -> T {
        if mutation::is_active("nothing-is-inherited") {
            return call();
        }
        let body = self.body.as_ref().and_then(enclosing::still_running);
        let request = self.request.as_ref().filter(|request| !request.is_over());
        let mut flags = self.flags;
        if body.is_none() {
            flags = flags.without(ScopeFlags::BODY);
        }
        if request.is_none() {
            flags = flags.without(ScopeFlags::REQUEST.and(ScopeFlags::MEMO_OF_ALL));
        }
        let call = || scope::in_mode(self.mode, call);
        let call = || enclosing::inside_of(body, call);
        let call = || memo::part_of(request, call);
        let call = || ambient::under(self.keys.as_ref(), call);
        scope_flags::under(flags, || match &self.cache {
            Some(cache) => cache.scope_now(call),
            None => call(),
        })
    }

    /// Whether [`run`](Self::run) works. It panics while the thread ends and its values are gone.
    fn can_be_entered(&self) -> bool {
        mutation::is_active("inherited-around-any-drop")
            || (scope::can_be_in_mode(self.mode)
                && enclosing::can_be_inside_of(self.body.as_ref())
                && memo::can_be_part_of(self.request.as_ref())
                && ambient::can_be_under(self.keys.as_ref())
                && self.cache.as_ref().is_none_or(Cache::can_scope))
    }
}

pin_project_lite::pin_project! {
    /// A future that is polled in other surroundings.
    struct Inherited<F> {
        around: Surroundings,
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for Inherited<F> {
        // A write that is dropped tells its request. Otherwise the field is dropped after this.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.around.can_be_entered() {
                this.around.run(|| this.future.set(None));
            }
        }
    }
}

impl<F: Future> Future for Inherited<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        match this.future.as_pin_mut() {
            Some(future) => this.around.run(|| future.poll(context)),
            // It is there until it is dropped.
            None => polled_after_end(),
        }
    }
}
