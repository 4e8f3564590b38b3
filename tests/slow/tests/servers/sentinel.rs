//! Sentinels: the primary is the one that the majority's latest answer names, and no other is used.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cache_runtime::testing::internals::resolve;
use cache_runtime::{Acknowledgement, Cache, CacheConfig, RedisConfig};
use cache_tests::{Demo, RedisOptions, RedisServer, Sentinels, eventually};
use serde_json::json;

use crate::shop::{Shop, is_hit, is_used, nothing_stale_while};

const TEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Two seconds without the majority, found out by a question each second that may take half of one.
const NOT_SERVED_AFTER: Duration = Duration::from_millis(4000);

fn settings(sentinels: &Sentinels) -> CacheConfig {
    over(redis(sentinels))
}

fn over(redis: RedisConfig) -> CacheConfig {
    CacheConfig::default()
        .redis(redis)
        .command_budget(Duration::from_secs(2))
        .advice(false)
}

fn redis(sentinels: &Sentinels) -> RedisConfig {
    let addresses = (0..3).map(|number| ("127.0.0.1", sentinels.sentinel(number).port()));
    RedisConfig::sentinels(addresses, Sentinels::NAME)
}

#[tokio::test]
async fn the_primary_is_found_by_its_name() {
    let sentinels = Sentinels::start();
    let shop = Shop::over(settings(&sentinels)).await;
    is_used(&shop).await;
    assert_ne!(sentinels.server(0).cli(&["DBSIZE"]), "0");

    let unknown = RedisConfig::sentinels([("127.0.0.1", sentinels.sentinel(0).port())], "other");
    let cache = Cache::new(settings(&sentinels).redis(unknown)).await;
    let reason = cache.get_stats().await.reason.expect("it is not used");
    assert!(
        reason.contains("`other`") && reason.contains("REDIS_SENTINEL_MASTER"),
        "{reason}"
    );
}

