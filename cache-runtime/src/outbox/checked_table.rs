//! A table whose options fit the program: its resources and tags are those of cached functions.

use std::collections::{BTreeMap, BTreeSet};

use super::table::Table;
use crate::base::error::{Error, ErrorKind, shortened};
use crate::key::is_resource;
use crate::registry::catalog::{CachedFunction, Catalog, blanked, is_constant, nearest};

/// A table whose options have been checked.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub(super) table: Table,
    /// The columns that ids and tags are made of, each once.
    pub(super) columns: Vec<String>,
    /// The resources whose ids look alike in keys and in the database, if their column is of a type
    /// that fits.
    pub(super) plain: BTreeMap<String, IdKind>,
    pub(super) tags: Vec<Tag>,
}

/// The type of a resource's ids in a program, where their text in a key is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdKind {
    Integer,
    Text,
    Uuid,
    /// One function takes them as this, another as that: no column fits both.
    Mixed,
    /// No function reads rows, so none of them is in a key.
    Unread,
}

impl IdKind {
    /// By the type's name in the program.
    fn of(name: &str) -> Option<Self> {
        match name {
            "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" => Some(Self::Integer),
            "String" | "str" | "&str" => Some(Self::Text),
            "Uuid" => Some(Self::Uuid),
            _ => None,
        }
    }

    /// The types of columns whose text is that in a key, as a list in SQL.
    pub(super) fn column_types(self) -> &'static str {
        match self {
            Self::Integer => "'int8'::regtype, 'int4'::regtype, 'int2'::regtype",
            Self::Text => "'text'::regtype, 'varchar'::regtype",
            Self::Uuid => "'uuid'::regtype",
            Self::Mixed | Self::Unread => "NULL::regtype",
        }
    }

    /// In words, for people.
    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::Integer => "whole numbers",
            Self::Text => "texts",
            Self::Uuid => "UUIDs",
            Self::Mixed => "of several types",
            Self::Unread => "read by nobody",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Tag {
    pub(super) parts: Vec<TagPart>,
    /// The resources that are invalidated if there are too many tags.
    pub(super) resources: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TagPart {
    Text(String),
    Column(String),
}

impl Followed {
    pub(super) fn of(table: Table, catalog: &Catalog) -> Result<Self, Error> {
        let refuse = |what: String| {
            let name = shortened(&table.name);
            Error::new(ErrorKind::InvalidConfig, format!("table `{name}`: {what}"))
        };
        let (schema, name) = table.names();
        if [Some(name), schema]
            .into_iter()
            .flatten()
            .any(|name| name.is_empty() || name.contains('\0'))
        {
            return Err(refuse("this is no name of a table".into()));
        }
        if let Some(problem) = table.problem {
            return Err(refuse(problem.into()));
        }
        if table.resources.is_empty() && table.tags.is_empty() {
            return Err(refuse(
                "it follows nothing; give it a resource or a tag".into(),
            ));
        }
        let mut columns: BTreeSet<String> = BTreeSet::new();
        let mut plain = BTreeMap::new();
        for (resource, id) in &table.resources {
            check_resource(resource, id, catalog).map_err(&refuse)?;
            if let Some(kind) = plain_ids(resource, catalog) {
                plain.insert(resource.clone(), kind);
            }
            columns.extend(id.iter().cloned());
        }
        let mut tags = Vec::new();
        for text in &table.tags {
            let parts = parts_of(text).map_err(&refuse)?;
            let resources = carriers_of(text, catalog).map_err(&refuse)?;
            columns.extend(parts.iter().filter_map(|part| match part {
                TagPart::Column(column) => Some(column.clone()),
                TagPart::Text(_) => None,
            }));
            tags.push(Tag { parts, resources });
        }
        let compared = table.compared.iter().flatten();
        let mut named = columns.iter().chain(compared);
        if let Some(column) = named.find(|it| it.is_empty() || it.contains('\0')) {
            return Err(refuse(format!("`{}` is no column", shortened(column))));
        }
        let columns = columns.into_iter().collect();
        Ok(Self {
            table,
            columns,
            plain,
            tags,
        })
    }
}

fn parts_of(tag: &str) -> Result<Vec<TagPart>, String> {
    let refuse = || format!("the braces of the tag `{}` don't match", shortened(tag));
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut letters = tag.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '{' | '}' if letters.peek() == Some(&letter) => {
                letters.next();
                text.push(letter);
            }
            '{' => {
                parts.push(TagPart::Text(std::mem::take(&mut text)));
                let mut column = String::new();
                loop {
                    match letters.next() {
                        Some('}') => break,
                        Some('{') | None => return Err(refuse()),
                        Some(letter) => column.push(letter),
                    }
                }
                parts.push(TagPart::Column(column));
            }
            '}' => return Err(refuse()),
            letter => text.push(letter),
        }
    }
    parts.push(TagPart::Text(text));
    parts.retain(|part| *part != TagPart::Text(String::new()));
    if parts.is_empty() {
        return Err("a tag is empty".into());
    }
    Ok(parts)
}

