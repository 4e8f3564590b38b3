//! A data loader: single loads of one moment become one batch.
//!
//! The idea is that of Facebook's DataLoader. A caller that finds no batch begins one. All that is
//! ready runs and may join, and whoever first sees that nobody comes any more closes the batch and
//! loads it, in its own future. Nobody relies on another caller's future being polled: a batch is
//! closed by any of its callers, and one whose loader stands still is left. A batch that was closed
//! takes nobody in: so a load that begins after an invalidation is never answered by one that began
//! before it. Nothing is remembered here.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::poll_fn;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::scoped;
use crate::base::scope_flags::ScopeFlags;
use crate::call::{ambient, memo};

/// How many ids one batch has at most, unless [`Loader::max_batch`] says otherwise: as many as the
/// cache reads with one command.
const MAX_BATCH: usize = 256;

/// For so long a caller waits until it looks whether the load goes on.
const LEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// A future that is woken is polled within this time, if it is polled at all.
const POLLED_WITHIN: Duration = Duration::from_millis(200);

/// Collects the single loads of one moment, and loads them together: `N+1` queries become two.
///
/// Inside [`Cache::request`](crate::Cache::request), calls of [`load`](Self::load) that are ready
/// at the same time become one call of the function that loads many. That is usually one with
/// `#[cached(.., batch = ids)]`, so what is cached is read with one command, and only the rest is
/// loaded. The loader itself remembers nothing: each load sees the writes and invalidations before
/// it.
///
/// Only calls of one request, and under the same [`with_key`](crate::Cache::with_key) and
/// [`scope`](crate::Cache::scope), share a batch. Outside of a request, in a transaction, in the
/// body of an annotated function, and under `strict`, `bypass` and `refresh`, each call loads by
/// itself: [`load`](Self::load) one id, and [`load_many`](Self::load_many) its ids.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::collections::HashMap;
/// use std::convert::Infallible;
/// use cache_runtime::{Cache, CacheConfig, Loader, cached};
///
/// struct Users { cache: Cache }
///
/// impl Users {
///     #[cached(resource = "users", batch = ids, cache = self.cache)]
///     async fn get_many(&self, ids: &[i64]) -> Result<HashMap<i64, String>, Infallible> {
///         // SELECT .. WHERE id IN (..)
///         Ok(ids.iter().map(|id| (*id, format!("user {id}"))).collect())
///     }
/// }
///
/// let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
/// let users = &Users { cache: cache.clone() };
/// let by_id = Loader::new(|ids: Vec<i64>| async move { users.get_many(&ids).await });
/// cache.request(async {
///     // One call of `get_many`, with 1 and 2.
///     let (one, two) = tokio::join!(by_id.load(1), by_id.load(2));
///     assert_eq!(one.unwrap().as_deref(), Some("user 1"));
///     assert_eq!(two.unwrap().as_deref(), Some("user 2"));
/// }).await;
/// # }
/// ```
pub struct Loader<K, V, E, F> {
    load_many: F,
    max_batch: usize,
    /// The batches that still take ids: one for each context.
    open: Mutex<Vec<Arc<LoaderBatch<K, V, E>>>>,
}

impl<K, V, E, F> fmt::Debug for Loader<K, V, E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("max_batch", &self.max_batch)
            .finish_non_exhaustive()
    }
}

/// The properties that two calls of one batch have in common.
#[derive(Debug)]
struct Context {
    request: memo::RequestId,
    keys: Option<ambient::AmbientId>,
    cache: Option<super::Cache>,
}

impl Context {
    /// The context of the current task; `None` where a call loads by itself.
    fn now() -> Option<Self> {
        let alone = ScopeFlags::MODE
            .and(ScopeFlags::STRICT)
            .and(ScopeFlags::TRANSACTION)
            .and(ScopeFlags::BODY);
        if ScopeFlags::now().has(alone) {
            return None;
        }
        Some(Self {
            request: memo::current()?,
            keys: ambient::current(),
            cache: scoped::in_scope(),
        })
    }

    fn is(&self, other: &Self) -> bool {
        let caches = match (&self.cache, &other.cache) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one.0, &other.0),
            (None, None) => true,
            _ => false,
        };
        caches && self.request == other.request && self.keys == other.keys
    }
}

struct LoaderBatch<K, V, E> {
    context: Context,
    state: Mutex<State<K, V, E>>,
    /// Somebody is to look at the state again.
    changed: Notify,
    /// How often the load was polled.
    polls: AtomicUsize,
}

struct State<K, V, E> {
    /// How many callers want each id. One that hangs up before the batch is loaded takes its id
    /// out.
    wanted: HashMap<K, usize>,
    /// The ids in the order in which they were first asked for.
    order: Vec<K>,
    /// Whether one of the callers has taken the loading on.
    is_led: bool,
    /// Wakes the caller that loads.
    waker: Option<Waker>,
    /// The loaded values.
    loaded: Option<Loaded<K, V, E>>,
}

