//! Servers, users and other programs that do what nobody expects: nothing stale is served, and
//! other rows are served as before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cache_runtime::{
    Acknowledgement, BypassReason, Cache, Circuit, Key, RedisConfig, Status, cached, invalidates,
    observe,
};
use cache_tests::{RedisServer, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::shop::Shop;
use crate::{bounded, over, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

async fn status(shop: &Shop, id: i64) -> Status {
    observe(shop.get(id)).await.1[0].status
}

async fn is_hit(shop: &Shop, id: i64) -> bool {
    matches!(status(shop, id).await, Status::Hit { .. })
}

async fn is_bypassed(shop: &Shop, id: i64) -> bool {
    status(shop, id).await == Status::Bypass(BypassReason::Unavailable)
}

/// An access list that lacks one of the commands that the scripts of an invalidation use. Without
/// some of them only a part of the invalidations would fail, or an entry would be taken for another
/// program's, and stay.
#[tokio::test]
async fn without_one_command_of_an_invalidation_nothing_is_served() {
    bounded(async {
        let server = RedisServer::start();
        let shop = Shop::new(&Cache::new(over(&server)).await);
        let reader = shop.node(&Cache::new(over(&server)).await);
        for command in ["getrange", "exists", "pttl", "get", "del", "set", "time"] {
            for node in [&shop, &reader] {
                eventually(TEST_TIMEOUT, async || is_hit(node, 1).await).await;
            }
            server.cli(&["ACL", "SETUSER", "default", &format!("-{command}")]);
            let name = format!("without {command}");
            shop.rename(1, &name).await.expect("the write succeeds");
            assert_eq!(shop.name(1).await, name);
            // One that only reads finds out with its next health check.
            eventually(TEST_TIMEOUT, async || is_bypassed(&reader, 1).await).await;
            assert_eq!(reader.name(1).await, name);
            eventually(TEST_TIMEOUT, async || {
                reader.cache.get_stats().await.circuit == Some(Circuit::ReadsOnly)
            })
            .await;
            assert_eq!(reader.name(1).await, name);
            // One that starts then is told, too.
            let late = shop.node(&Cache::new(over(&server)).await);
            assert!(is_bypassed(&late, 1).await, "{command}");
            server.cli(&["ACL", "SETUSER", "default", &format!("+{command}")]);
            for node in [&shop, &reader, &late] {
                eventually(TEST_TIMEOUT, async || {
                    assert_eq!(node.name(1).await, name);
                    is_hit(node, 1).await
                })
                .await;
            }
        }
    })
    .await;
}

/// Somebody's script runs for ever: every command is refused with `BUSY`.
#[tokio::test]
async fn a_server_that_is_busy_with_a_script_is_not_served_from() {
    bounded(async {
        let server = RedisServer::start();
        server.cli(&["CONFIG", "SET", "busy-reply-threshold", "50"]);
        let shop = Shop::new(&Cache::new(over(&server)).await);
        let reader = shop.node(&Cache::new(over(&server).local_mb(16)).await);
        for node in [&shop, &reader] {
            eventually(TEST_TIMEOUT, async || is_hit(node, 1).await).await;
        }
        let endless = server.port().to_string();
        let endless = std::process::Command::new("redis-cli")
            .args(["-p", &endless, "EVAL", "while true do end", "0"])
            .stdout(std::process::Stdio::null())
            .spawn();
        let mut endless = endless.expect("redis-cli runs");
        eventually(TEST_TIMEOUT, async || {
            server.cli(&["PING"]).starts_with("BUSY")
        })
        .await;
        shop.rename(1, "new").await.expect("the write succeeds");
        assert_eq!(shop.name(1).await, "new");
        eventually(TEST_TIMEOUT, async || is_bypassed(&reader, 1).await).await;
        assert_eq!(reader.name(1).await, "new");
        // Reads have the same answer as writes.
        let circuit = reader.cache.get_stats().await.circuit;
        assert!(matches!(circuit, Some(Circuit::Open | Circuit::HalfOpen)));
        server.cli(&["SCRIPT", "KILL"]);
        endless.wait().expect("it has ended");
        for node in [&shop, &reader] {
            eventually(TEST_TIMEOUT, async || {
                assert_eq!(node.name(1).await, "new");
                is_hit(node, 1).await
            })
            .await;
        }
    })
    .await;
}

/// Values of other types under each key that the cache uses.
#[tokio::test]
async fn values_of_other_types_make_nothing_stale_and_stay_where_rows_are() {
    const MAKE: [(&str, &[&str]); 5] = [
        ("list", &["RPUSH", "KEY", "theirs"]),
        ("hash", &["HSET", "KEY", "field", "theirs"]),
        ("set", &["SADD", "KEY", "theirs"]),
        ("zset", &["ZADD", "KEY", "1", "theirs"]),
        ("stream", &["XADD", "KEY", "*", "field", "theirs"]),
    ];
    bounded(async {
        let server = RedisServer::start();
        let shop = Shop::new(&Cache::new(over(&server)).await);
        let other = shop.node(&Cache::new(over(&server).local_mb(16)).await);
        other.list(0, 2).await.expect("read");
        let list = server.cli(&["KEYS", "users:list:*"]);
        let keys = ["users:1", &list, "@gen:users", "@gen:users~derived", "@off"];
        for (kind, make) in MAKE {
            for key in keys {
                server.cli(&["DEL", key]);
                let make: Vec<_> = make.iter().map(|it| it.replace("KEY", key)).collect();
                let make: Vec<_> = make.iter().map(String::as_str).collect();
                server.cli(&make);
                let name = format!("{kind} under {key}");
                for (writer, reader) in [(&shop, &other), (&other, &shop)] {
                    writer.rename(1, &name).await.expect("written");
                    assert_eq!(writer.name(1).await, name);
                    let first = |rows: Vec<crate::shop::User>| rows[0].name.clone();
                    assert_eq!(writer.list(0, 2).await.map(first).expect("read"), name);
                    let list = async || reader.list(0, 2).await.map(first).expect("read");
                    eventually(TEST_TIMEOUT, async || {
                        reader.name(1).await == name && list().await == name
                    })
                    .await;
                }
                assert!(is_hit(&shop, 2).await || is_hit(&shop, 2).await, "{name}");
                let told = shop.cache.invalidate_all("users").await;
                assert_eq!(told, Acknowledgement::Delivered, "{name}");
                shop.cache.clear_all().await.expect("cleared");
                if !key.starts_with("@gen") {
                    assert_eq!(server.cli(&["TYPE", key]), kind, "{key} is left alone");
                }
                server.cli(&["DEL", key]);
            }
        }
    })
    .await;
}

#[derive(Clone)]
struct Long {
    cache: Cache,
    version: Arc<AtomicUsize>,
}

impl Long {
    #[cached(resource = "longs", cache = self.cache)]
    async fn row(&self, id: &str) -> usize {
        let _ = id;
        self.version.load(Ordering::SeqCst)
    }

    #[cached(resource = "longs", op = "by", id = id, cache = self.cache)]
    async fn by(&self, id: &str) -> usize {
        let _ = id;
        self.version.load(Ordering::SeqCst)
    }

    #[cached(
        resource = "longs", op = "list", tags("about:{tag}"), depends("others", id = tag), include_context("tenant"),
        cache = self.cache
    )]
    async fn list(&self, tag: &str) -> usize {
        let _ = tag;
        self.version.load(Ordering::SeqCst)
    }

    #[invalidates("longs", id = id, tags("about:{id}"), "others", id = id, cache = self.cache)]
    async fn write(&self, id: &str) {
        let _ = id;
        self.version.fetch_add(1, Ordering::SeqCst);
    }
}