#[tokio::test]
async fn servers_and_sentinels_have_passwords_of_their_own() {
    let options = RedisOptions::default()
        .password("server-word")
        .config("masterauth server-word");
    let sentinels = Sentinels::start_with(&options, Some("sentinel-word"));
    let redis = redis(&sentinels)
        .sentinel_password("sentinel-word")
        .login(None, "server-word");
    let shop = Shop::over(settings(&sentinels).redis(redis)).await;
    is_used(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_while_sentinels_fail_over() {
    let sentinels = Sentinels::start();
    let config = settings(&sentinels);
    let (hits, reads, sentinels) = nothing_stale_while(
        move || config.clone(),
        move || {
            sentinels.fail_over();
            std::thread::sleep(Duration::from_secs(3));
            sentinels
        },
    )
    .await;
    assert!(hits > 0, "{hits} of {reads}");
    let shop = Shop::over(settings(&sentinels)).await;
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    is_used(&shop).await;
    assert_ne!(sentinels.server(1).cli(&["DBSIZE"]), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_killed_is_replaced() {
    let mut sentinels = Sentinels::start();
    let shop = Shop::over(settings(&sentinels)).await;
    is_used(&shop).await;
    let port = sentinels.server(0).port();
    sentinels.server_mut(0).stop();
    sentinels.wait_for_another(port);
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    eventually(TEST_TIMEOUT, async || {
        shop.cache.invalidate("users", &1_i64).await == Acknowledgement::Delivered
    })
    .await;
    is_used(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_majority_nothing_is_served() {
    let mut sentinels = Sentinels::start();
    let shop = Shop::over(settings(&sentinels)).await;
    shop.user(1).await;
    assert!(is_hit(&shop, 1).await);
    sentinels.sentinel_mut(0).stop();
    // Two of three are the majority.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(is_hit(&shop, 1).await);
    // Where the machine is slow, once in time has to do.
    for round in 1.. {
        sentinels.sentinel_mut(1).pause();
        let silent = Instant::now();
        eventually(TEST_TIMEOUT, async || !is_hit(&shop, 1).await).await;
        let took = silent.elapsed();
        eventually(TEST_TIMEOUT, async || {
            let reason = shop.cache.get_stats().await.reason;
            reason.is_some_and(|reason| reason.contains("no majority"))
        })
        .await;
        sentinels.sentinel_mut(1).resume();
        eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
        if took < NOT_SERVED_AFTER {
            break;
        }
        assert!(round < 3, "served for {took:?}");
    }
}

/// A Sentinel that was cut off still names the former primary; it is asked first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_latest_answer_counts() {
    let mut sentinels = Sentinels::start();
    sentinels.sentinel_mut(0).pause();
    let answer = sentinels
        .sentinel(1)
        .cli(&["SENTINEL", "FAILOVER", Sentinels::NAME]);
    assert_eq!(answer, "OK");
    let new = sentinels.server(1).port().to_string();
    eventually(TEST_TIMEOUT, async || {
        let named =
            sentinels
                .sentinel(2)
                .cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Sentinels::NAME]);
        named.ends_with(&new)
    })
    .await;
    // What the former primary would answer is no longer the primary's word, whatever the first
    // Sentinel says.
    let shop = Shop::over(settings(&sentinels)).await;
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    is_used(&shop).await;
    assert_ne!(
        sentinels.server(1).cli(&["--scan", "--pattern", "users:*"]),
        ""
    );
    sentinels.sentinel_mut(0).resume();
}

/// A Sentinel by itself, which takes this server for the primary.
fn lone_sentinel(server: &RedisServer) -> RedisServer {
    lone_sentinel_with(server, "")
}

fn lone_sentinel_with(server: &RedisServer, config: &str) -> RedisServer {
    let name = Sentinels::NAME;
    RedisOptions::default()
        .config(&format!(
            "sentinel monitor {name} 127.0.0.1 {} 1",
            server.port()
        ))
        .config(&format!("sentinel down-after-milliseconds {name} 60000"))
        .config(config)
        .sentinel()
        .start()
}

/// From now on it takes this server for the primary; of a failover it knows nothing.
fn names(sentinel: &RedisServer, server: &RedisServer) {
    let (name, port) = (Sentinels::NAME, server.port().to_string());
    for command in [
        &["SENTINEL", "REMOVE", name][..],
        &["SENTINEL", "MONITOR", name, "127.0.0.1", &port, "1"],
    ] {
        assert_eq!(sentinel.cli(command), "OK");
    }
}

/// The first Sentinel has heard of no failover, and names a server that answers as a primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_answer_may_be_an_old_one() {
    let sentinels = Sentinels::start();
    sentinels.fail_over();
    let port = sentinels.primary_port();
    for number in 1..3 {
        let sentinel = sentinels.sentinel(number);
        let name = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Sentinels::NAME];
        let named = async || sentinel.cli(&name).ends_with(&port.to_string());
        eventually(TEST_TIMEOUT, named).await;
    }
    let former = RedisServer::start();
    let behind = lone_sentinel(&former);
    let ports = [
        behind.port(),
        sentinels.sentinel(1).port(),
        sentinels.sentinel(2).port(),
    ];
    let redis = RedisConfig::sentinels(ports.map(|port| ("127.0.0.1", port)), Sentinels::NAME);
    let shop = Shop::over(settings(&sentinels).redis(redis)).await;
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    assert_eq!(former.cli(&["--scan", "--pattern", "users:*"]), "");
    let keys = sentinels.server(1).cli(&["--scan", "--pattern", "users:*"]);
    assert_eq!(keys, "users:1");
}

/// A failover by hand that the only Sentinel can't end, since a replica does not answer: for ten
/// seconds it shows the former primary with the epoch of the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_failover_ends_the_new_primary_is_used() {
    let former = RedisServer::start();
    let replica = |priority: u8| {
        RedisOptions::default()
            .config("repl-diskless-sync-delay 0")
            .config(&format!("replica-priority {priority}"))
            .config(&format!("replicaof 127.0.0.1 {}", former.port()))
            .start()
    };
    let (new, mut silent) = (replica(1), replica(0));
    let sentinel = lone_sentinel(&former);
    let field = |name: &str| {
        let known = sentinel.cli(&["SENTINEL", "MASTER", Sentinels::NAME]);
        let mut lines = known.lines().skip_while(|line| *line != name);
        lines.nth(1).unwrap_or_default().to_owned()
    };
    eventually(TEST_TIMEOUT, async || field("num-slaves") == "2").await;
    for server in [&new, &silent] {
        let info = || server.cli(&["INFO", "replication"]);
        let up = async || info().contains("master_link_status:up");
        eventually(TEST_TIMEOUT, up).await;
    }
    silent.pause();
    let epoch = field("config-epoch");
    // The Sentinel has to know the replicas for a while before it chooses one.
    let failover = ["SENTINEL", "FAILOVER", Sentinels::NAME];
    eventually(TEST_TIMEOUT, async || sentinel.cli(&failover) == "OK").await;
    eventually(TEST_TIMEOUT, async || field("config-epoch") != epoch).await;
    assert_eq!(field("port"), former.port().to_string(), "it has ended");

    let redis = RedisConfig::sentinels([("127.0.0.1", sentinel.port())], Sentinels::NAME);
    let shop = Shop::over(over(redis)).await;
    let scan = ["--scan", "--pattern", "users:1"];
    let is_at_new = || new.cli(&scan) == "users:1";
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await && is_at_new()).await;
    assert_eq!(former.cli(&scan), "", "it was used meanwhile");
    silent.resume();
}

