//! Escapes a text for a key: no punctuation of keys, patterns or ids, and nothing invisible.

use std::fmt::{self, Write as _};

/// Whether `byte` is punctuation of keys, patterns or ids, or invisible.
const fn needs_escape(byte: u8) -> bool {
    byte <= b' '
        || matches!(
            byte,
            0x7f | b'%'
                | b'{'
                | b'}'
                | b':'
                | b'*'
                | b'?'
                | b'['
                | b']'
                | b','
                | b'@'
                | b'~'
                | b'('
                | b')'
                | b'\''
                | b'"'
                | b'\\'
        )
}

/// The bytes of texts that are written as they are, without looking at whole characters.
const IS_PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 0x80 {
        plain[byte as usize] = !needs_escape(byte);
        byte += 1;
    }
    plain
};

/// Appends `text`, escaped.
pub(super) fn escape(text: &str, out: &mut String) {
    if text.is_empty() {
        // Otherwise `("", "")` and `("",)` could look alike, and so could an empty string and an
        // empty list.
        out.push('%');
    }
    if text.bytes().all(|byte| IS_PLAIN[usize::from(byte)]) {
        return out.push_str(text);
    }
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte) if needs_escape(byte) => write_to(out, format_args!("%{byte:02X}")),
            _ if c.is_control() || c.is_whitespace() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    write_to(out, format_args!("%{byte:02X}"));
                }
            }
            _ => out.push(c),
        }
    }
}

/// Appends a formatted text.
pub(super) fn write_to(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a `String` does not fail.
    let _ = out.write_fmt(text);
}
