//! This project.

use std::sync::Arc;

use cache_runtime::{Cache, CacheConfig, RedisConfig, cached, invalidates};

use super::{Failure, Rival};
use crate::data::{self, User};

/// The annotated functions, over whatever tier the cache has.
#[derive(Debug)]
pub struct Service {
    pub cache: Cache,
}

impl Service {
    /// Over Redis, strict.
    pub async fn redis(port: u16) -> Self {
        Self::over(CacheConfig::default().redis(RedisConfig::at("127.0.0.1", port))).await
    }

    /// In the process.
    pub async fn memory(megabytes: u32) -> Self {
        Self::over(CacheConfig::default().local_mb(megabytes)).await
    }

    /// As configured. An abandoned write of the course lands within a millisecond.
    pub async fn over(config: CacheConfig) -> Self {
        let config = config.in_doubt_window(std::time::Duration::from_millis(500));
        Self {
            cache: Cache::new(config).await,
        }
    }

    #[cached(resource = "users", ttl = 3600, cache = self.cache)]
    pub async fn user(&self, id: i64) -> Result<User, Failure> {
        Ok(data::load(id).await)
    }

    /// What costs nothing to hand out twice.
    #[cached(resource = "rows", ttl = 3600, cache = self.cache)]
    pub async fn shared_user(&self, id: i64) -> Result<Arc<User>, Failure> {
        Ok(Arc::new(data::load(id).await))
    }

    #[cached(resource = "numbers", ttl = 3600, cache = self.cache)]
    pub async fn number(&self, id: i64) -> Result<i64, Failure> {
        Ok(std::hint::black_box(id))
    }

    /// The same without the attribute.
    pub async fn bare_number(&self, id: i64) -> Result<i64, Failure> {
        Ok(std::hint::black_box(id))
    }

    #[cached(resource = "pages", ttl = 3600, cache = self.cache)]
    pub async fn page(&self, number: i64) -> Result<Vec<User>, Failure> {
        Ok(data::page(number))
    }

    #[cached(resource = "pages", op = "msgpack", ttl = 3600, codec = "msgpack", cache = self.cache)]
    pub async fn page_in_msgpack(&self, number: i64) -> Result<Vec<User>, Failure> {
        Ok(data::page(number))
    }

    #[cached(resource = "pages", op = "postcard", ttl = 3600, codec = "postcard", version = 1, cache = self.cache)]
    pub async fn page_in_postcard(&self, number: i64) -> Result<Vec<User>, Failure> {
        Ok(data::page(number))
    }

    #[cached(resource = "texts", op = "sized", ttl = 3600, cache = self.cache)]
    pub async fn text(&self, size: i64) -> Result<String, Failure> {
        Ok(data::text(size))
    }

    #[cached(resource = "texts", op = "shared", ttl = 3600, cache = self.cache)]
    pub async fn shared_text(&self, size: i64, n: i64) -> Result<Arc<String>, Failure> {
        let _ = n;
        Ok(Arc::new(data::text(size)))
    }

    #[cached(resource = "tagged", op = "one", ttl = 3600, cache = self.cache, id = id)]
    pub async fn tagged_once(&self, id: i64) -> Result<User, Failure> {
        Ok(data::load(id).await)
    }

    #[cached(resource = "tagged", op = "three", ttl = 3600, cache = self.cache, id = id, tags("a"))]
    pub async fn tagged_thrice(&self, id: i64) -> Result<User, Failure> {
        Ok(data::load(id).await)
    }

    #[cached(resource = "tagged", op = "four", ttl = 3600, cache = self.cache, id = id, tags("a", "b"))]
    pub async fn tagged_four_times(&self, id: i64) -> Result<User, Failure> {
        Ok(data::load(id).await)
    }

    #[cached(resource = "tagged", op = "eight", ttl = 3600, cache = self.cache, id = id,
        tags("a", "b", "c", "d", "e", "f"))]
    pub async fn tagged_eight_times(&self, id: i64) -> Result<User, Failure> {
        Ok(data::load(id).await)
    }

    #[invalidates("users", id = id, cache = self.cache)]
    pub async fn write(&self, id: i64) -> Result<u64, Failure> {
        Ok(data::source().commit(id).await)
    }
}

/// Over Redis.
#[derive(Debug)]
pub struct Ours(pub Service);

impl Rival for Ours {
    const NAME: &'static str = "this project";
    const SHARED: bool = true;

    async fn start(port: u16) -> Self {
        Self(Service::redis(port).await)
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

/// In the process.
#[derive(Debug)]
pub struct OursInMemory(pub Service);

impl Rival for OursInMemory {
    const NAME: &'static str = "this project, in memory";
    const SHARED: bool = false;

    async fn start(_: u16) -> Self {
        Self(Service::memory(256).await)
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
