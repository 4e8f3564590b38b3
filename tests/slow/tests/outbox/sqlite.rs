//! The outbox in a file of SQLite.

use std::time::Duration;

use cache_runtime::outbox::{OutboxConfig, Triggers, sqlite, table, triggers};
use cache_runtime::{
    Cache, CacheConfig, OutboxStats, RedisConfig, Status, cached, invalidates, observe,
};
use cache_tests::{Demo, RedisServer, eventually};
use sqlx::any::install_default_drivers;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool};
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Connection};
use tempfile::TempDir;

use crate::TEST_TIMEOUT;

/// A file with tables, the outbox, and its triggers.
struct File {
    directory: TempDir,
}

impl File {
    async fn new() -> Self {
        Self::with_journal("WAL").await
    }

    async fn with_journal(mode: &str) -> Self {
        let file = Self {
            directory: tempfile::tempdir().expect("a directory"),
        };
        let url = file.url();
        let options = url.parse::<SqliteConnectOptions>().expect("a URL");
        let mut connection = SqliteConnection::connect_with(&options.create_if_missing(true))
            .await
            .expect("created");
        let mode = format!("PRAGMA journal_mode = {mode}");
        let set = sqlx::raw_sql(AssertSqlSafe(mode)).execute(&mut connection);
        set.await.expect("set");
        let made = "CREATE TABLE guests (id INTEGER PRIMARY KEY, name TEXT NOT NULL, room, mail TEXT UNIQUE);
            INSERT INTO guests VALUES (1, 'old', 1, 'a'), (2, 'other', 1, 'b'), (3, 'third', 2, 'c')";
        let made = sqlx::raw_sql(made).execute(&mut connection).await;
        made.expect("made");
        let installed = sqlite::install(&mut connection, &file.outbox(), Some(&followed())).await;
        installed.expect("installed");
        connection.close().await.expect("closed");
        file
    }

    fn url(&self) -> String {
        let path = self.directory.path().join("file.db");
        format!("sqlite://{}", path.display())
    }

    fn outbox(&self) -> OutboxConfig {
        OutboxConfig::sqlite(&self.url()).expect("a URL")
    }

    /// As another program does: over a connection of its own.
    async fn run(&self, sql: &str) {
        let mut connection = SqliteConnection::connect(&self.url())
            .await
            .expect("connects");
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
        connection.close().await.expect("closed");
    }

    async fn number(&self, sql: &str) -> i64 {
        let mut connection = SqliteConnection::connect(&self.url())
            .await
            .expect("connects");
        let number = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut connection)
            .await;
        number.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn rows(&self) -> i64 {
        self.number("SELECT count(*) FROM cache_outbox").await
    }

    /// What was written since the last time.
    async fn written(&self) -> Vec<String> {
        let mut connection = SqliteConnection::connect(&self.url())
            .await
            .expect("connects");
        let sql = "SELECT concat_ws(' ', kind, resource, value) FROM cache_outbox ORDER BY id";
        let rows = sqlx::query_scalar(sql).fetch_all(&mut connection).await;
        self.run("DELETE FROM cache_outbox").await;
        rows.expect("read")
    }
}

fn followed() -> Triggers {
    let guests = table("guests")
        .resource("guests")
        .id("id")
        .tag("room:{room}");
    triggers(&cache_runtime::catalog(), [guests]).expect("fits")
}

/// One process, as far as the cache is concerned.
struct Node {
    cache: Cache,
    pool: SqlitePool,
}

impl Node {
    async fn new(config: CacheConfig, file: &File) -> Self {
        Self::with(config, file, file.outbox()).await
    }

    async fn with(config: CacheConfig, file: &File, outbox: OutboxConfig) -> Self {
        // A relay that waits to write keeps new readers out, again and again.
        let options: SqliteConnectOptions = file.url().parse().expect("a URL");
        let pool = SqlitePool::connect_with(options.busy_timeout(TEST_TIMEOUT));
        let pool = pool.await.expect("connects");
        let config = config.command_budget(Duration::from_secs(5));
        let cache = Cache::new(config.outbox(outbox)).await;
        let node = Self { cache, pool };
        node.heard().await;
        node
    }

