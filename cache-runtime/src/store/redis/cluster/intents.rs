//! Announced writes in a cluster: at the node of each row and of each generation.

use std::sync::Arc;
use std::time::Duration;

use super::super::reply::millis;
use super::super::scripts;
use super::super::slots::slot_of;
use super::routing::{ScriptCall, groups};
use super::sending::{OnAsk, step, typed};
use super::state::{Cluster, is_apart};
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::store::{EntryRef, Intent, IntentReply};

impl Cluster {
    /// Announces everything at once. If a row's key holds a foreign value, a second step announces
    /// the whole resource.
    pub(in crate::store::redis) async fn announce(
        &self,
        mode: &str,
        intent: &Intent,
    ) -> Result<IntentReply, Error> {
        let step_of = |slot: u16, keys: Vec<_>, rows: usize| {
            let nonces = keys[rows..]
                .iter()
                .map(|_| Nonce::fresh().to_string().into_bytes());
            let args = [
                rows.to_string().into_bytes(),
                millis(self.default_generation_ttl),
                intent.token.to_string().into_bytes(),
                // Deadlines follow the clocks of several nodes, which may differ by a second.
                millis(intent.length + Duration::from_secs(1)),
                mode.into(),
            ];
            ScriptCall {
                slot,
                script: &scripts::INTEND,
                args: args.into_iter().chain(nonces).collect(),
                keys,
            }
        };
        let rows = intent.rows.iter().map(|row| {
            let key = row.key.as_str();
            step_of(slot_of(key), vec![key], 1)
        });
        let of_deps = groups(&intent.deps);
        let on_deps = of_deps
            .iter()
            .map(|group| step_of(group.slot, group.keys(), 0));
        let steps: Vec<_> = rows.chain(on_deps).collect();
        let (mut at, mut wholes) = (Millis(0), Vec::new());
        let done = self.run(&steps, OnAsk::Follow).await;
        self.changed(&steps);
        let mut apart = Vec::new();
        for (number, done) in done.into_iter().enumerate() {
            if done.as_ref().is_err_and(is_apart) {
                let step = &steps[number];
                apart.extend(
                    step.keys
                        .iter()
                        .map(|key| step_of(step.slot, vec![*key], 0)),
                );
                continue;
            }
            let ((node_at, on_whole), _) = typed::<(u64, bool)>(done)?;
            at = at.max(Millis(node_at));
            if let Some(row) = intent.rows.get(number)
                && on_whole
            {
                wholes.push(Arc::clone(&row.whole));
            }
        }
        let of_wholes = groups(&wholes);
        let keys = of_wholes
            .iter()
            .flat_map(|group| group.deps.iter().map(|(key, _)| (group.slot, *key)));
        // One step per key, since the slot may be moving.
        apart.extend(keys.map(|(slot, key)| step_of(slot, vec![key], 0)));
        if !apart.is_empty() {
            let done = self.run(&apart, OnAsk::Follow).await;
            self.changed(&apart);
            for done in done {
                let ((node_at, _), _) = typed::<(u64, bool)>(done)?;
                at = at.max(Millis(node_at));
            }
        }
        let slots: Vec<_> = steps.iter().chain(&apart).map(|step| step.slot).collect();
        self.fences.passed(&slots).await;
        self.confirmed()?;
        Ok(IntentReply {
            at,
            on_whole: !wholes.is_empty(),
        })
    }

    pub(in crate::store::redis) async fn prune(&self, entry_ref: &EntryRef) -> Result<(), Error> {
        let ttl = millis(self.default_generation_ttl);
        let groups = groups(entry_ref.deps.iter());
        let on_deps = groups.iter().map(|group| {
            // The script reads the first key as an entry, and a generation is not an entry.
            let first = group.deps.first().map(|(key, _)| *key);
            let nonces = group
                .deps
                .iter()
                .map(|_| Nonce::fresh().to_string().into_bytes());
            ScriptCall {
                slot: group.slot,
                script: &scripts::PRUNE,
                keys: first.into_iter().chain(group.keys()).collect(),
                args: std::iter::once(ttl.clone()).chain(nonces).collect(),
            }
        });
        let entry = step(&scripts::PRUNE, &entry_ref.key, [ttl.clone()]);
        let steps: Vec<_> = std::iter::once(entry).chain(on_deps).collect();
        let done = self.run(&steps, OnAsk::Fail).await;
        self.changed(&steps);
        done.into_iter().try_for_each(|done| done.map(drop))
    }
}
