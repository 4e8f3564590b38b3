//! What the triggers write. No relay reads it.

use cache_runtime::outbox::{self, table};
use cache_tests::Postgres;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::{database, install, users, written};

/// Runs a statement, and returns what it has written to the outbox.
fn after(url: &str, sql: &str) -> Vec<String> {
    let postgres = Postgres::shared();
    postgres.psql(url, sql);
    written(postgres, url)
}

fn none() -> Vec<String> {
    Vec::new()
}

#[tokio::test]
async fn each_statement_writes_the_ids_of_what_it_changes() {
    let url = database(Postgres::shared(), [users()]).await;
    for (sql, rows) in [
        (
            "INSERT INTO users VALUES (4, 'new', 1)",
            vec!["row users 4"],
        ),
        (
            "UPDATE users SET name = 'x' WHERE id = 4",
            vec!["row users 4"],
        ),
        (
            "UPDATE users SET note = '{}' WHERE id < 3",
            vec!["row users 1", "row users 2"],
        ),
        ("DELETE FROM users WHERE id = 4", vec!["row users 4"]),
        (
            "UPDATE users SET id = 9 WHERE id = 3",
            vec!["row users 3", "row users 9"],
        ),
        // Rows that swap their ids have both changed.
        (
            "BEGIN; ALTER TABLE users DROP CONSTRAINT users_pkey; UPDATE users SET id = 3 - id WHERE id IN (1, 2); COMMIT",
            vec!["row users 1", "row users 2"],
        ),
        (
            "INSERT INTO users VALUES (5, 'a'), (6, 'b') ON CONFLICT DO NOTHING",
            vec!["row users 5", "row users 6"],
        ),
        (
            "WITH gone AS (DELETE FROM users WHERE id = 5 RETURNING 1) UPDATE users SET name = 'y' WHERE id = 6",
            vec!["row users 5", "row users 6"],
        ),
        (
            "COPY users (id, name) FROM PROGRAM 'echo \"7,copied\"' WITH (FORMAT csv)",
            vec!["row users 7"],
        ),
        (
            "SET session_replication_role = replica; UPDATE users SET name = 'z' WHERE id = 7",
            vec!["row users 7"],
        ),
        ("TRUNCATE users", vec!["all users -"]),
    ] {
        assert_eq!(after(&url, sql), rows, "{sql}");
    }
}

#[tokio::test]
async fn a_change_of_nothing_writes_nothing() {
    let url = database(Postgres::shared(), [users()]).await;
    for sql in [
        "UPDATE users SET name = name",
        "UPDATE users SET name = 'old' WHERE id = 1",
        "UPDATE users SET name = 'none' WHERE id = 99",
        "DELETE FROM users WHERE id = 99",
        "INSERT INTO users SELECT * FROM users WHERE false",
        "INSERT INTO users VALUES (1, 'x') ON CONFLICT DO NOTHING",
        "BEGIN; UPDATE users SET name = 'undone'; ROLLBACK",
        "BEGIN; SAVEPOINT s; UPDATE users SET name = 'undone'; ROLLBACK TO s; COMMIT",
    ] {
        assert_eq!(after(&url, sql), none(), "{sql}");
    }
    // Of many only those that change.
    let sql = "UPDATE users SET name = 'old'";
    assert_eq!(after(&url, sql), ["row users 2", "row users 3"]);
}

#[tokio::test]
async fn upserts_and_merges_write_both_kinds() {
    let url = database(Postgres::shared(), [users()]).await;
    let upsert = "INSERT INTO users VALUES (1, 'x'), (8, 'y') ON CONFLICT (id) DO UPDATE SET name = excluded.name";
    assert_eq!(after(&url, upsert), ["row users 1", "row users 8"]);
    let merge = "MERGE INTO users u USING (VALUES (2, 'm'), (10, 'n')) AS v(id, name) ON u.id = v.id
        WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, v.name)";
    assert_eq!(after(&url, merge), ["row users 10", "row users 2"]);
}

