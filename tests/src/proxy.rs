//! A proxy that delays, drops, reorders or cuts traffic on request.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::frames::Frames;

/// How a [`Proxy`] handles the data that it receives. A new mode also applies to open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    Pass,
    /// Each piece passes after this long.
    Delay(Duration),
    /// Everything waits until another mode is set.
    Hold,
    /// The server's answers wait until another mode is set; requests pass.
    HoldAnswers,
    /// Requests are dropped: the server gets none.
    SwallowRequests,
    /// Answers are dropped: the server gets the requests, and the client gets no answer.
    SwallowAnswers,
    /// The client sees the end of the answers, and the server still gets its requests.
    HalfClose,
    /// Each request gets the answer to the one before it, for as long as its connection lasts:
    /// another mode does not bring the right order back. For servers that speak RESP; pushes keep
    /// their places.
    OffByOne,
    /// Connections are closed, new ones at once.
    Cut,
}

/// A TCP proxy on a loopback port, on a thread of its own: a test may block without stopping it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode_epoch: watch::Sender<ModeEpoch>,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug)]
struct ModeEpoch {
    mode: Mode,
    /// Connections of an earlier one are closed.
    epoch: usize,
    /// Nothing passes from this address.
    refused: Option<IpAddr>,
}

#[derive(Debug)]
struct State {
    /// The server's port.
    server: AtomicU16,
    accepted: AtomicUsize,
    held: AtomicUsize,
    passed: AtomicUsize,
    tickets: Semaphore,
    injectors: Mutex<Vec<mpsc::UnboundedSender<Vec<u8>>>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            server: AtomicU16::new(0),
            accepted: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            passed: AtomicUsize::new(0),
            tickets: Semaphore::new(0),
            injectors: Mutex::default(),
        }
    }
}

