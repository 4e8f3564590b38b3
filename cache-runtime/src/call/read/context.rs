//! Lets the body of a cached function decide about the value it loads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::dependencies::deps::{all_of, tag_dep};
use super::dependencies::known::MOST;
use crate::base::policy::{IntoTtl, MAX_TTL};
use crate::call::tag::IntoTag;
use crate::call::{ambient, enclosing};
use crate::engine::Handle;
use crate::key::{KeyPart, KeyWriter};
use crate::protocol::generation::Dependency;
use crate::registry::{CallSite, Mistake};

/// Lets the body of a function under `#[cached(.., context = name)]` decide about its value, where
/// only the body knows: how long it is cached, and what else it depends on.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use cache_runtime::{Cache, CacheConfig, cached};
///
/// struct Rates { cache: Cache }
///
/// impl Rates {
///     #[cached(resource = "rates", ttl = "1h", context = load, cache = self.cache)]
///     async fn rate(&self, currency: &str) -> Result<f64, std::io::Error> {
///         let (rate, max_age) = (1.08, 60); // fetched from somewhere
///         if currency.len() != 3 {
///             load.no_store();
///         }
///         load.ttl(max_age);
///         Ok(rate)
///     }
/// }
/// # let rates = Rates { cache: Cache::new(CacheConfig::default().local_mb(4)).await };
/// # assert!(rates.rate("EUR").await.is_ok());
/// # }
/// ```
///
/// It has no effect if the value is not stored anyway, because the cache is off or another caller
/// stores it.
#[derive(Debug, Clone, Default)]
pub struct LoadContext(Arc<Mutex<LoadSettings>>);

#[derive(Debug, Default)]
struct LoadSettings {
    ttl: Option<Duration>,
    no_store: bool,
    /// In the order of their keys, like those of all readers of the entry.
    deps: BTreeSet<Arc<Dependency>>,
    /// The cache and the function that the body runs for; `None` if nothing is stored anyway.
    load: Option<(Handle, Option<&'static CallSite>)>,
}

impl LoadContext {
    #[doc(hidden)]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves the value for this long, instead of the attribute's `ttl`. An operator's
    /// `CACHE_TTL_<RESOURCE>` can shorten it. It applies to `None` as well, which is still served
    /// for no longer than the attribute's `none_ttl`, if there is one.
    pub fn ttl(&self, ttl: impl IntoTtl) {
        self.0.lock().ttl = ttl.into_ttl();
    }

    /// Does not store the value.
    pub fn no_store(&self) {
        self.0.lock().no_store = true;
    }

