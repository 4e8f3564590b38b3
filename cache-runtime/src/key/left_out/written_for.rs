//! The reader that a serialised value is written for.

/// The reader that a serialised value is written for. Types such as `Uuid` and `IpAddr` write a
/// text for people and bytes for programs, and a type of the user's own may leave out other parts
/// in each form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum WrittenFor {
    /// As ids are written, and values in JSON.
    People,
    /// As arguments are hashed, and values are written in the other codecs.
    Programs,
}

impl WrittenFor {
    #[inline]
    pub(super) fn is_readable(self) -> bool {
        self == Self::People
    }

    /// The form of an id, which is examined as it is written.
    #[inline]
    pub(crate) fn id() -> Self {
        match crate::base::mutation::is_active("ids-examined-as-arguments") {
            true => Self::Programs,
            false => Self::People,
        }
    }
}
