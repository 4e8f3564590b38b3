//! What the advisor asks of a store, and what a store has to say.

/// What [`Store::survey`](super::Store::survey) is to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inquiry {
    /// What stands before every key.
    pub namespace: String,
    /// The resources that the program caches.
    pub resources: Vec<String>,
}

/// How a server is set up, as far as it can be seen from a client with few permissions; empty where it does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survey {
    /// The server's version of the Redis protocol's features, such as `7.0.15`.
    pub version: Option<String>,
    /// What the server can't do, a line each: what the cache does without it, and the fix.
    pub missing: Vec<String>,
    /// The address in use, where the configured name has others that were not found to be of the same server.
    pub address: Option<String>,
    /// Addresses of the same name at which other servers answer: with another `run_id`, and not as a replica.
    pub other_servers: Vec<String>,
    /// Addresses of the same name whose server is not known: it did not answer, or does not say which one it is.
    pub silent_addresses: Vec<String>,
    /// The most memory that it takes, in bytes; 0 for no limit.
    pub memory_limit: Option<u64>,
    /// What it does at that limit, such as `noeviction`.
    pub eviction: Option<String>,
    /// Commands that the cache sends and may not, as an ACL writes them.
    pub refused_commands: Vec<String>,
    /// Patterns of keys that the cache uses and may not.
    pub refused_keys: Vec<String>,
    /// Some keys that are the cache's by name and hold values of another program.
    pub foreign: Vec<String>,
    /// How many keys were looked at; `None` if none could be.
    pub keys_seen: Option<usize>,
}
