//! The program, where it judges a history that is there already.

use std::process::{Command, Output};

/// One write that made version 2 of a row and was acknowledged, and one read after that which shows
/// `shown`.
fn judged(name: &str, shown: u64) -> Output {
    let file = std::env::temp_dir().join(format!("chaos-{name}-{}.jsonl", std::process::id()));
    let second = 1_000_000_000_u64;
    let history = [
        format!(
            r#"{{"Run":{{"seed":1,"seconds":1,"ttl":{second},"load":{second},"commit_delay":{second},"in_doubt_window":{second},"intent":{second},"deadline":{second},"kinds":["apples"]}}}}"#
        ),
        r#"{"Life":{"process":0,"slot":0,"from":0,"killed":null}}"#.into(),
        r#"{"B":{"w":7,"p":0,"at":100,"form":"by-id"}}"#.into(),
        r#"{"T":{"w":7,"k":0,"i":3,"v":2}}"#.into(),
        r#"{"M":{"w":7,"at":200,"step":{"Done":"Returned"}}}"#.into(),
        r#"{"M":{"w":7,"at":300,"step":"InForce"}}"#.into(),
        format!(
            r#"{{"R":{{"p":0,"s":400,"e":500,"r":"get","k":0,"a":3,"h":"hit","v":[[3,{shown}]]}}}}"#
        ),
        // A process that is killed leaves half a line.
        r#"{"R":{"p":0,"s":6"#.into(),
    ];
    std::fs::write(&file, history.join("\n")).expect("a temporary file");
    let chaos = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .arg("check")
        .arg(&file)
        .output();
    for left in [&file, &file.with_extension("small.jsonl")] {
        let _ = std::fs::remove_file(left);
    }
    chaos.expect("the program runs")
}

#[test]
fn it_fails_a_history_with_a_stale_read() {
    let right = judged("right", 2);
    let text = String::from_utf8_lossy(&right.stdout);
    assert!(
        right.status.success() && text.contains("nothing stale"),
        "{text}"
    );
    let stale = judged("stale", 1);
    let text = String::from_utf8_lossy(&stale.stdout);
    assert!(!stale.status.success(), "{text}");
    assert!(text.contains("version 1 of row 3"), "{text}");
}
