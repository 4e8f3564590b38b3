//! Calls inside bodies: a write sees what it has written, and a load does not wait for itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use cache_runtime::{
    BypassReason, Cache, Status, bypass, cached, inherit, inherit_blocking, invalidates, key_of,
    observe, refresh,
};
use cache_tests::{RedisServer, eventually};
use tokio::sync::{mpsc, oneshot};

use crate::shop::{DbError, Gate, Shop};
use crate::{Boxed, Pair, bounded, over, over_each_store, patient};

over_each_store! {
    a_write_sees_what_it_has_written;
    changes_read_and_rolled_back_by_a_write_are_seen_by_nobody;
    a_body_bars_nobody_beside_it;
    a_write_inside_a_write_bars_for_both;
    values_loaded_inside_a_write_are_kept_for_nobody;
    nothing_old_is_served_right_after_a_write_was_dropped;
    a_write_waits_for_no_load_that_may_have_begun_before_it;
    a_write_sees_what_it_has_written_in_tasks_that_inherit_it;
    tasks_inherit_what_is_around_them;
    a_task_that_outlives_a_load_is_no_part_of_it;
    a_task_that_outlives_a_write_is_no_part_of_it;
    a_task_that_outlives_a_write_inside_of_another_is_part_of_that;
    a_task_goes_on_with_a_write_that_was_dropped;
    a_task_that_outlives_a_request_is_no_part_of_it;
}

struct Desk<'s>(&'s Shop);