    async fn stats(&self) -> OutboxStats {
        self.cache.get_stats().await.outbox.expect("an outbox")
    }

    async fn heard(&self) {
        eventually(TEST_TIMEOUT, async || {
            let stats = self.stats().await;
            stats.connected && stats.serving != Some(false)
        })
        .await;
    }

    #[cached(resource = "guests", cache = self.cache)]
    async fn guest(&self, id: i64) -> Result<Option<String>, sqlx::Error> {
        let name = sqlx::query_scalar("SELECT name FROM guests WHERE id = $1");
        name.bind(id).fetch_optional(&self.pool).await
    }

    #[cached(resource = "rooms", op = "guests", tags("room:{room}"), cache = self.cache)]
    async fn room(&self, room: i64) -> Result<i64, sqlx::Error> {
        let count = sqlx::query_scalar("SELECT count(*) FROM guests WHERE room = $1");
        count.bind(room).fetch_one(&self.pool).await
    }

    #[invalidates("guests", id = id, after_commit, cache = self.cache)]
    async fn rename(
        &self,
        tx: &mut SqliteConnection,
        id: i64,
        name: &str,
    ) -> Result<(), sqlx::Error> {
        let update = sqlx::query("UPDATE guests SET name = $1 WHERE id = $2");
        update.bind(name).bind(id).execute(tx).await.map(drop)
    }

    #[invalidates("guests", id = id, after_commit, cache = self.cache)]
    async fn rename_any(
        &self,
        tx: &mut AnyConnection,
        id: i64,
        name: &str,
    ) -> Result<(), sqlx::Error> {
        let update = sqlx::query("UPDATE guests SET name = $1 WHERE id = $2");
        update.bind(name).bind(id).execute(tx).await.map(drop)
    }

    async fn name(&self, id: i64) -> (Option<String>, bool) {
        let (name, outcomes) = observe(self.guest(id)).await;
        let is_hit = matches!(outcomes[0].status, Status::Hit { .. });
        (name.expect("read"), is_hit)
    }

    async fn warm(&self, id: i64) -> Option<String> {
        let mut last = None;
        eventually(TEST_TIMEOUT, async || {
            let (name, is_hit) = self.name(id).await;
            last = name;
            is_hit
        })
        .await;
        last
    }

    async fn shows(&self, id: i64, name: Option<&str>) {
        eventually(TEST_TIMEOUT, async || {
            self.name(id).await.0.as_deref() == name
        })
        .await;
    }
}

fn local() -> CacheConfig {
    CacheConfig::default().local_mb(4)
}

