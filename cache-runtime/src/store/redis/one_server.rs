//! The one server, as scripts change it: for the store, and for the task that repeats recent
//! invalidations at the next primary.

use std::sync::Arc;
use std::time::Duration;

use redis::FromRedisValue;

use super::connection::Connection;
use super::connection::connections::Connections;
use super::scripts::Lua;
use super::whole_resources::WholeResources;
use crate::base::error::Error;
use crate::local::Local;

/// Its connection, and what an invalidation needs besides.
pub(super) struct OneServer {
    pub(super) connections: Arc<Connections>,
    /// The local tier of this process, if there is one.
    pub(super) local: Option<Arc<Local>>,
    pub(super) budget: Duration,
    pub(super) default_generation_ttl: Duration,
    pub(super) wholes: Arc<WholeResources>,
}

impl OneServer {
    /// Applies changes of this process that the server has just acknowledged. They take effect on
    /// the local entries before the caller is told; the server's push message about them may arrive
    /// at any time.
    pub(super) fn changed<'k>(&self, keys: impl IntoIterator<Item = &'k str>) {
        if let Some(local) = &self.local
            && !crate::base::mutation::is_active("own-write-waits-for-the-push")
        {
            local.forget(keys);
        }
    }

    pub(super) async fn script<T: FromRedisValue>(
        &self,
        connection: &Connection,
        script: &Lua,
        keys: impl IntoIterator<Item = &str>,
        args: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<T, Error> {
        let mode = connection.capabilities.scripts;
        connection
            .ask(self.budget, async |multiplexed| {
                script.run(multiplexed, mode, keys, args).await
            })
            .await
    }

    /// Whether a change made over this connection may be acknowledged.
    ///
    /// # Errors
    /// If Sentinels name the primary, and it may not be the primary any more.
    pub(super) fn confirmed(&self, connection: &Connection) -> Result<(), Error> {
        if self.connections.recent.is_some() && !connection.is_usable() {
            return Err(Error::unavailable(
                "another server has become the primary meanwhile",
            ));
        }
        connection.check_confirmed()
    }
}
