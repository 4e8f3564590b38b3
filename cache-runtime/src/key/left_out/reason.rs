//! The parts that a value leaves out when it is serialised, in words.

/// Has a zone, of which only the offset is written and shown.
pub(super) const TIME_WITH_ZONE: &str = "chrono::datetime::DateTime<chrono_tz::";

/// The part that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// `Debug` shows a field that is not serialised.
    Field { ty: String, field: Option<String> },
    /// `Debug` shows the name of a variant that is not serialised.
    Variant { ty: String },
    /// `Debug` shows a value differently from how it is serialised.
    Otherwise { ty: String },
    /// A struct is larger than the fields that are serialised.
    Room { ty: String, bytes: usize },
    /// A value is larger than the number or text that is serialised.
    Larger { ty: String, bytes: usize },
    /// The size is not known, or is that of another variant, or the value has its own form.
    Hidden { ty: String },
    /// A field is skipped, and no value has shown it yet.
    Skipped { ty: String, field: &'static str },
    /// It is behind a `dyn`, and nothing shows its type.
    Type { ty: String },
    /// The type neither serialises all that it holds nor shows it.
    Blind { ty: String },
}

impl Reason {
    /// The text for the log. It names a field only if it is certain.
    pub(super) fn told(&self) -> Option<String> {
        match self {
            Self::Field { ty, field } => {
                let field = match field {
                    Some(field) => format!("the field `{field}`"),
                    None => "a field".to_owned(),
                };
                Some(format!(
                    "{field} of `{ty}` is not serialised, so calls that differ in it alone have \
                     one key and replace each other's entries"
                ))
            }
            Self::Room { ty, bytes } => Some(format!(
                "{bytes} bytes of `{ty}` are not serialised, so calls that differ in them alone \
                 have one key and replace each other's entries"
            )),
            Self::Variant { .. }
            | Self::Otherwise { .. }
            | Self::Larger { .. }
            | Self::Hidden { .. }
            | Self::Skipped { .. }
            | Self::Type { .. }
            | Self::Blind { .. } => None,
        }
    }

    /// The text for the log if no hash distinguishes the values.
    pub(super) fn unknown(&self) -> String {
        match self {
            Self::Room { ty, bytes } | Self::Larger { ty, bytes } => format!(
                "{bytes} bytes of `{ty}` are not serialised, and calls that differ in them alone \
                 would share a key"
            ),
            Self::Hidden { ty } => format!(
                "whether `{ty}` is serialised as a whole can't be seen without its `Debug`, and \
                 calls that differ in what is not would share a key; derive `Debug` for it"
            ),
            Self::Skipped { ty, field } => format!(
                "the field `{field}` of `{ty}` may be left out for more than one value, and calls \
                 that differ in it alone would share a key; derive `Debug` for it"
            ),
            Self::Type { ty } => format!(
                "the type of the value behind `{ty}` is not in the key, and values of two types may \
                 look alike; take an enum or a type parameter in its place"
            ),
            Self::Blind { ty } => format!(
                "`{ty}` neither serialises nor shows all that it holds, and calls that differ in \
                 the rest would share a key; name what tells them apart with `key(..)`"
            ),
            Self::Field { ty, .. } | Self::Variant { ty } | Self::Otherwise { ty } => format!(
                "a part of `{ty}` is not serialised, and calls that differ in it alone would share \
                 a key"
            ),
        }
    }

    /// Whether a value has more bytes than the number that it is written as.
    pub(super) fn is_beside_a_number(&self) -> bool {
        matches!(self, Self::Larger { .. })
    }

    /// Whether it was found by the size of a struct, which can't be mistaken for a variant of an
    /// enum.
    pub(super) fn is_of_a_struct(&self) -> bool {
        matches!(self, Self::Room { .. })
    }

    /// Whether a hash by `Hash` covers what is left out.
    pub(super) fn is_hashed(&self) -> bool {
        match self {
            Self::Type { .. } => false,
            // A time with its zone is hashed as a point in time.
            Self::Blind { ty } => !ty.starts_with(TIME_WITH_ZONE),
            _ => true,
        }
    }
}
