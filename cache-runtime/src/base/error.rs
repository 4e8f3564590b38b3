//! The error of the operations that a caller asks for by hand.

use std::error::Error as StdError;
use std::fmt;

/// The kind of an [`Error`], for code that branches on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The name is not a valid key, resource or pattern; the text says why.
    InvalidKey,
    /// The value could not be encoded, or is over the size limit.
    Unstorable,
    /// The key holds a value that this framework did not write; it was left alone.
    Foreign,
    /// Another writer came in between: the cache holds something newer than this operation.
    Superseded,
    /// The store can't be reached, did not answer within the command budget, or has answered that it
    /// serves nobody at the moment: it loads its data, or is no primary any more.
    Unavailable,
    /// The store answered with an error.
    Store,
    /// The store can't do this at all.
    Unsupported,
    /// A setting can't be used; the text names it, its value and the allowed values.
    InvalidConfig,
}

impl ErrorKind {
    /// The kind's name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidKey => "invalid_key",
            Self::Unstorable => "unstorable",
            Self::Foreign => "foreign",
            Self::Superseded => "superseded",
            Self::Unavailable => "unavailable",
            Self::Store => "store",
            Self::Unsupported => "unsupported",
            Self::InvalidConfig => "invalid_config",
        }
    }
}

/// A failure of the cache. [`kind`](Error::kind) is for code, the text for people, and `source()`
/// has the cause.
///
/// Annotated functions never return it: when the cache fails, they simply run.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind. `context` is for people: lower case, without a full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self {
            kind,
            context: context.into(),
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Adds more words, for people.
    #[cfg_attr(
        not(feature = "redis"),
        expect(dead_code, reason = "of servers that others name")
    )]
    pub(crate) fn explained(mut self, words: impl fmt::Display) -> Self {
        self.context = format!("{}{words}", self.context);
        self
    }

    pub(crate) fn unavailable(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, context)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// How many characters of an outside text are shown.
const SHOWN: usize = 200;

/// Makes an outside text fit for a log or an error: control characters are escaped, so that one
/// event stays one line, and a long text is cut.
pub(crate) fn shortened(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(SHOWN));
    for (at, c) in text.chars().enumerate() {
        if at == SHOWN {
            shown.push_str(&format!(".. ({} bytes)", text.len()));
            break;
        }
        match c {
            c if c.is_control() || is_invisible(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// Characters that change how a line reads without being visible: line separators and marks of
/// writing direction.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_texts_stay_on_one_line_and_short() {
        assert_eq!(
            shortened("NOAUTH Authentication required."),
            "NOAUTH Authentication required."
        );
        assert_eq!(
            shortened("é\r\nERROR forged\u{1b}[31m\u{202e}"),
            "é\\r\\nERROR forged\\u{1b}[31m\\u{202e}"
        );
        let long = shortened(&"x".repeat(1 << 20));
        assert!(
            long.len() < 2 * SHOWN && long.ends_with(".. (1048576 bytes)"),
            "{long}"
        );
    }
}