    /// Makes the entry depend on one row of another resource, which is known only during the load.
    /// A write of the row, or of the whole resource, invalidates the entry, as with
    /// `depends("authors", id = ..)` in the attribute.
    ///
    /// If the row was written since the load began, the value is not stored. This may be called
    /// before or after the body has read the row, and for up to about 128 rows; a value with more
    /// dependencies is not stored. `Some(id)` is the row `id`; of `None`, only writes of the whole
    /// resource, or by the id `None`, invalidate the entry.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use cache_runtime::{Cache, CacheConfig, cached, invalidates, observe};
    ///
    /// struct Blog { cache: Cache }
    ///
    /// impl Blog {
    ///     #[cached(resource = "articles", context = load, cache = self.cache)]
    ///     async fn article(&self, id: i64) -> (String, i64) {
    ///         let (title, author_id) = ("A title".to_owned(), 7); // from the database
    ///         load.depends_on("authors", author_id);
    ///         (title, author_id)
    ///     }
    ///
    ///     #[invalidates("authors", id = id, cache = self.cache)]
    ///     async fn rename(&self, id: i64, name: &str) { /* .. */ }
    /// }
    /// # let blog = Blog { cache: Cache::new(CacheConfig::default().local_mb(4)).await };
    /// # blog.article(1).await;
    /// # let (_, seen) = observe(blog.article(1)).await;
    /// # assert!(matches!(seen[0].status, cache_runtime::Status::Hit { .. }));
    /// # blog.rename(7, "Ada").await;
    /// # let (_, seen) = observe(blog.article(1)).await;
    /// # assert!(matches!(seen[0].status, cache_runtime::Status::Miss { .. }));
    /// # }
    /// ```
    pub fn depends_on<T: KeyPart>(&self, resource: &'static str, id: T) {
        // Not under the lock, since `id` may run the program's own code.
        let load = self.0.lock().load.clone();
        let Some((cache, site)) = load else {
            return;
        };
        let Some(resource) = cache.resource(resource) else {
            // Without the dependency, the entry would outlive the data that it was computed from.
            self.0.lock().no_store = true;
            if let Some(site) = site {
                site.report(Mistake::DependencyName, || {
                    format!("`{resource}` is not a resource name, so {site} can't depend on it and its value is not stored; use lower-case letters, digits, `-` and `_`")
                });
            }
            return;
        };
        let mut key = KeyWriter::default();
        let form = key.id(&id, &cache.space.hash_key);
        let fits = form.is_ok_and(|form| resource.fits(form, typeid::of::<T>(), site));
        // Written like the row's writers write it. If no writer would name the row by this id, the
        // entry depends on all rows.
        let learnt: Vec<_> = match ambient::front(&resource.contexts) {
            Ok(front) if fits => {
                let row = resource.row(&format!("{front}{}", key.text()));
                vec![Arc::clone(&resource.whole), row]
            }
            _ => all_of(&resource).into_iter().collect(),
        };
        enclosing::learns(&cache, &learnt);
        self.0.lock().adds(learnt);
    }

    /// Makes the entry depend on a tag, which is known only during the load, as with
    /// `tags("team:{..}")` in the attribute. See [`depends_on`](Self::depends_on). A tag is
    /// anything that implements `Display`, or an `Option` of that, of which `None` is no tag.
    ///
    /// ```
    /// # use cache_runtime::cached;
    /// #[cached(resource = "articles", context = load)]
    /// async fn article(id: i64) -> (String, Option<i64>) {
    ///     let (title, team) = ("A title".to_owned(), None::<i64>); // from the database
    ///     load.tag(format_args!("article-by:{id}"));
    ///     load.tag(team.map(|team| format!("team:{team}")));
    ///     (title, team)
    /// }
    /// # fn main() {}
    /// ```
    pub fn tag<Kind>(&self, tag: impl IntoTag<Kind>) {
        // Not under the lock, as above.
        let tag = tag.into_tag();
        let load = self.0.lock().load.clone();
        if let (Some((cache, _)), Some(tag)) = (load, tag) {
            let learnt = [tag_dep(&cache, &tag)];
            enclosing::learns(&cache, &learnt);
            self.0.lock().adds(learnt);
        }
    }

    /// A body is about to run for this call.
    pub(super) fn begin(&self, cache: &Handle, site: Option<&'static CallSite>) {
        self.0.lock().load = Some((cache.clone(), site));
    }

    /// The dependencies that the body has named.
    #[expect(clippy::mutable_key_type, reason = "ordered by their keys, which stay")]
    pub(super) fn named(&self) -> BTreeSet<Arc<Dependency>> {
        self.0.lock().deps.clone()
    }

    pub(super) fn is_no_store(&self) -> bool {
        self.0.lock().no_store
    }

    /// Returns the TTL that the body has set, limited to what the operator allows.
    pub(super) fn ttl_within(&self, operator: Option<Duration>) -> Option<Duration> {
        let ttl = self.0.lock().ttl?;
        Some(ttl.min(operator.unwrap_or(MAX_TTL)).min(MAX_TTL))
    }
}

impl LoadSettings {
    fn adds(&mut self, deps: impl IntoIterator<Item = Arc<Dependency>>) {
        self.deps.extend(deps);
        if self.deps.len() > MOST {
            self.no_store = true;
        }
    }
}
