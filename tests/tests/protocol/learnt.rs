//! Dependencies that a load names while it runs: `load.depends_on("authors", id)`, `load.tag(..)`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_runtime::{
    Acknowledgement, Cache, Status, cache_defaults, cached, invalidates, key_of, observe,
};
use cache_tests::eventually;

use crate::shop::Gate;
use crate::{Pair, bounded, over_as, over_each_store};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

over_each_store! {
    a_row_that_a_load_has_named_ends_the_entry;
    all_rows_of_a_resource_end_it;
    a_tag_that_a_load_has_named_ends_the_entry;
    a_tag_may_be_none;
    a_row_may_be_none;
    a_row_written_by_op_ends_it;
    an_absence_may_depend_on_a_row;
    a_row_written_during_the_load_is_noticed;
    a_tag_invalidated_during_the_load_is_noticed;
    a_row_written_by_op_during_the_load_is_noticed;
    all_rows_written_during_the_load_are_noticed;
    another_row_written_during_the_load_costs_a_load;
    waiters_for_a_load_get_nothing_older_than_a_write_since;
    waiters_get_values_that_nobody_has_written_since;
    a_list_may_change_between_loads;
    a_list_may_become_empty;
    a_load_during_a_crash_safe_write_is_not_kept;
    a_write_sees_what_it_has_written_of_what_a_load_has_named;
    a_batch_reads_what_lists_more;
    a_batch_names_what_all_its_rows_depend_on;
    a_late_batch_is_not_served;
    a_manual_read_knows_of_it;
    a_refresh_names_anew;
    more_than_fit_are_not_stored;
    a_row_by_another_form_of_id_is_any_row;
}

#[derive(Debug, Default)]
struct Db {
    /// The author of each article.
    articles: Mutex<HashMap<i64, i64>>,
    /// How often each author was written.
    authors: Mutex<HashMap<i64, u32>>,
    loads: AtomicU32,
}

#[derive(Clone)]
struct Blog {
    cache: Cache,
    db: Arc<Db>,
    /// Where loads stand after they have read.
    gate: Option<Arc<Gate>>,
}

/// An article's author, and the author's version.
type Page = (i64, u32);

#[cache_defaults(resource = "articles", cache = self.cache, ttl = 300)]
impl Blog {
    fn new(pair: &Pair) -> (Self, Self) {
        let own = Self {
            cache: pair.a.clone(),
            db: Arc::default(),
            gate: None,
        };
        own.db
            .articles
            .lock()
            .expect("sound")
            .extend([(1, 7), (2, 8)]);
        let other = Self {
            cache: pair.b.clone(),
            ..own.clone()
        };
        (own, other)
    }

    fn gated(&self) -> (Self, Arc<Gate>) {
        let gate = Gate::new();
        let gated = Self {
            gate: Some(Arc::clone(&gate)),
            ..self.clone()
        };
        (gated, gate)
    }

    async fn load(&self, article: i64) -> Option<Page> {
        self.db.loads.fetch_add(1, Ordering::SeqCst);
        let author = self
            .db
            .articles
            .lock()
            .expect("sound")
            .get(&article)
            .copied();
        let page = author.map(|author| (author, self.version(author)));
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        page
    }

    fn version(&self, author: i64) -> u32 {
        let authors = self.db.authors.lock().expect("sound");
        authors.get(&author).copied().unwrap_or_default()
    }

    fn commit(&self, author: i64) {
        *self
            .db
            .authors
            .lock()
            .expect("sound")
            .entry(author)
            .or_default() += 1;
    }

    #[cached(context = load)]
    async fn get(&self, id: i64) -> Option<Page> {
        let page = self.load(id).await;
        // An absence hangs on the author of that number.
        let author = page.map_or(id, |(author, _)| author);
        if author != 0 {
            load.depends_on("authors", author);
        }
        page
    }

    #[cached(batch = ids)]
    async fn get_many(&self, ids: &[i64]) -> HashMap<i64, Page> {
        let mut pages = HashMap::new();
        for id in ids {
            if let Some(page) = self.load(*id).await {
                pages.insert(*id, page);
            }
        }
        pages
    }

