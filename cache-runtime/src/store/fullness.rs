//! Whether a server takes no new entries, because its memory is full and it does not evict.
//!
//! Such a server answers reads and takes invalidations, so it stays in use. Its answers to leases
//! and fills tell that it is full.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::clock::{self, Instant};
use crate::base::error::Error;
use crate::base::unserved::Unserved;

/// How long a server counts as full after it has refused something. It has room now and then, when
/// an entry expires, and is full again with the next one.
const HOLDS: Duration = Duration::from_secs(5);

/// At most one line per this time is logged.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// The state of one server. All of its connections share it.
#[derive(Debug, Default)]
pub(crate) struct Fullness(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    refused: Option<Refused>,
    /// When it was logged.
    said: Option<Instant>,
    /// Whether the end has to be logged.
    is_open: bool,
}

#[derive(Debug)]
struct Refused {
    at: Instant,
    text: String,
}

impl Fullness {
    /// Notes that the server has refused to store something; returns the error for the caller.
    pub(crate) fn refused(&self, server: impl fmt::Display, error: Error) -> Error {
        let now = clock::now();
        let reason = error.to_string();
        let is_new = {
            let mut state = self.0.lock();
            let is_new = state.refused.is_none()
                && state
                    .said
                    .is_none_or(|at| now.saturating_duration_since(at) >= SAID_AGAIN);
            if is_new {
                (state.said, state.is_open) = (Some(now), true);
            }
            state.refused = Some(Refused {
                at: now,
                text: reason.clone(),
            });
            is_new
        };
        if is_new {
            tracing::warn!(
                %server,
                reason,
                "the cache's server is full and does not evict: nothing new is stored; what it has \
                 is served and invalidated"
            );
        }
        error.with_source(Unserved::Full)
    }

    /// Whether it has refused something, and has not been found to have room since.
    #[cfg(any(feature = "redis", test))]
    pub(crate) fn is_full(&self) -> bool {
        self.0.lock().refused.is_some()
    }

    /// Notes that it has room, or has refused nothing for a while.
    pub(crate) fn has_room(&self, server: impl fmt::Display) {
        let ended = {
            let mut state = self.0.lock();
            let now = clock::now();
            let is_past = |it: &Refused| now.saturating_duration_since(it.at) >= HOLDS;
            if !state.refused.as_ref().is_some_and(is_past) {
                return;
            }
            state.refused = None;
            std::mem::take(&mut state.is_open)
        };
        if ended {
            tracing::info!(%server, "the cache's server has room again");
        }
    }

    /// Why new entries are not stored.
    pub(crate) fn reason(&self) -> Option<String> {
        let state = self.0.lock();
        let Refused { text, .. } = state.refused.as_ref()?;
        Some(format!(
            "the server is full and does not evict, so nothing new is stored ({text})"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn it_counts_as_full_for_a_while_after_it_refused_something() {
        let fullness = Fullness::default();
        let refused = || Error::new(ErrorKind::Store, "OOM");
        fullness.has_room("server");
        assert!(!fullness.is_full() && fullness.reason().is_none());
        let error = fullness.refused("server", refused());
        assert_eq!(Unserved::of(&error), Some(Unserved::Full));
        assert_eq!(error.kind(), ErrorKind::Store);
        tokio::time::advance(HOLDS / 2).await;
        fullness.refused("server", refused());
        tokio::time::advance(HOLDS / 2).await;
        fullness.has_room("server");
        assert!(fullness.is_full(), "it was full a moment ago");
        assert!(fullness.reason().is_some_and(|it| it.contains("OOM")));
        tokio::time::advance(HOLDS).await;
        fullness.has_room("server");
        assert!(!fullness.is_full());
    }
}