impl Desk<'_> {
    fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// Writes, then reads in each way there is, as one does for a response.
    #[invalidates("users", id = id, tags("page:0"), cache = self.cache())]
    async fn rename_and_read(&self, id: i64, name: &str) -> Vec<(String, Status)> {
        let shop = self.0;
        shop.commit(id, name);
        let (row, of_row) = observe(shop.get(id)).await;
        let (list, of_list) = observe(shop.list(0, 1)).await;
        let (many, of_many) = observe(shop.get_many(&[id])).await;
        let (page, of_page) = observe(shop.page(0)).await;
        let by_hand = shop
            .cache
            .get_or_load(format!("users:{id}"), None, async || shop.get(id).await);
        let (loaded, of_loaded) = observe(by_hand).await;
        assert_eq!(
            shop.cache
                .get::<crate::shop::User>(format!("users:{id}"))
                .await,
            None
        );
        vec![
            (row.expect("read").expect("there").name, of_row[0].status),
            (list.expect("read").remove(0).name, of_list[0].status),
            (many.expect("read")[&id].name.clone(), of_many[0].status),
            (page.expect("read").remove(0).name, of_page[0].status),
            (
                loaded.expect("read").expect("there").name,
                of_loaded[0].status,
            ),
        ]
    }

    /// Reads in a task, in a task of a task and in a thread.
    #[invalidates("users", id = id, cache = self.cache())]
    async fn rename_and_read_in_tasks(&self, id: i64, name: &str) -> Vec<(String, Status)> {
        self.0.commit(id, name);
        let read = move |shop: Shop| async move {
            let (row, outcomes) = observe(shop.get(id)).await;
            let name = row.expect("read").expect("there").name;
            (name, outcomes[0].status)
        };
        let one = tokio::spawn(inherit(read(self.0.clone())));
        let shop = self.0.clone();
        let other = async move { tokio::spawn(inherit(read(shop))).await.expect("read") };
        let other = tokio::spawn(inherit(other));
        let (shop, runtime) = (self.0.clone(), tokio::runtime::Handle::current());
        let thread = inherit_blocking(move || runtime.block_on(read(shop)));
        let thread = tokio::task::spawn_blocking(thread);
        let mut seen = Vec::new();
        for task in [one, other, thread] {
            seen.push(task.await.expect("read"));
        }
        seen
    }

    #[invalidates("users", id = id, rejected = |error| *error == DbError::Refused, cache = self.cache())]
    async fn rename_and_roll_back(&self, id: i64) -> Result<String, DbError> {
        let before = self.0.name(id).await;
        self.0.commit(id, "99");
        assert_eq!(
            self.0.name(id).await,
            "99",
            "a write sees what it has written"
        );
        self.0.commit(id, &before);
        Err(DbError::Refused)
    }

    #[invalidates("users", id = id, cache = self.cache())]
    async fn rename_by_another(&self, id: i64, other: i64) -> (Status, &'static str) {
        let (_, outcomes) = observe(self.0.get(other)).await;
        self.0.commit(id, "new");
        (outcomes[0].status, outcomes[0].store)
    }

    #[invalidates("users", id = id, cache = self.cache())]
    async fn rename_at(&self, id: i64, gate: &Gate) {
        self.0.commit(id, "new");
        gate.pass().await;
        assert_eq!(self.0.name(id).await, "new");
    }

    #[invalidates("users", id = id, cache = self.cache())]
    async fn rename_and_never_end(&self, id: i64, name: &str) {
        self.0.commit(id, name);
        std::future::pending::<()>().await;
    }

    /// It names what it depends on while it runs.
    #[cached(resource = "cards", ttl = 300, context = load, cache = self.cache())]
    async fn card(&self, id: i64) -> String {
        load.depends_on("users", id);
        self.0.committed(id)
    }

    /// It reads, and names only later what it depends on.
    #[cached(resource = "cards", op = "late", ttl = 300, context = load, cache = self.cache())]
    async fn late_card(&self, id: i64) -> String {
        let name = self.0.committed(id);
        if let Some(gate) = &self.0.read_gate {
            gate.pass().await;
        }
        load.depends_on("users", id);
        name
    }

    /// Its body may wait for a load that has begun before.
    #[invalidates("users", id = id, cache = self.cache())]
    async fn rename_and_show(&self, id: i64, name: &str, gate: &Gate) -> String {
        self.0.commit(id, name);
        let mut card = Box::pin(self.late_card(id));
        let is_waiting = || {
            let functions = self.cache().functions();
            let late = functions.iter().find(|it| it.op == "late");
            late.is_some_and(|it| it.waiting > 0)
        };
        while !is_waiting() {
            if let Poll::Ready(card) = futures_util::poll!(&mut card) {
                gate.open();
                return card;
            }
            tokio::task::yield_now().await;
        }
        gate.open();
        card.await
    }

    /// It reads what it does not say to depend on.
    #[cached(resource = "badges", ttl = 300, cache = self.cache())]
    async fn badge(&self, id: i64) -> String {
        self.0.name(id).await
    }

    /// It reads so without the cache.
    #[cached(resource = "badges", op = "past", ttl = 300, cache = self.cache())]
    async fn badge_past_the_cache(&self, id: i64) -> String {
        bypass(self.0.name(id)).await
    }

    #[cached(resource = "badges", op = "many_past", ttl = 300, cache = self.cache())]
    async fn badge_of_many_past_the_cache(&self, id: i64) -> String {
        let many = bypass(self.0.get_many(&[id])).await.expect("read");
        many[&id].name.clone()
    }

    /// It reads so in a transaction of its own.
    #[cached(resource = "badges", op = "committed", ttl = 300, cache = self.cache())]
    async fn badge_in_a_transaction(&self, id: i64) -> String {
        let name = self
            .cache()
            .after_commit(async { Ok::<_, DbError>(self.0.name(id).await) });
        name.await.expect("read")
    }

    #[cached(resource = "badges", ttl = 300, batch = ids, cache = self.cache())]
    async fn badges(&self, ids: &[i64]) -> BTreeMap<i64, String> {
        let mut badges = BTreeMap::new();
        for id in ids {
            badges.insert(*id, self.0.name(*id).await);
        }
        badges
    }

    #[invalidates("users", id = id, rejected = |error| *error == DbError::Refused, cache = self.cache())]
    async fn show_and_roll_back(&self, id: i64) -> Result<(), DbError> {
        let before = self.0.committed(id);
        self.0.commit(id, "99");
        assert_eq!(self.card(id).await, "99");
        assert_eq!(self.badge(id).await, "99");
        assert_eq!(self.badges(&[id]).await[&id], "99");
        assert_eq!(self.badge_past_the_cache(id).await, "99");
        assert_eq!(self.badge_of_many_past_the_cache(id).await, "99");
        assert_eq!(self.badge_in_a_transaction(id).await, "99");
        self.0.commit(id, &before);
        Err(DbError::Refused)
    }

    #[invalidates("pages", cache = self.cache())]
    async fn rename_with_pages(&self, id: i64) {
        self.0.rename(id, "inner").await.expect("written");
        self.0.commit(id, "outer");
        let (page, outcomes) = observe(self.0.page(0)).await;
        assert_eq!(outcomes[0].status, Status::Bypass(BypassReason::OwnWrite));
        assert_eq!(page.expect("read")[0].name, "outer");
        self.0.rename(id, "outer").await.expect("written");
    }
}