/// Two caches on one file, and a writer that knows nothing of them: with Redis, and without.
#[tokio::test]
async fn rows_committed_by_any_program_are_read_anew_by_all() {
    let redis = RedisServer::start();
    let with_redis = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    for config in [local(), with_redis.clone(), with_redis.local_mb(4)] {
        let file = File::new().await;
        let nodes = [
            Node::new(config.clone(), &file).await,
            Node::new(config, &file).await,
        ];
        for (write, id, shown, room, count) in [
            (
                "UPDATE guests SET name = 'new' WHERE id = 1",
                1,
                Some("new"),
                1,
                2,
            ),
            (
                "UPDATE guests SET room = 2 WHERE id = 2",
                2,
                Some("other"),
                2,
                2,
            ),
            ("UPDATE guests SET id = 9 WHERE id = 3", 3, None, 2, 2),
            ("DELETE FROM guests WHERE id = 9", 9, None, 2, 1),
            (
                "INSERT INTO guests VALUES (3, 'again', 3, 'x')",
                3,
                Some("again"),
                3,
                1,
            ),
            (
                "INSERT OR IGNORE INTO guests VALUES (4, 'four', 3, 'y')",
                4,
                Some("four"),
                3,
                2,
            ),
            (
                "INSERT OR REPLACE INTO guests VALUES (4, 'five', 3, 'y')",
                4,
                Some("five"),
                3,
                2,
            ),
            (
                "INSERT INTO guests VALUES (4, '', 3, 'y') ON CONFLICT (id) DO UPDATE SET name = 'six'",
                4,
                Some("six"),
                3,
                2,
            ),
            ("DELETE FROM guests", 4, None, 3, 0),
        ] {
            for node in &nodes {
                for id in [1, 2, 3, 4, 9] {
                    node.warm(id).await;
                }
                for room in [1, 2, 3] {
                    node.room(room).await.expect("read");
                }
            }
            file.run(write).await;
            for node in &nodes {
                node.shows(id, shown).await;
                eventually(TEST_TIMEOUT, async || {
                    node.room(room).await.expect("read") == count
                })
                .await;
            }
        }
        for node in &nodes {
            let stats = node.stats().await;
            assert_eq!(stats.connections, 1, "{stats:?}");
        }
    }
}

#[tokio::test]
async fn a_rollback_writes_nothing_and_an_odd_id_the_whole_resource() {
    let file = File::new().await;
    file.run("BEGIN; UPDATE guests SET name = 'x'; ROLLBACK")
        .await;
    assert_eq!(file.written().await, Vec::<String>::new());
    file.run("UPDATE guests SET room = 'suite', id = 7 WHERE id = 1")
        .await;
    assert_eq!(
        file.written().await,
        [
            "row guests 7",
            "tag \"room:suite\"",
            "row guests 1",
            "tag \"room:1\"",
        ]
    );
    file.run("UPDATE guests SET room = 1.5 WHERE id = 7").await;
    assert_eq!(
        file.written().await,
        ["row guests 7", "all rooms", "tag \"room:suite\""]
    );
    file.run("UPDATE guests SET room = NULL WHERE id = 7").await;
    assert_eq!(file.written().await, ["row guests 7", "all rooms"]);
}

/// As strict as without an outbox, and the others hear of it; over SQLite's own driver, and over
/// `Any`.
#[tokio::test]
async fn a_transaction_is_read_anew_by_all() {
    install_default_drivers();
    let redis = RedisServer::start();
    let with_redis = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    for config in [local(), with_redis] {
        let file = File::new().await;
        // No trigger helps.
        let mut connection = SqliteConnection::connect(&file.url())
            .await
            .expect("connects");
        sqlite::remove(&mut connection, &file.outbox())
            .await
            .expect("removed");
        sqlite::install(&mut connection, &file.outbox(), None)
            .await
            .expect("installed");
        let [writer, reader] = [
            Node::new(config.clone(), &file).await,
            Node::new(config, &file).await,
        ];
        reader.warm(1).await;
        let done: Result<(), sqlx::Error> =
            cache_runtime::sqlx::transaction(&writer.cache, &writer.pool, async |tx| {
                writer.rename(tx, 1, "one").await
            })
            .await;
        done.expect("committed");
        assert_eq!(writer.name(1).await.0.as_deref(), Some("one"));
        reader.shows(1, Some("one")).await;
        reader.warm(1).await;
        let any = AnyPool::connect(&file.url()).await.expect("connects");
        let done: Result<(), sqlx::Error> =
            cache_runtime::sqlx::transaction(&writer.cache, &any, async |tx| {
                writer.rename_any(tx, 1, "two").await
            })
            .await;
        done.expect("committed");
        assert_eq!(writer.name(1).await.0.as_deref(), Some("two"));
        reader.shows(1, Some("two")).await;
        reader.warm(1).await;
        let outbox = reader.cache.outbox().expect("an outbox");
        let mut tx = connection.begin().await.expect("begun");
        sqlx::query("UPDATE guests SET name = 'three' WHERE id = 1")
            .execute(&mut *tx)
            .await
            .expect("written");
        outbox
            .invalidate(&mut tx, "guests", 1)
            .await
            .expect("written");
        tx.commit().await.expect("committed");
        reader.shows(1, Some("three")).await;
        let stats = reader.stats().await;
        if stats.shared {
            eventually(TEST_TIMEOUT, async || file.rows().await == 0).await;
        }
    }
}