/// Whether two tags with blanks may be the same text. A blank, `{}`, may be anything: a whole tag,
/// or several parts of one.
fn may_be_one(one: &str, other: &str) -> bool {
    /// A letter, or a blank.
    fn split(tag: &str) -> Option<(Option<char>, &str)> {
        let mut letters = tag.chars();
        match tag.strip_prefix("{}") {
            Some(rest) => Some((None, rest)),
            None => letters
                .next()
                .map(|letter| (Some(letter), letters.as_str())),
        }
    }
    // The pairs of remaining texts to compare, each once.
    let (mut open, mut seen) = (vec![(one, other)], BTreeSet::new());
    while let Some((one, other)) = open.pop() {
        if !seen.insert((one.len(), other.len())) {
            continue;
        }
        match (split(one), split(other)) {
            (None, None) => return true,
            (Some((Some(a), one)), Some((Some(b), other))) if a == b => open.push((one, other)),
            (a, b) => {
                // The blank ends, or covers one more letter of the other text.
                if let Some((None, rest)) = a {
                    open.push((rest, other));
                    open.extend(b.map(|(_, rest)| (one, rest)));
                }
                if let Some((None, rest)) = b {
                    open.push((one, rest));
                    open.extend(a.map(|(_, rest)| (rest, other)));
                }
            }
        }
    }
    false
}

/// The resources of the functions that have a tag.
fn carriers_of(tag: &str, catalog: &Catalog) -> Result<BTreeSet<String>, String> {
    let blank = blanked(tag);
    let carries = |reader: &&CachedFunction| {
        let mut tags = reader.tags.iter();
        tags.any(|tag| may_be_one(&blanked(tag), &blank))
    };
    let carriers = catalog.readers().iter().filter(carries);
    let carriers: BTreeSet<String> = carriers.map(|reader| reader.resource.clone()).collect();
    if let Some(unbound) = carriers.iter().find(|it| is_constant(it)) {
        let constant = unbound.trim_matches(['{', '}']);
        return Err(format!(
            "functions of the resource `{unbound}` carry the tag `{}`; say which resources that is with `bind(\"{constant}\", ..)` on the catalog",
            shortened(tag)
        ));
    }
    if carriers.is_empty() {
        let known: BTreeSet<String> = catalog
            .readers()
            .iter()
            .flat_map(|reader| reader.tags.iter().map(|tag| blanked(tag)))
            .collect();
        let hint = nearest(&blank, known.iter().map(String::as_str));
        return Err(format!(
            "no cached function carries the tag `{}`{}",
            shortened(tag),
            hint.map_or_else(String::new, |it| format!("; did you mean `{it}`?"))
        ));
    }
    Ok(carriers)
}

fn check_resource(resource: &str, id: &[String], catalog: &Catalog) -> Result<(), String> {
    let shown = shortened(resource);
    if !is_resource(resource) {
        return Err(format!(
            "`{shown}` is no resource; use lower-case letters, digits, `-` and `_`"
        ));
    }
    let readers = catalog.readers();
    let reads = |reader: &&CachedFunction| {
        reader.resource == resource || reader.depends.iter().any(|it| it == resource)
    };
    if !readers.iter().any(|reader| reads(&reader))
        && !readers.iter().any(|it| is_constant(&it.resource))
    {
        let names = readers.iter().map(|reader| reader.resource.as_str());
        let hint = nearest(resource, names);
        return Err(format!(
            "no cached function reads the resource `{shown}`{}",
            hint.map_or_else(String::new, |it| format!("; did you mean `{it}`?"))
        ));
    }
    let of_rows = readers
        .iter()
        .filter(|reader| reader.resource == resource && reader.is_entity());
    for reader in of_rows.filter(|_| !id.is_empty()) {
        if let Some(parts) = parts_of_id(&reader.key)
            && parts != id.len()
        {
            return Err(format!(
                "the id of `{shown}` has {} here, and {parts} in `{}`",
                id.len(),
                reader.function
            ));
        }
        let unclear = [
            "Vec<", "HashSet", "BTreeSet", "f32", "f64", "DateTime", "Decimal", "[",
        ];
        if let Some(unclear) = unclear.into_iter().find(|it| reader.key.contains(it)) {
            return Err(format!(
                "the id of `{}` is {}, and a column's text may differ from what `{unclear}` looks like in a key; leave the id out to invalidate all of `{shown}`",
                reader.function, reader.key
            ));
        }
    }
    Ok(())
}

