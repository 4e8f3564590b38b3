//! SeaORM 2.

use cache_runtime::{Cache, cached, invalidates};
use sea_orm::ActiveValue::{Set, Unchanged};
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbErr,
    EntityTrait, TransactionTrait,
};

use super::{Ending, Failure, Inside, given_up, story};

mod user {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, serde::Serialize, serde::Deserialize)]
    #[sea_orm(table_name = "users")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub name: String,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

struct Users {
    cache: Cache,
    db: DatabaseConnection,
}

impl Users {
    #[cached(resource = "users", cache = self.cache)]
    async fn get(&self, id: i64) -> Result<Option<user::Model>, DbErr> {
        user::Entity::find_by_id(id).one(&self.db).await
    }

    #[cached(resource = "users", op = "through", autocommit(db), cache = self.cache)]
    async fn get_through(
        &self,
        db: &impl ConnectionTrait,
        id: i64,
    ) -> Result<Option<user::Model>, DbErr> {
        user::Entity::find_by_id(id).one(db).await
    }

    #[invalidates("users", id = id, after_commit, cache = self.cache)]
    async fn set_name(&self, tx: &DatabaseTransaction, id: i64, name: &str) -> Result<(), DbErr> {
        let renamed = user::ActiveModel {
            id: Unchanged(id),
            name: Set(name.to_owned()),
        };
        renamed.update(tx).await.map(drop)
    }
}

fn name(user: Result<Option<user::Model>, DbErr>) -> Result<Option<String>, Failure> {
    Ok(user?.map(|user| user.name))
}

impl super::Users for Users {
    async fn connect(cache: Cache, url: &str) -> Self {
        let db = Database::connect(url).await.expect("PostgreSQL is there");
        Self { cache, db }
    }

    async fn name(&self, id: i64) -> Result<Option<String>, Failure> {
        name(self.get(id).await)
    }

    async fn name_through(&self, id: i64) -> Result<Option<String>, Failure> {
        name(self.get_through(&self.db, id).await)
    }

    async fn rename(
        &self,
        id: i64,
        new: &str,
        ending: Ending,
        inside: &mut Option<Inside>,
    ) -> Result<(), Failure> {
        let block = async {
            let tx = self.db.begin().await?;
            self.set_name(&tx, id, new).await?;
            let own = async { name(self.get_through(&tx, id).await) };
            *inside = Some(Inside::read(own, self.name(id)).await?);
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
