//! What only happens with Memcached: it forgets what it likes, can't list its keys, and has limits
//! of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_runtime::{
    Acknowledgement, BypassReason, Cache, CacheConfig, Circuit, ErrorKind, MemcachedConfig, Status,
    cached, invalidates, observe,
};
use cache_tests::{MemcachedServer, Mode, Proxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::shop::{Gate, Shop};
use crate::{bounded, over_memcached, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

const STORED: Status = Status::Miss {
    stored: true,
    joined: false,
};

async fn status<T>(call: impl Future<Output = T>) -> Status {
    observe(call).await.1[0].status
}

fn is_hit(status: Status) -> bool {
    matches!(status, Status::Hit { .. })
}

async fn shop_over(server: &MemcachedServer) -> Shop {
    Shop::new(&Cache::new(over_memcached(server.port())).await)
}

#[tokio::test]
async fn an_evicted_generation_makes_misses_and_nothing_lives_again() {
    let server = MemcachedServer::start();
    let shop = shop_over(&server).await;
    shop.name(1).await;
    assert!(is_hit(status(shop.get(1)).await));
    for generation in ["@gen:users", "@epoch"] {
        shop.commit(1, generation);
        assert_eq!(server.ask(&format!("delete {generation}")), "DELETED\r\n");
        assert_eq!(status(shop.get(1)).await, STORED, "{generation}");
        assert_eq!(shop.name(1).await, generation);
        assert!(is_hit(status(shop.get(1)).await));
    }
    // A number that was there before would bring back what it stood for.
    let old = server.ask("get users:1");
    server.ask("delete @gen:users");
    shop.rename_in_bulk(1, "new").await.expect("written");
    assert_eq!(shop.name(1).await, "new");
    assert_ne!(server.ask("get users:1"), old);
    server.ask("flush_all");
    assert_eq!(status(shop.get(1)).await, STORED);
}

#[tokio::test]
async fn a_load_is_not_kept_under_a_generation_that_was_replaced_or_evicted_meanwhile() {
    bounded(async {
        let server = MemcachedServer::start();
        let shop = shop_over(&server).await;
        for way in ["invalidated", "evicted", "flushed", "row"] {
            let gate = Gate::new();
            let slow = shop.with_read_gate(&gate);
            let load = cache_tests::spawn(async move { slow.name(2).await });
            gate.arrival().await;
            shop.commit(2, way);
            match way {
                "invalidated" => {
                    let done = shop.cache.invalidate_all("users").await;
                    assert_eq!(done, Acknowledgement::Delivered);
                }
                "evicted" => drop(server.ask("delete @gen:users")),
                "flushed" => drop(server.ask("flush_all")),
                _ => drop(shop.cache.invalidate("users", &2).await),
            }
            // Somebody makes the generations anew while the load is still on its way.
            shop.name(1).await;
            gate.open();
            load.await.expect("it ends");
            assert_eq!(shop.name(2).await, way);
            shop.cache.clear_all().await.expect("cleared");
        }
    })
    .await;
}

#[tokio::test]
async fn while_it_is_away_calls_run_and_nothing_stale_comes_back() {
    bounded(async {
        let mut server = MemcachedServer::start();
        let shop = shop_over(&server).await;
        let cache = shop.cache.clone();
        assert_eq!(shop.name(1).await, "user 1");
        server.stop();
        let renamed = shop.rename(1, "new").await.expect("the write succeeds");
        assert_eq!(renamed.name, "new");
        assert_eq!(shop.name(1).await, "new");
        let done = cache.invalidate_all("users").await;
        assert_eq!(done, Acknowledgement::Pending);
        assert!(cache.get_stats().await.reason.is_some());
        server.restart();
        eventually(TEST_TIMEOUT, async || {
            assert_eq!(shop.name(1).await, "new");
            is_hit(status(shop.get(1)).await)
        })
        .await;
        assert_eq!(cache.get_stats().await.counters.pending, 0);
    })
    .await;
}

/// Passes everything on to the server, but requests that name a row only when they are let through.
async fn hold_rows(
    listener: TcpListener,
    server: u16,
    held: Arc<AtomicUsize>,
    rows: Arc<Semaphore>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
            return;
        };
        let (mut requests, mut to_client) = client.into_split();
        let (mut answers, mut to_server) = server.into_split();
        cache_tests::spawn(async move { tokio::io::copy(&mut answers, &mut to_client).await });
        let (held, rows) = (Arc::clone(&held), Arc::clone(&rows));
        cache_tests::spawn(async move {
            let mut piece = vec![0; 1 << 16];
            while let Ok(length @ 1..) = requests.read(&mut piece).await {
                let piece = &piece[..length];
                if piece.windows(6).any(|it| it == b"users:") {
                    held.fetch_add(1, Ordering::SeqCst);
                    rows.acquire().await.expect("never closed").forget();
                }
                if to_server.write_all(piece).await.is_err() {
                    return;
                }
            }
        });
    }
}