async fn a_write_sees_what_it_has_written(pair: Pair) {
    let shop = Shop::new(&pair.a);
    for round in 0..2 {
        shop.name(1).await;
        shop.list(0, 1).await.expect("read");
        shop.page(0).await.expect("read");
        let name = format!("new {round}");
        for (seen, status) in Desk(&shop).rename_and_read(1, &name).await {
            assert_eq!(seen, name);
            assert_eq!(status, Status::Bypass(BypassReason::OwnWrite));
        }
        assert_eq!(shop.name(1).await, name);
    }
    let loads = shop.loads();
    shop.name(1).await;
    assert_eq!(shop.loads(), loads, "it is cached again");
}

async fn a_write_sees_what_it_has_written_in_tasks_that_inherit_it(pair: Pair) {
    let shop = Shop::new(&pair.a);
    for round in 0..2 {
        shop.name(1).await;
        let name = format!("new {round}");
        for (seen, status) in Desk(&shop).rename_and_read_in_tasks(1, &name).await {
            assert_eq!(seen, name);
            assert_eq!(status, Status::Bypass(BypassReason::OwnWrite));
        }
        assert_eq!(shop.name(1).await, name);
    }
}

#[cached(resource = "greetings", include_context("locale"), skip(cache), cache = cache)]
async fn greeting(cache: &Cache) -> u8 {
    7
}

async fn tasks_inherit_what_is_around_them(pair: Pair) {
    let cache = &pair.a;
    let shop = &Shop::new(cache);
    let key = {
        let cache = cache.clone();
        async move || format!("{:?}", key_of(greeting(&cache)).expect("a key"))
    };
    let inside = async {
        let here = key().await;
        let task = tokio::spawn(inherit({
            let key = key.clone();
            async move { key().await }
        }));
        assert_eq!(task.await.expect("done"), here);
        here
    };
    let with_locale = cache.with_key("locale", &"de", inside).await;
    assert_ne!(with_locale, key().await);

    let read = |shop: Shop| async move { observe(shop.get(1)).await.1[0].clone() };
    let bypassed = bypass(async { tokio::spawn(inherit(read(shop.clone()))).await });
    let status = bypassed.await.expect("read").status;
    assert_eq!(status, Status::Bypass(BypassReason::Requested));
    let in_transaction = cache.after_commit(async {
        let read = tokio::spawn(inherit(read(shop.clone()))).await;
        Ok::<_, ()>(read.expect("read").status)
    });
    let status = in_transaction.await.expect("done");
    assert_eq!(status, Status::Bypass(BypassReason::Requested));

    shop.name(1).await;
    let task = tokio::spawn(inherit(read(shop.clone())));
    assert!(matches!(
        task.await.expect("read").status,
        Status::Hit { .. }
    ));
    // A write in a task of its own is one of the request.
    let request = cache.request(async {
        shop.name(1).await;
        let other = shop.clone();
        let write = async move { other.rename(1, "new").await };
        tokio::spawn(inherit(write))
            .await
            .expect("done")
            .expect("written");
        assert_eq!(shop.name(1).await, "new");
    });
    request.await;
}

async fn changes_read_and_rolled_back_by_a_write_are_seen_by_nobody(pair: Pair) {
    let (shop, other) = (Shop::new(&pair.a), pair.b.clone());
    let other = shop.node(&other);
    for cached_before in [true, false] {
        if cached_before {
            shop.name(1).await;
        }
        let refused = Desk(&shop).rename_and_roll_back(1).await;
        assert_eq!(refused, Err(DbError::Refused));
        assert_eq!(shop.name(1).await, "user 1");
        assert_eq!(other.name(1).await, "user 1");
        pair.a.delete("users:1").await.expect("deleted");
    }
}

async fn values_loaded_inside_a_write_are_kept_for_nobody(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let refused = Desk(&shop).show_and_roll_back(1).await;
    assert_eq!(refused, Err(DbError::Refused));
    for desk in [Desk(&shop), Desk(&other)] {
        assert_eq!(desk.card(1).await, "user 1");
        assert_eq!(desk.badge(1).await, "user 1");
        assert_eq!(desk.badges(&[1]).await[&1], "user 1");
        assert_eq!(desk.badge_past_the_cache(1).await, "user 1");
        assert_eq!(desk.badge_of_many_past_the_cache(1).await, "user 1");
        assert_eq!(desk.badge_in_a_transaction(1).await, "user 1");
    }
}

