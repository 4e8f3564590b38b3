//! Keys: two calls share one only if their arguments are equal.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Result, Unstructured};
use cache_runtime::testing::internals::{Id, canonical, key_text};
use cache_runtime::{CacheConfig, Key};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::text;

/// Texts that look like what else an id may be made of.
const AWKWARD: [&str; 22] = [
    "", "1", "-1", "1.0", "1e300", "inf", "NaN", "true", "false", "null", "~", "~~", "()", "(1)",
    "(", "1,2", ",", "%", "%25", "'1", "''", "Plain",
];

/// Whatever the arguments.
pub fn holds(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let _ = ids(&mut input);
    let _ = typed_ids(&mut input);
    let _ = arguments(&mut input);
    let _ = texts(bytes);
}

/// An id that knows its type at run time only: JSON tells two of them apart if anything does.
fn id(input: &mut Unstructured<'_>, depth: usize) -> Result<Json> {
    Ok(
        match input.int_in_range(0..=if depth == 0 { 5 } else { 6 })? {
            0 => Json::Null,
            1 => Json::Bool(input.arbitrary()?),
            2 => input.int_in_range(-2i64..=2)?.into(),
            3 => input.arbitrary::<u64>()?.into(),
            4 => input.arbitrary::<f64>()?.into(),
            5 => text(input, &AWKWARD)?.into(),
            _ => {
                let parts = (0..input.int_in_range(0..=2)?).map(|_| id(input, depth - 1));
                parts.collect::<Result<_>>()?
            }
        },
    )
}

/// An id that is a tuple, with how it is written by itself, in the tuple, and in a list.
type Known = ((Option<Json>, Json), [Id; 3]);

fn ids(input: &mut Unstructured<'_>) -> Result<()> {
    let mut known: Vec<Known> = Vec::new();
    for _ in 0..input.int_in_range(2..=6)? {
        let part = match input.arbitrary()? {
            true => Some(id(input, 1)?),
            false => None,
        };
        let value = (part, id(input, 2)?);
        let id = |id: Option<Id>| id.expect("these can be ids");
        let forms = [
            id(Id::of(&value.1)),
            id(Id::of(&value)),
            id(Id::of(&vec![&value.1])),
        ];
        for form in &forms {
            assert_plain(&form.text);
        }
        known.push((value, forms));
    }
    for (at, (a, a_forms)) in known.iter().enumerate() {
        for (b, b_forms) in &known[at..] {
            let [alone, tuple, list] = [0, 1, 2].map(|form| a_forms[form].meets(&b_forms[form]));
            assert_eq!(alone, a.1 == b.1, "{a_forms:?} {b_forms:?}");
            assert_eq!(list, a.1 == b.1, "{a_forms:?} {b_forms:?}");
            assert_eq!(tuple, a == b, "{a_forms:?} {b_forms:?}");
        }
    }
    Ok(())
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Typed(String, Option<Option<i8>>, Vec<String>, Role, (u8, String));

#[derive(Debug, Clone, PartialEq, Serialize, Arbitrary)]
enum Role {
    Plain,
    #[serde(rename = "")]
    Nameless,
    Of(u8),
    Named(String, Option<u8>),
    With {
        name: String,
    },
}

/// Ids of one type differ in their text alone.
fn typed_ids(input: &mut Unstructured<'_>) -> Result<()> {
    let mut known: Vec<(Typed, String)> = Vec::new();
    for _ in 0..input.int_in_range(2..=4)? {
        let value = Typed(
            text(input, &AWKWARD)?,
            input.arbitrary()?,
            (0..input.int_in_range(0..=2)?)
                .map(|_| text(input, &AWKWARD))
                .collect::<Result<_>>()?,
            input.arbitrary()?,
            (input.arbitrary()?, text(input, &AWKWARD)?),
        );
        let id = Id::of(&value).expect("these can be ids");
        assert_plain(&id.text);
        known.push((value, id.text));
    }
    for (at, (a, a_text)) in known.iter().enumerate() {
        for (b, b_text) in &known[at..] {
            assert_eq!(a == b, a_text == b_text, "{a:?} {b:?}");
        }
    }
    Ok(())
}

/// Nothing in an id is taken for the punctuation of keys or patterns, and all of it can be seen.
fn assert_plain(id: &str) {
    let forbidden = |c: char| ":*?[]{}@\"\\".contains(c) || c.is_whitespace() || c.is_control();
    assert!(!id.is_empty() && !id.contains(forbidden), "{id:?}");
}

/// An argument of a call, with what is equal in several spellings.
#[derive(Debug, Clone, PartialEq, Arbitrary)]
enum Argument {
    Nothing,
    Bool(bool),
    Small(i8),
    Number(f64),
    Text(String),
    Maybe(Option<Box<Argument>>),
    List(Vec<Argument>),
    Pair(Box<(Argument, Argument)>),
    Map(BTreeMap<String, i8>),
    Role(Role),
}

/// The other spelling: wider integers, `-0.0`, and maps from their end.
struct Otherwise<'a>(&'a Argument);

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        spell(self, serializer, false)
    }
}

