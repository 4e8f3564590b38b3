//! Leases in a cluster, and the fills that end them: each at the node that has the entry.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::super::reply::millis;
use super::super::scripts;
use super::super::scripts::lease_script::{fill_args, filled, lease_args, lease_reply};
use super::routing::{ScriptCall, groups};
use super::sending::{OnAsk, only, step};
use super::state::Cluster;
use crate::base::clock;
use crate::base::error::Error;
use crate::base::nonce::{Nonce, hash128};
use crate::protocol::generation::Dependency;
use crate::store::{EntryRef, Fill, Filled, LeaseReply, LeaseRequest};

/// The number of generations whose last extension is remembered.
const TOUCHED: usize = 4_096;

impl Cluster {
    pub(in crate::store::redis) async fn lease_many(
        &self,
        requests: &[(&EntryRef, LeaseRequest)],
    ) -> Result<Vec<LeaseReply>, Error> {
        let steps = requests.iter().map(|(entry_ref, request)| {
            let args = lease_args(entry_ref, request);
            step(
                &scripts::LEASE,
                &entry_ref.key,
                std::iter::once(millis(request.length)).chain(args),
            )
        });
        let steps: Vec<_> = steps.collect();
        let done = self.run(&steps, OnAsk::Fail).await;
        self.changed(&steps);
        let replies = done.into_iter().map(|done| {
            let reply: Vec<u8> = only(done)?;
            Ok(lease_reply(&reply))
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
        fills: Vec<(&EntryRef, Fill)>,
    ) -> Result<Vec<Filled>, Error> {
        let ttl = fills.iter().map(|(_, fill)| fill.generation_ttl).max();
        let ttl = ttl.unwrap_or(self.default_generation_ttl);
        let deps = fills
            .first()
            .map(|(entry_ref, _)| Arc::clone(&entry_ref.deps));
        let mut steps = Vec::with_capacity(fills.len());
        for (entry_ref, fill) in fills {
            let of_all = [b"1".to_vec(), millis(ttl)];
            let args = of_all.into_iter().chain(fill_args(entry_ref, fill)?);
            steps.push(step(&scripts::FILL, &entry_ref.key, args));
        }
        let mut results = Vec::with_capacity(steps.len());
        let done = self.run(&steps, OnAsk::Fail).await;
        self.changed(&steps);
        for done in done {
            results.push(filled(only::<bool>(done)?));
        }
        if let Some(deps) = deps
            && results.contains(&Filled::Stored)
        {
            self.touch(&deps, ttl).await;
        }
        Ok(results)
    }

    /// Extends the generations at intervals, so that they outlive the entries that depend on them.
    /// If it fails, those entries become misses.
    async fn touch(&self, deps: &[Arc<Dependency>], ttl: Duration) {
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