/// A former primary answers for ten seconds after a failover by hand. Processes that have not
/// learnt of it use it meanwhile, for four of them at most, so a process that has learnt of it
/// stores and serves nothing until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_primary_is_used_once_the_former_one_is_left() {
    let sentinels = Sentinels::start();
    let began = Instant::now();
    sentinels.fail_over();
    let shop = Shop::over(settings(&sentinels)).await;
    let is_left = || !sentinels.server(0).cli(&["ROLE"]).starts_with("master");
    let mut waited = false;
    while !is_hit(&shop, 1).await {
        waited |= !is_left();
        assert!(began.elapsed() < TEST_TIMEOUT, "it is never used");
    }
    let after = began.elapsed();
    assert!(waited, "the former primary was a replica at once");
    assert!(is_left() || after > Duration::from_secs(4), "{after:?}");
}

/// What Sentinels say holds for two seconds. A process that was stopped for longer does not know
/// whether its server still is the primary, although it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_stopped_asks_first() {
    let mut sentinels = Sentinels::start();
    let addresses = sentinels.addresses();
    for local in ["0", "16"] {
        let mut demo = Demo::start([
            ("REDIS_ENABLED", "True"),
            ("REDIS_SENTINELS", addresses.as_str()),
            ("CACHE_LOCAL_MB", local),
        ]);
        let body = json!({"name": "Ann", "email": format!("ann{local}@example.com"), "age": 30});
        let user = demo.post("/users", &body).await.json();
        let path = format!("/users/{}", user["id"]);
        let is_hit = async || demo.get(&path).await.cache_status().hit;
        eventually(TEST_TIMEOUT, is_hit).await;
        demo.pause();
        for number in 0..3 {
            sentinels.sentinel_mut(number).pause();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        demo.resume();
        let status = demo.get(&path).await.cache_status();
        assert!(!status.hit, "{local}: {status:?}");
        for number in 0..3 {
            sentinels.sentinel_mut(number).resume();
        }
        let is_hit = async || demo.get(&path).await.cache_status().hit;
        eventually(TEST_TIMEOUT, is_hit).await;
    }
}

/// Two processes hear of a failover at different times: one keeps a row at the new primary, the
/// other changes it and is told by the former one that all is invalidated. Each has a Sentinel of
/// its own, which says so.
struct ToldApart {
    former: RedisServer,
    new: RedisServer,
    /// The Sentinel of the writer.
    behind: RedisServer,
    _ahead: RedisServer,
    shop: Shop,
    writer: Shop,
}