#[tokio::test]
async fn a_write_does_not_wait_behind_reads() {
    /// More than there are connections.
    const READS: i64 = 24;
    bounded(async {
        let server = MemcachedServer::start();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (held, rows) = (Arc::<AtomicUsize>::default(), Arc::new(Semaphore::new(0)));
        cache_tests::spawn(hold_rows(
            listener,
            server.port(),
            Arc::clone(&held),
            Arc::clone(&rows),
        ));
        let config = over_memcached(port).command_budget(TEST_TIMEOUT);
        let shop = Shop::new(&Cache::new(config).await);
        let reads: Vec<_> = (1..=READS)
            .map(|id| {
                let shop = shop.clone();
                cache_tests::spawn(async move { shop.get(id).await })
            })
            .collect();
        // All connections for reads are taken.
        eventually(TEST_TIMEOUT, async || held.load(Ordering::SeqCst) >= 16).await;
        let done = shop.cache.invalidate_all("users").await;
        assert_eq!(done, Acknowledgement::Delivered);
        assert!(reads.iter().all(|read| !read.is_finished()));
        rows.add_permits(Semaphore::MAX_PERMITS);
        for read in reads {
            read.await.expect("answered").expect("read");
        }
    })
    .await;
}

#[tokio::test]
async fn a_cache_that_starts_without_its_server_uses_it_once_it_is_there() {
    let mut server = MemcachedServer::start();
    server.stop();
    let shop = shop_over(&server).await;
    assert_eq!(
        status(shop.get(1)).await,
        Status::Bypass(BypassReason::Unavailable)
    );
    server.restart();
    eventually(TEST_TIMEOUT, async || is_hit(status(shop.get(1)).await)).await;
}

