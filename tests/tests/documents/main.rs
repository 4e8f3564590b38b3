//! What the documents point to exists: files, pages, headings, tests, mutations, names of the
//! sources (`names.rs`); and the README stays short.

mod names;

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

/// The most that a README may have: users read ten kilobytes, and the rest is the book.
const README_LIMIT: usize = 10 * 1024;

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("a folder in the workspace")
        .to_owned()
}

/// All Markdown files of the repository's top, `docs` and the crates' top.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root(), root().join("docs")];
    folders.extend(["tests/rivals", "tests/fuzz"].map(|folder| root().join(folder)));
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && folder.starts_with(root().join("docs")) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[derive(Default)]
struct Page {
    links: Vec<String>,
    anchors: HashSet<String>,
}

/// A heading's anchor, as GitHub and mdBook make it: lower case, spaces to `-`, punctuation left
/// out.
fn anchor(heading: &str) -> String {
    let heading = heading.trim().to_lowercase();
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    });
    kept.collect()
}

fn read(path: &Path) -> Page {
    let text = std::fs::read_to_string(path).expect("a document is text");
    let mut page = Page::default();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(&text, pulldown_cmark::Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                page.anchors
                    .insert(anchor(&heading.take().unwrap_or_default()));
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.into_string());
            }
            _ => {}
        }
    }
    page
}

/// `folder/../file` as `file`, without asking the file system.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

#[test]
fn every_link_leads_somewhere() {
    let pages: HashMap<_, _> = documents()
        .into_iter()
        .map(|path| (path.clone(), read(&path)))
        .collect();
    assert!(
        pages.len() > 30,
        "the documents are not where this test looks: {}",
        pages.len()
    );
    let mut broken = Vec::new();
    let mut checked = 0;
    for (path, page) in &pages {
        for link in &page.links {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => normal(&path.with_file_name("").join(file)),
            };
            let exists = target.exists();
            let has_anchor = anchor.is_empty()
                || pages
                    .get(&target)
                    .is_some_and(|page| page.anchors.contains(anchor));
            if !exists || !has_anchor {
                let path = path.strip_prefix(root()).unwrap_or(path);
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    broken.sort();
    assert!(checked > 50, "hardly any link was found: {checked}");
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn every_page_of_the_book_is_in_its_summary() {
    let book = root().join("docs/book/src");
    let summary = read(&book.join("SUMMARY.md"));
    let listed: HashSet<_> = summary.links.iter().map(|link| book.join(link)).collect();
    let pages = documents()
        .into_iter()
        .filter(|path| path.starts_with(&book));
    let forgotten: Vec<_> = pages
        .filter(|path| !path.ends_with("SUMMARY.md") && !listed.contains(path))
        .collect();
    assert!(forgotten.is_empty(), "not in SUMMARY.md: {forgotten:?}");
}

/// The Rust files in these folders, and what is in them.
fn sources(folders: &[&str]) -> impl Iterator<Item = (PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders: Vec<_> = folders.iter().map(|it| root().join(it)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() && !path.ends_with("target") => folders.push(path),
                path if path.extension().is_some_and(|it| it == "rs") => files.push(path),
                _ => {}
            }
        }
    }
    files.into_iter().map(|path| {
        let text = std::fs::read_to_string(&path).expect("a source is text");
        (path, text)
    })
}

fn guarantees() -> String {
    let path = root().join("docs/guarantees.md");
    std::fs::read_to_string(path).expect("a document is text")
}

/// The texts behind `is_active(` in this source.
fn switches(source: &str) -> impl Iterator<Item = &str> {
    source.split("is_active(").skip(1).filter_map(|rest| {
        let (name, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
        Some(name)
    })
}

#[test]
fn every_mutation_has_a_file_a_switch_and_a_row() {
    let crates = ["cache-runtime/src", "cache-macros/src", "demo-api/src"];
    let sources: Vec<_> = sources(&crates).map(|(_, text)| text).collect();
    let mutations = root().join("tests/mutations");
    let guarantees = guarantees();
    let mut wrong = Vec::new();
    for name in sources.iter().flat_map(|source| switches(source)) {
        if !mutations.join(format!("{name}.switch")).exists() {
            wrong.push(format!(
                "the switch `{name}` has no file in tests/mutations"
            ));
        }
    }
    for entry in std::fs::read_dir(&mutations).expect("a folder").flatten() {
        let path = entry.path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let is_switch = path.extension().is_some_and(|it| it == "switch");
        let quoted = format!("\"{name}\"");
        if !is_switch || !sources.iter().any(|source| source.contains(&quoted)) {
            wrong.push(format!("no source has a switch `{name}`"));
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for word in ["Without: ", "Fails: "] {
            if !text.lines().any(|line| line.starts_with(word)) {
                wrong.push(format!("`{name}.switch` has no line `{word}..`"));
            }
        }
        if !guarantees.contains(&format!("`{name}`")) {
            wrong.push(format!(
                "docs/guarantees.md does not name the mutation `{name}`"
            ));
        }
    }
    wrong.sort_unstable();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether this is the name, in which `..` stands for any part: `a_late_load_..`.
fn is_abbreviation(short: &str, name: &str) -> bool {
    let mut parts = short.split("..");
    let Some(mut rest) = parts.next().and_then(|start| name.strip_prefix(start)) else {
        return false;
    };
    let mut has_end = true;
    for part in parts {
        has_end = part.is_empty();
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    has_end && short.contains("..") || rest.is_empty()
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let mut files = Vec::new();
    let mut names = HashSet::new();
    for (path, text) in sources(&["cache-runtime", "cache-macros", "demo-api", "tests"]) {
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        names.extend(words.map(str::to_owned));
        files.push(path);
    }
    let mut wrong = Vec::new();
    let mut checked = 0;
    for line in guarantees().lines().filter(|line| line.starts_with("| ")) {
        let columns: Vec<_> = line.split(" | ").collect();
        let [_, _, _, tests, _] = columns[..] else {
            continue;
        };
        let quoted = tests.split('`').skip(1).step_by(2);
        for name in quoted.filter(|it| !it.contains(' ')) {
            checked += 1;
            let is_file = files.iter().any(|path| {
                let is_in = |folder: &Path| folder.ends_with(name);
                path.ancestors().any(is_in) || path.with_extension("").ends_with(name)
            });
            let exists = is_file
                || root().join(name).exists()
                || names.iter().any(|it| is_abbreviation(name, it));
            if !exists {
                wrong.push(name.to_owned());
            }
        }
    }
    assert!(checked > 300, "hardly any test was found: {checked}");
    assert!(wrong.is_empty(), "no such test or file: {wrong:#?}");
}

#[test]
fn the_readme_is_short() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("there is a README");
    assert!(
        readme.len() <= README_LIMIT,
        "README.md has {} bytes, and {README_LIMIT} at most; move what is reference into docs/book",
        readme.len()
    );
}
