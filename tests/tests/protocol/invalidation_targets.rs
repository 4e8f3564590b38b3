//! Invalidations of many rows and of single ops, entries that depend on a row of another resource,
//! tags that may be absent, options of a whole block, and several attributes on one function.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cache_runtime::{Cache, Status, cache, cache_defaults, cached, invalidates, observe};

use crate::shop::Gate;
use crate::{Pair, over_each_store};

over_each_store! {
    many_rows_are_invalidated_together;
    rows_are_read_from_the_result;
    no_rows_are_not_all_rows;
    more_rows_than_are_counted_are_all;
    only_these_ops_are_invalidated;
    a_row_and_only_these_ops;
    a_write_of_an_op_reaches_what_depends_on_the_resource;
    the_whole_resource_ends_ops_too;
    a_late_load_is_not_served_after_the_invalidation_of_its_op;
    a_row_of_another_resource_ends_what_depends_on_it;
    a_late_load_is_not_served_after_a_write_of_the_row_it_depends_on;
    a_crash_safe_write_holds_off_what_depends_on_its_row;
    a_write_sees_what_depends_on_its_row;
    a_row_by_another_form_of_id_is_all_rows;
    a_tag_may_be_absent;
    several_writes_are_said_of_one_function;
    a_scope_stands_in_for_the_process;
}

/// Counts its loads, of which those of a page can be held.
#[derive(Clone)]
struct Blog {
    cache: Cache,
    loads: Arc<AtomicU32>,
    gate: Option<Arc<Gate>>,
}

type Failure = &'static str;

#[cache_defaults(resource = "articles", cache = self.cache, ttl = 300)]
impl Blog {
    fn new(pair: &Pair) -> (Self, Self) {
        let own = Self {
            cache: pair.a.clone(),
            loads: Arc::default(),
            gate: None,
        };
        let other = Self {
            cache: pair.b.clone(),
            ..own.clone()
        };
        (own, other)
    }

    async fn load(&self) -> u32 {
        let loads = self.loads.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        loads
    }

    #[cached]
    async fn get(&self, id: i64) -> u32 {
        let _ = id;
        self.load().await
    }

    #[cached(op = "list")]
    async fn list(&self, limit: u32) -> u32 {
        let _ = limit;
        self.load().await
    }

    #[cached(op = "count:drafts")]
    async fn count(&self) -> u32 {
        self.load().await
    }

    #[cached]
    async fn recent(&self) -> u32 {
        self.load().await
    }

    /// An article with its author's name.
    #[cached(op = "page", depends("authors", id = author_id))]
    async fn page(&self, article: i64, author_id: i64) -> u32 {
        let _ = (article, author_id);
        self.load().await
    }

    #[cached(op = "by-name", depends("authors", id = name))]
    async fn by_name(&self, name: &str) -> u32 {
        let _ = name;
        self.load().await
    }

    /// Shows the articles, of which it knows nothing more.
    #[cached(resource = "shelves", op = "shelf", depends("articles"))]
    async fn shelf(&self, id: i64) -> u32 {
        let _ = id;
        self.load().await
    }

    #[cached(resource = "authors")]
    async fn author(&self, id: i64) -> u32 {
        let _ = id;
        self.load().await
    }

    #[cached(op = "of-team", tags("team:{team}"))]
    async fn of_team(&self, team: Option<i64>) -> u32 {
        let _ = team;
        self.load().await
    }

    #[cached(op = "tagged", tags(tag.as_deref(), team.map(|team| format!("team:{team}"))))]
    async fn tagged(&self, tag: Option<String>, team: Option<i64>) -> u32 {
        let _ = (tag, team);
        self.load().await
    }

    #[invalidates(ids = ids)]
    async fn publish(&self, ids: &[i64]) {
        let _ = ids;
    }

    #[invalidates("articles", ids = ids)]
    async fn publish_set(&self, ids: HashSet<i64>) -> Result<(), Failure> {
        drop(ids);
        Ok(())
    }

    #[invalidates(ids = result.iter().map(|(id, _)| id))]
    async fn import(&self, ids: &[i64]) -> Result<Vec<(i64, String)>, Failure> {
        match ids {
            [] => Err("nothing there"),
            ids => Ok(ids.iter().map(|id| (*id, String::new())).collect()),
        }
    }

    #[invalidates(ops("list", "recent"))]
    async fn reorder(&self) {}

    #[invalidates(id = id, ops("count:drafts"))]
    async fn draft(&self, id: i64) {
        let _ = id;
    }