/// In every position that an id, a tag or a tenant has.
#[tokio::test]
async fn ids_of_a_megabyte_make_short_keys_everywhere() {
    const LENGTH: usize = 1_000_000;
    bounded(async {
        let server = RedisServer::start();
        let shop = Shop::new(&Cache::new(over(&server)).await);
        let long = Long {
            cache: Cache::new(over(&server)).await,
            version: Arc::default(),
        };
        let id = "x".repeat(LENGTH);
        let other = format!("{}y", "x".repeat(LENGTH - 1));
        let cache = long.cache.clone();
        cache
            .with_key("tenant", &other, async {
                for round in 0..3 {
                    for id in [&id, &other] {
                        for _ in 0..2 {
                            assert_eq!(long.row(id).await, 2 * round);
                            assert_eq!(long.by(id).await, 2 * round);
                            assert_eq!(long.list(id).await, 2 * round);
                        }
                    }
                    assert!(is_hit(&shop, 1).await || is_hit(&shop, 1).await);
                    for id in [&id, &other] {
                        long.write(id).await;
                    }
                }
                for told in [
                    cache.invalidate("longs", &id).await,
                    cache.invalidate_tag(&id).await,
                ] {
                    assert_eq!(told, Acknowledgement::Delivered);
                }
                let key = Key::entity("longs", &id).expect("a key");
                cache.set(&key, &1_usize, 60).await.expect("stored");
                assert_eq!(cache.get::<usize>(&key).await, Some(1));
                assert_eq!(long.row(&id).await, 1);
                let by_text = format!("longs:{id}");
                assert_eq!(cache.delete(&by_text).await.ok(), Some(true));
            })
            .await;
        let keys = server.cli(&["--scan"]);
        let longest = keys.lines().map(str::len).max();
        assert!(longest.is_some_and(|length| length < 1_000), "{longest:?}");
        let stats = cache.get_stats().await;
        assert_eq!(
            (stats.circuit, stats.counters.pending),
            (Some(Circuit::Closed), 0)
        );
        let received = server.cli(&["INFO", "stats"]);
        let received = received
            .lines()
            .find_map(|line| line.strip_prefix("total_net_input_bytes:"));
        let received: u64 = received
            .and_then(|it| it.trim().parse().ok())
            .expect("a number");
        assert!(
            received < 8 << 20,
            "{received} bytes were sent to the server"
        );
    })
    .await;
}

