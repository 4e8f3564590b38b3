//! An entry is bound to its key: under another one it is nobody's, however it came there.

use std::time::Duration;

use cache_runtime::{Cache, RedisConfig, Status, observe};
use cache_tests::{Mode, Proxy, RedisServer, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::patient;
use crate::shop::{DbError, Shop, User};
use crate::{bounded, over};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Whether row 1 is a hit; in any case it is row 1.
async fn is_right_hit(shop: &Shop) -> bool {
    let (user, outcomes) = observe(shop.get(1)).await;
    assert_eq!(user.expect("read").expect("there").name, "user 1");
    matches!(outcomes[0].status, Status::Hit { .. })
}

#[tokio::test]
async fn an_entry_that_was_copied_or_renamed_is_never_served() {
    bounded(async {
        let server = RedisServer::start();
        let remote = Shop::new(&Cache::new(over(&server)).await);
        let local = remote.node(&Cache::new(over(&server).local_mb(16)).await);
        for shop in [&remote, &local] {
            for take in ["COPY users:2 users:1 REPLACE", "RENAME users:2 users:1"] {
                eventually(TEST_TIMEOUT, async || is_right_hit(shop).await).await;
                assert_eq!(shop.name(2).await, "user 2");
                server.cli(&take.split(' ').collect::<Vec<_>>());
                assert!(server.cli(&["GET", "users:1"]).contains("user 2"), "{take}");
                // Row 2 is never served as row 1, and the place of row 1 is not lost to it.
                eventually(TEST_TIMEOUT, async || is_right_hit(shop).await).await;
            }
        }
        // An absence, and a batch, too.
        assert_eq!(remote.get(9).await.expect("read"), None);
        server.cli(&["COPY", "users:9", "users:1", "REPLACE"]);
        let many = remote.get_many(&[1, 2, 3]).await.expect("read");
        assert_eq!(many[&1].name, "user 1");
        server.cli(&["COPY", "users:2", "users:3", "REPLACE"]);
        let many = remote.get_many(&[1, 2, 3]).await.expect("read");
        assert_eq!((&*many[&1].name, &*many[&3].name), ("user 1", "user 3"));
    })
    .await;
}

/// As after a script that renames live entries, or a change of what a stamp is made of.
#[tokio::test]
async fn thousands_of_renamed_entries_cost_no_connection() {
    const ROWS: i64 = 2_000;
    bounded(async {
        let server = RedisServer::start();
        for local_mb in [0, 16] {
            server.cli(&["FLUSHALL"]);
            let proxy = Proxy::start(server.port());
            let config = patient().redis(RedisConfig::at("127.0.0.1", proxy.port()));
            let shop = Shop::new(&Cache::new(config.local_mb(local_mb)).await);
            let ids: Vec<i64> = (1..=2 * ROWS).collect();
            for id in &ids {
                shop.commit(*id, &format!("user {id}"));
            }
            let (here, elsewhere) = ids.split_at(ROWS as usize);
            shop.get_many(here).await.expect("read");
            let copy = "for id = 1, tonumber(ARGV[1]) do redis.call('COPY', 'users:' .. id, 'users:' .. id + ARGV[1]) end";
            server.cli(&["EVAL", copy, "0", &ROWS.to_string()]);
            assert!(server.cli(&["GET", "users:2001"]).contains("user 1\""));

            let connections = proxy.accepted();
            let is_right = |id: i64, user: Result<Option<User>, DbError>, status: Status| {
                assert_eq!(user.expect("read").expect("there").name, format!("user {id}"));
                assert!(!matches!(status, Status::Bypass(_)), "{id}: {status:?}");
            };
            let (in_turn, rest) = elsewhere.split_at(200);
            let (at_once, in_a_batch) = rest.split_at(800);
            for id in in_turn {
                let (user, outcomes) = observe(shop.get(*id)).await;
                is_right(*id, user, outcomes[0].status);
            }
            let reads: Vec<_> = at_once
                .iter()
                .map(|id| {
                    let (id, shop) = (*id, shop.clone());
                    cache_tests::spawn(async move { (id, observe(shop.get(id)).await) })
                })
                .collect();
            for read in reads {
                let (id, (user, outcomes)) = read.await.expect("answered");
                is_right(id, user, outcomes[0].status);
            }
            let many = shop.get_many(in_a_batch).await.expect("read");
            for id in in_a_batch {
                assert_eq!(many[id].name, format!("user {id}"));
            }
            // Without local entries this runtime has got one of its own, which the first of them
            // has ended.
            let own = usize::from(local_mb == 0);
            assert!((connections..=connections + own).contains(&proxy.accepted()));
            // They were found, and are overwritten.
            assert!(server.calls("echo") > 0);
            let asked = server.calls("echo");
            for id in elsewhere {
                assert_eq!(shop.name(*id).await, format!("user {id}"));
            }
            assert_eq!(server.calls("echo"), asked);
        }
    })
    .await;
}

/// The list of permissions that an operator has made for an earlier version.
#[tokio::test]
async fn without_permission_for_echo_its_refusal_is_as_good() {
    bounded(async {
        let server = RedisServer::start();
        server.cli(&["ACL", "SETUSER", "default", "-echo"]);
        let proxy = Proxy::start(server.port());
        let config = patient().redis(RedisConfig::at("127.0.0.1", proxy.port()));
        let shop = Shop::new(&Cache::new(config).await);
        let connections = proxy.accepted();
        for id in [2, 1] {
            assert_eq!(shop.name(id).await, format!("user {id}"));
        }
        server.cli(&["COPY", "users:2", "users:1", "REPLACE"]);
        let (user, outcomes) = observe(shop.get(1)).await;
        assert_eq!(user.expect("read").expect("there").name, "user 1");
        assert!(
            !matches!(outcomes[0].status, Status::Bypass(_)),
            "{:?}",
            outcomes[0].status
        );
        assert!(is_right_hit(&shop).await);
        assert_eq!(proxy.accepted(), connections);
    })
    .await;
}

/// One answer more than was asked for: from then on each command gets the one before.
#[tokio::test]
async fn a_connection_that_is_off_by_one_is_given_up() {
    bounded(async {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.port());
        let config = patient().redis(RedisConfig::at("127.0.0.1", proxy.port()));
        let shop = Shop::new(&Cache::new(config).await);
        for id in 1..=3 {
            shop.name(id).await;
        }
        let entry = server.cli(&["GET", "users:2"]);
        let generation = server.cli(&["GET", "@gen:users"]);
        let answer = format!(
            "*2\r\n${}\r\n{entry}\r\n${}\r\n{generation}\r\n",
            entry.len(),
            generation.len()
        );
        let connections = proxy.accepted();
        // While a read waits for its answer: nobody asked for what comes else.
        proxy.set(Mode::HoldAnswers);
        let held = proxy.held();
        let waiting = cache_tests::spawn({
            let shop = shop.clone();
            async move { shop.name(1).await }
        });
        eventually(TEST_TIMEOUT, async || proxy.held() > held).await;
        proxy.inject(answer.as_bytes());
        assert_eq!(waiting.await.expect("no panic"), "user 1");
        proxy.set(Mode::Pass);
        for _ in 0..20 {
            for id in 1..=3 {
                assert_eq!(shop.name(id).await, format!("user {id}"));
            }
        }
        eventually(TEST_TIMEOUT, async || is_right_hit(&shop).await).await;
        assert!(proxy.accepted() > connections, "it went on");
    })
    .await;
}

