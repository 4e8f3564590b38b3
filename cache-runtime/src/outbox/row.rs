//! Decodes a row, and translates it into invalidations.
//!
//! `kind` is `row`, `tag` or `all`. A value is JSON, so that `1` and `"1"` differ: a number, a
//! text, `null`, a boolean, or a list of these for an id of several columns. `{"key": ".."}` is an
//! id or a tag as it appears in keys, written by a process of this framework. `{"id": ..}` is an id
//! whose text in keys may differ from that in the database, so only a process that knows the ids of
//! the resource can translate it. `all` without a resource is everything.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ::sqlx::Row as _;
use ::sqlx::postgres::PgRow;
use serde::ser::{Error as _, SerializeTuple};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::base::error::shortened;
use crate::call::write::{PlannedWrite, WritePlan};
use crate::engine::Handle;
use crate::invalidation::InvalidationRequest;
use crate::key::{KeySpace, is_resource};
use crate::registry::Resource;

/// The longest value that is read, in bytes. With a longer id the resource is invalidated as a
/// whole.
pub(super) const LONGEST_VALUE: usize = 1 << 16;

/// With more rows of a resource, it is invalidated as a whole.
pub(super) const MOST_ROWS: usize = 1_000;

/// The most rows that are taken at a time.
pub(super) const BATCH: usize = 1_000;

/// A row of the table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) resource: Option<String>,
    pub(super) kind: String,
    /// `None` also if it is too long, or not UTF-8.
    pub(super) value: Option<String>,
    pub(super) age_ms: i64,
}

impl Row {
    /// One for everything of a resource, or for everything, that is in no table.
    pub(super) fn whole(resource: Option<String>) -> Self {
        Self {
            id: 0,
            resource,
            kind: "all".to_owned(),
            value: None,
            age_ms: 0,
        }
    }

    /// The age of the row `r`; `None` if its time is not finite.
    pub(super) const AGE_MS: &'static str = "CASE WHEN isfinite(r.created) \
        THEN (extract(epoch FROM clock_timestamp() - r.created) * 1000)::bigint ELSE 0 END";

    /// The columns that [`read`](Self::read) takes, of the row `r`. Texts are bytes: in a database
    /// of the encoding `SQL_ASCII` one may be none of UTF-8, and PostgreSQL would refuse to send
    /// it, with all the others.
    pub(super) fn columns() -> String {
        format!(
            "r.id, {resource}, {kind}, \
             CASE WHEN octet_length(r.value) <= {LONGEST_VALUE} THEN {value} END, {age}",
            resource = bytes("left(r.resource, 200)"),
            kind = bytes("left(r.kind, 20)"),
            value = bytes("r.value"),
            age = Self::AGE_MS,
        )
    }

    /// The columns `id`, `resource` and `kind` of the row `r`, the texts as bytes.
    pub(super) fn group_columns() -> String {
        format!(
            "r.id, {resource} AS resource, {kind} AS kind",
            resource = bytes("left(r.resource, 200)"),
            kind = bytes("left(r.kind, 20)"),
        )
    }

    /// Reads them, starting at column `at`; `None` if there is no row.
    pub(super) fn read(row: &PgRow, at: usize) -> Result<Option<Self>, ::sqlx::Error> {
        let Some(id) = row.try_get(at)? else {
            return Ok(None);
        };
        let bytes = |at: usize| row.try_get_unchecked::<Option<Vec<u8>>, _>(at);
        Ok(Some(Self {
            id,
            resource: bytes(at + 1)?.map(lossy),
            kind: bytes(at + 2)?.map(lossy).unwrap_or_default(),
            value: bytes(at + 3)?.and_then(|value| String::from_utf8(value).ok()),
            age_ms: row.try_get(at + 4)?,
        }))
    }
}

/// Reads an array of PostgreSQL.
pub(super) fn ids_of(array: &str) -> Vec<i64> {
    let ids = array.trim_matches(['{', '}']).split(',');
    ids.filter_map(|id| id.parse().ok()).collect()
}

/// The bytes of a text, in SQL.
fn bytes(text: &str) -> String {
    if crate::base::mutation::is_active("outbox-texts-sent-as-such") {
        return format!("{text}::text");
    }
    let encoding = "CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END";
    format!("convert_to({text}, ({encoding})::name)")
}

/// A text for people, whatever its encoding.
pub(super) fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The meaning of many rows together.
#[derive(Debug, Default)]
pub(super) struct Meaning {
    pub(super) request: InvalidationRequest,
    /// Whether everything in the namespace is invalidated.
    pub(super) everything: bool,
    /// Rows that can't be read, and why. Everything that they may have meant is invalidated all the
    /// same.
    pub(super) poison: Vec<(Row, String)>,
}