/// Answers everything with one error, which is long and tries to write lines of its own into logs.
async fn answer_with_errors(listener: TcpListener) {
    let error = format!(
        "-ERR \u{1b}[31mred\u{202e}\u{7} {}\r\n",
        "long ".repeat(200_000)
    );
    while let Ok((mut client, _)) = listener.accept().await {
        let error = error.clone();
        cache_tests::spawn(async move {
            let mut piece = vec![0; 1 << 16];
            while let Ok(length @ 1..) = client.read(&mut piece).await {
                let commands = piece[..length].iter().filter(|byte| **byte == b'*').count();
                for _ in 0..commands {
                    if client.write_all(error.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

#[tokio::test]
async fn a_long_error_of_the_server_stays_on_its_line_and_short() {
    bounded(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        cache_tests::spawn(answer_with_errors(listener));
        let config = patient().redis(RedisConfig::at("127.0.0.1", port));
        let cache = Cache::new(config).await;
        let shop = Shop::new(&cache);
        assert_eq!(shop.name(1).await, "user 1");
        let stats = cache.get_stats().await;
        let texts = [
            stats.reason.expect("it is not used"),
            cache.doctor().await.to_string(),
        ];
        for text in texts {
            let control = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!text.contains(control), "{text:?}");
            assert!(text.len() < 4_000, "{} bytes", text.len());
        }
    })
    .await;
}

/// Another program's value under the key of the list of switches, which each process reads once a
/// second.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_value_in_place_of_the_list_of_switches_is_not_transferred() {
    bounded(async {
        let server = RedisServer::start();
        let config = over(&server).command_budget(Duration::from_secs(1));
        let shop = Shop::new(&Cache::new(config).await);
        server.cli(&["SETRANGE", "@off", "300000000", "x"]);
        let sent = || {
            let info = server.cli(&["INFO", "stats"]);
            let sent = info
                .lines()
                .find_map(|line| line.strip_prefix("total_net_output_bytes:"));
            sent.and_then(|bytes| bytes.trim().parse::<u64>().ok())
                .expect("a number")
        };
        let before = (sent(), server.calls("info"));
        // Each health check ends with the question for the role.
        eventually(TEST_TIMEOUT, async || {
            assert_eq!(shop.name(1).await, "user 1");
            server.calls("info") >= before.1 + 40
        })
        .await;
        let transferred = sent() - before.0;
        assert!(transferred < 20_000_000, "{transferred} bytes");
        assert!(is_hit(&shop, 1).await);
        // An operator is told, and the value is left alone.
        let refused = shop.cache.disable_everywhere("users").await;
        assert!(refused.is_err_and(|error| error.to_string().contains("is longer than")));
        assert_eq!(server.cli(&["STRLEN", "@off"]), "300000001");
    })
    .await;
}

/// Passes on, and resets each connection when the server has sent this many bytes over it.
async fn reset_after(listener: TcpListener, server: u16, bytes: Arc<AtomicUsize>) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
            return;
        };
        let limit = bytes.load(Ordering::SeqCst);
        let (mut client, mut server) = (client, server);
        cache_tests::spawn(async move {
            let (mut requests, mut answers) = (vec![0; 1 << 16], vec![0; 1 << 16]);
            let mut left = limit;
            loop {
                tokio::select! {
                    read = client.read(&mut requests) => match read {
                        Ok(length @ 1..) => if server.write_all(&requests[..length]).await.is_err() { return },
                        _ => return,
                    },
                    read = server.read(&mut answers) => match read {
                        Ok(length @ 1..) => {
                            let passed = length.min(left);
                            left -= passed;
                            let is_over = client.write_all(&answers[..passed]).await.is_err();
                            if is_over || left == 0 {
                                // A reset, and not an orderly end.
                                let _ = client.set_zero_linger();
                                return;
                            }
                        }
                        _ => return,
                    },
                }
            }
        });
    }
}

/// In the handshake, and in the middle of an answer, wherever that is.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_the_middle_of_an_answer_loses_nothing() {
    bounded(async {
        let server = RedisServer::start();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let bytes = Arc::new(AtomicUsize::new(usize::MAX));
        cache_tests::spawn(reset_after(listener, server.port(), Arc::clone(&bytes)));
        let shop = Shop::new(&Cache::new(over(&server)).await);
        let config = || {
            let redis = RedisConfig::at("127.0.0.1", port);
            patient()
                .command_budget(Duration::from_secs(1))
                .redis(redis)
        };
        let node = shop.node(&Cache::new(config()).await);
        let mut delivered = 0;
        for limit in (1..400).step_by(29).chain((400..12_000).step_by(331)) {
            bytes.store(limit, Ordering::SeqCst);
            let late = shop.node(&Cache::new(config()).await);
            for (number, writer) in [&node, &late].into_iter().enumerate() {
                let name = format!("after {limit} bytes, {number}");
                shop.name(1).await;
                shop.commit(1, &name);
                let told = writer.cache.invalidate("users", &1_i64).await;
                if told == Acknowledgement::Delivered {
                    assert_eq!(shop.name(1).await, name);
                    delivered += 1;
                }
                assert_eq!(writer.name(1).await, name);
            }
        }
        bytes.store(usize::MAX, Ordering::SeqCst);
        eventually(TEST_TIMEOUT, async || {
            is_hit(&node, 1).await && node.cache.get_stats().await.counters.pending == 0
        })
        .await;
        assert_eq!(shop.name(1).await, shop.committed(1));
        assert!(delivered > 0);
    })
    .await;
}

