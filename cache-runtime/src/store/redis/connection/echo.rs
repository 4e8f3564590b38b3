//! Asks whether a connection's answers belong to their commands (`sync_check.rs`).

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{RedisError, Value};

use super::super::reply::text;
use super::Connection;
use super::breaker::End;
use super::errors::unanswered;
use crate::base::error::{Error, shortened};
use crate::base::nonce::Nonce;
use crate::base::paused::PauseGuard;

impl Connection {
    /// An answer held an entry of another key. Returns once it is known that the entry really is
    /// stored under this key.
    ///
    /// # Errors
    /// If the connection was closed, because its answers belong to other commands.
    pub(crate) async fn check_sync(&self, key: &str, budget: Duration) -> Result<(), Error> {
        if crate::base::mutation::is_active("misplaced-not-checked") {
            return Ok(());
        }
        if crate::base::mutation::is_active("misplaced-ends-the-connection") {
            self.is_out_of_sync(key);
        }
        let found = self.state.sync_check.doubt();
        let _held = PauseGuard::for_at_most(budget);
        // An `ECHO` that is in flight already says nothing of this answer.
        let result =
            crate::base::time::timeout(budget * 2, self.state.sync_check.proven(found)).await;
        result.unwrap_or_else(|_| Err(unanswered(budget)))?;
        if !self.state.is_renaming_told.swap(true, Ordering::Relaxed) {
            let key = shortened(key);
            tracing::warn!(
                %key,
                "an entry is stored under a key that is not its own; such entries count as missing"
            );
        }
        Ok(())
    }

    fn is_out_of_sync(&self, why: &str) {
        self.state.end(End::Lost, || {
            format!("answers belong to other commands: {}", shortened(why))
        });
    }

    /// Sends `ECHO` whenever a check is needed. Runs beside the connection until it is closed.
    pub(crate) async fn check_sync_when_needed(&self, budget: Duration) -> Infallible {
        loop {
            let found = self.state.sync_check.wanted().await;
            match crate::base::time::timeout(budget, self.echo()).await {
                Ok(Ok(())) => self.state.sync_check.succeeded(found),
                Ok(Err(why)) => self.is_out_of_sync(&why),
                Err(_) => self.is_out_of_sync(&unanswered(budget).to_string()),
            }
            if !self.is_usable() {
                return std::future::pending().await;
            }
        }
    }