#[tokio::test]
async fn past_a_thousand_rows_it_is_the_whole_resource() {
    let url = database(Postgres::shared(), [users().tag("team:{team_id}")]).await;
    let insert = "INSERT INTO users SELECT n, 'n', n % 3 FROM generate_series(1001, 2000) n";
    let rows = after(&url, insert);
    assert_eq!(
        rows.iter()
            .filter(|row| row.starts_with("row users "))
            .count(),
        1_000
    );
    let tags: Vec<_> = rows.iter().filter(|row| row.starts_with("tag ")).collect();
    assert_eq!(
        tags,
        ["tag - \"team:0\"", "tag - \"team:1\"", "tag - \"team:2\""]
    );

    let update = "UPDATE users SET name = 'many'";
    let rows = after(&url, update);
    assert_eq!(
        rows,
        [
            "all users -",
            "tag - \"team:0\"",
            "tag - \"team:1\"",
            "tag - \"team:2\""
        ]
    );
    // Too many tags: the resources whose functions carry them.
    let update = "UPDATE users SET team_id = id";
    assert_eq!(after(&url, update), ["all teams -", "all users -"]);
    assert_eq!(after(&url, "UPDATE users SET name = 'many'"), none());
}

#[tokio::test]
async fn a_tag_that_changes_is_written_as_it_was_and_as_it_is() {
    let postgres = Postgres::shared();
    let url = database(postgres, [table("users").tag("team:{team_id}")]).await;
    let update = "UPDATE users SET team_id = 7 WHERE id IN (1, 2)";
    assert_eq!(
        after(&url, update),
        ["tag - \"team:1\"", "tag - \"team:7\""]
    );
    // Who is in no team changes none.
    let update = "UPDATE users SET team_id = NULL WHERE id = 1";
    assert_eq!(after(&url, update), ["tag - \"team:7\""]);
    assert_eq!(
        after(&url, "UPDATE users SET name = 'x' WHERE id = 1"),
        none()
    );
    assert_eq!(after(&url, "TRUNCATE users"), ["all teams -"]);
}

