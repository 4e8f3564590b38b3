//! Reads many keys with one command, without transferring oversized values.

use std::time::Duration;

pub(crate) use redis::Value;
use redis::{Cmd, Pipeline};

use super::super::connection::Connection;
use super::super::connection::errors::says_away;
use super::super::limits::READ_LIMIT;
use super::super::reply::text;
use super::super::sent::Sent;
use crate::base::error::{Error, ErrorKind, shortened};

const NAME: &str = "MGET";

/// Reads the values of these keys.
pub(crate) async fn mget(
    connection: &Connection,
    budget: Duration,
    keys: impl Iterator<Item = &str> + Clone,
) -> Result<Vec<Value>, Error> {
    let (count, bytes) = keys
        .clone()
        .fold((0, 0), |(count, bytes), key| (count + 1, bytes + key.len()));
    let mut mget = Cmd::with_capacity(1 + count, NAME.len() + bytes);
    mget.arg(NAME);
    for key in keys.clone() {
        mget.arg(key);
    }
    let sent = Sent::now(budget);
    let unanswered = Unanswered::new(connection, sent, keys.clone());
    let answer = connection.mget(sent, &mget).await;
    let values = unanswered.ended(answer)?;
    set_oversized_aside(connection, keys, &values);
    Ok(values)
}

/// Sets the keys aside whose values are larger than the cache stores.
pub(crate) fn set_oversized_aside<'k>(
    connection: &Connection,
    keys: impl Iterator<Item = &'k str>,
    values: &[Value],
) {
    for (key, value) in keys.zip(values) {
        if text(value).is_some_and(|bytes| bytes.len() > READ_LIMIT) {
            connection.set_aside().is_oversized(key);
        }
    }
}

/// If it is dropped without an answer after a good part of the budget, the keys become suspects:
/// the value of one of them may be too large. If the connection was lost before that, one of them
/// may be the reason.
pub(crate) struct Unanswered<'l, 'k, K: Iterator<Item = &'k str> + Clone> {
    connection: &'l Connection,
    keys: K,
    sent: Sent,
    is_over: bool,
}

impl<'l, 'k, K: Iterator<Item = &'k str> + Clone> Unanswered<'l, 'k, K> {
    /// Has to be made before the command is sent.
    pub(crate) fn new(connection: &'l Connection, sent: Sent, keys: K) -> Self {
        Self {
            connection,
            keys,
            sent,
            is_over: false,
        }
    }

    /// Has to be called with the answer.
    pub(crate) fn ended<T>(mut self, answer: Result<T, Error>) -> Result<T, Error> {
        self.is_over = !answer
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Unavailable && !says_away(error));
        answer
    }
}

impl<'k, K: Iterator<Item = &'k str> + Clone> Drop for Unanswered<'_, 'k, K> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if self.sent.is_late() {
            self.connection.set_aside().suspect(self.keys.clone());
        } else if !self.connection.is_usable() {
            self.connection.set_aside().were_lost(self.keys.clone());
        }
    }
}

/// Like [`mget`], but for keys that are set aside it asks for the length first. A value that is
/// larger than the cache stores is not read.
pub(crate) async fn mget_checked(
    connection: &Connection,
    budget: Duration,
    keys: impl Iterator<Item = &str> + Clone,
) -> Result<Vec<Value>, Error> {
    let aside = connection.set_aside().among(keys.clone());
    match aside.is_empty() {
        true => mget(connection, budget, keys).await,
        // Boxed, so that the future of a hit does not hold memory for it.
        false => Box::pin(mget_aside(connection, budget, keys, aside)).await,
    }
}

/// Asks for the length of each of these keys.
///
/// Reads the byte behind the longest allowed value. `STRLEN` would need one more permission.
pub(crate) fn lengths<'k>(keys: impl Iterator<Item = &'k str>) -> Pipeline {
    let mut lengths = redis::pipe();
    for key in keys {
        let command = lengths.cmd("GETRANGE").arg(key);
        command.arg(READ_LIMIT).arg(READ_LIMIT);
    }
    lengths.ignore_errors();
    lengths
}

/// Whether a key's value is larger than the cache stores, by the answer to [`lengths`].
pub(crate) fn is_oversized(connection: &Connection, key: &str, answer: &Value) -> bool {
    let is_oversized = text(answer).is_some_and(|byte| !byte.is_empty());
    match is_oversized {
        true => connection.set_aside().is_oversized(key),
        false => connection.set_aside().is_ordinary(key),
    }
    is_oversized
}

/// Reads one key, and finds out whether the connection ends with that.
pub(crate) async fn read_alone(
    connection: &Connection,
    budget: Duration,
    key: &str,
) -> Result<(), Error> {
    let mut read = Cmd::new();
    read.arg(NAME).arg(key);
    let answer = connection.mget(Sent::now(budget), &read).await;
    match &answer {
        Ok(_) => connection.set_aside().is_harmless(key),
        Err(_) if !connection.is_usable() => {
            let ended = connection.set_aside().has_ended(key, connection.number);
            if let Some(hold) = ended {
                let seconds = hold.as_secs();
                tracing::warn!(
                    key = shortened(key),
                    seconds,
                    "connections end when the value under this key is read, so it is not read for \
                     a while; is `client-output-buffer-limit normal` set, or \
                     `maxmemory-clients`?"
                );
            }
        }
        // The budget is over, or the answer is an error.
        Err(_) => {}
    }
    answer.map(drop)
}

/// The read if some of the keys are set aside.
pub(crate) async fn mget_aside<'k>(
    connection: &Connection,
    budget: Duration,
    keys: impl Iterator<Item = &'k str> + Clone,
    aside: Vec<&'k str>,
) -> Result<Vec<Value>, Error> {
    let (mut oversized, aside): (Vec<_>, Vec<_>) = aside
        .into_iter()
        .partition(|key| connection.set_aside().is_held(key));
    let answers = match aside.is_empty() {
        true => Vec::new(),
        false => {
            let lengths = lengths(aside.iter().copied());
            let answers = connection.ask(budget, async |multiplexed| {
                lengths.query_async(multiplexed).await
            });
            connection.counted(answers.await?, aside.len())?
        }
    };
    for (key, answer) in aside.into_iter().zip(&answers) {
        if is_oversized(connection, key, answer) {
            oversized.push(key);
        } else if connection.set_aside().is_doubtful(key) {
            read_alone(connection, budget, key).await?;
        }
    }
    let rest = keys.clone().filter(|key| !oversized.contains(key));
    let values = match rest.clone().next() {
        Some(_) => mget(connection, budget, rest.clone()).await?,
        None => Vec::new(),
    };
    let mut values = connection.counted(values, rest.count())?.into_iter();
    let value_of = |key| match oversized.contains(&key) {
        // Handled like any other foreign value.
        true => Value::BulkString(Vec::new()),
        false => values.next().unwrap_or(Value::Nil),
    };
    Ok(keys.map(value_of).collect())
}
