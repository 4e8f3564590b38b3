//! `amalgam-cache`: memory in front of Redis, with backplane and distributed locker, as its README
//! wants two nodes.

use std::sync::Arc;
use std::time::Duration;

use amalgam::provider::{
    JsonSerializer, RedisBackplane, RedisDistributedCache, RedisDistributedLocker,
};
use amalgam::{Cache, EntryOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Failure, Rival};
use crate::data::{self, User};

/// A node.
pub struct Amalgam {
    users: Cache<User>,
    pages: Cache<Vec<User>>,
    texts: Cache<String>,
}

async fn node<V>(port: u16, name: &str, strict: bool, memory: bool) -> Cache<V>
where
    V: Clone + Send + Sync + Serialize + DeserializeOwned + 'static,
{
    let url = format!("redis://127.0.0.1:{port}/");
    let values = RedisDistributedCache::connect(url.clone()).await;
    let backplane = RedisBackplane::connect(url.clone()).await;
    let locker = RedisDistributedLocker::connect(url).await;
    let mut options = EntryOptions::new(Duration::from_secs(3600));
    if !memory {
        options = options.with_skip_memory(true, true);
    }
    let builder = Cache::builder()
        .name(name)
        .key_prefix(format!("amalgam:{name}:"))
        .distributed(Arc::new(values.expect("Redis answers")))
        .serializer(Arc::new(JsonSerializer))
        .backplane(Arc::new(backplane.expect("Redis answers")))
        .distributed_locker(Arc::new(locker.expect("Redis answers")))
        .default_options(options)
        .instance_id(format!("node-{}", std::process::id()));
    let builder = if strict { builder.strict() } else { builder };
    let ready = builder.try_build_ready().await;
    ready.expect("a node")
}

async fn nodes(port: u16, strict: bool, memory: bool) -> Amalgam {
    Amalgam {
        users: node(port, "users", strict, memory).await,
        pages: node(port, "pages", strict, memory).await,
        texts: node(port, "texts", strict, memory).await,
    }
}

impl Rival for Amalgam {
    const NAME: &'static str = "amalgam-cache";
    const SHARED: bool = true;

    async fn start(port: u16) -> Self {
        nodes(port, false, true).await
    }

    async fn user(&self, id: i64) -> Result<User, Failure> {
        let load = move |_| async move { Ok::<_, Failure>(data::load(id).await) };
        let key = format!("users:{id}");
        self.users.get_or_set(key, load).await.map_err(Failure::new)
    }

    async fn page(&self, number: i64) -> Result<Vec<User>, Failure> {
        let load = move |_| async move { Ok::<_, Failure>(data::page(number)) };
        let key = format!("pages:{number}");
        self.pages.get_or_set(key, load).await.map_err(Failure::new)
    }

    async fn text(&self, size: i64) -> Result<String, Failure> {
        let load = move |_| async move { Ok::<_, Failure>(data::text(size)) };
        let key = format!("texts:{size}");
        self.texts.get_or_set(key, load).await.map_err(Failure::new)
    }

    async fn write(&self, id: i64) -> Result<u64, Failure> {
        let version = data::source().commit(id).await;
        let key = format!("users:{id}");
        self.users.remove(key).await.map_err(Failure::new)?;
        Ok(version)
    }
}

/// A variant of the node above.
macro_rules! variant {
    ($(#[$doc:meta])* $type:ident, $name:literal, $strict:literal, $memory:literal) => {
        $(#[$doc])*
        pub struct $type(Amalgam);

        impl Rival for $type {
            const NAME: &'static str = $name;
            const SHARED: bool = true;

            async fn start(port: u16) -> Self {
                Self(nodes(port, $strict, $memory).await)
            }

            async fn user(&self, id: i64) -> Result<User, Failure> {
                self.0.user(id).await
            }

            async fn page(&self, number: i64) -> Result<Vec<User>, Failure> {
                self.0.page(number).await
            }

            async fn text(&self, size: i64) -> Result<String, Failure> {
                self.0.text(size).await
            }

            async fn write(&self, id: i64) -> Result<u64, Failure> {
                self.0.write(id).await
            }
        }
    };
}

variant!(
    /// With its `strict()` profile: fenced leases, nothing local kept over a gap of the backplane.
    AmalgamStrict, "amalgam-cache, strict", true, true
);
variant!(
    /// Past the memory, so that a hit is one of Redis.
    AmalgamThrough, "amalgam-cache, memory skipped", false, false
);
