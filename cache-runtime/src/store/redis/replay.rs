//! Repeats recent invalidations at a new primary, if Sentinels name it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::limits::STEP;
use super::link::Link;
use super::recent::{Again, Recent};
use super::reply::millis;
use super::scripts::{INVALIDATE, fresh_nonce};
use super::supervisor::Links;
use super::walk::{Walk, scan};
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::protocol::glob;

/// The pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// The data of the task.
#[derive(Clone)]
pub(super) struct Replay {
    pub(super) links: Arc<Links>,
    pub(super) recent: Arc<Recent>,
    pub(super) namespace: String,
    pub(super) budget: Duration,
    pub(super) generation_ttl: Duration,
}

impl Replay {
    /// Runs each time another server has become the primary.
    pub(super) async fn run(self, mut closing: watch::Receiver<bool>) {
        let mut changes = self.links.changes.subscribe();
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = closing.wait_for(|closing| *closing) => return,
            }
            if crate::base::mutation::is_active("recent-not-done-again") {
                continue;
            }
            while !self.is_done().await {
                tokio::time::sleep(PAUSE).await;
            }
            self.recent.is_known();
        }
    }

    async fn is_done(&self) -> bool {
        let again = self.recent.again();
        if matches!(again, Again::Nothing) {
            return true;
        }
        match self.links.current() {
            Ok(link) => self.again(&link, again).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn again(&self, link: &Link, again: Again) -> Result<(), Error> {
        match again {
            Again::Nothing => {}
            Again::These(these) => {
                for kills in these.kills.chunks(STEP) {
                    let kills: Vec<_> = kills.iter().map(String::as_str).collect();
                    let none = std::iter::empty();
                    self.invalidate(link, &kills, &[], none).await?;
                }
                for bumps in these.bumps.chunks(STEP) {
                    let nonces = bumps.iter().map(|dep| fresh_nonce(dep));
                    let bumps: Vec<_> = bumps.iter().map(|dep| dep.key()).collect();
                    self.invalidate(link, &[], &bumps, nonces).await?;
                }
            }
            Again::Everything => {
                let pattern = format!("{}@gen:*", glob::literal(&self.namespace));
                let mut walk = Walk::new(pattern, false);
                while let Some(keys) = scan(link, self.budget, &mut walk).await? {
                    for bumps in keys.chunks(STEP) {
                        let bumps: Vec<_> = bumps.iter().map(String::as_str).collect();
                        let nonces = bumps
                            .iter()
                            .map(|_| Nonce::fresh().to_string().into_bytes());
                        self.invalidate(link, &[], &bumps, nonces).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn invalidate(
        &self,
        link: &Link,
        kills: &[&str],
        bumps: &[&str],
        nonces: impl Iterator<Item = Vec<u8>>,
    ) -> Result<(), Error> {
        let args = [
            kills.len().to_string().into_bytes(),
            millis(self.generation_ttl),
            Vec::new(),
        ];
        let args: Vec<_> = args.into_iter().chain(nonces).collect();
        let mode = link.capabilities.scripts;
        let done: (u64, u64) = link
            .ask(self.budget, async |connection| {
                let keys = kills.iter().chain(bumps).copied();
                INVALIDATE.run(connection, mode, keys, args).await
            })
            .await?;
        let _ = done;
        Ok(())
    }
}
