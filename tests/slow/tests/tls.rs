//! TLS: to one server, a cluster and Sentinels, each with a certificate of its own authority.
//!
//! The trusted certificates are named by `SSL_CERT_FILE`, so each client is a process of its own:
//! this executable, with one test.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cache_runtime::{Cache, CacheConfig, Status, cached, invalidates, observe};
use cache_tests::{Certificate, RedisCluster, RedisOptions, RedisServer, Sentinels, eventually};

/// What the reason of a refusal has to contain; empty if the server has to be used.
const REFUSED_FOR: &str = "CACHE_TEST_REFUSED_FOR";

const TEST_TIMEOUT: Duration = Duration::from_secs(30);

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

    async fn is_hit(&self, id: i64) -> bool {
        matches!(observe(self.user(id)).await.1[0].status, Status::Hit { .. })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other tests run it, in processes of their own"]
async fn client() {
    let config = CacheConfig::from_env().expect("the variables are right");
    let shop = Shop {
        cache: Cache::new(config.command_budget(Duration::from_secs(5))).await,
    };
    let refused_for = std::env::var(REFUSED_FOR).expect("it is set");
    if !refused_for.is_empty() {
        shop.user(1).await;
        assert!(!shop.is_hit(1).await, "it is used");
        let reason = shop.cache.get_stats().await.reason.expect("not used");
        for part in refused_for.split('|') {
            assert!(reason.contains(part), "{part:?} is missing in: {reason}");
        }
        return;
    }
    for id in 0..20 {
        shop.user(id).await;
        let reason = shop.cache.get_stats().await.reason;
        assert!(shop.is_hit(id).await, "{id} is not used: {reason:?}");
        shop.rename(id).await;
        assert!(!shop.is_hit(id).await);
    }
    shop.cache.clear_all().await.expect("all servers answer");
}

/// The plain port of a server whose certificate is replaced, and the files of the new one.
const PLAIN_PORT: &str = "CACHE_TEST_PLAIN_PORT";
const NEW_CERTIFICATE: &str = "CACHE_TEST_NEW_CERTIFICATE";
const NEW_KEY: &str = "CACHE_TEST_NEW_KEY";
const NEW_AUTHORITY: &str = "CACHE_TEST_NEW_AUTHORITY";

/// A connection outlives the certificate that it was made with. The next one is checked anew, also
/// against authorities that were added to `SSL_CERT_FILE` meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "another test runs it, in a process of its own"]
async fn client_of_a_renewed_certificate() {
    let set = |name: &str| std::env::var(name).expect("it is set");
    let cli = |words: &[&str]| {
        let port = set(PLAIN_PORT);
        let asked = Command::new("redis-cli")
            .args(["-p", &port])
            .args(words)
            .output();
        String::from_utf8_lossy(&asked.expect("it runs").stdout)
            .trim()
            .to_owned()
    };
    let config = CacheConfig::from_env().expect("the variables are right");
    let shop = Shop {
        cache: Cache::new(config.command_budget(Duration::from_secs(5))).await,
    };
    eventually(TEST_TIMEOUT, async || shop.is_hit(1).await).await;
    let (certificate, key) = (set(NEW_CERTIFICATE), set(NEW_KEY));
    let renew = [
        "CONFIG",
        "SET",
        "tls-cert-file",
        &certificate,
        "tls-key-file",
        &key,
    ];
    assert_eq!(cli(&renew), "OK");
    // Longer than the questions for the role are apart.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(shop.is_hit(1).await, "the connection has ended");
    }
    cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually(TEST_TIMEOUT, async || {
        let reason = shop.cache.get_stats().await.reason;
        reason.is_some_and(|reason| reason.contains("invalid peer certificate"))
    })
    .await;
    let trusted = set("SSL_CERT_FILE");
    let both = [trusted.as_str(), &set(NEW_AUTHORITY)]
        .map(|file| std::fs::read_to_string(file).expect("a certificate"))
        .concat();
    std::fs::write(&trusted, both).expect("written");
    eventually(TEST_TIMEOUT, async || shop.is_hit(1).await).await;
}

/// Runs [`client`] where only this certificate is trusted.
fn run(trusted: &Path, variables: &[(&str, &str)], refused_for: &str) {
    let mut all = vec![(REFUSED_FOR, refused_for)];
    all.extend(variables);
    run_as("client", trusted, &all);
}

