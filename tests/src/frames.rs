//! Where one answer of Redis ends and the next begins (RESP2 and RESP3).

/// The longest answer that is kept whole.
const KEPT: usize = 1 << 20;

/// Follows a stream of answers, in whatever pieces it comes.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The answer under way, as far as it has come.
    frame: Vec<u8>,
    /// Bytes of the answer under way that are more than is kept.
    is_long: bool,
    /// The line under way.
    line: Vec<u8>,
    /// Bytes of a text that are still to come, with the end of its line.
    text: usize,
    /// How many parts are still to come, of each list that is open.
    open: Vec<usize>,
    is_push: bool,
    /// This is no RESP.
    is_lost: bool,
}

/// One answer, or one push.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    /// It was sent without being asked for.
    pub(crate) is_push: bool,
}

impl Frames {
    /// The answers that end within these bytes; what is behind the last one is kept for the next
    /// call. `None` if the stream can't be followed.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<Vec<Frame>> {
        let mut frames = Vec::new();
        let mut rest = bytes;
        while !self.is_lost && !rest.is_empty() {
            let length = if self.text > 0 {
                self.text.min(rest.len())
            } else {
                let end = rest.iter().position(|byte| *byte == b'\n');
                end.map_or(rest.len(), |end| end + 1)
            };
            let (piece, behind) = rest.split_at(length);
            rest = behind;
            if self.frame.len() + piece.len() > KEPT {
                self.is_long = true;
            } else {
                self.frame.extend_from_slice(piece);
            }
            let is_whole = if self.text > 0 {
                self.text -= piece.len();
                self.text == 0 && self.part()
            } else {
                self.line.extend_from_slice(piece);
                piece.ends_with(b"\n") && self.line()
            };
            if is_whole {
                let is_long = std::mem::take(&mut self.is_long);
                let bytes = std::mem::take(&mut self.frame);
                let is_push = std::mem::take(&mut self.is_push);
                self.is_lost |= is_long;
                frames.push(Frame { bytes, is_push });
            }
        }
        (!self.is_lost).then_some(frames)
    }

    /// Whether the last answer is whole, and nothing of the next one has come.
    pub(crate) fn is_between(&self) -> bool {
        self.frame.is_empty() && !self.is_long
    }

    /// A line has ended; says whether the answer has.
    fn line(&mut self) -> bool {
        let line = std::mem::take(&mut self.line);
        let Some((kind, rest)) = line.split_first() else {
            return false;
        };
        let number = || -> Option<i64> { std::str::from_utf8(rest).ok()?.trim_end().parse().ok() };
        let mut count = |times: usize| match number() {
            Some(count) => Some(usize::try_from(count).unwrap_or(0) * times),
            None => {
                self.is_lost = true;
                None
            }
        };
        match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => self.part(),
            b'$' | b'!' | b'=' => match number() {
                Some(length) if length >= 0 => {
                    self.text = usize::try_from(length).unwrap_or(0) + 2;
                    false
                }
                _ => self.part(),
            },
            b'*' | b'~' | b'>' | b'%' => {
                self.is_push |= *kind == b'>' && self.open.is_empty();
                match count(if *kind == b'%' { 2 } else { 1 }) {
                    Some(0) => self.part(),
                    Some(parts) => {
                        self.open.push(parts);
                        false
                    }
                    None => false,
                }
            }
            _ => {
                self.is_lost = true;
                false
            }
        }
    }

    /// A part is whole; says whether the answer is.
    fn part(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_in_whatever_pieces_they_come() {
        let whole: [(&[u8], bool); 8] = [
            (b"+OK\r\n", false),
            (b"$-1\r\n", false),
            (b"$5\r\na\r\nbc\r\n", false),
            (b"*3\r\n$0\r\n\r\n*0\r\n*2\r\n:1\r\n_\r\n", false),
            (b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", true),
            (b"%1\r\n+a\r\n*1\r\n#t\r\n", false),
            (b"*-1\r\n", false),
            (b"-ERR no\r\n", false),
        ];
        let stream: Vec<u8> = whole.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
        for size in 1..=stream.len() {
            let mut frames = Frames::default();
            let found: Vec<Frame> = stream
                .chunks(size)
                .flat_map(|piece| frames.feed(piece).expect("RESP"))
                .collect();
            let expected = whole.map(|(bytes, is_push)| Frame {
                bytes: bytes.to_vec(),
                is_push,
            });
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn other_text_is_not_taken_for_an_answer() {
        assert_eq!(Frames::default().feed(&[2]), Some(vec![]));
        for bytes in [&b"\x02\n"[..], b"*x\r\n", b"GET / HTTP/1.1\r\n"] {
            assert_eq!(Frames::default().feed(bytes), None, "{bytes:?}");
        }
    }
}
