//! Checks how the files of the sources depend on each other: no circle of files, and imports only
//! look down through the layers of `docs/layers.txt`.
//!
//! `scripts/layers` prints every circle with the names that tie it, and every import that looks up.
//!
//! # Layout
//!
//! * `modules`: the module tree of a crate, read from its tokens;
//! * `names`: where a path leads, through imports and re-exports, to the file that defines the
//!   name;
//! * `circles`: groups of files that reach each other, and which imports to cut;
//! * `table`: the layers, and what breaks them.

mod circles;
mod modules;
mod names;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::table::LayerTable;

/// What each file takes from each other file: the names.
type Arrows = BTreeMap<(String, String), BTreeSet<String>>;

fn main() -> ExitCode {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let only: Vec<String> = std::env::args().skip(1).collect();
    let (text, passed) = check(root, &only);
    #[expect(clippy::print_stdout, reason = "it is what this program is for")]
    {
        print!("{text}");
    }
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Checks the crates `only`, or all of the table. Returns a report, and whether all that is
/// enforced holds.
fn check(root: &Path, only: &[String]) -> (String, bool) {
    let table = root.join("docs/layers.txt");
    let text = std::fs::read_to_string(&table)
        .unwrap_or_else(|error| panic!("{}: {error}", table.display()));
    let mut report = String::new();
    let mut passed = true;
    for table in LayerTable::parse(&text) {
        if !only.is_empty() && !only.contains(&table.name) {
            continue;
        }
        let sources = root.join(&table.name).join("src");
        let (text, faults) = describe(&table, &read(&sources, &sources));
        report.push_str(&text);
        passed &= faults == 0 || !table.enforced;
    }
    (report, passed)
}

/// All Rust files below `folder`, with their paths from `root`.
fn read(root: &Path, folder: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() {
            files.extend(read(root, &path));
        } else if path.extension().is_some_and(|of| of == "rs") {
            let name = path.strip_prefix(root).expect("it is below the root");
            let text = std::fs::read_to_string(&path).expect("a source file can be read");
            files.insert(name.to_string_lossy().replace('\\', "/"), text);
        }
    }
    files
}

/// Reports on one crate, and counts what is wrong with it.
fn describe(table: &LayerTable, files: &BTreeMap<String, String>) -> (String, usize) {
    let modules = modules::read(files);
    let arrows = names::arrows(&modules);
    let rooms: BTreeSet<&str> = modules.iter().map(|module| module.file.as_str()).collect();
    let circles = circles::find(&arrows);
    let upwards = table.upwards(&arrows);
    let misplaced = table.misplaced(&rooms);

    let mut text = format!(
        "{}: {} files, {} imports between files, {} circles, {} upward imports{}\n",
        table.name,
        rooms.len(),
        arrows.len(),
        circles.len(),
        upwards.len(),
        if table.enforced {
            ""
        } else {
            " (reported only)"
        },
    );
    for circle in &circles {
        let _ = writeln!(text, "  circle of {} files:", circle.len());
        for ((from, to), names) in &arrows {
            if circle.contains(from) && circle.contains(to) {
                let _ = writeln!(text, "    {from} -> {to}: {}", join(names));
            }
        }
        let _ = writeln!(text, "    without these, there would be no circle:");
        for (from, to) in circles::cut(circle, &arrows) {
            let _ = writeln!(text, "      {from} -> {to}");
        }
    }
    for (from, to) in &upwards {
        let names = join(&arrows[&(from.clone(), to.clone())]);
        let _ = writeln!(
            text,
            "  upward: {from} (layer {}) -> {to} (layer {}): {names}",
            table.describe(from),
            table.describe(to),
        );
    }
    for complaint in &misplaced {
        let _ = writeln!(text, "  {complaint}");
    }
    (text, circles.len() + upwards.len() + misplaced.len())
}

fn join(names: &BTreeSet<String>) -> String {
    names
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(table: &str, files: &[(&str, &str)]) -> (String, usize) {
        let owned = |&(name, text): &(&str, &str)| (name.to_owned(), text.to_owned());
        describe(
            &LayerTable::parse(table)[0],
            &files.iter().map(owned).collect(),
        )
    }

    #[test]
    fn the_sources_have_no_circles_and_look_down_only() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let (report, passed) = check(root, &[]);
        assert!(passed, "\n{report}");
    }

    #[test]
    fn a_circle_is_found_through_a_re_export() {
        let (report, faults) = described(
            "[x]\nlib.rs\na/\nb.rs\n",
            &[
                ("lib.rs", "mod a; mod b; pub use a::Inner;"),
                ("a/mod.rs", "mod inner; pub use self::inner::*;"),
                ("a/inner.rs", "pub struct Inner; use super::super::b::B;"),
                ("b.rs", "pub struct B; fn f(_: crate::a::Inner) {}"),
            ],
        );
        assert_eq!(faults, 2, "{report}");
        assert!(report.contains("b.rs -> a/inner.rs: Inner"), "{report}");
        assert!(report.contains("a/inner.rs -> b.rs: B"), "{report}");
        assert!(report.contains("upward: b.rs"), "{report}");
    }

    #[test]
    fn tests_may_import_what_they_like() {
        let (report, faults) = described(
            "[x]\nlib.rs\na.rs\nb.rs\n",
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "use crate::b::B;"),
                (
                    "b.rs",
                    "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }",
                ),
            ],
        );
        assert_eq!(faults, 0, "{report}");
    }

    #[test]
    fn every_file_has_a_layer_and_every_layer_a_file() {
        let (report, faults) = described(
            "[x]\nlib.rs\ngone.rs\n",
            &[("lib.rs", "mod a;"), ("a.rs", "")],
        );
        assert_eq!(faults, 2, "{report}");
    }

    #[test]
    fn all_ways_to_name_another_file_count() {
        let of = |text: &str| {
            let (report, _) = described(
                "[x]\nlib.rs\na/\nb.rs\n",
                &[
                    ("lib.rs", "mod a; mod b;"),
                    ("a/mod.rs", text),
                    ("a/c.rs", "pub fn c() {}"),
                    ("b.rs", "pub fn b() {}"),
                ],
            );
            report
        };
        for text in [
            "mod c; fn f() { c::c() }",
            "mod c; fn f() { self::c::c() }",
            "mod c; use c::c;",
            "mod c; use self::{c::c as d};",
            "mod c; use crate::a::c; fn f() { c::c() }",
            "mod c; pub use c::c; fn f() { c() }",
            "mod c; use super::b; fn f() { b::b() }",
            "mod c; fn f() { println!(\"{}\", crate::b::b()) }",
            "mod c; use super::b::*; fn f() { b() }",
        ] {
            assert!(of(text).contains(" 1 imports"), "{text}: {}", of(text));
        }
        for text in ["mod c; pub use c::c;", "mod c; use std::c;", "mod c;"] {
            assert!(of(text).contains(" 0 imports"), "{text}: {}", of(text));
        }
    }
}