impl ToldApart {
    /// The writer has a user of its own, with these rights at the new primary.
    async fn new(trusts: bool, rights: &[&str]) -> Self {
        let (former, new) = (RedisServer::start(), RedisServer::start());
        let user = ["ACL", "SETUSER", "app", "on", ">word", "&*", "+@all"];
        for (server, rights) in [(&former, &["~*"][..]), (&new, rights)] {
            assert_eq!(server.cli(&[&user, rights].concat()), "OK");
        }
        let (behind, ahead) = (lone_sentinel(&former), lone_sentinel(&new));
        let by = |sentinel: &RedisServer| {
            RedisConfig::sentinels([("127.0.0.1", sentinel.port())], Sentinels::NAME)
        };
        let over = |redis| over(redis).trust_restart(trusts);
        let shop = Shop::over(over(by(&ahead))).await;
        let writer = by(&behind).login(Some("app"), "word");
        let writer = shop.node(over(writer)).await;
        eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
        eventually(TEST_TIMEOUT, async || is_hit(&writer, 2).await).await;
        Self {
            former,
            new,
            behind,
            _ahead: ahead,
            shop,
            writer,
        }
    }

    /// The writer hears of it, too.
    fn tell(&mut self) {
        names(&self.behind, &self.new);
        self.former.stop();
    }
}

