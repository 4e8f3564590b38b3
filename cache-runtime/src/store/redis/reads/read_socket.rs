//! A connection that only reads.
//!
//! The client's connection is a task with a queue, through which each command goes by itself. A
//! read over it costs the process about as much as all the rest of a hit (`docs/benchmarks`). Over
//! this one the task that gathers reads also writes and reads the socket: what is queued while the
//! task does something else is one command.
//!
//! It speaks RESP2, since it needs no push messages. It has no TLS.

use std::io::{ErrorKind as IoErrorKind, Result as IoResult};
use std::net::SocketAddr;

use redis::{Cmd, Value};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::super::connection::dial::{self, identity_in};
use super::replies::{Malformed, Replies, Reply};
use crate::base::error::Error;
use crate::base::nonce::Nonce;
use crate::config::RedisConfig;

/// A larger buffer is shrunk to this size once it was sent.
const KEPT: usize = 1 << 16;

pub(crate) struct ReadSocket {
    stream: TcpStream,
    /// The bytes that are still to be sent.
    unsent: Vec<u8>,
    pub(super) replies: Replies,
}

impl ReadSocket {
    /// Connects and logs in to the server of this identity.
    ///
    /// # Errors
    /// If that is not possible, or if another server answers.
    pub(super) async fn open(
        config: &RedisConfig,
        address: SocketAddr,
        identity: Nonce,
    ) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await.map_err(lost)?;
        dial::set_options(&stream).map_err(lost)?;
        let mut socket = Self {
            stream,
            unsent: Vec::new(),
            replies: Replies::default(),
        };
        for command in dial::login(config) {
            socket.ask(&command).await?;
        }
        let info = match socket.ask(&redis::cmd("INFO")).await? {
            Value::BulkString(info) => info,
            _ => return Err(malformed(Malformed)),
        };
        let found = identity_in(&String::from_utf8_lossy(&info));
        if found != Some(identity)
            && !crate::base::mutation::is_active("own-connection-to-any-server")
        {
            return Err(Error::unavailable("another server answers at this address"));
        }
        Ok(socket)
    }

    async fn ask(&mut self, command: &Cmd) -> Result<Value, Error> {
        command.write_packed_command(&mut self.unsent);
        loop {
            self.exchange().await.map_err(lost)?;
            match self.replies.next().map_err(malformed)? {
                Some(Reply::Single(value)) => return Ok(value),
                Some(Reply::Refused(error)) => return Err(Error::unavailable(error)),
                Some(Reply::Strings(_)) => return Err(malformed(Malformed)),
                None => {}
            }
        }
    }

    /// Adds `MGET` of so many keys to what is sent next.
    pub(super) fn mget<'k>(&mut self, count: usize, keys: impl Iterator<Item = &'k str>) {
        let head = |unsent: &mut Vec<u8>, kind: u8, number: usize| {
            unsent.push(kind);
            unsent.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            unsent.extend_from_slice(b"\r\n");
        };
        head(&mut self.unsent, b'*', 1 + count);
        self.unsent.extend_from_slice(b"$4\r\nMGET\r\n");
        for key in keys {
            head(&mut self.unsent, b'$', key.len());
            self.unsent.extend_from_slice(key.as_bytes());
            self.unsent.extend_from_slice(b"\r\n");
        }
    }

    /// Sends what the socket takes now.
    pub(super) fn send(&mut self) -> IoResult<()> {
        while !self.unsent.is_empty() {
            match self.stream.try_write(&self.unsent) {
                Ok(sent) if sent == self.unsent.len() => {
                    self.unsent.clear();
                    self.unsent.shrink_to(KEPT);
                }
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == IoErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the socket can be read or, if there is something to send, written; does it.
    ///
    /// It may be dropped: nothing that has arrived is lost.
    pub(super) async fn exchange(&mut self) -> IoResult<()> {
        self.send()?;
        let Self {
            stream,
            unsent,
            replies,
        } = self;
        let (mut reads, writes) = stream.split();
        let has_unsent = !unsent.is_empty();
        tokio::select! {
            biased;
            read = reads.read_buf(replies.room()) => {
                if read? == 0 {
                    return Err(IoErrorKind::UnexpectedEof.into());
                }
            }
            ready = writes.writable(), if has_unsent => ready?,
        }
        self.send()
    }
}

fn lost(error: std::io::Error) -> Error {
    Error::unavailable(error.to_string())
}

fn malformed(_: Malformed) -> Error {
    Error::unavailable("the peer does not answer as Redis does")
}
