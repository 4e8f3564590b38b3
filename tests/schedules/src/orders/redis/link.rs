//! A connection, as far as convoys know of it.

use super::convoy::Convoys;
use crate::clock::Millis;
use crate::error::{Error, ErrorKind};
use crate::nonce::Nonce;
use crate::sync::atomic::{AtomicUsize, Ordering};

pub struct Link {
    convoys: Convoys,
    pub server: Nonce,
    pub clock: Clock,
    /// What the server holds, under each key.
    pub version: AtomicUsize,
    pub health: Health,
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

impl Clock {
    pub fn now(&self) -> Millis {
        Millis(0)
    }
}

/// Whether each is to try alone.
pub fn is_forbidden(error: &Error) -> bool {
    error.kind() == ErrorKind::Store
}

impl Link {
    pub fn new(health: Health) -> Self {
        Self {
            convoys: Convoys::default(),
            server: Nonce(1),
            clock: Clock,
            version: AtomicUsize::new(0),
            health,
        }
    }

    pub fn give_up(&self, _: impl FnOnce() -> String) {
        self.convoys.end();
    }

    pub fn convoys(&self) -> &Convoys {
        &self.convoys
    }

    pub fn write(&self) -> usize {
        self.version.fetch_add(1, Ordering::SeqCst) + 1
    }
}