async fn done_again(change: impl AsyncFnOnce(&Shop) -> u64, trusts: bool, rights: &[&str]) {
    let mut apart = ToldApart::new(trusts, rights).await;
    let row = change(&apart.writer).await;
    assert!(
        apart.shop.user(1).await < row,
        "the servers know nothing of each other"
    );
    apart.tell();
    eventually(TEST_TIMEOUT, async || apart.shop.user(1).await == row).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_of_a_former_primary_are_repeated() {
    done_again(async |writer| writer.rename(1).await, false, &["~*"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_done_again_where_servers_do_not_say_who_they_are() {
    done_again(async |writer| writer.rename(1).await, true, &["~*"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_all_was_removed_is_done_again() {
    let clear = async |writer: &Shop| {
        let row = writer.commit();
        writer.cache.clear_all().await.expect("the server answers");
        row
    };
    done_again(clear, false, &["~*"]).await;
}

/// At the new primary the user may not write rows. So their whole resource ends there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_new_primary_refuses_ends_with_its_resource() {
    let rename = async |writer: &Shop| writer.rename(1).await;
    done_again(rename, false, &["%R~*", "~@*"]).await;
}

/// Nor may it write the generation of the resource. What it may write is replaced once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_new_primary_has_taken_is_not_repeated() {
    let rights = ["%R~*", "~@gen:probe*", "~@gen:users~derived"];
    let mut apart = ToldApart::new(false, &rights).await;
    apart.shop.list(1).await;
    let generation = |apart: &ToldApart| apart.new.cli(&["GET", "@gen:users~derived"]);
    let before = generation(&apart);
    let row = apart.writer.rename(1).await;
    assert_eq!(generation(&apart), before);
    apart.tell();
    eventually(TEST_TIMEOUT, async || generation(&apart) != before).await;
    let some_attempts = async || {
        let refused = apart.new.refused("evalsha");
        let more = async || apart.new.refused("evalsha") > refused + 9;
        eventually(TEST_TIMEOUT, more).await;
    };
    some_attempts().await;
    let once = generation(&apart);
    some_attempts().await;
    assert_eq!(generation(&apart), once);
    assert!(apart.shop.user(1).await < row);
    assert_eq!(apart.new.cli(&["ACL", "SETUSER", "app", "~*"]), "OK");
    eventually(TEST_TIMEOUT, async || apart.shop.user(1).await == row).await;
}

/// Nor may it write the generation of the resource. What others make of the old row, after the
/// generation of that was replaced, ends with the row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_of_a_row_that_a_new_primary_refuses_ends_with_it() {
    let rights = ["%R~*", "~@gen:probe*", "~@gen:users~derived"];
    let mut apart = ToldApart::new(false, &rights).await;
    apart.shop.card(1).await;
    let generation = |apart: &ToldApart| apart.new.cli(&["GET", "@gen:users~derived"]);
    let before = generation(&apart);
    let row = apart.writer.rename(1).await;
    assert_eq!(generation(&apart), before);
    apart.tell();
    eventually(TEST_TIMEOUT, async || generation(&apart) != before).await;
    assert!(apart.shop.card(1).await < row, "the row is not refused");
    assert_eq!(apart.new.cli(&["ACL", "SETUSER", "app", "~*"]), "OK");
    eventually(TEST_TIMEOUT, async || apart.shop.card(1).await == row).await;
}

/// The user of the Sentinels, with the permissions that the book lists. The doctor tells their login
/// from that of the servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_may_require_a_user_of_their_own() {
    let mut server = RedisServer::start();
    let sentinel = lone_sentinel(&server);
    let user = [
        "ACL SETUSER watcher on >word &+switch-master",
        "+hello +auth +subscribe",
        "+sentinel|master +sentinel|replicas +sentinel|get-master-addr-by-name",
    ]
    .join(" ");
    let words: Vec<_> = user.split(' ').collect();
    assert_eq!(sentinel.cli(&words), "OK");
    assert_eq!(sentinel.cli(&["ACL", "SETUSER", "default", "off"]), "OK");
    let redis = || RedisConfig::sentinels([("127.0.0.1", sentinel.port())], Sentinels::NAME);
    let shop = Shop::over(over(redis().sentinel_login("watcher", "word"))).await;
    eventually(TEST_TIMEOUT, async || {
        shop.cache.get_stats().await.reason.is_none()
    })
    .await;
    is_used(&shop).await;
    for wrong in [redis(), redis().sentinel_login("watcher", "wr0ng-word")] {
        let report = Cache::new(over(wrong)).await.doctor().await.to_string();
        assert!(
            report.contains("correct REDIS_SENTINEL_PASSWORD and REDIS_SENTINEL_USERNAME"),
            "{report}"
        );
        assert!(!report.contains("correct REDIS_PASSWORD"), "{report}");
        assert!(!report.contains("wr0ng-word"), "{report}");
    }
    server.stop();
}

/// Sentinels have names, and so has the primary another address than they.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lasts_while_sentinels_are_named() {
    let server = RedisServer::start();
    let sentinel = lone_sentinel(&server);
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    resolve("sentinel.test", vec![address(sentinel.port())]);
    let redis = RedisConfig::sentinels([("sentinel.test", 1)], Sentinels::NAME);
    let shop = Shop::over(over(redis).local_mb(16)).await;
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    let connections = || server.cli(&["CLIENT", "LIST", "TYPE", "normal"]);
    let id = |list: &str| {
        let named = list.lines().find(|line| line.contains("resp=3"))?;
        named.split(' ').next().map(str::to_owned)
    };
    let before = id(&connections());
    // All names are looked at again.
    for n in 0..10 {
        resolve("other.test", vec![address(n)]);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(is_hit(&shop, 1).await);
    }
    assert!(before.is_some());
    assert_eq!(id(&connections()), before);
    let report = shop.cache.doctor().await.to_string();
    let sentinels = format!(":{}", sentinel.port());
    assert!(!report.contains(&sentinels), "{report}");
}

/// The former primary goes on answering, and nobody counts this as a failover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_is_left_when_another_is_named() {
    let (former, new) = (RedisServer::start(), RedisServer::start());
    let sentinel = lone_sentinel(&former);
    let redis = RedisConfig::sentinels([("127.0.0.1", sentinel.port())], Sentinels::NAME);
    let shop = Shop::over(over(redis)).await;
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    names(&sentinel, &new);
    eventually(TEST_TIMEOUT, async || former.connections() == 0).await;
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    assert_eq!(new.cli(&["EXISTS", "users:1"]), "1");
}

/// How long a former primary may be in use elsewhere.
const LEFT_AFTER: Duration = Duration::from_secs(4);

/// A Sentinel that has just started, or was reset, lists no replicas. The former primary goes on
/// answering, and other processes may not have heard of the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_primary_is_waited_for_though_nobody_lists_it() {
    let (former, new) = (RedisServer::start(), RedisServer::start());
    let sentinel = lone_sentinel(&former);
    let redis = RedisConfig::sentinels([("127.0.0.1", sentinel.port())], Sentinels::NAME);
    let shop = Shop::over(over(redis.clone())).await;
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    let began = Instant::now();
    names(&sentinel, &new);
    // The one knows the former primary, the other has never heard of it.
    let started = Shop::over(over(redis)).await;
    for shop in [&shop, &started] {
        eventually(TEST_TIMEOUT, async || {
            is_hit(shop, 1).await && new.cli(&["EXISTS", "users:1"]) == "1"
        })
        .await;
        let after = began.elapsed();
        assert!(after > LEFT_AFTER, "used after {after:?}");
    }
}

