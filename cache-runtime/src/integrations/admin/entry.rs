//! Describes one entry of the store.

use std::time::Duration;

use serde_json::{Value, json};

use crate::base::error::Error;
use crate::cache::Cache;
use crate::call::read::Call;
use crate::engine::Handle;
use crate::key::{EntryKind, Key, NamedDependency, is_resource};
use crate::protocol::codec::decompress;
use crate::protocol::codec_id::CodecId;
use crate::protocol::entry::{Content, Header, split_list};
use crate::store::{EntryRef, Found, LookupReply, Payload};

/// How many bytes of a payload are shown.
const SHOWN: usize = 64 << 10;

/// The entry under a key, with or without its namespace.
pub(super) async fn inspect(cache: &Cache, key: &str) -> Value {
    let Some(handle) = cache.handle() else {
        return nothing("off", "The cache is off.");
    };
    let key = key.trim();
    let bare = key.strip_prefix(&handle.space.namespace).unwrap_or(key);
    let Some((resource, rest)) = bare.split_once(':').filter(|it| is_resource(it.0)) else {
        return nothing(
            "no key",
            "That is no key: it begins with a resource, as `users:1` or `users:list:<hash>`.",
        );
    };
    let kind = match stored_kind(&handle, resource, rest).await {
        Ok(kind) => kind,
        Err(answer) => return answer,
    };
    let mut best = None;
    for extras in dependencies(&handle, resource) {
        let key = Key::rendered(resource, rest, kind, extras, 0);
        let call = Call::manual(handle.clone(), &key, None);
        let lookup = match call.examine().await {
            Ok(lookup) => lookup,
            Err(error) => return unknown(&error),
        };
        let Found::Entry(header, _) = &lookup.found else {
            continue;
        };
        let is_alive = header.stamp == lookup.stamp;
        if is_alive || best.is_none() {
            best = Some((call, lookup));
        }
        if is_alive {
            break;
        }
    }
    match best {
        Some((call, lookup)) => describe(&call, &lookup),
        None => nothing("nothing", "Nothing of this kind lies under the key."),
    }
}

/// The kind of the entry under the key.
///
/// It reads no generations, since they depend on the kind.
///
/// # Errors
/// The answer, if no entry of ours is stored there.
async fn stored_kind(handle: &Handle, resource: &str, rest: &str) -> Result<EntryKind, Value> {
    let key = Key::rendered(resource, rest, EntryKind::Entity, Vec::new(), 0);
    let call = Call::manual(handle.clone(), &key, None);
    let entry_ref = EntryRef {
        deps: [].into(),
        ..call.entry_ref().clone()
    };
    let lookup = handle.store.examine(&entry_ref).await;
    match lookup.map_err(|error| unknown(&error))?.found {
        Found::Entry(header, _) => Ok(header.kind),
        Found::Nothing => Err(nothing(
            "nothing",
            "Nothing lies under this key in the store.",
        )),
        Found::Foreign => Err(nothing(
            "foreign",
            "A value of another program lies here: it is never served, overwritten or removed.",
        )),
    }
}

fn unknown(error: &Error) -> Value {
    nothing("unknown", &format!("The store says: {error}."))
}

fn nothing(found: &str, words: &str) -> Value {
    json!({ "found": found, "alive": false, "words": [words] })
}

/// The further dependencies that an entry of this resource may have. The entry does not contain
/// them. They come from the functions that read the resource, unless they are patterns.
#[cfg(feature = "map")]
fn dependencies(cache: &Handle, resource: &str) -> Vec<Vec<NamedDependency>> {
    let mut all = vec![Vec::new()];
    let map = cache.config.map.clone();
    let map = map.map_or_else(crate::catalog, |map| (*map).clone());
    for reader in map.readers().iter().filter(|it| it.resource == resource) {
        let names = reader.depends.iter().filter(|it| is_resource(it));
        let mut extras: Vec<_> = names
            .map(|name| NamedDependency::Resource(name.clone().into()))
            .collect();
        let tags = reader.tags.iter().filter(|it| !it.contains('{'));
        extras.extend(tags.map(|tag| NamedDependency::Tag(tag.clone())));
        if !extras.is_empty() && !all.contains(&extras) {
            all.push(extras);
        }
    }
    all
}

/// Without the catalog none are known.
#[cfg(not(feature = "map"))]
fn dependencies(_: &Handle, _: &str) -> Vec<Vec<NamedDependency>> {
    vec![Vec::new()]
}

/// Whether a function that reads the resource has dependencies that its arguments name: tags with
/// braces, or rows of other resources.
fn has_unknown_dependencies(cache: &Handle, resource: &str) -> bool {
    #[cfg(feature = "map")]
    {
        let map = cache.config.map.clone();
        let map = map.map_or_else(crate::catalog, |map| (*map).clone());
        let mut readers = map.readers().iter().filter(|it| it.resource == resource);
        readers.any(|it| {
            it.tags.iter().any(|tag| tag.contains('{'))
                || it.depends.iter().any(|name| !is_resource(name))
        })
    }
    #[cfg(not(feature = "map"))]
    {
        let _ = (cache, resource);
        true
    }
}

