//! Writers of every kind: whatever changes a row of a followed table is followed.

use cache_runtime::outbox::{self, table};
use cache_runtime::{CacheConfig, RedisConfig};
use cache_tests::{Postgres, RedisServer, eventually};

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::{Node, TEST_TIMEOUT, database, install, users, written};

/// Runs statements over one connection, and returns what they have written to the outbox.
fn after(url: &str, sql: &str) -> Vec<String> {
    let postgres = Postgres::shared();
    postgres.psql(url, sql);
    written(postgres, url)
}

/// A database that is made by these statements, with the triggers of `users`.
async fn made(sql: &str) -> String {
    let postgres = Postgres::shared();
    let url = postgres.database();
    postgres.psql(&url, sql);
    install(&url, [users()]).await.expect("installed");
    url
}

#[tokio::test]
async fn statements_that_name_another_table_are_followed() {
    let url = made(
        "CREATE TABLE parents (id bigint PRIMARY KEY);
         CREATE TABLE users (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text,
            parent bigint REFERENCES parents ON UPDATE CASCADE ON DELETE SET NULL);
         CREATE VIEW shown AS SELECT id, name FROM users;
         CREATE VIEW joined AS SELECT u.id, u.name FROM users u LEFT JOIN parents p ON p.id = u.parent;
         CREATE FUNCTION written() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN UPDATE users SET name = NEW.name WHERE id = OLD.id; RETURN NEW; END $$;
         CREATE TRIGGER written INSTEAD OF UPDATE ON joined FOR EACH ROW EXECUTE FUNCTION written();
         CREATE TABLE notes (id bigint);
         CREATE FUNCTION at_the_end() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN UPDATE users SET name = 'late' WHERE id = NEW.id; RETURN NULL; END $$;
         CREATE TABLE letters (id bigint);
         CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT ON letters DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION at_the_end();
         CREATE RULE noted AS ON INSERT TO notes DO ALSO UPDATE users SET name = 'noted' WHERE id = NEW.id;
         INSERT INTO parents VALUES (1)",
    )
    .await;
    for (sql, rows) in [
        (
            "INSERT INTO users (name, parent) VALUES ('a', 1), ('b', NULL)",
            vec!["row users 1", "row users 2"],
        ),
        ("UPDATE parents SET id = 5", vec!["row users 1"]),
        ("DELETE FROM parents", vec!["row users 1"]),
        (
            "UPDATE shown SET name = 'c' WHERE id = 2",
            vec!["row users 2"],
        ),
        (
            "UPDATE joined SET name = 'd' WHERE id = 2",
            vec!["row users 2"],
        ),
        ("INSERT INTO notes VALUES (2)", vec!["row users 2"]),
        // When the transaction ends.
        ("INSERT INTO letters VALUES (2)", vec!["row users 2"]),
        (
            "INSERT INTO users OVERRIDING SYSTEM VALUE VALUES (9, 'e')",
            vec!["row users 9"],
        ),
        ("TRUNCATE parents CASCADE", vec!["all users -"]),
    ] {
        assert_eq!(after(&url, sql), rows, "{sql}");
    }
}