/// Sentinels that are set up anew begin with the first epoch again. What they say of another server
/// confirms nothing, and is followed once the last failover is long ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_is_left_when_sentinels_are_set_up_anew() {
    let (former, new) = (RedisServer::start(), RedisServer::start());
    let epoch = format!("sentinel config-epoch {} 7", Sentinels::NAME);
    let sentinel = lone_sentinel_with(&former, &epoch);
    let redis = RedisConfig::sentinels([("127.0.0.1", sentinel.port())], Sentinels::NAME);
    let shop = Shop::over(over(redis)).await;
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    names(&sentinel, &new);
    eventually(TEST_TIMEOUT, async || former.connections() == 0).await;
    // Ten seconds in which the last failover counts, four for others, and the pauses between
    // attempts to connect.
    eventually(2 * TEST_TIMEOUT, async || {
        is_hit(&shop, 1).await && new.cli(&["EXISTS", "users:1"]) == "1"
    })
    .await;
    assert_eq!(former.connections(), 0);
}

/// From the promotion of a replica to the end of the failover the Sentinel that makes it shows the
/// new epoch beside the former primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_made_during_a_failover_uses_the_new_primary() {
    let mut sentinels = Sentinels::with_replicas(2);
    // Nobody else follows the new primary, so that it takes a second to the end.
    sentinels.server_mut(2).pause();
    let failover = ["SENTINEL", "FAILOVER", Sentinels::NAME];
    assert_eq!(sentinels.sentinel(0).cli(&failover), "OK");
    let new = sentinels.server(1).port();
    eventually(TEST_TIMEOUT, async || sentinels.primary_port() == new).await;
    let shop = Shop::over(settings(&sentinels)).await;
    eventually(TEST_TIMEOUT, async || is_hit(&shop, 1).await).await;
    let scan = ["--scan", "--pattern", "users:*"];
    assert_eq!(sentinels.server(0).cli(&scan), "");
    assert_eq!(sentinels.server(1).cli(&scan), "users:1");
    sentinels.server_mut(2).resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_left_behind_by_failovers() {
    let sentinels = Sentinels::start();
    let shop = Shop::over(settings(&sentinels).local_mb(16)).await;
    let _other = shop.node(settings(&sentinels)).await;
    let mut wanted = [2, 0];
    for _ in 0..3 {
        eventually(TEST_TIMEOUT, async || {
            let of_servers = [0, 1].map(|number| sentinels.server(number).connections());
            let of_sentinels = [0, 1, 2].map(|number| sentinels.sentinel(number).connections());
            of_servers == wanted && of_sentinels == [2; 3]
        })
        .await;
        sentinels.wait_until_whole();
        // Refused soon after another one.
        eventually(TEST_TIMEOUT, async || {
            let failover = ["SENTINEL", "FAILOVER", Sentinels::NAME];
            sentinels.sentinel(0).cli(&failover) == "OK"
        })
        .await;
        wanted.reverse();
        sentinels.wait_until_whole();
    }
}
