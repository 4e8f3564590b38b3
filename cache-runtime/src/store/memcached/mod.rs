//! Memcached as a store, by its meta commands alone.
//!
//! The protocol is that of Redis, with `cas` in place of scripts: a change reads what is there, and
//! replaces just that version, or begins again. There is one more generation, that of the
//! namespace, because Memcached can't list its keys. [`Store::lists_keys`] and [`Store::diagnose`]
//! report what it can't do at all.
//!
//! | | |
//! |---|---|
//! | entry | under its key, with a lease in its header, as in Redis |
//! | generation | deleted when it is replaced: a missing one is made anew, from a random number |
//! | announced write | in the generation's value, and in place of the row's entry |
//! | time | the server's, known to a second (`clock.rs`) |

mod changes;
mod clock;
mod connection;
mod entries;
mod place;
mod pool;
mod steps;
mod text;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use self::pool::ConnectionPool;
use self::steps::{CHANGES, STEP, in_steps, steps_of};
use super::{
    Circuit, ConnectionWatch, DiagnosticsRequest, EntryRef, Expected, Fill, Filled, Intent,
    IntentReply, Invalidated, Invalidation, LeaseReply, LeaseRequest, LookupReply, Millis, Nonce,
    Representation, ScanFilter, ServerDiagnostics, ServerInfo, Store,
};
use crate::base::error::{Error, ErrorKind};
use crate::config::{CacheConfig, MemcachedConfig};

/// Entries in a Memcached that several processes share.
pub struct MemcachedStore {
    pool: Arc<ConnectionPool>,
}

impl fmt::Debug for MemcachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedStore")
            .field("circuit", &self.pool.circuit())
            .finish_non_exhaustive()
    }
}

impl Drop for MemcachedStore {
    fn drop(&mut self) {
        self.pool.close();
    }
}

impl MemcachedStore {
    /// Connects to the server, and goes on trying if it is away. Returns when the first attempt has
    /// ended. Connections are driven by `runtime`.
    ///
    /// # Cancel safety
    /// If dropped, the task that connects goes on until `runtime` ends.
    pub async fn connect(
        memcached: &MemcachedConfig,
        config: &CacheConfig,
        runtime: &Handle,
    ) -> Self {
        let pool = ConnectionPool::start(memcached, config.command_budget, runtime).await;
        Self { pool }
    }

    fn now(&self) -> Millis {
        self.pool.clock.now()
    }

    /// Missing generations are made, or stand for ones that no entry has.
    async fn lookup_once(
        &self,
        entry_ref: &EntryRef,
        are_made: bool,
    ) -> Result<LookupReply, Error> {
        let entry_refs = std::slice::from_ref(entry_ref);
        let lookups = self.pool.run(|mut on| async move {
            let lookups = self.lookup_on(&mut on, entry_refs, are_made).await;
            (on, lookups)
        });
        let lookup = lookups.await?.pop();
        lookup.ok_or_else(|| Error::new(ErrorKind::Store, "Memcached returned no answer for a key"))
    }
}