async fn a_write_waits_for_no_load_that_may_have_begun_before_it(pair: Pair) {
    for id in [1, 2] {
        let shop = Shop::new(&pair.a);
        let gate = Gate::new();
        let gated = shop.with_read_gate(&gate);
        let write = async {
            gate.arrival().await;
            Desk(&shop).rename_and_show(id, "new", &gate).await
        };
        let gated = Desk(&gated);
        let (old, new) = tokio::join!(gated.late_card(id), write);
        assert_eq!((old, &*new), (format!("user {id}"), "new"));
        assert_eq!(Desk(&shop).late_card(id).await, "new");
    }
}

async fn nothing_old_is_served_right_after_a_write_was_dropped(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let desk = Desk(&shop);
    for _ in 0..2 {
        assert_eq!(shop.name(1).await, "user 1");
    }
    let mut write = Box::pin(desk.rename_and_never_end(1, "new"));
    while shop.committed(1) != "new" {
        tokio::select! {
            biased;
            () = &mut write => unreachable!("it never ends"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(write);
    // Before any other task had its turn.
    for _ in 0..4 {
        assert_eq!(shop.name(1).await, "new");
    }
}

/// Runs what it is sent, in the surroundings in which it was made, until the sender is dropped.
fn runs_inside() -> mpsc::UnboundedSender<Job> {
    let (sender, mut jobs) = mpsc::unbounded_channel::<Job>();
    tokio::spawn(inherit(async move {
        while let Some(job) = jobs.recv().await {
            job.await;
        }
    }));
    sender
}

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Does something in a task that has inherited a body.
async fn there<T: Send + 'static>(
    task: mpsc::UnboundedSender<Job>,
    job: impl Future<Output = T> + Send + 'static,
) -> T {
    let (sender, done) = oneshot::channel();
    let job: Job = Box::pin(async move {
        let _ = sender.send(job.await);
    });
    task.send(job).expect("it runs");
    done.await.expect("done")
}

/// Functions that start a task which outlives them.
#[derive(Clone)]
struct Starts {
    shop: Shop,
    task: Arc<Mutex<Option<mpsc::UnboundedSender<Job>>>>,
    has_ended: Arc<AtomicBool>,
}

impl Starts {
    fn new(shop: &Shop) -> Self {
        Self {
            shop: shop.clone(),
            task: Arc::default(),
            has_ended: Arc::default(),
        }
    }

    fn cache(&self) -> &Cache {
        &self.shop.cache
    }

    fn start(&self) {
        *self.task.lock().expect("sound") = Some(runs_inside());
    }

    fn task(&self) -> mpsc::UnboundedSender<Job> {
        self.task.lock().expect("sound").clone().expect("started")
    }

    #[cached(resource = "starts", ttl = 300, max_loads = 1, cache = self.cache())]
    async fn load(&self, id: i64) -> i64 {
        if id == 1 {
            self.start();
        }
        if let Some(gate) = &self.shop.read_gate {
            gate.pass().await;
        }
        id
    }

    #[invalidates("users", id = id, cache = self.cache())]
    async fn rename(&self, id: i64, name: &str) {
        self.start();
        self.shop.commit(id, name);
        let shop = self.shop.clone();
        let status = there(self.task(), async move { status_of(&shop, id).await });
        assert_eq!(status.await, Status::Bypass(BypassReason::OwnWrite));
        self.has_ended.store(true, Ordering::SeqCst);
    }

    #[invalidates("users", id = id, cache = self.cache())]
    async fn never_end(&self, id: i64) {
        let _ = id;
        self.start();
        std::future::pending::<()>().await;
    }

    #[invalidates("users", id = 1, cache = self.cache())]
    async fn rename_two(&self) {
        self.shop.commit(1, "new");
        self.rename(2, "new").await;
        for (id, expected) in [(1, true), (2, false)] {
            let shop = self.shop.clone();
            let read = there(self.task(), async move {
                (status_of(&shop, id).await, shop.name(id).await)
            });
            let (status, name) = read.await;
            let is_own = status == Status::Bypass(BypassReason::OwnWrite);
            assert_eq!((is_own, &*name), (expected, "new"), "{id}: {status:?}");
        }
    }
}

async fn status_of(shop: &Shop, id: i64) -> Status {
    observe(shop.get(id)).await.1[0].status
}

async fn a_task_that_outlives_a_load_is_no_part_of_it(pair: Pair) {
    let starts = Starts::new(&Shop::new(&pair.a));
    assert_eq!(starts.load(1).await, 1);
    let task = starts.task();
    let own = starts.clone();
    let read = there(task.clone(), async move {
        observe(own.load(1)).await.1[0].status
    });
    let status = read.await;
    assert!(matches!(status, Status::Hit { .. }), "{status:?}");
    // It stores what it loads, also where calls inside of a load go past the store.
    let shop = starts.shop.clone();
    let read = there(task.clone(), async move {
        shop.name(2).await;
        status_of(&shop, 2).await
    });
    let status = read.await;
    assert!(matches!(status, Status::Hit { .. }), "{status:?}");
    // And it needs a permit of its own.
    let gate = Gate::new();
    let gated = Starts {
        shop: starts.shop.with_read_gate(&gate),
        ..starts.clone()
    };
    let other = gated.clone();
    let first = tokio::spawn(async move { other.load(2).await });
    gate.arrival().await;
    let (polled, is_polled) = oneshot::channel();
    let second = there(task.clone(), async move {
        let mut load = Box::pin(gated.load(3));
        let at_once = futures_util::poll!(&mut load);
        let _ = polled.send(at_once.is_ready());
        load.await
    });
    let both = async {
        assert_eq!(is_polled.await, Ok(false));
        gate.open();
        gate.open();
        assert_eq!(first.await.expect("loaded"), 2);
    };
    let (second, ()) = tokio::join!(second, both);
    assert_eq!((second, gate.most()), (3, 1));
}

async fn a_task_that_outlives_a_write_is_no_part_of_it(pair: Pair) {
    let starts = Starts::new(&Shop::new(&pair.a));
    for name in ["one", "two"] {
        starts.shop.name(1).await;
        starts.rename(1, name).await;
        let shop = starts.shop.clone();
        let read = there(starts.task(), async move {
            let name = shop.name(1).await;
            (name, status_of(&shop, 1).await)
        });
        let (seen, status) = read.await;
        assert_eq!(seen, name);
        assert!(matches!(status, Status::Hit { .. }), "{status:?}");
        let outcomes = observe(starts.shop.get(1)).await.1;
        assert!(matches!(outcomes[0].status, Status::Hit { .. }));
    }
}

async fn a_task_that_outlives_a_write_inside_of_another_is_part_of_that(pair: Pair) {
    let starts = Starts::new(&Shop::new(&pair.a));
    starts.rename_two().await;
    let shop = starts.shop.clone();
    let read = there(starts.task(), async move {
        shop.name(1).await;
        status_of(&shop, 1).await
    });
    let status = read.await;
    assert!(matches!(status, Status::Hit { .. }), "{status:?}");
}

/// As where a task was spawned so that it goes on after the caller has hung up.
async fn a_task_goes_on_with_a_write_that_was_dropped(pair: Pair) {
    let starts = Starts::new(&Shop::new(&pair.a));
    let mut write = Box::pin(starts.never_end(1));
    while starts.task.lock().expect("sound").is_none() {
        assert!(futures_util::poll!(&mut write).is_pending());
        tokio::task::yield_now().await;
    }
    drop(write);
    let shop = starts.shop.clone();
    let status = there(starts.task(), async move {
        shop.commit(1, "new");
        assert_eq!(shop.name(1).await, "new");
        status_of(&shop, 1).await
    });
    assert_eq!(status.await, Status::Bypass(BypassReason::OwnWrite));
}

async fn a_task_that_outlives_a_request_is_no_part_of_it(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    let read = |task: &mpsc::UnboundedSender<Job>| {
        let shop = shop.clone();
        there(task.clone(), async move { shop.name(1).await })
    };
    let request = pair.a.request(async {
        let task = runs_inside();
        assert_eq!(read(&task).await, "user 1");
        // Not heard of by the request, which goes on to see what it has seen.
        let other = other.clone();
        let write = async move { other.rename(1, "new").await };
        tokio::spawn(write).await.expect("done").expect("written");
        assert_eq!(read(&task).await, "user 1");
        assert_eq!(shop.name(1).await, "user 1");
        task
    });
    let task = request.await;
    for name in ["new", "newer"] {
        eventually(Duration::from_secs(20), async || read(&task).await == name).await;
        other.rename(1, "newer").await.expect("written");
    }
    // A request inside of the task is one of its own.
    let (cache, shop) = (pair.a.clone(), shop.clone());
    let request = async move {
        let request = cache.request(async {
            shop.name(1).await;
            shop.commit(1, "newest");
            shop.name(1).await
        });
        request.await
    };
    assert_eq!(there(task.clone(), request).await, "newer");
}

/// Until the invalidation is delivered, the old entry is still there.
#[tokio::test]
async fn a_task_that_outlives_a_body_sees_what_it_has_written_until_that_is_invalidated() {
    bounded(async {
        let server = RedisServer::start();
        let starts = Starts::new(&Shop::new(&Cache::new(over(&server)).await));
        starts.shop.name(1).await;
        // Of its two connections only that of the write is paused.
        crate::runtimes::connect(&starts.shop, &server, 1).await;
        server.cli(&["CLIENT", "PAUSE", "60000", "WRITE"]);
        let mut write = Box::pin(starts.rename(1, "new"));
        while !starts.has_ended.load(Ordering::SeqCst) {
            assert!(futures_util::poll!(&mut write).is_pending());
            tokio::task::yield_now().await;
        }
        let shop = starts.shop.clone();
        let name = there(starts.task(), async move { shop.name(1).await });
        assert_eq!(name.await, "new");
        server.cli(&["CLIENT", "UNPAUSE"]);
        write.await;
        let shop = starts.shop.clone();
        eventually(Duration::from_secs(20), async || {
            let shop = shop.clone();
            let read = async move {
                assert_eq!(shop.name(1).await, "new");
                status_of(&shop, 1).await
            };
            matches!(there(starts.task(), read).await, Status::Hit { .. })
        })
        .await;
    })
    .await;
}

/// As where a runtime with such tasks is kept in a thread-local.
#[test]
fn a_future_that_inherits_is_dropped_while_its_thread_ends() {
    thread_local! {
        static FIRST: RefCell<Vec<Boxed<'static, ()>>> = const { RefCell::new(Vec::new()) };
        static LAST: RefCell<Vec<Boxed<'static, ()>>> = const { RefCell::new(Vec::new()) };
    }
    struct Holds(Cache);
    impl Holds {
        #[invalidates("users", id = id, cache = self.0)]
        async fn hold(&self, id: i64) {
            let _ = id;
            for kept in [&FIRST, &LAST] {
                kept.with_borrow_mut(|kept| kept.push(Box::pin(inherit(std::future::pending()))));
            }
        }
    }
    // One of the two is dropped after what is around the futures.
    let thread = std::thread::spawn(|| {
        FIRST.with_borrow(|_| ());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let cache = Cache::new(patient().local_mb(16)).await;
            let holds = Holds(cache.clone());
            let inside = cache.request(cache.with_key("locale", &"de", refresh(holds.hold(1))));
            cache.scope(inside).await;
        });
        FIRST.with_borrow(|kept| assert_eq!(kept.len(), 1));
    });
    assert!(thread.join().is_ok());
}

