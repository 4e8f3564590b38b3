//! Transactions with SQLx: what the cache does when the database says yes, no, or nothing.

use std::time::Duration;

use cache_runtime::{Cache, CacheConfig, Status, cached, invalidates, observe};
use cache_tests::{Mode, Postgres, Proxy, eventually};
use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::{AnyConnection, AnyPool};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

struct Users {
    cache: Cache,
    /// What reads go to.
    pool: AnyPool,
}

impl Users {
    /// A table with one row, read once so that it is cached.
    async fn on(url: &str) -> Self {
        install_default_drivers();
        let pool = AnyPool::connect(url).await.expect("the database is there");
        for statement in [
            "CREATE TABLE users (id BIGINT PRIMARY KEY, name TEXT NOT NULL)",
            "INSERT INTO users VALUES (1, 'old')",
        ] {
            sqlx::query(statement)
                .execute(&pool)
                .await
                .expect("written");
        }
        let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
        let users = Self { cache, pool };
        users.name().await;
        assert_eq!(users.name().await, ("old".to_owned(), true));
        users
    }

    #[cached(resource = "users", cache = self.cache)]
    async fn get(&self, id: i64) -> Result<String, sqlx::Error> {
        let name = sqlx::query_scalar("SELECT name FROM users WHERE id = $1");
        name.bind(id).fetch_one(&self.pool).await
    }

    #[invalidates("users", id = id, after_commit, cache = self.cache)]
    async fn rename(&self, tx: &mut AnyConnection, id: i64) -> Result<(), sqlx::Error> {
        let update = sqlx::query("UPDATE users SET name = 'new' WHERE id = $1");
        update.bind(id).execute(tx).await.map(drop)
    }

    /// From any executor, of which no caller passes one that is in a transaction.
    #[cached(resource = "users", op = "through", autocommit(executor), cache = self.cache)]
    async fn through<'e, E>(&self, executor: E, id: i64) -> Result<String, sqlx::Error>
    where
        E: sqlx::Executor<'e, Database = sqlx::Any>,
    {
        let name = sqlx::query_scalar("SELECT name FROM users WHERE id = $1");
        name.bind(id).fetch_one(executor).await
    }

    #[invalidates("users", id = id, autocommit(executor), cache = self.cache)]
    async fn rename_through(
        &self,
        executor: impl sqlx::AnyExecutor<'_>,
        id: i64,
        name: &str,
    ) -> Result<(), sqlx::Error> {
        let update = sqlx::query("UPDATE users SET name = $1 WHERE id = $2");
        let update = update.bind(name.to_owned()).bind(id);
        update.execute(executor).await.map(drop)
    }

    /// Commits by itself, whatever is around it.
    #[invalidates("users", cache = self.cache)]
    async fn rename_alone(&self, name: &str) -> Result<(), sqlx::Error> {
        let update = sqlx::query("UPDATE users SET name = $1").bind(name.to_owned());
        update.execute(&self.pool).await.map(drop)
    }

    /// The name that a reader gets, and whether from the cache.
    async fn name(&self) -> (String, bool) {
        answer(self.get(1)).await
    }
}

/// A name that was read, and whether from the cache.
async fn answer(read: impl Future<Output = Result<String, sqlx::Error>>) -> (String, bool) {
    let (name, outcomes) = observe(read).await;
    let is_hit = matches!(outcomes[0].status, Status::Hit { .. });
    (name.expect("read"), is_hit)
}

async fn committed_and_rolled_back(url: &str) {
    let users = Users::on(url).await;
    let rolled_back: Result<(), sqlx::Error> =
        cache_runtime::sqlx::transaction(&users.cache, &users.pool, async |tx| {
            users.rename(tx, 1).await?;
            Err(sqlx::Error::RowNotFound)
        })
        .await;
    assert!(matches!(rolled_back, Err(sqlx::Error::RowNotFound)));
    assert_eq!(
        users.name().await,
        ("old".to_owned(), true),
        "and nothing was invalidated"
    );

    let committed: Result<&str, sqlx::Error> =
        cache_runtime::sqlx::transaction(&users.cache, &users.pool, async |tx| {
            users.rename(tx, 1).await?;
            Ok("done")
        })
        .await;
    assert_eq!(committed.expect("committed"), "done");
    assert_eq!(users.name().await, ("new".to_owned(), false));
    assert_eq!(users.name().await, ("new".to_owned(), true));
}

