//! Cache-aside as everybody writes it: `GET` and decode; else load and `SET .. EX`; after a write,
//! `DEL`.

use redis::AsyncCommands;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Failure, Rival};
use crate::data::{self, User};

/// A connection, and nothing else.
#[derive(Clone, Debug)]
pub struct HandWritten<C = MultiplexedConnection>(pub C);

impl<C: ConnectionLike + Clone + Send + Sync> HandWritten<C> {
    /// A row.
    pub async fn row(&self, id: i64) -> Result<User, Failure> {
        self.get_or(format!("hand:users:{id}"), data::load(id))
            .await
    }

    /// Writes a row.
    pub async fn write_row(&self, id: i64) -> Result<u64, Failure> {
        let version = data::source().commit(id).await;
        let mut connection = self.0.clone();
        let key = format!("hand:users:{id}");
        let () = connection.del(key).await.map_err(Failure::new)?;
        Ok(version)
    }

    async fn get_or<T: Serialize + DeserializeOwned>(
        &self,
        key: String,
        load: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let mut connection = self.0.clone();
        let found: Option<Vec<u8>> = connection.get(&key).await.map_err(Failure::new)?;
        if let Some(bytes) = found {
            return serde_json::from_slice(&bytes).map_err(Failure::new);
        }
        let value = load.await;
        let bytes = serde_json::to_vec(&value).map_err(Failure::new)?;
        let () = connection
            .set_ex(key, bytes, 3600)
            .await
            .map_err(Failure::new)?;
        Ok(value)
    }
}

/// A connection to the Redis on loopback.
///
/// # Panics
///
/// When there is none.
pub async fn connect(port: u16) -> MultiplexedConnection {
    let client = redis::Client::open(("127.0.0.1", port)).expect("an address");
    let connection = client.get_multiplexed_async_connection().await;
    connection.expect("Redis answers")
}

impl Rival for HandWritten {
    const NAME: &'static str = "hand-written";
    const SHARED: bool = true;

    async fn start(port: u16) -> Self {
        Self(connect(port).await)
    }

    async fn user(&self, id: i64) -> Result<User, Failure> {
        self.row(id).await
    }

    async fn page(&self, number: i64) -> Result<Vec<User>, Failure> {
        let load = async { data::page(number) };
        self.get_or(format!("hand:pages:{number}"), load).await
    }

    async fn text(&self, size: i64) -> Result<String, Failure> {
        let load = async { data::text(size) };
        self.get_or(format!("hand:texts:{size}"), load).await
    }

    async fn write(&self, id: i64) -> Result<u64, Failure> {
        self.write_row(id).await
    }
}
