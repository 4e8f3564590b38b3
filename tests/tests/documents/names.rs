//! What the documents name is what the sources define: files, functions, variables, options,
//! features, metrics, scripts, messages.
//!
//! The sources are read as text, each by the shape of the one table that defines its names. A test
//! that no longer finds that table fails, since it then finds too few names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser};

use super::{documents, root, sources};

fn text(file: &str) -> String {
    let path = root().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a Markdown text has between backticks; examples are no part of it.
fn quoted(text: &str) -> Vec<String> {
    let events = Parser::new_ext(text, Options::ENABLE_TABLES);
    let codes = events.filter_map(|event| match event {
        Event::Code(code) => Some(code.into_string()),
        _ => None,
    });
    codes.collect()
}

/// What is marked as code in the first column of the tables with this heading.
fn rows<'t>(text: &'t str, heading: &str) -> impl Iterator<Item = String> + use<'t> {
    let heading = format!("| {heading} |");
    let mut is_in_table = false;
    let rows = text.lines().filter_map(move |line| {
        if line.starts_with(&heading) {
            is_in_table = true;
            return None;
        }
        is_in_table &= line.starts_with('|');
        let (first, _) = line.strip_prefix("| ")?.split_once(" |")?;
        is_in_table.then(|| first.replace("<code>", "`").replace("</code>", "`"))
    });
    rows.flat_map(|cell| quoted(&cell))
}

/// The part of a text between two others.
fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let (_, rest) = text
        .split_once(start)
        .unwrap_or_else(|| panic!("no `{start}`"));
    let (part, _) = rest
        .split_once(end)
        .unwrap_or_else(|| panic!("no `{end}` after `{start}`"));
    part
}

/// The string literals of a source that has no quotation mark within one.
fn literals(source: &str) -> BTreeSet<String> {
    let code = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let parts = code.flat_map(|line| line.split('"').skip(1).step_by(2));
    parts.map(str::to_owned).collect()
}

/// Fails with the names that only one of two places has.
fn assert_same(
    document: &str,
    documented: &BTreeSet<String>,
    source: &str,
    defined: &BTreeSet<String>,
) {
    let unknown: Vec<_> = documented.difference(defined).collect();
    let missing: Vec<_> = defined.difference(documented).collect();
    assert!(
        unknown.is_empty() && missing.is_empty(),
        "{document} names {unknown:?}, which {source} does not have, and lacks {missing:?}"
    );
}

/// All files of the folders that documents describe.
fn files() -> Vec<PathBuf> {
    let folders = [
        ".ci",
        "cache-macros",
        "cache-runtime",
        "demo-api",
        "docs",
        "scripts",
        "tests",
    ];
    let mut folders: Vec<_> = folders.map(|folder| root().join(folder)).into();
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(root()).expect("a folder").flatten() {
        if entry.path().is_file() {
            found.push(entry.path());
        }
    }
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.ends_with("target") => {}
                path if path.is_dir() => folders.push(path),
                path => found.push(path),
            }
        }
    }
    found
}