#[tokio::test]
async fn ids_of_text_and_of_several_columns_are_json() {
    // `(tenant, id)` is an expression, of which nobody knows here what it looks like in a key.
    let url = database(
        Postgres::shared(),
        [table("orders").resource("orders").id(["tenant", "id"])],
    )
    .await;
    let insert = r#"INSERT INTO orders VALUES ('it''s "1"', 2, 'x')"#;
    assert_eq!(
        after(&url, insert),
        [r#"row orders {"id": ["it's \"1\"", 2]}"#]
    );
    let update = "UPDATE orders SET tenant = 'c' WHERE tenant = 'a:b'";
    assert_eq!(
        after(&url, update),
        [
            r#"row orders {"id": ["a:b", 1]}"#,
            r#"row orders {"id": ["c", 1]}"#
        ]
    );
}

#[tokio::test]
async fn a_table_without_an_id_is_the_whole_resource() {
    let url = database(Postgres::shared(), [table("orders").resource("users")]).await;
    assert_eq!(after(&url, "UPDATE orders SET text = 'x'"), ["all users -"]);
    assert_eq!(after(&url, "UPDATE orders SET text = 'x'"), none());
    assert_eq!(after(&url, "DELETE FROM orders"), ["all users -"]);
    assert_eq!(after(&url, "DELETE FROM orders"), none());
}

/// Whatever a name holds, it is a name.
#[tokio::test]
async fn names_are_quoted() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    let (schema, name) = (r#"it's "x""#, r#"a.b'; DROP TABLE keep; -- $cache_outbox$"#);
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let target = format!("{}.{}", quoted(schema), quoted(name));
    let column = r#"I"d $1 %s %I"#;
    postgres.psql(
        &url,
        &format!(
            "CREATE TABLE keep (); CREATE SCHEMA {}; CREATE TABLE {target} ({} bigint, r text, side int, c0 int)",
            quoted(schema),
            quoted(column)
        ),
    );
    let table = table(name).schema(schema).resource("users").id(column);
    install(&url, [table]).await.expect("installed");
    let insert = format!("INSERT INTO {target} VALUES (1, 'x', 5, 7)");
    assert_eq!(after(&url, &insert), ["row users 1"]);
    let update = format!("UPDATE {target} SET {} = 2", quoted(column));
    assert_eq!(after(&url, &update), ["row users 1", "row users 2"]);
    assert_eq!(postgres.psql(&url, "SELECT to_regclass('keep')"), "keep");
}

#[tokio::test]
async fn partitions_are_followed_by_either_name() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    postgres.psql(
        &url,
        "CREATE TABLE users (id bigint, name text) PARTITION BY RANGE (id);
         CREATE TABLE users_1 PARTITION OF users FOR VALUES FROM (0) TO (100);
         CREATE TABLE users_2 PARTITION OF users FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
         CREATE TABLE users_2a PARTITION OF users_2 FOR VALUES FROM (100) TO (200)",
    );
    install(&url, [users()]).await.expect("installed");
    for (sql, rows) in [
        (
            "INSERT INTO users VALUES (1, 'a'), (101, 'b')",
            vec!["row users 1", "row users 101"],
        ),
        ("UPDATE users_1 SET name = 'x'", vec!["row users 1"]),
        ("UPDATE users_2a SET name = 'x'", vec!["row users 101"]),
        ("UPDATE users_2 SET name = 'y'", vec!["row users 101"]),
        // Into the other partition.
        (
            "UPDATE users SET id = 150 WHERE id = 1",
            vec!["row users 1", "row users 150"],
        ),
        ("TRUNCATE users_2", vec!["all users -", "all users -"]),
    ] {
        assert_eq!(after(&url, sql), rows, "{sql}");
    }
    // One that is made later is not, and the status says so.
    postgres.psql(
        &url,
        "CREATE TABLE users_3 PARTITION OF users FOR VALUES FROM (200) TO (300)",
    );
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    let config = outbox::OutboxConfig::postgres(&url).expect("a URL");
    let status = outbox::status(&mut connection, &config)
        .await
        .expect("asked");
    assert_eq!(status.not_followed, ["users_3"]);
    assert_eq!(status.followed, ["users", "users_1", "users_2", "users_2a"]);
    install(&url, [users()]).await.expect("installed again");
    assert_eq!(
        after(&url, "INSERT INTO users_3 VALUES (250, 'c')"),
        ["row users 250"]
    );
}

#[tokio::test]
async fn cascades_are_followed() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    postgres.psql(
        &url,
        "CREATE TABLE accounts (id bigint PRIMARY KEY); INSERT INTO accounts VALUES (1);
         ALTER TABLE users ADD COLUMN account bigint REFERENCES accounts ON DELETE CASCADE;
         UPDATE users SET account = 1 WHERE id = 2; DELETE FROM cache_outbox",
    );
    assert_eq!(after(&url, "DELETE FROM accounts"), ["row users 2"]);
}

/// A writer without any right on the outbox, and with a search path of its own.
#[tokio::test]
async fn a_writer_needs_no_right_on_the_outbox() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    let (role, schema) = ("outbox_writer", "elsewhere");
    postgres.psql(
        &url,
        &format!(
            "CREATE ROLE {role}; GRANT SELECT, UPDATE ON users TO {role}; CREATE SCHEMA {schema};
             CREATE FUNCTION {schema}.to_jsonb(bigint) RETURNS jsonb LANGUAGE sql AS $$ SELECT '0'::jsonb $$"
        ),
    );
    let update = format!(
        "SET ROLE {role}; SET search_path = {schema}, public, pg_catalog; UPDATE public.users SET name = 'x' WHERE id = 1"
    );
    assert_eq!(after(&url, &update), ["row users 1"]);
}

