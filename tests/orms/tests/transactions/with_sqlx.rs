//! SQLx 0.8, of which the feature `sqlx` of the runtime knows nothing.

use cache_runtime::{Cache, cached, invalidates};
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::{Ending, Failure, Inside, given_up, story};

struct Users {
    cache: Cache,
    pool: PgPool,
}

impl Users {
    #[cached(resource = "users", cache = self.cache)]
    async fn get(&self, id: i64) -> Result<Option<String>, Failure> {
        let name = sqlx::query_scalar("SELECT name FROM users WHERE id = $1");
        Ok(name.bind(id).fetch_optional(&self.pool).await?)
    }

    #[cached(resource = "users", op = "through", autocommit(executor), cache = self.cache)]
    async fn get_through(
        &self,
        executor: impl PgExecutor<'_>,
        id: i64,
    ) -> Result<Option<String>, Failure> {
        let name = sqlx::query_scalar("SELECT name FROM users WHERE id = $1");
        Ok(name.bind(id).fetch_optional(executor).await?)
    }

    #[invalidates("users", id = id, after_commit, cache = self.cache)]
    async fn set_name(&self, tx: &mut PgConnection, id: i64, name: &str) -> Result<(), Failure> {
        let renamed = sqlx::query("UPDATE users SET name = $1 WHERE id = $2");
        renamed.bind(name).bind(id).execute(tx).await?;
        Ok(())
    }
}

impl super::Users for Users {
    async fn connect(cache: Cache, url: &str) -> Self {
        let pool = PgPool::connect(url).await.expect("PostgreSQL is there");
        Self { cache, pool }
    }

    async fn name(&self, id: i64) -> Result<Option<String>, Failure> {
        self.get(id).await
    }

    async fn name_through(&self, id: i64) -> Result<Option<String>, Failure> {
        self.get_through(&self.pool, id).await
    }

    async fn rename(
        &self,
        id: i64,
        name: &str,
        ending: Ending,
        inside: &mut Option<Inside>,
    ) -> Result<(), Failure> {
        let block = async {
            let mut tx = self.pool.begin().await?;
            self.set_name(&mut tx, id, name).await?;
            let own = self.get_through(&mut *tx, id);
            *inside = Some(Inside::read(own, self.get(id)).await?);
            match ending {
                Ending::Commit => return Ok(tx.commit().await?),
                Ending::RollBack => {
                    tx.rollback().await?;
                    self.cache.rolled_back();
                }
                Ending::GiveUp => drop(tx),
            }
            Err(given_up())
        };
        self.cache.after_commit(block).await
    }
}

#[tokio::test]
async fn a_commit_invalidates_and_a_rollback_does_not() {
    story::<Users>().await;
}