/// A change is not made on the strength of a local entry, which may be behind.
#[tokio::test]
async fn a_write_of_a_row_reads_other_rows_from_redis() {
    let server = RedisServer::start();
    let shop = Shop::new(&Cache::new(over(&server).local_mb(16)).await);
    eventually(Duration::from_secs(20), async || {
        observe(shop.get(2)).await.1[0].store == "local"
    })
    .await;
    let (status, store) = Desk(&shop).rename_by_another(1, 2).await;
    assert!(matches!(status, Status::Hit { .. }), "{status:?}");
    assert_eq!(store, "redis");
}

async fn a_body_bars_nobody_beside_it(pair: Pair) {
    let shop = Shop::new(&pair.a);
    shop.name(1).await;
    let gate = Gate::new();
    let desk = Desk(&shop);
    // In one task.
    tokio::join!(desk.rename_at(1, &gate), async {
        gate.arrival().await;
        let (_, outcomes) = observe(shop.get(1)).await;
        assert!(
            matches!(outcomes[0].status, Status::Hit { .. }),
            "{outcomes:?}"
        );
        gate.open();
    });
    assert_eq!(shop.name(1).await, "new");
    // One that is dropped leaves nothing behind.
    let gate = Gate::new();
    tokio::select! {
        biased;
        () = gate.arrival() => {}
        () = desk.rename_at(2, &gate) => unreachable!("the gate is shut"),
        () = async { tokio::task::yield_now().await; gate.arrival().await } => {}
    }
    let (_, outcomes) = observe(shop.get(2)).await;
    assert_ne!(outcomes[0].status, Status::Bypass(BypassReason::OwnWrite));
}

