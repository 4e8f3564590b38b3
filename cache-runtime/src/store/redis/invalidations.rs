//! Invalidates on the one server: keys and generations, by a pattern, and the whole namespace.

use std::sync::Arc;

use super::RedisStore;
use super::connection::errors::is_forbidden;
use super::key_by_key::KeyByKey;
use super::limits::{AT_ONCE, REMOVE_STEP, STEP, TRACKED_REMOVE_STEP, WORK_SLICE};
use super::one_server::OneServer;
use super::scripts;
use super::tracking::Tracker;
use super::walk::{Walk, db_size, scan};
use crate::base::clock::{self, Millis};
use crate::base::error::Error;
use crate::base::join;
use crate::base::nonce::Nonce;
use crate::protocol::generation::Dependency;
use crate::protocol::glob;
use crate::store::{Invalidated, Invalidation, PartlyInvalidated, ScanFilter};

impl OneServer {
    /// Invalidates on the one server, in steps of a bounded size.
    pub(super) async fn invalidate(
        &self,
        invalidation: &Invalidation,
    ) -> Result<Invalidated, Error> {
        // First, so that a task that repeats recent invalidations at the next primary includes this
        // one.
        if let Some(recent) = &self.connections.recent {
            recent.remember(invalidation);
        }
        let connection = self.connections.current()?;
        let deletes: Vec<_> = invalidation.deletes.iter().map(String::as_str).collect();
        let rotates: Vec<_> = invalidation.rotates.iter().map(|dep| &**dep).collect();
        let ends: Vec<_> = invalidation.ends.iter().map(Nonce::to_string).collect();
        let mut done = Invalidated {
            at: Millis(0),
            removed: 0,
        };
        // Without tokens there is still one round.
        let rounds = ends.len().div_ceil(STEP).max(1);
        for round in 0..rounds {
            let ends = ends.iter().skip(round * STEP).take(STEP);
            let ends = ends.map(String::as_str).collect::<Vec<_>>().join(" ");
            let step = self.invalidate_in_steps(&connection, &deletes, &rotates, &ends);
            let step = step.await?;
            done = Invalidated {
                at: step.at,
                removed: done.removed + step.removed,
            };
        }
        self.confirmed(&connection)?;
        Ok(done)
    }

    /// The same, but keys that the user may not write hold up no others, and end with their whole
    /// resource where that is permitted.
    pub(super) async fn invalidate_permitted(
        &self,
        invalidation: &Invalidation,
    ) -> PartlyInvalidated {
        let all = self.invalidate(invalidation).await;
        let is_refused = all.as_ref().is_err_and(is_forbidden)
            && !crate::base::mutation::is_active("forbidden-keys-hold-up-others");
        if !is_refused {
            return PartlyInvalidated::all_or_nothing(all, invalidation);
        }
        let mut outcome = KeyByKey::new(invalidation);
        self.invalidate_key_by_key(invalidation, &mut outcome).await;
        let rotates = invalidation.rotates.iter();
        let windows = rotates.filter(|dep| !dep.has_window());
        let windows = windows.filter(|dep| !outcome.undone.rotates.contains(dep));
        let mut again: Vec<_> = windows.cloned().collect();
        again.extend(self.invalidate_whole_resources(&mut outcome).await);
        if invalidation.len() > 1 && !again.is_empty() {
            let again = invalidation.part(Vec::new(), again);
            self.replace_windows_again(again, &mut outcome).await;
        }
        outcome.into_partly()
    }

    async fn invalidate_key_by_key(&self, invalidation: &Invalidation, outcome: &mut KeyByKey) {
        let deletes = invalidation.deletes.iter();
        let deletes = deletes.map(|key| invalidation.part(vec![key.clone()], Vec::new()));
        let rotation = |dep: &Arc<Dependency>| invalidation.part(Vec::new(), vec![Arc::clone(dep)]);
        let rotates = invalidation.rotates.iter();
        let (others, windows): (Vec<_>, Vec<_>) = rotates.partition(|dep| dep.has_window());
        let first: Vec<_> = deletes.chain(windows.into_iter().map(rotation)).collect();
        self.invalidate_each_alone(&first, outcome).await;
        // Those of rows and tags whose window was not replaced wait for it.
        let undone = Dependency::windows(&outcome.undone.rotates);
        let (held, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|dep| {
            dep.waits_for(&undone)
                && !crate::base::mutation::is_active("replaced-without-its-window")
        });
        outcome.undone.rotates.extend(held.into_iter().cloned());
        let others: Vec<_> = others.into_iter().map(rotation).collect();
        self.invalidate_each_alone(&others, outcome).await;
    }

    /// Invalidates the whole resources of what was refused, and returns their generations.
    async fn invalidate_whole_resources(&self, outcome: &mut KeyByKey) -> Vec<Arc<Dependency>> {
        let Some(instead) = self.wholes.in_place_of(outcome) else {
            return Vec::new();
        };
        let each = instead.rotates.iter();
        let each = each.map(|whole| instead.part(Vec::new(), vec![Arc::clone(whole)]));
        let each: Vec<_> = each.collect();
        let mut sent = KeyByKey::new(&instead);
        self.invalidate_each_alone(&each, &mut sent).await;
        self.wholes.apply_wholes(outcome, instead, sent)
    }

