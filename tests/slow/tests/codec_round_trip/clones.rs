//! A hit from memory is a clone of what is kept. So a clone has to be the whole value, and what one
//! caller does with its own must not reach others.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use cache_runtime::{Cache, cached};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::{NOT_STORED, STORED, Tiers, is_hit, status};

/// Its clones forget the draft.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    text: String,
    draft: Option<String>,
}

impl Clone for Page {
    fn clone(&self) -> Self {
        let text = self.text.clone();
        Self { text, draft: None }
    }
}

/// The same, and nothing but what is written shows it.
#[derive(Serialize, Deserialize)]
struct Silent(Page);

impl Clone for Silent {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

fn page() -> Page {
    let draft = Some("new".into());
    Page {
        text: "old".into(),
        draft,
    }
}

#[cached(resource = "pages", cache = cache, skip(cache))]
async fn pages(cache: &Cache) -> Vec<Page> {
    vec![page()]
}

#[cached(resource = "silent-pages", cache = cache, skip(cache))]
async fn silent(cache: &Cache) -> Option<Silent> {
    Some(Silent(page()))
}

#[tokio::test]
async fn a_value_whose_clone_is_another_one_is_not_kept() {
    for (tier, cache) in Tiers::new().await.all() {
        for _ in 0..2 {
            let (kept, value) = status(pages(&cache)).await;
            assert_eq!((kept, value), (NOT_STORED, vec![page()]), "{tier}");
            let (kept, value) = status(silent(&cache)).await;
            let draft = value.and_then(|page| page.0.draft);
            assert_eq!(
                (kept, draft.as_deref()),
                (NOT_STORED, Some("new")),
                "{tier}"
            );
        }
    }
}

/// A text that is another one each time proves nothing.
#[derive(PartialEq, Clone, Serialize, Deserialize)]
struct Numbered(u8);

impl std::fmt::Debug for Numbered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        thread_local!(static SHOWN: Cell<u64> = const { Cell::new(0) });
        SHOWN.set(SHOWN.get() + 1);
        write!(f, "{} for the {}. time", self.0, SHOWN.get())
    }
}

#[cached(resource = "numbered-clones", cache = cache, skip(cache))]
async fn numbered(cache: &Cache) -> Numbered {
    Numbered(1)
}