/// Runs a test of these in a process of its own.
fn run_as(test: &str, trusted: &Path, variables: &[(&str, &str)]) {
    let program = std::env::current_exe().expect("this program");
    let ran = Command::new(program)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("SSL_CERT_FILE", trusted)
        .env("REDIS_ENABLED", "True")
        .envs(variables.iter().copied())
        .output();
    let ran = ran.expect("it runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

/// Runs it over one server that shows this certificate.
fn run_over(certificate: &Certificate, trusted: &Path, refused_for: &str) {
    let server = RedisServer::options().tls(certificate).start();
    let url = format!("rediss://127.0.0.1:{}", server.service_port());
    run(trusted, &[("REDIS_URL", &url)], refused_for);
    // Nothing has been sent past TLS.
    let commands = server.calls("set") + server.calls("evalsha");
    assert_eq!(commands == 0, !refused_for.is_empty());
}

#[test]
fn a_server_whose_authority_is_trusted_is_used() {
    let certificate = Certificate::signed();
    run_over(&certificate, &certificate.trusted(), "");
}

#[test]
fn a_server_whose_authority_is_unknown_is_refused_with_what_to_do() {
    let other = Certificate::self_signed(true);
    run_over(
        &Certificate::signed(),
        &other.trusted(),
        "UnknownIssuer|name the certificate of the authority that has signed it in SSL_CERT_FILE",
    );
}

#[test]
fn a_server_of_another_name_is_refused_with_what_to_do() {
    let certificate = Certificate::signed_for("subjectAltName=DNS:elsewhere.test");
    run_over(
        &certificate,
        &certificate.trusted(),
        "not valid for name|connect by a name that is in the certificate",
    );
}

#[test]
fn a_certificate_that_signed_itself_is_trusted_if_it_is_no_authoritys() {
    let certificate = Certificate::self_signed(false);
    run_over(&certificate, &certificate.trusted(), "");
    let authority = Certificate::self_signed(true);
    run_over(
        &authority,
        &authority.trusted(),
        "CaUsedAsEndEntity|sign one for the server with it",
    );
}

#[test]
fn a_certificate_is_checked_when_a_connection_is_made() {
    let (old, new) = (Certificate::signed(), Certificate::signed());
    let server = RedisServer::options().tls(&old).start();
    let url = format!("rediss://127.0.0.1:{}", server.service_port());
    let port = server.port().to_string();
    let file = |name: &str| {
        let path = new.trusted().with_file_name(name);
        path.to_str().expect("text").to_owned()
    };
    let files = ["server.crt", "server.key", "authority.crt"].map(file);
    let [certificate, key, authority] = &files;
    run_as(
        "client_of_a_renewed_certificate",
        &old.trusted(),
        &[
            ("REDIS_URL", url.as_str()),
            (PLAIN_PORT, port.as_str()),
            (NEW_CERTIFICATE, certificate.as_str()),
            (NEW_KEY, key.as_str()),
            (NEW_AUTHORITY, authority.as_str()),
        ],
    );
}

#[test]
fn a_cluster_is_used_at_all_its_nodes() {
    let certificate = Certificate::signed();
    let cluster = RedisCluster::start_with(3, 0, RedisOptions::default().tls(&certificate));
    let seeds = cluster.seeds();
    let variables = [("REDIS_CLUSTER", seeds.as_str()), ("REDIS_TLS", "True")];
    run(&certificate.trusted(), &variables, "");
    for node in 0..3 {
        assert!(cluster.node(node).calls("evalsha") > 0, "{node}");
    }
    let other = Certificate::signed();
    run(&other.trusted(), &variables, "invalid peer certificate");
}

#[test]
fn sentinels_and_their_servers_are_used() {
    let certificate = Certificate::signed();
    let sentinels = Sentinels::start_with(&RedisOptions::default().tls(&certificate), None);
    let url = format!(
        "rediss-sentinel://{}/{}/0",
        sentinels.addresses(),
        Sentinels::NAME
    );
    run(&certificate.trusted(), &[("REDIS_URL", &url)], "");
    assert!(sentinels.server(0).calls("evalsha") > 0);
    let other = Certificate::signed();
    let variables = [("REDIS_URL", url.as_str())];
    run(&other.trusted(), &variables, "invalid peer certificate");
}
