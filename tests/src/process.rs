//! One child process: its lines, its signals, and its certain end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::wait::poll;

/// The lines a process has written to one of its streams so far.
#[derive(Clone, Debug, Default)]
pub struct Output(Arc<Mutex<Vec<String>>>);

impl Output {
    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// Whether a line so far contains `text`.
    pub fn contains(&self, text: &str) -> bool {
        self.lock().iter().any(|line| line.contains(text))
    }

    /// Waits until a line contains `text`: a line is read a moment after it is written, and the two
    /// streams of a process are read independently.
    ///
    /// # Panics
    /// When no line contains it within 10 s; shows the lines.
    pub fn wait_for(&self, text: &str) {
        let seen = poll(Duration::from_secs(10), || {
            self.contains(text).then_some(())
        });
        assert!(
            seen.is_some(),
            "no line contains {text:?}: {:#?}",
            self.lines()
        );
    }

    /// How many lines so far contain `text`.
    pub fn count(&self, text: &str) -> usize {
        let lines = self.lock();
        lines.iter().filter(|line| line.contains(text)).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self, stream: impl Read + Send + 'static) {
        let output = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                output.lock().push(line);
            }
        });
    }
}

/// A running child of this process.
///
/// Dropping it sends the signal it was started with and waits for its end. When this process dies
/// first (Ctrl-C, a time limit, a static that is never dropped), a shell that waits for our end of
/// a pipe to close does the same.
#[derive(Debug)]
pub struct Process {
    child: Child,
    reaper: Option<Child>,
    last_signal: Signal,
    stdout: Output,
    stderr: Output,
}

/// Signals the child `$1` with `$2` once nobody holds the other end of its input, waits up to ten
/// seconds for its end, and removes the directory `$3` if one is named.
const REAPER: &str = r#"
    read -r _
    kill -s "$2" "$1" 2>/dev/null
    tries=0
    while [ "$tries" -lt 100 ] && kill -0 "$1" 2>/dev/null; do sleep 0.1; tries=$((tries + 1)); done
    [ -z "$3" ] || rm -rf "$3"
"#;

impl Process {
    /// Starts `command`, which ends with `last_signal`; if this process dies first, `directory`
    /// goes too.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(
        command: &mut Command,
        last_signal: Signal,
        directory: Option<&Path>,
    ) -> std::io::Result<Self> {
        // A group of its own: Ctrl-C in a terminal is for the tests, which then end their servers
        // in order.
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let reaper = Command::new("sh")
            .args(["-c", REAPER, "reaper"])
            .arg(child.id().to_string())
            .arg(last_signal.as_raw().to_string())
            .arg(directory.map_or(OsStr::new(""), Path::as_os_str))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let reaper = match reaper {
            Ok(reaper) => reaper,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        let (stdout, stderr) = (Output::default(), Output::default());
        if let Some(stream) = child.stdout.take() {
            stdout.collect(stream);
        }
        if let Some(stream) = child.stderr.take() {
            stderr.collect(stream);
        }
        Ok(Self {
            child,
            reaper: Some(reaper),
            last_signal,
            stdout,
            stderr,
        })
    }

    /// Its standard output so far.
    pub fn stdout(&self) -> &Output {
        &self.stdout
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> &Output {
        &self.stderr
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal`; an ended process gets none.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            kill_process(self.pid(), signal).expect("a child can be signalled");
        }
    }

    /// Sends SIGSTOP and returns once the process has stopped.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
        self.wait_state(WaitIdOptions::STOPPED);
    }

    /// Sends SIGCONT and returns once the process runs again.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.wait_state(WaitIdOptions::CONTINUED);
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("a child can be waited for");
        if status.is_some() {
            self.disarm();
        }
        status
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        poll(limit, || self.ended())
    }

    /// Sends the last signal and waits; what does not end within ten seconds is killed.
    pub fn stop(&mut self) {
        self.signal(self.last_signal);
        if self.wait(Duration::from_secs(10)).is_none() {
            self.signal(Signal::KILL);
            self.wait(Duration::from_secs(10));
        }
    }

    fn wait_state(&self, state: WaitIdOptions) {
        let status = waitid(
            WaitId::Pid(self.pid()),
            state | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        );
        status.expect("a child can be waited for");
        // The state is taken, so that the next wait is for a new one; an exit stays for `ended`.
        let _taken = waitid(WaitId::Pid(self.pid()), state | WaitIdOptions::NOHANG);
    }

    /// The reaper must not outlive the child's number, which another process may get.
    fn disarm(&mut self) {
        if let Some(mut reaper) = self.reaper.take() {
            let _gone = reaper.kill();
            let _status = reaper.wait();
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where `program` is: in `PATH`, or in one of `more`.
pub(crate) fn find_program(program: &str, more: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(more.iter().cloned())
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn start(command: &mut Command) -> Process {
        Process::start(command, Signal::KILL, None).expect("the program starts")
    }

    fn sleeper() -> Process {
        start(Command::new("sleep").arg("1000"))
    }

    fn state(id: u32) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit(") ").next()?.chars().next()
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = sleeper();
        let id = process.child.id();
        assert!(state(id).is_some());
        drop(process);
        assert_eq!(state(id), None);
    }

    #[test]
    fn a_process_ends_and_its_directory_goes_when_its_starter_dies() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut process = Process::start(
            Command::new("sleep").arg("1000"),
            Signal::KILL,
            Some(directory.path()),
        )
        .expect("sleep starts");
        // The kernel closes our end of the pipe when this process ends.
        drop(
            process
                .reaper
                .as_mut()
                .and_then(|reaper| reaper.stdin.take()),
        );
        let gone = poll(SOON, || {
            let ended = process.child.try_wait().expect("a child can be waited for");
            (ended.is_some() && !directory.path().exists()).then_some(())
        });
        assert!(gone.is_some());
    }

    #[test]
    fn lines_of_both_streams_are_kept() {
        let mut process = start(Command::new("sh").args(["-c", "echo one; echo two; echo ✗ >&2"]));
        assert!(process.wait(SOON).is_some_and(|status| status.success()));
        let complete = || {
            (process.stdout().lines().len() == 2 && process.stderr().contains("✗")).then_some(())
        };
        assert!(poll(SOON, complete).is_some());
        assert_eq!(process.stdout().lines(), ["one", "two"]);
        assert_eq!(process.stdout().count("o"), 2);
    }

    #[test]
    fn a_paused_process_does_nothing_until_it_is_resumed() {
        let mut process = start(Command::new("sh").args(["-c", "while :; do echo; done"]));
        for _ in 0..2 {
            process.pause();
            assert_eq!(state(process.child.id()), Some('T'));
            process.resume();
            assert_ne!(state(process.child.id()), Some('T'));
        }
        let before = process.stdout().lines().len();
        let more = || (process.stdout().lines().len() > before).then_some(());
        assert!(poll(SOON, more).is_some());
    }
}