impl Serialize for Otherwise<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        spell(self.0, serializer, true)
    }
}

fn spell<S: Serializer>(
    argument: &Argument,
    serializer: S,
    otherwise: bool,
) -> std::result::Result<S::Ok, S::Error> {
    // As if each were a variant of an enum, so that what differs here differs to serde.
    let name = |variant| ("Argument", 0, variant);
    macro_rules! variant {
        ($name:literal, $value:expr) => {{
            let (argument, at, variant) = name($name);
            serializer.serialize_newtype_variant(argument, at, variant, &$value)
        }};
    }
    match argument {
        Argument::Nothing => serializer.serialize_unit(),
        Argument::Bool(value) => variant!("bool", value),
        Argument::Small(value) if otherwise => variant!("small", i128::from(*value)),
        Argument::Small(value) => variant!("small", value),
        Argument::Number(value) if otherwise && *value == 0.0 => variant!("number", -value),
        Argument::Number(value) => variant!("number", value),
        Argument::Text(value) => variant!("text", value),
        Argument::Maybe(value) if otherwise => {
            variant!("maybe", value.as_deref().map(Otherwise))
        }
        Argument::Maybe(value) => variant!("maybe", value),
        Argument::List(value) if otherwise => {
            variant!("list", value.iter().map(Otherwise).collect::<Vec<_>>())
        }
        Argument::List(value) => variant!("list", value),
        Argument::Pair(value) if otherwise => {
            variant!("pair", [Otherwise(&value.0), Otherwise(&value.1)])
        }
        Argument::Pair(value) => variant!("pair", value),
        Argument::Map(value) => variant!("map", Entries(value, otherwise)),
        Argument::Role(value) => variant!("role", value),
    }
}

struct Entries<'a>(&'a BTreeMap<String, i8>, bool);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut entries: Vec<_> = self.0.iter().collect();
        if self.1 {
            entries.reverse();
        }
        for (key, value) in entries {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl Argument {
    fn has_nan(&self) -> bool {
        match self {
            Self::Number(number) => number.is_nan(),
            Self::Maybe(inner) => inner.as_ref().is_some_and(|inner| inner.has_nan()),
            Self::List(inner) => inner.iter().any(Self::has_nan),
            Self::Pair(inner) => inner.0.has_nan() || inner.1.has_nan(),
            _ => false,
        }
    }
}

fn arguments(input: &mut Unstructured<'_>) -> Result<()> {
    let (a, b): (Vec<Argument>, Vec<Argument>) = (super::some(input, 3)?, super::some(input, 3)?);
    let bytes = |arguments: &[Argument]| {
        let has_nan = arguments.iter().any(Argument::has_nan);
        // One after the other, as a call does it.
        let bytes: Option<Vec<_>> = arguments.iter().map(canonical).collect();
        let otherwise = arguments
            .iter()
            .map(|argument| canonical(&Otherwise(argument)));
        assert_eq!(
            bytes,
            otherwise.collect::<Option<Vec<_>>>(),
            "{arguments:?}"
        );
        assert_eq!(bytes.is_none(), has_nan, "{arguments:?}");
        bytes.map(|bytes| bytes.concat())
    };
    if let (Some(a_bytes), Some(b_bytes)) = (bytes(&a), bytes(&b)) {
        assert_eq!(a_bytes == b_bytes, a == b, "{a:?} {b:?}");
        let key = |arguments: &Vec<Argument>| Key::args("users", "list", arguments).ok();
        assert_eq!(key(&a) == key(&b), a == b, "{a:?} {b:?}");
    }
    Ok(())
}

/// Texts that are taken for keys are the keys they read as.
fn texts(bytes: &[u8]) -> Result<()> {
    let config = CacheConfig::default();
    let Ok(written) = std::str::from_utf8(bytes) else {
        return Ok(());
    };
    if let Some(text) = key_text(written.parse(), &config) {
        assert_eq!(text, written);
    }
    let text = key_text(Key::entity("users", written), &config).expect("a text is an id");
    let again = key_text(text.parse(), &config);
    assert_eq!(again, Some(text));
    Ok(())
}
