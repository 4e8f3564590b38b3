//! With Redis: any process takes the rows.

use std::time::Duration;

use cache_runtime::outbox::{Outbox, OutboxConfig, table};
use cache_runtime::{Acknowledgement, Cache, CacheConfig, RedisConfig, Status, observe};
use cache_tests::{Mode, Postgres, Proxy, RedisServer, eventually};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::{BadgeId, Node, TEST_TIMEOUT, database, install, users};

fn config(redis: &RedisServer) -> CacheConfig {
    CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()))
}

fn rows(postgres: &Postgres, url: &str) -> String {
    postgres.psql(url, "SELECT count(*) FROM cache_outbox")
}

#[tokio::test]
async fn commits_by_psql_are_read_anew_in_every_process() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let tables = [
        users().tag("team:{team_id}"),
        table("orders").resource("orders").id(["tenant", "id"]),
    ];
    let url = database(postgres, tables).await;
    let nodes = [
        Node::new(config(&redis), &url).await,
        Node::new(config(&redis).local_mb(4), &url).await,
    ];
    for node in &nodes {
        assert_eq!(node.warm(1).await, "old");
        assert_eq!(node.names().await.expect("read")[0], "old");
        assert_eq!(node.team(1).await.expect("read").len(), 2);
        assert_eq!(node.order("a:b", 1).await.expect("read"), "old");
    }
    let update = "UPDATE users SET name = 'new' WHERE id = 1; UPDATE users SET team_id = 2 WHERE id = 2; UPDATE orders SET text = 'new'";
    postgres.psql(&url, update);
    for node in &nodes {
        node.shows(1, "new").await;
        eventually(TEST_TIMEOUT, async || {
            node.names().await.expect("read")[0] == "new"
        })
        .await;
        eventually(TEST_TIMEOUT, async || {
            node.team(1).await.expect("read") == ["new"]
        })
        .await;
        eventually(TEST_TIMEOUT, async || {
            node.order("a:b", 1).await.expect("read") == "new"
        })
        .await;
    }
    eventually(TEST_TIMEOUT, async || rows(postgres, &url) == "0").await;
    postgres.psql(&url, "TRUNCATE users");
    for node in &nodes {
        eventually(TEST_TIMEOUT, async || node.get(1).await.is_err()).await;
    }
}

/// Long ids, and ids with signs, come to the keys that functions have.
#[tokio::test]
async fn an_id_in_a_row_is_the_id_in_the_key() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(
        postgres,
        [table("orders").resource("orders").id(["tenant", "id"])],
    )
    .await;
    let node = Node::new(config(&redis), &url).await;
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    // By hand, without triggers.
    let bare_url = database(postgres, []).await;
    let bare = Node::new(config(&redis).namespace("bare"), &bare_url).await;
    let outbox = bare.cache.outbox().expect("an outbox");
    let mut bare_connection = PgConnection::connect(&bare_url).await.expect("connects");
    for tenant in ["plain", "", "a:b,c 'd' %é", "1", "~", &"long ".repeat(100)] {
        let insert = sqlx::query("INSERT INTO orders VALUES ($1, 5, 'first')").bind(tenant);
        insert.execute(&mut connection).await.expect("written");
        let text = async || node.order(tenant, 5).await.expect("read");
        let is_kept = async || {
            // A row is deleted once its invalidation has taken place.
            let first = text().await;
            rows(postgres, &url) == "0" && text().await == first
        };
        eventually(TEST_TIMEOUT, is_kept).await;
        assert_eq!(text().await, "first");
        let update = sqlx::query("UPDATE orders SET text = 'second' WHERE tenant = $1 AND id = 5");
        update
            .bind(tenant)
            .execute(&mut connection)
            .await
            .expect("written");
        eventually(TEST_TIMEOUT, async || text().await == "second").await;
        eventually(TEST_TIMEOUT, async || rows(postgres, &url) == "0").await;

        let insert = sqlx::query("INSERT INTO orders VALUES ($1, 5, 'second')").bind(tenant);
        insert.execute(&mut bare_connection).await.expect("written");
        let text = async || bare.order(tenant, 5).await.expect("read");
        assert_eq!(text().await, "second");
        let update = sqlx::query("UPDATE orders SET text = 'third' WHERE tenant = $1 AND id = 5");
        update
            .bind(tenant)
            .execute(&mut bare_connection)
            .await
            .expect("written");
        assert_eq!(text().await, "second");
        outbox
            .invalidate(&mut bare_connection, "orders", (tenant, 5))
            .await
            .expect("written");
        eventually(TEST_TIMEOUT, async || text().await == "third").await;
    }
}

