//! The errors that a type reports while it is probed.

use std::cell::RefCell;
use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use super::endless;

thread_local! {
    /// Serde drops the errors of an untagged enum's variants, but they are part of the shape too.
    /// So each is noted here as well.
    static ERRORS: RefCell<Vec<DeserializeError>> = const { RefCell::new(Vec::new()) };
}

/// An error of a type, by what it says that the type expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DeserializeError {
    Missing(&'static str),
    Variants(&'static [&'static str]),
    Fields(&'static [&'static str]),
    Expected(String),
    /// A field has come a second time.
    Twice(&'static str),
    /// An error with a text of its own, which may differ each time.
    Other,
}

impl DeserializeError {
    /// Calls `tell` with its text, if it has one that belongs to the shape.
    pub(super) fn for_each_text(&self, mut tell: impl FnMut(&str)) {
        match self {
            Self::Missing(name) => tell(&format!("missing {name}")),
            Self::Variants(names) => tell(&format!("variants {names:?}")),
            Self::Fields(names) => tell(&format!("fields {names:?}")),
            Self::Expected(text) => tell(&format!("expected {text}")),
            Self::Twice(name) => tell(&format!("twice {name}")),
            Self::Other => {}
        }
    }

    /// The names of the variants that a text may be.
    pub(super) fn variants(&self) -> &[&'static str] {
        match self {
            Self::Variants(names) => names,
            _ => &[],
        }
    }

    /// The names of the fields that it asks for.
    pub(super) fn fields(&self) -> &[&'static str] {
        match self {
            Self::Missing(name) => std::slice::from_ref(name),
            Self::Fields(names) => names,
            _ => &[],
        }
    }

    pub(super) fn is_of_adjacent_tag(&self) -> bool {
        matches!(self, Self::Expected(text) if text.starts_with("adjacently tagged enum"))
    }
}

/// Takes the errors on this thread since the last call.
pub(super) fn take_errors() -> Vec<DeserializeError> {
    ERRORS.with(RefCell::take)
}

fn record(error: DeserializeError) {
    endless::failed();
    // A limit, for a type that reports errors without end.
    ERRORS.with_borrow_mut(|errors| {
        if errors.len() < 1_000 {
            errors.push(error);
        }
    });
}

/// The end of a probe. The recorded errors say why.
#[derive(Debug)]
pub(super) struct Stop;

impl Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a made-up value was refused")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: Display>(_: T) -> Self {
        record(DeserializeError::Other);
        Self
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        record(DeserializeError::Expected(expected.to_string()));
        Self
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        record(DeserializeError::Expected(expected.to_string()));
        Self
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        record(DeserializeError::Expected(expected.to_string()));
        Self
    }

    fn unknown_variant(_: &str, variants: &'static [&'static str]) -> Self {
        record(DeserializeError::Variants(variants));
        Self
    }

    fn unknown_field(_: &str, fields: &'static [&'static str]) -> Self {
        record(DeserializeError::Fields(fields));
        Self
    }

    fn missing_field(field: &'static str) -> Self {
        record(DeserializeError::Missing(field));
        Self
    }

    fn duplicate_field(field: &'static str) -> Self {
        record(DeserializeError::Twice(field));
        Self
    }
}