#[tokio::test]
async fn a_text_that_is_new_each_time_is_no_difference() {
    for (tier, cache) in Tiers::new().await.all() {
        assert_eq!(status(numbered(&cache)).await.0, STORED, "{tier}");
        assert!(is_hit(status(numbered(&cache)).await.0), "{tier}");
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Counter(Arc<AtomicU8>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Basket {
    id: u8,
    items: Option<Arc<RwLock<Vec<u8>>>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Totals {
    of: Mutex<u8>,
}

impl Basket {
    /// How many there were.
    fn add_item(&self) -> usize {
        let items = self.items.as_ref().expect("items");
        let mut items = items.write().expect("no panic");
        items.push(self.id);
        items.len() - 1
    }
}

impl Totals {
    /// What there was.
    fn add_one(&self) -> u8 {
        let mut of = self.of.lock().expect("no panic");
        *of += 1;
        *of - 1
    }
}

/// With a field that serde skips, and that a new value has.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Remembers {
    id: u8,
    #[serde(skip)]
    answers: Arc<Mutex<Vec<u8>>>,
}

/// One that is its own in each clone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Lazy {
    id: u8,
    #[serde(skip)]
    parsed: OnceLock<u8>,
}

#[cached(resource = "remembers", cache = cache, skip(cache))]
async fn remembers(cache: &Cache) -> Vec<Remembers> {
    vec![Remembers::default()]
}

#[cached(resource = "lazy", cache = cache, skip(cache))]
async fn lazy(cache: &Cache) -> Lazy {
    Lazy::default()
}

#[cached(resource = "counters", cache = cache, skip(cache))]
async fn counter(cache: &Cache) -> Counter {
    Counter(Arc::default())
}

#[cached(resource = "baskets", cache = cache, skip(cache))]
async fn baskets(cache: &Cache) -> BTreeMap<u8, Basket> {
    let items = Some(Arc::default());
    [(1, Basket { id: 1, items })].into()
}

#[cached(resource = "totals", cache = cache, skip(cache))]
async fn totals(cache: &Cache) -> Option<Vec<Arc<Totals>>> {
    let of = Mutex::new(0);
    Some(vec![Arc::new(Totals { of })])
}

#[tokio::test]
async fn what_clones_share_is_not_kept() {
    for (tier, cache) in Tiers::new().await.all() {
        for _ in 0..3 {
            let (kept, value) = status(counter(&cache)).await;
            assert_eq!(value.0.fetch_add(1, Ordering::SeqCst), 0, "{tier}");
            assert_eq!(kept, NOT_STORED, "{tier}");
            let (kept, value) = status(baskets(&cache)).await;
            let found = value[&1].add_item();
            assert_eq!((kept, found), (NOT_STORED, 0), "{tier}");
            let (kept, value) = status(totals(&cache)).await;
            let found = value.expect("totals")[0].add_one();
            assert_eq!((kept, found), (NOT_STORED, 0), "{tier}");
            let (kept, value) = status(remembers(&cache)).await;
            let mut found = value[0].answers.lock().expect("no panic");
            assert_eq!((kept, found.len()), (NOT_STORED, 0), "{tier}");
            found.push(1);
        }
        for _ in 0..3 {
            let (kept, value) = status(lazy(&cache)).await;
            assert!(kept == STORED || is_hit(kept), "{tier}");
            assert_eq!(value.parsed.set(1), Ok(()), "{tier}");
        }
    }
}

/// Its loads go on once the test lets them.
struct Slow {
    cache: Cache,
    begun: Semaphore,
    goes_on: Semaphore,
}

impl Slow {
    fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            begun: Semaphore::new(0),
            goes_on: Semaphore::new(0),
        }
    }

    async fn takes_its_time(&self) {
        self.begun.add_permits(1);
        self.goes_on.acquire().await.expect("it is open").forget();
    }

    #[cached(resource = "slow-pages", cache = self.cache)]
    async fn page(&self) -> Page {
        self.takes_its_time().await;
        page()
    }

    #[cached(resource = "slow-counters", cache = self.cache)]
    async fn counter(&self) -> Option<Counter> {
        self.takes_its_time().await;
        Some(Counter(Arc::default()))
    }

    #[cached(resource = "slow-batches", batch = ids, cache = self.cache)]
    async fn counters(&self, ids: Vec<u8>) -> BTreeMap<u8, Counter> {
        self.takes_its_time().await;
        let counters = ids.into_iter().map(|id| (id, Counter(Arc::default())));
        counters.collect()
    }

    /// The results of three calls at the same time, two of which wait for the load of the first
    /// one, if they may.
    async fn three<T>(&self, call: impl AsyncFn() -> T) -> [T; 3] {
        let open = async {
            self.begun.acquire().await.expect("it is open").forget();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            self.goes_on.add_permits(100);
        };
        let (one, other, last, ()) = tokio::join!(call(), call(), call(), open);
        let left = self.goes_on.available_permits();
        self.goes_on.forget_permits(left);
        self.begun.forget_permits(self.begun.available_permits());
        [one, other, last]
    }
}

#[tokio::test]
async fn callers_that_wait_for_a_load_get_what_it_has_returned() {
    for (tier, cache) in Tiers::verifying_a_few().await.all() {
        let slow = Slow::new(&cache);
        for _ in 0..2 {
            let pages = slow.three(async || slow.page().await).await;
            assert_eq!(pages, [page(), page(), page()], "{tier}");
            for counter in slow.three(async || slow.counter().await).await {
                let counter = counter.expect("a counter");
                assert_eq!(counter.0.fetch_add(1, Ordering::SeqCst), 0, "{tier}");
            }
            for counters in slow.three(async || slow.counters(vec![1, 2]).await).await {
                for counter in counters.values() {
                    assert_eq!(counter.0.fetch_add(1, Ordering::SeqCst), 0, "{tier}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_request_remembers_what_the_function_has_returned() {
    for (tier, cache) in Tiers::verifying_a_few().await.all() {
        let twice = async { (pages(&cache).await, pages(&cache).await) };
        let (one, other) = cache.request(twice).await;
        assert_eq!((one, other), (vec![page()], vec![page()]), "{tier}");
    }
}
