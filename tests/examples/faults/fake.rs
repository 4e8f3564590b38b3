//! A server that lies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How it lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Whatever is asked, bytes that are no protocol.
    Garbage,
    /// It logs in as Redis does, and answers with other types, and other numbers of things, than
    /// were asked for.
    WrongTypes,
    /// It logs in as Redis does, and answers each read with an entry that breaks off, each script
    /// with success.
    HalfEntries,
}

pub(crate) struct Fake {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn start(port: u16, lie: Lie) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        listener.set_nonblocking(true).expect("non-blocking");
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        let until = Arc::clone(&until);
                        std::thread::spawn(move || serve(client, lie, &until));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Until one side has had enough.
fn serve(client: TcpStream, lie: Lie, stop: &AtomicBool) {
    let _blocking = client.set_nonblocking(false);
    let Ok(mut to_client) = client.try_clone() else {
        return;
    };
    let mut requests = BufReader::new(client);
    while let Some(words) = command(&mut requests) {
        let answer = match lie {
            Lie::Garbage => (0..64).map(|_| fastrand::u8(..)).collect(),
            _ => answer(&words, lie).into_bytes(),
        };
        if stop.load(Ordering::Relaxed) || to_client.write_all(&answer).is_err() {
            return;
        }
    }
}

/// `*2 $4 MGET $7 users:1`, each on a line of its own.
fn command(requests: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let number = |requests: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        requests.read_line(&mut line).ok()?;
        line.trim_end().get(1..)?.parse::<usize>().ok()
    };
    let words = number(requests)?;
    (0..words)
        .map(|_| {
            let length = number(requests)?;
            let mut word = vec![0; length + 2];
            requests.read_exact(&mut word).ok()?;
            Some(String::from_utf8_lossy(&word[..length]).into_owned())
        })
        .collect()
}

fn answer(words: &[String], lie: Lie) -> String {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    match (words[0].to_ascii_uppercase().as_str(), lie) {
        ("HELLO", _) => format!("%1\r\n{}:3\r\n", bulk("proto")),
        ("CLIENT" | "SELECT", _) => "+OK\r\n".into(),
        ("TIME", _) => format!("*2\r\n{}{}", bulk("1700000000"), bulk("0")),
        ("INFO", _) => {
            let lines = ["role:master", "run_id:0123", "master_replid:4567"];
            bulk(&(lines.join("\r\n") + "\r\n"))
        }
        ("MGET", Lie::HalfEntries) => {
            let entry = bulk("CRT1 e v j 0000000");
            format!("*{}\r\n{}", words.len() - 1, entry.repeat(words.len() - 1))
        }
        ("MGET", _) => "*2\r\n:17\r\n+seventeen\r\n".into(),
        (_, Lie::HalfEntries) => "+OK\r\n".into(),
        _ => "%1\r\n:1\r\n*1\r\n:2\r\n".into(),
    }
}