/// Rows that a process has not read, and that are deleted by time, are not skipped: it begins with
/// nothing in memory.
#[tokio::test]
async fn a_process_that_has_missed_rows_starts_cold() {
    let file = File::new().await;
    let quick = file.outbox().retention(Duration::from_secs(2));
    let deletes = Node::with(local(), &file, quick).await;
    let slow = file.outbox().poll(Duration::from_secs(8));
    let config = local().local_max_staleness(Duration::from_secs(60));
    let node = Node::with(config, &file, slow).await;
    assert_eq!(node.warm(1).await.as_deref(), Some("old"));
    file.run("UPDATE guests SET name = 'new' WHERE id = 1")
        .await;
    deletes.shows(1, Some("new")).await;
    eventually(TEST_TIMEOUT, async || file.rows().await == 0).await;
    node.shows(1, Some("new")).await;
    let stats = node.stats().await;
    assert_eq!((stats.connections, stats.cold_starts), (1, 2), "{stats:?}");
}

/// While another process holds the whole file nothing can be heard, so nothing is served.
#[tokio::test]
async fn a_process_that_cannot_read_serves_nothing() {
    let file = File::with_journal("DELETE").await;
    let node = Node::new(local(), &file).await;
    node.warm(1).await;
    let mut holder = SqliteConnection::connect(&file.url())
        .await
        .expect("connects");
    let held = sqlx::raw_sql("BEGIN EXCLUSIVE; UPDATE guests SET name = 'new' WHERE id = 1")
        .execute(&mut holder)
        .await;
    held.expect("held");
    eventually(TEST_TIMEOUT, async || {
        node.stats().await.serving == Some(false)
    })
    .await;
    let done = sqlx::raw_sql("COMMIT").execute(&mut holder).await;
    done.expect("committed");
    assert_eq!(node.name(1).await.0.as_deref(), Some("new"));
    node.heard().await;
    assert_eq!(node.warm(1).await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_set_aside_within_limits() {
    let redis = RedisServer::start();
    let with_redis = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    for config in [local(), with_redis] {
        let file = File::new().await;
        let node = Node::new(config, &file).await;
        node.warm(1).await;
        file.run(
            "INSERT INTO cache_outbox_set_aside (id, kind, reason, set_aside) VALUES (0, 'odd', 'is old', 0);
             DROP TABLE IF EXISTS numbers;
             CREATE TABLE numbers AS WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1100) SELECT n FROM n;
             INSERT INTO cache_outbox (kind, resource, value) SELECT 'row', 'guests', 'no json' FROM numbers;
             INSERT INTO cache_outbox (kind, resource, value) VALUES ('row', 'guests', x'00ff'), ('row', 'No Name', 1)",
        )
        .await;
        eventually(TEST_TIMEOUT, async || {
            let stats = node.stats().await;
            stats.set_aside == 1_000 && stats.set_aside_dropped >= 103
        })
        .await;
        node.warm(1).await;
        let mut connection = SqliteConnection::connect(&file.url())
            .await
            .expect("connects");
        let status = sqlite::status(&mut connection, &file.outbox()).await;
        let status = status.expect("read");
        assert_eq!(status.set_aside, 1_000);
        assert!(status.set_aside_dropped >= 103, "{status}");
        assert_eq!(status.followed, ["guests"]);
        sqlite::remove(&mut connection, &file.outbox())
            .await
            .expect("removed");
        let status = sqlite::status(&mut connection, &file.outbox()).await;
        assert_eq!(status.expect("read").version, None);
        file.run("UPDATE guests SET name = 'free'").await;
    }
}

/// Two programs that share no cache have an outbox each, in one file: to take one away leaves the
/// other.
#[tokio::test]
async fn the_triggers_of_another_outbox_are_left_alone() {
    let file = File::new().await;
    let mut connection = SqliteConnection::connect(&file.url())
        .await
        .expect("connects");
    let other = file
        .outbox()
        .table("main.cache_outbox_crm")
        .expect("a table");
    let installed = sqlite::install(&mut connection, &other, Some(&followed())).await;
    installed.expect("installed");
    for outbox in [&file.outbox(), &other] {
        let status = sqlite::status(&mut connection, outbox).await;
        assert_eq!(status.expect("read").followed, ["guests"]);
    }
    let removed = sqlite::remove(&mut connection, &file.outbox()).await;
    removed.expect("removed");
    let status = sqlite::status(&mut connection, &other).await;
    assert_eq!(status.expect("read").followed, ["guests"]);
    file.run("UPDATE guests SET name = 'x' WHERE id = 1").await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM cache_outbox_crm")
        .fetch_one(&mut connection)
        .await
        .expect("read");
    assert!(rows > 0);
}

/// SQLite's usual way of altering a table takes its triggers away. Whoever drops one does it, too.
#[tokio::test]
async fn a_table_that_has_lost_its_triggers_is_read_anew_and_named() {
    let lost = ["guests (it has none of its triggers)"];
    for is_shared in [false, true] {
        for (sql, problem) in [
            (
                "CREATE TABLE made (id INTEGER PRIMARY KEY, name TEXT, room, mail);
                 INSERT INTO made SELECT * FROM guests; DROP TABLE guests; ALTER TABLE made RENAME TO guests",
                &lost[..],
            ),
            (
                "ALTER TABLE guests RENAME TO before; CREATE TABLE Guests (id INTEGER PRIMARY KEY, name TEXT, room, mail);
                 INSERT INTO guests SELECT * FROM before",
                &lost[..],
            ),
            // Of another case, which is no other table. Its name is found by the test.
            ("DROP TRIGGER {update}", &["guests"][..]),
        ] {
            let redis = is_shared.then(RedisServer::start);
            let config = redis.as_ref().map_or_else(local, |redis| {
                CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()))
            });
            let file = File::new().await;
            let node = Node::new(config, &file).await;
            assert_eq!(node.warm(1).await.as_deref(), Some("old"));
            let mut connection = SqliteConnection::connect(&file.url()).await.expect("connects");
            let update = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%_update'";
            let update: String = sqlx::query_scalar(update).fetch_one(&mut connection).await.expect("read");
            let sql = sql.replace("{update}", &update);
            file.run(&format!("BEGIN; {sql}; UPDATE guests SET name = 'new' WHERE id = 1; COMMIT")).await;
            node.shows(1, Some("new")).await;
            eventually(TEST_TIMEOUT, async || node.stats().await.not_followed == problem).await;
            let report = node.cache.doctor().await.to_string();
            assert!(report.contains("does not follow: guests"), "{report}");
            let status = sqlite::status(&mut connection, &file.outbox()).await.expect("read");
            assert_eq!(status.not_followed, problem, "{sql}");

            let installed = sqlite::install(&mut connection, &file.outbox(), Some(&followed())).await;
            installed.expect("installed again");
            eventually(TEST_TIMEOUT, async || node.stats().await.not_followed.is_empty()).await;
            let status = sqlite::status(&mut connection, &file.outbox()).await.expect("read");
            assert!(status.not_followed.is_empty() && status.older.is_empty(), "{status}");
            node.warm(1).await;
            file.run("UPDATE guests SET name = 'newer' WHERE id = 1").await;
            node.shows(1, Some("newer")).await;
            assert_eq!(node.stats().await.connections, 1);
        }
    }
}