    /// In a resource of its own, where each entry depends on the authors of all that were loaded.
    #[cached(resource = "pages", batch = ids, context = load)]
    async fn pages(&self, ids: &[i64]) -> HashMap<i64, Page> {
        let mut pages = HashMap::new();
        for id in ids {
            if let Some(page) = self.load(*id).await {
                load.depends_on("authors", page.0);
                pages.insert(*id, page);
            }
        }
        pages
    }

    #[cached(op = "tagged", context = load)]
    async fn tagged(&self, id: i64) -> Option<Page> {
        let page = self.load(id).await;
        let author = page.map(|(author, _)| author);
        load.tag(author.map_or(String::from("none"), |author| format!("author:{author}")));
        page
    }

    /// An article may have no author.
    #[cached(op = "perhaps-tagged", context = load)]
    async fn perhaps_tagged(&self, id: i64) -> Option<Page> {
        let page = self.load(id).await;
        let author = page.map(|(author, _)| author);
        load.tag(author.map(|author| format!("author:{author}")));
        page
    }

    #[cached(op = "perhaps", context = load)]
    async fn perhaps(&self, id: i64) -> Option<Page> {
        let page = self.load(id).await;
        load.depends_on("authors", page.map(|(author, _)| author));
        page
    }

    #[cached(op = "many", context = load)]
    async fn many(&self, rows: i64) -> i64 {
        self.db.loads.fetch_add(1, Ordering::SeqCst);
        for row in 0..rows {
            load.depends_on("authors", row);
        }
        rows
    }

    #[cached(op = "by-name", context = load)]
    async fn by_name(&self, name: &str) -> u32 {
        load.depends_on("authors", name);
        self.db.loads.fetch_add(1, Ordering::SeqCst)
    }

    #[cached(resource = "authors")]
    async fn author(&self, id: i64) -> u32 {
        self.version(id)
    }

    #[invalidates(id = id)]
    async fn give_to(&self, id: i64, author: i64) {
        self.db.articles.lock().expect("sound").insert(id, author);
    }

    #[invalidates("authors", id = id)]
    async fn rename(&self, id: i64) {
        self.commit(id);
    }

    #[invalidates("authors", id = id, ops("top"))]
    async fn rank(&self, id: i64) {
        self.commit(id);
    }

    #[invalidates("authors")]
    async fn rename_all(&self) {
        for id in [7, 8] {
            self.commit(id);
        }
    }

    #[invalidates(tags("author:{id}"))]
    async fn retag(&self, id: i64) {
        self.commit(id);
    }

    #[invalidates("authors", id = id, crash_safe)]
    async fn rename_slowly(&self, id: i64, gate: &Gate) {
        gate.pass().await;
        self.commit(id);
    }

    #[invalidates("authors", id = id)]
    async fn rename_and_read(&self, id: i64, article: i64) -> Option<Page> {
        self.commit(id);
        self.get(article).await
    }
}

/// Whether a call is a hit, and what it returns.
macro_rules! read {
    ($call:expr) => {{
        let (value, outcomes) = observe($call).await;
        (value, matches!(outcomes[0].status, Status::Hit { .. }))
    }};
}

async fn a_row_that_a_load_has_named_ends_the_entry(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    for version in 0..3 {
        assert_eq!(read!(blog.get(1)), (Some((7, version)), false));
        for _ in 0..3 {
            assert_eq!(read!(blog.get(1)), (Some((7, version)), true));
            assert_eq!(read!(other.get(1)), (Some((7, version)), true));
        }
        other.rename(8).await;
        assert_eq!(
            read!(blog.get(1)),
            (Some((7, version)), true),
            "another row"
        );
        other.rename(7).await;
    }
    assert_eq!(blog.db.loads.load(Ordering::SeqCst), 3);
    other.give_to(1, 7).await;
    assert_eq!(read!(blog.get(1)), (Some((7, 3)), false), "its own row");
}

async fn all_rows_of_a_resource_end_it(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.get(1).await;
    assert_eq!(read!(other.get(1)), (Some((7, 0)), true));
    other.rename_all().await;
    assert_eq!(read!(blog.get(1)), (Some((7, 1)), false));
    assert_eq!(read!(blog.get(1)), (Some((7, 1)), true));
}

async fn a_tag_that_a_load_has_named_ends_the_entry(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    for version in 0..3 {
        assert_eq!(read!(blog.tagged(1)), (Some((7, version)), false));
        assert_eq!(read!(blog.tagged(1)), (Some((7, version)), true));
        assert_eq!(read!(other.tagged(1)), (Some((7, version)), true));
        other.retag(8).await;
        assert_eq!(read!(blog.tagged(1)), (Some((7, version)), true));
        other.retag(7).await;
    }
}

