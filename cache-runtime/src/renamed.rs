//! Former names of public items, for programs that were written against an earlier build.

use std::time::Duration;

use crate::{BypassReason, Cache, CacheConfig};

macro_rules! renamed {
    ($($(#[$cfg:meta])? $former:ident => $now:ident;)*) => {
        $(
            $(#[$cfg])?
            #[doc(hidden)]
            #[deprecated(note = "renamed: this is an alias of the new name")]
            pub type $former = crate::$now;
        )*
    };
}

renamed! {
    Advice => Diagnostic;
    AdviceKind => DiagnosticKind;
    AuditFigures => AuditStats;
    Checkup => DoctorReport;
    Figures => StatCounters;
    FunctionFigures => FunctionStats;
    LocalFigures => LocalStats;
    #[cfg(feature = "map")]
    CacheMap => Catalog;
    #[cfg(feature = "map")]
    Finding => Lint;
    #[cfg(feature = "map")]
    FindingKind => LintKind;
    #[cfg(feature = "map")]
    Place => SourceLocation;
    #[cfg(feature = "map")]
    Reader => CachedFunction;
    #[cfg(feature = "map")]
    Target => InvalidationTarget;
    #[cfg(feature = "map")]
    Writer => InvalidatingFunction;
}

#[cfg(feature = "map")]
#[doc(hidden)]
#[deprecated(note = "renamed to `catalog`")]
#[must_use]
pub fn map() -> crate::Catalog {
    crate::catalog()
}

#[expect(non_upper_case_globals, reason = "they were variants")]
impl BypassReason {
    #[doc(hidden)]
    #[deprecated(note = "renamed to `Requested`")]
    pub const Asked: Self = Self::Requested;
    #[doc(hidden)]
    #[deprecated(note = "renamed to `KeyConflict`")]
    pub const Claimed: Self = Self::KeyConflict;
    #[doc(hidden)]
    #[deprecated(note = "renamed to `WriteInProgress`")]
    pub const Intended: Self = Self::WriteInProgress;
    #[doc(hidden)]
    #[deprecated(note = "renamed to `InvalidKey`")]
    pub const Unkeyable: Self = Self::InvalidKey;
}

impl Cache {
    #[doc(hidden)]
    #[deprecated(note = "renamed to `doctor`")]
    pub async fn checkup(&self) -> crate::DoctorReport {
        self.doctor().await
    }
}

impl CacheConfig {
    #[cfg(feature = "map")]
    #[doc(hidden)]
    #[deprecated(note = "renamed to `catalog`")]
    #[must_use]
    pub fn map(self, catalog: crate::Catalog) -> Self {
        self.catalog(catalog)
    }

    #[doc(hidden)]
    #[deprecated(note = "renamed to `in_doubt_window`")]
    #[must_use]
    pub fn uncertainty(self, window: Duration) -> Self {
        self.in_doubt_window(window)
    }
}
