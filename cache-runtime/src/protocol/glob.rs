//! Redis's glob patterns, for stores without a server that matches them.

/// Escapes `text` so that a pattern matches it literally.
pub(crate) fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// Whether `text` matches `pattern`: `*`, `?`, `[a-c]`, `[^a]`, and `\` before a literal.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to continue when the last `*` has to match one more byte.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[p..], text[t]),
            Some(b'\\') if p + 1 < pattern.len() => (pattern[p + 1] == text[t]).then_some(2),
            Some(&literal) => (literal == text[t]).then_some(1),
            None => None,
        };
        match (step, retry) {
            (Some(length), _) => {
                p += length;
                t += 1;
            }
            (None, Some((after_star, start))) => {
                retry = Some((after_star, start + 1));
                (p, t) = (after_star, start + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// The length of the class that starts `pattern`, if `byte` is in it.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    let mut found = false;
    while let Some(&low) = pattern.get(at) {
        if low == b']' {
            return (found != negated).then_some(at + 1);
        }
        if low == b'\\' && at + 1 < pattern.len() {
            found |= pattern[at + 1] == byte;
            at += 2;
        } else if let (Some(b'-'), Some(&high)) = (pattern.get(at + 1), pattern.get(at + 2)) {
            found |= (low.min(high)..=low.max(high)).contains(&byte);
            at += 3;
        } else {
            found |= low == byte;
            at += 1;
        }
    }
    // Unclosed: as in Redis, the class ends with the pattern.
    (found != negated).then_some(pattern.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes())
    }

    #[test]
    fn as_redis_matches() {
        for (pattern, text, expected) in [
            ("users:list:*", "users:list:ab", true),
            ("users:list:*", "users:1", false),
            ("*", "", true),
            ("*:*:c", "a:b:b:c", true),
            ("*:*:c", "a:c", false),
            ("user?:1", "users:1", true),
            ("user?:1", "user:1", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[c-a]x", "bx", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            ("a", "ab", false),
            ("a*", "a", true),
            ("", "a", false),
        ] {
            assert_eq!(is_match(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_literal_matches_itself_alone() {
        let odd = r"a*b?[c]\d";
        assert!(is_match(&literal(odd), odd));
        assert!(!is_match(&literal("a*"), "ab"));
    }
}
