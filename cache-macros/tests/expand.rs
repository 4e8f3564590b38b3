//! What the attributes write, as `cargo expand` prints it.
//!
//! `MACROTEST=overwrite cargo test -p cache-macros --test expand` writes the snapshots anew.

use std::fs;

#[test]
fn snapshots() {
    macrotest::expand("tests/expand/*.rs");
}

/// More than this is not read at a glance: something belongs into the runtime.
const MOST_LINES: usize = 15;
/// What two options add: a body that may outlive its caller has to say what it keeps, and one that is given its load
/// context what it calls that.
const MORE_LINES: [(&str, usize); 2] = [("run_detached", 9), ("LoadContext", 2)];

#[test]
fn an_expansion_fits_a_glance() {
    let mut functions = 0;
    for file in fs::read_dir("tests/expand").expect("the snapshots are there") {
        let path = file.expect("a file").path();
        if !path.to_string_lossy().ends_with(".expanded.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("readable");
        let lines: Vec<&str> = text.lines().collect();
        let sites = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.contains("static __CRT"));
        for (site, _) in sites {
            let start = lines[..site]
                .iter()
                .rposition(|line| line.contains("async fn"));
            let start = start.expect("a site stands in a function");
            let indent = lines[start].len() - lines[start].trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            let length = lines[start..].iter().position(|line| *line == end);
            let length = length.expect("a function ends") + 1;
            let text = lines[start..start + length].join("\n");
            let more = MORE_LINES.iter().filter(|(word, _)| text.contains(word));
            let most = MOST_LINES + more.map(|(_, lines)| lines).sum::<usize>();
            assert!(length <= most, "{length} lines in {}", path.display());
            functions += 1;
        }
    }
    assert!(functions >= 6, "{functions} snapshots");
}
