//! The rights of a user on the page.

/// The rights of a user on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rights {
    /// Nothing: every request is refused.
    None,
    /// Read figures and the catalog, but no entries, no events and not the doctor's report, which
    /// contain keys.
    Figures,
    /// As [`Figures`](Self::Figures). The page asks for a token, as with
    /// [`ReadUntilToken`](Self::ReadUntilToken).
    FiguresUntilToken,
    /// Read everything.
    Read,
    /// Read everything. The page asks for a token (such as `CACHE_ADMIN_TOKEN`) and sends it as a
    /// bearer token; the application then grants [`Change`](Self::Change).
    ReadUntilToken,
    /// Read everything, invalidate, and turn functions on and off.
    Change,
}

impl Rights {
    /// Whether keys and values may be read.
    pub(super) fn shows_keys(self) -> bool {
        matches!(self, Self::Read | Self::ReadUntilToken | Self::Change)
    }

    /// Whether the page asks for a token.
    pub(super) fn asks_for_token(self) -> bool {
        matches!(self, Self::ReadUntilToken | Self::FiguresUntilToken)
    }
}