    #[invalidates]
    async fn clear(&self) {}

    #[invalidates("authors", id = id)]
    async fn rename(&self, id: i64) -> u32 {
        self.page(1, id).await
    }

    #[invalidates("authors", id = id, crash_safe)]
    async fn rename_slowly(&self, id: i64, gate: &Gate) {
        let _ = id;
        gate.pass().await;
    }

    #[invalidates("authors")]
    async fn rename_all(&self) {}

    #[invalidates(tags("team:{team}"))]
    async fn rename_team(&self, team: Option<i64>) {
        let _ = team;
    }

    #[invalidates(id = id)]
    #[invalidates("authors", id = author)]
    async fn write(&self, id: i64, author: i64) -> Result<(), Failure> {
        let _ = (id, author);
        Ok(())
    }
}

/// Whether a second call is a hit, on either node.
macro_rules! kept {
    ($($call:expr),*) => { [$({
        let (_, outcomes) = observe($call).await;
        matches!(outcomes[0].status, Status::Hit { .. })
    }),*] };
}

async fn many_rows_are_invalidated_together(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    for id in 1..=3 {
        blog.get(id).await;
    }
    blog.list(1).await;
    assert_eq!(kept!(blog.get(1), other.get(2), blog.list(1)), [true; 3]);
    other.publish(&[1, 2]).await;
    assert_eq!(
        kept!(blog.get(1), blog.get(2), blog.get(3), blog.list(1)),
        [false, false, true, false]
    );
    let ids: HashSet<i64> = (1..=1_000).collect();
    other.publish_set(ids).await.expect("written");
    assert_eq!(kept!(blog.get(1), blog.get(3)), [false; 2]);
}

async fn rows_are_read_from_the_result(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    for id in 1..=3 {
        blog.get(id).await;
    }
    other.import(&[1, 2]).await.expect("written");
    assert_eq!(
        kept!(blog.get(1), blog.get(2), blog.get(3)),
        [false, false, true]
    );
    other.import(&[]).await.expect_err("refused");
    assert_eq!(kept!(blog.get(3)), [false], "nobody knows which rows");
}

async fn no_rows_are_not_all_rows(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.get(1).await;
    blog.list(1).await;
    other.publish(&[]).await;
    assert_eq!(kept!(blog.get(1), blog.list(1)), [true, false]);
}

async fn more_rows_than_are_counted_are_all(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.get(100_000).await;
    other.publish(&(0..4_096).collect::<Vec<_>>()).await;
    assert_eq!(kept!(blog.get(100_000)), [true]);
    other.publish(&(0..5_000).collect::<Vec<_>>()).await;
    assert_eq!(kept!(blog.get(100_000)), [false]);
}

async fn only_these_ops_are_invalidated(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.get(1).await;
    blog.list(1).await;
    blog.count().await;
    blog.recent().await;
    assert_eq!(kept!(other.list(1), other.recent()), [true; 2]);
    other.reorder().await;
    assert_eq!(
        kept!(blog.get(1), blog.list(1), blog.count(), blog.recent()),
        [true, false, true, false]
    );
}

async fn a_row_and_only_these_ops(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.get(1).await;
    blog.get(2).await;
    blog.list(1).await;
    blog.count().await;
    other.draft(1).await;
    assert_eq!(
        kept!(blog.get(1), blog.get(2), blog.list(1), blog.count()),
        [false, true, true, false]
    );
}

async fn a_write_of_an_op_reaches_what_depends_on_the_resource(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    for write in 0..4 {
        blog.shelf(1).await;
        assert_eq!(kept!(blog.shelf(1)), [true]);
        match write {
            0 => other.draft(1).await,
            1 => other.reorder().await,
            2 => other.publish(&[1]).await,
            _ => other.clear().await,
        }
        assert_eq!(kept!(blog.shelf(1)), [false], "write {write}");
    }
}

async fn the_whole_resource_ends_ops_too(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.list(1).await;
    other.clear().await;
    assert_eq!(kept!(blog.list(1)), [false]);
    other.publish(&[7]).await;
    assert_eq!(kept!(blog.list(1)), [false]);
}

async fn a_late_load_is_not_served_after_the_invalidation_of_its_op(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    let gate = Gate::new();
    let late = Blog {
        gate: Some(Arc::clone(&gate)),
        ..blog.clone()
    };
    let load = cache_tests::spawn(async move { late.list(1).await });
    gate.arrival().await;
    other.reorder().await;
    gate.open();
    load.await.expect("ran");
    assert_eq!(kept!(blog.list(1)), [false]);
}

