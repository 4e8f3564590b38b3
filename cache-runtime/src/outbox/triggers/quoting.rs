//! Texts in the SQL of triggers.

/// A text, escaped for a regular expression.
pub(super) fn quote_pattern(text: &str) -> String {
    let mut quoted = String::new();
    for letter in text.chars() {
        if letter.is_ascii_punctuation() && letter != '_' {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted
}

/// A text between delimiters that it does not contain.
pub(super) fn dollars(text: &str) -> String {
    let mut mark = String::from("$cache_outbox$");
    while text.contains(&mark) {
        mark.insert(mark.len() - 1, '_');
    }
    format!("{mark}{text}{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_that_do_not_stand_in_the_text() {
        assert_eq!(dollars("x"), "$cache_outbox$x$cache_outbox$");
        assert_eq!(
            dollars("$cache_outbox$"),
            "$cache_outbox_$$cache_outbox$$cache_outbox_$"
        );
    }
}
