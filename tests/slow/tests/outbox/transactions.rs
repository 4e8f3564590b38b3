//! Transactions in forms that are rare, and databases that are not the ones they were.

use cache_runtime::outbox::{self, OutboxConfig};
use cache_runtime::{CacheConfig, RedisConfig};
use cache_tests::{Mode, Postgres, Proxy, RedisServer, eventually};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::{Node, TEST_TIMEOUT, database, users};

/// With Redis, and without.
fn configs(redis: &RedisServer) -> [(bool, CacheConfig); 2] {
    let shared = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    [(true, shared), (false, CacheConfig::default().local_mb(4))]
}

/// What a transaction has changed that was prepared is followed from its commit on, whoever commits
/// it, however late.
#[tokio::test]
async fn a_prepared_transaction_is_followed_when_it_is_committed() {
    let postgres = Postgres::start_with(&["max_prepared_transactions=4"]);
    let redis = RedisServer::start();
    for (is_shared, config) in configs(&redis) {
        let url = database(&postgres, [users()]).await;
        let prepare = format!(
            "BEGIN; UPDATE users SET name = 'prepared' WHERE id = 1;
             SAVEPOINT s; UPDATE users SET name = 'undone' WHERE id = 3; ROLLBACK TO s;
             PREPARE TRANSACTION 'of {is_shared}'"
        );
        let mut connection = PgConnection::connect(&url).await.expect("connects");
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(prepare.clone()));
        let refused = refused.execute(&mut connection).await;
        let refused = refused.expect_err("it notifies").to_string();
        assert!(refused.contains("NOTIFY"), "{refused}");
        postgres.psql(
            &url,
            "ALTER TABLE cache_outbox DISABLE TRIGGER cache_outbox_notify",
        );

        let node = Node::new(config, &url).await;
        node.warm(1).await;
        postgres.psql(&url, &prepare);
        for name in ["one", "two"] {
            node.warm(2).await;
            let update = format!("UPDATE users SET name = '{name}' WHERE id = 2");
            postgres.psql(&url, &update);
            node.shows(2, name).await;
        }
        assert_eq!(node.warm(1).await, "old");
        // It is seen, although no connection has it.
        eventually(TEST_TIMEOUT, async || node.stats().await.prepared == 1).await;
        let config = OutboxConfig::postgres(&url).expect("a URL");
        let status = outbox::status(&mut connection, &config).await;
        let status = status.expect("read");
        assert!(status.prepared == 1 && status.oldest_transaction.is_some());
        let text = status.to_string();
        assert!(
            text.contains("Prepared:   1 ") && text.contains("Notified:   no"),
            "{text}"
        );

        postgres.psql(&url, &format!("COMMIT PREPARED 'of {is_shared}'"));
        node.shows(1, "prepared").await;
        assert_eq!(node.stats().await.cold_starts, u64::from(!is_shared));
    }
}

/// A dump is restored over the database of before, in one transaction, so that the relay's
/// connection goes on: entries were loaded from commits that are gone.
#[tokio::test]
async fn after_a_dump_was_restored_everything_is_invalidated() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    for (is_shared, config) in configs(&redis) {
        for is_restarted in [false, true] {
            let config = config.clone().namespace(&format!("of-{is_restarted}"));
            let url = database(postgres, [users()]).await;
            let node = Node::new(config.clone(), &url).await;
            assert_eq!(node.warm(1).await, "old");
            if is_shared {
                let server = "SELECT server IS NOT NULL FROM cache_outbox_state";
                eventually(TEST_TIMEOUT, async || postgres.psql(&url, server) == "t").await;
            }
            let dump = postgres.dump(&url);
            postgres.psql(&url, "UPDATE users SET name = 'new' WHERE id = 1");
            node.shows(1, "new").await;
            assert_eq!(node.warm(1).await, "new");
            let mut seen = node.stats().await.cold_starts;
            let node = match is_restarted {
                false => {
                    postgres.restore(&url, &dump);
                    node
                }
                true => {
                    drop(node);
                    postgres.restore(&url, &dump);
                    seen = 0;
                    Node::new(config, &url).await
                }
            };
            eventually(TEST_TIMEOUT, async || node.stats().await.cold_starts > seen).await;
            node.heard().await;
            node.shows(1, "old").await;
            // And what is written from here on is followed.
            node.warm(1).await;
            postgres.psql(&url, "UPDATE users SET name = 'newer' WHERE id = 1");
            node.shows(1, "newer").await;
        }
    }
}

/// A dump is restored into a new cluster, whose transactions have smaller numbers than those that
/// the relay has seen.
#[tokio::test]
async fn in_a_new_cluster_transactions_begin_anew_and_none_is_skipped() {
    let (mut postgres, redis) = (Postgres::start(), RedisServer::start());
    // Past the numbers of 32 bits.
    postgres.begin_epoch(7);
    for (is_shared, config) in configs(&redis) {
        let url = database(&postgres, [users()]).await;
        let proxy = Proxy::start(postgres.port());
        let through =
            |port: u16| url.replace(&format!(":{}/", postgres.port()), &format!(":{port}/"));
        let node = Node::new(config, &through(proxy.port())).await;
        node.warm(1).await;
        postgres.psql(&url, "UPDATE users SET name = 'one' WHERE id = 1");
        node.shows(1, "one").await;
        let xid = "SELECT pg_current_xact_id() > (7::bigint << 32)::text::xid8";
        assert_eq!(postgres.psql(&url, xid), "t");
        assert_eq!(node.warm(1).await, "one");
        // A row goes with the dump that nobody has taken.
        postgres.psql(
            &url,
            "INSERT INTO cache_outbox (kind, resource, value, due) VALUES ('row', 'users', '2', clock_timestamp() + interval '4 s')",
        );
        let dump = postgres.dump(&url);
        postgres.psql(&url, "UPDATE users SET name = 'lost' WHERE id = 1");
        node.shows(1, "lost").await;
        assert_eq!(node.warm(1).await, "lost");

        let other = Postgres::start();
        let name = url.rsplit('/').next().expect("a name");
        other.psql(&other.url(), &format!("CREATE DATABASE {name}"));
        let at_other = through(other.port());
        other.restore(&at_other, &dump);
        let cold_starts = node.stats().await.cold_starts;
        proxy.lead_to(other.port());
        proxy.cut_then(Mode::Pass);
        let is_over = async || node.stats().await.cold_starts > cold_starts;
        eventually(TEST_TIMEOUT, is_over).await;
        node.shows(1, "one").await;
        node.warm(1).await;
        other.psql(&at_other, "UPDATE users SET name = 'two' WHERE id = 1");
        node.shows(1, "two").await;
        if is_shared {
            let rows = "SELECT count(*) FROM cache_outbox";
            eventually(TEST_TIMEOUT, async || other.psql(&at_other, rows) == "0").await;
        }
    }
}