#[tokio::test]
async fn rows_that_others_make_or_change_are_followed() {
    let url = made(
        "CREATE TABLE staff (id bigint, name text);
         CREATE TABLE users (tenant int, number int, name text, id bigint GENERATED ALWAYS AS (tenant * 1000 + number) STORED);
         CREATE FUNCTION upper_name() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF NEW.name = 'none' THEN RETURN NULL; END IF; NEW.number := NEW.number + 100; RETURN NEW; END $$;
         CREATE TRIGGER upper_name BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION upper_name();
         INSERT INTO staff VALUES (1, 'x'), (2, 'none')",
    )
    .await;
    for (sql, rows) in [
        // Another trigger changes one of them, and refuses the other.
        (
            "INSERT INTO users SELECT 1, id, name FROM staff",
            vec!["row users 1101"],
        ),
        // A column that is made of others.
        (
            "UPDATE users SET tenant = 2",
            vec!["row users 1101", "row users 2101"],
        ),
        (
            "UPDATE users u SET name = s.name FROM staff s WHERE s.id = 2",
            vec!["row users 2101"],
        ),
        (
            "DO $$ DECLARE c CURSOR FOR SELECT * FROM users FOR UPDATE; r record; BEGIN
                FOR r IN c LOOP UPDATE users SET name = 'cursor' WHERE CURRENT OF c; END LOOP; END $$",
            vec!["row users 2101"],
        ),
        (
            "BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE users SET name = 'serial'; COMMIT",
            vec!["row users 2101"],
        ),
        (
            "BEGIN; SAVEPOINT s; UPDATE users SET name = 'undone'; ROLLBACK TO s; UPDATE users SET name = 'kept'; COMMIT",
            vec!["row users 2101"],
        ),
        (
            "SET session_replication_role = replica; DELETE FROM users",
            vec!["row users 2101"],
        ),
    ] {
        assert_eq!(after(&url, sql), rows, "{sql}");
    }
}

/// Columns come and go while a session goes on, whose plans are made.
#[tokio::test]
async fn a_table_that_is_altered_meanwhile_is_followed() {
    let url = made("CREATE TABLE users (gone int, id bigint, name text); ALTER TABLE users DROP COLUMN gone; INSERT INTO users VALUES (1, 'a')").await;
    let sql = "UPDATE users SET name = 'b';
        ALTER TABLE users ADD COLUMN more text;
        UPDATE users SET more = 'c';
        UPDATE users SET more = 'c';
        ALTER TABLE users DROP COLUMN name;
        UPDATE users SET more = 'd';
        ALTER TABLE users ALTER COLUMN more TYPE bytea USING more::bytea;
        UPDATE users SET more = 'e'";
    assert_eq!(after(&url, sql), ["row users 1"; 4]);
    // A type whose text is not that of a number any more.
    let sql = "ALTER TABLE users ALTER COLUMN id TYPE text; UPDATE users SET id = '007'";
    assert_eq!(after(&url, sql), ["all users -"]);
}

/// In the form of the session both points of time have the same text, since a clock was set back
/// between them.
#[tokio::test]
async fn rows_are_compared_in_a_form_of_their_own() {
    let url = made("CREATE TABLE users (id bigint, seen timestamptz); INSERT INTO users VALUES (1, '2014-10-25 21:30Z')").await;
    let sql = "SET datestyle = 'SQL, DMY'; SET timezone = 'Europe/Moscow'; UPDATE users SET seen = '2014-10-25 22:30Z'";
    assert_eq!(after(&url, sql), ["row users 1"]);
    assert_eq!(after(&url, sql), [""; 0]);
}

#[tokio::test]
async fn tables_that_inherit_and_partitions_of_another_shape_are_followed() {
    let url = made(
        "CREATE TABLE users (id bigint, name text, mail text);
         CREATE TABLE staff (badge int) INHERITS (users);
         INSERT INTO users VALUES (1, 'a'); INSERT INTO staff VALUES (2, 'b')",
    )
    .await;
    for (sql, rows) in [
        (
            "UPDATE users SET name = 'c'",
            vec!["row users 1", "row users 2"],
        ),
        ("UPDATE staff SET badge = 7", vec!["row users 2"]),
        ("UPDATE ONLY users SET name = 'd'", vec!["row users 1"]),
        ("TRUNCATE staff", vec!["all users -"]),
    ] {
        assert_eq!(after(&url, sql), rows, "{sql}");
    }
    let url = made(
        "CREATE TABLE users (id bigint, name text, mail text) PARTITION BY LIST (mail);
         CREATE TABLE other (gone int, mail text, name text, id bigint); ALTER TABLE other DROP COLUMN gone;
         ALTER TABLE users ATTACH PARTITION other FOR VALUES IN ('x');
         CREATE TABLE users_rest PARTITION OF users DEFAULT;
         INSERT INTO users VALUES (1, 'a', 'x'), (2, 'b', 'y')",
    )
    .await;
    for (sql, rows) in [
        (
            "UPDATE users SET name = 'c'",
            vec!["row users 1", "row users 2"],
        ),
        ("UPDATE users SET name = 'c'", vec![]),
        ("UPDATE other SET name = 'd'", vec!["row users 1"]),
        // It goes to the other partition.
        (
            "UPDATE users SET mail = 'z' WHERE id = 1",
            vec!["row users 1"],
        ),
        (
            "MERGE INTO users u USING (VALUES (1)) v(id) ON u.id = v.id WHEN MATCHED THEN DELETE",
            vec!["row users 1"],
        ),
    ] {
        assert_eq!(after(&url, sql), rows, "{sql}");
    }
}