type Loaded<K, V, E> = Result<HashMap<K, V>, Arc<E>>;

impl<K, V, E, F, Loads> Loader<K, V, E, F>
where
    K: Clone + Eq + Hash,
    V: Clone,
    F: Fn(Vec<K>) -> Loads,
    Loads: Future<Output = Result<HashMap<K, V>, E>>,
{
    /// Creates a loader over a function that loads many values: those that it does not return are
    /// not there. Create one for each request, or one for the whole program.
    #[must_use]
    pub fn new(load_many: F) -> Self {
        Self {
            load_many,
            max_batch: MAX_BATCH,
            open: Mutex::default(),
        }
    }

    /// The most ids of one batch, 256 by default; at least one.
    #[must_use]
    pub fn max_batch(mut self, ids: usize) -> Self {
        self.max_batch = ids.max(1);
        self
    }

    /// Loads the value of an id, together with the others that are asked for at the same time.
    /// `None` if there is none.
    ///
    /// # Errors
    /// The error of the function, which all callers of the batch share. The next batch tries again.
    ///
    /// # Cancel safety
    /// If it is dropped before the batch is loaded, its id is not asked for. If it is dropped while
    /// it loads the batch, another caller of the batch loads it. If it is neither dropped nor
    /// polled any more, as with `select!` over a borrowed future, the others load by themselves
    /// after 2 s.
    pub async fn load(&self, id: K) -> Result<Option<V>, Arc<E>> {
        let Some(context) = Context::now() else {
            let found = (self.load_many)(vec![id.clone()]).await;
            return found.map(|mut found| found.remove(&id)).map_err(Arc::new);
        };
        let waiter = LoaderWaiter {
            loader: self,
            batch: self.join(context, &id),
            id,
            leads: false,
        };
        waiter.value().await
    }

    /// Loads many values, also together with the others. Where a call loads by itself, these ids
    /// are still loaded together, up to [`max_batch`](Self::max_batch) at a time. Ids without a
    /// value are not in the result.
    ///
    /// # Errors
    /// As [`load`](Self::load): the first error counts.
    ///
    /// # Cancel safety
    /// As [`load`](Self::load).
    pub async fn load_many(
        &self,
        ids: impl IntoIterator<Item = K>,
    ) -> Result<HashMap<K, V>, Arc<E>> {
        let ids: HashSet<K> = ids.into_iter().collect();
        if Context::now().is_none() && !crate::base::mutation::is_active("loader-one-by-one") {
            let ids = Vec::from_iter(ids);
            let mut all = HashMap::with_capacity(ids.len());
            for batch in ids.chunks(self.max_batch) {
                let found = (self.load_many)(batch.to_vec()).await;
                let mut found = found.map_err(Arc::new)?;
                let found = batch.iter().filter_map(|id| found.remove_entry(id));
                all.extend(found);
            }
            return Ok(all);
        }
        let loads = ids.into_iter().map(|id| async move {
            let value = self.load(id.clone()).await?;
            Ok::<_, Arc<E>>(value.map(|value| (id, value)))
        });
        let loaded = futures_util::future::join_all(loads).await;
        let loaded: Result<Vec<Option<(K, V)>>, Arc<E>> = loaded.into_iter().collect();
        Ok(loaded?.into_iter().flatten().collect())
    }

    /// Joins the batch of this context that still takes ids, or begins one.
    fn join(&self, context: Context, id: &K) -> Arc<LoaderBatch<K, V, E>> {
        let mut open = self.open.lock();
        let found = open.iter().position(|batch| batch.context.is(&context));
        let at = found.unwrap_or_else(|| {
            open.push(Arc::new(LoaderBatch {
                context,
                state: Mutex::new(State {
                    wanted: HashMap::new(),
                    order: Vec::new(),
                    is_led: false,
                    waker: None,
                    loaded: None,
                }),
                changed: Notify::new(),
                polls: AtomicUsize::new(0),
            }));
            open.len() - 1
        });
        let batch = Arc::clone(&open[at]);
        let is_full = {
            let mut state = batch.state.lock();
            let wanted = state.wanted.entry(id.clone()).or_insert(0);
            *wanted += 1;
            if *wanted == 1 {
                state.order.push(id.clone());
            }
            state.wanted.len() >= self.max_batch
        };
        if is_full {
            open.swap_remove(at);
        }
        batch
    }

    /// Closes a batch: whoever calls from here on is in another one.
    fn close(&self, batch: &Arc<LoaderBatch<K, V, E>>) {
        if !crate::base::mutation::is_active("loader-joined-while-it-loads") {
            self.open.lock().retain(|open| !Arc::ptr_eq(open, batch));
        }
    }
}

