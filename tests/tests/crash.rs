//! A process is killed between its commit and its invalidation.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cache_runtime::{Cache, CacheConfig, RedisConfig, Status, cached, invalidates, observe};
use cache_tests::{RedisServer, eventually};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);
/// For how long nothing is cached after the crash.
const INTENT: Duration = Duration::from_secs(2);
const PORT: &str = "CRASH_TEST_PORT";
const DATABASE: &str = "CRASH_TEST_DATABASE";
const CRASH_SAFE: &str = "CRASH_TEST_CRASH_SAFE";

/// A node whose database is a file that all nodes share.
struct Node {
    cache: Cache,
    database: PathBuf,
}

impl Node {
    async fn new(port: u16, database: PathBuf) -> Self {
        let config = CacheConfig::default()
            .redis(RedisConfig::at("127.0.0.1", port))
            .command_budget(Duration::from_secs(5))
            .intent(INTENT);
        let cache = Cache::new(config).await;
        Self { cache, database }
    }

    #[cached(resource = "users", cache = self.cache)]
    async fn get(&self, id: i64) -> std::io::Result<String> {
        let _ = id;
        std::fs::read_to_string(&self.database)
    }

    #[cached(resource = "users", cache = self.cache)]
    async fn list(&self) -> std::io::Result<Vec<String>> {
        Ok(vec![std::fs::read_to_string(&self.database)?])
    }

    #[cached(resource = "users", batch = ids, cache = self.cache)]
    async fn get_many(&self, ids: &[i64]) -> std::io::Result<BTreeMap<i64, String>> {
        let name = std::fs::read_to_string(&self.database)?;
        Ok(ids.iter().map(|id| (*id, name.clone())).collect())
    }

    #[invalidates("users", id = id, crash_safe, cache = self.cache)]
    async fn rename_crash_safe(&self, id: i64, name: &str) -> std::io::Result<()> {
        self.commit_and_hang(name).await
    }

    #[invalidates("users", id = id, cache = self.cache)]
    async fn rename(&self, id: i64, name: &str) -> std::io::Result<()> {
        self.commit_and_hang(name).await
    }

    async fn commit_and_hang(&self, name: &str) -> std::io::Result<()> {
        std::fs::write(&self.database, name)?;
        eprintln!("committed");
        std::future::pending().await
    }
}

/// Not a test by itself: what the other process runs, until it is killed.
#[tokio::test]
#[ignore = "the child of the tests below"]
async fn child() {
    let variable = |name| std::env::var(name).expect("set by the parent");
    let port = variable(PORT).parse().expect("a port");
    let node = Node::new(port, variable(DATABASE).into()).await;
    let written = if variable(CRASH_SAFE) == "true" {
        node.rename_crash_safe(1, "new").await
    } else {
        node.rename(1, "new").await
    };
    unreachable!("it hangs until it is killed: {written:?}");
}

/// Kills the child that has committed, whatever becomes of the test.
struct Doomed(Child);

impl Doomed {
    /// Returns when the child has committed.
    fn committed(server: &RedisServer, node: &Node, crash_safe: bool) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--ignored", "--exact", "child", "--nocapture"])
            .env(PORT, server.port().to_string())
            .env(DATABASE, &node.database)
            .env(CRASH_SAFE, crash_safe.to_string())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let doomed = Self(child);
        let mut lines = stderr.lines().map_while(Result::ok);
        assert!(
            lines.any(|line| line.contains("committed")),
            "it ended too soon"
        );
        doomed
    }

    fn kill(mut self) {
        self.0.kill().expect("killed");
        let status = self.0.wait().expect("ended");
        assert!(!status.success(), "by the signal: {status}");
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        // Where the test has killed it, there is nothing left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn is_hit<T>(call: impl Future<Output = T>) -> bool {
    matches!(observe(call).await.1[0].status, Status::Hit { .. })
}

async fn node(server: &RedisServer, directory: &tempfile::TempDir) -> Node {
    let database = directory.path().join("database");
    std::fs::write(&database, "old").expect("written");
    let node = Node::new(server.port(), database).await;
    assert_eq!(node.get(1).await.expect("read"), "old");
    assert_eq!(node.list().await.expect("read"), ["old"]);
    assert!(is_hit(node.get(1)).await && is_hit(node.list()).await);
    node
}

#[tokio::test]
async fn a_crash_safe_write_leaves_nothing_stale() {
    let (server, directory) = (
        RedisServer::start(),
        tempfile::tempdir().expect("a directory"),
    );
    let node = node(&server, &directory).await;
    Doomed::committed(&server, &node, true).kill();
    eventually(TEST_TIMEOUT, async || {
        assert_eq!(node.get(1).await.expect("read"), "new");
        assert_eq!(node.list().await.expect("read"), ["new"]);
        // In the end the announcement is over, and both are cached again.
        is_hit(node.get(1)).await && is_hit(node.list()).await
    })
    .await;
}

/// Whoever meets an announcement past its deadline ends it: also one who only reads many rows at
/// once.
#[tokio::test]
async fn an_announcement_ends_for_batches_too() {
    let (server, directory) = (
        RedisServer::start(),
        tempfile::tempdir().expect("a directory"),
    );
    let node = node(&server, &directory).await;
    Doomed::committed(&server, &node, true).kill();
    eventually(TEST_TIMEOUT, async || {
        assert_eq!(node.get_many(&[1, 2]).await.expect("read")[&1], "new");
        is_hit(node.get_many(&[1, 2])).await
    })
    .await;
}

/// What `crash_safe` is for: without it this is how it goes, until the TTL.
#[tokio::test]
async fn without_it_the_old_row_is_served() {
    let (server, directory) = (
        RedisServer::start(),
        tempfile::tempdir().expect("a directory"),
    );
    let node = node(&server, &directory).await;
    Doomed::committed(&server, &node, false).kill();
    assert_eq!(node.get(1).await.expect("read"), "old");
}
