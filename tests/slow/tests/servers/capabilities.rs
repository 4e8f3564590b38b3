//! What a server can't do is found out before it is used, and named with its fix.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use cache_runtime::{
    Cache, CacheConfig, DiagnosticKind, RedisConfig, Status, cached, invalidates, observe,
};
use cache_tests::{RedisCluster, RedisOptions, RedisServer, Sentinels, eventually};

struct Shop {
    cache: Cache,
}

impl Shop {
    #[cached(resource = "users", ttl = 60, cache = self.cache)]
    async fn user(&self, id: i64) -> i64 {
        id
    }

    #[invalidates("users", id = id, cache = self.cache)]
    async fn rename(&self, id: i64) {
        let _ = id;
    }
}

fn over(port: u16) -> CacheConfig {
    CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", port))
        .command_budget(Duration::from_secs(5))
}

async fn is_hit(shop: &Shop) -> bool {
    matches!(observe(shop.user(1)).await.1[0].status, Status::Hit { .. })
}

/// Entries are served, and invalidations take effect.
async fn is_used(cache: &Cache) {
    let shop = Shop {
        cache: cache.clone(),
    };
    shop.user(1).await;
    assert!(is_hit(&shop).await);
    shop.rename(1).await;
    assert!(!is_hit(&shop).await);
    assert!(is_hit(&shop).await);
}

/// Nothing is served; says why, in the statistics and in the doctor's report.
async fn refusal(cache: &Cache) -> String {
    let shop = Shop {
        cache: cache.clone(),
    };
    shop.user(1).await;
    assert!(!is_hit(&shop).await);
    assert!(!cache.is_available().await);
    let reason = cache.get_stats().await.reason.expect("it is not used");
    let report = cache.doctor().await;
    let [advice] = &report.advice[..] else {
        panic!("{report}");
    };
    assert_eq!(advice.kind, DiagnosticKind::Unreachable);
    assert!(advice.text.contains(&reason), "{advice}: {reason}");
    advice.text.clone()
}

/// What it lacks, as the doctor says.
async fn lacks(cache: &Cache) -> Vec<String> {
    let advice = cache.doctor().await.advice.into_iter();
    let lacks = advice.filter(|it| it.kind == DiagnosticKind::MissingCapability);
    lacks.map(|it| it.text).collect()
}