#[test]
fn every_file_that_a_document_names_exists() {
    let extensions = [
        "rs", "lua", "txt", "toml", "switch", "md", "sql", "html", "yml",
    ];
    let files = files();
    let mut missing = Vec::new();
    let mut checked = 0;
    // What has been is in the history of changes, too.
    let pages = documents()
        .into_iter()
        .filter(|path| !path.ends_with("CHANGELOG.md"));
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("a document is text");
        for name in quoted(&text) {
            let path = Path::new(&name);
            let is_file = path
                .extension()
                .is_some_and(|it| extensions.iter().any(|extension| it == *extension));
            // A folder of ours starts with a small letter: not `/`, and not `rediss://`.
            let is_folder = name.strip_suffix('/').is_some_and(|name| {
                name.chars()
                    .all(|c| c.is_ascii_lowercase() || "-_/".contains(c))
            });
            let is_pattern = name.contains([' ', '*', '{', '<']) || name.contains("name.");
            if is_pattern || !(is_file || is_folder && name.len() > 1 && !name.ends_with("//")) {
                continue;
            }
            checked += 1;
            let exists = match is_folder {
                true => files
                    .iter()
                    .any(|file| file.ancestors().skip(1).any(|it| it.ends_with(path))),
                false => files.iter().any(|file| file.ends_with(path)),
            };
            if !exists {
                let page = page.strip_prefix(root()).unwrap_or(&page);
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(checked > 300, "hardly any file was found: {checked}");
    assert!(
        missing.is_empty(),
        "no such file or folder:\n{}",
        missing.join("\n")
    );
}

/// The files and folders of these folders: each has a word in ARCHITECTURE.md, so that a new one is
/// not forgotten.
#[test]
fn the_architecture_names_each_part() {
    let architecture = text("ARCHITECTURE.md");
    let named = quoted(&architecture);
    let is_named = |name: &str| {
        named.iter().any(|it| {
            let it = it.trim_end_matches('/');
            it == name || it.ends_with(&format!("/{name}"))
        })
    };
    // Files that have no part of their own: modules' roots and tests.
    let no_parts = ["lib", "mod", "schedules", "tests", "under_shuttle"];
    let folders = [
        "cache-runtime/src",
        "cache-runtime/src/cache",
        "cache-runtime/src/coalesce",
        "cache-runtime/src/invalidation",
        "cache-runtime/src/invalidation/queue",
        "cache-runtime/src/local",
        "cache-runtime/src/protocol",
        "cache-runtime/src/store",
        "cache-runtime/src/store/memcached",
        "cache-runtime/src/store/redis",
        "cache-runtime/src/store/redis/connection",
        "cache-runtime/src/store/redis/failover",
        "cache-runtime/src/store/redis/reads",
        "cache-runtime/src/store/redis/scripts",
        "cache-runtime/src/store/redis/tracking",
        "tests",
    ];
    let mut forgotten = Vec::new();
    for folder in folders {
        for entry in std::fs::read_dir(root().join(folder))
            .expect("a folder")
            .flatten()
        {
            let path = entry.path();
            let name = path
                .file_name()
                .and_then(|it| it.to_str())
                .unwrap_or_default();
            let stem = path
                .file_stem()
                .and_then(|it| it.to_str())
                .unwrap_or_default();
            let is_source = path.extension().is_some_and(|it| it == "rs");
            let is_part = is_source || path.is_dir();
            // A module that is a file and a folder is named once, by either of them.
            let is_both = [&path, &path.with_extension("rs")]
                .iter()
                .all(|it| it.exists())
                && path.with_extension("").is_dir();
            let is_there =
                is_named(name) || is_both && (is_named(stem) || is_named(&format!("{stem}.rs")));
            if is_part && !no_parts.contains(&stem) && !is_there {
                forgotten.push(format!("{folder}/{name}"));
            }
        }
    }
    forgotten.sort();
    assert!(
        forgotten.is_empty(),
        "ARCHITECTURE.md does not name {forgotten:#?}"
    );
}

#[test]
fn the_functions_of_the_read_and_the_write_path_exist() {
    let sources: Vec<_> = sources(&["cache-runtime/src"]).collect();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in ["read-path.md", "write-path.md"] {
        let text = text(&format!("docs/book/src/internals/{page}"));
        for line in text.lines().filter(|line| line.starts_with("| ")) {
            let columns: Vec<_> = line.trim_matches('|').split(" | ").collect();
            let [_, functions, count] = columns[..] else {
                continue;
            };
            let Ok(count) = count.trim().parse::<usize>() else {
                continue; // the heading
            };
            let mut file = String::new();
            let mut counted = 0;
            for name in quoted(functions) {
                if Path::new(&name).extension().is_some_and(|it| it == "rs") {
                    file = name;
                    continue;
                }
                counted += 1;
                let function = name.rsplit("::").next().unwrap_or_default();
                let defines = |source: &str| {
                    [" ", "\n"].iter().any(|before| {
                        ["(", "<"]
                            .iter()
                            .any(|after| source.contains(&format!("{before}fn {function}{after}")))
                    })
                };
                let is_there = sources
                    .iter()
                    .any(|(path, source)| path.ends_with(&file) && defines(source));
                if !is_there {
                    wrong.push(format!("{page}: `{file}` has no function `{name}`"));
                }
            }
            if counted != count {
                wrong.push(format!("{page}: {counted} functions, not {count}: {line}"));
            }
            checked += counted;
        }
    }
    assert!(checked > 100, "hardly any function was found: {checked}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_configuration_page_has_each_variable() {
    let page = text("docs/book/src/configuration.md");
    let is_variable = |name: &String| {
        let mut letters = name.chars();
        letters.all(|c| c.is_ascii_uppercase() || c == '_') && name.len() > 3
    };
    let (of_the_cache, of_the_demo) = page.split_once("\n## The demo").expect("a section");
    let of_page =
        |page: &str| -> BTreeSet<_> { rows(page, "variable").filter(is_variable).collect() };
    let typos = text("cache-runtime/src/config/typos.rs");
    let cache = literals(between(&typos, "NAMES: [&str", "];"));
    let documented = of_page(of_the_cache);
    assert_same("configuration.md", &documented, "typos.rs", &cache);
    let config = text("demo-api/src/config.rs");
    let mut demo = literals(between(&config, "VARIABLES: [&str;", "];"));
    demo.insert("RUST_LOG".to_owned()); // `tracing_subscriber` reads it
    let documented = of_page(of_the_demo);
    assert_same(
        "configuration.md",
        &documented,
        "demo-api/src/config.rs",
        &demo,
    );

    // The example of a `.env` has all of them, and those of the demo's two resources.
    let example = text(".env.example");
    let set = example.lines().filter_map(|line| {
        let (name, _) = line.trim_start_matches('#').split_once('=')?;
        Some(name.to_owned())
    });
    let set: BTreeSet<_> = set.filter(is_variable).collect();
    let resources = ["CACHE_TTL_USERS", "CACHE_TTL_PRODUCTS"].map(str::to_owned);
    let all: BTreeSet<_> = cache.into_iter().chain(demo).chain(resources).collect();
    assert_same(".env.example", &set, "the sources", &all);
}

/// The options that a table of `args.rs` defines.
fn options(table: &str) -> BTreeSet<String> {
    let source = text("cache-macros/src/args.rs");
    let table = between(&source, &format!("const {table}: OptionTable<"), "];");
    let names = table.split("(\"").skip(1);
    names
        .filter_map(|rest| Some(rest.split_once("\", |")?.0.to_owned()))
        .collect()
}

/// The options in an example of them: `id` in `"users", id = id`, `tags` in `tags("a", "b")`.
fn options_in(example: &str) -> impl Iterator<Item = String> {
    let mut depth = 0_usize;
    let outside: String = example
        .chars()
        .filter(|c| {
            depth = (depth + usize::from(*c == '(')).saturating_sub(usize::from(*c == ')'));
            depth == 0
        })
        .collect();
    let names: Vec<_> = outside
        .split(',')
        .map(|part| {
            let part = part.trim();
            let end = part.find(|c: char| !(c.is_ascii_lowercase() || c == '_'));
            part[..end.unwrap_or(part.len())].to_owned()
        })
        .collect();
    names.into_iter().filter(|name| !name.is_empty())
}

#[test]
fn the_pages_of_the_attributes_have_each_option() {
    for (table, page) in [("CACHED", "cached.md"), ("INVALIDATES", "invalidates.md")] {
        let defined = options(table);
        let reference = text(&format!("cache-macros/src/docs/{page}"));
        let headings = reference.lines().filter(|line| line.starts_with("## `"));
        let headings: BTreeSet<_> = headings
            .flat_map(quoted)
            .flat_map(|code| options_in(&code).collect::<Vec<_>>())
            .collect();
        assert_same(&format!("docs/{page}"), &headings, "args.rs", &defined);
        let book = text(&format!("docs/book/src/{page}"));
        let rows: BTreeSet<_> = rows(&book, "option")
            .flat_map(|code| options_in(&code).collect::<Vec<_>>())
            .collect();
        assert_same(&format!("the book's {page}"), &rows, "args.rs", &defined);
    }
}

#[test]
fn the_tables_of_features_have_each_feature() {
    let manifest = text("cache-runtime/Cargo.toml");
    let lines = between(&manifest, "[features]\n", "\n[").lines();
    let defined: BTreeSet<_> = lines
        .filter_map(|line| Some(line.split_once(" = [")?.0.to_owned()))
        .filter(|name| name != "default")
        .collect();
    let readme: BTreeSet<_> = rows(&text("README.md"), "feature").collect();
    // "`outbox-*`" is in a cell that explains another feature, not in a first one.
    assert_same("README.md", &readme, "Cargo.toml", &defined);
    let page = text("docs/book/src/configuration.md");
    let page: BTreeSet<_> = rows(&page, "feature of `cache-runtime`").collect();
    assert_same("configuration.md", &page, "Cargo.toml", &defined);
}

#[test]
fn the_page_of_metrics_has_each_metric() {
    let source = text("cache-runtime/src/metrics/names.rs");
    let defined: BTreeSet<_> = literals(between(&source, "\nmetrics! {", "\n}"))
        .into_iter()
        .filter(|name| name.starts_with("cache_"))
        .collect();
    let page: BTreeSet<_> = rows(&text("docs/book/src/metrics.md"), "name").collect();
    assert_same("metrics.md", &page, "metrics/names.rs", &defined);
}

#[test]
fn the_page_of_statistics_has_each_reason() {
    let source = text("cache-runtime/src/call/observe.rs");
    let page = text("docs/book/src/statistics.md");
    for (reason, heading) in [
        ("BypassReason", "`detail` of a bypass"),
        ("StaleReason", "`detail` of an expired entry"),
    ] {
        let (_, source) = source
            .split_once(&format!("\nimpl {reason} {{"))
            .expect("a block");
        let defined = literals(between(source, "pub fn as_str", "\n}"));
        let documented: BTreeSet<_> = rows(&page, heading).collect();
        assert_same("statistics.md", &documented, "call/observe.rs", &defined);
    }
}

/// The sources, with each string on one line: it may go on in the next one, behind a backslash.
fn joined_sources() -> impl Iterator<Item = (PathBuf, String)> {
    sources(&["cache-runtime/src"]).map(|(path, source)| {
        let mut joined = String::new();
        for (at, part) in source.split("\\\n").enumerate() {
            joined.push_str(if at == 0 { part } else { part.trim_start() });
        }
        (path, joined)
    })
}

/// The part of the page on logs that lists events.
fn listed_events() -> String {
    let page = text("docs/book/src/logs-and-traces.md");
    let (_, events) = page
        .split_once("\n## Events that an operator should see")
        .expect("a section");
    events.to_owned()
}

/// The page quotes messages, with `..` for what varies.
#[test]
fn the_sources_have_each_message_of_the_log() {
    let sources: Vec<_> = joined_sources().map(|(_, source)| source).collect();
    let mut missing = Vec::new();
    let mut checked = 0;
    for line in listed_events()
        .lines()
        .filter(|line| line.starts_with("| "))
    {
        let columns: Vec<_> = line.split(" | ").collect();
        let [_, messages, _] = columns[..] else {
            continue;
        };
        for message in quoted(messages) {
            for part in message.split("..").map(str::trim) {
                checked += 1;
                if !sources.iter().any(|source| source.contains(part)) {
                    missing.push(message.clone());
                }
            }
        }
    }
    assert!(checked > 50, "hardly any message was found: {checked}");
    assert!(missing.is_empty(), "no source has {missing:#?}");
}

/// The string literals up to the end of a macro's arguments.
fn arguments(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut literal: Option<String> = None;
    let mut depth = 1_usize;
    let mut letters = source.chars();
    while let Some(c) = letters.next() {
        match (&mut literal, c) {
            (Some(text), '\\') => text.extend(letters.next()),
            (Some(_), '"') => found.extend(literal.take()),
            (Some(text), c) => text.push(c),
            (None, '"') => literal = Some(String::new()),
            (None, '(') => depth += 1,
            (None, ')') if depth == 1 => break,
            (None, ')') => depth -= 1,
            (None, _) => {}
        }
    }
    found
}

/// The start of a message's longest part that does not vary.
fn fixed_part(message: &str) -> &str {
    let parts = message.split(['{', '}']).step_by(2);
    let longest = parts.max_by_key(|part| part.len()).unwrap_or_default();
    let end = longest.find([':', ';', ',']).unwrap_or(longest.len());
    longest[..end].trim()
}

#[test]
fn the_page_of_the_log_has_each_event() {
    let listed = listed_events();
    let mut missing = Vec::new();
    let mut checked = 0;
    for (path, source) in joined_sources() {
        // The page sums up what is said of single variables.
        let is_of_variables = path.components().any(|part| part.as_os_str() == "config");
        if is_of_variables || path.ends_with("tests.rs") {
            continue;
        }
        for level in ["error", "warn", "info"] {
            for arguments_on in source.split(&format!("tracing::{level}!(")).skip(1) {
                let literals = arguments(arguments_on);
                // The last text is the message. One without words has all of it put in.
                let message = literals.iter().rfind(|text| text.contains(' '));
                let part = message.map_or("", |message| fixed_part(message));
                checked += 1;
                // One variable is named in the message of another folder, too.
                if !listed.contains(part) && !part.starts_with("CACHE_") {
                    missing.push(format!("{}: {part}", path.display()));
                }
            }
        }
    }
    assert!(checked > 30, "hardly any event was found: {checked}");
    assert!(missing.is_empty(), "logs-and-traces.md lacks {missing:#?}");
}

#[test]
fn every_script_that_a_document_names_exists() {
    let mut checked = 0;
    let mut missing = Vec::new();
    for page in documents() {
        let text = std::fs::read_to_string(&page).expect("a document is text");
        // In examples, too, and not within longer paths.
        for (before, rest) in text
            .match_indices("scripts/")
            .map(|(at, found)| (&text[..at], &text[at + found.len()..]))
        {
            let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '-'));
            let (name, behind) = rest.split_at(end.unwrap_or(rest.len()));
            let is_source = behind.starts_with(".rs");
            if before.ends_with('/') || name.is_empty() || is_source {
                continue;
            }
            checked += 1;
            if !root().join("scripts").join(name).exists() {
                missing.push(format!("{}: scripts/{name}", page.display()));
            }
        }
    }
    assert!(checked > 50, "hardly any script was found: {checked}");
    assert!(missing.is_empty(), "no such script: {missing:#?}");
}

#[test]
fn the_types_of_the_glossary_exist() {
    let sources: Vec<_> = sources(&["cache-runtime/src"]).map(|(_, it)| it).collect();
    let mut checked = 0;
    let mut missing = Vec::new();
    for line in text("docs/book/src/internals/glossary.md").lines() {
        let columns: Vec<_> = line.split(" | ").collect();
        let [_, meaning, _] = columns[..] else {
            continue;
        };
        for name in quoted(meaning) {
            let name = name.rsplit("::").next().unwrap_or_default();
            let is_type = name.starts_with(|c: char| c.is_ascii_uppercase())
                && name.chars().any(|c| c.is_ascii_lowercase());
            if !is_type {
                continue;
            }
            checked += 1;
            let defines = |source: &String| {
                let kinds = ["struct", "enum", "trait"];
                let mut names = kinds.iter().map(|kind| format!("{kind} {name}"));
                names.any(|it| source.contains(&it))
            };
            if !sources.iter().any(defines) {
                missing.push(name.to_owned());
            }
        }
    }
    assert!(checked > 5, "hardly any type was found: {checked}");
    assert!(missing.is_empty(), "no such type: {missing:#?}");
}