/// Connections are killed at many rates while one process writes and another one reads.
#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_make_no_acknowledged_write_unseen() {
    bounded(async {
        let server = RedisServer::start();
        let config = || over(&server).command_budget(Duration::from_secs(1));
        let shop = Shop::new(&Cache::new(config()).await);
        let reader = shop.node(&Cache::new(config()).await);
        let (mut delivered, mut hits) = (0, 0);
        for pause in [0, 3, 10, 30, 100, 300] {
            let ends = Arc::new(AtomicBool::new(false));
            let killer = std::thread::spawn({
                let (ends, port) = (Arc::clone(&ends), server.port().to_string());
                move || {
                    while !ends.load(Ordering::SeqCst) {
                        let mut kill = std::process::Command::new("redis-cli");
                        kill.args([
                            "-p", &port, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes",
                        ]);
                        let _ = kill.stdout(std::process::Stdio::null()).status();
                        std::thread::sleep(Duration::from_millis(pause));
                    }
                }
            });
            let until = Instant::now() + Duration::from_secs(2);
            let mut number = 0;
            while Instant::now() < until {
                let name = format!("{pause} {number}");
                number += 1;
                hits += u32::from(is_hit(&reader, 1).await);
                shop.commit(1, &name);
                let told = shop.cache.invalidate("users", &1_i64).await;
                if told == Acknowledgement::Delivered {
                    assert_eq!(reader.name(1).await, name);
                    delivered += 1;
                }
                assert_eq!(shop.name(1).await, name);
            }
            ends.store(true, Ordering::SeqCst);
            killer.join().expect("it ends");
            eventually(TEST_TIMEOUT, async || {
                is_hit(&shop, 1).await && is_hit(&reader, 1).await
            })
            .await;
            assert_eq!(reader.name(1).await, shop.committed(1));
        }
        assert!(
            delivered > 0 && hits > 0,
            "{delivered} delivered, {hits} hits"
        );
    })
    .await;
}
