//! Repeats recent invalidations at a new primary, if Sentinels name it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::super::connection::Connection;
use super::super::connection::connections::Connections;
use super::super::limits::STEP;
use super::super::reply::millis;
use super::super::scripts::{INVALIDATE, fresh_nonce};
use super::super::walk::{Walk, scan};
use super::recent::{RecentInvalidations, Repetition};
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::protocol::glob;

/// The pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// The data of the task.
#[derive(Clone)]
pub(crate) struct Replay {
    pub(crate) connections: Arc<Connections>,
    pub(crate) recent: Arc<RecentInvalidations>,
    pub(crate) namespace: String,
    pub(crate) budget: Duration,
    pub(crate) generation_ttl: Duration,
}

impl Replay {
    /// Runs each time another server has become the primary.
    pub(crate) async fn run(self, mut closing: watch::Receiver<bool>) {
        let mut changes = self.connections.changes.subscribe();
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = closing.wait_for(|closing| *closing) => return,
            }
            if crate::base::mutation::is_active("recent-not-done-again") {
                continue;
            }
            while !self.is_done().await {
                tokio::select! {
                    () = crate::base::time::sleep(PAUSE) => {}
                    _ = closing.wait_for(|closing| *closing) => return,
                }
            }
            self.recent.is_known();
        }
    }

    async fn is_done(&self) -> bool {
        let again = self.recent.again();
        if matches!(again, Repetition::Nothing) {
            return true;
        }
        match self.connections.current() {
            Ok(connection) => self.again(&connection, again).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn again(&self, connection: &Connection, again: Repetition) -> Result<(), Error> {
        match again {
            Repetition::Nothing => {}
            Repetition::These(these) => {
                for deletes in these.deletes.chunks(STEP) {
                    let deletes: Vec<_> = deletes.iter().map(String::as_str).collect();
                    let none = std::iter::empty();
                    self.invalidate(connection, &deletes, &[], none).await?;
                }
                for rotates in these.rotates.chunks(STEP) {
                    let nonces = rotates.iter().map(|dep| fresh_nonce(dep));
                    let rotates: Vec<_> = rotates.iter().map(|dep| dep.key()).collect();
                    self.invalidate(connection, &[], &rotates, nonces).await?;
                }
            }
            Repetition::Everything => {
                let pattern = format!("{}@gen:*", glob::literal(&self.namespace));
                let mut walk = Walk::new(pattern, false);
                while let Some(keys) = scan(connection, self.budget, &mut walk).await? {
                    for rotates in keys.chunks(STEP) {
                        let rotates: Vec<_> = rotates.iter().map(String::as_str).collect();
                        let nonces = rotates
                            .iter()
                            .map(|_| Nonce::fresh().to_string().into_bytes());
                        self.invalidate(connection, &[], &rotates, nonces).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn invalidate(
        &self,
        connection: &Connection,
        deletes: &[&str],
        rotates: &[&str],
        nonces: impl Iterator<Item = Vec<u8>>,
    ) -> Result<(), Error> {
        let args = [
            deletes.len().to_string().into_bytes(),
            millis(self.generation_ttl),
            Vec::new(),
        ];
        let args: Vec<_> = args.into_iter().chain(nonces).collect();
        let mode = connection.capabilities.scripts;
        let done: (u64, u64) = connection
            .ask(self.budget, async |multiplexed| {
                let keys = deletes.iter().chain(rotates).copied();
                INVALIDATE.run(multiplexed, mode, keys, args).await
            })
            .await?;
        let _ = done;
        Ok(())
    }
}