/// Translates rows into invalidations for a cache.
pub(super) fn meaning(cache: &Handle, rows: Vec<Row>) -> Meaning {
    let mut meaning = Meaning::default();
    let mut resources: HashMap<String, Arc<Resource>> = HashMap::new();
    for row in rows {
        let mut whole = |name: &str| {
            let known = resources.get(name).cloned();
            let resource = known.unwrap_or_else(|| cache.unregistered_resource(name));
            resources.insert(name.to_owned(), Arc::clone(&resource));
            WritePlan::new(cache, None).known(resource)
        };
        let resource = row.resource.as_deref().filter(|name| is_resource(name));
        let plan = match (row.kind.as_str(), resource, &row.resource, &row.value) {
            ("all", Some(name), ..) => Ok(Some(whole(name))),
            ("all", None, None, _) => Ok(None),
            ("row", Some(name), _, Some(value)) => Id::read(value).map(|id| {
                Some(match &id {
                    Id::Rendered(id) => whole(name).rendered_id(id),
                    Id::Plain(id) => whole(name).id(id),
                    Id::Unclear(id) => whole(name).unclear_id(id),
                })
            }),
            ("tag", .., Some(value)) => Id::read(value).and_then(|tag| match &tag {
                Id::Rendered(tag) => Ok(Some(WritePlan::new(cache, None).rendered_tag(tag))),
                Id::Plain(PlainId(Value::String(tag))) => {
                    Ok(Some(WritePlan::new(cache, None).tag(tag)))
                }
                Id::Plain(_) | Id::Unclear(_) => Err("a tag is no text".to_owned()),
            }),
            (_, None, Some(name), _) => Err(format!("`{}` is no resource", shortened(name))),
            ("row" | "tag", _, _, None) => {
                Err("it has no value, one of over 64 KiB, or one that is not UTF-8".to_owned())
            }
            ("row", None, None, _) => Err("it names no resource".to_owned()),
            (kind, ..) => Err(format!("`{}` is no kind", shortened(kind))),
        };
        // A row that can't be read may have meant anything of its resource, or anything at all.
        let plan = plan.unwrap_or_else(|reason| {
            let plan = resource.map(&mut whole);
            meaning.poison.push((row.clone(), reason));
            plan
        });
        match plan {
            Some(plan) => {
                let request = std::mem::take(&mut meaning.request);
                meaning.request = request.and(plan.finish().into_request());
            }
            None => meaning.everything = true,
        }
    }
    meaning
}

/// An id, or a tag.
enum Id {
    /// As it appears in keys.
    Rendered(String),
    Plain(PlainId),
    /// Its text in keys may differ.
    Unclear(PlainId),
}

impl Id {
    fn read(value: &str) -> Result<Self, String> {
        match serde_json::from_str(value) {
            Ok(Value::Object(mut object)) => match (object.remove("key"), object.remove("id")) {
                (Some(Value::String(key)), None) => Ok(Self::Rendered(key)),
                (None, Some(id)) => plain(id).map(Self::Unclear),
                _ => Err("its value is an object without a `key` or an `id`".to_owned()),
            },
            Ok(value) => plain(value).map(Self::Plain),
            Err(_) => Err("its value is no JSON".to_owned()),
        }
    }
}

fn plain(value: Value) -> Result<PlainId, String> {
    let refused = |value: &Value| value.is_object() || value.is_f64();
    match &value {
        Value::Array(parts) if parts.iter().any(|it| it.is_array() || refused(it)) => {
            Err("a part of its id has parts, or is no whole number".to_owned())
        }
        value if refused(value) => Err("its id is no whole number".to_owned()),
        _ => Ok(PlainId(value)),
    }
}

/// An id as serde would see it in a program, where a list is a tuple.
struct PlainId(Value);

impl Serialize for PlainId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Value::Array(parts) => {
                let mut tuple = serializer.serialize_tuple(parts.len())?;
                for part in parts {
                    tuple.serialize_element(&IdPart(part))?;
                }
                tuple.end()
            }
            // serde reads JSON's null as a unit.
            Value::Null => serializer.serialize_none(),
            Value::Object(_) => Err(S::Error::custom("no id is an object")),
            plain => plain.serialize(serializer),
        }
    }
}

/// A part of an id, of the column's type. In a program's JSON value, a number and a text that looks
/// like one are different.
struct IdPart<'a>(&'a Value);