/// Redis is away and so is the process: the row waits in the database.
#[tokio::test]
async fn a_row_is_deleted_only_when_redis_has_acknowledged() {
    let (postgres, mut redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, [users()]).await;
    let writer = Node::new(config(&redis), &url).await;
    assert_eq!(writer.warm(1).await, "old");
    redis.pause();
    postgres.psql(&url, "UPDATE users SET name = 'new' WHERE id = 1");
    // It has tried, and nobody has answered: the one who did is gone.
    eventually(TEST_TIMEOUT, async || {
        writer.cache.get_stats().await.circuit != Some(cache_runtime::Circuit::Closed)
    })
    .await;
    // A batch is given up within a second.
    eventually(TEST_TIMEOUT, async || rows(postgres, &url) == "1").await;
    drop(writer);
    redis.resume();
    let reader = Node::new(config(&redis), &url).await;
    reader.shows(1, "new").await;
    eventually(TEST_TIMEOUT, async || rows(postgres, &url) == "0").await;
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_not_skipped() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, [users()]).await;
    let node = Node::new(config(&redis), &url).await;
    node.warm(1).await;
    node.warm(2).await;
    let mut late = PgConnection::connect(&url).await.expect("connects");
    let mut late = late.begin().await.expect("begun");
    let update = "UPDATE users SET name = 'late' WHERE id = 1";
    sqlx::query(update)
        .execute(&mut *late)
        .await
        .expect("written");
    postgres.psql(&url, "UPDATE users SET name = 'early' WHERE id = 2");
    node.shows(2, "early").await;
    assert_eq!(node.warm(1).await, "old");
    late.commit().await.expect("committed");
    node.shows(1, "late").await;
}

/// What no relay can read does not stop the others, and what it may have meant is invalidated.
#[tokio::test]
async fn a_row_that_cannot_be_read_is_set_aside() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, []).await;
    let node = Node::new(config(&redis), &url).await;
    node.warm(1).await;
    postgres.psql(
        &url,
        "UPDATE users SET name = 'new';
         INSERT INTO cache_outbox (kind, resource, value) VALUES ('row', 'users', 'no json')",
    );
    node.shows(1, "new").await;
    let bad = "('row', 'users', NULL), ('row', 'users', '1.5'), ('row', NULL, '1'), ('row', 'No Name', '1'),
        ('row', 'users', '[[1]]'), ('row', 'orders', '[7, 1.5]'), ('row', 'users', '{}'), ('tag', NULL, '1'), ('odd', 'users', '1'),
        ('row', 'users', to_json(repeat('x', 70000))::text)";
    postgres.psql(
        &url,
        &format!("INSERT INTO cache_outbox (kind, resource, value) VALUES {bad}"),
    );
    let set_aside = "SELECT count(*) FROM cache_outbox_set_aside";
    eventually(TEST_TIMEOUT, async || {
        postgres.psql(&url, set_aside) == "11"
    })
    .await;
    eventually(TEST_TIMEOUT, async || rows(postgres, &url) == "0").await;
    let reasons = postgres.psql(
        &url,
        "SELECT reason FROM cache_outbox_set_aside ORDER BY id",
    );
    assert!(
        reasons.contains("its value is no JSON") && reasons.contains("`odd` is no kind"),
        "{reasons}"
    );
    eventually(TEST_TIMEOUT, async || node.stats().await.set_aside == 11).await;
}

