//! Compares whole expansions with those in `tests/expand`.
//!
//! `SNAPSHOTS=overwrite cargo test --workspace --lib snapshots` writes them again. Other tests
//! compile them; these don't.

use std::fs;
use std::path::PathBuf;

use syn::parse::{Parse, ParseStream, Parser};
use syn::{Attribute, File, ImplItem, Item, Meta, TraitItem};

use crate::testing::expansion;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/expand");

/// The sources, each with the path of its snapshot.
fn sources() -> Vec<(PathBuf, PathBuf)> {
    let files = fs::read_dir(FOLDER).expect("the sources are there");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| !path.to_string_lossy().ends_with(".expanded.rs"));
    paths.sort();
    let with_snapshot = |path: PathBuf| (path.clone(), path.with_extension("expanded.rs"));
    paths.into_iter().map(with_snapshot).collect()
}

/// A source file with each annotated function as its attributes leave it.
fn expanded(source: &str) -> String {
    let file: File = syn::parse_str(source).expect("a source file");
    let items = file.items.into_iter().flat_map(items).collect();
    prettyplease::unparse(&File { items, ..file })
}

fn items(mut item: Item) -> Vec<Item> {
    match &mut item {
        Item::Fn(function) => {
            if let Some(attribute) = take(&mut function.attrs) {
                let written = parsed(&attribute, &item);
                return written.into_iter().flat_map(items).collect();
            }
        }
        Item::Mod(module) => {
            if let Some((_, content)) = &mut module.content {
                *content = std::mem::take(content)
                    .into_iter()
                    .flat_map(items)
                    .collect();
            }
        }
        Item::Impl(block) => {
            let old = std::mem::take(&mut block.items);
            block.items = old
                .into_iter()
                .flat_map(|mut item| match &mut item {
                    ImplItem::Fn(function) => match take(&mut function.attrs) {
                        Some(attribute) => parsed(&attribute, &item),
                        None => vec![item],
                    },
                    _ => vec![item],
                })
                .collect();
        }
        Item::Trait(block) => {
            let old = std::mem::take(&mut block.items);
            block.items = old
                .into_iter()
                .flat_map(|mut item| match &mut item {
                    TraitItem::Fn(function) => match take(&mut function.attrs) {
                        Some(attribute) => parsed(&attribute, &item),
                        None => vec![item],
                    },
                    _ => vec![item],
                })
                .collect();
        }
        _ => {}
    }
    vec![item]
}

/// The first of our attributes, which is then no more among them.
fn take(attributes: &mut Vec<Attribute>) -> Option<Attribute> {
    let is_ours = |attribute: &Attribute| {
        let name = attribute.path().segments.last();
        name.is_some_and(|name| name.ident == "cached" || name.ident == "invalidates")
    };
    let at = attributes.iter().position(is_ours)?;
    Some(attributes.remove(at))
}

/// What an attribute makes of a function.
fn parsed<I: Parse>(attribute: &Attribute, item: &impl quote::ToTokens) -> Vec<I> {
    let name = attribute.path().segments.last().expect("a name");
    let options = match &attribute.meta {
        Meta::List(list) => list.tokens.clone(),
        _ => Default::default(),
    };
    let written = expansion(&name.ident.to_string(), options, item.to_token_stream());
    let all = |input: ParseStream<'_>| {
        let mut items = Vec::new();
        while !input.is_empty() {
            items.push(input.parse()?);
        }
        Ok(items)
    };
    all.parse2(written).expect("a macro writes items")
}

#[test]
fn snapshots_are_as_they_were() {
    let is_overwritten = std::env::var("SNAPSHOTS").is_ok_and(|what| what == "overwrite");
    for (source, snapshot) in sources() {
        let text = fs::read_to_string(&source).expect("readable");
        let text = expanded(&text);
        if is_overwritten {
            fs::write(&snapshot, text).expect("writable");
            continue;
        }
        let before = fs::read_to_string(&snapshot).unwrap_or_default();
        assert_eq!(text, before, "{}", snapshot.display());
    }
}

/// Longer expansions are hard to read: a part of them belongs in the runtime.
const MOST_LINES: usize = 15;
/// How many lines options add. A body that may outlive its caller has to list what it keeps, and
/// one with a load context names it. An argument that is examined makes the plan too long for one
/// line, and so does a long name for the site.
const MORE_LINES: [(&str, usize); 4] = [
    ("run_detached", 9),
    ("LoadContext", 2),
    ("__crt::argument", 9),
    ("        || (),", 4),
];

#[test]
fn an_expansion_fits_a_glance() {
    let mut functions = 0;
    for (_, path) in sources() {
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
