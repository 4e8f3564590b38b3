//! Why a read is not served although its server is connected.

use std::fmt;

use super::error::Error;

/// The source of an error that says more than its kind. If the owner of the data is not certain,
/// the kind is [`Unavailable`](super::error::ErrorKind::Unavailable).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(any(feature = "redis", test)),
    expect(dead_code, reason = "of a cluster and of Sentinels")
)]
pub(crate) enum Unserved {
    /// In a cluster: the former owner of the slot may still answer others.
    Fenced,
    /// In a cluster, and with Sentinels: nobody has confirmed in time which server is the primary.
    Unconfirmed,
    /// The server's memory is full and it does not evict, so it takes nothing new. The kind of the
    /// error is [`Store`](super::error::ErrorKind::Store), since the server answers.
    Full,
}

impl Unserved {
    /// The reason of an error, if it is one of these.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        std::error::Error::source(error)?.downcast_ref().copied()
    }

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Fenced => "the slot's former owner may still answer",
            Self::Unconfirmed => "it was not confirmed for too long which server is the primary",
            Self::Full => "the server's memory is full",
        }
    }
}

impl fmt::Display for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Unserved {}

impl From<Unserved> for Error {
    fn from(reason: Unserved) -> Self {
        Self::unavailable(reason.text()).with_source(reason)
    }
}

/// The same error for one more caller; of its sources, only such a reason is kept.
#[cfg_attr(
    not(any(feature = "redis", test)),
    expect(dead_code, reason = "of a cluster and of Sentinels")
)]
pub(crate) fn copied(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.to_string());
    match Unserved::of(error) {
        Some(reason) => copy.with_source(reason),
        None => copy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;

    #[test]
    fn the_reason_stays_with_each_copy_of_an_error() {
        for reason in [Unserved::Fenced, Unserved::Unconfirmed] {
            let copy = copied(&copied(&reason.into()));
            assert_eq!(Unserved::of(&copy), Some(reason));
            assert_eq!(copy.to_string(), reason.text());
        }
        assert_eq!(Unserved::of(&copied(&Error::unavailable("away"))), None);
        let full = Error::new(ErrorKind::Store, "OOM").with_source(Unserved::Full);
        let copy = copied(&full);
        assert_eq!(Unserved::of(&copy), Some(Unserved::Full));
        assert_eq!(
            (copy.kind(), copy.to_string()),
            (ErrorKind::Store, "OOM".into())
        );
    }
}
