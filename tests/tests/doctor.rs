//! The doctor: each piece of advice appears with a server set up so that it must, and none with one
//! set up well.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output};
use std::time::Duration;

use cache_runtime::{Cache, CacheConfig, Diagnostic, DiagnosticKind, DoctorReport, RedisConfig};
use cache_runtime::{cached, invalidates};
use cache_tests::{
    Demo, RedisCluster, RedisOptions, RedisServer, demo_program, eventually, free_port,
};

const SOON: Duration = Duration::from_secs(30);

struct Shop {
    cache: Cache,
}

impl Shop {
    #[cached(resource = "rates", ttl = 60, cache = self.cache)]
    async fn rate(&self, id: i64) -> i64 {
        id
    }

    #[cached(resource = "users", ttl = 60, cache = self.cache)]
    async fn user(&self, id: i64) -> i64 {
        id
    }

    #[invalidates("users", id = id, crash_safe, cache = self.cache)]
    async fn rename(&self, id: i64) -> i64 {
        id
    }
}

/// As the book says that a Redis is to be set up.
fn well() -> RedisOptions {
    RedisServer::options()
        .config("maxmemory 64mb")
        .config("maxmemory-policy allkeys-lru")
}

fn over(server: &RedisServer) -> CacheConfig {
    CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", server.port()))
        .command_budget(Duration::from_secs(5))
}

async fn report_of(config: CacheConfig) -> DoctorReport {
    loop {
        let cache = Cache::new(config.clone()).await;
        let report = cache.doctor().await;
        cache.shutdown().await;
        // A machine that is busy enough keeps a connection waiting for a second.
        if !report.to_string().contains("no answer within") {
            return report;
        }
    }
}