#[async_trait]
impl Store for MemcachedStore {
    fn name(&self) -> &'static str {
        "memcached"
    }

    fn representation(&self) -> Representation {
        Representation::Encoded
    }

    fn circuit(&self) -> Circuit {
        self.pool.circuit()
    }

    fn reason(&self) -> Option<String> {
        self.pool.reason()
    }

    fn connection(&self) -> Option<ConnectionWatch> {
        Some(self.pool.watch.clone())
    }

    fn lists_keys(&self) -> bool {
        false
    }

    fn is_atomic(&self) -> bool {
        false
    }

    async fn lookup(&self, entry_ref: &EntryRef) -> Result<LookupReply, Error> {
        self.lookup_once(entry_ref, true).await
    }

    async fn examine(&self, entry_ref: &EntryRef) -> Result<LookupReply, Error> {
        self.lookup_once(entry_ref, false).await
    }

    async fn lookup_many(&self, entry_refs: &[EntryRef]) -> Result<Vec<LookupReply>, Error> {
        let mut lookups = Vec::with_capacity(entry_refs.len());
        for step in entry_refs.chunks(STEP) {
            let found = self.pool.run(|mut on| async move {
                let lookups = self.lookup_on(&mut on, step, true).await;
                (on, lookups)
            });
            lookups.extend(found.await?);
        }
        Ok(lookups)
    }

    async fn lease(
        &self,
        entry_ref: &EntryRef,
        request: &LeaseRequest,
    ) -> Result<LeaseReply, Error> {
        let leased = self.pool.run(|mut on| async move {
            let reply = self.lease_on(&mut on, entry_ref, request).await;
            (on, reply)
        });
        leased.await
    }

    async fn lease_many(
        &self,
        requests: &[(&EntryRef, LeaseRequest)],
    ) -> Result<Vec<LeaseReply>, Error> {
        let mut replies = Vec::with_capacity(requests.len());
        for step in requests.chunks(STEP) {
            let Some((_, first)) = step.first() else {
                continue;
            };
            let can_be_free = step.iter().all(|(_, request)| {
                matches!(request.expected, Expected::Nothing) && request.length == first.length
            });
            let taken = match can_be_free {
                true => {
                    let taken = self.pool.run(|mut on| async move {
                        let taken = self.lease_free_on(&mut on, step, first.length).await;
                        (on, taken)
                    });
                    taken.await?
                }
                false => vec![false; step.len()],
            };
            let others = step.iter().zip(&taken).filter(|(_, is_taken)| !**is_taken);
            let others = others.map(|((entry_ref, request), _)| self.lease(entry_ref, request));
            let mut others = in_steps(others.collect()).await?.into_iter();
            replies.extend(taken.into_iter().map_while(|is_taken| match is_taken {
                true => Some(LeaseReply::Granted),
                false => others.next(),
            }));
        }
        Ok(replies)
    }

    async fn renew_many(&self, leases: &[(String, Nonce)], length: Duration) -> Result<(), Error> {
        let renewals = leases
            .iter()
            .map(|(key, token)| self.renew(key, *token, length));
        in_steps(renewals.collect()).await.map(drop)
    }

    async fn renew(&self, key: &str, token: Nonce, length: Duration) -> Result<bool, Error> {
        let renewed = self.pool.run_write(|mut on| async move {
            let renewed = self.change_on(&mut on, key, token, Some(length)).await;
            (on, renewed)
        });
        renewed.await
    }

    async fn release(&self, key: &str, token: Nonce) -> Result<(), Error> {
        let released = self.pool.run(|mut on| async move {
            let released = self.change_on(&mut on, key, token, None).await;
            (on, released)
        });
        released.await.map(drop)
    }

    async fn fill(&self, entry_ref: &EntryRef, fill: Fill) -> Result<Filled, Error> {
        let fill = &fill;
        let filled = self.pool.run(|mut on| async move {
            let filled = self.fill_on(&mut on, entry_ref, fill).await;
            (on, filled)
        });
        filled.await
    }

    async fn fill_many(&self, fills: Vec<(&EntryRef, Fill)>) -> Result<Vec<Filled>, Error> {
        let fills = fills.into_iter().map(|(entry_ref, fill)| async move {
            match self.fill(entry_ref, fill).await {
                Err(error) if error.kind() == ErrorKind::Unstorable => Ok(Filled::Refused),
                answer => answer,
            }
        });
        in_steps(fills.map(|it| Box::pin(it) as BoxFuture<'_, _>).collect()).await
    }

    async fn intend(&self, intent: &Intent) -> Result<IntentReply, Error> {
        let on_whole = self.announce(intent, false).await?;
        Ok(IntentReply {
            at: self.now(),
            on_whole,
        })
    }

    async fn renew_intent(&self, intent: &Intent) -> Result<IntentReply, Error> {
        let on_whole = self.announce(intent, true).await?;
        Ok(IntentReply {
            at: self.now(),
            on_whole,
        })
    }

    async fn prune(&self, entry_ref: &EntryRef) -> Result<(), Error> {
        let pruned = self.pool.run(|mut on| async move {
            let pruned = self.prune_on(&mut on, entry_ref).await;
            (on, pruned)
        });
        pruned.await
    }

    async fn invalidate(&self, invalidation: &Invalidation) -> Result<Invalidated, Error> {
        let ended: HashSet<_> = invalidation.ends.iter().copied().collect();
        let deletes = invalidation.deletes.chunks(steps_of(CHANGES));
        let deletes = deletes.map(|keys| self.delete_entry(keys, &ended));
        let removed = in_steps(deletes.collect()).await?.into_iter().sum();
        // In their order, and each is read only once those before it are replaced: a load that
        // names a row when it ends relies on it (`call/read/dependencies/learnt.rs`).
        let rotates = invalidation.rotates.as_slice();
        for deps in rotates.chunk_by(|dep, next| dep.is_of_row() && next.is_of_row()) {
            let deps = deps.chunks(steps_of(CHANGES));
            let deps = deps.map(|deps| self.rotate(deps, &ended));
            in_steps(deps.collect()).await?;
        }
        Ok(Invalidated {
            at: self.now(),
            removed,
        })
    }

    async fn remove_matching(&self, filter: &ScanFilter) -> Result<u64, Error> {
        let _ = filter;
        Err(Error::new(
            ErrorKind::Unsupported,
            "Memcached can't list its keys, so none can be removed by a pattern",
        ))
    }

    async fn invalidate_namespace(&self, namespace: &str) -> Result<Millis, Error> {
        let epoch = &text::epoch(namespace);
        let replaced = self.pool.run_write(|mut on| async move {
            let replaced = on.delete_any(epoch).await;
            (on, replaced)
        });
        replaced.await?;
        Ok(self.now())
    }

    async fn ping(&self) -> Result<(), Error> {
        let answered = self.pool.run(|mut on| async move {
            let answered = on.ping().await;
            (on, answered)
        });
        answered.await
    }

    async fn server_info(&self) -> Result<ServerInfo, Error> {
        let stats = self.pool.run(|mut on| async move {
            let stats = on.stats().await;
            (on, stats)
        });
        let stats = stats.await?;
        let number = |name: &str| text::number(stats.get(name));
        Ok(ServerInfo {
            total_keys: number("curr_items"),
            used_memory: number("bytes").map(|bytes| format!("{bytes}B")),
            uptime_seconds: number("uptime"),
            connected_clients: number("curr_connections"),
            nodes: Vec::new(),
        })
    }

    async fn diagnose(&self, request: &DiagnosticsRequest) -> Result<ServerDiagnostics, Error> {
        let _ = request;
        let stats = self.pool.run(|mut on| async move {
            let stats = on.stats().await;
            (on, stats)
        });
        let stats = stats.await?;
        Ok(ServerDiagnostics {
            version: stats.get("version").cloned(),
            memory_limit: text::number(stats.get("limit_maxbytes")),
            missing: MISSING.iter().map(|line| (*line).to_owned()).collect(),
            ..ServerDiagnostics::default()
        })
    }

    async fn switch(&self, target: &str, enabled: bool) -> Result<(), Error> {
        let _ = (target, enabled);
        Err(Error::new(
            ErrorKind::Unsupported,
            "over Memcached, reads can't be switched off for all processes; switch them off in each",
        ))
    }

    async fn close(&self) {
        self.pool.close();
    }
}

/// The features that the cache lacks over Memcached, for the doctor.
const MISSING: [&str; 4] = [
    "memory that is not evicted: under memory pressure the announcement of a `crash_safe` write, or \
     of one whose caller hung up, may be lost before its time; give it enough memory",
    "a list of its keys: `invalidate_pattern` invalidates the whole resource, and dead entries stay \
     until they expire",
    "pushes: there is no local tier beside it, and a reader that waits for another process looks \
     again from time to time",
    "scripts: a change of several keys takes a round trip for each, some at a time",
];
