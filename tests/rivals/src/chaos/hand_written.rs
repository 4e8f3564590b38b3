//! Cache-aside as a careful team writes it: a connection that is made again, short time limits, a
//! failed read of the cache is a miss, a failed deletion is an error.

use std::time::Duration;

use cache_chaos::{
    Failure, Page, RivalCache, Row, TTL, Trouble, commit, load_page, load_row, pages_with,
};
use redis::AsyncCommands;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{failure, url};

pub(super) struct HandWritten(ConnectionManager);

fn row_key(kind: u8, id: i64) -> String {
    format!("rows:{kind}:{id}")
}

fn page_key(kind: u8, skip: i64) -> String {
    format!("pages:{kind}:{skip}")
}

impl HandWritten {
    async fn get_or<T: Serialize + DeserializeOwned>(
        &self,
        key: String,
        load: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Failure> {
        let mut connection = self.0.clone();
        let found: Option<Vec<u8>> = connection.get(&key).await.unwrap_or_default();
        if let Some(value) = found.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return Ok(value);
        }
        let value = load.await?;
        let bytes = serde_json::to_vec(&value).map_err(failure)?;
        let kept: redis::RedisResult<()> = connection.set_ex(key, bytes, TTL.as_secs()).await;
        // Not kept, then.
        drop(kept);
        Ok(value)
    }
}

impl RivalCache for HandWritten {
    const NAME: &'static str = "hand-written";
    const SHARED: bool = true;
    const HAS_LOCAL_ENTRIES: bool = false;

    async fn start(redis: u16) -> Result<Self, Failure> {
        let client = redis::Client::open(url(redis)).map_err(failure)?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(Duration::from_millis(100)))
            .set_connection_timeout(Some(Duration::from_millis(500)))
            .set_number_of_retries(1);
        let manager = ConnectionManager::new_with_config(client, config).await;
        Ok(Self(manager.map_err(failure)?))
    }

    async fn row(&self, kind: u8, id: i64) -> Result<Row, Failure> {
        self.get_or(row_key(kind, id), load_row(kind, id)).await
    }

    async fn page(&self, kind: u8, skip: i64) -> Result<Page, Failure> {
        self.get_or(page_key(kind, skip), load_page(kind, skip))
            .await
    }

    async fn write(&self, kind: u8, id: i64) -> Result<(), Failure> {
        commit(kind, id).await?;
        let mut keys = vec![row_key(kind, id)];
        keys.extend(pages_with(id).map(|skip| page_key(kind, skip)));
        let mut connection = self.0.clone();
        connection.del(keys).await.map_err(failure)
    }
}
