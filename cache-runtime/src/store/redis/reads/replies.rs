//! Splits the bytes that a server sends into replies, by
//! [RESP2](https://redis.io/docs/latest/develop/reference/protocol-spec/).
//!
//! The client's own parser copies each value, and takes about as long as the rest of a read. Here
//! small values stay where they have arrived, and one that is larger than the cache stores is
//! dropped as it arrives.

use std::ops::Range;

use bytes::Bytes;
use redis::Value;

use super::super::limits::READ_LIMIT;
use super::stored::{StoredValue, Values};
use crate::base::nonce::decimal64;

/// More elements than any command of the cache asks for.
const MOST_ELEMENTS: usize = 1 << 16;

/// No line of a reply is longer: a number, a status or an error.
const LONGEST_LINE: usize = 1 << 16;

/// Room that is made before more is read.
const ROOM: usize = 1 << 14;

/// More memory than this is let go once all that has arrived was taken.
const KEPT: usize = 1 << 18;

/// A larger string of an array is copied when it has arrived. Otherwise the buffer would grow to
/// the size of the whole array, and all of it be copied once more.
const LARGE: usize = 1 << 16;

/// One reply.
#[derive(Debug)]
pub(super) enum Reply<'r> {
    Single(Value),
    /// An array of strings.
    Strings(Strings<'r>),
    /// The server has refused the command.
    Refused(String),
}

/// The strings of an array. They are not copied: most are generations, which are compared at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strings<'r> {
    bytes: &'r [u8],
    elements: &'r [Element],
}

/// An element of an array.
#[derive(Debug)]
enum Element {
    Nothing,
    /// A string, and where it is, counted from the start of the array.
    String(Range<usize>),
    /// A large string.
    Copied(Bytes),
    /// A string that is larger than the cache stores.
    Oversized,
}

/// These are no replies of a Redis to commands of the cache.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The bytes that have arrived and were not taken.
#[derive(Debug, Default)]
pub(super) struct Replies {
    bytes: Vec<u8>,
    /// Where the next reply begins.
    start: usize,
    /// How many bytes of that reply are split already.
    split: usize,
    /// How many bytes of an oversized value are still to be dropped.
    dropped: usize,
    /// How many elements the array has of which some have arrived.
    awaited: Option<usize>,
    /// The elements of this array, or of the last one.
    elements: Vec<Element>,
}

/// One line, or a string.
enum Part {
    Line(Value),
    Element(Element),
    Array(usize),
    Error(String),
}

impl Strings<'_> {
    /// Where values were larger than the cache stores.
    pub(super) fn oversized(&self) -> impl Iterator<Item = usize> {
        let elements = self.elements.iter().enumerate();
        elements.filter_map(|(at, element)| matches!(element, Element::Oversized).then_some(at))
    }
}

impl Values for Strings<'_> {
    fn len(&self) -> usize {
        self.elements.len()
    }

    /// No bytes for a value that is larger than the cache stores: it is another program's.
    fn get(&self, at: usize) -> Option<&[u8]> {
        match self.elements.get(at)? {
            Element::String(place) => self.bytes.get(place.clone()),
            Element::Copied(string) => Some(string),
            Element::Nothing => None,
            Element::Oversized => Some(&[]),
        }
    }

    fn take(&mut self, at: usize) -> StoredValue {
        match self.elements.get(at) {
            Some(Element::Copied(string)) => StoredValue::of_bytes(string.clone()),
            _ => StoredValue::of_slice(self.get(at)),
        }
    }
}

