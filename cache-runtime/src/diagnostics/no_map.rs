//! Stands in for the annotated functions if the feature `map` is off. The settings tell which
//! resources there are.

use super::report::DoctorReport;
use crate::config::CacheConfig;
use crate::key::is_resource;

pub(super) struct Program<'a>(&'a CacheConfig);

impl<'a> Program<'a> {
    pub(super) fn of(config: &'a CacheConfig) -> Self {
        Self(config)
    }

    pub(super) fn resources(&self) -> Vec<String> {
        let names = self.0.ttl_by_resource.keys();
        names.filter(|name| is_resource(name)).cloned().collect()
    }

    pub(super) fn has_crash_safe(&self) -> bool {
        false
    }

    pub(super) fn ops(&self, _: &mut DoctorReport) {}

    pub(super) fn ttls(&self, report: &mut DoctorReport, _: &CacheConfig) {
        let functions = "the annotated functions, because the feature `map` is off";
        report.not_checked.push(functions.into());
    }
}