impl Proxy {
    /// A proxy in front of the server at loopback port `server`, which need not be there yet.
    ///
    /// # Panics
    ///
    /// When there is no port, or no thread, to be had.
    pub fn start(server: u16) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        listener
            .set_nonblocking(true)
            .expect("a listener can be made non-blocking");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime for the proxy");
        let (mode_epoch, changes) = watch::channel(ModeEpoch {
            mode: Mode::Pass,
            epoch: 0,
            refused: None,
        });
        let (stop, stopped) = oneshot::channel();
        let state = Arc::new(State::default());
        state.server.store(server, Ordering::SeqCst);
        let for_thread = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener for the runtime");
                tokio::select! {
                    () = accept(listener, changes, for_thread) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            mode_epoch,
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The port a client connects to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// New connections lead to the server at this port, as after a failover.
    pub fn lead_to(&self, server: u16) {
        self.state.server.store(server, Ordering::SeqCst);
    }

    /// From now on, `mode`.
    pub fn set(&self, mode: Mode) {
        self.mode_epoch
            .send_modify(|mode_epoch| mode_epoch.mode = mode);
    }

    /// From now on `mode`, for new connections; those that are open are closed. After something was
    /// swallowed nothing else is possible between two real hosts: what arrives on a connection is
    /// without a gap.
    pub fn cut_then(&self, mode: Mode) {
        self.mode_epoch.send_modify(|mode_epoch| {
            mode_epoch.mode = mode;
            mode_epoch.epoch += 1;
        });
    }

    /// From now on connections from this address are closed, and no others.
    pub fn refuse(&self, address: Option<IpAddr>) {
        self.mode_epoch
            .send_modify(|mode_epoch| mode_epoch.refused = address);
    }

    /// Lets the piece at the gate of [`Mode::Hold`] or [`Mode::HoldAnswers`] pass, and holds what
    /// comes behind it.
    pub fn pass_one(&self) {
        self.state.tickets.add_permits(1);
    }

    /// How many pieces have passed by [`pass_one`](Self::pass_one).
    pub fn passed(&self) -> usize {
        self.state.passed.load(Ordering::SeqCst)
    }

    /// Sends these bytes to the server as if the client had, on every open connection, behind what
    /// the client has sent.
    pub fn inject(&self, bytes: &[u8]) {
        for injector in self.state.injectors.lock().expect("sound").iter() {
            // The connection may have ended.
            let _ended = injector.send(bytes.to_vec());
        }
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// How many pieces wait at the gate of [`Mode::Hold`] and [`Mode::HoldAnswers`] right now.
    pub fn held(&self) -> usize {
        self.state.held.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, changes: watch::Receiver<ModeEpoch>, state: Arc<State>) {
    while let Ok((client, from)) = listener.accept().await {
        state.accepted.fetch_add(1, Ordering::SeqCst);
        let (changes, state) = (changes.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let ModeEpoch {
                mode,
                epoch,
                refused,
            } = *changes.borrow();
            if mode == Mode::Cut || refused == Some(from.ip()) {
                return;
            }
            let client_ip = from.ip();
            let proxied = ProxiedConnection {
                changes,
                epoch,
                client_ip,
            };
            let server = state.server.load(Ordering::SeqCst);
            let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
                return;
            };
            let _both = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let (injector, injected) = mpsc::unbounded_channel();
            state.injectors.lock().expect("sound").push(injector);
            // The server's pieces are never injected; its channel stays empty.
            let (_idle, nothing) = mpsc::unbounded_channel();
            let (request, answer) = (Direction::Request, Direction::Answer);
            tokio::join!(
                pump(
                    request,
                    from_client,
                    to_server,
                    proxied.clone(),
                    injected,
                    &state
                ),
                pump(answer, from_server, to_client, proxied, nothing, &state),
            );
        });
    }
}

/// The mode, as a connection sees it.
#[derive(Clone)]
struct ProxiedConnection {
    changes: watch::Receiver<ModeEpoch>,
    epoch: usize,
    client_ip: IpAddr,
}

impl ProxiedConnection {
    fn fate(&mut self, direction: Direction) -> Fate {
        let ModeEpoch {
            mode,
            epoch,
            refused,
        } = *self.changes.borrow_and_update();
        if epoch == self.epoch && refused != Some(self.client_ip) {
            direction.fate(mode)
        } else {
            Fate::End
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

/// The treatment of a piece of data, by the mode and its direction.
enum Fate {
    Pass,
    Delay(Duration),
    Hold,
    Swallow,
    Shift,
    End,
}

impl Direction {
    fn fate(self, mode: Mode) -> Fate {
        match (mode, self) {
            (Mode::Delay(time), _) => Fate::Delay(time),
            (Mode::Hold, _) | (Mode::HoldAnswers, Self::Answer) => Fate::Hold,
            (Mode::SwallowRequests, Self::Request) | (Mode::SwallowAnswers, Self::Answer) => {
                Fate::Swallow
            }
            (Mode::Cut, _) | (Mode::HalfClose, Self::Answer) => Fate::End,
            (Mode::OffByOne, Self::Answer) => Fate::Shift,
            _ => Fate::Pass,
        }
    }
}

/// Moves pieces until one side ends or the mode says so. Dropping a writer closes its direction.
async fn pump(
    direction: Direction,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut proxied: ProxiedConnection,
    mut injected: mpsc::UnboundedReceiver<Vec<u8>>,
    state: &State,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut answers = AnswerStream::default();
    'pieces: loop {
        let length = tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            },
            Some(bytes) = injected.recv() => {
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
                continue;
            }
            changed = proxied.changes.changed() => {
                if changed.is_err() || matches!(proxied.fate(direction), Fate::End) {
                    return;
                }
                continue;
            }
        };
        loop {
            let fate = proxied.fate(direction);
            match fate {
                Fate::Pass => break,
                Fate::Shift => {
                    answers.is_off = true;
                    break;
                }
                Fate::Swallow => continue 'pieces,
                Fate::End => return,
                Fate::Delay(time) => tokio::select! {
                    () = tokio::time::sleep(time) => break,
                    changed = proxied.changes.changed() => if changed.is_err() { return },
                },
                Fate::Hold => {
                    state.held.fetch_add(1, Ordering::SeqCst);
                    let has_ticket = tokio::select! {
                        ticket = state.tickets.acquire() => {
                            ticket.expect("never closed").forget();
                            true
                        }
                        changed = proxied.changes.changed() => {
                            if changed.is_err() {
                                return;
                            }
                            false
                        }
                    };
                    state.held.fetch_sub(1, Ordering::SeqCst);
                    if has_ticket {
                        state.passed.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                }
            }
        }
        let written = match direction {
            Direction::Request => to.write_all(&buffer[..length]).await,
            Direction::Answer => match answers.pass(&buffer[..length]) {
                Passed::Same => to.write_all(&buffer[..length]).await,
                Passed::Other(other) => to.write_all(&other).await,
                Passed::Lost => return,
            },
        };
        if written.is_err() {
            return;
        }
    }
}

/// The answers of a connection, and whether they come one too late.
#[derive(Default)]
struct AnswerStream {
    frames: Frames,
    /// The last answer of the server.
    last: Vec<u8>,
    is_off: bool,
    is_shifting: bool,
}

/// The part of a piece that the client gets.
enum Passed {
    Same,
    Other(Vec<u8>),
    /// It can't be told where answers end, and part of one is missing.
    Lost,
}

impl AnswerStream {
    fn pass(&mut self, piece: &[u8]) -> Passed {
        // An answer of which the client has the beginning gets to its end first.
        self.is_shifting |= self.is_off && self.frames.is_between() && !self.last.is_empty();
        let Some(frames) = self.frames.feed(piece) else {
            return if self.is_shifting {
                Passed::Lost
            } else {
                Passed::Same
            };
        };
        let mut other = Vec::new();
        for frame in frames {
            if frame.is_push {
                other.extend(frame.bytes);
            } else {
                other.extend(std::mem::replace(&mut self.last, frame.bytes));
            }
        }
        if self.is_shifting {
            Passed::Other(other)
        } else {
            Passed::Same
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Instant;

    use super::*;
    use crate::eventually;

    const SOON: Duration = Duration::from_secs(10);

    /// Answers each byte with the next one, for ever.
    async fn server() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while let Ok(byte) = stream.read_u8().await {
                        if stream.write_u8(byte + 1).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        port
    }

    async fn connected() -> (Proxy, TcpStream) {
        let proxy = Proxy::start(server().await);
        let mut client = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .expect("a connection");
        assert_eq!(ask(&mut client, 1).await, 2);
        (proxy, client)
    }

    async fn ask(client: &mut TcpStream, byte: u8) -> u8 {
        client.write_u8(byte).await.expect("a request");
        client.read_u8().await.expect("an answer")
    }

    #[tokio::test]
    async fn delays() {
        let (proxy, mut client) = connected().await;
        proxy.set(Mode::Delay(Duration::from_millis(20)));
        let start = Instant::now();
        assert_eq!(ask(&mut client, 5).await, 6);
        assert!(
            start.elapsed() >= Duration::from_millis(40),
            "there and back"
        );
        assert_eq!(proxy.accepted(), 1);
    }

    #[tokio::test]
    async fn holds_until_released() {
        let (proxy, mut client) = connected().await;
        for (mode, released) in [
            (Mode::Hold, Mode::Pass),
            (Mode::HoldAnswers, Mode::Delay(Duration::ZERO)),
        ] {
            proxy.set(mode);
            client.write_u8(5).await.expect("a request");
            eventually(SOON, async || proxy.held() == 1).await;
            let nothing = client.try_read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(nothing, Err(ErrorKind::WouldBlock));
            proxy.set(released);
            assert_eq!(client.read_u8().await.expect("an answer"), 6);
            assert_eq!(proxy.held(), 0);
        }
    }

    #[tokio::test]
    async fn swallows_requests_or_answers() {
        let (proxy, mut client) = connected().await;
        for mode in [Mode::SwallowRequests, Mode::SwallowAnswers] {
            proxy.set(mode);
            client.write_u8(50).await.expect("a request");
            // The next request must not reach the proxy in one piece with the swallowed one.
            let silence = tokio::time::timeout(Duration::from_millis(50), client.read_u8()).await;
            assert!(silence.is_err(), "{mode:?} answered {silence:?}");
            proxy.set(Mode::Pass);
            assert_eq!(ask(&mut client, 7).await, 8);
        }
    }

    #[tokio::test]
    async fn half_closes() {
        let (proxy, mut client) = connected().await;
        proxy.set(Mode::HalfClose);
        let end = client.read_u8().await.map_err(|error| error.kind());
        assert_eq!(end, Err(ErrorKind::UnexpectedEof));
        client.write_u8(1).await.expect("the other half is open");
    }

    #[tokio::test]
    async fn closes_what_is_open_and_passes_what_comes() {
        let (proxy, mut client) = connected().await;
        proxy.set(Mode::SwallowAnswers);
        client.write_u8(50).await.expect("a request");
        proxy.cut_then(Mode::Pass);
        assert!(client.read_u8().await.is_err());
        let mut again = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .expect("a connection");
        assert_eq!(ask(&mut again, 3).await, 4);
    }

    #[tokio::test]
    async fn cuts_and_accepts_again() {
        let (proxy, mut client) = connected().await;
        proxy.set(Mode::Cut);
        assert!(client.read_u8().await.is_err());
        let mut late = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .expect("a connection");
        assert!(late.read_u8().await.is_err());
        proxy.set(Mode::Pass);
        let mut again = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .expect("a connection");
        assert_eq!(ask(&mut again, 3).await, 4);
        assert_eq!(proxy.accepted(), 3);
    }

    /// Answers each line with itself, as RESP texts do.
    async fn echo() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut from, mut to) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
            }
        });
        port
    }

    #[tokio::test]
    async fn answers_are_off_by_one_until_the_connection_ends() {
        let proxy = Proxy::start(echo().await);
        let connect = async || {
            let stream = TcpStream::connect(("127.0.0.1", proxy.port())).await;
            stream.expect("a connection")
        };
        let ask = async |client: &mut TcpStream, text: &[u8; 4]| {
            client.write_all(text).await.expect("a request");
            let mut answer = [0; 4];
            client.read_exact(&mut answer).await.expect("an answer");
            answer
        };
        let mut client = connect().await;
        assert_eq!(&ask(&mut client, b"+1\r\n").await, b"+1\r\n");
        proxy.set(Mode::OffByOne);
        assert_eq!(&ask(&mut client, b"+2\r\n").await, b"+1\r\n");
        assert_eq!(&ask(&mut client, b"+3\r\n").await, b"+2\r\n");
        proxy.set(Mode::Pass);
        assert_eq!(&ask(&mut client, b"+4\r\n").await, b"+3\r\n");
        let mut other = connect().await;
        assert_eq!(&ask(&mut other, b"+5\r\n").await, b"+5\r\n");
    }
}