fn one(report: DoctorReport, kind: DiagnosticKind, parts: &[&str]) {
    let [
        Diagnostic {
            kind: found, text, ..
        },
    ] = &report.advice[..]
    else {
        panic!("{report}");
    };
    assert_eq!((*found, text.lines().count()), (kind, 1), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[tokio::test]
async fn a_server_that_is_set_up_well_gets_none_in_use_or_not() {
    let server = well().start();
    let found = report_of(over(&server)).await;
    assert_eq!(found.advice, [], "{found}");
    assert_eq!(found.not_checked, Vec::<String>::new());

    for config in [over(&server), over(&server).namespace("shop")] {
        let cache = Cache::new(config).await;
        let shop = Shop {
            cache: cache.clone(),
        };
        for id in 0..50 {
            let _stored = (shop.user(id).await, shop.rate(id).await);
        }
        shop.rename(1).await;
        // Entries, generations, and what is nobody's business.
        server.cli(&["SET", "session:1", "theirs"]);
        let found = cache.doctor().await;
        assert_eq!(found.advice, [], "{found}");
        let seen = found
            .checked
            .iter()
            .find(|what| what.contains("keys"))
            .expect("looked at");
        assert!(!seen.starts_with("0 "), "{found}");
        cache.shutdown().await;
    }
    assert_eq!(server.cli(&["--scan", "--pattern", "*@probe*"]), "");
}

#[tokio::test]
async fn memory_that_is_not_limited_or_not_evicted() {
    let server = RedisServer::start();
    one(
        report_of(over(&server)).await,
        DiagnosticKind::NoMemoryLimit,
        &["`maxmemory`"],
    );
    server.cli(&["CONFIG", "SET", "maxmemory", "64mb"]);
    let found = report_of(over(&server)).await;
    one(
        found,
        DiagnosticKind::NoEviction,
        &["`maxmemory-policy noeviction`", "allkeys-lru"],
    );
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    let found = report_of(over(&server)).await;
    one(
        found,
        DiagnosticKind::EvictsIntents,
        &["volatile-ttl", "`crash_safe`", "volatile-lru"],
    );
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    assert_eq!(report_of(over(&server)).await.advice, []);
}

#[tokio::test]
async fn entries_kept_for_a_day_and_never_invalidated() {
    let server = well().start();
    let day = Duration::from_secs(24 * 3600);
    let config = over(&server).ttl_of("rates", day).ttl_of("users", day);
    one(
        report_of(config.clone()).await,
        DiagnosticKind::LongTtl,
        &["`rates`", "CACHE_TTL_RATES"],
    );
    let by_hand = cache_runtime::catalog().invalidated_by_hand("rates");
    assert_eq!(report_of(config.catalog(by_hand)).await.advice, []);
    // It needs no Redis.
    let local = CacheConfig::default().local_mb(1).ttl_of("rates", day);
    one(
        report_of(local).await,
        DiagnosticKind::LongTtl,
        &["CACHE_TTL_RATES"],
    );
}

/// This machine's address by which others reach it.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

#[tokio::test]
async fn no_password_beyond_this_machine() {
    let Some(host) = own_address() else {
        eprintln!(
            "this machine has no address but its loopback, so this is left to the unit tests"
        );
        return;
    };
    let open = || {
        well()
            .config(&format!("bind 127.0.0.1 {host}"))
            .config("protected-mode no")
    };
    let config = |server: &RedisServer| RedisConfig::at(&host, server.port());
    let server = open().start();
    let found = report_of(over(&server).redis(config(&server))).await;
    one(
        found,
        DiagnosticKind::NoPassword,
        &[&host, "`requirepass`", "REDIS_PASSWORD"],
    );
    let server = open().password("s3cret-word").start();
    let login = config(&server).login(None, "s3cret-word");
    assert_eq!(report_of(over(&server).redis(login)).await.advice, []);
}

const PERMISSIONS: &str = "user app on >app-word resetchannels -@all \
                           +hello +info +time +mget +scan +dbsize +evalsha +script|load \
                           +get +getrange +exists +pttl +set +setrange +pexpire +del +unlink";

async fn as_app(changes: &str, config: impl FnOnce(CacheConfig) -> CacheConfig) -> DoctorReport {
    let user = format!("{PERMISSIONS} {changes}");
    let server = well().password("admin-word").config(&user).start();
    let redis = RedisConfig::at("127.0.0.1", server.port()).login(Some("app"), "app-word");
    let found = report_of(config(over(&server)).redis(redis)).await;
    assert!(!format!("{found}").contains("app-word"));
    found
}

#[tokio::test]
async fn missing_permissions() {
    for (keys, namespace) in [
        ("~*", ""),
        ("~shop:*", "shop"),
        ("~users:* ~rates:* ~@gen:*", ""),
    ] {
        let found = as_app(keys, |config| config.namespace(namespace)).await;
        assert_eq!(found.advice, [], "{found}");
    }
    for (changes, named) in [
        ("~* -scan", "scan"),
        ("~* -dbsize", "dbsize"),
        ("~* -pexpire -unlink", "pexpire, unlink"),
    ] {
        let fix = format!("`ACL SETUSER app +{}`", named.replace(", ", " +"));
        let found = as_app(changes, |config| config).await;
        one(found, DiagnosticKind::Permissions, &["`app`", named, &fix]);
    }
    let found = as_app("~users:* ~@gen:*", |config| config).await;
    one(
        found,
        DiagnosticKind::Permissions,
        &["rates:*", "`ACL SETUSER app ~rates:*`"],
    );
    // Without these there is no connection, or nothing is served from it, since it takes no
    // invalidations.
    for (changes, named) in [
        ("~* -info", "INFO"),
        ("~* -mget", "mget"),
        ("~* -evalsha", "evalsha"),
        ("~* -script|load", "script|load"),
        ("~* -getrange -setrange", "getrange, setrange"),
        ("~* -pexpire -unlink -pttl", "pttl, pexpire, unlink"),
        ("~users:*", "key"),
    ] {
        let found = as_app(changes, |config| config).await;
        one(
            found,
            DiagnosticKind::Unreachable,
            &["NOPERM", named, "Deploying and securing Redis"],
        );
    }
    // Not seeing what INFO says is no fault of an operator who has vouched for it.
    let found = as_app("~* -info", |config| config.trust_restart(true)).await;
    assert_eq!(
        (&found.advice[..], found.not_checked.len()),
        (&[][..], 1),
        "{found}"
    );
}

#[tokio::test]
async fn values_of_another_program() {
    for (key, command) in [
        ("users:1", &["SET", "users:1", "theirs"][..]),
        ("users:list", &["RPUSH", "users:list", "a"]),
        ("rates:x", &["SET", "rates:x", ""]),
        ("@gen:users", &["SET", "@gen:users", "17"]),
        (
            "@gen:users~derived",
            &["HSET", "@gen:users~derived", "a", "b"],
        ),
    ] {
        let server = well().start();
        server.cli(command);
        let found = report_of(over(&server)).await;
        let key = format!("`{key}`");
        one(found, DiagnosticKind::Foreign, &[&key, "CACHE_NAMESPACE"]);
        let apart = report_of(over(&server).namespace("shop")).await;
        assert_eq!(apart.advice, [], "{command:?}");
    }
}

#[tokio::test]
async fn the_look_is_bounded_in_a_big_database() {
    let server = RedisServer::options()
        .config("maxmemory 1gb")
        .config("maxmemory-policy allkeys-lru")
        .start();
    let populate = "for n = 1, 300000 do redis.call('SET', 'users:' .. n, '') end";
    server.cli(&["EVAL", populate, "0"]);
    let commands = || {
        let info = server.cli(&["INFO", "stats"]);
        let count = info
            .lines()
            .find_map(|line| line.strip_prefix("total_commands_processed:"));
        count
            .and_then(|count| count.trim().parse::<u64>().ok())
            .expect("a count")
    };
    let cache = Cache::new(over(&server).advice(false)).await;
    let before = commands();
    let found = cache.doctor().await;
    let spent = commands() - before;
    one(found, DiagnosticKind::Foreign, &["`users:"]);
    // What is done inside of scripts counts, too.
    assert!(spent < 1_000, "{spent} commands");
}

#[tokio::test]
async fn a_server_that_cannot_be_used() {
    let nobody = RedisConfig::at("127.0.0.1", free_port());
    let found = report_of(CacheConfig::default().redis(nobody)).await;
    one(
        found,
        DiagnosticKind::Unreachable,
        &["Connection refused", "REDIS_PORT"],
    );

    let server = well().password("s3cret-word").start();
    one(
        report_of(over(&server)).await,
        DiagnosticKind::Unreachable,
        &["NOAUTH", "REDIS_PASSWORD"],
    );
    let wrong = RedisConfig::at("127.0.0.1", server.port()).login(None, "wr0ng-word");
    let found = report_of(over(&server).redis(wrong)).await;
    assert!(!found.to_string().contains("wr0ng-word"), "{found}");
    one(
        found,
        DiagnosticKind::Unreachable,
        &["WRONGPASS", "REDIS_PASSWORD"],
    );
}

#[tokio::test]
async fn a_server_that_has_too_many_clients() {
    let server = well().config("maxclients 1").start();
    let _only = TcpStream::connect(("127.0.0.1", server.port())).expect("there is room for one");
    one(
        report_of(over(&server)).await,
        DiagnosticKind::Unreachable,
        &["max number of clients reached", "raise `maxclients`"],
    );
}

#[tokio::test]
async fn a_node_that_is_away_is_named() {
    let mut cluster = RedisCluster::start(3, 0);
    let seeds = (0..3).map(|node| ("127.0.0.1", cluster.node(node).port()));
    let redis = RedisConfig::cluster(seeds.collect::<Vec<_>>());
    let config = CacheConfig::default()
        .redis(redis)
        .command_budget(Duration::from_secs(5));
    let cache = Cache::new(config).await;
    eventually(SOON, async || {
        let report = cache.doctor().await;
        !report
            .advice
            .iter()
            .any(|it| it.kind == DiagnosticKind::Unreachable)
    })
    .await;
    let address = format!("127.0.0.1:{}", cluster.node(1).port());
    cluster.node_mut(1).stop();
    eventually(SOON, async || {
        let report = cache.doctor().await;
        let away: Vec<_> = report
            .advice
            .iter()
            .filter(|it| it.kind == DiagnosticKind::Unreachable)
            .collect();
        matches!(&away[..], [one] if one.text.starts_with(&format!("the cluster's node {address} can't be used ("))
            && one.text.contains("REDIS_NAT_MAP"))
    })
    .await;
}

/// A server whose version reads as 6.0.
fn aged(server: u16) -> u16 {
    const VERSION: &[u8] = b"redis_version:";
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
    let port = listener.local_addr().expect("bound").port();
    let accept = move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                return;
            };
            let (Ok(mut requests), Ok(mut to_server)) = (client.try_clone(), server.try_clone())
            else {
                return;
            };
            std::thread::spawn(move || io::copy(&mut requests, &mut to_server));
            std::thread::spawn(move || {
                let (mut server, mut client) = (server, client);
                let mut buffer = vec![0; 1 << 16];
                while let Ok(length @ 1..) = server.read(&mut buffer) {
                    let piece = &mut buffer[..length];
                    let found = piece
                        .windows(VERSION.len())
                        .position(|part| part == VERSION);
                    if let Some(at) = found {
                        piece[at + VERSION.len()..][..3].copy_from_slice(b"6.0");
                    }
                    if client.write_all(piece).is_err() {
                        return;
                    }
                }
            });
        }
    };
    std::thread::spawn(accept);
    port
}