/// A caller's place in a batch.
struct LoaderWaiter<'l, K: Clone + Eq + Hash, V, E, F> {
    loader: &'l Loader<K, V, E, F>,
    batch: Arc<LoaderBatch<K, V, E>>,
    id: K,
    /// Whether this caller has taken the loading on, and has not done it yet.
    leads: bool,
}

impl<K: Clone + Eq + Hash, V, E, F> Drop for LoaderWaiter<'_, K, V, E, F> {
    fn drop(&mut self) {
        let is_empty = {
            let mut state = self.batch.state.lock();
            if let Some(wanted) = state.wanted.get_mut(&self.id) {
                *wanted -= 1;
                if *wanted == 0 {
                    state.wanted.remove(&self.id);
                    if state.loaded.is_none() {
                        let id = &self.id;
                        state.order.retain(|other| other != id);
                    }
                }
            }
            if self.leads {
                state.is_led = false;
            }
            state.wanted.is_empty()
        };
        if is_empty {
            let mut open = self.loader.open.lock();
            open.retain(|batch| !Arc::ptr_eq(batch, &self.batch));
        } else if self.leads {
            self.batch.changed.notify_one();
        }
    }
}

impl<K, V, E, F, Loads> LoaderWaiter<'_, K, V, E, F>
where
    K: Clone + Eq + Hash,
    V: Clone,
    F: Fn(Vec<K>) -> Loads,
    Loads: Future<Output = Result<HashMap<K, V>, E>>,
{
    async fn value(mut self) -> Result<Option<V>, Arc<E>> {
        self.gather().await;
        loop {
            let changed = self.batch.changed.notified();
            {
                let mut state = self.batch.state.lock();
                if let Some(loaded) = &state.loaded {
                    return match loaded {
                        Ok(values) => Ok(values.get(&self.id).cloned()),
                        Err(error) => Err(Arc::clone(error)),
                    };
                }
                self.leads = !std::mem::replace(&mut state.is_led, true);
            }
            if self.leads {
                drop(changed);
                self.lead().await;
                continue;
            }
            if !self.has_changed(changed).await {
                // Boxed, since it is rare and holds another call of the function.
                return Box::pin(self.alone()).await;
            }
        }
    }

    /// All that is ready runs first, and joins: until nobody has come for two turns. Each caller
    /// counts for itself, since the first one may not be polled any more.
    async fn gather(&self) {
        let mut known = 0;
        let mut quiet = 0;
        while quiet < 2 {
            tokio::task::yield_now().await;
            let state = self.batch.state.lock();
            if state.is_led {
                return;
            }
            let wanted = state.wanted.len();
            quiet = if wanted == known { quiet + 1 } else { 0 };
            known = wanted;
        }
    }

    /// Waits for a change; `false` if the caller that loads is not polled any more.
    async fn has_changed(&self, changed: impl Future<Output = ()>) -> bool {
        let mut changed = pin!(changed);
        loop {
            let waited = crate::base::time::timeout(LEADER_TIMEOUT, changed.as_mut());
            if waited.await.is_ok() || crate::base::mutation::is_active("loader-waits-for-ever") {
                return true;
            }
            // A load that waits for the database is polled when it is woken.
            let before = self.batch.polls.load(Ordering::Relaxed);
            let waker = self.batch.state.lock().waker.clone();
            if let Some(waker) = waker {
                waker.wake();
            }
            if crate::base::time::timeout(POLLED_WITHIN, changed.as_mut())
                .await
                .is_ok()
            {
                return true;
            }
            if self.batch.polls.load(Ordering::Relaxed) == before {
                return false;
            }
        }
    }

    async fn alone(self) -> Result<Option<V>, Arc<E>> {
        let (loader, id) = (self.loader, self.id.clone());
        // The task that loads this batch does not load the id any more, if it has not begun.
        drop(self);
        let found = (loader.load_many)(vec![id.clone()]).await;
        found.map(|mut found| found.remove(&id)).map_err(Arc::new)
    }

    async fn lead(&mut self) {
        self.loader.close(&self.batch);
        let ids = self.batch.state.lock().order.clone();
        let mut load = pin!((self.loader.load_many)(ids));
        let loaded = poll_fn(|context| {
            self.batch.polls.fetch_add(1, Ordering::Relaxed);
            let waker = context.waker();
            let mut state = self.batch.state.lock();
            if !state.waker.as_ref().is_some_and(|it| it.will_wake(waker)) {
                state.waker = Some(waker.clone());
            }
            drop(state);
            load.as_mut().poll(context)
        })
        .await;
        self.batch.state.lock().loaded = Some(loaded.map_err(Arc::new));
        self.leads = false;
        self.batch.changed.notify_waiters();
    }
}