async fn a_tag_may_be_none(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    assert_eq!(read!(blog.perhaps_tagged(1)), (Some((7, 0)), false));
    assert_eq!(read!(other.perhaps_tagged(1)), (Some((7, 0)), true));
    other.retag(7).await;
    assert_eq!(read!(blog.perhaps_tagged(1)), (Some((7, 1)), false));
    assert_eq!(read!(blog.perhaps_tagged(9)), (None, false));
    other.retag(9).await;
    for tag in ["", "author:", "author:None", "None"] {
        let _ = other.cache.invalidate_tag(tag).await;
    }
    assert_eq!(read!(blog.perhaps_tagged(9)), (None, true));
}

async fn a_row_may_be_none(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    // What the resource's ids are is known before, and known by this.
    for round in 0..2 {
        assert_eq!(read!(blog.perhaps(1)), (Some((7, round)), false));
        assert_eq!(read!(other.perhaps(1)), (Some((7, round)), true));
        other.rename(8).await;
        assert_eq!(read!(blog.perhaps(1)), (Some((7, round)), true));
        other.rename(7).await;
    }
    assert_eq!(read!(blog.perhaps(9)), (None, false));
    other.rename(9).await;
    assert_eq!(read!(blog.perhaps(9)), (None, true), "no row");
    other.rename_all().await;
    assert_eq!(read!(blog.perhaps(9)), (None, false));
}

async fn a_row_written_by_op_ends_it(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.get(1).await;
    assert!(read!(blog.get(1)).1);
    other.rank(7).await;
    assert_eq!(read!(blog.get(1)), (Some((7, 1)), false));
}

async fn an_absence_may_depend_on_a_row(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    assert_eq!(read!(blog.get(9)), (None, false));
    assert_eq!(read!(blog.get(9)), (None, true));
    assert_eq!(read!(other.get(9)), (None, true));
    other.rename(9).await;
    assert_eq!(read!(blog.get(9)), (None, false));
}

/// A load that has read, and stands at a gate while `write` runs. Then what others read is new.
async fn overtaken<W: Future<Output = ()>>(
    pair: Pair,
    read: impl AsyncFn(&Blog) -> Option<Page>,
    write: impl Fn(Blog) -> W,
) {
    let (blog, other) = Blog::new(&pair);
    // Each round the process knows more: nothing; the function; the entry's list.
    for round in 0..4 {
        let (late, gate) = blog.gated();
        let write = async {
            gate.arrival().await;
            write(other.clone()).await;
            gate.open();
        };
        let (old, ()) = futures_util::future::join(read(&late), write).await;
        assert_eq!(old, Some((7, round)), "it had read before");
        let (value, is_hit) = read!(read(&blog));
        assert_eq!((value, is_hit), (Some((7, round + 1)), false));
        // The list is known by now, and nobody writes.
        assert_eq!(read!(read(&blog)), (Some((7, round + 1)), true));
        assert_eq!(read!(read(&other)), (Some((7, round + 1)), true));
        if round % 2 == 0 {
            other.give_to(1, 7).await;
        } else {
            other.give_to(2, 8).await;
            other.rename(1_000).await;
            let _ = other.cache.invalidate("articles", &1).await;
        }
    }
}

async fn a_row_written_during_the_load_is_noticed(pair: Pair) {
    overtaken(
        pair,
        async |blog| blog.get(1).await,
        async |blog| blog.rename(7).await,
    )
    .await;
}

async fn a_tag_invalidated_during_the_load_is_noticed(pair: Pair) {
    overtaken(
        pair,
        async |blog| blog.tagged(1).await,
        async |blog| blog.retag(7).await,
    )
    .await;
}

async fn a_row_written_by_op_during_the_load_is_noticed(pair: Pair) {
    overtaken(
        pair,
        async |blog| blog.get(1).await,
        async |blog| blog.rank(7).await,
    )
    .await;
}

async fn all_rows_written_during_the_load_are_noticed(pair: Pair) {
    overtaken(
        pair,
        async |blog| blog.get(1).await,
        async |blog| blog.rename_all().await,
    )
    .await;
}