/// A migration makes a table anew and installs the triggers again, all in one transaction:
/// afterwards the file looks as before.
#[tokio::test]
async fn rows_changed_by_a_migration_before_its_triggers_are_read_anew() {
    let file = File::new().await;
    let node = Node::new(local(), &file).await;
    let install = followed().sqlite_sql();
    let same =
        "CREATE TABLE guests (id INTEGER PRIMARY KEY, name TEXT NOT NULL, room, mail TEXT UNIQUE)";
    for (round, sql) in [
        "CREATE TABLE kept AS SELECT * FROM guests; DROP TABLE guests; {same};
         INSERT INTO guests SELECT * FROM kept; UPDATE guests SET name = '{name}'; DROP TABLE kept",
        "DROP TRIGGER {update}; UPDATE guests SET name = '{name}'",
    ]
    .into_iter()
    .enumerate()
    {
        node.warm(1).await;
        let mut connection = SqliteConnection::connect(&file.url())
            .await
            .expect("connects");
        let update =
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%_update'";
        let update: String = sqlx::query_scalar(update)
            .fetch_one(&mut connection)
            .await
            .expect("read");
        let name = format!("new {round}");
        let sql = sql
            .replace("{same}", same)
            .replace("{update}", &update)
            .replace("{name}", &name);
        file.run(&format!(
            "BEGIN; {sql}; DELETE FROM cache_outbox; {install} COMMIT"
        ))
        .await;
        node.shows(1, Some(&name)).await;
        // Installed once more, nothing has changed.
        assert_eq!(node.warm(1).await.as_deref(), Some(name.as_str()));
        file.run(&format!("BEGIN; {install} COMMIT")).await;
        let made = "SELECT count(DISTINCT made) FROM cache_outbox_tables";
        assert_eq!(file.number(made).await, 1);
        // What is delivered second comes after it has looked.
        for _ in 0..2 {
            let before = node.stats().await.delivered;
            file.run("UPDATE guests SET mail = 'other' WHERE id = 2")
                .await;
            eventually(TEST_TIMEOUT, async || node.stats().await.delivered > before).await;
        }
        assert!(node.name(1).await.1, "it was invalidated");
    }
    assert_eq!(node.stats().await.cold_starts, 1);
}

