//! Batched reads. As many reads as are allowed are held on their way. Further reads are queued then,
//! and the tests say what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use cache_runtime::{BypassReason, Cache, CacheConfig, RedisConfig, Status, observe};
use cache_tests::{Mode, Proxy, RedisServer, eventually};
use tokio::task::JoinHandle;

use crate::shop::{Shop, User};
use crate::{bounded, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);
/// The most direct reads, which are as many over a slow network.
const DIRECT: u32 = 64;
/// The most batches in flight over a connection that only reads, near the server.
const AT_ONCE: u32 = 2;
/// Rows that only the reads on their way ask for.
const FIRST: i64 = 1000;
/// Further rows, all of which are in Redis.
const ROWS: i64 = 400;

/// What the reads go over.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Over {
    /// The main connection, alone until they are many.
    Main,
    /// A connection that only reads.
    ReadSocket,
}

const EACH: [Over; 2] = [Over::Main, Over::ReadSocket];

/// A shop behind a proxy, whose answers are held, with reads on their way.
struct HeldReads {
    server: RedisServer,
    proxy: Proxy,
    shop: Arc<Shop>,
    on_their_way: Vec<Read>,
}

type Read = JoinHandle<(Option<User>, Status)>;

impl HeldReads {
    /// With the most reads on their way.
    async fn start(over: Over) -> Self {
        Self::with_room(over, 0).await
    }

