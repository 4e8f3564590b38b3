//! Starting and stopping: what a person at a terminal meets.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// The demo in an empty directory of its own, without the variables of whoever runs the tests.
fn demo(test: &str) -> (Command, PathBuf) {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("start-{test}"));
    drop(fs::remove_dir_all(&directory));
    fs::create_dir_all(&directory).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo-api"));
    command.env_clear().current_dir(&directory);
    (command, directory)
}

/// Asserts that the demo gives up with one line, and returns it.
fn gives_up(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stdout.is_empty());
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

#[test]
fn a_value_that_cannot_be_used_is_one_line_that_names_its_variable() {
    for (variable, value) in [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("HOST", "no such host"),
        ("MAX_CONNECTIONS", "0"),
        ("CLIENT_TIMEOUT_SECS", "soon"),
        ("CACHE_ADMIN_TOKEN", "two secret words"),
        ("DATABASE_URL", "mysql://localhost/demo"),
        ("DATABASE_URL", "sqlite:///no/such/directory/demo.db"),
        ("DATABASE_URL", "postgres://demo:secret@127.0.0.1:1/demo"),
        ("REDIS_ENABLED", "perhaps"),
        ("CACHE_LOCAL_MB", "much"),
        ("CACHE_TTL", "-1"),
        ("RUST_LOG", "a=b=c"),
    ] {
        let (mut command, _) = demo("refused");
        let line = gives_up(command.env("PORT", "0").env(variable, value));
        assert!(line.starts_with(&format!("demo-api: {variable}")), "{line}");
        assert!(!line.contains("secret"), "{line}");
    }
}

#[test]
fn a_port_in_use_is_one_line_and_leaves_no_database_behind() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (mut command, directory) = demo("taken");
    let line = gives_up(command.env("PORT", &port));
    assert!(
        line.starts_with("demo-api: PORT") && line.contains(&port) && line.contains("in use"),
        "{line}"
    );
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
}

#[test]
fn the_shell_wins_over_the_file() {
    let (mut command, directory) = demo("dotenv");
    fs::write(directory.join(".env"), "PORT=from-the-file\n").unwrap();
    assert!(gives_up(&mut command).contains("from-the-file"));
    assert!(gives_up(command.env("PORT", "from-the-shell")).contains("from-the-shell"));
}

#[cfg(unix)]
#[test]
fn the_address_is_on_the_first_line_and_signals_end_it_cleanly() {
    for signal in ["INT", "TERM"] {
        let (mut command, directory) = demo("signals");
        let mut running = command
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert!(first_line(&mut running).starts_with("Listening on http://127.0.0.1:"));
        assert!(directory.join("demo.db").is_file());
        let killed = Command::new("kill")
            .args([format!("-{signal}"), running.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        assert_eq!(running.wait().unwrap().code(), Some(0), "{signal}");
    }
}

fn first_line(running: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(running.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    line
}

#[test]
fn the_map_is_printed_without_starting_anything() {
    let print = |arguments: &[&str]| {
        let (mut command, directory) = demo("map");
        let Output { status, stdout, .. } = command.args(arguments).output().unwrap();
        assert!(status.success(), "{arguments:?}");
        let left = fs::read_dir(directory).unwrap().count();
        assert_eq!(left, 0, "no database is made");
        String::from_utf8(stdout).unwrap()
    };
    let table = print(&["map"]);
    for part in [
        "users:{id: i64}",
        "products:filter:paginated",
        "get_many",
        "invalidates",
    ] {
        assert!(table.contains(part), "{part} is missing in\n{table}");
    }
    let json: serde_json::Value = serde_json::from_str(&print(&["map", "json"])).unwrap();
    assert_eq!(json["readers"][0]["resource"], "users");
    assert!(print(&["map", "mermaid"]).starts_with("flowchart LR\n"));
}

#[test]
fn an_unknown_command_is_one_line_that_names_those_there_are() {
    let (mut command, _) = demo("command");
    let line = gives_up(command.arg("mpa"));
    assert!(line.contains("`mpa`") && line.contains("`map`"), "{line}");
}

#[cfg(unix)]
#[test]
fn a_command_that_is_no_text_is_one_line() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let (mut command, _) = demo("no-text");
    let line = gives_up(command.arg(OsStr::from_bytes(b"map\xff")));
    assert!(line.contains("is no command"), "{line}");
}
