//! Runs the relay from one connection to the next.

use std::sync::Arc;
use std::time::Duration;

use super::relay::{CONNECT_TIMEOUT, Relay, RelayError};
use super::{followed, shared};
use crate::base::background::supervised;
use crate::base::clock;
use crate::engine::{Engine, WeakHandle};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Starts the relay of a cache that has an outbox.
pub(crate) fn start(engine: &Engine, cache: WeakHandle) {
    let (Some(config), Some(state)) = (&engine.config.outbox, &engine.outbox) else {
        return;
    };
    let relay = Relay {
        config: config.clone(),
        state: Arc::clone(state),
        freshness: engine.freshness.clone(),
        poll: match engine.freshness {
            Some(_) => config.poll.min(engine.config.local_max_staleness / 4),
            None => config.poll,
        },
        cache,
    };
    let run = move || relay.clone().run();
    engine.background.spawn(supervised("outbox", run));
}

impl Relay {
    async fn run(self) {
        let mut pause = FIRST_PAUSE;
        let mut warned = false;
        loop {
            let since = clock::now();
            let lost = self.session().await;
            self.state.disconnected();
            if matches!(lost, RelayError::Over) {
                return;
            }
            if !warned || matches!(lost, RelayError::Unusable(_)) && since.elapsed() > LAST_PAUSE {
                tracing::warn!(
                    table = self.table().channel(),
                    error = %lost,
                    "the outbox is not read by this process"
                );
            }
            // A connection that lasted is replaced at once.
            let has_lasted = since.elapsed() > LAST_PAUSE;
            pause = if has_lasted {
                FIRST_PAUSE
            } else {
                (pause * 2).min(LAST_PAUSE)
            };
            warned = !has_lasted;
            crate::base::time::sleep(pause).await;
        }
    }

    /// Reads the table over one connection, as long as it lasts.
    async fn session(&self) -> RelayError {
        #[cfg(feature = "outbox-sqlite")]
        if let crate::config::outbox::OutboxLocation::Sqlite(options) = &self.config.location {
            return super::sqlite::session(self, options).await;
        }
        let mut connection = match crate::base::time::timeout(CONNECT_TIMEOUT, self.connect()).await
        {
            Ok(Ok(connection)) => connection,
            Ok(Err(lost)) => return lost,
            Err(_) => return RelayError::TimedOut,
        };
        self.state.connected();
        tracing::debug!(table = self.table().channel(), "the outbox is read");
        let ended = match &self.freshness {
            None => shared::run(self, &mut connection).await,
            Some(freshness) => {
                let connection_id = freshness.announce();
                freshness.open(connection_id);
                let ended = followed::run(self, &mut connection, freshness, connection_id).await;
                freshness.close(connection_id);
                ended
            }
        };
        match ended {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }
}