/// What is named otherwise has its triggers still, and what is dropped needs none.
#[tokio::test]
async fn a_table_with_another_name_is_followed() {
    let file = File::new().await;
    let mut connection = SqliteConnection::connect(&file.url())
        .await
        .expect("connects");
    file.run("ALTER TABLE guests RENAME TO visitors; UPDATE visitors SET name = 'x' WHERE id = 1")
        .await;
    assert_eq!(file.written().await, ["row guests 1", "tag \"room:1\""]);
    let status = sqlite::status(&mut connection, &file.outbox())
        .await
        .expect("read");
    assert_eq!(
        (status.followed, status.not_followed),
        (vec!["visitors".to_owned()], vec![])
    );
    file.run("DROP TABLE visitors").await;
    let status = sqlite::status(&mut connection, &file.outbox())
        .await
        .expect("read");
    assert_eq!((status.followed, status.not_followed), (vec![], vec![]));
}

/// Triggers of an earlier release, and tables of a later one.
#[tokio::test]
async fn other_releases_are_known_by_what_they_have_installed() {
    let file = File::new().await;
    let mut connection = SqliteConnection::connect(&file.url())
        .await
        .expect("connects");
    file.run("DROP TABLE cache_outbox_tables").await;
    let status = sqlite::status(&mut connection, &file.outbox())
        .await
        .expect("read");
    assert_eq!(
        (status.followed, status.older),
        (vec!["guests".to_owned()], vec!["guests".to_owned()])
    );
    let node = Node::new(local(), &file).await;
    assert_eq!(node.warm(1).await.as_deref(), Some("old"));
    file.run("UPDATE guests SET name = 'new' WHERE id = 1")
        .await;
    node.shows(1, Some("new")).await;
    file.run("UPDATE cache_outbox_state SET version = 99").await;
    let refused = sqlite::install(&mut connection, &file.outbox(), Some(&followed())).await;
    let refused = refused.expect_err("refused").to_string();
    assert!(refused.contains("is of version 99"), "{refused}");
    assert_eq!(
        file.number("SELECT version FROM cache_outbox_state").await,
        99
    );
}