async fn another_row_written_during_the_load_costs_a_load(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    let (late, gate) = blog.gated();
    let write = async {
        gate.arrival().await;
        other.rename(8).await;
        gate.open();
    };
    let (page, ()) = futures_util::future::join(late.get(1), write).await;
    assert_eq!(page, Some((7, 0)));
    // Nobody could know which row it would name. The next load does before it begins.
    let (late, gate) = blog.gated();
    let write = async {
        gate.arrival().await;
        other.rename(8).await;
        gate.open();
    };
    futures_util::future::join(late.get(1), write).await;
    assert_eq!(read!(blog.get(1)), (Some((7, 0)), true));
}

async fn waiters_for_a_load_get_nothing_older_than_a_write_since(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    let (late, gate) = blog.gated();
    let load = cache_tests::spawn(async move { late.get(1).await });
    gate.arrival().await;
    other.rename(7).await;
    // They begin after the write was acknowledged, and meet the lease of the load.
    let readers: Vec<_> = [&blog, &other, &blog]
        .map(|blog| {
            let blog = blog.clone();
            cache_tests::spawn(async move { blog.get(1).await })
        })
        .into();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(load.await.expect("ran"), Some((7, 0)));
    for reader in readers {
        assert_eq!(reader.await.expect("ran"), Some((7, 1)));
    }
}

async fn waiters_get_values_that_nobody_has_written_since(pair: Pair) {
    let (blog, _) = Blog::new(&pair);
    let (late, gate) = blog.gated();
    let load = cache_tests::spawn(async move { late.get(1).await });
    gate.arrival().await;
    let readers: Vec<_> = (0..10)
        .map(|_| {
            let blog = blog.clone();
            cache_tests::spawn(async move { blog.get(1).await })
        })
        .collect();
    gate.open();
    assert_eq!(load.await.expect("ran"), Some((7, 0)));
    for reader in readers {
        assert_eq!(reader.await.expect("ran"), Some((7, 0)));
    }
    // Over Memcached, readers come while the value is verified, and load by themselves.
    if pair.memcached.is_none() {
        assert_eq!(blog.db.loads.load(Ordering::SeqCst), 1);
    }
}

async fn a_list_may_change_between_loads(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.get(1).await;
    assert!(read!(other.get(1)).1);
    for author in [8, 7, 8] {
        other.give_to(1, author).await;
        let version = blog.version(author);
        assert_eq!(read!(blog.get(1)), (Some((author, version)), false));
        assert_eq!(read!(other.get(1)), (Some((author, version)), true));
        // The author before.
        other.rename(15 - author).await;
        assert_eq!(read!(blog.get(1)), (Some((author, version)), true));
        other.rename(author).await;
        assert_eq!(read!(other.get(1)), (Some((author, version + 1)), false));
        assert_eq!(read!(blog.get(1)), (Some((author, version + 1)), true));
    }
}

async fn a_list_may_become_empty(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.get(1).await;
    assert!(read!(other.get(1)).1);
    other.give_to(1, 0).await;
    assert_eq!(read!(blog.get(1)), (Some((0, 0)), false));
    assert_eq!(read!(blog.get(1)), (Some((0, 0)), true));
    assert_eq!(read!(other.get(1)), (Some((0, 0)), true));
    other.rename(7).await;
    assert_eq!(read!(other.get(1)), (Some((0, 0)), true));
}

async fn a_load_during_a_crash_safe_write_is_not_kept(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    for round in 0..2 {
        let gate = Gate::new();
        let write = cache_tests::spawn({
            let (gate, other) = (Arc::clone(&gate), other.clone());
            async move { other.rename_slowly(7, &gate).await }
        });
        gate.arrival().await;
        for _ in 0..2 {
            assert_eq!(read!(blog.get(1)), (Some((7, round)), false));
        }
        gate.open();
        write.await.expect("ran");
        assert_eq!(read!(blog.get(1)), (Some((7, round + 1)), false));
        assert_eq!(read!(blog.get(1)), (Some((7, round + 1)), true));
    }
}

async fn a_write_sees_what_it_has_written_of_what_a_load_has_named(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.get(1).await;
    assert_eq!(other.rename_and_read(7, 1).await, Some((7, 1)));
    assert_eq!(blog.get(1).await, Some((7, 1)));
}

