//! Diesel, by diesel-async.

use cache_runtime::{Cache, cached, invalidates};
use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};

use super::{Ending, Failure, Inside, given_up, story};

diesel::table! {
    users (id) {
        id -> BigInt,
        name -> Text,
    }
}

struct Users {
    cache: Cache,
    pool: Pool<AsyncPgConnection>,
}

impl Users {
    #[cached(resource = "users", cache = self.cache)]
    async fn get(&self, id: i64) -> Result<Option<String>, Failure> {
        let mut connection = self.pool.get().await?;
        let user = users::table.find(id).select(users::name);
        Ok(user.first(&mut connection).await.optional()?)
    }

    #[cached(resource = "users", op = "through", autocommit(connection), cache = self.cache)]
    async fn get_through(
        &self,
        connection: &mut AsyncPgConnection,
        id: i64,
    ) -> Result<Option<String>, Failure> {
        let user = users::table.find(id).select(users::name);
        Ok(user.first(connection).await.optional()?)
    }

    #[invalidates("users", id = id, after_commit, cache = self.cache)]
    async fn set_name(
        &self,
        connection: &mut AsyncPgConnection,
        id: i64,
        name: &str,
    ) -> Result<(), Failure> {
        let renamed = diesel::update(users::table.find(id)).set(users::name.eq(name));
        renamed.execute(connection).await?;
        Ok(())
    }
}

impl super::Users for Users {
    async fn connect(cache: Cache, url: &str) -> Self {
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
        let pool = Pool::builder(manager).build().expect("a pool");
        Self { cache, pool }
    }

    async fn name(&self, id: i64) -> Result<Option<String>, Failure> {
        self.get(id).await
    }

    async fn name_through(&self, id: i64) -> Result<Option<String>, Failure> {
        let mut connection = self.pool.get().await?;
        self.get_through(&mut connection, id).await
    }

    async fn rename(
        &self,
        id: i64,
        name: &str,
        ending: Ending,
        inside: &mut Option<Inside>,
    ) -> Result<(), Failure> {
        let block = async {
            let mut connection = self.pool.get().await?;
            let mut has_failed = false;
            let mut changes = async |tx: &mut AsyncPgConnection| {
                self.set_name(tx, id, name).await?;
                let own = self.get_through(tx, id);
                *inside = Some(Inside::read(own, self.get(id)).await?);
                match ending {
                    Ending::Commit => Ok(()),
                    Ending::RollBack | Ending::GiveUp => Err(given_up()),
                }
            };
            let done = connection
                .transaction(async |tx| {
                    let done = changes(tx).await;
                    has_failed = done.is_err();
                    done
                })
                .await;
            // After an error of its body a transaction was not committed.
            if has_failed && ending == Ending::RollBack {
                self.cache.rolled_back();
            }
            done
        };
        self.cache.after_commit(block).await
    }
}

#[tokio::test]
async fn a_commit_invalidates_and_a_rollback_does_not() {
    story::<Users>().await;
}
