//! Limits the length of names: an id from outside has no limit of its own.
//!
//! A key travels with every command, so one long id slows down every call on the connection. Past
//! [`ID_LIMIT`], an id becomes a readable beginning and a keyed hash of the whole:
//! `users:aaaa…~<32 hex digits>`. Readers, writers and tags all shorten here, so they agree. A
//! short id can't look like that: there, `~` is an absent part, and `~`, `,`, `)` or nothing
//! follows it, never a digit.

use crate::base::nonce::hash128;

/// The longest text of an id or a tag, in bytes, that a key contains unchanged.
pub(crate) const ID_LIMIT: usize = 200;

/// How many bytes of a longer id stay readable.
const READABLE: usize = 160;

const MARK: char = '~';

/// The longest name of a resource, an op or a namespace, in bytes. Programmers and operators write
/// them.
pub(crate) const NAME_LIMIT: usize = 128;

/// The most canonical bytes that the arguments of one call may have. [`LONGEST_ID`] is the most
/// bytes of an id's text. Past either limit the call bypasses the cache: to encode and hash that
/// much takes longer than most loads.
pub(crate) const ARGUMENT_LIMIT: usize = 1 << 20;

pub(crate) const LONGEST_ID: usize = 8 << 20;

/// Shortens the text from `start` on, if it is too long for a key.
#[inline]
pub(super) fn bound(text: &mut String, start: usize, hash_key: &[u8; 16]) {
    if text.len() - start > ID_LIMIT && !crate::base::mutation::is_active("ids-not-bounded") {
        shorten(text, start, hash_key);
    }
}

/// Shortens the text from `start` on as [`bound`] did when the key was written. The context of the
/// call is between `@`, before or behind the id. It is not part of the id that was shortened.
pub(super) fn bound_parts(text: &mut String, start: usize, hash_key: &[u8; 16]) {
    if text.len() - start <= ID_LIMIT {
        return;
    }
    let whole = text.split_off(start);
    for (at, part) in whole.split('@').enumerate() {
        if at > 0 {
            text.push('@');
        }
        let start = text.len();
        text.push_str(part);
        bound(text, start, hash_key);
    }
}

#[cold]
fn shorten(text: &mut String, start: usize, hash_key: &[u8; 16]) {
    let Some(id) = text.get(start..) else {
        return;
    };
    let hash = hash128(hash_key, id.as_bytes());
    let readable = cut(id, READABLE);
    text.truncate(start + readable);
    text.push(MARK);
    push_hash(text, hash);
    // Gives back the memory of the long text.
    text.shrink_to(start + ID_LIMIT);
}

/// The longest beginning of `id` within the limit that ends between two characters, escaped ones
/// included.
fn cut(id: &str, limit: usize) -> usize {
    let mut at = limit.min(id.len());
    while !id.is_char_boundary(at) {
        at -= 1;
    }
    let bytes = id.as_bytes();
    let is_escape = |at: usize| bytes.get(at) == Some(&b'%');
    // The cut is inside an escape: `%` or `%4` would remain.
    if let Some(back) = (1..=2).find(|back| *back <= at && is_escape(at - back)) {
        at -= back;
    }
    // The cut is between the escaped bytes of one character: its later bytes are `%80` to `%BF`.
    let goes_on =
        |at: usize| is_escape(at) && matches!(bytes.get(at + 1), Some(b'8'..=b'9' | b'A'..=b'B'));
    while at >= 3 && goes_on(at) && is_escape(at - 3) {
        at -= 3;
    }
    at
}

pub(super) fn push_hash(text: &mut String, hash: u128) {
    /// The hex digits of each byte: half as many steps as digit by digit.
    const DIGITS: [[u8; 2]; 256] = {
        let digits = b"0123456789abcdef";
        let mut pairs = [[0; 2]; 256];
        let mut byte = 0;
        while byte < 256 {
            pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
            byte += 1;
        }
        pairs
    };
    let pairs = hash.to_be_bytes().map(|byte| DIGITS[usize::from(byte)]);
    // Hex digits are ASCII, so this can't fail.
    text.push_str(std::str::from_utf8(pairs.as_flattened()).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounded(id: &str) -> String {
        let mut text = format!("users:{id}");
        bound(&mut text, 6, &[7; 16]);
        text.split_off(6)
    }

    #[test]
    fn a_long_id_is_a_beginning_and_a_hash() {
        let longest = "a".repeat(ID_LIMIT);
        assert_eq!(bounded(&longest), longest);
        let longer = bounded(&"a".repeat(ID_LIMIT + 1));
        let (readable, hash) = longer.split_once(MARK).expect("a mark");
        assert_eq!(readable, "a".repeat(READABLE));
        assert!(hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
        assert_eq!(longer.len(), READABLE + 33);
        assert_ne!(longer, bounded(&"a".repeat(ID_LIMIT + 2)));
        assert_eq!(longer, bounded(&longer), "what is bounded stays as it is");
    }

    #[test]
    fn a_context_around_an_id_is_not_shortened_with_it() {
        let id = "a".repeat(300);
        let around = |id: &str| format!("orders:@0c8fb3f6-7f0c-4b8e-9d56-3a52a3b7b1f7@{id}@eu");
        let mut text = around(&id);
        bound_parts(&mut text, 7, &[7; 16]);
        assert_eq!(text, around(&bounded(&id)));
        let once = text.clone();
        bound_parts(&mut text, 7, &[7; 16]);
        assert_eq!(text, once);
    }

    #[test]
    fn characters_stay_whole() {
        let nbsp = "%C2%A0".repeat(60);
        for pad in 0..8 {
            let id = format!("{}{nbsp}", "a".repeat(pad));
            let shown = bounded(&id);
            let (readable, _) = shown.rsplit_once('~').expect("a mark");
            assert_eq!((readable.len() - pad) % 6, 0, "{readable}");
        }
        assert!(bounded(&"é".repeat(200)).starts_with(&"é".repeat(80)));
    }

    proptest! {
        #[test]
        fn different_ids_stay_different(a in "[a%é]{0,3}[ab]{195,205}", b in "[a%é]{0,3}[ab]{195,205}") {
            prop_assert_eq!(bounded(&a) == bounded(&b), a == b);
            prop_assert!(bounded(&a).len() <= ID_LIMIT);
        }
    }
}
