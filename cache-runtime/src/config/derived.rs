//! Settings as the parts of a cache need them.

use std::time::Duration;

use super::{CacheConfig, normalised};
use crate::key::KeySpace;
use crate::registry::ResourceSettings;
use crate::telemetry::StoreServer;

impl CacheConfig {
    /// The prefix of all keys of this cache, and the secret of their hashes.
    pub(crate) fn key_space(&self) -> KeySpace {
        KeySpace {
            namespace: self.namespace.clone(),
            hash_key: self.hash_key,
        }
    }

    /// The server, for spans.
    pub(crate) fn store_server(&self) -> StoreServer {
        match (&self.redis, &self.memcached) {
            (Some(redis), _) => StoreServer {
                system: Some("redis"),
                host: Some(redis.host.as_str().into()),
                port: Some(redis.port),
                namespace: Some(redis.db.to_string().into()),
            },
            (None, Some(memcached)) => StoreServer {
                system: Some("memcached"),
                host: Some(memcached.host.as_str().into()),
                port: Some(memcached.port),
                namespace: None,
            },
            (None, None) => StoreServer::default(),
        }
    }

    /// The configuration of one resource.
    pub(crate) fn resource_settings(&self, resource: &str) -> ResourceSettings {
        ResourceSettings {
            space: self.key_space(),
            operator_ttl: self.operator_ttl(resource),
            stale_policy: self.stale_policy,
            contexts: self.contexts(resource),
            audit: self.audit,
        }
    }

    /// The values that the keys of a resource need from around a call.
    pub(crate) fn contexts(&self, resource: &str) -> Box<[Box<str>]> {
        let contexts = self.contexts.get(resource);
        contexts.map_or_else(Box::default, |names| names.as_slice().into())
    }

    /// How long the entries of a resource are served, if the configuration says it.
    pub(crate) fn operator_ttl(&self, resource: &str) -> Option<Duration> {
        self.ttl_by_resource.get(&normalised(resource)).copied()
    }
}
