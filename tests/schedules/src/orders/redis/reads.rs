//! A command and its answer.

use std::time::Duration;

use shuttle::future::yield_now;
use shuttle::rand::{Rng, thread_rng};

use super::connection::{Connection, Health};
use crate::base::clock::Millis;
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::Nonce;
use crate::store::Look;
use crate::sync::atomic::Ordering;
use crate::sync::time;

#[derive(Debug, Clone)]
pub struct Value {
    key: String,
    version: usize,
}

pub async fn mget(
    connection: &Connection,
    budget: Duration,
    keys: impl Iterator<Item = &str>,
) -> Result<Vec<Value>, Error> {
    let keys: Vec<_> = keys.map(str::to_owned).collect();
    let late = match connection.health {
        // The fewer steps there are, the sooner the one order in which something is missed is found.
        Health::Stuck => 0,
        _ => thread_rng().gen_range(0..3),
    };
    for _ in 0..late {
        yield_now().await;
    }
    if connection.health != Health::Well {
        match thread_rng().gen_range(0..6) {
            0 => return Err(Error::new(ErrorKind::Store, "refused")),
            1 => return Err(Error::unavailable("away")),
            2 if connection.health == Health::Late => time::sleep(budget * 2).await,
            3.. if connection.health == Health::Stuck => std::future::pending().await,
            _ => {}
        }
    }
    let version = connection.version.load(Ordering::SeqCst);
    let values = keys.into_iter().map(|key| Value { key, version }).collect();
    yield_now().await;
    Ok(values)
}

#[derive(Clone, Copy)]
pub struct Generation;

pub fn generation(_: &Value) -> Option<Generation> {
    Some(Generation)
}

pub struct GenerationSet;

impl GenerationSet {
    pub fn of(_: Nonce, _: impl IntoIterator<Item = Generation>) -> Self {
        Self
    }

    pub fn is_misplaced(&self, _: &Look) -> bool {
        false
    }
}

#[derive(Clone)]
pub struct StoredValue(Value);

impl StoredValue {
    pub fn of(value: Value) -> Self {
        Self(value)
    }

    /// So large that soon not all of those who have queued may travel together.
    pub fn len(&self) -> usize {
        4 << 20
    }

    pub fn look(self, _: &str, _: &GenerationSet, _: Millis) -> Look {
        let Value { key, version } = self.0;
        Look { key, version }
    }
}