async fn a_write_inside_a_write_bars_for_both(pair: Pair) {
    let shop = Shop::new(&pair.a);
    shop.name(1).await;
    shop.page(0).await.expect("read");
    Desk(&shop).rename_with_pages(1).await;
    assert_eq!(shop.page(0).await.expect("read")[0].name, "outer");
    assert_eq!(shop.name(1).await, "outer");
}

/// Functions that need their own value while they make it.
struct Circle {
    cache: Cache,
}

impl Circle {
    #[cached(resource = "circles", op = "once", cache = self.cache)]
    async fn once(&self, depth: u8) -> u8 {
        match depth {
            // Its own key: the argument that tells them apart is left out.
            0 => 0,
            depth => Box::pin(self.shared(depth)).await,
        }
    }

    #[cached(resource = "circles", op = "shared", shared, skip(depth), cache = self.cache)]
    async fn shared(&self, depth: u8) -> u8 {
        match depth {
            0 => 7,
            depth => Box::pin(self.shared_too(depth - 1)).await,
        }
    }

    #[cached(resource = "circles", op = "shared", shared, skip(depth), cache = self.cache)]
    async fn shared_too(&self, depth: u8) -> u8 {
        match depth {
            0 => 7,
            depth => Box::pin(self.shared(depth - 1)).await,
        }
    }

