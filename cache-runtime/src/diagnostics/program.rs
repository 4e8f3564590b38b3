//! The rules about the program, given its annotated functions.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::report::{DiagnosticKind, DoctorReport};
use crate::config::CacheConfig;
use crate::key::is_resource;
use crate::registry::catalog::{CachedFunction, Catalog, is_constant};

/// From this TTL on, a value without an invalidation is most likely a mistake.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The annotated functions.
pub(super) struct Program<'a>(Cow<'a, Catalog>);

impl<'a> Program<'a> {
    pub(super) fn of(config: &'a CacheConfig) -> Self {
        Self(match &config.map {
            Some(map) => Cow::Borrowed(map),
            None => Cow::Owned(crate::registry::catalog::catalog()),
        })
    }

    /// The resources it caches, as far as they are known without running it.
    pub(super) fn resources(&self) -> Vec<String> {
        let names = self.0.readers().iter().map(|reader| &reader.resource);
        let names: BTreeSet<&String> = names.filter(|name| is_resource(name)).collect();
        names.into_iter().cloned().collect()
    }

    pub(super) fn has_crash_safe(&self) -> bool {
        self.0.writers().iter().any(|writer| writer.crash_safe)
    }

    /// Reports values that are kept long and never invalidated: one line for each resource and
    /// setting.
    pub(super) fn ttls(&self, report: &mut DoctorReport, config: &CacheConfig) {
        let mut found: BTreeMap<(&str, String), Duration> = BTreeMap::new();
        for reader in self.0.readers() {
            let (ttl, setting) = ttl(reader, config);
            if ttl.is_some_and(|ttl| ttl >= DAY) && !self.may_be_invalidated(reader) {
                let kept = found.entry((&reader.resource, setting)).or_default();
                *kept = ttl.unwrap_or_default().max(*kept);
            }
        }
        for ((resource, setting), ttl) in found {
            let days = ttl.as_secs_f64() / DAY.as_secs_f64();
            report.advise(
                DiagnosticKind::LongTtl,
                format!(
                    "`{resource}` is kept for {} ({setting}) and no function invalidates it; lower that, or put `#[invalidates(\"{resource}\")]` on what writes it",
                    if days < 2.0 { "a day".to_owned() } else { format!("{days:.0} days") },
                ),
            );
        }
        let functions = self.0.readers().len() + self.0.writers().len();
        report
            .checked
            .push(format!("{functions} annotated functions"));
    }

    /// Reports writes that invalidate an `op` which no function has: they invalidate nothing by it.
    pub(super) fn ops(&self, report: &mut DoctorReport) {
        for finding in self.0.ops_never_cached() {
            report.advise(DiagnosticKind::NoSuchOp, finding.to_string());
        }
    }

    /// An unresolved constant may name any resource, so it counts as invalidating.
    fn may_be_invalidated(&self, reader: &CachedFunction) -> bool {
        let mut targets = self.0.writers().iter().flat_map(|writer| &writer.targets);
        self.0.reaches(reader)
            || targets.any(|target| is_constant(&target.resource) || is_constant(&reader.resource))
    }
}

/// Returns how long a function's values are kept, and which setting says so. The TTL is `None` if
/// only the running program knows it.
fn ttl(reader: &CachedFunction, config: &CacheConfig) -> (Option<Duration>, String) {
    if let Some(ttl) = config.operator_ttl(&reader.resource) {
        let name = reader.resource.to_ascii_uppercase().replace('-', "_");
        return (Some(ttl), format!("CACHE_TTL_{name}"));
    }
    match &reader.ttl {
        Some(seconds) => {
            let ttl = seconds.parse().map(Duration::from_secs).ok();
            let place = format!(
                "`ttl` of `{}`, {}:{}",
                reader.function, reader.place.file, reader.place.line
            );
            (ttl, place)
        }
        None => (Some(config.default_ttl), "CACHE_TTL".to_owned()),
    }
}

#[cfg(test)]
mod tests;