#[tokio::test]
async fn a_column_whose_text_may_differ_from_a_keys_is_refused() {
    let postgres = Postgres::shared();
    for (kind, is) in [
        ("integer", true),
        ("uuid", true),
        ("varchar(9)", true),
        ("boolean", true),
        ("timestamptz", false),
        ("char(9)", false),
        ("numeric", false),
        ("text COLLATE loose", false),
    ] {
        let url = postgres.database();
        postgres.psql(
            &url,
            &format!("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE users (id {kind})"),
        );
        let installed = install(&url, [users()]).await;
        assert_eq!(installed.is_ok(), is, "{kind}");
        if let Err(error) = installed {
            assert!(
                error.to_string().contains("column id is of type"),
                "{error}"
            );
            assert_eq!(
                postgres.psql(
                    &url,
                    "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'cache%'"
                ),
                "0"
            );
        }
    }
    let url = postgres.database();
    postgres.psql(&url, "CREATE TABLE users (name text)");
    let error = install(&url, [users()])
        .await
        .expect_err("no column")
        .to_string();
    assert!(error.contains("column id does not exist"), "{error}");
}

#[tokio::test]
async fn an_installation_can_be_removed() {
    let postgres = Postgres::shared();
    let url = database(postgres, [users()]).await;
    install(&url, [users()]).await.expect("a second time");
    let triggers = outbox::triggers(&cache_runtime::catalog(), [users()]).expect("triggers");
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    let config = outbox::OutboxConfig::postgres(&url).expect("a URL");
    outbox::remove(&mut connection, &config, Some(&triggers))
        .await
        .expect("taken away");
    let left = "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal), \
                (SELECT count(*) FROM pg_proc WHERE proname LIKE 'cache_outbox%'), \
                (SELECT count(*) FROM pg_class WHERE relname LIKE 'cache_outbox%')";
    assert_eq!(postgres.psql(&url, left), "0|0|0");
    postgres.psql(&url, "UPDATE users SET name = 'x'");
    let status = outbox::status(&mut connection, &config)
        .await
        .expect("asked");
    assert_eq!((status.version, status.rows), (None, 0));
}

/// One table has one set of triggers, whatever it is called.
#[tokio::test]
async fn a_table_that_is_given_twice_is_refused() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    postgres.psql(
        &url,
        "CREATE TABLE users (id bigint, team_id bigint) PARTITION BY RANGE (id);
         CREATE TABLE users_1 PARTITION OF users FOR VALUES FROM (0) TO (100)",
    );
    for second in ["public.users", "users_1"] {
        let tables = [users(), table(second).tag("team:{team_id}")];
        let refused = install(&url, tables).await.expect_err("twice").to_string();
        assert!(refused.contains("given twice"), "{refused}");
    }
    let tables = [users(), table("users").tag("team:{team_id}")];
    let refused = install(&url, tables).await.expect_err("twice").to_string();
    assert!(refused.contains("given twice"), "{refused}");
}

/// Two programs follow one table, each with an outbox of its own, of the same name.
#[tokio::test]
async fn outboxes_of_one_name_do_not_take_each_others_triggers() {
    let postgres = Postgres::shared();
    let url = database(postgres, []).await;
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    let triggers = outbox::triggers(&cache_runtime::catalog(), [users()]).expect("triggers");
    let schemas = ["shop", "crm", "public"];
    let config = |schema: &str| {
        let config = outbox::OutboxConfig::postgres(&url).expect("a URL");
        config
            .table(&format!("{schema}.cache_outbox"))
            .expect("a table")
    };
    postgres.psql(&url, "CREATE SCHEMA shop; CREATE SCHEMA crm");
    for schema in schemas {
        // The rows come into the outbox that is installed.
        let config = config(schema);
        let installed = outbox::install(&mut connection, &config, Some(&triggers));
        installed.await.expect("installed");
    }
    let rows = || {
        schemas.map(|schema| {
            let count = format!("SELECT count(*) FROM {schema}.cache_outbox");
            postgres.psql(&url, &count)
        })
    };
    postgres.psql(&url, "UPDATE users SET name = 'x' WHERE id = 1");
    assert_eq!(rows(), ["1"; 3]);
    for schema in schemas {
        let status = outbox::status(&mut connection, &config(schema)).await;
        assert_eq!(status.expect("asked").followed, ["users"], "{schema}");
    }
    let config = config("public");
    let removed = outbox::remove(&mut connection, &config, None);
    removed.await.expect("removed");
    postgres.psql(&url, "UPDATE users SET name = 'y' WHERE id = 1");
    for schema in ["shop", "crm"] {
        let count = format!("SELECT count(*) FROM {schema}.cache_outbox");
        assert_eq!(postgres.psql(&url, &count), "2", "{schema}");
    }
}