/// What can't be read is kept for those who look for its reason, but not for ever, and not without
/// limit.
#[tokio::test]
async fn rows_set_aside_are_limited_in_number_and_age() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let followed = CacheConfig::default().local_mb(4);
    for (shares, config) in [(true, config(&redis)), (false, followed)] {
        let url = database(postgres, []).await;
        // Where each reads all rows, one may put some back that another has just dropped.
        let is_dropped = |rows: u64| {
            if shares {
                rows == 205
            } else {
                (205..=405).contains(&rows)
            }
        };
        postgres.psql(
            &url,
            "INSERT INTO cache_outbox_set_aside (id, kind, reason, set_aside)
                SELECT n, 'odd', 'is old', now() - interval '8 days' FROM generate_series(100001, 100005) n",
        );
        // Old ones go without a new one.
        let nodes = [
            Node::new(config.clone(), &url).await,
            Node::new(config, &url).await,
        ];
        let set_aside = "SELECT count(*) FROM cache_outbox_set_aside";
        eventually(TEST_TIMEOUT, async || postgres.psql(&url, set_aside) == "0").await;
        postgres.psql(
            &url,
            "INSERT INTO cache_outbox (kind, resource) SELECT 'odd', 'users' FROM generate_series(1, 1200)",
        );
        let kept = "SELECT count(*), min(id), max(id) FROM cache_outbox_set_aside";
        let last = "1000|201|1200";
        eventually(TEST_TIMEOUT, async || postgres.psql(&url, kept) == last).await;
        for node in &nodes {
            eventually(TEST_TIMEOUT, async || {
                let stats = node.stats().await;
                stats.set_aside == 1_000 && is_dropped(stats.set_aside_dropped)
            })
            .await;
            let report = node.cache.doctor().await.to_string();
            let told = "more that are kept no longer";
            assert!(report.contains(told), "{report}");
        }
        let outbox = OutboxConfig::postgres(&url).expect("a URL");
        let mut connection = PgConnection::connect(&url).await.expect("connects");
        let status = cache_runtime::outbox::status(&mut connection, &outbox).await;
        let status = status.expect("read");
        assert_eq!(status.set_aside, 1_000);
        assert!(is_dropped(status.set_aside_dropped), "{status}");
        assert!(status.to_string().contains("1000, and "), "{status}");
    }
}

/// The relay's connection is gone in each way in which one can be.
#[tokio::test]
async fn a_lost_connection_is_noticed_and_followed_by_a_read() {
    let (mut postgres, redis) = (Postgres::start(), RedisServer::start());
    let url = database(&postgres, [users()]).await;
    let proxy = Proxy::start(postgres.port());
    let through = url.replace(
        &format!(":{}/", postgres.port()),
        &format!(":{}/", proxy.port()),
    );
    let node = Node::new(config(&redis), &through).await;
    let pool = sqlx::PgPool::connect(&url).await.expect("connects");
    let node = Node { pool, ..node };
    let connections = async || node.stats().await.connections;
    let mut names = 0;
    let mut write = || {
        names += 1;
        let name = format!("name {names}");
        postgres_write(&url, &name);
        name
    };

    // Ended by the server.
    node.warm(1).await;
    let before = connections().await;
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cache-runtime outbox'";
    postgres.psql(&url, ended);
    let name = write();
    node.shows(1, &name).await;
    eventually(TEST_TIMEOUT, async || connections().await > before).await;

    // Half open: nothing comes back any more, and nobody says so.
    node.warm(1).await;
    let before = connections().await;
    proxy.set(Mode::SwallowAnswers);
    let name = write();
    eventually(TEST_TIMEOUT, async || !node.stats().await.connected).await;
    proxy.cut_then(Mode::Pass);
    node.shows(1, &name).await;
    assert!(connections().await > before);

    // The server is restarted.
    node.warm(1).await;
    postgres.stop();
    eventually(TEST_TIMEOUT, async || !node.stats().await.connected).await;
    postgres.start_again();
    let name = write();
    node.shows(1, &name).await;
}

