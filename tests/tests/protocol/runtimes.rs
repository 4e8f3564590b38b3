//! Connections that only read. Programs whose runtimes have one thread each, as the workers of
//! actix-web, have one for each runtime; a runtime with several threads has one for all of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cache_runtime::{Cache, RedisConfig, Status, observe};
use cache_tests::{Mode, Proxy, RedisServer, eventually};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::shop::Shop;
use crate::{over, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// More reads than a runtime makes before it gets a connection.
const MANY: usize = 300;

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

fn with_threads() -> Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime")
}

/// A cache that was made on a runtime that has ended, and an entry.
fn shop_over(server: &RedisServer) -> Shop {
    runtime().block_on(async {
        let shop = Shop::new(&Cache::new(over(server)).await);
        shop.name(1).await;
        shop
    })
}

async fn hits(shop: &Shop, times: usize) {
    for _ in 0..times {
        let (_, outcomes) = observe(shop.get(1)).await;
        let status = outcomes[0].status;
        assert!(matches!(status, Status::Hit { .. }), "{status:?}");
    }
}

/// The connections of clients, as the server tells, without the one that asks.
fn connections(server: &RedisServer) -> Vec<String> {
    let list = server.cli(&["CLIENT", "LIST"]);
    let lines = list
        .lines()
        .filter(|line| !line.contains("cmd=client|list"));
    lines.map(str::to_owned).collect()
}

/// Closes the connection that was made last.
fn kill_newest(server: &RedisServer) {
    let newest = connections(server).pop().expect("there is one");
    let id = newest
        .split(' ')
        .find_map(|field| field.strip_prefix("id="));
    let killed = server.cli(&["CLIENT", "KILL", "ID", id.expect("an id")]);
    assert_eq!(killed, "1");
}

fn reads(connection: &str) -> bool {
    connection.contains("cmd=mget")
}

/// Reads until the runtime that calls has a connection. `others` is how many there are without it.
pub(crate) async fn connect(shop: &Shop, server: &RedisServer, others: usize) {
    eventually(TEST_TIMEOUT, async || {
        hits(shop, MANY).await;
        let connections = connections(server);
        connections.len() > others && connections.last().is_some_and(|newest| reads(newest))
    })
    .await;
}

#[test]
fn each_runtime_has_a_connection_and_its_end_is_none_of_the_others() {
    let server = RedisServer::start();
    let shop = shop_over(&server);
    let shared = connections(&server).len();
    let ends = [const { AtomicBool::new(false) }; 3];
    let worker = |number: usize| {
        let read = async {
            while !ends[number].load(Ordering::Relaxed) {
                hits(&shop, 20).await;
            }
        };
        match number {
            0 => LocalSet::new().block_on(&runtime(), read),
            _ => runtime().block_on(read),
        }
    };
    let until_only = |own: usize| {
        runtime().block_on(eventually(TEST_TIMEOUT, async || {
            let connections = connections(&server);
            let reading = connections.iter().filter(|connection| reads(connection));
            connections.len() == shared + own && reading.count() >= own
        }));
    };
    thread::scope(|scope| {
        let workers = [0, 1, 2].map(|number| scope.spawn(move || worker(number)));
        until_only(3);
        for (number, worker) in workers.into_iter().enumerate() {
            ends[number].store(true, Ordering::Relaxed);
            worker.join().expect("all its reads were hits");
            until_only(2 - number);
        }
    });
    runtime().block_on(hits(&shop, 10));
}

#[test]
fn no_runtime_reads_what_another_one_has_replaced() {
    let server = RedisServer::start();
    let shop = &shop_over(&server);
    let shared = connections(&server).len();
    let (tell, mut told) = mpsc::unbounded_channel::<String>();
    let (answer, mut answers) = mpsc::unbounded_channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            runtime().block_on(async {
                connect(shop, &server, shared).await;
                answer.send(()).expect("it is waited for");
                while let Some(name) = told.recv().await {
                    for _ in 0..3 {
                        assert_eq!(shop.name(1).await, name);
                    }
                    answer.send(()).expect("it is waited for");
                }
            });
        });
        runtime().block_on(async move {
            answers.recv().await.expect("the other one is connected");
            for round in 0..200 {
                let name = format!("name {round}");
                shop.rename(1, &name).await.expect("written");
                tell.send(name).expect("the other one reads");
                answers.recv().await.expect("the other one has read");
            }
        });
    });
}