/// Whatever was followed once, nothing is left that writes into a table that has gone.
#[tokio::test]
async fn triggers_of_tables_that_left_the_list_are_taken_away_too() {
    let postgres = Postgres::shared();
    let orders = table("orders").resource("orders").id(["tenant", "id"]);
    let url = database(postgres, [users(), orders]).await;
    let triggers = outbox::triggers(&cache_runtime::catalog(), [users()]).expect("triggers");
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    let config = outbox::OutboxConfig::postgres(&url).expect("a URL");
    let removed = outbox::remove(&mut connection, &config, Some(&triggers));
    removed.await.expect("removed");
    postgres.psql(
        &url,
        "UPDATE orders SET text = 'x'; UPDATE users SET name = 'x'",
    );
    let left = "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal), \
                (SELECT count(*) FROM pg_proc WHERE proname LIKE 'cache_outbox%')";
    assert_eq!(postgres.psql(&url, left), "0|0");
}

/// The triggers run with the rights of who installs them, so what they write to must be that one's
/// own.
#[tokio::test]
async fn objects_of_another_owner_are_not_installed_over() {
    let postgres = Postgres::shared();
    for made in [
        "CREATE TABLE public.cache_outbox (id bigint, xid xid8, kind text, resource text, value text, due timestamptz)",
        "CREATE FUNCTION public.cache_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    ] {
        let url = postgres.database();
        postgres.psql(
            &url,
            &format!(
                "CREATE TABLE users (id bigint); CREATE ROLE outbox_intruder_{n}; GRANT CREATE ON SCHEMA public TO outbox_intruder_{n};
                 SET ROLE outbox_intruder_{n}; {made}",
                n = made.len()
            ),
        );
        let refused = install(&url, [users()]).await.expect_err("another's");
        let refused = refused.to_string();
        assert!(refused.contains("outbox_intruder"), "{refused}");
    }
}

/// A trigger that is switched off follows nothing.
#[tokio::test]
async fn the_status_knows_what_is_not_followed() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    postgres.psql(
        &url,
        "CREATE TABLE users (id bigint) PARTITION BY RANGE (id);
         CREATE TABLE users_1 PARTITION OF users FOR VALUES FROM (0) TO (100)",
    );
    install(&url, [users()]).await.expect("installed");
    let mut connection = PgConnection::connect(&url).await.expect("connects");
    let config = outbox::OutboxConfig::postgres(&url).expect("a URL");
    let mut status = async || {
        let status = outbox::status(&mut connection, &config).await;
        let status = status.expect("asked");
        (status.followed, status.not_followed)
    };
    let followed = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(status().await, (followed(&["users", "users_1"]), vec![]));
    postgres.psql(
        &url,
        "ALTER TABLE users_1 DISABLE TRIGGER cache_outbox_update",
    );
    assert_eq!(
        status().await,
        (followed(&["users"]), followed(&["users_1"]))
    );
    // Installed again, it is switched on.
    install(&url, [users()]).await.expect("installed");
    let followed_again = status().await.0;
    assert_eq!(followed_again, followed(&["users", "users_1"]));
}