    /// Asks for a text that no other command returns.
    async fn echo(&self) -> Result<(), String> {
        let sent = Nonce::fresh().to_string();
        let mut echo = redis::cmd("ECHO");
        let mut multiplexed = self.multiplexed();
        match echo.arg(&sent).query_async::<Value>(&mut multiplexed).await {
            Ok(answer) if text(&answer) == Some(sent.as_bytes()) => Ok(()),
            Err(error) if is_refusal_of_echo(&error) => Ok(()),
            Ok(_) => Err("the answer to ECHO was another one".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Whether the server refuses this command, by its name. That proves as much: no other command of
/// this connection is refused with this text, and only one is in flight.
fn is_refusal_of_echo(error: &RedisError) -> bool {
    error
        .detail()
        .is_some_and(|detail| detail.to_ascii_lowercase().contains("echo"))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::runtime::Handle;

    use super::super::ConnectionState;
    use super::super::health::Health;
    use super::super::probe::Capabilities;
    use super::*;
    use crate::base::clock::{Millis, RemoteClock};
    use crate::base::error::ErrorKind;
    use crate::store::redis::reads::read_sockets::ReadSockets;
    use crate::store::redis::switches::SwitchList;

    const BUDGET: Duration = Duration::from_secs(5);

    /// How the server answers `ECHO`.
    #[derive(Clone, Copy)]
    enum Echo {
        Right,
        Other,
        Never,
    }

    /// Answers `ECHO` in this way, and any other command with `OK`.
    async fn server(echo: Echo) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut piece = vec![0; 1 << 12];
            while let Ok(length @ 1..) = stream.read(&mut piece).await {
                let text = String::from_utf8_lossy(&piece[..length]).into_owned();
                let answer = match (text.split_once("ECHO\r\n"), echo) {
                    (None, _) => "+OK\r\n".repeat(text.matches('*').count()),
                    (Some((_, text)), Echo::Right) => text.to_owned(),
                    (Some(_), Echo::Other) => "*1\r\n$1\r\n1\r\n".to_owned(),
                    (Some(_), Echo::Never) => String::new(),
                };
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        address
    }

    async fn connection(echo: Echo) -> Arc<Connection> {
        let address = server(echo).await;
        let client = redis::Client::open(format!("redis://{address}")).expect("an address");
        let multiplexed = client.get_multiplexed_async_connection().await;
        let switches = Arc::new(SwitchList::new(""));
        Arc::new(Connection {
            number: 0,
            multiplexed: multiplexed.expect("connected"),
            server: Nonce(1),
            history: None,
            epoch: Arc::default(),
            clock: RemoteClock::from_reading(Millis(1)),
            capabilities: Capabilities::default(),
            address,
            state: Arc::new(ConnectionState::default()),
            health: Health::new("@gen:probe", BUDGET, switches),
            round_trip: Duration::from_millis(1),
            home: Handle::current(),
            read_sockets: ReadSockets::default(),
        })
    }

    /// The results of a command that was answered after an entry of another key was found, and of
    /// the read that has found it. Both wait until the server has answered `ECHO`.
    async fn after_doubt(connection: &Arc<Connection>, budget: Duration) -> [Result<(), Error>; 2] {
        let spawn = |is_finder: bool| {
            let it = Arc::clone(connection);
            tokio::spawn(async move {
                match is_finder {
                    true => it.check_sync("users:1", BUDGET).await,
                    false => it.ask(BUDGET, async |_| Ok(())).await,
                }
            })
        };
        let finder = spawn(true);
        tokio::task::yield_now().await;
        let other = spawn(false);
        tokio::task::yield_now().await;
        assert!(!finder.is_finished() && !other.is_finished());
        let watching = tokio::spawn({
            let it = Arc::clone(connection);
            async move { it.check_sync_when_needed(budget).await }
        });
        let results = [finder.await.expect("ended"), other.await.expect("ended")];
        watching.abort();
        results
    }

    #[tokio::test]
    async fn answers_are_held_until_the_text_has_come_back() {
        let connection = connection(Echo::Right).await;
        for _ in 0..3 {
            let results = after_doubt(&connection, BUDGET).await;
            assert!(results.iter().all(Result::is_ok), "{results:?}");
            assert!(connection.is_usable());
        }
    }

    #[tokio::test]
    async fn another_answer_or_none_ends_the_connection() {
        for (echo, budget) in [
            (Echo::Other, BUDGET),
            (Echo::Never, Duration::from_millis(20)),
        ] {
            let connection = connection(echo).await;
            for result in after_doubt(&connection, budget).await {
                let error = result.expect_err("not served");
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            }
            assert!(!connection.is_usable());
        }
    }

    #[test]
    fn a_refusal_that_names_echo_is_its_answer() {
        let error = |text: &str| {
            let reply = redis::parse_redis_value(format!("-{text}\r\n").as_bytes());
            let extracted = reply.and_then(Value::extract_error);
            extracted.expect_err("an error was sent")
        };
        for refusal in [
            "NOPERM User app has no permissions to run the 'echo' command",
            "NOPERM this user has no permissions to run the 'echo' command or its subcommand",
            "ERR unknown command 'ECHO', with args beginning with: 'ab' ",
        ] {
            assert!(is_refusal_of_echo(&error(refusal)), "{refusal}");
        }
        for other in [
            "NOSCRIPT No matching script. Please use EVAL.",
            "NOPERM User app has no permissions to run the 'mget' command",
        ] {
            assert!(!is_refusal_of_echo(&error(other)), "{other}");
        }
    }
}