/// The type of a resource's ids, if all functions that read its rows take them as a type whose
/// text in a key is known. Of any other only a process that has called such a function knows what
/// it looks like.
fn plain_ids(resource: &str, catalog: &Catalog) -> Option<IdKind> {
    if catalog.readers().iter().any(|it| is_constant(&it.resource)) {
        return None;
    }
    let readers = catalog.readers().iter();
    let of_rows = readers.filter(|it| it.resource == resource && it.is_entity());
    let mut kinds = of_rows.map(|reader| IdKind::of(type_of_id(&reader.key)?));
    let Some(first) = kinds.next() else {
        return Some(IdKind::Unread);
    };
    kinds.try_fold(first?, |known, kind| {
        let is_same = kind? == known;
        Some(if is_same { known } else { IdKind::Mixed })
    })
}

/// The type of an id that is a parameter; `None` for any other expression.
fn type_of_id(key: &str) -> Option<&str> {
    let inside = key.strip_prefix('{')?.strip_suffix('}')?;
    inside.rsplit_once(": ").map(|(_, kind)| kind.trim())
}

/// The number of parts of an id that is written as a tuple; 1 for a plain parameter, `None` for any
/// other expression.
fn parts_of_id(key: &str) -> Option<usize> {
    let inside = key.strip_prefix('{')?.strip_suffix('}')?;
    let kind = inside.rsplit_once(": ").map(|(_, kind)| kind);
    let text = kind.unwrap_or(inside).trim();
    let Some(tuple) = text.strip_prefix('(').and_then(|it| it.strip_suffix(')')) else {
        return IdKind::of(kind?).map(|_| 1);
    };
    let (mut depth, mut parts) = (0u32, 1);
    for letter in tuple.trim_end_matches([',', ' ']).chars() {
        match letter {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => parts += 1,
            _ => {}
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::catalog::test_map;
    use crate::registry::{Role, Site};

    /// A tag that is one expression may be any tag.
    #[test]
    fn all_that_may_carry_a_tag_goes_where_there_are_too_many() {
        let carriers = |tag: &str| {
            let map = test_map(&[
                Site::new(Role::Reads, "one", "users:one, tag team:{id}"),
                Site::new(Role::Reads, "two", "posts:two, tag {t}"),
                Site::new(Role::Reads, "three", "days:three, tag {kind}:{id}"),
                Site::new(Role::Reads, "four", "orders:four, tag teams"),
            ]);
            let carriers = carriers_of(tag, &map).expect("carried");
            carriers.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(carriers("team:{team_id}"), ["days", "posts", "users"]);
        assert_eq!(carriers("{whole}"), ["days", "orders", "posts", "users"]);
        assert_eq!(carriers("teams"), ["orders", "posts"]);
        for (one, other, may) in [
            ("a{}c", "abc", true),
            ("a{}c", "ac", true),
            ("a{}c", "ab", false),
            ("{}b", "a{}", true),
            ("x{}", "y{}", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(may_be_one(one, other), may, "{one} {other}");
            assert_eq!(may_be_one(other, one), may, "{other} {one}");
        }
    }

    #[test]
    fn tags_are_read() {
        let column = |name: &str| TagPart::Column(name.into());
        let text = |text: &str| TagPart::Text(text.into());
        assert_eq!(
            parts_of("a{{b}}:{c}{d}"),
            Ok(vec![text("a{b}:"), column("c"), column("d")])
        );
        assert!(parts_of("a}b").is_err() && parts_of("").is_err());
    }
}