fn postgres_write(url: &str, name: &str) {
    let status = std::process::Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "-d", url, "-c"])
        .arg(format!("UPDATE users SET name = '{name}' WHERE id = 1"))
        .status();
    assert!(status.expect("psql can be run").success());
}

/// A notification that nobody hears is made up for by the next poll.
#[tokio::test]
async fn rows_without_a_notification_are_found_by_polling() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, [users()]).await;
    let node = Node::new(config(&redis), &url).await;
    postgres.psql(&url, "ALTER TABLE cache_outbox DISABLE TRIGGER USER");
    for name in ["a", "b", "c"] {
        node.warm(1).await;
        postgres.psql(
            &url,
            &format!("UPDATE users SET name = '{name}' WHERE id = 1"),
        );
        node.shows(1, name).await;
    }
}

/// A process that stands still in the middle of a batch does not keep the rows.
#[tokio::test]
async fn rows_that_a_stopped_relay_has_locked_are_taken_by_others() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, []).await;
    let node = Node::new(config(&redis), &url).await;
    node.warm(1).await;
    postgres.psql(
        &url,
        "UPDATE users SET name = 'new' WHERE id = 1;
         INSERT INTO cache_outbox (kind, resource, value, due) VALUES ('row', 'users', '1', clock_timestamp() + interval '5 s')",
    );
    // As a relay does that has been stopped behind its first statement. The limit comes last: until
    // then nobody waits.
    let mut stopped = PgConnection::connect(&url).await.expect("connects");
    for statement in [
        "BEGIN",
        "SELECT 1 FROM cache_outbox FOR UPDATE",
        "SET idle_in_transaction_session_timeout = '6s'",
    ] {
        let done = sqlx::query(statement).execute(&mut stopped).await;
        done.expect("done");
    }
    node.shows(1, "new").await;
}

/// Two programs whose caches have nothing in common must not take each other's rows.
#[tokio::test]
async fn relays_that_share_the_rows_in_another_way_are_refused() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, [users()]).await;
    let _first = Node::new(config(&redis).namespace("one"), &url).await;
    for other in [
        config(&redis).namespace("two"),
        CacheConfig::default().local_mb(4),
    ] {
        let other = Node::unheard(other, &url).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let stats = other.stats().await;
        assert_eq!((stats.connected, stats.connections), (false, 0));
        // It works as without a cache, or without an outbox.
        assert_eq!(other.name(1).await.0, "old");
    }
    let stats = Node::new(config(&redis).namespace("one"), &url)
        .await
        .stats()
        .await;
    assert!(stats.connected && stats.shared);
}

/// Many rows go in batches, and what is said twice is harmless.
#[tokio::test]
async fn a_backlog_is_worked_off_in_batches() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, []).await;
    postgres.psql(
        &url,
        "INSERT INTO cache_outbox (kind, resource, value) SELECT 'row', 'users', (n % 2000)::text FROM generate_series(1, 12000) n",
    );
    let nodes = [
        Node::new(config(&redis), &url).await,
        Node::new(config(&redis), &url).await,
    ];
    eventually(TEST_TIMEOUT, async || rows(postgres, &url) == "0").await;
    let mut delivered = 0;
    for node in &nodes {
        delivered += node.stats().await.delivered;
    }
    assert_eq!(delivered, 12_000);
    let outbox = Outbox::new(&OutboxConfig::postgres(&url).expect("a URL"));
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    outbox
        .invalidate(&mut connection, "users", 1)
        .await
        .expect("written");
    eventually(TEST_TIMEOUT, async || rows(postgres, &url) == "0").await;
}

