//! The connections of a cluster that had no answer in time.

use std::sync::{Arc, Weak};

/// The connections that had no answer in time in the last round, and in this one. The reason may be
/// that this process was held up, so a connection ends only if it is late in two rounds in a row.
#[derive(Debug)]
pub(super) struct Late<C> {
    before: Vec<Weak<C>>,
    now: Vec<Weak<C>>,
}

impl<C> Default for Late<C> {
    fn default() -> Self {
        Self {
            before: Vec::new(),
            now: Vec::new(),
        }
    }
}

impl<C> Late<C> {
    /// A round begins.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// All are asked again in the same round. Who is silent during one round is late once.
    pub(super) fn begin_again(&mut self) {
        self.begin();
        if !crate::base::mutation::is_active("late-twice-in-a-round-is-lost") {
            self.before.clear();
        }
    }

    /// Whether it was late before.
    pub(super) fn was(&self, connection: &Arc<C>) -> bool {
        let mut before = self.before.iter();
        before.any(|late| std::ptr::eq(late.as_ptr(), Arc::as_ptr(connection)))
    }

    /// It is late now.
    pub(super) fn is(&mut self, connection: Weak<C>) {
        self.now.push(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_silent_during_one_round_is_late_once() {
        let (mut late, connection) = (Late::default(), Arc::new(1));
        let mut is_lost = |answers: &[bool]| {
            late.begin();
            for (n, has_answered) in answers.iter().enumerate() {
                if n > 0 {
                    late.begin_again();
                }
                if *has_answered {
                    continue;
                }
                if late.was(&connection) {
                    return true;
                }
                late.is(Arc::downgrade(&connection));
            }
            false
        };
        assert!(!is_lost(&[false, false]), "in one round");
        assert!(is_lost(&[false]), "in two rounds in a row");
        assert!(!is_lost(&[true]));
        assert!(!is_lost(&[false]), "not in a row");
        assert!(!is_lost(&[true, true]));
        assert!(!is_lost(&[false, true]));
        assert!(!is_lost(&[false]), "it has answered in between");
    }
}
