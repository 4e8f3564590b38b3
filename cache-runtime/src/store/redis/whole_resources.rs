//! Invalidates the whole resource where the user may not write a key of it.
//!
//! The stamp of each entry covers the generation of its whole resource, and that of each resource
//! whose rows it depends on. So if an access list permits the generations, and not `users:1`, the
//! old row is served by nobody once the generation of `users` was replaced. Otherwise all processes
//! but this one would go on reading it until its TTL ends. It costs a miss for every entry of the
//! resource.

use std::sync::Arc;

use super::RedisStore;
use super::connection::errors::is_forbidden;
use super::key_by_key::KeyByKey;
use crate::base::error::Error;
use crate::base::mutation;
use crate::protocol::generation::Dependency;
use crate::store::{Intent, IntentReply, Invalidation, PartlyInvalidated};

impl RedisStore {
    /// Invalidates the whole resources of what was refused, and returns their generations. What is
    /// left undone belongs to no resource, or its whole resource is refused, too.
    pub(super) async fn invalidate_whole_resources(
        &self,
        outcome: &mut KeyByKey,
    ) -> Vec<Arc<Dependency>> {
        if !outcome.fault.as_ref().is_some_and(is_forbidden)
            || mutation::is_active("refused-rows-left-to-others")
        {
            return Vec::new();
        }
        let whole_of = |key: &str| Dependency::whole_of_entry(&self.namespace, key);
        let undone = &outcome.undone;
        let keys = undone.deletes.iter().filter_map(|key| whole_of(key));
        let deps = undone.rotates.iter().filter_map(|dep| dep.whole());
        let mut wholes: Vec<_> = keys.chain(deps).collect();
        wholes.sort();
        wholes.dedup();
        if wholes.is_empty() {
            return Vec::new();
        }
        let instead = undone.part(Vec::new(), wholes.clone());
        let instead = self.replace_wholes(&instead).await;
        let is_left = |whole: &Arc<Dependency>| instead.undone.rotates.contains(whole);
        let (left, done): (Vec<_>, Vec<_>) = wholes.into_iter().partition(is_left);
        if let Some(error) = &outcome.fault {
            done.iter()
                .for_each(|whole| self.refusals.log(whole, error));
        }
        let is_done = |whole: Option<Arc<Dependency>>| whole.is_some_and(|it| !left.contains(&it));
        let undone = &mut outcome.undone;
        undone.deletes.retain(|key| !is_done(whole_of(key)));
        undone.rotates.retain(|dep| !is_done(dep.whole()));
        outcome.succeeds(instead.done);
        if let Some(error) = instead.fault {
            outcome.fails(&Invalidation::default(), error);
        }
        if outcome.undone.is_empty() {
            outcome.fault = None;
        }
        done
    }

    async fn replace_wholes(&self, wholes: &Invalidation) -> KeyByKey {
        if let Some(cluster) = self.cluster() {
            return KeyByKey::of(cluster.invalidate(wholes).await);
        }
        let each = wholes.rotates.iter();
        let each = each.map(|whole| wholes.part(Vec::new(), vec![Arc::clone(whole)]));
        let each: Vec<_> = each.collect();
        let mut outcome = KeyByKey::new(wholes);
        self.invalidate_each_alone(&each, &mut outcome).await;
        outcome
    }

    /// [`invalidate_whole_resources`](Self::invalidate_whole_resources) after an invalidation in a
    /// cluster.
    pub(super) async fn with_whole_resources(
        &self,
        partly: PartlyInvalidated,
    ) -> PartlyInvalidated {
        let mut outcome = KeyByKey::of(partly);
        self.invalidate_whole_resources(&mut outcome).await;
        outcome.into_partly()
    }

    /// Announces a write. If the user may not write a row's key, the intent is set on the whole
    /// resource, as over a foreign value.
    pub(super) async fn announce_permitted(
        &self,
        mode: &str,
        intent: &Intent,
    ) -> Result<IntentReply, Error> {
        let announced = self.announce(mode, intent).await;
        let is_refused = announced.as_ref().is_err_and(is_forbidden)
            && !intent.rows.is_empty()
            && !mutation::is_active("refused-rows-left-to-others");
        if !is_refused {
            return announced;
        }
        let wholes = intent.rows.iter().map(|row| Arc::clone(&row.whole));
        let mut deps: Vec<_> = wholes.chain(intent.deps.iter().cloned()).collect();
        deps.sort();
        deps.dedup();
        let instead = Intent {
            rows: Vec::new(),
            deps,
            ..*intent
        };
        let reply = self.announce(mode, &instead).await?;
        Ok(IntentReply {
            on_whole: true,
            ..reply
        })
    }
}
