//! The events that the page remembers.

use std::collections::VecDeque;
use std::mem::discriminant;

use crate::telemetry::events::Event;

/// How many events of each kind the page remembers. So no flood of one kind takes away the others.
pub(super) const REMEMBERED: usize = 100;

/// The last events, each with its number.
#[derive(Debug, Default)]
pub(super) struct Recent {
    pub(super) events: VecDeque<(u64, Event)>,
    pub(super) next: u64,
    pub(super) lost: u64,
}

impl Recent {
    /// Adds an event, in place of the oldest of its kind if there are enough of these.
    pub(super) fn keep(&mut self, event: Event) {
        let kind = discriminant(&event.kind);
        let is_alike = |(_, it): &(u64, Event)| discriminant(&it.kind) == kind;
        if self.events.iter().filter(|it| is_alike(it)).count() >= REMEMBERED
            && let Some(oldest) = self.events.iter().position(is_alike)
        {
            self.events.remove(oldest);
        }
        self.events.push_back((self.next, event));
        self.next += 1;
    }
}
