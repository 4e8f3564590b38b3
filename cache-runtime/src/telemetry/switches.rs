//! The reads that bypass the cache because an operator has switched them off.
//!
//! Only reads are switched. Invalidations continue, so an entry that is found after switching on
//! again is valid, or is refused by the usual comparison.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

/// Stands for all resources.
pub(crate) const ALL: &str = "*";

/// The switched-off reads, in this process and for all processes.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    /// Whether there are any. If not, a read checks nothing else.
    any: AtomicBool,
    off: RwLock<Off>,
}

#[derive(Debug, Default)]
struct Off {
    here: BTreeSet<String>,
    everywhere: BTreeSet<String>,
}

/// A change of what is switched off for all processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) target: String,
    pub(crate) enabled: bool,
}

impl Switches {
    /// Whether reads of this resource by this function bypass the cache.
    #[inline]
    pub(crate) fn is_off(&self, resource: &str, op: &str) -> bool {
        self.any.load(Ordering::Acquire) && self.is_listed(resource, op)
    }

    /// Whether anything is switched off.
    #[inline]
    pub(crate) fn is_any_off(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    #[cold]
    fn is_listed(&self, resource: &str, op: &str) -> bool {
        let off = self.off.read();
        [&off.here, &off.everywhere].into_iter().any(|set| {
            set.iter().any(|target| match target.split_once(':') {
                Some((of, function)) => of == resource && function == op,
                None => target == resource || target == ALL,
            })
        })
    }

    /// Whether all reads of a resource do.
    pub(crate) fn is_resource_off(&self, resource: &str) -> bool {
        self.is_off(resource, "")
    }

    /// Switches in this process; returns whether that changed anything.
    pub(crate) fn switch_here(&self, target: &str, enabled: bool) -> bool {
        self.change(|off| match enabled {
            true => off.here.remove(target),
            false => off.here.insert(target.to_owned()),
        })
    }

    /// Applies the list for all processes; returns what that changed.
    pub(crate) fn learn(&self, everywhere: BTreeSet<String>) -> Vec<Change> {
        // Usually nothing has changed, and no lock should be taken.
        if self.off.read().everywhere == everywhere {
            return Vec::new();
        }
        self.change(|off| {
            let change = |target: &String, enabled| Change {
                target: target.clone(),
                enabled,
            };
            let on = off.everywhere.difference(&everywhere);
            let new = everywhere.difference(&off.everywhere);
            let changes = on
                .map(|target| change(target, true))
                .chain(new.map(|target| change(target, false)))
                .collect();
            off.everywhere = everywhere;
            changes
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Off) -> T) -> T {
        let mut off = self.off.write();
        let changed = change(&mut off);
        let any = !(off.here.is_empty() && off.everywhere.is_empty());
        self.any.store(any, Ordering::Release);
        changed
    }

    /// The reads that are switched off in this process, and for all.
    pub(crate) fn listed(&self) -> (Vec<String>, Vec<String>) {
        let off = self.off.read();
        let listed = |set: &BTreeSet<String>| set.iter().cloned().collect();
        (listed(&off.here), listed(&off.everywhere))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_a_function_or_everything() {
        let switches = Switches::default();
        assert!(!switches.is_off("users", "get"));
        assert!(switches.switch_here("users:get", false));
        assert!(!switches.switch_here("users:get", false), "it was off");
        assert!(switches.is_off("users", "get") && !switches.is_off("users", "list"));
        switches.switch_here("users", false);
        assert!(switches.is_off("users", "list") && !switches.is_off("teams", "list"));
        switches.switch_here("users", true);
        assert!(
            switches.is_off("users", "get"),
            "it was switched off by itself"
        );
        switches.switch_here("users:get", true);
        switches.switch_here("*", false);
        assert!(switches.is_off("teams", "list"));
    }

    #[test]
    fn switches_of_all_processes_are_apart_from_local_ones() {
        let switches = Switches::default();
        switches.switch_here("users", false);
        let learnt = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        let changes = switches.learn(learnt(&["teams", "users"]));
        assert_eq!(changes.len(), 2);
        assert!(switches.learn(learnt(&["teams", "users"])).is_empty());
        switches.switch_here("users", true);
        assert!(switches.is_off("users", "get"), "for all it is off");
        let changes = switches.learn(learnt(&["teams"]));
        let on = Change {
            target: "users".into(),
            enabled: true,
        };
        assert_eq!(changes, [on]);
        assert!(!switches.is_off("users", "get"));
    }
}