#[allow(dead_code, reason = "only its signature is looked at")]
#[cached(resource = "folders", tags(r"path\{id}'"))]
async fn folder(id: i64) -> i64 {
    id
}

/// SQLite has no escapes in texts.
#[tokio::test]
async fn names_and_tags_are_quoted() {
    let file = File::new().await;
    file.run(r#"CREATE TABLE "fol\der's ""x" ("I\d" INTEGER PRIMARY KEY)"#)
        .await;
    let folders = table("fol\\der's \"x")
        .resource("folders")
        .id("I\\d")
        .tag(r"path\{I\d}'");
    let followed = triggers(&cache_runtime::catalog(), [folders]).expect("fits");
    let mut connection = SqliteConnection::connect(&file.url())
        .await
        .expect("connects");
    let installed = sqlite::install(&mut connection, &file.outbox(), Some(&followed)).await;
    installed.expect("installed");
    file.run(r#"INSERT INTO "fol\der's ""x" VALUES (7)"#).await;
    assert_eq!(file.written().await, ["row folders 7", r#"tag "path\\7'""#]);
    let status = sqlite::status(&mut connection, &file.outbox())
        .await
        .expect("read");
    assert!(status.not_followed.is_empty(), "{status}");
}

/// Somebody reads for long, so nobody can write. A process that comes meanwhile delivers what was
/// written before.
#[tokio::test]
async fn a_relay_needs_no_lock_to_deliver() {
    let redis = RedisServer::start();
    let config = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    let file = File::with_journal("DELETE").await;
    let before = Node::new(config.clone(), &file).await;
    assert_eq!(before.warm(1).await.as_deref(), Some("old"));
    drop(before);
    file.run("UPDATE guests SET name = 'new' WHERE id = 1")
        .await;
    let mut reader = SqliteConnection::connect(&file.url())
        .await
        .expect("connects");
    for statement in ["BEGIN", "SELECT count(*) FROM guests"] {
        let done = sqlx::query(statement).execute(&mut reader).await;
        done.expect("done");
    }
    let node = Node::new(config, &file).await;
    node.shows(1, Some("new")).await;
    // It goes on over the same connection until it can delete the row.
    eventually(TEST_TIMEOUT, async || node.stats().await.slow > 0).await;
    let done = sqlx::query("COMMIT").execute(&mut reader).await;
    done.expect("done");
    eventually(TEST_TIMEOUT, async || file.rows().await == 0).await;
    assert_eq!(node.stats().await.connections, 1);
}

/// Very many rows of one resource are said with one.
#[tokio::test]
async fn a_bulk_write_holds_nobody_up() {
    let redis = RedisServer::start();
    let config = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    let file = File::new().await;
    let node = Node::new(config, &file).await;
    assert_eq!(node.warm(1).await.as_deref(), Some("old"));
    assert_eq!(node.room(1).await.expect("read"), 2);
    let sets = || redis.calls("set") + redis.calls("setex") + redis.calls("psetex");
    let before = sets();
    file.run(
        "BEGIN;
        INSERT INTO cache_outbox (kind, resource, value)
            WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < 50000)
            SELECT 'row', 'rooms', n FROM many;
        UPDATE guests SET name = 'new', room = 2 WHERE id = 1;
        COMMIT",
    )
    .await;
    node.shows(1, Some("new")).await;
    eventually(TEST_TIMEOUT, async || {
        node.room(1).await.expect("read") == 1
    })
    .await;
    eventually(TEST_TIMEOUT, async || file.rows().await == 0).await;
    let set = sets() - before;
    assert!(set < 1_000, "{set} generations were replaced");
}

/// As the type of the crate of that name looks in a signature.
#[derive(Debug, Clone, serde::Serialize)]
struct Uuid(String);

#[allow(dead_code, reason = "only its signature is looked at")]
#[cached(resource = "parcels")]
async fn parcel(id: Uuid) -> String {
    id.0
}

/// A column's type binds nothing here, so each value is looked at.
#[tokio::test]
async fn ids_of_another_type_than_their_value_invalidate_the_whole_resource() {
    let file = File::new().await;
    file.run("CREATE TABLE parcels (id TEXT, name TEXT); CREATE TABLE numbers (id, name TEXT)")
        .await;
    let tables = [
        table("parcels").resource("parcels").id("id"),
        table("numbers")
            .resource("guests")
            .id("id")
            .columns(["name"]),
    ];
    let followed = triggers(&cache_runtime::catalog(), tables).expect("triggers");
    let mut connection = SqliteConnection::connect(&file.url())
        .await
        .expect("connects");
    let installed = sqlite::install(&mut connection, &file.outbox(), Some(&followed)).await;
    installed.expect("installed");
    for (insert, is_row) in [
        (
            "INSERT INTO parcels VALUES ('5f9b8c2e-0000-4000-8000-00000000abcd', 'x')",
            true,
        ),
        (
            "INSERT INTO parcels VALUES ('5f9b8c2e00004000800000000000abcd', 'x')",
            false,
        ),
        (
            "INSERT INTO parcels VALUES ('5F9B8C2E-0000-4000-8000-00000000ABCD', 'x')",
            false,
        ),
        (
            "INSERT INTO parcels VALUES (x'5f9b8c2e00004000800000000000abcd', 'x')",
            false,
        ),
        ("INSERT INTO numbers VALUES (7, 'x')", true),
        ("INSERT INTO numbers VALUES ('007', 'x')", false),
        ("UPDATE numbers SET name = 'y' WHERE id = 7", true),
    ] {
        file.run("DELETE FROM cache_outbox").await;
        file.run(insert).await;
        let kinds: Vec<String> = sqlx::query_scalar("SELECT kind FROM cache_outbox")
            .fetch_all(&mut connection)
            .await
            .expect("read");
        assert_eq!(kinds, [if is_row { "row" } else { "all" }], "{insert}");
    }
    // Of the columns that matter none has changed.
    file.run("DELETE FROM cache_outbox; UPDATE numbers SET name = name")
        .await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM cache_outbox")
        .fetch_one(&mut connection)
        .await
        .expect("read");
    assert_eq!(rows, 0);
}

/// Two processes of the demo on one file, and a writer beside them.
#[tokio::test]
async fn two_demos_on_one_file_show_what_is_written_beside_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("demo.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let start = || {
        Demo::start([
            ("DATABASE_URL", url.as_str()),
            ("OUTBOX", "True"),
            ("REDIS_ENABLED", "False"),
            ("CACHE_TIMEOUT_MS", "5000"),
        ])
    };
    let demos = [start(), start()];
    for demo in &demos {
        crate::demo::heard(demo).await;
    }
    let mut writer = SqliteConnection::connect(&url).await.expect("connects");
    for round in 0..5 {
        for demo in &demos {
            crate::demo::warm(demo, 1).await;
        }
        let name = format!("Name {round}");
        sqlx::query("UPDATE users SET name = $1 WHERE id = 1")
            .bind(&name)
            .execute(&mut writer)
            .await
            .expect("written");
        for demo in &demos {
            eventually(TEST_TIMEOUT, async || {
                crate::demo::name(demo, 1).await == name
            })
            .await;
        }
    }
}
