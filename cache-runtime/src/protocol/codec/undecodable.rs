//! Why bytes that were just encoded don't decode.

use serde::de::DeserializeOwned;

use super::refusal::{self, Refusal};
use crate::protocol::codec_id::CodecId;

/// Why the bytes don't decode, and in which part.
pub(crate) fn undecodable<V: DeserializeOwned>(codec: CodecId, bytes: &[u8]) -> Refusal {
    let failed = match codec {
        CodecId::Json => match super::from_json::<V>(bytes) {
            Ok(_) => None,
            Err(error) => Some((path_in_json(bytes, &error), error.to_string())),
        },
        #[cfg(feature = "msgpack")]
        CodecId::MsgPack => {
            let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
            reader.set_max_depth(super::MAX_DEPTH);
            path_and_error::<V, _>(&mut reader)
        }
        #[cfg(feature = "postcard")]
        CodecId::Postcard => path_and_error::<V, _>(&mut postcard::Deserializer::from_bytes(bytes)),
        _ => Some((String::new(), "this codec is not built in".to_owned())),
    };
    refusal_of(codec, failed)
}

/// Where reading a `V` fails, and with which error.
#[cfg(any(feature = "msgpack", feature = "postcard"))]
fn path_and_error<'de, V: DeserializeOwned, D: serde::Deserializer<'de>>(
    reader: D,
) -> Option<(String, String)> {
    let error = serde_path_to_error::deserialize::<_, V>(reader).err()?;
    Some((text_of(error.path()), error.inner().to_string()))
}

/// The path of the part of a JSON text at which reading has failed.
///
/// The text is read once more up to that place, as a value of any type, which fails there as well.
/// `serde_path_to_error` could also read a `V`, but the compiler would make a second copy of all
/// that reads a type: 20 kB of 184 for each type of values, and as large a part of the time.
fn path_in_json(json: &[u8], error: &serde_json::Error) -> String {
    // No line ends in it.
    let read = json.get(..error.column()).unwrap_or(json);
    let is_of_number = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let unfinished = match read {
        // It was read as a whole, and is at fault itself. Without its end, it isn't over. No number
        // ends with a letter.
        [before @ .., b'}' | b']' | b'"' | b'e' | b'l'] => before.to_vec(),
        // A number, whose beginning is one as well; or a part of which nothing was read.
        _ => {
            let number = read.iter().rev().take_while(is_of_number).count();
            let before = read.iter().take(read.len() - number).copied();
            before.chain([b'"']).collect()
        }
    };
    let mut reader = serde_json::Deserializer::from_slice(&unfinished);
    match serde_path_to_error::deserialize::<_, serde_json::Value>(&mut reader) {
        Ok(_) => String::new(),
        Err(error) => text_of(error.path()),
    }
}

/// A path without what stands for a field that was not read yet. Empty for the value as a whole, or
/// a part that serde buffers before it knows the type.
fn text_of(path: &serde_path_to_error::Path) -> String {
    let path = path.to_string();
    match path.as_str() {
        "." | "?" => String::new(),
        path => path.trim_end_matches(".?").to_owned(),
    }
}

fn refusal_of(codec: CodecId, failed: Option<(String, String)>) -> Refusal {
    let left_over = || (String::new(), "bytes are left over".to_owned());
    let (path, error) = failed.unwrap_or_else(left_over);
    let remedy = match codec {
        CodecId::Postcard => {
            "postcard can't read `flatten`, untagged and internally tagged enums, \
             or values of any type; leave `codec` out"
        }
        _ => "store a type that serde reads back as it wrote it, nested fewer than 128 levels deep",
    };
    let reason = format!("can't be read back from {}: {error}", refusal::name(codec));
    Refusal::new(path, reason, remedy)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    /// The paths that `serde_path_to_error` finds while it reads the type itself.
    #[test]
    fn the_part_that_does_not_decode_is_named() {
        #[derive(Debug, Serialize, Deserialize)]
        struct Inner {
            scores: Vec<u8>,
            name: Option<String>,
            is_new: bool,
        }
        #[derive(Debug, Serialize, Deserialize)]
        struct Row {
            id: u64,
            inner: Inner,
            by_name: std::collections::BTreeMap<String, Inner>,
        }
        let row = |id: &str, scores: &str, name: &str, is_new: &str| {
            let inner = format!(r#"{{"scores":{scores},"name":{name},"is_new":{is_new}}}"#);
            format!(r#"{{"id":{id},"inner":{inner},"by_name":{{"a.b":{inner}}}}}"#)
        };
        let texts = [
            row("-17", "[1,2]", "null", "true"),
            row("1.5e3", "[1,2]", "null", "true"),
            row("\"12\"", "[1,2]", "null", "true"),
            row("\"\"", "[1,2]", "null", "true"),
            row("true", "[1,2]", "null", "true"),
            row("false", "[1,2]", "null", "true"),
            row("null", "[1,2]", "null", "true"),
            row("{\"a\":1}", "[1,2]", "null", "true"),
            row("[1]", "[1,2]", "null", "true"),
            row("1", "[1,300]", "null", "true"),
            row("1", "[300]", "null", "true"),
            row("1", "[1,[]]", "null", "true"),
            row("1", "7", "null", "true"),
            row("1", "[]", "12", "true"),
            row("1", "[]", "{}", "true"),
            row("1", "[]", "null", "null"),
            row("1", "[]", "null", "12"),
            row("1", "[]", "null", "true").replacen("\"name\"", "\"nume\"", 1),
            row("1", "[]", "null", "true").replacen("\"is_new\"", "\"is_now\"", 1),
            row("1", "[]", "null", "true").replacen("\"id\":1,", "", 1),
            row("1", "[]", "null", "true").replace("{\"a.b\"", "{\"a\":7,\"b\""),
            row("1", "[1,2", "null", "true"),
        ];
        for text in texts {
            let mut reader = serde_json::Deserializer::from_slice(text.as_bytes());
            let read = serde_path_to_error::deserialize::<_, Row>(&mut reader);
            let by_type = read.err().map(|error| text_of(error.path()));
            let read = serde_json::from_str::<Row>(&text).err();
            let found = read.map(|error| path_in_json(text.as_bytes(), &error));
            assert_eq!(found, by_type, "{text}");
        }
    }
}
