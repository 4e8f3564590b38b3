//! Serves HTTP to clients that may be slow, silent, or too many.
//!
//! Poem's own server limits neither the time for a request's headers nor the number of connections,
//! and retries at once if `accept` fails. So this module has its own loop around hyper's
//! connection. It speaks HTTP/1.1 only: hyper limits neither idle time nor headers of an HTTP/2
//! connection, and without TLS no browser uses HTTP/2.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use poem::http;
use poem::http::uri::Scheme;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Endpoint, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use crate::mutation;

/// The pause after a failed `accept`, for instance for lack of file descriptors. The client stays
/// in the queue, so an immediate retry would fail again and use a whole core.
const PAUSE: Duration = Duration::from_millis(200);

/// Limits for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most connections at a time; others wait in the system's queue.
    pub connections: usize,
    /// How long a client may take for a request's headers, which includes the time that a
    /// connection is idle before them, and for each piece of an answer that it reads. The
    /// connection is closed then. (The limit on bodies is in the endpoints, which answer 408.)
    pub client_timeout: Duration,
    /// How long requests under way may take to finish once `stop` has resolved.
    pub drain: Duration,
}

/// Serves `endpoint` on `listener` until `stop` resolves, and then finishes what is under way.
///
/// # Errors
/// When the listener has no address.
pub async fn serve<E>(
    listener: TcpListener,
    endpoint: E,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> io::Result<()>
where
    E: Endpoint<Output = Response> + 'static,
{
    let local = listener.local_addr()?;
    let endpoint = Arc::new(endpoint);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    {
        // One future for each connection, kept while others end, so that a pause is not cut short.
        let next = accept(&listener);
        tokio::pin!(next);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_ended) = connections.join_next() => {}
                (stream, remote) = &mut next, if connections.len() < limits.connections => {
                    let endpoint = Arc::clone(&endpoint);
                    let watcher = graceful.watcher();
                    connections.spawn(connection(stream, (local, remote), endpoint, limits, watcher));
                    next.set(accept(&listener));
                }
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "requests did not finish in time and are dropped"
        );
    }
    connections.shutdown().await;
    Ok(())
}

/// The next connection. Errors that concern only one client are ignored. After others, such as too
/// many open files, it pauses before it tries again.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut is_told = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%error, "connections can't be accepted at the moment");
                }
                match mutation::is_active("demo-accept-without-pause") {
                    true => tokio::task::yield_now().await,
                    false => tokio::time::sleep(PAUSE).await,
                }
            }
        }
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}

/// Answers the requests of one connection.
async fn connection<E, S>(
    stream: S,
    (local, remote): (SocketAddr, SocketAddr),
    endpoint: Arc<E>,
    limits: Limits,
    watcher: Watcher,
) where
    E: Endpoint<Output = Response> + 'static,
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let service = service_fn(move |request: http::Request<Incoming>| {
        let endpoint = Arc::clone(&endpoint);
        let local = LocalAddr(local.into());
        let remote = RemoteAddr(remote.into());
        async move {
            let request = Request::from((request, local, remote, Scheme::HTTP));
            let response = endpoint.get_response(request).await;
            Ok::<http::Response<_>, Infallible>(response.into())
        }
    });
    // Reading has no such limit: hyper also reads while an answer is being sent, to notice that the
    // client has gone.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.client_timeout));
    let is_limited = !mutation::is_active("demo-headers-unbounded");
    let header_limit = Some(limits.client_timeout).filter(|_| is_limited);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_limit)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use poem::endpoint::make_sync;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::Instant;

    use super::*;

    const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";

    fn limits(connections: usize) -> Limits {
        Limits {
            connections,
            client_timeout: CLIENT_TIMEOUT,
            drain: CLIENT_TIMEOUT,
        }
    }

    /// A client of one connection, whose requests are answered with `body` as long as the second
    /// value lives.
    fn connect(body: &'static str, buffer: usize) -> (DuplexStream, GracefulShutdown) {
        let (client, server) = tokio::io::duplex(buffer);
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        let endpoint = Arc::new(make_sync(move |_| Response::builder().body(body)));
        let graceful = GracefulShutdown::new();
        let watcher = graceful.watcher();
        tokio::spawn(connection(
            server,
            (here, here),
            endpoint,
            limits(1),
            watcher,
        ));
        (client, graceful)
    }

    /// The bytes until the server closes the connection, and how long that took.
    async fn until_closed(client: &mut DuplexStream) -> (String, Duration) {
        let start = Instant::now();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        (answer, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn headers_that_drip_are_cut_off_in_time() {
        let (mut client, _alive) = connect("hello", 1024);
        let start = Instant::now();
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        // One byte per second never completes the headers, and does not extend the time for them
        // either.
        while client.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(start.elapsed() < 2 * CLIENT_TIMEOUT, "still connected");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_closed_before_and_after_a_request() {
        let (mut silent, _alive) = connect("hello", 1024);
        assert_eq!(
            until_closed(&mut silent).await,
            (String::new(), CLIENT_TIMEOUT)
        );

        let (mut client, _alive) = connect("hello", 1024);
        tokio::time::sleep(CLIENT_TIMEOUT - Duration::from_secs(1)).await;
        client.write_all(REQUEST).await.unwrap();
        let (answer, time) = until_closed(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"));
        assert_eq!(time, CLIENT_TIMEOUT, "a request starts the time anew");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_the_connection() {
        const BODY: &str = match std::str::from_utf8(&[b'x'; 100_000]) {
            Ok(body) => body,
            Err(_) => "",
        };
        let (mut client, _alive) = connect(BODY, 1024);
        client.write_all(REQUEST).await.unwrap();
        tokio::time::sleep(2 * CLIENT_TIMEOUT).await;
        let (answer, _) = until_closed(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.len() < BODY.len(), "all of it came");
    }

    #[tokio::test]
    async fn no_more_connections_are_served_than_are_allowed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let endpoint = make_sync(|_| Response::builder().body("hello"));
        let server = tokio::spawn(serve(listener, endpoint, limits(1), async {
            drop(stopped.await);
        }));
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(REQUEST).await.unwrap();
        let mut byte = [0];
        first.read_exact(&mut byte).await.unwrap();

        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(200), second.read(&mut byte));
        assert!(waiting.await.is_err(), "the second waits for its turn");
        drop(first);
        second.read_exact(&mut byte).await.unwrap();

        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }
}
