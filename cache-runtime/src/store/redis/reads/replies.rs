//! Splits the bytes that a server sends into replies, by
//! [RESP2](https://redis.io/docs/latest/develop/reference/protocol-spec/).
//!
//! The client's own parser keeps a reply until all of it has arrived, however large it is, and
//! takes about as long as the rest of a read. Here a value that is larger than the cache stores is
//! dropped as it arrives.

use redis::Value;

use super::super::limits::READ_LIMIT;

/// More elements than any command of the cache asks for.
const MOST_ELEMENTS: usize = 1 << 16;

/// No line of a reply is longer: a number, a status or an error.
const LONGEST_LINE: usize = 1 << 16;

/// Room that is made before more is read.
const ROOM: usize = 1 << 14;

/// More memory than this is let go once all that has arrived was taken.
const KEPT: usize = 1 << 18;

/// One reply.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    Single(Value),
    Array {
        values: Vec<Value>,
        /// Where values were larger than the cache stores. They are empty in `values`.
        oversized: Vec<usize>,
    },
    /// The server has refused the command.
    Refused(String),
}

/// These are no replies of a Redis to commands of the cache.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What has arrived and was not taken.
#[derive(Debug, Default)]
pub(super) struct Replies {
    bytes: Vec<u8>,
    /// Where the next reply, or the rest of one, begins.
    start: usize,
    /// How many bytes of an oversized value are still to be dropped.
    dropped: usize,
    array: Option<PartialArray>,
}

/// An array of which some elements have arrived.
#[derive(Debug)]
struct PartialArray {
    values: Vec<Value>,
    oversized: Vec<usize>,
    len: usize,
}

/// One line, or a string.
enum Part {
    Value(Value),
    Oversized,
    Array(usize),
    Error(String),
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
    pub(super) fn next(&mut self) -> Result<Option<Reply>, Malformed> {
        loop {
            let Some(part) = self.part()? else {
                return Ok(None);
            };
            let Some(array) = &mut self.array else {
                match part {
                    Part::Value(value) => return Ok(Some(Reply::Single(value))),
                    Part::Error(error) => return Ok(Some(Reply::Refused(error))),
                    Part::Oversized => return Err(Malformed),
                    Part::Array(0) => return Ok(Some(Reply::empty())),
                    Part::Array(len) => {
                        self.array = Some(PartialArray {
                            values: Vec::with_capacity(len.min(MOST_ELEMENTS)),
                            oversized: Vec::new(),
                            len,
                        });
                        continue;
                    }
                }
            };
            match part {
                Part::Value(value) => array.values.push(value),
                Part::Oversized => {
                    array.oversized.push(array.values.len());
                    array.values.push(Value::BulkString(Vec::new()));
                }
                Part::Array(_) | Part::Error(_) => return Err(Malformed),
            }
            if array.values.len() == array.len {
                let whole = self.array.take();
                return Ok(whole.map(PartialArray::into_reply));
            }
        }
    }

    fn part(&mut self) -> Result<Option<Part>, Malformed> {
        if !self.drop_oversized() {
            return Ok(None);
        }
        let rest = self.bytes.get(self.start..).unwrap_or_default();
        let Some(end) = rest
            .iter()
            .take(LONGEST_LINE)
            .position(|byte| *byte == b'\n')
        else {
            return match rest.len() < LONGEST_LINE {
                true => Ok(None),
                false => Err(Malformed),
            };
        };
        let line = rest.get(..end).and_then(|line| line.strip_suffix(b"\r"));
        let (kind, line) = line.and_then(<[u8]>::split_first).ok_or(Malformed)?;
        let (part, taken) = match kind {
            b'$' => match number(line)? {
                -1 => (Part::Value(Value::Nil), end + 1),
                len => {
                    let len = usize::try_from(len).map_err(|_| Malformed)?;
                    if len > READ_LIMIT {
                        self.start += end + 1;
                        self.dropped = len.checked_add(2).ok_or(Malformed)?;
                        return Ok(Some(Part::Oversized));
                    }
                    let Some(string) = rest.get(end + 1..end + 1 + len + 2) else {
                        return Ok(None);
                    };
                    let string = string.strip_suffix(b"\r\n").ok_or(Malformed)?;
                    let value = Value::BulkString(string.to_vec());
                    (Part::Value(value), end + 1 + len + 2)
                }
            },
            b'*' => {
                let len = usize::try_from(number(line)?).map_err(|_| Malformed)?;
                if len > MOST_ELEMENTS {
                    return Err(Malformed);
                }
                (Part::Array(len), end + 1)
            }
            b':' => (Part::Value(Value::Int(number(line)?)), end + 1),
            b'+' => (Part::Value(Value::SimpleString(text(line))), end + 1),
            b'-' => (Part::Error(text(line)), end + 1),
            _ => return Err(Malformed),
        };
        self.start += taken;
        Ok(Some(part))
    }

    /// Drops what has arrived of an oversized value. `false` if more of it is to come.
    fn drop_oversized(&mut self) -> bool {
        let here = self.bytes.len() - self.start;
        let dropped = self.dropped.min(here);
        self.start += dropped;
        self.dropped -= dropped;
        self.dropped == 0
    }
}

impl Reply {
    fn empty() -> Self {
        Self::Array {
            values: Vec::new(),
            oversized: Vec::new(),
        }
    }
}

impl PartialArray {
    fn into_reply(self) -> Reply {
        Reply::Array {
            values: self.values,
            oversized: self.oversized,
        }
    }
}

fn number(line: &[u8]) -> Result<i64, Malformed> {
    let text = std::str::from_utf8(line).map_err(|_| Malformed)?;
    text.parse().map_err(|_| Malformed)
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The replies in these bytes, which arrive in parts of this size.
    fn in_parts(bytes: &[u8], size: usize) -> Result<Vec<Reply>, Malformed> {
        let (mut replies, mut read) = (Replies::default(), Vec::new());
        for part in bytes.chunks(size) {
            replies.room().extend_from_slice(part);
            while let Some(reply) = replies.next()? {
                read.push(reply);
            }
        }
        assert_eq!(replies.room().len(), 0, "all was taken");
        Ok(read)
    }

    fn array(values: Vec<Value>) -> Reply {
        let oversized = Vec::new();
        Reply::Array { values, oversized }
    }

    fn string(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    #[test]
    fn replies_are_the_same_in_whatever_parts_they_arrive() {
        let bytes = b"+OK\r\n*3\r\n$3\r\na\r\n\r\n$-1\r\n$0\r\n\r\n-NOPERM no\r\n*0\r\n:-7\r\n*1\r\n$1\r\nb\r\n$2\r\ncd\r\n";
        let expected = [
            Reply::Single(Value::SimpleString("OK".into())),
            array(vec![string(b"a\r\n"), Value::Nil, string(b"")]),
            Reply::Refused("NOPERM no".into()),
            array(vec![]),
            Reply::Single(Value::Int(-7)),
            array(vec![string(b"b")]),
            Reply::Single(string(b"cd")),
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
            assert_eq!(replies.next(), Ok(None));
            let now = left.min(part.len());
            replies.room().extend_from_slice(&part[..now]);
            left -= now;
            assert!(replies.bytes.len() <= part.len() + 64);
        }
        replies.room().extend_from_slice(b"\r\n$1\r\nb\r\n");
        let values = vec![string(b"a"), string(b""), string(b"b")];
        let oversized = vec![1];
        assert_eq!(replies.next(), Ok(Some(Reply::Array { values, oversized })));
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