impl Replies {
    /// Where to write what has arrived, behind what is there.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
            if self.bytes.is_empty() {
                self.bytes.shrink_to(KEPT);
            }
        }
        self.bytes.reserve(ROOM);
        &mut self.bytes
    }

    /// The next reply, if all of it has arrived.
    ///
    /// # Errors
    /// If the peer does not send what a Redis sends. Nothing behind it can be told apart.
    pub(super) fn next(&mut self) -> Result<Option<Reply<'_>>, Malformed> {
        loop {
            if self.awaited == Some(self.elements.len()) {
                self.awaited = None;
                let bytes = self.start..self.start + self.split;
                self.take();
                return Ok(Some(Reply::Strings(Strings {
                    bytes: self.bytes.get(bytes).unwrap_or_default(),
                    elements: &self.elements,
                })));
            }
            let Some(part) = self.part()? else {
                return Ok(None);
            };
            let single = match (part, self.awaited) {
                (Part::Element(element), Some(_)) => {
                    self.elements.push(element);
                    continue;
                }
                (Part::Array(len), None) => {
                    self.elements.clear();
                    self.awaited = Some(len);
                    continue;
                }
                (Part::Line(value), None) => Reply::Single(value),
                (Part::Error(error), None) => Reply::Refused(error),
                (Part::Element(element), None) => Reply::Single(self.value(element)?),
                (Part::Line(_) | Part::Array(_) | Part::Error(_), Some(_)) => {
                    return Err(Malformed);
                }
            };
            self.take();
            return Ok(Some(single));
        }
    }

    /// The value of a string that is a reply by itself.
    fn value(&self, string: Element) -> Result<Value, Malformed> {
        match string {
            Element::Nothing => Ok(Value::Nil),
            Element::Copied(string) => Ok(Value::BulkString(string.to_vec())),
            Element::String(place) => {
                let string = self.bytes.get(self.start..).and_then(|it| it.get(place));
                Ok(Value::BulkString(string.unwrap_or_default().to_vec()))
            }
            Element::Oversized => Err(Malformed),
        }
    }

    /// The reply that is split now was taken.
    fn take(&mut self) {
        self.start += self.split;
        self.split = 0;
    }

    /// The next line with the string that it announces, if all of it has arrived.
    fn part(&mut self) -> Result<Option<Part>, Malformed> {
        if !self.drop_oversized() {
            return Ok(None);
        }
        let rest = self.bytes.get(self.start + self.split..);
        let rest = rest.unwrap_or_default();
        let mut line = rest.iter().take(LONGEST_LINE);
        let Some(end) = line.position(|byte| *byte == b'\n') else {
            return match rest.len() < LONGEST_LINE {
                true => Ok(None),
                false => Err(Malformed),
            };
        };
        let line = rest.get(..end).and_then(|line| line.strip_suffix(b"\r"));
        let (kind, line) = line.and_then(<[u8]>::split_first).ok_or(Malformed)?;
        let part = match kind {
            b'$' => match number(line)? {
                -1 => Part::Element(Element::Nothing),
                len => {
                    let len = usize::try_from(len).map_err(|_| Malformed)?;
                    return Ok(self.string(end + 1, len)?.map(Part::Element));
                }
            },
            b'*' => {
                let len = usize::try_from(number(line)?).map_err(|_| Malformed)?;
                if len > MOST_ELEMENTS {
                    return Err(Malformed);
                }
                Part::Array(len)
            }
            b':' => Part::Line(Value::Int(number(line)?)),
            b'+' => Part::Line(Value::SimpleString(text(line))),
            b'-' => Part::Error(text(line)),
            _ => return Err(Malformed),
        };
        self.split += end + 1;
        Ok(Some(part))
    }

    /// The string of this length, behind a line of this length.
    fn string(&mut self, line: usize, len: usize) -> Result<Option<Element>, Malformed> {
        if len > READ_LIMIT {
            self.dropped = len.checked_add(2).ok_or(Malformed)?;
            self.split += line;
            return Ok(Some(Element::Oversized));
        }
        let from_start = self.split + line;
        let begin = self.start + from_start;
        let Some(string) = self.bytes.get(begin..begin + len + 2) else {
            return Ok(None);
        };
        let string = string.strip_suffix(b"\r\n").ok_or(Malformed)?;
        self.split += line;
        if len > LARGE {
            let copy = Bytes::copy_from_slice(string);
            self.bytes.drain(begin..begin + len + 2);
            return Ok(Some(Element::Copied(copy)));
        }
        self.split += len + 2;
        Ok(Some(Element::String(from_start..from_start + len)))
    }

    /// Drops what has arrived of an oversized value. `false` if more of it is to come.
    fn drop_oversized(&mut self) -> bool {
        if self.dropped > 0 {
            let begin = self.start + self.split;
            let dropped = self.dropped.min(self.bytes.len() - begin);
            self.bytes.drain(begin..begin + dropped);
            self.dropped -= dropped;
        }
        self.dropped == 0
    }
}