/// A write of its own inside of a transaction that is rolled back, and an inner transaction that is
/// not.
#[tokio::test]
async fn executors_that_commit_each_statement_share_an_entry() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/db?mode=rwc", folder.path().display());
    let users = Users::on(&url).await;
    let mut connection = users.pool.acquire().await.expect("a connection");
    let old = |is_hit| ("old".to_owned(), is_hit);
    let new = |is_hit| ("new".to_owned(), is_hit);

    assert_eq!(answer(users.through(&users.pool, 1)).await, old(false));
    assert_eq!(answer(users.through(&mut *connection, 1)).await, old(true));

    let write = users.rename_through(&mut *connection, 1, "new");
    write.await.expect("written");
    assert_eq!(answer(users.through(&users.pool, 1)).await, new(false));
    assert_eq!(answer(users.through(&mut *connection, 1)).await, new(true));
}

#[tokio::test]
async fn writes_that_commit_by_themselves_are_invalidated_in_any_case() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!(
        "sqlite://{}?mode=rwc",
        directory.path().join("users.db").display()
    );
    let users = Users::on(&url).await;
    let rolled_back: Result<(), sqlx::Error> =
        cache_runtime::sqlx::transaction(&users.cache, &users.pool, async |_| {
            users.rename_alone("alone").await?;
            Err(sqlx::Error::RowNotFound)
        })
        .await;
    rolled_back.expect_err("rolled back");
    assert_eq!(users.name().await, ("alone".to_owned(), false));
    assert_eq!(users.name().await, ("alone".to_owned(), true));

    let rolled_back: Result<(), sqlx::Error> =
        cache_runtime::sqlx::transaction(&users.cache, &users.pool, async |_| {
            let inner = async |tx: &mut AnyConnection| users.rename(tx, 1).await;
            cache_runtime::sqlx::transaction(&users.cache, &users.pool, inner).await?;
            Err(sqlx::Error::RowNotFound)
        })
        .await;
    rolled_back.expect_err("rolled back");
    assert_eq!(users.name().await, ("new".to_owned(), false));
}

#[tokio::test]
async fn on_sqlite_a_commit_invalidates_and_a_rollback_does_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("users.db");
    committed_and_rolled_back(&format!("sqlite://{}?mode=rwc", file.display())).await;
}

#[tokio::test]
async fn on_postgres_a_commit_invalidates_and_a_rollback_does_not() {
    committed_and_rolled_back(&Postgres::shared().database()).await;
}

/// The database commits, and its answer is lost on the way.
#[tokio::test]
async fn a_commit_without_an_answer_invalidates_too() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    let users = Users::on(&url).await;
    let port = url.rsplit_once(':').expect("a port").1;
    let (port, database) = port.split_once('/').expect("a database");
    let proxy = Proxy::start(port.parse().expect("a number"));
    let url_of_proxy = url.replace(
        &format!(":{port}/{database}"),
        &format!(":{}/{database}", proxy.port()),
    );
    let through = AnyPool::connect(&url_of_proxy)
        .await
        .expect("the proxy passes");

    let write = cache_runtime::sqlx::transaction(&users.cache, &through, async |tx| {
        users.rename(tx, 1).await?;
        proxy.set(Mode::SwallowAnswers);
        Ok::<_, sqlx::Error>(())
    });
    let has_committed = eventually(TEST_TIMEOUT, async || {
        postgres.psql(&url, "SELECT name FROM users") == "new"
    });
    let cut = async {
        has_committed.await;
        assert_eq!(
            users.name().await,
            ("old".to_owned(), true),
            "nobody knows of it yet"
        );
        proxy.set(Mode::Cut);
    };
    let (written, ()) = tokio::join!(write, cut);
    written.expect_err("no answer");
    assert_eq!(users.name().await, ("new".to_owned(), false));
}

/// The caller hangs up while the database begins the transaction: whoever has the connection next
/// is not in it.
#[tokio::test]
async fn a_transaction_whose_beginning_is_dropped_is_over() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    let users = Users::on(&url).await;
    let port = url.rsplit_once(':').expect("a port").1;
    let (port, database) = port.split_once('/').expect("a database");
    let proxy = Proxy::start(port.parse().expect("a number"));
    let url_of_proxy = url.replace(
        &format!(":{port}/{database}"),
        &format!(":{}/{database}", proxy.port()),
    );
    // The first answer to be held is that to BEGIN, not one to a test of the connection.
    let through = AnyPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false);
    let through = through
        .connect(&url_of_proxy)
        .await
        .expect("the proxy passes");

    proxy.set(Mode::HoldAnswers);
    let transaction =
        cache_runtime::sqlx::transaction(
            &users.cache,
            &through,
            async |_| Ok::<_, sqlx::Error>(()),
        );
    tokio::select! {
        _ = transaction => unreachable!("it can't begin"),
        () = eventually(TEST_TIMEOUT, async || proxy.held() > 0) => {}
    }
    proxy.set(Mode::Pass);
    sqlx::query("UPDATE users SET name = 'new'")
        .execute(&through)
        .await
        .expect("written");
    assert_eq!(postgres.psql(&url, "SELECT name FROM users"), "new");
}
