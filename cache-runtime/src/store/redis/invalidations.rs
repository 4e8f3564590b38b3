//! Invalidates on the one server: keys and generations, by a pattern, and the whole namespace.

use std::sync::Arc;

use super::RedisStore;
use super::errors::is_forbidden;
use super::limits::{REMOVE_STEP, STEP, STRETCH, TRACKED_REMOVE_STEP};
use super::scripts;
use super::tracking::Tracker;
use super::walk::{Walk, db_size, scan};
use crate::base::clock::{self, Millis};
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::protocol::generation::Dep;
use crate::protocol::glob;
use crate::store::{Invalidated, Invalidation, Matching, PartlyInvalidated};

impl RedisStore {
    /// Invalidates on the one server, in steps of a bounded size.
    pub(super) async fn invalidate_alone(
        &self,
        invalidation: &Invalidation,
    ) -> Result<Invalidated, Error> {
        // First, so that a task that repeats recent invalidations at the next primary includes this
        // one.
        if let Some(recent) = &self.recent {
            recent.remember(invalidation);
        }
        let connection = self.connections.current()?;
        let kills: Vec<_> = invalidation.kills.iter().map(String::as_str).collect();
        let bumps: Vec<_> = invalidation.bumps.iter().map(|dep| &**dep).collect();
        let withdraws: Vec<_> = invalidation
            .withdraws
            .iter()
            .map(Nonce::to_string)
            .collect();
        let mut done = Invalidated {
            at: Millis(0),
            removed: 0,
        };
        // Without tokens there is still one round.
        let rounds = withdraws.len().div_ceil(STEP).max(1);
        for round in 0..rounds {
            let withdraws = withdraws.iter().skip(round * STEP).take(STEP);
            let withdraws = withdraws.map(String::as_str).collect::<Vec<_>>().join(" ");
            let step = self.invalidate_in_steps(&connection, &kills, &bumps, &withdraws);
            let step = step.await?;
            done = Invalidated {
                at: step.at,
                removed: done.removed + step.removed,
            };
        }
        self.confirmed(&connection)?;
        Ok(done)
    }

    /// The same, but keys that the user may not write hold up no others.
    pub(super) async fn invalidate_permitted_alone(
        &self,
        invalidation: &Invalidation,
    ) -> PartlyInvalidated {
        let all = self.invalidate_alone(invalidation).await;
        let is_refused = all.as_ref().is_err_and(is_forbidden)
            && invalidation.kills.len() + invalidation.bumps.len() > 1
            && !crate::base::mutation::is_active("forbidden-keys-hold-up-others");
        if !is_refused {
            return PartlyInvalidated::all_or_nothing(all, invalidation);
        }
        let withdraws = &invalidation.withdraws;
        let one = |kills, bumps| Invalidation {
            kills,
            bumps,
            withdraws: withdraws.clone(),
        };
        let kills = invalidation.kills.iter();
        let kills = kills.map(|key| one(vec![key.clone()], Vec::new()));
        let bumps = invalidation.bumps.iter();
        let bumps = bumps.map(|dep| one(Vec::new(), vec![Arc::clone(dep)]));
        let mut done = Invalidated {
            at: Millis(0),
            removed: 0,
        };
        let mut undone = one(Vec::new(), Vec::new());
        let mut fault = None;
        for one in kills.chain(bumps) {
            let is_away = fault.as_ref().is_some_and(|error| !is_forbidden(error));
            let step = match is_away {
                true => None,
                false => Some(self.invalidate_alone(&one).await),
            };
            match step {
                Some(Ok(step)) => {
                    done = Invalidated {
                        at: step.at,
                        removed: done.removed + step.removed,
                    };
                }
                failed => {
                    undone.kills.extend(one.kills);
                    undone.bumps.extend(one.bumps);
                    fault = failed.and_then(Result::err).or(fault);
                }
            }
        }
        PartlyInvalidated {
            done,
            undone: fault.map(|error| (undone, error)),
        }
    }

    /// Walks over the keys of the one server, and removes those that match.
    pub(super) async fn remove_matching_alone(&self, matching: &Matching) -> Result<u64, Error> {
        let connection = self.connections.current()?;
        if let Some(limit) = matching.unless_larger_than
            && db_size(&connection, self.budget).await? > limit
        {
            return Ok(0);
        }
        let which = if matching.derived_only {
            "derived"
        } else {
            "all"
        };
        let before = matching
            .stored_before
            .map_or(String::new(), |at| at.0.to_string());
        let mut removed = 0;
        let mut walk = Walk::new(matching.pattern.clone(), matching.is_leisurely);
        let mut began = clock::now();
        while let Some(keys) = scan(&connection, self.budget, &mut walk).await? {
            let step = match connection.tracker().is_some_and(Tracker::is_on) {
                true => TRACKED_REMOVE_STEP,
                false if matching.is_leisurely => REMOVE_STEP,
                false => STEP,
            };
            for keys in keys.chunks(step) {
                let args = [which.into(), before.clone().into_bytes()];
                let keys = keys.iter().map(String::as_str);
                removed += self
                    .script::<u64>(&connection, &scripts::REMOVE, keys.clone(), args)
                    .await?;
                // A sweep removes only entries that are dead by their generations, and the server
                // reports the removal too.
                if matching.stored_before.is_none()
                    || crate::base::mutation::is_active("sweep-ends-copies")
                {
                    self.changed(keys);
                }
            }
            let worked = began.elapsed();
            if matching.is_leisurely && worked >= STRETCH {
                tokio::time::sleep(worked).await;
                began = clock::now();
            }
        }
        if matching.stored_before.is_none() {
            self.confirmed(&connection)?;
        }
        Ok(removed)
    }

    /// Walks over the generations of the one server, and replaces them all. Returns when the last
    /// step was done, in the server's time.
    pub(super) async fn invalidate_namespace_alone(
        &self,
        namespace: &str,
    ) -> Result<Millis, Error> {
        // First, so that a task that repeats recent invalidations at the next primary includes this
        // one.
        if let Some(recent) = &self.recent {
            recent.remember_everything();
        }
        let connection = self.connections.current()?;
        let mut done = connection.clock.now();
        let mut walk = Walk::new(format!("{}@gen:*", glob::literal(namespace)), false);
        while let Some(keys) = scan(&connection, self.budget, &mut walk).await? {
            for bumps in keys.chunks(STEP) {
                let bumps: Vec<_> = bumps.iter().map(|key| Dep::new(key.clone())).collect();
                let bumps: Vec<_> = bumps.iter().map(|dep| &**dep).collect();
                done = self.invalidate_on(&connection, &[], &bumps, "").await?.at;
            }
        }
        self.confirmed(&connection)?;
        Ok(done)
    }
}