/// PostgreSQL collects no rows of a foreign table for a statement: with triggers of statements a
/// write to it would fail.
#[tokio::test]
async fn tables_with_a_foreign_partition_are_followed_row_by_row() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    let (_, name) = url.rsplit_once('/').expect("a database");
    postgres.psql(
        &url,
        &format!(
            "CREATE EXTENSION postgres_fdw;
             CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{}', dbname '{name}');
             CREATE USER MAPPING FOR postgres SERVER elsewhere OPTIONS (user 'postgres');
             CREATE TABLE far (id bigint, name text, note json);
             CREATE TABLE users (id bigint, name text, note json) PARTITION BY RANGE (id);
             CREATE TABLE users_1 PARTITION OF users FOR VALUES FROM (0) TO (100);",
            postgres.port()
        ),
    );
    // First as one that has none.
    install(&url, [users()]).await.expect("installed");
    assert_eq!(
        after(&url, "INSERT INTO users VALUES (1, 'a'), (2, 'b')"),
        ["row users 1", "row users 2"]
    );
    postgres.psql(
        &url,
        "CREATE FOREIGN TABLE users_2 PARTITION OF users FOR VALUES FROM (100) TO (200) SERVER elsewhere OPTIONS (table_name 'far')",
    );
    let status = async || {
        let mut connection = PgConnection::connect(&url).await.expect("connects");
        let config = outbox::OutboxConfig::postgres(&url).expect("a URL");
        let status = outbox::status(&mut connection, &config).await;
        status.expect("read")
    };
    let told = status().await.not_followed;
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[2].starts_with("users_2 (a foreign table"), "{told:?}");
    for _ in 0..2 {
        install(&url, [users()]).await.expect("installed");
        let status = status().await;
        assert_eq!(status.not_followed, [""; 0]);
        assert_eq!(status.followed, ["users", "users_1", "users_2"]);
        assert_eq!(status.foreign, ["users_2"]);
        assert!(
            status
                .to_string()
                .contains("users_2; what their own servers change"),
            "{status}"
        );
    }
    for (sql, rows) in [
        (
            "INSERT INTO users VALUES (3, 'c'), (101, 'd'), (102, 'e')",
            vec!["row users 101", "row users 102", "row users 3"],
        ),
        (
            "UPDATE users_1 SET name = 'x' WHERE id = 1",
            vec!["row users 1"],
        ),
        (
            "UPDATE users_2 SET name = 'x' WHERE id = 102",
            vec!["row users 102"],
        ),
        (
            "UPDATE users SET name = 'y' WHERE id IN (1, 101)",
            vec!["row users 1", "row users 101"],
        ),
        ("UPDATE users SET name = 'y' WHERE id IN (1, 101)", vec![]),
        // To the foreign one.
        (
            "UPDATE users SET id = 103 WHERE id = 3",
            vec!["row users 103", "row users 3"],
        ),
        (
            "DELETE FROM users WHERE id > 100",
            vec!["row users 101", "row users 102", "row users 103"],
        ),
        (
            "SET session_replication_role = replica; UPDATE users SET name = 'z' WHERE id = 1",
            vec!["row users 1"],
        ),
        (
            "COPY users (id, name) FROM PROGRAM 'echo 150,copied' WITH (FORMAT csv)",
            vec!["row users 150"],
        ),
        ("TRUNCATE users_1", vec!["all users -"]),
    ] {
        assert_eq!(after(&url, sql), rows, "{sql}");
    }
    // And as one that has none any more.
    postgres.psql(&url, "DROP FOREIGN TABLE users_2");
    install(&url, [users()]).await.expect("installed");
    assert_eq!(status().await.not_followed, [""; 0]);
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'cache_outbox%' AND tgrelid::regclass::text LIKE 'users%'";
    assert_eq!(postgres.psql(&url, triggers), "8");
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    let config = outbox::OutboxConfig::postgres(&url).expect("a URL");
    let removed = outbox::remove(&mut connection, &config, None).await;
    removed.expect("removed");
    assert_eq!(postgres.psql(&url, triggers), "0");
}