#[tokio::test]
async fn a_server_that_is_too_old() {
    let server = well().start();
    let old = RedisConfig::at("127.0.0.1", aged(server.port()));
    let found = report_of(over(&server).redis(old)).await;
    one(
        found,
        DiagnosticKind::OldServer,
        &["6.0.", "6.2", "upgrade"],
    );
}

fn doctor(environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(demo_program());
    let command = command
        .arg("doctor")
        .env_clear()
        .current_dir(directory.path());
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .envs(environment.iter().copied())
        .output()
        .expect("demo-api runs");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code(), text)
}

#[test]
fn the_doctor_says_what_it_found_and_what_it_looked_at() {
    let server = well().password("s3cret-word").start();
    let url = server.url();
    let on = [("REDIS_ENABLED", "True"), ("REDIS_URL", url.as_str())];
    let (code, text) = doctor(&on);
    assert_eq!((code, text.lines().count()), (Some(0), 1), "{text}");
    for part in [
        "Checked: ",
        "the password",
        "version",
        "permissions",
        "keys",
        "functions",
    ] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }

    let (code, text) = doctor(&[on[0], on[1], ("CACHE_TTL", "86400")]);
    assert_eq!(
        code,
        Some(0),
        "all of the demo's resources are invalidated: {text}"
    );

    server.cli(&["SET", "products:7", "theirs"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let (code, text) = doctor(&on);
    assert_eq!((code, text.lines().count()), (Some(1), 3), "{text}");
    assert!(
        text.contains("`products:7`") && !text.contains("s3cret-word"),
        "{text}"
    );

    let (code, text) = doctor(&[on[0], ("REDIS_PORT", "1")]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
    let (code, text) = doctor(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("Redis, because it is off"), "{text}");
}

#[tokio::test]
async fn the_start_logs_each_piece_once_and_waits_for_nobody() {
    let port = free_port();
    let text = port.to_string();
    let demo = Demo::start([
        ("REDIS_ENABLED", "True"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", text.as_str()),
    ]);
    assert_eq!(demo.get("/users/1").await.status, 200);
    let mut server = RedisServer::options().port(port).start();
    server.cli(&["SET", "users:1", "theirs"]);
    let lines = |part: &str| demo.log().iter().filter(|line| line.contains(part)).count();
    eventually(SOON, async || {
        lines("`users:1`") == 1 && lines("no memory limit") == 1
    })
    .await;
    server.restart();
    eventually(SOON, async || lines("Redis cache enabled") == 2).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((lines("`users:1`"), lines("no memory limit")), (1, 1));
}
