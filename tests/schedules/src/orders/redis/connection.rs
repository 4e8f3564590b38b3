//! A connection, as far as batcher know of it.

use std::sync::Arc;
use std::time::Duration;

use super::batcher::Batcher;
use crate::base::clock::Millis;
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::store::Probe;
use crate::sync::atomic::{AtomicUsize, Ordering};

pub struct Connection {
    batcher: Batcher,
    pub server: Nonce,
    pub clock: Clock,
    /// What the server holds, under each key.
    pub version: AtomicUsize,
    pub health: Health,
    pub runtimes: Runtimes,
}

/// No runtime has a connection of its own.
pub struct Runtimes;

impl Runtimes {
    pub fn batcher(&self) -> Option<Arc<Batcher>> {
        None
    }

    pub fn give_up_own(&self) -> bool {
        false
    }
}

/// How commands are answered.
#[derive(Clone, Copy, PartialEq)]
pub enum Health {
    Well,
    /// Some with an error, and some after the budget.
    Late,
    /// Some with an error, and some never.
    Stuck,
}

pub struct Clock;

/// No key is set aside.
pub struct SetAside;

impl SetAside {
    pub fn concerns(&self, _: &Probe) -> bool {
        false
    }
}

impl Clock {
    pub fn now(&self) -> Millis {
        Millis(0)
    }
}

impl Connection {
    pub async fn check_sync(&self, _: &str, _: Duration) -> Result<(), Error> {
        Ok(())
    }

    pub fn new(health: Health) -> Self {
        Self {
            batcher: Batcher::default(),
            server: Nonce(1),
            clock: Clock,
            version: AtomicUsize::new(0),
            health,
            runtimes: Runtimes,
        }
    }

    pub fn check_confirmed(&self) -> Result<(), Error> {
        Ok(())
    }

    pub fn identity(&self) -> Nonce {
        self.server
    }

    pub fn abandon(&self) {
        self.batcher.end();
    }

    pub fn answers_amiss(&self, error: Error) -> Error {
        self.batcher.end();
        error
    }

    pub fn set_aside(&self) -> SetAside {
        SetAside
    }

    pub fn batcher(&self) -> &Batcher {
        &self.batcher
    }

    pub fn write(&self) -> usize {
        self.version.fetch_add(1, Ordering::SeqCst) + 1
    }
}