/// Many tasks of one runtime at once.
async fn crowd(shop: &Shop, times: usize) {
    let tasks = (0..64).map(|_| {
        let shop = shop.clone();
        tokio::spawn(async move { hits(&shop, times).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("all its reads were hits");
    }
}

/// Who has many callers sends their reads together, and over its own connection too.
#[test]
fn many_callers_read_over_the_connection_of_their_runtime() {
    let server = RedisServer::start();
    let shop = shop_over(&server);
    let shared = connections(&server).len();
    runtime().block_on(async {
        connect(&shop, &server, shared).await;
        // Once a second each connection of the cache does something else.
        let others_read = || {
            let connections = connections(&server);
            let newest = connections.len().saturating_sub(1);
            connections[..newest].iter().any(|it| reads(it))
        };
        let mut alone = 0;
        for _ in 0..5 {
            eventually(TEST_TIMEOUT, async || !others_read()).await;
            crowd(&shop, 20).await;
            alone += u32::from(!others_read());
        }
        // On a busy machine a connection may count as slow for a moment, and its reads go
        // elsewhere.
        assert!(alone >= 3, "{alone} of 5");
    });
}

#[test]
fn a_connection_that_is_lost_costs_none_of_many_callers_a_hit() {
    let server = RedisServer::start();
    let shop = shop_over(&server);
    let shared = connections(&server).len();
    for _ in 0..3 {
        runtime().block_on(async {
            connect(&shop, &server, shared).await;
            let kill = async {
                tokio::task::yield_now().await;
                kill_newest(&server);
            };
            tokio::join!(crowd(&shop, 20), kill);
        });
        // The runtime has ended, with its connection.
        runtime().block_on(crowd(&shop, 5));
    }
}

#[test]
fn a_connection_that_is_lost_costs_no_hit() {
    let server = RedisServer::start();
    let shop = shop_over(&server);
    let shared = connections(&server).len();
    runtime().block_on(async {
        connect(&shop, &server, shared).await;
        kill_newest(&server);
        hits(&shop, 10).await;
    });
}

/// That its answers are not read says nothing about the server, which others go on using.
#[test]
fn a_blocked_runtime_takes_the_connection_from_nobody() {
    const BUDGET: Duration = Duration::from_millis(50);

    let server = RedisServer::start();
    let shop = &runtime().block_on(async {
        let shop = Shop::new(&Cache::new(over(&server).command_budget(BUDGET)).await);
        shop.name(1).await;
        shop
    });
    let main = || connections(&server).first().cloned().expect("there is one");
    let id = |connection: String| connection.split(' ').next().map(str::to_owned);
    let before = id(main());
    for turns in 0..4 {
        runtime().block_on(async {
            for _ in 0..2 * MANY {
                let _ = observe(shop.get(1)).await.0;
            }
            // The read is on its way.
            let block = async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                thread::sleep(10 * BUDGET);
            };
            let read = async { observe(shop.get(1)).await.1.len() };
            tokio::join!(biased; read, block);
        });
        assert_eq!(id(main()), before, "after {turns}");
    }
}

/// It logs in as the main one does, and its loss costs none of its callers a hit.
#[test]
fn several_threads_read_over_one_connection() {
    let server = RedisServer::start();
    let rule = [
        "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all",
    ];
    server.cli(&rule);
    with_threads().block_on(async {
        let redis = RedisConfig::at("127.0.0.1", server.port()).db(3);
        let redis = redis.login(Some("app"), "secret");
        let shop = Shop::new(&Cache::new(patient().redis(redis)).await);
        shop.name(1).await;
        let shared = connections(&server).len();
        for _ in 0..3 {
            connect(&shop, &server, shared).await;
            let newest = connections(&server).pop().expect("there is one");
            assert!(newest.contains(" user=app ") && newest.contains(" db=3 "));
            let kill = async {
                tokio::task::yield_now().await;
                kill_newest(&server);
            };
            tokio::join!(crowd(&shop, 20), kill);
            assert!(connections(&server).len() <= shared + 1);
        }
    });
}

/// Also one that a server does not want, which takes any in the login of the main one.
#[test]
fn a_password_alone_is_enough() {
    let guarded = || RedisServer::options().password("secret").start();
    for server in [RedisServer::start(), guarded()] {
        runtime().block_on(async {
            let redis = RedisConfig::at("127.0.0.1", server.port()).login(None, "secret");
            let shop = Shop::new(&Cache::new(patient().redis(redis)).await);
            shop.name(1).await;
            let shared = connections(&server).len();
            connect(&shop, &server, shared).await;
        });
    }
}

#[test]
fn another_server_at_the_address_is_not_read() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(server.port());
    runtime().block_on(async {
        let config = patient().redis(RedisConfig::at("127.0.0.1", proxy.port()));
        let shop = Shop::new(&Cache::new(config).await);
        shop.name(1).await;
        let before = proxy.accepted();
        proxy.lead_to(other.port());
        eventually(TEST_TIMEOUT, async || {
            hits(&shop, MANY).await;
            proxy.accepted() > before && connections(&other).is_empty()
        })
        .await;
        hits(&shop, MANY).await;
        assert_eq!(other.cli(&["DBSIZE"]), "0");
    });
}

#[test]
fn answers_of_other_commands_are_not_served() {
    for runtime in [runtime(), with_threads()] {
        answers_of_other_commands(&runtime);
    }
}

fn answers_of_other_commands(runtime: &Runtime) {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    runtime.block_on(async {
        let config = patient().redis(RedisConfig::at("127.0.0.1", proxy.port()));
        let shop = Shop::new(&Cache::new(config).await);
        for id in 1..=3 {
            shop.name(id).await;
        }
        let shared = connections(&server).len();
        connect(&shop, &server, shared).await;
        // For as long as a connection lives; new ones are in order.
        proxy.set(Mode::OffByOne);
        for _ in 0..2 {
            for id in 1..=3 {
                assert_eq!(shop.name(id).await, format!("user {id}"));
            }
        }
        proxy.set(Mode::Pass);
        eventually(TEST_TIMEOUT, async || {
            for id in 1..=3 {
                assert_eq!(shop.name(id).await, format!("user {id}"));
            }
            matches!(observe(shop.get(1)).await.1[0].status, Status::Hit { .. })
        })
        .await;
    });
}

/// Whoever reads one row only gets no other row's value that would show it.
#[test]
fn answers_of_earlier_reads_of_the_same_row_are_not_served() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    runtime().block_on(async {
        let config = patient().redis(RedisConfig::at("127.0.0.1", proxy.port()));
        let shop = Shop::new(&Cache::new(config).await);
        let writer = shop.node(&Cache::new(over(&server)).await);
        shop.name(1).await;
        let others = connections(&server).len();
        connect(&shop, &server, others).await;
        // From here on this connection is one answer behind, and no other.
        proxy.set(Mode::OffByOne);
        hits(&shop, 1).await;
        proxy.set(Mode::Pass);
        let mut round = 0;
        eventually(TEST_TIMEOUT, async || {
            let mut is_right = true;
            for _ in 0..20 {
                round += 1;
                let name = format!("name {round}");
                writer.rename(1, &name).await.expect("written");
                // The last of them is a hit, which the next round's first read must not get.
                for _ in 0..3 {
                    is_right &= shop.name(1).await == name;
                }
            }
            is_right
        })
        .await;
    });
}
