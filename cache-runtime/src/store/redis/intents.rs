//! Announces writes on the one server: puts their intents, renews them, and ends those that have
//! expired.

use std::sync::Arc;

use super::connection::Connection;
use super::connection::errors::is_forbidden;
use super::limits::{AT_ONCE, STEP};
use super::reply::millis;
use super::{RedisStore, scripts};
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::base::join;
use crate::base::nonce::Nonce;
use crate::protocol::generation::Dependency;
use crate::store::{EntryRef, Intent, IntentReply, IntentRow};

impl RedisStore {
    /// Announces a write. If the user may not write a row's key, or a generation of a resource, the
    /// intent is set on the whole resource, as over a foreign value.
    pub(super) async fn announce_permitted(
        &self,
        mode: &str,
        intent: &Intent,
    ) -> Result<IntentReply, Error> {
        let announced = self.announce(mode, intent).await;
        let is_refused = announced.as_ref().is_err_and(is_forbidden)
            && !crate::base::mutation::is_active("refused-rows-left-to-others");
        match is_refused {
            true => self.announce_key_by_key(mode, intent).await,
            false => announced,
        }
    }

    async fn announce_key_by_key(&self, mode: &str, intent: &Intent) -> Result<IntentReply, Error> {
        let part = |rows, deps| Intent {
            rows,
            deps,
            ..*intent
        };
        // Each with the generation that stands for it.
        let rows = intent.rows.iter();
        let rows = rows.map(|row| {
            let whole = Some(Arc::clone(&row.whole));
            (part(vec![row.clone()], Vec::new()), whole)
        });
        let deps = intent.deps.iter();
        let deps = deps.map(|dep| (part(Vec::new(), vec![Arc::clone(dep)]), dep.whole()));
        let parts: Vec<_> = rows.chain(deps).collect();
        let (mut at, mut wholes) = (Millis(0), Vec::new());
        for parts in parts.chunks(AT_ONCE) {
            let announced = parts.iter().map(|(part, _)| self.announce(mode, part));
            for ((_, whole), announced) in parts.iter().zip(join::all(announced).await) {
                match (announced, whole) {
                    (Ok(reply), _) => at = at.max(reply.at),
                    (Err(error), Some(whole)) if is_forbidden(&error) => {
                        wholes.push(Arc::clone(whole));
                    }
                    (Err(error), _) => return Err(error),
                }
            }
        }
        wholes.sort();
        wholes.dedup();
        if !wholes.is_empty() {
            let instead = part(Vec::new(), wholes);
            at = at.max(self.announce(mode, &instead).await?.at);
        }
        Ok(IntentReply { at, on_whole: true })
    }

    /// In steps: the next step is sent before the last one has been answered, and no row is
    /// announced twice.
    async fn announce(&self, mode: &str, intent: &Intent) -> Result<IntentReply, Error> {
        if let Some(cluster) = self.cluster() {
            return cluster.announce(mode, intent).await;
        }
        let connection = self.connections.current()?;
        let (mut rows, mut deps) = (intent.rows.chunks(STEP), intent.deps.chunks(STEP));
        let mut done = self
            .announce_on(
                &connection,
                mode,
                intent,
                rows.next().unwrap_or_default(),
                deps.next().unwrap_or_default(),
            )
            .await?;
        let rest = rows
            .map(|rows| (rows, &[][..]))
            .chain(deps.map(|deps| (&[][..], deps)));
        for (rows, deps) in rest {
            let step = self
                .announce_on(&connection, mode, intent, rows, deps)
                .await?;
            done = IntentReply {
                at: step.at,
                on_whole: done.on_whole || step.on_whole,
            };
        }
        Ok(done)
    }

    async fn announce_on(
        &self,
        connection: &Connection,
        mode: &str,
        intent: &Intent,
        rows: &[IntentRow],
        deps: &[Arc<Dependency>],
    ) -> Result<IntentReply, Error> {
        let generations = rows.iter().map(|row| &row.whole).chain(deps);
        let keys = rows.iter().map(|row| row.key.as_str());
        let keys = keys.chain(generations.clone().map(|dep| dep.key()));
        let args = [
            rows.len().to_string().into_bytes(),
            millis(self.default_generation_ttl),
            intent.token.to_string().into_bytes(),
            millis(intent.length),
            mode.into(),
        ];
        let nonces = generations.clone().map(|dep| scripts::fresh_nonce(dep));
        let args = args.into_iter().chain(nonces);
        let (at, on_whole) = self
            .one_server
            .script(connection, &scripts::INTEND, keys, args)
            .await?;
        self.changed(rows.iter().map(|row| row.key.as_str()));
        self.changed(deps.iter().map(|dep| dep.key()));
        if on_whole {
            self.changed(rows.iter().map(|row| row.whole.key()));
        }
        self.confirmed(connection)?;
        Ok(IntentReply {
            at: Millis(at),
            on_whole,
        })
    }

    /// Asks the server to end the expired intents on an entry and its dependencies.
    pub(super) async fn prune_alone(&self, entry_ref: &EntryRef) -> Result<(), Error> {
        let connection = self.connections.current()?;
        let keys = std::iter::once(entry_ref.key.as_str())
            .chain(entry_ref.deps.iter().map(|dep| dep.key()));
        let nonces = entry_ref
            .deps
            .iter()
            .map(|_| Nonce::fresh().to_string().into_bytes());
        let args = std::iter::once(millis(self.default_generation_ttl)).chain(nonces);
        self.one_server
            .script::<u8>(&connection, &scripts::PRUNE, keys, args)
            .await?;
        self.changed([entry_ref.key.as_str()]);
        self.changed(entry_ref.deps.iter().map(|dep| dep.key()));
        Ok(())
    }
}