/// A relay that may not set a row aside goes on with the next ones.
#[tokio::test]
async fn a_relay_that_may_not_set_rows_aside_goes_on() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = database(postgres, [users()]).await;
    postgres.psql(
        &url,
        "CREATE ROLE outbox_relay LOGIN;
         GRANT SELECT, UPDATE, DELETE ON cache_outbox TO outbox_relay;
         GRANT SELECT, UPDATE ON cache_outbox_state TO outbox_relay;
         GRANT SELECT ON cache_outbox_set_aside TO outbox_relay",
    );
    let pool = sqlx::PgPool::connect(&url).await.expect("connects");
    let as_relay = url.replace("postgres@", "outbox_relay@");
    let node = Node::new(config(&redis), &as_relay).await;
    let node = Node { pool, ..node };
    node.warm(1).await;
    postgres.psql(
        &url,
        "INSERT INTO cache_outbox (kind, resource, value) VALUES ('row', 'users', 'no json');
         UPDATE users SET name = 'new' WHERE id = 1",
    );
    node.shows(1, "new").await;
    eventually(TEST_TIMEOUT, async || rows(postgres, &url) == "0").await;
}

/// A process that has never read a resource does not know what its ids look like.
#[tokio::test]
async fn a_relay_that_does_not_know_the_ids_invalidates_the_resource() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    let url = postgres.database();
    postgres.psql(
        &url,
        "CREATE TABLE badges (id bigint PRIMARY KEY, text text); INSERT INTO badges VALUES (7, 'old')",
    );
    let badges = table("badges").resource("badges").id("id");
    install(&url, [badges]).await.expect("installed");
    let pool = sqlx::PgPool::connect(&url).await.expect("connects");
    let config = || config(&redis).command_budget(Duration::from_secs(5));
    let cache = Cache::new(config()).await;
    let reader = Node { cache, pool };
    let relay = Node::new(config(), &url).await;
    // What the cache says, and nothing else.
    let read = async || {
        let (text, outcomes) = observe(reader.badge(BadgeId(7))).await;
        match outcomes[0].status {
            Status::Bypass(_) => String::new(),
            _ => text.expect("read"),
        }
    };
    assert_eq!(read().await, "old");
    postgres.psql(&url, "UPDATE badges SET text = 'new'");
    eventually(TEST_TIMEOUT, async || read().await == "new").await;
    // One that does knows that this row is no badge of its own.
    relay.badge(BadgeId(7)).await.expect("read");
    postgres.psql(&url, "UPDATE badges SET text = 'newer'");
    eventually(TEST_TIMEOUT, async || read().await == "newer").await;
}

/// A standby that was behind becomes the primary: commits are gone that entries were loaded after.
/// Also where no process is left that knew the old one.
#[tokio::test]
async fn after_a_failover_everything_is_invalidated() {
    fail_over(false).await;
}

#[tokio::test]
async fn after_a_failover_processes_that_start_then_invalidate_everything() {
    fail_over(true).await;
}