    /// Replaces the generations of resources once more, in one step, after everything was sent key
    /// by key. Meanwhile a list may have been loaded after its own generation was replaced, from a
    /// row that was still there.
    async fn replace_windows_again(&self, windows: Invalidation, outcome: &mut KeyByKey) {
        if crate::base::mutation::is_active("windows-not-replaced-again") {
            return;
        }
        if let Err(error) = self.invalidate(&windows).await {
            outcome.fails(&windows, error);
        }
    }

    /// Sends each of these apart, some at the same time. Once the server is away, the rest is
    /// undone.
    async fn invalidate_each_alone(&self, parts: &[Invalidation], outcome: &mut KeyByKey) {
        for parts in parts.chunks(AT_ONCE) {
            let is_away = |error: &Error| !is_forbidden(error);
            if outcome.fault.as_ref().is_some_and(is_away) {
                for part in parts {
                    outcome.undone.extend(part);
                }
                continue;
            }
            let steps = parts.iter().map(|part| self.invalidate(part));
            for (part, step) in parts.iter().zip(join::all(steps).await) {
                match step {
                    Ok(step) => outcome.succeeds(step),
                    Err(error) => outcome.fails(part, error),
                }
            }
        }
    }

    /// Walks over the generations of the one server, and replaces them all. Returns when the last
    /// step was done, in the server's time.
    pub(super) async fn invalidate_namespace(&self, namespace: &str) -> Result<Millis, Error> {
        // First, so that a task that repeats recent invalidations at the next primary includes this
        // one.
        if let Some(recent) = &self.connections.recent {
            recent.remember_everything();
        }
        let connection = self.connections.current()?;
        let mut done = connection.clock.now();
        let mut walk = Walk::new(format!("{}@gen:*", glob::literal(namespace)), false);
        let mut wholes = Vec::new();
        while let Some(keys) = scan(&connection, self.budget, &mut walk).await? {
            for rotates in keys.chunks(STEP) {
                let rotates: Vec<_> = rotates
                    .iter()
                    .map(|key| Dependency::new(key.clone()))
                    .collect();
                let all: Vec<_> = rotates.iter().map(|dep| &**dep).collect();
                done = self.invalidate_on(&connection, &[], &all, "").await?.at;
                wholes.extend(rotates.into_iter().filter(|dep| dep.is_whole()));
            }
        }
        // Once more, and in one step, since entries of one resource may have been loaded meanwhile
        // from entries of another one that the walk had not reached. Each entry has one of these in
        // its stamp, and there are as many as resources.
        if wholes.len() > 1 && !crate::base::mutation::is_active("namespace-not-replaced-again") {
            for wholes in wholes.chunks(STEP) {
                let wholes: Vec<_> = wholes.iter().map(|dep| &**dep).collect();
                done = self.invalidate_on(&connection, &[], &wholes, "").await?.at;
            }
        }
        self.confirmed(&connection)?;
        Ok(done)
    }
}

impl RedisStore {
    /// Walks over the keys of the one server, and removes those that match.
    pub(super) async fn remove_matching_alone(&self, filter: &ScanFilter) -> Result<u64, Error> {
        let connection = self.connections.current()?;
        if let Some(limit) = filter.unless_larger_than
            && db_size(&connection, self.budget).await? > limit
        {
            return Ok(0);
        }
        let which = if filter.derived_only {
            "derived"
        } else {
            "all"
        };
        let before = filter
            .stored_before
            .map_or(String::new(), |at| at.0.to_string());
        let mut removed = 0;
        let mut walk = Walk::new(filter.pattern.clone(), filter.is_low_priority);
        let mut began = clock::now();
        while let Some(keys) = scan(&connection, self.budget, &mut walk).await? {
            let step = match connection.tracker().is_some_and(Tracker::is_on) {
                true => TRACKED_REMOVE_STEP,
                false if filter.is_low_priority => REMOVE_STEP,
                false => STEP,
            };
            for keys in keys.chunks(step) {
                let args = [which.into(), before.clone().into_bytes()];
                let keys = keys.iter().map(String::as_str);
                removed += self
                    .one_server
                    .script::<u64>(&connection, &scripts::REMOVE, keys.clone(), args)
                    .await?;
                // A sweep removes only entries that are dead by their generations, and the server
                // reports the removal too.
                if filter.stored_before.is_none()
                    || crate::base::mutation::is_active("sweep-drops-local-entries")
                {
                    self.changed(keys);
                }
            }
            let worked = began.elapsed();
            if filter.is_low_priority && worked >= WORK_SLICE {
                crate::base::time::sleep(worked).await;
                began = clock::now();
            }
        }
        if filter.stored_before.is_none() {
            self.confirmed(&connection)?;
        }
        Ok(removed)
    }
}