impl Serialize for IdPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            // As above, of a column that may be NULL.
            Value::Null => serializer.serialize_none(),
            plain => plain.serialize(serializer),
        }
    }
}

/// A row to write. Ordered, so that duplicates are written once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct NewRow {
    pub(super) resource: Option<String>,
    pub(super) kind: &'static str,
    pub(super) value: Option<String>,
}

impl NewRow {
    /// A row by its id as it appears in keys.
    pub(super) fn row(resource: &str, rendered: &str) -> Self {
        Self {
            resource: Some(resource.to_owned()),
            kind: "row",
            value: Some(json!({ "key": rendered }).to_string()),
        }
    }

    /// A resource, or everything.
    pub(super) fn all(resource: Option<&str>) -> Self {
        Self {
            resource: resource.map(str::to_owned),
            kind: "all",
            value: None,
        }
    }

    pub(super) fn tag(tag: &str) -> Self {
        Self {
            resource: None,
            kind: "tag",
            value: Some(json!(tag).to_string()),
        }
    }

    fn rendered_tag(tag: &str) -> Self {
        Self {
            resource: None,
            kind: "tag",
            value: Some(json!({ "key": tag }).to_string()),
        }
    }
}

/// The rows that a transaction has to write, so that the relay can invalidate what its writes
/// change.
pub(super) fn rows_of(writes: &[PlannedWrite], everything: bool, space: &KeySpace) -> Vec<NewRow> {
    if everything {
        return vec![NewRow::all(None)];
    }
    let generations = space.generation("");
    let name_of = |key: &str| key.strip_prefix(&generations).map(str::to_owned);
    let mut rows = BTreeSet::new();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for write in writes {
        for row in write.intent_rows() {
            let Some(resource) = name_of(row.whole.key()) else {
                continue;
            };
            let prefix = space.prefix(&resource);
            if let Some(id) = row.key.strip_prefix(&prefix)
                && rows.insert(NewRow::row(&resource, id))
            {
                *counts.entry(resource).or_default() += 1;
            }
        }
        for dep in write.deps().iter().filter(|dep| !dep.is_of_row()) {
            let Some(name) = name_of(dep.key()) else {
                continue;
            };
            match name.split_once('~') {
                // It stands for all tags, and each of them is in the list as well.
                Some(("", "~")) => false,
                Some(("", tag)) => rows.insert(NewRow::rendered_tag(tag)),
                // The derived entries, or one op of them. It is covered by its row. Alone it has no
                // kind of its own.
                Some((resource, _)) => {
                    let whole = space.generation(resource);
                    let mut named = write.intent_rows().iter();
                    !named.any(|row| row.whole.key() == whole)
                        && rows.insert(NewRow::all(Some(resource)))
                }
                None => rows.insert(NewRow::all(Some(&name))),
            };
        }
    }
    for (resource, _) in counts.into_iter().filter(|(_, count)| *count > MOST_ROWS) {
        rows.insert(NewRow::all(Some(&resource)));
    }
    // A row adds nothing to its whole resource.
    let wholes: BTreeSet<String> = rows
        .iter()
        .filter(|row| row.kind == "all")
        .filter_map(|row| row.resource.clone())
        .collect();
    let is_needed = |row: &NewRow| {
        row.kind != "row" || !row.resource.as_ref().is_some_and(|it| wholes.contains(it))
    };
    rows.into_iter().filter(is_needed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::render_id;

    fn key(id: &impl crate::key::KeyPart) -> String {
        let mut text = String::new();
        render_id(id, &mut text).expect("an id");
        text
    }

    /// An id has the same text in keys, from the database and from a program.
    #[test]
    fn ids_of_the_database_are_those_of_programs() {
        let of = |value: Value| key(&plain(value).expect("an id"));
        assert_eq!(of(json!(7)), key(&7));
        assert_eq!(of(json!("7")), key(&"7"));
        assert_eq!(of(Value::Null), key(&None::<i64>));
        assert_eq!(of(json!([1, "a,b"])), key(&(1, "a,b")));
        assert_eq!(of(json!([null, 1])), key(&(None::<i64>, 1)));
        assert_eq!(of(json!(["x", null])), key(&("x", None::<&str>)));
        assert_eq!(of(json!([true, -1])), key(&(true, -1)));
        for refused in [json!(1.5), json!([1.5, 1]), json!({"a": 1}), json!([[1]])] {
            assert!(plain(refused.clone()).is_err(), "{refused}");
        }
    }
}
