//! Invalidations that take more than one step. A list that another process loads between two of
//! them must not outlive a row that it was made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cache_runtime::store::{RedisStore, Store};
use cache_runtime::{Acknowledgement, Cache, RedisConfig, cached, invalidates};
use cache_tests::{Mode, Proxy, RedisServer, eventually};
use futures_util::future::join;

use crate::{bounded, over, over_as, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// More than two steps take.
const AUTHORS: i64 = 600;

/// A node of a service whose authors are all written at once.
#[derive(Clone)]
struct Library {
    cache: Cache,
    version: Arc<AtomicU32>,
}

impl Library {
    fn new(cache: Cache) -> Self {
        Self {
            cache,
            version: Arc::default(),
        }
    }

    fn node(&self, cache: Cache) -> Self {
        Self {
            cache,
            version: Arc::clone(&self.version),
        }
    }

    /// Made of one author's row.
    #[cached(resource = "pages", depends("authors", id = author), cache = self.cache)]
    async fn page(&self, author: i64) -> u32 {
        self.version.load(Ordering::SeqCst)
    }

    /// Made of all of them.
    #[cached(resource = "shelves", op = "all", depends("authors"), cache = self.cache)]
    async fn shelf(&self, authors: i64) -> Vec<u32> {
        let mut shelf = Vec::new();
        for author in 1..=authors {
            shelf.push(self.page(author).await);
        }
        shelf
    }

    #[cached(resource = "authors", cache = self.cache)]
    async fn author(&self, id: i64) -> u32 {
        let _ = id;
        self.version.load(Ordering::SeqCst)
    }

    /// A list made of one row.
    #[cached(resource = "authors", op = "list", cache = self.cache)]
    async fn authors(&self) -> Vec<u32> {
        vec![self.author(1).await]
    }

    /// Made of one row too, which only its tag tells.
    #[cached(resource = "shelves", op = "tagged", tags("poets"), cache = self.cache)]
    async fn poets(&self) -> Vec<u32> {
        vec![self.author(1).await]
    }

    #[invalidates("authors", id = id, tags("poets"), cache = self.cache)]
    async fn rename(&self, id: i64) {
        let _ = id;
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    #[invalidates("authors", ids = 1..=authors, cache = self.cache)]
    async fn rewrite(&self, authors: i64) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    #[invalidates("orders", "authors", id = 1_i64, cache = self.cache)]
    async fn rewrite_and_order(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }
}

/// Runs `write` behind a gate until the list's generation is replaced, and that of a row is not.
/// Then the other node loads the list, and the write goes on.
async fn a_list_between_two_steps(
    server: &RedisServer,
    proxy: &Proxy,
    (writer, reader): (&Library, &Library),
    authors: i64,
    write: impl Future<Output = ()>,
) {
    let old = reader.shelf(authors).await;
    assert_eq!(old, vec![0; old.len()]);
    let generation = |name: &str| server.cli(&["GET", &format!("@gen:{name}")]);
    let rows = || {
        let rows = (1..=authors).map(|author| format!("@gen:authors~row:{author}"));
        let rows: Vec<_> = std::iter::once("MGET".to_owned()).chain(rows).collect();
        let rows: Vec<_> = rows.iter().map(String::as_str).collect();
        let rows = server.cli(&rows);
        rows.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (list, rows_before) = (generation("authors~derived"), rows());
    proxy.set(Mode::HoldAnswers);
    let between = async {
        while generation("authors~derived") == list {
            let passed = proxy.passed();
            proxy.pass_one();
            eventually(TEST_TIMEOUT, async || proxy.passed() > passed).await;
            // The next one that waits is the answer to what is sent now.
            eventually(TEST_TIMEOUT, async || proxy.held() > 0).await;
        }
        let rows = rows();
        let left = rows
            .iter()
            .zip(&rows_before)
            .filter(|(now, old)| now == old);
        assert!(left.count() > 0, "everything was replaced in one step");
        // It is loaded now, and some of it is from before the write.
        assert!(reader.shelf(authors).await.contains(&0));
        proxy.set(Mode::Pass);
    };
    join(write, between).await;
    // On a slow machine the write did not wait for the last step. What was refused is allowed now.
    server.cli(&["ACL", "SETUSER", "app", "on", "~*"]);
    eventually(TEST_TIMEOUT, async || {
        writer.cache.get_stats().await.counters.pending == 0
    })
    .await;
    let shelf = reader.shelf(authors).await;
    assert_eq!(
        shelf,
        vec![1; shelf.len()],
        "older than an acknowledged write"
    );
}

#[tokio::test]
async fn a_list_does_not_outlive_the_rows_of_many_keys() {
    bounded(async {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.port());
        let redis = RedisConfig::at("127.0.0.1", proxy.port());
        let writer = Library::new(Cache::new(over(&server).redis(redis)).await);
        let reader = writer.node(Cache::new(over(&server)).await);
        let write = writer.rewrite(AUTHORS);
        a_list_between_two_steps(&server, &proxy, (&writer, &reader), AUTHORS, write).await;
    })
    .await;
}

#[tokio::test]
async fn a_list_does_not_outlive_a_row_beside_a_key_that_is_refused() {
    bounded(async {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.port());
        let config = over_as(&server, "~@gen:probe* ~@gen:authors* ~authors:* &* +@all");
        let mut redis = RedisConfig::at("127.0.0.1", proxy.port());
        redis.username = Some("app".into());
        redis.password = Some("word".into());
        let writer = Library::new(Cache::new(config.redis(redis)).await);
        let reader = writer.node(Cache::new(over(&server)).await);
        let write = writer.rewrite_and_order();
        a_list_between_two_steps(&server, &proxy, (&writer, &reader), 1, write).await;
    })
    .await;
}

/// A node of a service with two resources, each of which has a list that is made of a row of the
/// other one, and does not depend on it.
#[derive(Clone)]
struct Crossed {
    cache: Cache,
    version: Arc<AtomicU32>,
}

impl Crossed {
    #[cached(resource = "lefts", cache = self.cache)]
    async fn left(&self, id: i64) -> u32 {
        let _ = id;
        self.version.load(Ordering::SeqCst)
    }

    #[cached(resource = "rights", cache = self.cache)]
    async fn right(&self, id: i64) -> u32 {
        let _ = id;
        self.version.load(Ordering::SeqCst)
    }

    #[cached(resource = "lefts", op = "list", cache = self.cache)]
    async fn lefts(&self) -> u32 {
        self.right(1).await
    }

    #[cached(resource = "rights", op = "list", cache = self.cache)]
    async fn rights(&self) -> u32 {
        self.left(1).await
    }

    async fn lists(&self) -> [u32; 2] {
        [self.lefts().await, self.rights().await]
    }
}

/// Enough for the walk over the keys to take many steps.
const FOREIGN_KEYS: u32 = 30_000;

#[tokio::test]
async fn a_list_does_not_outlive_the_rows_that_are_cleared_after_it() {
    bounded(async {
        // In which order the walk meets the generations follows from the server's seed: in one of
        // two, a list is cleared as a whole before the rows that it is made of.
        for _ in 0..16 {
            if was_loaded_between_two_steps().await {
                return;
            }
        }
        panic!("each walk met the generation of the rows first");
    })
    .await;
}

/// Clears everything step by step, and reads the lists as soon as one of them is cleared and its
/// rows are not. Returns false if there is no such moment.
async fn was_loaded_between_two_steps() -> bool {
    let server = RedisServer::start();
    let fill = "for i = 1, ARGV[1] do redis.call('SET', 'foreign:' .. i, '') end";
    server.cli(&["EVAL", fill, "0", &FOREIGN_KEYS.to_string()]);
    let proxy = Proxy::start(server.port());
    let redis = RedisConfig::at("127.0.0.1", proxy.port());
    let here = tokio::runtime::Handle::current();
    let writer = RedisStore::connect(&redis, &patient(), &here).await;
    let reader = Crossed {
        cache: Cache::new(over(&server)).await,
        version: Arc::default(),
    };
    assert_eq!(reader.lists().await, [0; 2]);
    let resources = ["lefts", "rights"];
    // What a list depends on; a row depends on the first of them.
    let generations = |of: &str| {
        ["", "~derived", "~op:list"].map(|which| server.cli(&["GET", &format!("@gen:{of}{which}")]))
    };
    let before = resources.map(generations);
    reader.version.store(1, Ordering::SeqCst);
    proxy.set(Mode::HoldAnswers);
    let is_over = AtomicBool::new(false);
    let clear = async {
        writer.invalidate_namespace("").await.expect("it is there");
        is_over.store(true, Ordering::SeqCst);
    };
    let steps = async {
        let mut was_between = false;
        while !is_over.load(Ordering::SeqCst) {
            let now = resources.map(generations);
            let is_cleared = |of: usize| (0..3).all(|which| before[of][which] != now[of][which]);
            let has_rows = |of: usize| before[of][0] == now[of][0];
            let list = (0..2).find(|list| is_cleared(*list) && has_rows(1 - list));
            if let (Some(list), false) = (list, was_between) {
                was_between = true;
                // It is loaded now, from a row that is still the old one.
                assert_eq!(reader.lists().await[list], 0);
            }
            let passed = proxy.passed();
            proxy.pass_one();
            eventually(TEST_TIMEOUT, async || {
                proxy.passed() > passed || is_over.load(Ordering::SeqCst)
            })
            .await;
            eventually(TEST_TIMEOUT, async || {
                proxy.held() > 0 || is_over.load(Ordering::SeqCst)
            })
            .await;
        }
        was_between
    };
    let ((), was_between) = join(clear, steps).await;
    let lists = reader.lists().await;
    assert_eq!(lists, [1; 2], "older than what was cleared");
    was_between
}

/// The user may write neither a row nor its whole resource, so its invalidation waits; what it may
/// write is replaced at once. What others load meanwhile is made of the old row, and ends when the
/// row does. So does what was written after the first refusal.
#[tokio::test]
async fn a_list_does_not_outlive_a_row_whose_invalidation_was_refused() {
    bounded(async {
        for writes in 1..=2 {
            let server = RedisServer::start();
            let rights = "%R~* ~@gen:probe* ~@gen:authors~* ~@gen:~* &* +@all";
            let reader = Library::new(Cache::new(over(&server)).await);
            let writer = reader.node(Cache::new(over_as(&server, rights)).await);
            eventually(TEST_TIMEOUT, async || writer.cache.is_available().await).await;
            if writes == 2 {
                let told = writer.cache.invalidate("authors", &1_i64).await;
                assert_eq!(told, Acknowledgement::Pending);
            }
            assert_eq!(reader.author(1).await, 0);
            writer.rename(1).await;
            assert!(writer.cache.get_stats().await.counters.pending > 0);
            let refused = server.refused("evalsha");
            eventually(TEST_TIMEOUT, async || {
                server.refused("evalsha") > refused + 9
            })
            .await;
            assert_eq!(reader.authors().await, [0], "the row was not refused");
            assert_eq!(reader.poets().await, [0], "the row was not refused");
            assert_eq!(server.cli(&["ACL", "SETUSER", "app", "~*"]), "OK");
            eventually(TEST_TIMEOUT, async || {
                writer.cache.get_stats().await.counters.pending == 0
            })
            .await;
            // Entries of `authors` may have been swept by now.
            assert_eq!(reader.poets().await, [1], "older than the row");
            assert_eq!(reader.authors().await, [1], "older than the row");
        }
    })
    .await;
}
