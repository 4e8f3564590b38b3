//! What a type complains of while it is probed.

use std::cell::RefCell;
use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

thread_local! {
    /// Serde drops the errors of an untagged enum's variants; what they say is a part of the shape all the same.
    static HEARD: RefCell<Vec<Complaint>> = const { RefCell::new(Vec::new()) };
}

/// What a type says it had expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Complaint {
    Missing(&'static str),
    Variants(&'static [&'static str]),
    Fields(&'static [&'static str]),
    Expected(String),
}

/// What has been said on this thread since the last time.
pub(super) fn heard() -> Vec<Complaint> {
    HEARD.with(RefCell::take)
}

fn hear(complaint: Complaint) {
    // A type that complains without end would be heard without end.
    HEARD.with_borrow_mut(|heard| {
        if heard.len() < 1_000 {
            heard.push(complaint);
        }
    });
}

/// A probe came to an end; why is told by what was heard.
#[derive(Debug)]
pub(super) struct Stop;

impl Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a made-up value was refused")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    // The text of a custom error may be another one each time.
    fn custom<T: Display>(_: T) -> Self {
        Self
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        hear(Complaint::Expected(expected.to_string()));
        Self
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        hear(Complaint::Expected(expected.to_string()));
        Self
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        hear(Complaint::Expected(expected.to_string()));
        Self
    }

    fn unknown_variant(_: &str, variants: &'static [&'static str]) -> Self {
        hear(Complaint::Variants(variants));
        Self
    }

    fn unknown_field(_: &str, fields: &'static [&'static str]) -> Self {
        hear(Complaint::Fields(fields));
        Self
    }

    fn missing_field(field: &'static str) -> Self {
        hear(Complaint::Missing(field));
        Self
    }

    fn duplicate_field(_: &'static str) -> Self {
        Self
    }
}