fn number(line: &[u8]) -> Result<i64, Malformed> {
    // Nearly all are lengths of values. To parse them as text takes as long as the rest of a reply.
    let short = (!line.is_empty()).then(|| decimal64(line)).flatten();
    if let Some(number) = short.and_then(|it| i64::try_from(it).ok()) {
        return Ok(number);
    }
    let text = std::str::from_utf8(line).map_err(|_| Malformed)?;
    text.parse().map_err(|_| Malformed)
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy of a reply.
    #[derive(Debug, PartialEq)]
    enum Read {
        Single(Value),
        Strings(Vec<Option<Vec<u8>>>),
        Refused(String),
    }

    impl From<Reply<'_>> for Read {
        fn from(reply: Reply<'_>) -> Self {
            match reply {
                Reply::Single(value) => Self::Single(value),
                Reply::Strings(strings) => {
                    let copies = (0..strings.len()).map(|at| strings.get(at).map(<[u8]>::to_vec));
                    Self::Strings(copies.collect())
                }
                Reply::Refused(error) => Self::Refused(error),
            }
        }
    }

    /// The replies in these bytes, which arrive in parts of this size.
    fn in_parts(bytes: &[u8], size: usize) -> Result<Vec<Read>, Malformed> {
        let (mut replies, mut read) = (Replies::default(), Vec::new());
        for part in bytes.chunks(size) {
            replies.room().extend_from_slice(part);
            while let Some(reply) = replies.next()? {
                read.push(Read::from(reply));
            }
        }
        assert_eq!(replies.room().len(), 0, "all was taken");
        Ok(read)
    }

    fn string(bytes: &[u8]) -> Option<Vec<u8>> {
        Some(bytes.to_vec())
    }

    #[test]
    fn replies_are_the_same_in_whatever_parts_they_arrive() {
        let bytes = b"+OK\r\n*3\r\n$3\r\na\r\n\r\n$-1\r\n$0\r\n\r\n-NOPERM no\r\n*0\r\n:-7\r\n*1\r\n$1\r\nb\r\n$2\r\ncd\r\n";
        let expected = [
            Read::Single(Value::SimpleString("OK".into())),
            Read::Strings(vec![string(b"a\r\n"), None, string(b"")]),
            Read::Refused("NOPERM no".into()),
            Read::Strings(vec![]),
            Read::Single(Value::Int(-7)),
            Read::Strings(vec![string(b"b")]),
            Read::Single(Value::BulkString(b"cd".to_vec())),
        ];
        for size in 1..=bytes.len() {
            assert_eq!(
                in_parts(bytes, size).as_deref(),
                Ok(&expected[..]),
                "{size}"
            );
        }
    }

    #[test]
    fn what_is_larger_than_the_cache_stores_is_not_kept() {
        let large = READ_LIMIT + 1;
        let mut replies = Replies::default();
        replies.room().extend_from_slice(b"*3\r\n$1\r\na\r\n");
        replies
            .room()
            .extend_from_slice(format!("${large}\r\n").as_bytes());
        let part = vec![b'x'; 1 << 20];
        let mut left = large;
        while left > 0 {
            assert!(matches!(replies.next(), Ok(None)));
            let now = left.min(part.len());
            replies.room().extend_from_slice(&part[..now]);
            left -= now;
            assert!(replies.bytes.len() <= part.len() + 64);
        }
        replies.room().extend_from_slice(b"\r\n$1\r\nb\r\n");
        let Ok(Some(Reply::Strings(strings))) = replies.next() else {
            panic!("not the array");
        };
        assert_eq!(strings.oversized().collect::<Vec<_>>(), [1]);
        let values = Read::Strings(vec![string(b"a"), string(b""), string(b"b")]);
        assert_eq!(Read::from(Reply::Strings(strings)), values);
    }

    #[test]
    fn what_follows_an_oversized_value_is_the_next_reply() {
        let large = READ_LIMIT + 1;
        let head = format!("*2\r\n$1\r\na\r\n${large}\r\n");
        let bytes = [head.as_bytes(), &vec![b'x'; large], b"\r\n+OK\r\n"].concat();
        let expected = [
            Read::Strings(vec![string(b"a"), string(b"")]),
            Read::Single(Value::SimpleString("OK".into())),
        ];
        for size in [1 << 20, large + head.len() + 1, bytes.len()] {
            assert_eq!(in_parts(&bytes, size).as_deref(), Ok(&expected[..]));
        }
    }

    /// Each is copied once, when it has arrived.
    #[test]
    fn the_buffer_does_not_grow_with_the_number_of_large_values() {
        let value = vec![b'x'; LARGE + 1];
        let one = [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
        let mut replies = Replies::default();
        replies.room().extend_from_slice(b"*21\r\n$1\r\na\r\n");
        for _ in 0..20 {
            assert!(matches!(replies.next(), Ok(None)));
            replies.room().extend_from_slice(&one);
        }
        replies.room().extend_from_slice(b"+OK\r\n");
        let Ok(Some(Reply::Strings(strings))) = replies.next() else {
            panic!("not the array");
        };
        assert_eq!(strings.get(0), Some(&b"a"[..]));
        assert!((1..=20).all(|at| strings.get(at) == Some(&*value)));
        assert!(replies.bytes.capacity() <= 4 * one.len());
        assert!(matches!(replies.next(), Ok(Some(Reply::Single(_)))));
    }

    #[test]
    fn the_memory_of_large_values_is_let_go() {
        let mut replies = Replies::default();
        let large = 1 << 20;
        let value = [
            format!("${large}\r\n").as_bytes(),
            &vec![b'x'; large],
            b"\r\n",
        ]
        .concat();
        replies.room().extend_from_slice(&value);
        assert!(matches!(replies.next(), Ok(Some(Reply::Single(_)))));
        assert!(replies.room().capacity() <= KEPT + ROOM);
    }

    #[test]
    fn what_no_redis_sends_is_an_error() {
        for bytes in [
            "HTTP/1.1 400 Bad Request\r\n",
            "*2\r\n*1\r\n",
            "*1\r\n-ERR inside\r\n",
            "*1\r\n:1\r\n",
            "*-1\r\n",
            "*99999999\r\n",
            "$-2\r\n",
            "$3\r\nabcd\r\n",
            "$x\r\n",
            ":\r\n",
            "\r\n",
            "+OK\n",
            "$9223372036854775808\r\n",
        ] {
            assert_eq!(in_parts(bytes.as_bytes(), 1), Err(Malformed), "{bytes:?}");
        }
        let endless = vec![b'+'; LONGEST_LINE + 1];
        assert_eq!(in_parts(&endless, 1_000), Err(Malformed));
    }
}