    /// `a` needs `b`, which needs `a`.
    async fn by_hand(&self, key: &'static str, depth: u8) -> Result<u8, DbError> {
        let next = if key == "circles:a" {
            "circles:b"
        } else {
            "circles:a"
        };
        let load = async || match depth {
            0 => Ok(7),
            depth => Box::pin(self.by_hand(next, depth - 1)).await,
        };
        self.cache.get_or_load(key, None, load).await
    }

    #[cached(resource = "rings", batch = ids, cache = self.cache)]
    async fn many(&self, ids: &[u8]) -> std::collections::HashMap<u8, u8> {
        let first = match ids {
            [only] => *only,
            _ => Box::pin(self.many(&ids[..1])).await[&ids[0]],
        };
        ids.iter().map(|id| (*id, first)).collect()
    }
}

/// Whoever waited would wait for an hour.
#[tokio::test]
async fn a_load_does_not_wait_for_itself() {
    let hour = Duration::from_secs(3600);
    let server = RedisServer::start();
    for config in [
        patient().local_mb(16),
        over(&server),
        over(&server).local_mb(16).namespace("both:"),
    ] {
        let circle = Circle {
            cache: Cache::new(config.wait_limit(hour).lease(hour)).await,
        };
        bounded(async {
            assert_eq!(circle.once(3).await, 7);
            assert_eq!(circle.once(3).await, 7);
            assert_eq!(circle.by_hand("circles:a", 5).await, Ok(7));
            assert_eq!(circle.many(&[4, 5, 6]).await[&6], 4);
            let (_, outcomes) = observe(circle.by_hand("circles:a", 0)).await;
            assert!(
                matches!(outcomes[0].status, Status::Hit { .. }),
                "the outermost is stored"
            );
        })
        .await;
    }
}

/// One of tasks that spawn each other.
#[derive(Clone)]
struct Spawning {
    cache: Cache,
}

impl Spawning {
    #[cached(resource = "spawning", shared, skip(depth), cache = self.cache)]
    async fn value(&self, depth: u8) -> u8 {
        match depth {
            0 => 7,
            depth => {
                let inner = inherit(value(self.clone(), depth - 1));
                tokio::spawn(inner).await.expect("done")
            }
        }
    }
}

fn value(spawning: Spawning, depth: u8) -> Pin<Box<dyn Future<Output = u8> + Send>> {
    Box::pin(async move { spawning.value(depth).await })
}

#[tokio::test]
async fn a_load_does_not_wait_for_itself_through_a_task_that_inherits_it() {
    let hour = Duration::from_secs(3600);
    let server = RedisServer::start();
    for config in [patient().local_mb(16), over(&server)] {
        let cache = Cache::new(config.wait_limit(hour).lease(hour)).await;
        bounded(async {
            assert_eq!(value(Spawning { cache }, 3).await, 7);
        })
        .await;
    }
}