async fn a_batch_reads_what_lists_more(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    for id in [1, 2] {
        blog.get(id).await;
    }
    let loads = || blog.db.loads.load(Ordering::SeqCst);
    for blog in [&blog, &other] {
        let pages = blog.get_many(&[1, 2]).await;
        assert_eq!((pages[&1], pages[&2]), ((7, 0), (8, 0)));
    }
    assert_eq!(loads(), 2);
    other.rename(7).await;
    for blog in [&other, &blog] {
        let pages = blog.get_many(&[1, 2]).await;
        assert_eq!((pages[&1], pages[&2]), ((7, 1), (8, 0)));
    }
    assert_eq!(loads(), 3);
    // What the batch has stored depends on what was known of the entry.
    assert_eq!(read!(blog.get(1)), (Some((7, 1)), true));
    other.rename(7).await;
    assert_eq!(read!(blog.get(1)), (Some((7, 2)), false));
}

async fn a_batch_names_what_all_its_rows_depend_on(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    let loads = || blog.db.loads.load(Ordering::SeqCst);
    let mut version = 0;
    for write in [8, 7, 8] {
        let before = loads();
        blog.pages(&[1, 2]).await;
        assert_eq!(loads(), before + 2);
        for blog in [&blog, &other] {
            let pages = blog.pages(&[2, 1]).await;
            assert_eq!(pages[&1], (7, blog.version(7)));
            assert_eq!(pages[&2], (8, blog.version(8)));
        }
        assert_eq!(loads(), before + 2, "kept");
        other.rename(write).await;
        version += 1;
    }
    assert_eq!(blog.version(7) + blog.version(8), version);
}

async fn a_late_batch_is_not_served(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    for round in 0..3 {
        let (late, gate) = blog.gated();
        let write = async {
            gate.arrival().await;
            gate.open();
            gate.arrival().await;
            other.rename(7).await;
            gate.open();
        };
        let (old, ()) = futures_util::future::join(late.pages(&[1, 2]), write).await;
        assert_eq!(old[&1], (7, round));
        assert_eq!(blog.pages(&[1, 2]).await[&1], (7, round + 1));
        assert_eq!(other.pages(&[1, 2]).await[&1], (7, round + 1));
        other.rename_all().await;
        other.db.authors.lock().expect("sound").insert(7, round + 1);
    }
}

async fn a_manual_read_knows_of_it(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.get(1).await;
    let key = || key_of(blog.get(1)).expect("a key");
    let get = async || other.cache.get::<Page>(key()).await;
    assert_eq!(get().await, Some((7, 0)));
    assert_eq!(get().await, Some((7, 0)));
    blog.rename(7).await;
    assert_eq!(get().await, None);
    blog.get(1).await;
    assert_eq!(get().await, Some((7, 1)));
    assert!(other.cache.delete(key()).await.expect("deleted"));
    assert_eq!(get().await, None);
}

async fn a_refresh_names_anew(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.get(1).await;
    cache_runtime::refresh(other.get(1)).await;
    assert_eq!(read!(blog.get(1)), (Some((7, 0)), true));
    assert_eq!(blog.db.loads.load(Ordering::SeqCst), 2);
    blog.rename(7).await;
    assert_eq!(read!(other.get(1)), (Some((7, 1)), false));
}

async fn more_than_fit_are_not_stored(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.many(100).await;
    assert!(read!(blog.many(100)).1 && read!(other.many(100)).1);
    blog.many(1_000).await;
    assert!(!read!(blog.many(1_000)).1);
    other.rename(99).await;
    assert!(!read!(blog.many(100)).1);
}

async fn a_row_by_another_form_of_id_is_any_row(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.author(7).await;
    let first = blog.by_name("Ada").await;
    assert_eq!(read!(blog.by_name("Ada")), (first, true));
    other.rename(8).await;
    assert!(!read!(blog.by_name("Ada")).1);
}

/// A generation that Redis has dropped says nothing, and so ends what depends on it.
#[tokio::test]
async fn a_row_whose_generation_is_gone_ends_the_entry() {
    bounded(async {
        let pair = Pair::redis().await;
        let (blog, other) = Blog::new(&pair);
        blog.get(1).await;
        assert!(read!(other.get(1)).1);
        let server = pair._server.as_ref().expect("a server");
        assert_eq!(server.cli(&["DEL", "@gen:authors~row:7"]).trim(), "1");
        assert_eq!(read!(blog.get(1)), (Some((7, 0)), false));
        assert_eq!(read!(other.get(1)), (Some((7, 0)), true));
    })
    .await;
}