/// Passes everything on, but each script that is loaded gets another hash than its own.
async fn pass_on_with_other_hashes(listener: TcpListener, server: u16) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
            return;
        };
        let (mut requests, mut to_client) = client.into_split();
        let (mut answers, mut to_server) = server.into_split();
        cache_tests::spawn(async move { tokio::io::copy(&mut requests, &mut to_server).await });
        cache_tests::spawn(async move {
            let mut piece = vec![0; 1 << 16];
            while let Ok(length @ 1..) = answers.read(&mut piece).await {
                let piece = &mut piece[..length];
                let is_hash = |it: &[u8]| it.starts_with(b"$40\r\n");
                let hashes: Vec<_> = (0..length).filter(|at| is_hash(&piece[*at..])).collect();
                for at in hashes {
                    piece[at + 5..length.min(at + 45)].fill(b'0');
                }
                if to_client.write_all(piece).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// As when a connection is off by one from its first moments on.
#[tokio::test]
async fn another_scripts_hash_is_no_answer_and_no_panic() {
    bounded(async {
        let server = RedisServer::start();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        cache_tests::spawn(pass_on_with_other_hashes(listener, server.port()));
        let cache = Cache::new(patient().redis(RedisConfig::at("127.0.0.1", port))).await;
        let shop = Shop::new(&cache);
        assert_eq!(shop.name(1).await, "user 1");
        let reason = cache.get_stats().await.reason.unwrap_or_default();
        assert!(reason.contains("answers are not those"), "{reason}");
    })
    .await;
}
