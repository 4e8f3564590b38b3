//! Leases in a cluster, and the fills that end them: each at the node that has the entry.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::super::limits::SCRIPT_SETS_IT;
use super::super::reply::millis;
use super::super::scripts;
use super::routing::{ScriptCall, groups};
use super::sending::{OnAsk, only, step};
use super::state::Cluster;
use crate::base::clock;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::{Nonce, hash128};
use crate::protocol::entry::Header;
use crate::protocol::generation::Dep;
use crate::store::{Fill, Filled, LeaseReply, LeaseRequest, Payload, Probe, Seen};

/// The number of generations whose last extension is remembered.
const TOUCHED: usize = 4_096;

impl Cluster {
    pub(in crate::store::redis) async fn lease_many(
        &self,
        requests: &[(&Probe, LeaseRequest)],
    ) -> Result<Vec<LeaseReply>, Error> {
        let steps = requests.iter().map(|(probe, request)| {
            let (mode, seen) = match &request.seen {
                Seen::Nothing => ("nothing", String::new()),
                Seen::Entry(header) => ("entry", header.encode()),
                Seen::Past(header) => ("past", header.encode()),
                Seen::Leased => ("leased", String::new()),
                Seen::Anything => ("anything", String::new()),
            };
            let lease = request.header(probe.kind, SCRIPT_SETS_IT);
            let args = [mode.into(), seen.into_bytes(), lease.encode().into_bytes()];
            step(
                &scripts::LEASE,
                &probe.key,
                std::iter::once(millis(request.length)).chain(args),
            )
        });
        let steps: Vec<_> = steps.collect();
        let done = self.run(&steps, OnAsk::Fail).await;
        self.changed(&steps);
        let replies = done.into_iter().map(|done| {
            let reply: Vec<u8> = only(done)?;
            Ok(match reply.as_slice() {
                b"" => LeaseReply::Granted,
                b"intended" => LeaseReply::Intended,
                reply => Header::parse(reply)
                    .map_or(LeaseReply::Foreign, |(header, _)| LeaseReply::Taken(header)),
            })
        });
        replies.collect()
    }

    pub(in crate::store::redis) async fn renew_many(
        &self,
        leases: &[(&str, Nonce)],
        length: Duration,
    ) -> Result<Vec<bool>, Error> {
        let steps = leases.iter().map(|(key, token)| {
            step(
                &scripts::RENEW,
                key,
                [millis(length), token.to_string().into_bytes()],
            )
        });
        let steps: Vec<_> = steps.collect();
        let done = self.run(&steps, OnAsk::Fail).await;
        done.into_iter().map(only::<bool>).collect()
    }

    pub(in crate::store::redis) async fn release(
        &self,
        key: &str,
        token: Nonce,
    ) -> Result<(), Error> {
        let step = step(&scripts::RELEASE, key, [token.to_string().into_bytes()]);
        let done = self.run(&[step], OnAsk::Fail).await;
        done.into_iter().try_for_each(|done| done.map(drop))
    }

    pub(in crate::store::redis) async fn fill_many(
        &self,
        fills: Vec<(&Probe, Fill)>,
    ) -> Result<Vec<Filled>, Error> {
        let ttl = fills.iter().map(|(_, fill)| fill.generation_ttl).max();
        let ttl = ttl.unwrap_or(self.default_generation_ttl);
        let deps = fills.first().map(|(probe, _)| Arc::clone(&probe.deps));
        let mut steps = Vec::with_capacity(fills.len());
        for (probe, fill) in fills {
            let header = fill.header(probe.kind, SCRIPT_SETS_IT);
            let payload = match fill.payload {
                Payload::Encoded(bytes) => Vec::from(bytes),
                // For readers with `redis-cli`: an absence is shown as null.
                Payload::Empty => b"null".to_vec(),
                Payload::Decoded(_) => {
                    return Err(Error::new(ErrorKind::Unstorable, "Redis keeps bytes only"));
                }
            };
            let args = [
                b"1".to_vec(),
                millis(ttl),
                fill.token.to_string().into_bytes(),
                header.encode().into_bytes(),
                payload,
                millis(fill.fresh_for),
                millis(fill.stale_for),
            ];
            steps.push(step(&scripts::FILL, &probe.key, args));
        }
        let mut filled = Vec::with_capacity(steps.len());
        let done = self.run(&steps, OnAsk::Fail).await;
        self.changed(&steps);
        for done in done {
            filled.push(match only::<bool>(done)? {
                true => Filled::Stored,
                false => Filled::Refused,
            });
        }
        if let Some(deps) = deps
            && filled.contains(&Filled::Stored)
        {
            self.touch(&deps, ttl).await;
        }
        Ok(filled)
    }

    /// Extends the generations at intervals, so that they outlive the entries that depend on them.
    /// If it fails, those entries become misses.
    async fn touch(&self, deps: &[Arc<Dep>], ttl: Duration) {
        let now = clock::now();
        let mut due = Vec::new();
        {
            let mut touched = self.touched.lock();
            if touched.len() > TOUCHED {
                touched.clear();
            }
            for dep in deps {
                let last = touched.entry(hash128(&[0; 16], dep.key().as_bytes()));
                let is_due = match &last {
                    Entry::Occupied(last) => now.saturating_duration_since(*last.get()) > ttl / 4,
                    Entry::Vacant(_) => true,
                };
                if is_due {
                    last.insert_entry(now);
                    due.push(Arc::clone(dep));
                }
            }
        }
        if due.is_empty() {
            return;
        }
        let groups = groups(&due);
        let steps = groups.iter().map(|group| ScriptCall {
            slot: group.slot,
            script: &scripts::TOUCH,
            keys: group.keys(),
            args: vec![millis(ttl)],
        });
        let steps: Vec<_> = steps.collect();
        drop(self.run(&steps, OnAsk::Fail).await);
    }
}