#[tokio::test]
async fn a_hung_server_costs_a_few_budgets_and_then_nothing() {
    bounded(async {
        let server = MemcachedServer::start();
        let proxy = Proxy::start(server.port());
        let config = over_memcached(proxy.port()).command_budget(Duration::from_millis(300));
        let cache = Cache::new(config).await;
        let shop = Shop::new(&cache);
        eventually(TEST_TIMEOUT, async || is_hit(status(shop.get(1)).await)).await;
        proxy.set(Mode::Hold);
        eventually(TEST_TIMEOUT, async || {
            assert_eq!(shop.name(1).await, "user 1");
            cache.get_stats().await.circuit != Some(Circuit::Closed)
        })
        .await;
        // Written while nothing answers: what is delivered late makes the old entry dead.
        shop.rename(1, "new").await.expect("the write succeeds");
        assert_eq!(shop.name(1).await, "new");
        proxy.set(Mode::Pass);
        eventually(TEST_TIMEOUT, async || {
            assert_eq!(shop.name(1).await, "new");
            is_hit(status(shop.get(1)).await)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_cut_between_calls_is_no_outage() {
    let server = MemcachedServer::start();
    let proxy = Proxy::start(server.port());
    let shop = Shop::new(&Cache::new(over_memcached(proxy.port())).await);
    shop.name(1).await;
    proxy.cut_then(Mode::Pass);
    // The write's invalidation and the read after it each find a connection that is dead.
    shop.rename(1, "new").await.expect("written");
    assert_eq!(shop.name(1).await, "new");
    eventually(TEST_TIMEOUT, async || is_hit(status(shop.get(1)).await)).await;
    assert_eq!(shop.name(1).await, "new");
}

#[tokio::test]
async fn wrong_answers_are_never_served() {
    bounded(async {
        let server = MemcachedServer::start();
        let proxy = Proxy::start(server.port());
        let shop = Shop::new(&Cache::new(over_memcached(proxy.port())).await);
        for id in 1..=3 {
            shop.name(id).await;
        }
        let other = server.ask("get users:2");
        let entry = other.lines().skip(1).take(2).collect::<Vec<_>>().join("\n");
        let of_another_key = format!("VA {} kusers:2 c1\r\n{entry}\r\n", entry.len());
        let in_its_place = format!("VA {} kusers:1 c1\r\n{entry}\r\n", entry.len());
        for answer in [
            "nonsense\r\n",
            "VA 5 kusers:1 c1\r\nhello\r\n",
            "VA 99999999 kusers:1 c1\r\n",
            "VA 5 kusers:1\r\nhello\r\n",
            "HD\r\n",
            "EN\r\n",
            "MN\r\n",
            "SERVER_ERROR out of memory\r\n",
            "ERROR\r\n",
            "\r\n",
            "\0\u{1}\u{2}",
            &of_another_key,
            &in_its_place,
        ] {
            proxy.inject(answer.as_bytes());
            for id in 1..=3 {
                assert_eq!(shop.name(id).await, format!("user {id}"), "{answer:?}");
            }
        }
        eventually(TEST_TIMEOUT, async || is_hit(status(shop.get(1)).await)).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_no_memcached_is_not_used() {
    bounded(async {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let server = cache_tests::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                cache_tests::spawn(async move {
                    let mut request = [0; 1024];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let cache = Cache::new(over_memcached(port)).await;
        let shop = Shop::new(&cache);
        assert_eq!(
            status(shop.get(1)).await,
            Status::Bypass(BypassReason::Unavailable)
        );
        let stats = cache.get_stats().await;
        assert!(!stats.connected && stats.reason.is_some(), "{stats:?}");
        server.abort();
    })
    .await;
}

#[tokio::test]
async fn two_servers_at_one_address_are_found_out() {
    bounded(async {
        let (one, other) = (MemcachedServer::start(), MemcachedServer::start());
        let proxy = Proxy::start(one.port());
        let cache = Cache::new(over_memcached(proxy.port())).await;
        assert!(cache.is_available().await);
        // Connections that are open stay with the one, and new ones lead to the other.
        proxy.lead_to(other.port());
        eventually(TEST_TIMEOUT, async || {
            let asked = (0..8).map(|_| cache.is_available());
            futures_util::future::join_all(asked).await;
            let reason = cache.get_stats().await.reason.unwrap_or_default();
            reason.contains("several servers")
        })
        .await;
    })
    .await;
}

struct Texts {
    cache: Cache,
}

impl Texts {
    #[cached(resource = "texts", id = id, skip(length), cache = self.cache)]
    async fn text(&self, id: &str, length: usize) -> String {
        format!("{id}{}", "x".repeat(length))
    }

    #[cached(resource = "texts", op = "tagged", tags("tag:{tag}"), cache = self.cache)]
    async fn tagged(&self, tag: &str) -> String {
        tag.to_owned()
    }
}

#[tokio::test]
async fn values_that_it_takes_are_kept_and_others_are_not() {
    let small = MemcachedServer::start();
    let large = MemcachedServer::start_with(&["-m", "64", "-I", "4m"]);
    let config = |server: &MemcachedServer| over_memcached(server.port()).value_limit(4 << 20);
    let small = Texts {
        cache: Cache::new(config(&small)).await,
    };
    let large = Texts {
        cache: Cache::new(config(&large)).await,
    };
    let length = 3 << 19;
    for _ in 0..3 {
        let kept = observe(small.text("a", length)).await;
        assert_eq!(kept.0.len(), length + 1);
        assert!(
            matches!(kept.1[0].status, Status::Miss { stored: false, .. }),
            "{kept:?}"
        );
    }
    assert_eq!(status(large.text("a", length)).await, STORED);
    let (text, outcomes) = observe(large.text("a", length)).await;
    assert!(is_hit(outcomes[0].status) && text.len() == length + 1);
    // The smaller server is as well as before.
    assert_eq!(status(small.text("b", 10)).await, STORED);
    assert!(is_hit(status(small.text("b", 10)).await));
}

#[tokio::test]
async fn keys_of_any_characters_and_length_are_kept_apart() {
    let server = MemcachedServer::start();
    let config = over_memcached(server.port()).namespace(&"n".repeat(60));
    let texts = Texts {
        cache: Cache::new(config).await,
    };
    let long = "k".repeat(190);
    let longer = "l".repeat(400);
    let ids = [
        "a b",
        "a\r\nflush_all",
        "ä",
        "ü",
        "日本",
        "\u{7f}",
        "#",
        "",
        "a#b",
        &long,
        &longer,
        &format!("{longer}x"),
    ];
    for id in ids {
        assert_eq!(status(texts.text(id, 1)).await, STORED, "{id:?}");
        assert_eq!(status(texts.tagged(id)).await, STORED, "{id:?}");
    }
    for id in ids {
        let (text, outcomes) = observe(texts.text(id, 1)).await;
        assert!(is_hit(outcomes[0].status), "{id:?}");
        assert_eq!(text, format!("{id}x"));
        assert!(is_hit(status(texts.tagged(id)).await), "{id:?}");
    }
    let done = texts.cache.invalidate_tag("tag:ä").await;
    assert_eq!(done, Acknowledgement::Delivered);
    assert_eq!(status(texts.tagged("ä")).await, STORED);
    assert!(is_hit(status(texts.tagged("ü")).await));
    let done = texts.cache.invalidate("texts", &"日本").await;
    assert_eq!(done, Acknowledgement::Delivered);
    assert_eq!(status(texts.text("日本", 1)).await, STORED);
    assert!(is_hit(status(texts.text("ü", 1)).await));
}

#[tokio::test]
async fn foreign_values_are_left_alone() {
    let server = MemcachedServer::start();
    let shop = shop_over(&server).await;
    server.ask("set users:1 0 0 5\r\nhello");
    assert_eq!(shop.name(1).await, "user 1");
    assert!(matches!(status(shop.get(1)).await, Status::Bypass(_)));
    shop.rename(1, "new").await.expect("written");
    shop.rename_crash_safe(1, "newer").await.expect("written");
    shop.cache.clear_all().await.expect("cleared");
    assert_eq!(shop.name(1).await, "newer");
    assert_eq!(
        server.ask("get users:1"),
        "VALUE users:1 0 5\r\nhello\r\nEND\r\n"
    );
}

#[tokio::test]
async fn limits_of_memcached_are_reported_and_made_up_for() {
    let server = MemcachedServer::start();
    let shop = shop_over(&server).await;
    let cache = &shop.cache;
    let warm = async || {
        shop.name(1).await;
        shop.list(0, 10).await.expect("read");
        shop.page(0).await.expect("read");
    };
    warm().await;
    // A pattern of a resource is that resource.
    assert_eq!(
        cache
            .invalidate_pattern("users:list:*")
            .await
            .expect("done"),
        0
    );
    assert_eq!(status(shop.list(0, 10)).await, STORED);
    assert!(is_hit(status(shop.page(0)).await));
    // Any other is everything.
    warm().await;
    assert_eq!(cache.invalidate_pattern("*ge*").await.expect("done"), 0);
    assert_eq!(status(shop.get(1)).await, STORED);
    assert_eq!(status(shop.page(0)).await, STORED);
    assert_eq!(cache.clear_all().await.expect("done"), 0);
    assert_eq!(status(shop.get(1)).await, STORED);

    let refused = cache.disable_everywhere("users").await;
    assert_eq!(refused.map_err(|it| it.kind()), Err(ErrorKind::Unsupported));
    let report = cache.doctor().await.to_string();
    for said in [
        "Memcached lacks a list of its keys",
        "pushes",
        "scripts",
        "evicted",
    ] {
        assert!(report.contains(said), "{said}: {report}");
    }
    let stats = cache.get_stats().await;
    assert!(stats.connected && stats.total_keys.is_some(), "{stats:?}");
    assert_eq!(stats.port, Some(server.port()));
}

#[tokio::test]
async fn a_full_server_that_may_not_evict_is_invalidated_all_the_same() {
    let server = MemcachedServer::start_with(&["-m", "2", "-M"]);
    let shop = shop_over(&server).await;
    shop.name(1).await;
    assert!(is_hit(status(shop.get(1)).await));
    let texts = Texts {
        cache: shop.cache.clone(),
    };
    for id in 0..100 {
        texts.text(&id.to_string(), 100_000).await;
    }
    shop.rename(1, "new").await.expect("written");
    assert_eq!(shop.name(1).await, "new");
    shop.rename_in_bulk(1, "newer").await.expect("written");
    assert_eq!(shop.name(1).await, "newer");
}

#[tokio::test]
async fn a_socket_of_the_file_system_is_used_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("mc.sock").display().to_string();
    let server = MemcachedServer::at_socket(&path);
    let config = patient().memcached(MemcachedConfig::socket(&path));
    let shop = Shop::new(&Cache::new(config).await);
    shop.name(1).await;
    assert!(is_hit(status(shop.get(1)).await));
    drop(server);
}

#[tokio::test]
async fn the_cache_outlives_the_runtime_that_made_it() {
    let server = MemcachedServer::start();
    let port = server.port();
    let made = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let shop = Shop::new(&Cache::new(over_memcached(port)).await);
            shop.name(1).await;
            shop
        })
    });
    let shop = made.join().expect("it ends");
    assert!(is_hit(status(shop.get(1)).await));
    assert_eq!(shop.name(1).await, "user 1");
}

#[tokio::test]
async fn many_callers_share_few_connections() {
    let server = MemcachedServer::start();
    let shop = Arc::new(shop_over(&server).await);
    let calls = (0..500).map(|call| {
        let shop = Arc::clone(&shop);
        cache_tests::spawn(async move { shop.name(1 + call % 3).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.expect("it ends").starts_with("user "));
    }
    let stats = server.ask("stats");
    let connections = stats.lines().find_map(|line| {
        let count = line.strip_prefix("STAT curr_connections ")?;
        count.trim().parse::<u32>().ok()
    });
    assert!(connections.is_some_and(|count| count < 30), "{stats}");
}

#[test]
fn its_address_comes_from_the_environment() {
    let config = |vars: &[(&str, &str)]| {
        CacheConfig::from_vars(vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())))
    };
    let on = config(&[("MEMCACHED_URL", "memcached://mc:11211")]).expect("valid");
    assert!(on.is_enabled());
    let both = config(&[("MEMCACHED_URL", "mc"), ("REDIS_ENABLED", "true")]).unwrap_err();
    assert!(both.to_string().contains("one shared tier"), "{both}");
    let wrong = config(&[("MEMCACHED_URL", "a:1,b:2")]).unwrap_err();
    assert!(
        wrong
            .to_string()
            .starts_with("MEMCACHED_URL is `a:1,b:2`; it may hold the address"),
        "{wrong}"
    );
}

/// Two servers that tell the same pid and start, as in containers, where each has the pid 1.
/// Connections lead to the one and the other in turn.
async fn alike_at_one_address(servers: [u16; 2]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    cache_tests::spawn(async move {
        for server in servers.into_iter().cycle() {
            let Ok((client, _)) = listener.accept().await else {
                return;
            };
            cache_tests::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", server)).await;
                let (mut answers, mut requests) = server.expect("it listens").into_split();
                let (mut from_client, mut to_client) = client.into_split();
                let passes = async { tokio::io::copy(&mut from_client, &mut requests).await };
                let changes = async {
                    let mut answer = Vec::new();
                    let mut piece = [0; 65_536];
                    while let Ok(read @ 1..) = answers.read(&mut piece).await {
                        answer.extend_from_slice(&piece[..read]);
                        // `stats` comes as a whole.
                        if answer.starts_with(b"STAT ") && !answer.ends_with(b"END\r\n") {
                            continue;
                        }
                        let told = std::mem::take(&mut answer);
                        let told = if told.starts_with(b"STAT ") {
                            alike(&told)
                        } else {
                            told
                        };
                        if to_client.write_all(&told).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    _ = passes => {}
                    () = changes => {}
                }
            });
        }
    });
    port
}

/// What `stats` says, of the process 1 that was started at the same time as all others.
fn alike(stats: &[u8]) -> Vec<u8> {
    let stats = String::from_utf8_lossy(stats);
    let time = stats
        .lines()
        .find_map(|line| line.strip_prefix("STAT time "));
    let time: u64 = time.and_then(|it| it.trim().parse().ok()).expect("a time");
    let lines = stats.lines().map(|line| match line.split(' ').nth(1) {
        Some("pid") => "STAT pid 1\r\n".to_owned(),
        Some("uptime") => format!("STAT uptime {}\r\n", time - 1_700_000_000),
        _ => format!("{line}\r\n"),
    });
    lines.collect::<String>().into_bytes()
}

#[tokio::test]
async fn servers_that_tell_the_same_of_themselves_are_told_apart() {
    bounded(async {
        let (one, other) = (MemcachedServer::start(), MemcachedServer::start());
        let port = alike_at_one_address([one.port(), other.port()]).await;
        let cache = Cache::new(over_memcached(port)).await;
        eventually(TEST_TIMEOUT, async || {
            let asked = (0..8).map(|_| cache.is_available());
            futures_util::future::join_all(asked).await;
            let reason = cache.get_stats().await.reason.unwrap_or_default();
            reason.contains("several servers")
        })
        .await;
        // One alone is used.
        let port = alike_at_one_address([one.port(), one.port()]).await;
        let shop = Shop::new(&Cache::new(over_memcached(port)).await);
        shop.name(1).await;
        assert!(is_hit(status(shop.get(1)).await));
    })
    .await;
}

#[tokio::test]
async fn a_server_that_has_lost_its_mark_is_used_on_and_cold() {
    bounded(async {
        let server = MemcachedServer::start();
        let shop = shop_over(&server).await;
        shop.name(1).await;
        assert!(is_hit(status(shop.get(1)).await));
        let mark = server.ask("get cache-runtime@server");
        assert!(mark.starts_with("VALUE cache-runtime@server "), "{mark}");
        server.ask("delete cache-runtime@server");
        eventually(TEST_TIMEOUT, async || {
            let now = server.ask("get cache-runtime@server");
            now.starts_with("VALUE") && now != mark
        })
        .await;
        eventually(TEST_TIMEOUT, async || status(shop.get(1)).await == STORED).await;
        assert_eq!(shop.name(1).await, "user 1");
        let stats = shop.cache.get_stats().await;
        assert_eq!((stats.circuit, stats.reason), (Some(Circuit::Closed), None));
    })
    .await;
}

#[tokio::test]
async fn a_server_without_versions_is_refused() {
    let server = MemcachedServer::start_with(&["-m", "64", "-C"]);
    let shop = shop_over(&server).await;
    for _ in 0..3 {
        assert_eq!(
            status(shop.get(1)).await,
            Status::Bypass(BypassReason::Unavailable)
        );
    }
    let reason = shop.cache.get_stats().await.reason.unwrap_or_default();
    assert!(reason.contains("`-C`"), "{reason}");
}

struct Rows {
    cache: Cache,
}

impl Rows {
    #[cached(resource = "rows", batch = ids, cache = self.cache)]
    async fn many(&self, ids: &[i64]) -> std::collections::HashMap<i64, i64> {
        ids.iter().map(|id| (*id, *id)).collect()
    }

    #[invalidates("rows", ids = ids, cache = self.cache)]
    async fn write(&self, ids: &[i64]) {}

    #[invalidates("rows", ids = ids, crash_safe, required, cache = self.cache)]
    async fn write_announced(&self, ids: &[i64]) -> Result<(), cache_runtime::Error> {
        Ok(())
    }
}

#[tokio::test]
async fn many_rows_are_changed_within_the_budget_of_a_few() {
    bounded(async {
        let server = MemcachedServer::start();
        let proxy = Proxy::start(server.port());
        let config = over_memcached(proxy.port()).command_budget(Duration::from_secs(8));
        let rows = Rows {
            cache: Cache::new(config).await,
        };
        let ids: Vec<i64> = (0..800).collect();
        eventually(TEST_TIMEOUT, async || {
            rows.many(&ids).await;
            let (_, outcomes) = observe(rows.many(&ids)).await;
            is_hit(outcomes[0].status)
        })
        .await;
        // One after the other, 1,600 changes take longer than the budget.
        proxy.set(Mode::Delay(Duration::from_millis(3)));
        let ((), outcomes) = observe(rows.write(&ids)).await;
        assert_eq!(outcomes.invalidation(), Some(Acknowledgement::Delivered));
        let few: Vec<i64> = (0..200).collect();
        let (written, outcomes) = observe(rows.write_announced(&few)).await;
        written.expect("it is announced");
        assert_eq!(outcomes.invalidation(), Some(Acknowledgement::Delivered));
        let stats = rows.cache.get_stats().await;
        assert_eq!(stats.circuit, Some(Circuit::Closed));
    })
    .await;
}

/// So the connections that there are answer some of the calls, and no call takes them away.
#[tokio::test]
async fn a_server_that_takes_no_further_connection_is_used_over_those_there_are() {
    bounded(async {
        let server = MemcachedServer::start_with(&["-c", "40", "-t", "1"]);
        let shop = shop_over(&server).await;
        shop.name(1).await;
        assert!(is_hit(status(shop.get(1)).await));
        let clients = (0..60).map(|_| std::net::TcpStream::connect(("127.0.0.1", server.port())));
        let clients: Vec<_> = clients.collect();
        let late = Cache::new(over_memcached(server.port())).await;
        let reason = late.get_stats().await.reason.expect("it is turned away");
        assert!(reason.contains("Too many open connections"), "{reason}");

        for _ in 0..5 {
            let many = (0..50).map(|_| shop.cache.strict(status(shop.get(1))));
            let many = futures_util::future::join_all(many).await;
            assert!(many.into_iter().any(is_hit));
            assert_eq!(shop.cache.get_stats().await.circuit, Some(Circuit::Closed));
            assert!(is_hit(status(shop.get(1)).await));
        }
        shop.rename(1, "new").await.expect("written");
        assert_eq!(shop.name(1).await, "new");
        assert_eq!(shop.cache.get_stats().await.counters.pending, 0);
        drop(clients);
        eventually(TEST_TIMEOUT, async || late.is_available().await).await;
    })
    .await;
}

#[tokio::test]
async fn a_full_server_says_that_it_is_full() {
    bounded(async {
        let server = MemcachedServer::start_with(&["-m", "2", "-M"]);
        let shop = shop_over(&server).await;
        shop.name(1).await;
        let texts = Texts {
            cache: shop.cache.clone(),
        };
        for id in 0..100 {
            texts.text(&id.to_string(), 100_000).await;
        }
        let stats = shop.cache.get_stats().await;
        assert_eq!(stats.circuit, Some(Circuit::Closed));
        let reason = stats.reason.expect("it stores nothing new");
        assert!(reason.contains("full"), "{reason}");
        assert!(is_hit(status(shop.get(1)).await));
        eventually(TEST_TIMEOUT, async || {
            shop.cache.get_stats().await.reason.is_none()
        })
        .await;
    })
    .await;
}