async fn a_row_of_another_resource_ends_what_depends_on_it(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.author(1).await;
    blog.page(1, 7).await;
    blog.page(2, 8).await;
    assert_eq!(kept!(other.page(1, 7), other.page(2, 8)), [true; 2]);
    other.rename(7).await;
    assert_eq!(
        kept!(blog.page(1, 7), blog.page(2, 8), blog.author(1)),
        [false, true, true]
    );
    other.rename_all().await;
    assert_eq!(kept!(blog.page(1, 7), blog.page(2, 8)), [false; 2]);
    // A write of the article itself.
    other.publish(&[1]).await;
    assert_eq!(kept!(blog.page(1, 7)), [false]);
}

async fn a_late_load_is_not_served_after_a_write_of_the_row_it_depends_on(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    let gate = Gate::new();
    let late = Blog {
        gate: Some(Arc::clone(&gate)),
        ..blog.clone()
    };
    let load = cache_tests::spawn(async move { late.page(1, 7).await });
    gate.arrival().await;
    other.write(2, 7).await.expect("written");
    gate.open();
    load.await.expect("ran");
    assert_eq!(kept!(blog.page(1, 7)), [false]);
}

async fn a_crash_safe_write_holds_off_what_depends_on_its_row(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    let gate = Gate::new();
    let write = cache_tests::spawn({
        let gate = Arc::clone(&gate);
        async move { other.rename_slowly(7, &gate).await }
    });
    gate.arrival().await;
    // Nobody had depended on the row when the write was announced.
    assert_eq!(kept!(blog.page(1, 7), blog.page(1, 7)), [false; 2]);
    assert_eq!(kept!(blog.page(2, 8), blog.page(2, 8)), [false, true]);
    gate.open();
    write.await.expect("ran");
    assert_eq!(kept!(blog.page(1, 7), blog.page(1, 7)), [false, true]);
}

async fn a_write_sees_what_depends_on_its_row(pair: Pair) {
    let (blog, _) = Blog::new(&pair);
    let before = blog.page(1, 7).await;
    assert_ne!(blog.rename(7).await, before, "it reads inside its body");
}

async fn a_row_by_another_form_of_id_is_all_rows(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.author(1).await;
    blog.by_name("7").await;
    assert_eq!(kept!(blog.by_name("7")), [true]);
    other.rename(8).await;
    assert_eq!(kept!(blog.by_name("7")), [false], "names are no ids");
}

async fn a_tag_may_be_absent(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.of_team(None).await;
    blog.of_team(Some(1)).await;
    blog.tagged(None, None).await;
    blog.tagged(Some("team:1".into()), None).await;
    blog.tagged(None, Some(1)).await;
    other.rename_team(None).await;
    assert_eq!(kept!(blog.of_team(None), blog.of_team(Some(1))), [true; 2]);
    other.rename_team(Some(1)).await;
    assert_eq!(
        kept!(blog.of_team(None), blog.of_team(Some(1))),
        [true, false]
    );
    assert_eq!(
        kept!(
            blog.tagged(None, None),
            blog.tagged(Some("team:1".into()), None),
            blog.tagged(None, Some(1))
        ),
        [true, false, false]
    );
}

async fn several_writes_are_said_of_one_function(pair: Pair) {
    let (blog, other) = Blog::new(&pair);
    blog.get(1).await;
    blog.get(2).await;
    blog.author(7).await;
    blog.author(8).await;
    other.write(1, 7).await.expect("written");
    assert_eq!(
        kept!(blog.get(1), blog.get(2), blog.author(7), blog.author(8)),
        [false, true, false, true]
    );
}

#[cached(resource = "numbers")]
async fn number(id: i64) -> i64 {
    id
}

#[invalidates("numbers", id = id)]
async fn renumber(id: i64) {
    let _ = id;
}

async fn a_scope_stands_in_for_the_process(pair: Pair) {
    let in_scope = async {
        number(1).await;
        let kept = kept!(number(1));
        renumber(1).await;
        (kept, kept!(number(1)), cache().is_enabled())
    };
    assert_eq!(pair.a.scope(in_scope).await, ([true], [false], true));
    assert!(!cache().is_enabled(), "the process has none");
    let nested = pair.b.scope(pair.a.scope(async { cache().is_enabled() }));
    assert!(nested.await);
}
