//! Switching reads off from a shell, beside a demo that runs.

use std::process::{Command, Output};

use cache_tests::{Demo, RedisServer, demo_program, eventually};

use crate::SOON;

/// What the command wrote, and whether it succeeded.
fn command(port: u16, arguments: &[&str]) -> (bool, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let done = Command::new(demo_program())
        .arg("cache")
        .args(arguments)
        .current_dir(directory.path())
        .env("REDIS_ENABLED", "True")
        .env("REDIS_HOST", "127.0.0.1")
        .env("REDIS_PORT", port.to_string())
        .env("CACHE_TIMEOUT_MS", "5000")
        .output();
    let Output {
        status,
        stdout,
        stderr,
    } = done.expect("it can be run");
    let text = [stdout, stderr].concat();
    (
        status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_switches_reads_of_all_processes() {
    let server = RedisServer::start();
    let port = server.port().to_string();
    let demo = Demo::start([
        ("REDIS_ENABLED", "True"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", port.as_str()),
        ("CACHE_TIMEOUT_MS", "5000"),
    ]);
    assert_eq!(demo.get("/users/1").await.status, 200);
    let is_off = async || {
        let status = demo.get("/users/1").await.cache_status();
        status.detail.as_deref() == Some("switched-off")
    };
    assert!(!is_off().await);
    let nothing = command(server.port(), &["switches"]);
    assert_eq!(nothing, (true, "nothing is switched off\n".into()));

    let off = command(server.port(), &["disable", "users"]);
    assert_eq!(off, (true, "switched off: users\n".into()));
    eventually(SOON, is_off).await;
    let (is_done, said) = command(server.port(), &["switches"]);
    assert!(is_done && said.contains("users"), "{said}");

    // A typing error changes nothing, and the name that was meant is told.
    let (is_done, said) = command(server.port(), &["disable", "usres"]);
    assert!(!is_done && said.contains("`users` is"), "{said}");
    assert_eq!(server.cli(&["GET", "@off"]), "users");

    let on = command(server.port(), &["enable", "users"]);
    assert_eq!(on, (true, "nothing is switched off\n".into()));
    eventually(SOON, async || !is_off().await).await;

    server.cli(&["SHUTDOWN", "NOSAVE"]);
    let (is_done, said) = command(server.port(), &["disable", "users"]);
    assert!(!is_done, "{said}");
}