    /// With so many commands fewer on their way.
    async fn with_room(over: Over, room: u32) -> Self {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.port());
        if over == Over::Main {
            // While it connects it is told that an answer takes long.
            proxy.set(Mode::Delay(Duration::from_millis(2)));
        }
        let shop = Shop::new(&Cache::new(config(over, proxy.port())).await);
        proxy.set(Mode::Pass);
        for id in (1..=ROWS).chain(FIRST..FIRST + i64::from(DIRECT)) {
            shop.commit(id, &format!("user {id}"));
            shop.name(id).await;
        }
        let mut held = Self {
            server,
            proxy,
            shop: Arc::new(shop),
            on_their_way: Vec::new(),
        };
        match over {
            Over::Main => {
                let before = held.sent();
                held.proxy.set(Mode::HoldAnswers);
                held.on_their_way = (FIRST..FIRST + i64::from(DIRECT))
                    .map(|id| held.read(id))
                    .collect();
                held.settle().await;
                held.received(before + u64::from(DIRECT)).await;
            }
            Over::ReadSocket => {
                eventually(TEST_TIMEOUT, async || {
                    held.shop.name(1).await;
                    held.proxy.accepted() == 2
                })
                .await;
                // Its login has been answered.
                for _ in 0..10 {
                    held.shop.name(1).await;
                }
                let before = held.sent();
                held.proxy.set(Mode::HoldAnswers);
                for n in 0..AT_ONCE - room {
                    held.on_their_way.push(held.read(FIRST + i64::from(n)));
                    held.received(before + u64::from(n) + 1).await;
                }
            }
        }
        held
    }

    fn read(&self, id: i64) -> Read {
        let shop = Arc::clone(&self.shop);
        cache_tests::spawn(async move {
            let (row, outcomes) = observe(shop.get(id)).await;
            (row.expect("read"), outcomes[0].status)
        })
    }

    /// Lets the tasks that have begun reach their wait.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// How many reads the server has received.
    fn sent(&self) -> u64 {
        self.server.calls("mget")
    }

    /// Waits until the server has received exactly so many reads.
    async fn received(&self, reads: u64) {
        let received = async {
            while self.sent() != reads {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(TEST_TIMEOUT, received).await.is_err() {
            panic!("the server has received {} reads, not {reads}", self.sent());
        }
    }

    /// Waits for the reads that were on their way.
    async fn finish(&mut self) {
        for read in self.on_their_way.drain(..) {
            assert!(is_hit(read.await.expect("answered").1));
        }
    }
}

fn config(over: Over, port: u16) -> CacheConfig {
    let config = patient().redis(RedisConfig::at("127.0.0.1", port));
    // A server that is not identified is read over the main connection only.
    config.trust_restart(over == Over::Main)
}

fn is_hit(status: Status) -> bool {
    matches!(status, Status::Hit { .. })
}

#[tokio::test]
async fn each_is_answered_with_its_own_in_few_commands() {
    for over in EACH {
        bounded(async {
            let mut held = HeldReads::start(over).await;
            let before = held.sent();
            // More than fit into one, the same row often, and some who hang up.
            let reads: Vec<_> = (0..2 * ROWS)
                .map(|n| (1 + n * 7 % ROWS, held.read(1 + n * 7 % ROWS)))
                .collect();
            held.settle().await;
            for (_, read) in reads.iter().skip(3).step_by(5) {
                read.abort();
            }
            held.proxy.set(Mode::Pass);
            for (id, read) in reads {
                match read.await {
                    Ok((row, status)) => {
                        assert_eq!(row.expect("there").name, format!("user {id}"));
                        assert!(is_hit(status), "{status:?}");
                    }
                    Err(error) => assert!(error.is_cancelled()),
                }
            }
            held.finish().await;
            let sent = held.sent() - before;
            // At first it is not known how much they bring, so they go in parts.
            assert!((2..=60).contains(&sent), "{sent} commands for all of them");
        })
        .await;
    }
}

#[tokio::test]
async fn a_read_does_not_join_one_that_has_left() {
    for over in EACH {
        bounded(async {
            let mut held = HeldReads::with_room(over, 1).await;
            let writer = Cache::new(config(over, held.server.port())).await;
            let writer = held.shop.node(&writer);
            let before = held.sent();
            let early = held.read(1);
            held.received(before + 1).await;
            writer.rename(1, "new").await.expect("written");
            let late = held.read(1);
            held.settle().await;
            held.proxy.set(Mode::Pass);
            let (row, status) = early.await.expect("answered");
            assert_eq!(row.expect("there").name, "user 1", "it began before");
            assert!(is_hit(status));
            let (row, _) = late.await.expect("answered");
            assert_eq!(row.expect("there").name, "new");
            held.finish().await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_forbidden_key_does_not_fail_other_reads() {
    for over in EACH {
        bounded(async {
            let mut held = HeldReads::start(over).await;
            // From here on pages are somebody else's.
            let rule = [
                "ACL",
                "SETUSER",
                "default",
                "resetkeys",
                "~users:*",
                "~@gen:*",
            ];
            held.server.cli(&rule);
            let shop = Arc::clone(&held.shop);
            let page = cache_tests::spawn(async move { observe(shop.page(1)).await });
            let reads: Vec<_> = (1..=20).map(|id| held.read(id)).collect();
            held.settle().await;
            held.proxy.set(Mode::Pass);
            for read in reads {
                let (_, status) = read.await.expect("answered");
                assert!(is_hit(status), "{status:?}");
            }
            let (rows, outcomes) = page.await.expect("answered");
            assert!(!rows.expect("read").is_empty());
            let status = outcomes[0].status;
            assert_eq!(status, Status::Bypass(BypassReason::Unavailable));
            held.finish().await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_generation_that_is_missing_is_made() {
    for over in EACH {
        bounded(async {
            let mut held = HeldReads::start(over).await;
            held.server.cli(&["DEL", "@gen:users"]);
            let reads: Vec<_> = (1..=20).map(|id| held.read(id)).collect();
            held.settle().await;
            held.proxy.set(Mode::Pass);
            for read in reads {
                let (_, status) = read.await.expect("answered");
                let (stored, joined) = (true, false);
                assert_eq!(status, Status::Miss { stored, joined });
            }
            held.finish().await;
        })
        .await;
    }
}

#[tokio::test]
async fn waits_for_a_silent_or_lost_server_are_bounded() {
    const BUDGET: Duration = Duration::from_millis(200);

    let modes = [Mode::SwallowAnswers, Mode::Cut];
    for (over, mode) in EACH
        .into_iter()
        .flat_map(|over| modes.map(|mode| (over, mode)))
    {
        bounded(async {
            let brief = |port| config(over, port).command_budget(BUDGET);
            let server = RedisServer::start();
            let proxy = Proxy::start(server.port());
            let shop = Arc::new(Shop::new(&Cache::new(brief(proxy.port())).await));
            for id in 1..=ROWS {
                shop.commit(id, &format!("user {id}"));
            }
            eventually(TEST_TIMEOUT, async || {
                shop.name(1).await;
                over == Over::Main || proxy.accepted() == 2
            })
            .await;
            proxy.set(Mode::HoldAnswers);
            let read = |id| {
                let shop = Arc::clone(&shop);
                cache_tests::spawn(async move { observe(shop.get(id)).await })
            };
            let reads: Vec<_> = (1..=ROWS).map(read).collect();
            eventually(TEST_TIMEOUT, async || proxy.held() > 0).await;
            proxy.set(mode);
            // The server's answers never arrive, so that a wait without a bound would have no end.
            for read in reads {
                let (row, outcomes) = read.await.expect("answered");
                assert!(row.expect("read").is_some());
                let status = outcomes[0].status;
                assert_eq!(status, Status::Bypass(BypassReason::Unavailable));
            }
            // Nobody is left behind who would keep the next ones from being read.
            proxy.cut_then(Mode::Pass);
            // On a busy machine not all of them are read within the budget at once.
            let mut missed: Vec<_> = (1..=ROWS).collect();
            eventually(TEST_TIMEOUT, async || {
                let reads: Vec<_> = missed.drain(..).map(|id| (id, read(id))).collect();
                for (id, read) in reads {
                    let (_, outcomes) = read.await.expect("answered");
                    if !is_hit(outcomes[0].status) {
                        missed.push(id);
                    }
                }
                missed.is_empty()
            })
            .await;
        })
        .await;
    }
}
