//! Where and with what the figures were taken.

use std::process::Command;
use std::time::Duration;

/// The machine and what runs on it, a line each.
#[derive(Clone, Debug)]
pub struct Machine(Vec<String>);

impl Machine {
    /// This one. `command` is what was typed, and took so long.
    pub fn here(command: &str, took: Duration) -> Self {
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let model = file_line("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into());
        let memory = file_line("/proc/meminfo", "MemTotal").unwrap_or_default();
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
        let lines = [
            format!(
                "Command: `{command}`, {}:{:02} minutes",
                took.as_secs() / 60,
                took.as_secs() % 60
            ),
            format!(
                "Date: {}",
                said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))
            ),
            format!(
                "Commit: {}",
                said(Command::new("git").args(["describe", "--always", "--dirty"]))
            ),
            format!(
                "Machine: {cpus} × {model}, {memory}, {}",
                said(Command::new("uname").arg("-sr"))
            ),
            format!("Load when it ended (1, 5, 15 minutes): {load}"),
            format!(
                "Versions: {}; {}; {}; rivals as in tests/rivals/Cargo.lock",
                said(Command::new("rustc").arg("--version")),
                said(Command::new("redis-server").arg("--version")),
                said(Command::new("psql").arg("--version")),
            ),
        ];
        Self(lines.into())
    }

    /// For the head of the page.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

/// The first line that a program writes.
fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout);
    let text = String::from_utf8_lossy(&output.unwrap_or_default()).into_owned();
    let line = text.lines().next().unwrap_or("missing");
    // Redis goes on with its checksums.
    let line = line
        .split_once(" sha=")
        .map_or(line, |(version, _)| version);
    line.trim().to_owned()
}

fn file_line(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