/// Triggers of statements run only where the statement names their table.
#[tokio::test]
async fn a_partition_is_followed_whatever_table_is_named() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    postgres.psql(
        &url,
        "CREATE TABLE people (id bigint, name text, note json) PARTITION BY RANGE (id);
         CREATE TABLE users PARTITION OF people FOR VALUES FROM (0) TO (100);
         CREATE TABLE others PARTITION OF people DEFAULT",
    );
    install(&url, [users()]).await.expect("installed");
    for (sql, rows) in [
        (
            "INSERT INTO people VALUES (1, 'a'), (101, 'b')",
            vec!["row users 1"],
        ),
        ("UPDATE people SET name = 'x'", vec!["row users 1"]),
        ("UPDATE people SET name = 'x'", vec![]),
        ("UPDATE users SET name = 'y'", vec!["row users 1"]),
        (
            "UPDATE people SET id = 7 WHERE id = 101",
            vec!["row users 7"],
        ),
        (
            "UPDATE people SET id = 107 WHERE id = 7",
            vec!["row users 7"],
        ),
        ("TRUNCATE people", vec!["all users -"]),
    ] {
        assert_eq!(after(&url, sql), rows, "{sql}");
    }
    // A table that becomes a partition later is named until the triggers are installed again.
    let url = database(postgres, [users()]).await;
    postgres.psql(
        &url,
        "CREATE TABLE people (LIKE users) PARTITION BY RANGE (id);
         ALTER TABLE people ATTACH PARTITION users FOR VALUES FROM (0) TO (100)",
    );
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    let config = outbox::OutboxConfig::postgres(&url).expect("a URL");
    let status = outbox::status(&mut connection, &config)
        .await
        .expect("read");
    assert_eq!(status.followed, [""; 0]);
    assert!(
        status.not_followed[0].contains("one of a table that is not followed"),
        "{status}"
    );
    install(&url, [users()]).await.expect("installed again");
    let status = outbox::status(&mut connection, &config)
        .await
        .expect("read");
    assert_eq!(
        (status.followed, status.not_followed),
        (vec!["users".to_owned()], vec![])
    );
    assert_eq!(
        after(&url, "UPDATE people SET name = 'z' WHERE id = 1"),
        ["row users 1"]
    );
}

/// A view has no rows of its own.
#[tokio::test]
async fn a_view_is_refused() {
    let postgres = Postgres::shared();
    for made in ["VIEW", "MATERIALIZED VIEW"] {
        let url = postgres.database();
        let sql = format!(
            "CREATE TABLE people (id bigint); CREATE {made} users AS SELECT id FROM people"
        );
        postgres.psql(&url, &sql);
        let refused = install(&url, [users()])
            .await
            .expect_err("a view")
            .to_string();
        assert!(refused.contains("is no table"), "{refused}");
    }
}

/// Policies are for rows of the table, and not for what is written about them.
#[tokio::test]
async fn a_writer_with_policies_and_few_rights_is_followed() {
    let url = made(
        "CREATE TABLE users (id bigint PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'a'), (2, 'b');
         CREATE ROLE outbox_tenant; GRANT SELECT, INSERT, UPDATE, DELETE ON users TO outbox_tenant;
         ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE users FORCE ROW LEVEL SECURITY;
         CREATE POLICY own ON users USING (id = 1)",
    )
    .await;
    for (sql, rows) in [
        ("UPDATE users SET name = 'c'", vec!["row users 1"]),
        ("DELETE FROM users", vec!["row users 1"]),
    ] {
        let sql = format!("SET ROLE outbox_tenant; {sql}");
        assert_eq!(after(&url, &sql), rows, "{sql}");
    }
}