/// A circle that a task closes with itself is known at once. One over several is found when a lease
/// is met.
#[tokio::test]
async fn a_load_does_not_ask_for_its_own_key() {
    let server = RedisServer::start();
    let circle = Circle {
        cache: Cache::new(over(&server)).await,
    };
    let before = server.calls("mget");
    assert_eq!(circle.once(3).await, 7);
    assert_eq!(
        server.calls("mget") - before,
        2,
        "`once`, and the first `shared`"
    );
}

/// Functions of which each needs the next, the last the first; each is loaded by a task of its own.
struct Round {
    cache: Cache,
    /// Until all of them are loaded.
    all: tokio::sync::Barrier,
    runs: [AtomicUsize; 3],
}

impl Round {
    #[cached(resource = "rounds", cache = self.cache)]
    async fn at(&self, id: usize) -> usize {
        if self.runs[id].fetch_add(1, Ordering::SeqCst) > 0 {
            return 0;
        }
        self.all.wait().await;
        Box::pin(self.at((id + 1) % self.runs.len())).await + 1
    }
}

#[tokio::test]
async fn loads_of_several_tasks_do_not_wait_for_each_other_in_a_circle() {
    let hour = Duration::from_secs(3600);
    let mut server = RedisServer::start();
    // The last is without Redis, where loads are joined by other means.
    for (config, is_away) in [
        (patient().local_mb(16), false),
        (over(&server), false),
        (over(&server).namespace("away:"), true),
    ] {
        let round = Round {
            cache: Cache::new(config.wait_limit(hour).lease(hour)).await,
            all: tokio::sync::Barrier::new(3),
            runs: Default::default(),
        };
        if is_away {
            server.stop();
        }
        bounded(async {
            let (a, b, c) = tokio::join!(
                observe(round.at(0)),
                observe(round.at(1)),
                observe(round.at(2)),
            );
            // Whoever would have closed the circle has run the body of the one it needs, the others
            // have waited. Without Redis two may load the same at once, and then nobody waits.
            let mut values = [a.0, b.0, c.0];
            values.sort_unstable();
            assert!(values == [1, 2, 3] || is_away, "{values:?}");
        })
        .await;
    }
}

/// The same functions in several processes, of which each loads another value first.
struct Elsewhere<'a> {
    cache: Cache,
    all: &'a tokio::sync::Barrier,
    runs: &'a [AtomicUsize],
}

impl Elsewhere<'_> {
    #[cached(resource = "elsewhere", cache = self.cache)]
    async fn at(&self, id: usize) -> usize {
        if self.runs[id].fetch_add(1, Ordering::SeqCst) > 0 {
            return 0;
        }
        self.all.wait().await;
        Box::pin(self.at((id + 1) % self.runs.len())).await + 1
    }

    #[cached(resource = "elsewhere", batch = ids, cache = self.cache)]
    async fn many(&self, ids: &[usize]) -> std::collections::HashMap<usize, usize> {
        let value = match self.runs[ids[0]].fetch_add(1, Ordering::SeqCst) {
            0 => {
                self.all.wait().await;
                Box::pin(self.at((ids[0] + 1) % self.runs.len())).await + 1
            }
            _ => 0,
        };
        ids.iter().map(|id| (*id, value)).collect()
    }
}

#[tokio::test]
async fn loads_of_several_processes_do_not_wait_for_each_other_in_a_circle() {
    let hour = Duration::from_secs(3600);
    let server = RedisServer::start();
    for (round, processes) in [2, 3].into_iter().enumerate() {
        let all = tokio::sync::Barrier::new(processes);
        let runs: Vec<AtomicUsize> = (0..processes).map(|_| AtomicUsize::new(0)).collect();
        let mut fleet = Vec::new();
        for _ in 0..processes {
            let config = over(&server).namespace(&format!("round{round}:"));
            let cache = Cache::new(config.wait_limit(hour).lease(hour)).await;
            fleet.push(Elsewhere {
                cache,
                all: &all,
                runs: &runs,
            });
        }
        bounded(async {
            let first = async { fleet[0].many(&[0]).await[&0] };
            let others = fleet.iter().enumerate().skip(1).map(|(id, it)| it.at(id));
            let (first, others) = tokio::join!(first, futures_util::future::join_all(others));
            // Whoever would have closed the circle has run the body of the one it needs.
            let mut values = [vec![first], others].concat();
            values.sort_unstable();
            assert_eq!(values, (1..=processes).collect::<Vec<_>>());
        })
        .await;
    }
}
