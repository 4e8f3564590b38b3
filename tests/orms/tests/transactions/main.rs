//! Functions marked `after_commit` inside transactions of libraries that the runtime does not know.
//! One story for all of them, on PostgreSQL.

use std::error::Error;

use cache_runtime::{Cache, CacheConfig, Outcome, Status, observe};
use cache_tests::Postgres;

mod with_diesel;
mod with_sea_orm;
mod with_sqlx;

type Failure = Box<dyn Error + Send + Sync>;

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Commit,
    /// It is rolled back, and the block is told.
    RollBack,
    /// It is given up, and the block is told nothing.
    GiveUp,
}

/// The error that makes a body end its transaction without a commit.
fn given_up() -> Failure {
    "no".into()
}

/// A table of users behind one of the libraries.
trait Users {
    async fn connect(cache: Cache, url: &str) -> Self;

    /// The cached name.
    async fn name(&self, id: i64) -> Result<Option<String>, Failure>;

    /// The name by a function that takes a connection, here one of no transaction.
    async fn name_through(&self, id: i64) -> Result<Option<String>, Failure>;

    /// In a transaction: renames, reads by both functions, and ends. `inside` gets what was read
    /// before the end.
    async fn rename(
        &self,
        id: i64,
        name: &str,
        ending: Ending,
        inside: &mut Option<Inside>,
    ) -> Result<(), Failure>;
}

/// What is read in a transaction that has renamed a user and is still open.
#[derive(Debug, PartialEq, Eq)]
struct Inside {
    /// On the transaction's own connection.
    own: Option<String>,
    /// On another connection.
    others: Option<String>,
    /// Whether the cache took part in neither.
    is_bypassed: bool,
}

impl Inside {
    async fn read(
        own: impl Future<Output = Result<Option<String>, Failure>>,
        others: impl Future<Output = Result<Option<String>, Failure>>,
    ) -> Result<Self, Failure> {
        let (own, first) = observe(own).await;
        let (others, second) = observe(others).await;
        let is_bypass = |outcome: &Outcome| matches!(outcome.status, Status::Bypass(_));
        Ok(Self {
            own: own?,
            others: others?,
            is_bypassed: is_bypass(&first[0]) && is_bypass(&second[0]),
        })
    }
}

/// A name, and whether it came from the cache.
async fn answer(
    read: impl Future<Output = Result<Option<String>, Failure>>,
) -> (Option<String>, bool) {
    let (name, outcomes) = observe(read).await;
    let is_hit = matches!(outcomes[0].status, Status::Hit { .. });
    (name.expect("read"), is_hit)
}

fn hit(name: &str) -> (Option<String>, bool) {
    (Some(name.to_owned()), true)
}

fn miss(name: &str) -> (Option<String>, bool) {
    (Some(name.to_owned()), false)
}

async fn story<U: Users>() {
    let postgres = Postgres::shared();
    let url = postgres.database();
    postgres.psql(
        &url,
        "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL); \
         INSERT INTO users VALUES (1, 'old'), (2, 'other')",
    );
    let cache = Cache::new(CacheConfig::default().local_mb(4)).await;
    let users = U::connect(cache, &url).await;
    let rename = async |name: &str, ending| {
        let mut inside = None;
        let done = users.rename(1, name, ending, &mut inside).await;
        (done, inside.expect("both were read"))
    };
    let read_inside = |own: &str, others: &str| Inside {
        own: Some(own.to_owned()),
        others: Some(others.to_owned()),
        is_bypassed: true,
    };
    let both = async || {
        (
            answer(users.name(1)).await,
            answer(users.name_through(1)).await,
        )
    };
    assert_eq!(both().await, (miss("old"), miss("old")));
    assert_eq!(answer(users.name(2)).await, miss("other"));

    let (done, inside) = rename("undone", Ending::RollBack).await;
    done.expect_err("it is rolled back");
    assert_eq!(inside, read_inside("undone", "old"));
    assert_eq!(
        both().await,
        (hit("old"), hit("old")),
        "nothing was invalidated or stored"
    );

    let (done, inside) = rename("new", Ending::Commit).await;
    done.expect("it commits");
    assert_eq!(inside, read_inside("new", "old"));
    assert_eq!(both().await, (miss("new"), miss("new")));
    assert_eq!(both().await, (hit("new"), hit("new")));
    assert_eq!(answer(users.name(2)).await, hit("other"), "another row");

    // The error may hide a commit, as far as the block knows.
    let (done, inside) = rename("undone", Ending::GiveUp).await;
    done.expect_err("it is given up");
    assert_eq!(inside, read_inside("undone", "new"));
    assert_eq!(both().await, (miss("new"), miss("new")));
}