async fn fail_over(is_restarted: bool) {
    let (mut primary, redis) = (Postgres::start(), RedisServer::start());
    let url = database(&primary, [users()]).await;
    let standby = primary.standby();
    let at_standby = url.replace(
        &format!(":{}/", primary.port()),
        &format!(":{}/", standby.port()),
    );
    let name_of_one = "SELECT name FROM users WHERE id = 1";
    eventually(TEST_TIMEOUT, async || {
        standby.psql(&at_standby, name_of_one) == "old"
    })
    .await;
    let proxy = Proxy::start(primary.port());
    let through = url.replace(
        &format!(":{}/", primary.port()),
        &format!(":{}/", proxy.port()),
    );
    let node = Node::new(config(&redis), &through).await;
    assert_eq!(node.warm(1).await, "old");
    let server = "SELECT server IS NOT NULL FROM cache_outbox_state";
    eventually(TEST_TIMEOUT, async || {
        standby.psql(&at_standby, server) == "t"
    })
    .await;

    // From here on the standby hears nothing.
    standby.psql(&at_standby, "ALTER SYSTEM SET primary_conninfo = ''");
    standby.psql(&at_standby, "SELECT pg_reload_conf()");
    eventually(TEST_TIMEOUT, async || {
        primary.psql(&url, "SELECT count(*) FROM pg_stat_replication") == "0"
    })
    .await;
    primary.psql(&url, "UPDATE users SET name = 'lost' WHERE id = 1");
    node.shows(1, "lost").await;
    assert_eq!(node.warm(1).await, "lost");
    eventually(TEST_TIMEOUT, async || rows(&primary, &url) == "0").await;

    primary.stop();
    proxy.lead_to(standby.port());
    eventually(TEST_TIMEOUT, async || !node.stats().await.connected).await;
    // A replica is not read.
    let node = match is_restarted {
        true => {
            drop(node);
            standby.promote();
            Node::new(config(&redis), &through).await
        }
        false => {
            standby.promote();
            node.heard().await;
            node
        }
    };
    node.shows(1, "old").await;
    assert_eq!(node.stats().await.cold_starts, 1);
}

/// Commits don't wait for the disk, and somebody has read one that is lost.
#[tokio::test]
async fn after_a_crash_that_lost_commits_everything_is_invalidated() {
    // What has not been waited for is written 10 s later.
    let settings = ["synchronous_commit=on", "wal_writer_delay=10s"];
    let (mut postgres, redis) = (Postgres::start_with(&settings), RedisServer::start());
    let url = database(&postgres, [users()]).await;
    // For those who write, and not for the relay.
    postgres.psql(
        &url,
        "CREATE ROLE hasty LOGIN SUPERUSER; ALTER ROLE hasty SET synchronous_commit = off",
    );
    let hasty = url.replace("postgres@", "hasty@");
    let node = Node::new(config(&redis), &url).await;
    assert_eq!(node.warm(1).await, "old");
    // The relay says which server this is.
    let told = "SELECT server IS NOT NULL FROM cache_outbox_state";
    eventually(TEST_TIMEOUT, async || postgres.psql(&url, told) == "t").await;
    let quiet = "ALTER TABLE users DISABLE TRIGGER USER";
    postgres.psql(&url, quiet);
    // What depends on the table is invalidated, since its triggers are others.
    eventually(TEST_TIMEOUT, async || {
        !node.stats().await.not_followed.is_empty()
    })
    .await;
    // A page that is full would be written.
    postgres.psql(&url, "SELECT pg_switch_wal()");
    // Without a row of it, since a relay that deletes one waits for the disk.
    postgres.psql(&hasty, "UPDATE users SET name = 'lost' WHERE id = 1");
    let done = node.cache.invalidate("users", &1).await;
    assert_eq!(done, Acknowledgement::Delivered);
    node.shows(1, "lost").await;
    assert_eq!(node.warm(1).await, "lost");
    postgres.stop();
    eventually(TEST_TIMEOUT, async || !node.stats().await.connected).await;
    postgres.start_again();
    assert_eq!(
        postgres.psql(&url, "SELECT name FROM users WHERE id = 1"),
        "old"
    );
    node.heard().await;
    node.shows(1, "old").await;
    assert_eq!(node.stats().await.cold_starts, 1);
    // A shutdown loses nothing, and nothing is invalidated after it.
    assert_eq!(node.warm(1).await, "old");
    postgres.shut_down();
    eventually(TEST_TIMEOUT, async || !node.stats().await.connected).await;
    postgres.start_again();
    node.heard().await;
    assert_eq!(node.stats().await.cold_starts, 1);
}