fn describe(call: &Call, lookup: &LookupReply) -> Value {
    let Found::Entry(header, payload) = &lookup.found else {
        return nothing("nothing", "Nothing lies under this key in the store.");
    };
    let is_valid = header.stamp == lookup.stamp && lookup.intents_until.is_none();
    let is_fresh = lookup.now < header.fresh;
    let has_content = !matches!(header.content, Content::Nothing);
    let lists = header.content.lists();
    let is_uncertain = header.stamp != lookup.stamp
        && (lists || has_unknown_dependencies(&call.cache, &call.resource.name));
    // `null`: not known.
    let alive = match is_uncertain && is_fresh && has_content {
        true => None,
        false => Some(is_valid && is_fresh && has_content),
    };
    let (payload, size) = shown(header, payload);
    let facts = [
        ("Key", call.entry_ref().key.clone()),
        ("Kind", kind(header.kind).into()),
        ("Tier", call.cache.store.name().into()),
        ("Codec", codec(header.codec).into()),
        (
            "Size",
            size.map_or("not encoded".into(), |size| format!("{size} bytes")),
        ),
        (
            "Stored",
            format!("{} ago", time(lookup.now.since(header.stored))),
        ),
        ("Loading took", format!("{} ms", header.took)),
        ("Stamp", format!("{:032x}", header.stamp.0)),
        (
            "Stamp of the generations now",
            format!("{:032x}", lookup.stamp.0),
        ),
        ("Depends on", names(call).join(", ")),
    ];
    let facts: Vec<_> = facts
        .into_iter()
        .map(|(name, it)| json!([name, it]))
        .collect();
    json!({
        "found": "entry",
        "alive": alive,
        "key": call.entry_ref().key,
        "ttl_ms": header.fresh.since(lookup.now).as_millis() as u64,
        "words": words(call, lookup, header, is_uncertain),
        "facts": facts,
        "payload": payload,
    })
}

fn names(call: &Call) -> Vec<String> {
    let deps = call.entry_ref().deps.iter();
    deps.map(|dep| dep.name().to_owned()).collect()
}

fn words(call: &Call, lookup: &LookupReply, header: &Header, is_uncertain: bool) -> Vec<String> {
    let mut words = Vec::new();
    words.push(match header.content {
        Content::Value | Content::ListedValue => {
            format!("A value, in {}.", codec(header.codec))
        }
        Content::Absence | Content::ListedAbsence => {
            "The knowledge that there is nothing (negative caching).".into()
        }
        Content::Nothing => "No value yet: a lease holds the place.".into(),
    });
    if header.is_leased() {
        let left = time(header.deadline.since(lookup.now));
        words.push(format!(
            "Somebody is loading it; the lease ends in {left} unless it is renewed."
        ));
    }
    if lookup.intents_until.is_some() {
        words.push(
            "A write that concerns it is announced and its outcome not known: readers go past the \
             cache until that is over."
                .into(),
        );
    }
    let names = names(call).join(", ");
    words.push(if header.stamp == lookup.stamp {
        format!("Its stamp is the one of {names} now: nothing has invalidated it.")
    } else if is_uncertain {
        format!(
            "Its stamp is not the one of {names} alone. Functions of this resource also depend on \
             tags or rows that their arguments name, and a key does not tell which: so whether the \
             entry is alive can't be told here."
        )
    } else {
        format!(
            "Its stamp is not the one of {names} now: one of them was invalidated after it was \
             loaded. The next reader loads anew."
        )
    });
    if !matches!(header.content, Content::Nothing) {
        words.push(match lookup.now < header.fresh {
            true => format!("Fresh for {} more.", time(header.fresh.since(lookup.now))),
            false => format!(
                "Its time is over since {}.",
                time(lookup.now.since(header.fresh))
            ),
        });
        if header.stale > header.fresh && lookup.now < header.stale {
            let left = time(header.stale.since(lookup.now));
            words.push(format!(
                "For {left} it may be served in place of a slow or failing load."
            ));
        }
    }
    words
}

/// The payload as text, if it is text, and its length.
fn shown(header: &Header, payload: &Payload) -> (Option<String>, Option<usize>) {
    match payload {
        Payload::Empty => (None, Some(0)),
        Payload::Decoded(_) => (
            Some("kept as a value of the program, not as bytes".into()),
            None,
        ),
        Payload::Encoded(stored) => {
            // A list of dependencies precedes the value.
            let value = match header.content.lists() {
                true => split_list(stored).map(|(_, rest)| rest),
                false => Some(stored.clone()),
            };
            let plain = value
                .as_ref()
                .and_then(|value| decompress(header.codec, value));
            let Some((codec, bytes)) = plain else {
                let text = "compressed, and larger than this page shows, or damaged";
                return (Some(text.into()), Some(stored.len()));
            };
            let part = &bytes[..bytes.len().min(SHOWN)];
            let parsed = (codec == CodecId::Json)
                .then(|| serde_json::from_slice::<Value>(&bytes).ok())
                .flatten();
            let text = match parsed.and_then(|it| serde_json::to_string_pretty(&it).ok()) {
                Some(text) if text.len() <= SHOWN => text,
                _ => String::from_utf8_lossy(part).into_owned(),
            };
            (Some(text), Some(stored.len()))
        }
    }
}

fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Entity => "one row",
        EntryKind::Derived => "computed (a list, a count, a page)",
    }
}

fn codec(codec: CodecId) -> &'static str {
    match codec {
        CodecId::Json => "JSON",
        CodecId::MsgPack => "MessagePack",
        CodecId::Postcard => "postcard",
        CodecId::JsonZstd => "JSON, compressed",
        CodecId::MsgPackZstd => "MessagePack, compressed",
        CodecId::PostcardZstd => "postcard, compressed",
    }
}

fn time(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..120 => format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