/// The writer may replace the tag's generation, and not that of all tags, by which loads notice it.
#[tokio::test]
async fn a_tag_waits_for_the_generation_of_all_tags() {
    bounded(async {
        let pair = Pair::redis().await;
        let (blog, _) = Blog::new(&pair);
        let server = pair._server.as_ref().expect("a server");
        let rights = "~@gen:probe* ~@gen:~author* &* +@all";
        let limited = Cache::new(over_as(server, rights)).await;
        // While this one waits, each of the next is sent once, and then only what was refused of
        // it.
        let told = limited.invalidate("authors", &1_i64).await;
        assert_eq!(told, Acknowledgement::Pending);
        let generation = || server.cli(&["GET", "@gen:~author%3A7"]);
        let before = generation();
        let (late, gate) = blog.gated();
        let write = async {
            gate.arrival().await;
            blog.commit(7);
            let told = limited.invalidate_tag("author:7").await;
            assert_eq!(told, Acknowledgement::Pending);
            assert_eq!(generation(), before, "the tag waits");
            gate.open();
        };
        let (old, ()) = futures_util::future::join(late.tagged(1), write).await;
        assert_eq!(old, Some((7, 0)), "it had read before");
        server.cli(&["ACL", "SETUSER", "app", "~*"]);
        eventually(TEST_TIMEOUT, async || {
            limited.get_stats().await.counters.pending == 0
        })
        .await;
        assert_eq!(read!(blog.tagged(1)), (Some((7, 1)), false));
    })
    .await;
}

/// A hit is one command; the first read of a process that does not know the list is two.
#[tokio::test]
async fn a_hit_is_one_round_trip() {
    bounded(async {
        let pair = Pair::redis().await;
        let (blog, other) = Blog::new(&pair);
        blog.get(1).await;
        let server = pair._server.as_ref().expect("a server");
        let reads = || {
            let stats = server.cli(&["INFO", "commandstats"]);
            let line = stats.lines().find(|line| line.starts_with("cmdstat_mget:"));
            let calls = line.and_then(|line| line.split(['=', ',']).nth(1));
            calls
                .and_then(|calls| calls.parse::<u32>().ok())
                .unwrap_or(0)
        };
        for (node, expected) in [(&other, 2), (&other, 1), (&blog, 1)] {
            let before = reads();
            assert!(read!(node.get(1)).1);
            assert_eq!(reads() - before, expected);
        }
    })
    .await;
}

/// What people see of it in Redis.
#[tokio::test]
async fn an_entry_lists_what_it_depends_on() {
    bounded(async {
        let pair = Pair::redis().await;
        let (blog, _) = Blog::new(&pair);
        blog.get(1).await;
        let server = pair._server.as_ref().expect("a server");
        let entry = server.cli(&["GET", "articles:1"]);
        let lines: Vec<&str> = entry.lines().collect();
        assert!(lines[0].starts_with("CRT1 e V j "), "{entry}");
        assert_eq!(lines[1..3], ["authors authors~row:7", "[7,0]"], "{entry}");
    })
    .await;
}

/// A program that reads a resource and does not write it: others do.
struct Reader(Cache);

impl Reader {
    #[cached(resource = "only-read", cache = self.0)]
    async fn get(&self, id: i64) -> i64 {
        id
    }

    #[cached(resource = "readers", context = load, cache = self.0)]
    async fn shows(&self, id: i64) -> i64 {
        load.depends_on("only-read", id);
        id
    }
}

#[tokio::test]
async fn a_first_load_may_name_a_resource_that_nobody_has_read() {
    let cache = Pair::memory().await.a;
    let reader = Reader(cache.clone());
    reader.shows(1).await;
    let (_, outcomes) = observe(reader.shows(1)).await;
    assert!(
        matches!(outcomes[0].status, Status::Hit { .. }),
        "{outcomes:?}"
    );
    let _ = cache.invalidate("only-read", &1_i64).await;
    let (_, outcomes) = observe(reader.shows(1)).await;
    assert!(
        matches!(outcomes[0].status, Status::Miss { .. }),
        "{outcomes:?}"
    );
    assert_eq!(reader.get(1).await, 1);
}
