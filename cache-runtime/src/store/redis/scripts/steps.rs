//! Scripts for many keys: sent in steps, so that each step delays other commands only a little.

use std::time::Duration;

use super::super::connection::Connection;
use super::super::limits::STEP;
use super::super::one_server::OneServer;
use super::super::reply::{counted, millis};
use super::super::{RedisStore, scripts};
use super::lease_script::{fill_args, filled, lease_args, lease_reply};
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::base::mutation;
use crate::base::nonce::Nonce;
use crate::protocol::generation::Dependency;
use crate::store::{EntryRef, Fill, Filled, Invalidated, LeaseReply, LeaseRequest};

impl RedisStore {
    pub(crate) async fn lease_step(
        &self,
        requests: &[(&EntryRef, LeaseRequest)],
    ) -> Result<Vec<LeaseReply>, Error> {
        if let Some(cluster) = self.cluster() {
            return cluster.lease_many(requests).await;
        }
        let Some((_, first)) = requests.first() else {
            return Ok(Vec::new());
        };
        let connection = self.connections.current()?;
        let each = requests
            .iter()
            .flat_map(|(entry_ref, request)| lease_args(entry_ref, request));
        debug_assert!(requests.iter().all(|(_, it)| it.length == first.length));
        let args = std::iter::once(millis(first.length)).chain(each);
        let keys = requests.iter().map(|(entry_ref, _)| entry_ref.key.as_str());
        let replies: Vec<Vec<u8>> = self
            .one_server
            .script(&connection, &scripts::LEASE, keys.clone(), args)
            .await?;
        self.changed(keys);
        let replies = replies.iter().map(|reply| lease_reply(reply)).collect();
        counted(replies, requests.len())
    }

    pub(crate) async fn renew_step<'l>(
        &self,
        leases: impl Iterator<Item = (&'l str, Nonce)> + Clone,
        length: Duration,
    ) -> Result<Vec<bool>, Error> {
        if let Some(cluster) = self.cluster() {
            let leases: Vec<_> = leases.collect();
            return cluster.renew_many(&leases, length).await;
        }
        let connection = self.connections.current()?;
        let keys = leases.clone().map(|(key, _)| key);
        let tokens = leases.map(|(_, token)| token.to_string().into_bytes());
        let args = std::iter::once(millis(length)).chain(tokens);
        self.one_server
            .script(&connection, &scripts::RENEW, keys, args)
            .await
    }

    pub(crate) async fn fill_step(
        &self,
        fills: Vec<(&EntryRef, Fill)>,
    ) -> Result<Vec<Filled>, Error> {
        if let Some(cluster) = self.cluster() {
            return cluster.fill_many(fills).await;
        }
        let Some((EntryRef { deps, .. }, _)) = fills.first() else {
            return Ok(Vec::new());
        };
        debug_assert!(fills.iter().all(|(entry_ref, _)| entry_ref.deps == *deps));
        let connection = self.connections.current()?;
        let entries = fills.iter().map(|(entry_ref, _)| entry_ref.key.as_str());
        let keys: Vec<&str> = entries.chain(deps.iter().map(|dep| dep.key())).collect();
        let count = fills.len();
        let ttl = fills.iter().map(|(_, fill)| fill.generation_ttl).max();
        let mut args = Vec::with_capacity(2 + 5 * count);
        args.push(count.to_string().into_bytes());
        args.push(millis(ttl.unwrap_or(self.default_generation_ttl)));
        for (entry_ref, fill) in fills {
            args.extend(fill_args(entry_ref, fill)?);
        }
        let entries: Vec<&str> = keys.iter().copied().take(count).collect();
        let stored: Vec<bool> = self
            .one_server
            .script(&connection, &scripts::FILL, keys, args)
            .await?;
        self.changed(entries);
        counted(stored.into_iter().map(filled).collect(), count)
    }
}

impl OneServer {
    pub(in crate::store::redis) async fn invalidate_in_steps(
        &self,
        connection: &Connection,
        deletes: &[&str],
        rotates: &[&Dependency],
        ends: &str,
    ) -> Result<Invalidated, Error> {
        if deletes.len() + rotates.len() <= STEP {
            return self.invalidate_on(connection, deletes, rotates, ends).await;
        }
        let mut done = Invalidated {
            at: Millis(0),
            removed: 0,
        };
        for deletes in deletes.chunks(STEP) {
            let step = self.invalidate_on(connection, deletes, &[], ends).await?;
            done = Invalidated {
                at: step.at,
                removed: done.removed + step.removed,
            };
        }
        for rotates in rotates.chunks(STEP) {
            done.at = self.invalidate_on(connection, &[], rotates, ends).await?.at;
        }
        if rotates.len() <= STEP || mutation::is_active("windows-not-replaced-again") {
            return Ok(done);
        }
        // Between two steps a list may have been loaded after its own generation was replaced, from
        // an entry that depends on a row whose generation was not. So those of resources, which are
        // few, are replaced once more, after all others.
        let windows = rotates.iter().filter(|dep| !dep.has_window());
        let windows: Vec<_> = windows.copied().collect();
        for windows in windows.chunks(STEP) {
            done.at = self.invalidate_on(connection, &[], windows, ends).await?.at;
        }
        Ok(done)
    }

    pub(in crate::store::redis) async fn invalidate_on(
        &self,
        connection: &Connection,
        deletes: &[&str],
        rotates: &[&Dependency],
        ends: &str,
    ) -> Result<Invalidated, Error> {
        let nonces = rotates.iter().map(|dep| scripts::fresh_nonce(dep));
        let generations = rotates.iter().map(|dep| dep.key());
        let keys = deletes.iter().copied().chain(generations);
        let args = [
            deletes.len().to_string().into_bytes(),
            millis(self.default_generation_ttl),
            ends.into(),
        ];
        let (at, removed) = self
            .script(
                connection,
                &scripts::INVALIDATE,
                keys.clone(),
                args.into_iter().chain(nonces),
            )
            .await?;
        self.changed(keys);
        Ok(Invalidated {
            at: Millis(at),
            removed,
        })
    }
}