/// A policy on the outbox must not look like an outbox without rows.
#[tokio::test]
async fn a_relay_that_may_not_see_the_rows_serves_nothing() {
    let (postgres, redis) = (Postgres::shared(), RedisServer::start());
    postgres.psql(&postgres.url(), "CREATE ROLE blind_relay LOGIN");
    let shared = CacheConfig::default().redis(RedisConfig::at("127.0.0.1", redis.port()));
    for (is_shared, config) in [(false, CacheConfig::default().local_mb(4)), (true, shared)] {
        let url = database(postgres, [users()]).await;
        postgres.psql(
            &url,
            "GRANT SELECT ON users TO blind_relay; GRANT SELECT, UPDATE, DELETE ON cache_outbox TO blind_relay;
             GRANT SELECT, UPDATE ON cache_outbox_state TO blind_relay;
             GRANT SELECT, INSERT, DELETE ON cache_outbox_set_aside TO blind_relay",
        );
        let node = Node::new(config, &url.replace("postgres@", "blind_relay@")).await;
        assert_eq!(node.warm(1).await, "old");
        // The rights of the book are enough.
        postgres.psql(&url, "UPDATE users SET name = 'new' WHERE id = 1");
        node.shows(1, "new").await;
        node.warm(1).await;
        postgres.psql(
            &url,
            "ALTER TABLE cache_outbox ENABLE ROW LEVEL SECURITY; UPDATE users SET name = 'newer' WHERE id = 1",
        );
        eventually(TEST_TIMEOUT, async || {
            let stats = node.stats().await;
            !stats.connected && stats.unread_ms > 1_000
        })
        .await;
        if !is_shared {
            node.shows(1, "newer").await;
        }
        // The rows have waited.
        postgres.psql(&url, "ALTER TABLE cache_outbox DISABLE ROW LEVEL SECURITY");
        node.heard().await;
        node.shows(1, "newer").await;
    }
}

/// Whoever has other rights in the outbox's schema than in the table's.
#[tokio::test]
async fn the_outbox_may_be_in_a_schema_that_writers_do_not_see() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    postgres.psql(
        &url,
        r#"CREATE SCHEMA "Hid den"; CREATE SCHEMA "Sho.wn"; CREATE TABLE "Sho.wn"."Us.ers" ("Id" bigint, name text);
           CREATE ROLE outbox_stranger; GRANT USAGE ON SCHEMA "Sho.wn" TO outbox_stranger; GRANT ALL ON "Sho.wn"."Us.ers" TO outbox_stranger"#,
    );
    let config = outbox::OutboxConfig::postgres(&url).expect("a URL");
    let config = config.table("Hid den.Out-box").expect("a table");
    let followed = table("Us.ers").schema("Sho.wn").resource("users").id("Id");
    let triggers = outbox::triggers(&cache_runtime::catalog(), [followed]).expect("fits");
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    for _ in 0..2 {
        let done = outbox::install(&mut connection, &config, Some(&triggers)).await;
        done.expect("installed");
    }
    postgres.psql(
        &url,
        r#"SET ROLE outbox_stranger; INSERT INTO "Sho.wn"."Us.ers" VALUES (7, 'x')"#,
    );
    let value = r#"SELECT value FROM "Hid den"."Out-box""#;
    assert_eq!(postgres.psql(&url, value), "7");
    let status = outbox::status(&mut connection, &config).await;
    assert_eq!(status.expect("read").followed, [r#""Sho.wn"."Us.ers""#]);
    let done = outbox::remove(&mut connection, &config, Some(&triggers)).await;
    done.expect("removed");
    postgres.psql(&url, r#"INSERT INTO "Sho.wn"."Us.ers" VALUES (8, 'x')"#);
}
