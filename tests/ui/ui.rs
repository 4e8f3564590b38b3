//! The messages with which the attributes refuse, by theme: one mistake a file, and one with many.
//!
//! All files are modules of one crate, `refused.rs`, so the compiler runs once. What it says of a file is
//! in the `.stderr` beside it, where lines of other files have no number. `MESSAGES=overwrite cargo test
//! --test ui` writes these anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folder of this package, as the compiler names it in messages.
const HERE: &str = "tests/ui/";
const THEMES: [&str; 3] = ["options", "signature", "types"];

#[test]
fn mistakes_are_explained() {
    let overwrite = std::env::var_os("MESSAGES").is_some_and(|value| value == "overwrite");
    let mut said = by_case(messages());
    let mut wrong = Vec::new();
    for case in cases() {
        let said = said.remove(&case).unwrap_or_default();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{case}.stderr"));
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if said.is_empty() {
            wrong.push(format!("{case} is not refused; is it in its mod.rs?"));
        } else if overwrite {
            fs::write(&file, said).expect("it can be written");
        } else if said != expected {
            wrong.push(format!("{case}\n\nEXPECTED\n{expected}\nSAID\n{said}"));
        }
    }
    wrong.extend(said.values().map(|said| format!("of no case:\n{said}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// All files that are to be refused: `options/zero_ttl`.
fn cases() -> BTreeSet<String> {
    let mut cases = BTreeSet::new();
    for theme in THEMES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(theme);
        for entry in fs::read_dir(folder).expect("the folder of a theme") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().expect("a name").to_string_lossy();
            if name != "mod" {
                cases.insert(format!("{theme}/{name}"));
            }
        }
    }
    cases
}

/// Compiles all cases, and returns what the compiler says.
fn messages() -> Vec<Message> {
    let program = std::env::current_exe().expect("a test knows its executable");
    let libraries = program.parent().expect("<target>/<profile>/deps");
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler)
        .args("--edition 2024 --crate-type lib --emit metadata".split(' '))
        // With the full names of types.
        .args(["--error-format", "json", "--verbose", "-L"])
        .arg(format!("dependency={}", libraries.display()))
        .arg("--extern")
        .arg(format!("cache_runtime={}", runtime(&program).display()))
        .arg(format!("{HERE}refused.rs"))
        .args(["--out-dir", env!("CARGO_TARGET_TMPDIR")])
        .current_dir(workspace())
        .output()
        .expect("the compiler can be run");
    let output = String::from_utf8_lossy(&output.stderr).into_owned();
    let messages: Vec<Message> = output.lines().filter_map(message).collect();
    assert!(!messages.is_empty(), "nothing is refused:\n{output}");
    messages
}

/// The library that `program`, this test, was linked with: of those beside it, which may have been
/// compiled with other features, the last one from before. One of the packed sources, as `cargo publish`
/// compiles them, is another one.
fn runtime(program: &Path) -> PathBuf {
    let age = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let linked = age(program);
    let folder = program.parent().expect("a folder");
    let files = fs::read_dir(folder).expect("the folder of the libraries");
    files
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libcache_runtime-") && name.ends_with(".rlib")
        })
        .filter(|path| age(path) <= linked && is_of_the_workspace(path))
        .max_by_key(|path| age(path))
        .expect("the runtime's library")
}

fn is_of_the_workspace(library: &Path) -> bool {
    let name = library.file_stem().unwrap_or_default().to_string_lossy();
    let sources = name.strip_prefix("lib").unwrap_or(&name);
    let sources = fs::read_to_string(library.with_file_name(format!("{sources}.d")));
    sources.is_ok_and(|sources| sources.contains("cache-runtime/src/lib.rs"))
}

fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = here.ancestors().nth(2);
    workspace.expect("a folder in the workspace").to_owned()
}

/// One mistake, as the compiler shows it.
struct Message {
    /// The line of its place.
    line: u64,
    text: String,
}

/// What a line of the compiler's says, unless it says how many mistakes there are.
fn message(line: &str) -> Option<Message> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_summary = message["level"] == "failure-note"
        || message["message"].as_str()?.starts_with("aborting due to");
    let spans = message["spans"].as_array()?.iter();
    let mut places = spans.filter(|span| span["is_primary"] == true);
    let place = places.next().and_then(|span| span["line_start"].as_u64());
    (!is_summary).then_some(Message {
        line: place.unwrap_or_default(),
        text: message["rendered"].as_str()?.trim_end().to_owned(),
    })
}

/// The messages of each case as its `.stderr` has them, from the top of the file down.
fn by_case(mut messages: Vec<Message>) -> BTreeMap<String, String> {
    messages.sort_by_key(|message| message.line);
    let mut cases: BTreeMap<String, String> = BTreeMap::new();
    for message in messages {
        let case = case_of(&message.text).unwrap_or_default();
        let texts = cases.entry(case.to_owned()).or_default();
        if !texts.is_empty() {
            texts.push('\n');
        }
        texts.push_str(&normalised(&message.text));
    }
    cases
}

/// The file that a message is about: the first one that it shows.
fn case_of(message: &str) -> Option<&str> {
    let (_, path) = message.split_once(HERE)?;
    let (case, _) = path.split_once(".rs")?;
    Some(case)
}

/// A message without what changes with other files: the numbers of their lines, and how wide the margin
/// is for them.
fn normalised(message: &str) -> String {
    let mut lines = Vec::new();
    let (mut margin, mut widest) = (0, 1);
    // Whether the lines shown are those of a case.
    let mut own = true;
    for line in message.lines() {
        let mut line = line.to_owned();
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(place) = text.strip_prefix("--> ").or(text.strip_prefix("::: ")) {
            margin = margin.max(indent);
            own = place.starts_with(HERE);
            if !own {
                let path = place.split(':').next().unwrap_or(place);
                line = format!("{}$WORKSPACE/{path}", &line[..indent + 4]);
            }
        } else if let Some(digits) = number_of(text) {
            if own {
                widest = widest.max(digits);
            } else {
                let rest = &text[digits..];
                line = format!("{:indent$}{:digits$}{rest}", "", "");
            }
        } else if indent == 0 && !text.starts_with("...") {
            // A part of its own, which begins where the mistake is.
            own = true;
        }
        lines.push(line);
    }
    let narrower = margin.saturating_sub(widest);
    let narrow = |line: &String| {
        let spaces = line.len() - line.trim_start().len();
        line[spaces.min(narrower)..].to_owned() + "\n"
    };
    lines.iter().map(narrow).collect()
}

/// How many digits the number of a line has, if `text` is a line of a file.
fn number_of(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let shown = text[digits..].trim_start();
    let is_line = digits > 0
        && [" |", "|", "-", "+", "~"]
            .iter()
            .any(|it| shown.starts_with(it));
    is_line.then_some(digits)
}