#[tokio::test]
async fn a_server_that_can_do_all_lacks_nothing() {
    let server = RedisServer::start();
    let cache = Cache::new(over(server.port())).await;
    is_used(&cache).await;
    assert_eq!(lacks(&cache).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_sentinel_is_no_redis_and_names_the_primary() {
    let sentinels = Sentinels::start();
    let cache = Cache::new(over(sentinels.sentinel(0).port())).await;
    let reason = refusal(&cache).await;
    let primary = format!("`mymaster` at 127.0.0.1:{}", sentinels.server(0).port());
    for part in ["this is a Sentinel", &primary] {
        assert!(reason.contains(part), "{part:?} is missing in: {reason}");
    }
}

#[tokio::test]
async fn without_resp3_nothing_is_kept_in_the_process() {
    let server = RedisServer::options()
        .config("rename-command HELLO \"\"")
        .start();
    for megabytes in [0, 16] {
        let cache = Cache::new(over(server.port()).local_mb(megabytes)).await;
        is_used(&cache).await;
        let stats = cache.get_stats().await;
        assert!(
            stats
                .local
                .is_none_or(|local| !local.serving && local.hits == 0)
        );
        let [lacks] = &lacks(&cache).await[..] else {
            panic!("it lacks one thing");
        };
        assert!(
            lacks.contains("RESP3") && lacks.contains("HELLO"),
            "{lacks}"
        );
    }
}

#[tokio::test]
async fn scripts_run_by_their_text_where_they_may_not_by_their_hash() {
    let server = RedisServer::options()
        .config("rename-command EVALSHA \"\"")
        .start();
    let cache = Cache::new(over(server.port())).await;
    is_used(&cache).await;
    assert!(server.calls("eval") > 0);
    let lacks = lacks(&cache).await;
    assert!(
        lacks.len() == 1 && lacks[0].contains("EVALSHA"),
        "{lacks:?}"
    );

    let server = RedisServer::options()
        .config("user app on >app-word ~* +@all -evalsha -script")
        .start();
    let login = RedisConfig::at("127.0.0.1", server.port()).login(Some("app"), "app-word");
    let cache = Cache::new(over(server.port()).redis(login)).await;
    is_used(&cache).await;
}

#[tokio::test]
async fn a_server_that_runs_no_scripts_is_refused() {
    let server = RedisServer::options()
        .config("rename-command EVALSHA \"\"")
        .config("rename-command EVAL \"\"")
        .start();
    let reason = refusal(&Cache::new(over(server.port())).await).await;
    for part in ["runs no scripts", "EVALSHA", "EVAL", "+evalsha"] {
        assert!(reason.contains(part), "{part:?} is missing in: {reason}");
    }
    let server = RedisServer::options()
        .config("user app on >app-word ~* +@all -evalsha -eval")
        .start();
    let login = RedisConfig::at("127.0.0.1", server.port()).login(Some("app"), "app-word");
    let reason = refusal(&Cache::new(over(server.port()).redis(login)).await).await;
    assert!(reason.contains("runs no scripts"), "{reason}");
}

#[tokio::test]
async fn without_scan_all_else_works() {
    let server = RedisServer::options()
        .config("rename-command SCAN \"\"")
        .start();
    let cache = Cache::new(over(server.port())).await;
    is_used(&cache).await;
    let [lacks] = &lacks(&cache).await[..] else {
        panic!("it lacks one thing");
    };
    assert!(
        lacks.contains("SCAN") && lacks.contains("clear_all"),
        "{lacks}"
    );
}

#[tokio::test]
async fn a_node_without_slots_is_not_served_from() {
    let server = RedisServer::options().config("cluster-enabled yes").start();
    let reason = refusal(&Cache::new(over(server.port())).await).await;
    assert!(
        reason.contains("no slots") && reason.contains("--cluster create"),
        "{reason}"
    );
}

/// Over a user with these permissions.
fn as_user(server: &RedisServer) -> CacheConfig {
    let login = RedisConfig::at("127.0.0.1", server.port()).login(Some("app"), "app-word");
    over(server.port()).redis(login)
}

/// Whether the doctor says so, be it as a permission.
async fn scan_is_missing(cache: &Cache) -> bool {
    let advice = cache.doctor().await.advice.into_iter();
    let mut about = advice.filter(|it| {
        [
            DiagnosticKind::MissingCapability,
            DiagnosticKind::Permissions,
        ]
        .contains(&it.kind)
    });
    about.any(|it| it.text.to_uppercase().contains("SCAN"))
}

#[tokio::test]
async fn without_the_permission_to_scan_all_else_works() {
    let server = RedisServer::options()
        .config("user app on >app-word ~* &* +@all -scan")
        .start();
    let cache = Cache::new(as_user(&server)).await;
    is_used(&cache).await;
    assert!(scan_is_missing(&cache).await);
    cache.clear_all().await.expect_err("it finds no keys");
}

#[tokio::test]
async fn without_tracking_nothing_is_kept_in_the_process() {
    let server = RedisServer::options()
        .config("user app on >app-word ~* &* +@all -client|tracking")
        .start();
    let cache = Cache::new(as_user(&server).local_mb(16)).await;
    is_used(&cache).await;
    let local = cache.get_stats().await.local.expect("it is asked for");
    assert!(!local.serving && local.hits == 0, "{local:?}");
    let lacks = lacks(&cache).await;
    assert!(
        lacks.len() == 1 && lacks[0].contains("CLIENT TRACKING"),
        "{lacks:?}"
    );
    // It is not asked for: nothing is missing.
    let cache = Cache::new(as_user(&server)).await;
    is_used(&cache).await;
    assert_eq!(self::lacks(&cache).await, Vec::<String>::new());
}

/// Answers all commands, and hangs up at `INFO`.
fn hang_up_at_info(client: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut client = client;
    let mut line = String::new();
    loop {
        let mut number = |reader: &mut BufReader<TcpStream>| {
            line.clear();
            reader.read_line(&mut line)?;
            let number = line.trim().get(1..).and_then(|number| number.parse().ok());
            number.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))
        };
        let words: usize = number(&mut reader)?;
        let mut command = Vec::new();
        for _ in 0..words {
            let length: usize = number(&mut reader)?;
            let mut word = vec![0; length + 2];
            reader.read_exact(&mut word)?;
            command.push(String::from_utf8_lossy(&word[..length]).to_uppercase());
        }
        match command.first().map(String::as_str) {
            Some("INFO") => return Ok(()),
            Some("HELLO") => client.write_all(b"-ERR unknown command 'HELLO'\r\n")?,
            _ => client.write_all(b"+OK\r\n")?,
        }
    }
}

#[tokio::test]
async fn a_proxy_that_hangs_up_at_info_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    // It ends with the process.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || hang_up_at_info(client));
        }
    });
    let reason = refusal(&Cache::new(over(port)).await).await;
    for part in ["hung up", "INFO", "twemproxy", "connect to Redis itself"] {
        assert!(reason.contains(part), "{part:?} is missing in: {reason}");
    }
}

#[tokio::test]
async fn a_cluster_without_resp3_is_used_and_keeps_nothing_in_the_process() {
    let options = RedisOptions::default().config("rename-command HELLO \"\"");
    let cluster = RedisCluster::start_with(2, 0, options);
    let seeds = [("127.0.0.1", cluster.node(0).port())];
    let config = over(0).redis(RedisConfig::cluster(seeds)).local_mb(16);
    let cache = Cache::new(config).await;
    is_used(&cache).await;
    let local = cache.get_stats().await.local.expect("it is asked for");
    assert!(!local.serving && local.hits == 0, "{local:?}");
    let lacks = lacks(&cache).await;
    assert!(lacks.len() == 1 && lacks[0].contains("RESP3"), "{lacks:?}");
}

#[tokio::test]
async fn a_capability_that_one_node_lacks_is_reported() {
    let cluster = RedisCluster::start(2, 0);
    for node in 0..2 {
        let rights = |scan: &str| {
            let answer = cluster.node(node).cli(&["ACL", "SETUSER", "default", scan]);
            assert_eq!(answer, "OK");
        };
        rights("-scan");
        let seeds = [("127.0.0.1", cluster.node(0).port())];
        let cache = Cache::new(over(0).redis(RedisConfig::cluster(seeds))).await;
        is_used(&cache).await;
        let is_said = async || scan_is_missing(&cache).await;
        eventually(Duration::from_secs(20), is_said).await;
        rights("+scan");
    }
}
