//! The question of the doctor to a store, and the answer.

/// The parts that [`Store::diagnose`](super::Store::diagnose) has to check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiagnosticsRequest {
    /// The prefix of every key.
    pub namespace: String,
    /// The resources that the program caches.
    pub resources: Vec<String>,
}

/// The setup of a server, as far as a client with few permissions can see it; fields are empty if
/// the server does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerDiagnostics {
    /// The server's version, in terms of Redis's features, such as `7.0.15`.
    pub version: Option<String>,
    /// The missing capabilities of the server, one line each: what the cache does without it, and
    /// the fix.
    pub missing: Vec<String>,
    /// The nodes of a cluster that can't be used, one line each with the reason. While there are
    /// any, nothing that follows is known.
    pub away: Vec<String>,
    /// The address in use, if the configured name has other addresses that may belong to other
    /// servers.
    pub address: Option<String>,
    /// Addresses of the same name at which other servers answer: with another `run_id`, and not as
    /// a replica.
    pub other_servers: Vec<String>,
    /// Addresses of the same name whose server is unknown: it did not answer, or does not identify
    /// itself.
    pub silent_addresses: Vec<String>,
    /// The memory limit of the server in bytes; 0 for no limit.
    pub memory_limit: Option<u64>,
    /// The eviction policy, such as `noeviction`.
    pub eviction: Option<String>,
    /// Commands that the cache sends and that are not permitted, in the syntax of an ACL.
    pub refused_commands: Vec<String>,
    /// Patterns of keys that the cache uses and that are not permitted.
    pub refused_keys: Vec<String>,
    /// Some keys that belong to the cache by name and hold values of another program.
    pub foreign: Vec<String>,
    /// The number of keys that were checked; `None` if none could be.
    pub keys_seen: Option<usize>,
}
