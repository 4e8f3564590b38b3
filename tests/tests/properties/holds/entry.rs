//! An entry as it lies in the store: its header, and its payload in each codec.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Result, Unstructured};
use cache_runtime::store::{CodecId, Content, Fingerprint, Header, Millis, Nonce, Stamp};
use cache_runtime::{Cacheable, EntryKind};
use serde::{Deserialize, Serialize};

use super::{damage, some};

const CODECS: [CodecId; 3] = [CodecId::Json, CodecId::MsgPack, CodecId::Postcard];
const CONTENTS: [Content; 3] = [Content::Value, Content::Absence, Content::Nothing];
/// What thirteen digits, and seven, can tell of.
const MOST_MILLIS: u64 = 9_999_999_999_999;
const MOST_TOOK: u32 = 9_999_999;

/// A value with something of each kind. The three codecs tell any two of them apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    id: i64,
    large: u64,
    name: String,
    kind: Kind,
    ratio: f64,
    counts: BTreeMap<String, u16>,
    parts: Vec<(bool, char)>,
    inner: Option<Box<Row>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Arbitrary)]
enum Kind {
    Plain,
    Named(String),
    Sized { width: u8, height: i32 },
}

impl<'a> Arbitrary<'a> for Row {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let ratio: f64 = input.arbitrary()?;
        Ok(Self {
            id: input.arbitrary()?,
            large: input.arbitrary()?,
            name: input.arbitrary()?,
            kind: input.arbitrary()?,
            // JSON has no others.
            ratio: if ratio.is_finite() { ratio } else { 0.0 },
            counts: input.arbitrary()?,
            parts: some(input, 3)?,
            // Where the input has ended, this is true.
            inner: match input.ratio(3, 4)? {
                true => None,
                false => Some(Box::new(input.arbitrary()?)),
            },
        })
    }
}

/// Whatever lies there.
pub fn holds(bytes: &[u8]) {
    read_as_it_is(bytes);
    for codec in CODECS {
        decoded_as_it_is(codec, bytes);
    }
    let mut input = Unstructured::new(bytes);
    // Too few bytes for more are no reason to complain.
    let _ = header(&mut input).and_then(|header| {
        let mut entry = header.encode().into_bytes();
        assert_eq!(entry.len(), Header::LEN);
        entry.extend_from_slice(input.peek_bytes(input.len().min(8)).unwrap_or_default());
        let (read, payload) = Header::parse(&entry).expect("ours");
        assert_eq!((read, payload), (header, &entry[Header::LEN..]));
        damage(&mut entry, &mut input)?;
        read_as_it_is(&entry);
        payloads(&mut input)
    });
}

/// What is read as an entry of ours is written in one way only.
fn read_as_it_is(bytes: &[u8]) {
    if let Some((header, payload)) = Header::parse(bytes) {
        let mut written = header.encode().into_bytes();
        written.extend_from_slice(payload);
        assert_eq!(written, bytes);
    }
}

fn header(input: &mut Unstructured<'_>) -> Result<Header> {
    let mut time = |most| input.int_in_range(0..=most);
    let [deadline, stored, fresh, stale] = [
        time(MOST_MILLIS)?,
        time(MOST_MILLIS)?,
        time(MOST_MILLIS)?,
        time(MOST_MILLIS)?,
    ]
    .map(Millis);
    Ok(Header {
        kind: *input.choose(&[EntryKind::Entity, EntryKind::Derived])?,
        content: *input.choose(&CONTENTS)?,
        codec: *input.choose(&CODECS)?,
        token: Nonce(input.arbitrary()?),
        deadline,
        stamp: Stamp(input.arbitrary()?),
        fingerprint: Fingerprint(input.arbitrary()?),
        stored,
        fresh,
        stale,
        took: input.int_in_range(0..=MOST_TOOK)?,
    })
}

/// A payload is a miss, or the value it is the encoding of.
fn decoded_as_it_is(codec: CodecId, bytes: &[u8]) {
    let Some(value) = Row::from_bytes(codec, &bytes.to_vec().into()) else {
        return;
    };
    // Not a number is not equal to itself, and no codec stores what JSON would lose.
    match value.to_bytes(codec) {
        Ok((written, _)) => {
            let read = Row::from_bytes(codec, &written);
            assert!(
                has_nan(&value) || read.as_ref() == Some(&value),
                "{codec:?}"
            );
        }
        Err(_) => assert!(!is_finite(&value), "{codec:?}: what was read is written"),
    }
}

fn has_nan(row: &Row) -> bool {
    row.ratio.is_nan() || row.inner.as_deref().is_some_and(has_nan)
}

fn is_finite(row: &Row) -> bool {
    row.ratio.is_finite() && row.inner.as_deref().is_none_or(is_finite)
}

fn payloads(input: &mut Unstructured<'_>) -> Result<()> {
    let value: Row = input.arbitrary()?;
    let other: Row = input.arbitrary()?;
    let cut: usize = input.arbitrary()?;
    for codec in CODECS {
        let (bytes, _) = value.to_bytes(codec).expect("encodes");
        assert_eq!(
            Row::from_bytes(codec, &bytes).as_ref(),
            Some(&value),
            "{codec:?}"
        );
        let same = other.to_bytes(codec).expect("encodes").0 == bytes;
        // `0.0` is equal to `-0.0`, and still another value.
        assert!(!same || value == other, "{codec:?}: {value:?} {other:?}");

        let part = bytes.slice(..cut % bytes.len());
        assert_eq!(
            Row::from_bytes(codec, &part),
            None,
            "{codec:?}: a part is a miss"
        );
        let mut longer = bytes.to_vec();
        longer.push(b'1');
        assert_eq!(
            Row::from_bytes(codec, &longer.into()),
            None,
            "{codec:?}: more is a miss"
        );
        let mut damaged = bytes.to_vec();
        damage(&mut damaged, input)?;
        for codec in CODECS {
            decoded_as_it_is(codec, &damaged);
        }
    }
    Ok(())
}
