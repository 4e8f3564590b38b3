//! Two demo processes on one Redis and one database: what one writes, the other's very next read
//! shows.

use std::time::Duration;

use cache_tests::{Answer, Demo, MemcachedServer, Postgres, RedisServer, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

/// How many rounds of writes and reads there are. `scripts/test --slow` asks for more.
fn rounds() -> usize {
    let asked = std::env::var("CACHE_TEST_ROUNDS").ok();
    let asked = asked.map(|text| text.parse().expect("CACHE_TEST_ROUNDS is a number"));
    asked.unwrap_or(40)
}

/// Both processes and what they share.
struct Pair<S = RedisServer> {
    demos: [Demo; 2],
    server: S,
    _database: Option<TempDir>,
}

impl Pair {
    fn on_sqlite() -> Self {
        let (url, directory) = sqlite();
        Self::start(&url, Some(directory))
    }

    fn on_postgres() -> Self {
        Self::start(&Postgres::shared().database(), None)
    }

    fn start(database: &str, directory: Option<TempDir>) -> Self {
        let redis = RedisServer::start();
        let port = redis.port().to_string();
        // The first one makes and seeds the database.
        let demos = [(); 2].map(|()| {
            Demo::start([
                ("DATABASE_URL", database),
                ("REDIS_ENABLED", "True"),
                ("REDIS_HOST", "127.0.0.1"),
                ("REDIS_PORT", &port),
                // Where the machine is slow, a write is not to return while its invalidation waits.
                ("CACHE_TIMEOUT_MS", "5000"),
                // A local entry follows a moment later; here it is the very next read.
                ("CACHE_LOCAL_MB", "0"),
            ])
        });
        Self {
            demos,
            server: redis,
            _database: directory,
        }
    }
}

impl Pair<MemcachedServer> {
    fn on_memcached() -> Self {
        let (url, directory) = sqlite();
        let server = MemcachedServer::start();
        let memcached = server.url();
        let demos = [(); 2].map(|()| {
            Demo::start([
                ("DATABASE_URL", url.as_str()),
                ("MEMCACHED_URL", &memcached),
                ("CACHE_TIMEOUT_MS", "5000"),
            ])
        });
        Self {
            demos,
            server,
            _database: Some(directory),
        }
    }
}

fn sqlite() -> (String, TempDir) {
    let directory = tempfile::tempdir().expect("a directory for the database");
    let url = format!("sqlite://{}/shared.db?mode=rwc", directory.path().display());
    (url, directory)
}

impl<S> Pair<S> {
    /// Reads one user, a list, a filter and a page through `demo`.
    async fn reads(&self, demo: usize, id: i64) -> [Answer; 4] {
        let demo = &self.demos[demo];
        [
            demo.get(&format!("/users/{id}")).await,
            demo.get("/users?skip=990&limit=1000").await,
            demo.post("/users/filter", &by_id(id)).await,
            demo.post("/users/filter-paginated", &by_id(id)).await,
        ]
    }

    /// What the database holds of user `id`, read through `demo`, must be `expected` in every form.
    async fn shows(&self, demo: usize, id: i64, expected: Option<&Value>, when: &str) {
        let [one, list, filtered, page] = self.reads(demo, id).await;
        let (list, filtered, page) = (list.json(), filtered.json(), page.json());
        let listed = list
            .as_array()
            .and_then(|users| users.iter().find(|user| user["id"] == id));
        match expected {
            Some(user) => {
                assert_eq!(
                    (one.status, &one.json()),
                    (200, user),
                    "{when}: one\n{one:?}"
                );
                assert_eq!(listed, Some(user), "{when}: list");
                assert_eq!(filtered, json!([user]), "{when}: filter");
                assert_eq!(page["items"], json!([user]), "{when}: page");
                assert_eq!(page["total"], 1, "{when}: total");
            }
            None => {
                assert_eq!(one.status, 404, "{when}: one\n{one:?}");
                assert_eq!(listed, None, "{when}: list");
                assert_eq!(filtered, json!([]), "{when}: filter");
                assert_eq!(page["total"], 0, "{when}: total");
            }
        }
    }

    /// One user from birth to death, each write through `writer`, each read through the other; both
    /// have cached what is about to be wrong.
    async fn round(&self, round: usize) {
        let writer = round % 2;
        let reader = 1 - writer;
        let body = |age: usize| json!({"name": format!("Round {round}"), "email": format!("round{round}@example.com"), "age": age, "active": true});

        let _lists = (self.reads(reader, 1).await, self.reads(writer, 1).await);
        let created = self.demos[writer].post("/users", &body(20)).await;
        assert_eq!(created.status, 201, "{created:?}");
        let user = created.json();
        let id = user["id"].as_i64().expect("an id");
        self.shows(reader, id, Some(&user), &format!("round {round}, created"))
            .await;

        let _cached = self.reads(writer, id).await;
        let updated = self.demos[writer]
            .put(&format!("/users/{id}"), &body(21 + round % 50))
            .await;
        assert_eq!(updated.status, 200, "{updated:?}");
        let user = updated.json();
        self.shows(reader, id, Some(&user), &format!("round {round}, updated"))
            .await;

        // And the other way about.
        let back = self.demos[reader]
            .put(&format!("/users/{id}"), &body(20))
            .await;
        assert_eq!(back.status, 200, "{back:?}");
        self.shows(
            writer,
            id,
            Some(&back.json()),
            &format!("round {round}, updated back"),
        )
        .await;

        let _cached = self.reads(reader, id).await;
        let deleted = self.demos[writer].delete(&format!("/users/{id}")).await;
        assert_eq!(deleted.status, 204, "{deleted:?}");
        self.shows(reader, id, None, &format!("round {round}, deleted"))
            .await;
    }

    /// Whether what one process reads and stores is a hit for the other: else these tests would
    /// show nothing.
    async fn shares_entries(&self) -> bool {
        let [one, ..] = self.reads(0, 2).await;
        assert_eq!(one.status, 200);
        let reads = self.reads(1, 2).await;
        reads.iter().all(|read| read.cache_status().hit)
    }

    /// After an outage each process repeats what it has invalidated shortly before, so that entries
    /// that were shared already may be misses once more.
    async fn rounds(&self, rounds: std::ops::Range<usize>) {
        eventually(SOON, async || self.shares_entries().await).await;
        for round in rounds {
            self.round(round).await;
        }
        eventually(SOON, async || self.shares_entries().await).await;
    }
}

fn by_id(id: i64) -> Value {
    json!({"conditions": [{"field": "id", "op": "eq", "value": id}], "limit": 10})
}

#[tokio::test]
async fn the_next_read_through_the_other_process_shows_a_write_sqlite() {
    Pair::on_sqlite().rounds(0..rounds()).await;
}

#[tokio::test]
async fn the_next_read_through_the_other_process_shows_a_write_postgres() {
    Pair::on_postgres().rounds(0..rounds()).await;
}

/// Redis goes and comes back, empty, between rounds: as long as it is away the database answers.
#[tokio::test]
async fn redis_goes_and_comes_back() {
    let mut pair = Pair::on_sqlite();
    pair.rounds(0..10).await;
    for cycle in 1..=3 {
        let _cached = (pair.reads(0, 1).await, pair.reads(1, 1).await);
        pair.server.stop();
        for round in cycle * 100..cycle * 100 + 5 {
            pair.round(round).await;
        }
        pair.server.restart();
        // While one process is connected and the other is not, a write of the other is `Pending`,
        // and the first may be served older data (docs/guarantees.md). Here all is answered.
        eventually(SOON, async || pair.shares_entries().await).await;
        pair.rounds(cycle * 100 + 5..cycle * 100 + 15).await;
    }
}

#[tokio::test]
async fn the_next_read_through_the_other_process_shows_a_write_memcached() {
    Pair::on_memcached().rounds(0..rounds() / 2).await;
}

/// Memcached is killed and comes back, empty, between rounds.
#[tokio::test]
async fn memcached_goes_and_comes_back() {
    let mut pair = Pair::on_memcached();
    pair.rounds(0..10).await;
    for cycle in 1..=3 {
        let _cached = (pair.reads(0, 1).await, pair.reads(1, 1).await);
        pair.server.stop();
        for round in cycle * 100..cycle * 100 + 5 {
            pair.round(round).await;
        }
        pair.server.restart();
        eventually(SOON, async || pair.shares_entries().await).await;
        pair.rounds(cycle * 100 + 5..cycle * 100 + 15).await;
    }
}

/// Redis crashes and comes back with a snapshot from before a write: entries and generations of
/// then fit each other, and nobody has an invalidation left to deliver.
#[tokio::test]
async fn a_snapshot_from_before_a_write_is_not_believed() {
    let mut pair = Pair::on_sqlite();
    for cycle in 0..4 {
        let (writer, reader) = (cycle % 2, 1 - cycle % 2);
        eventually(SOON, async || pair.shares_entries().await).await;
        pair.server.cli(&["SAVE"]);
        let mut user = pair.demos[writer].get("/users/2").await.json();
        user["age"] = json!(30 + cycle);
        let updated = pair.demos[writer].put("/users/2", &user).await;
        assert_eq!(updated.status, 200, "{updated:?}");
        pair.server.restart();
        assert_ne!(
            pair.server.cli(&["EXISTS", "users:2"]),
            "0",
            "a snapshot of the entry"
        );
        eventually(SOON, async || {
            let answers = [
                pair.demos[reader].get("/users/2").await,
                pair.demos[writer].get("/users/2").await,
            ];
            for answer in &answers {
                assert_eq!(answer.json(), updated.json(), "cycle {cycle}: {answer:?}");
            }
            answers.iter().all(|answer| answer.cache_status().hit)
        })
        .await;
    }
}
