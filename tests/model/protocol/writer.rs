//! Invalidating calls, the delivery of what they order, and what befalls the store meanwhile.

use super::store::{Dep, Intents, Key};
use super::{Action, Scenario, State, Variant, Version};
use crate::nonce::Nonce;

/// What a write invalidates, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// `invalidates("users")`.
    Whole,
    /// `invalidates("users", id = id)`.
    Row,
    /// `invalidates("users", crash_safe)`.
    CrashSafeWhole,
    /// `invalidates("users", id = id, crash_safe)`.
    CrashSafeRow,
}

impl Kind {
    pub(super) fn is_crash_safe(self) -> bool {
        matches!(self, Self::CrashSafeWhole | Self::CrashSafeRow)
    }

    fn has_id(self) -> bool {
        matches!(self, Self::Row | Self::CrashSafeRow)
    }

    /// The generation that it replaces.
    fn dep(self) -> Dep {
        if self.has_id() {
            Dep::Derived
        } else {
            Dep::Whole
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub(super) struct Writer {
    pub(super) step: Writing,
}

/// How far an invalidating call has come.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub(super) enum Writing {
    #[default]
    Idle,
    /// Its intents stand; the body runs.
    Intended,
    /// The body has failed, and what it wrote may still be committed.
    Uncertain,
    Committed {
        version: Version,
    },
    /// Half of its invalidation has taken place: the entity is gone.
    Halfway {
        version: Version,
    },
    /// The caller has its result; the invalidation waits in the delivery queue.
    Pending {
        version: Version,
    },
    /// Its process is dead.
    Dead {
        version: Version,
    },
    /// Its process is dead, and the deadline of its intents has passed.
    Expired,
    Done,
}

/// What the network may hold back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Message {
    Invalidate(usize),
    Renew(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Network {
    Quiet,
    HoldsBack(Message),
    /// It has delivered what it held back, and does so no more.
    HasDelivered,
}

impl State {
    /// All intents that stand anywhere.
    pub(super) fn standing_intents(&self) -> Intents {
        self.store
            .intents(Dep::Whole)
            .with(self.store.intents(Dep::Derived))
            .with(self.store.entity_intents())
    }

    /// Intents past their deadline: those of the dead, and what a late renewal has left.
    fn expired_intents(&self) -> Intents {
        let is_over = |writer: &Writer| matches!(writer.step, Writing::Expired | Writing::Done);
        (0..self.writers.len())
            .filter(|&who| is_over(&self.writers[who]))
            .map(Intents::of)
            .fold(Intents::NONE, Intents::with)
    }
}

impl Scenario {
    /// Whether this writer's intent stands in the entity's place, and on which generation.
    fn intent_places(&self, who: usize) -> (bool, Option<Dep>) {
        let kind = self.writers[who];
        let at_entity_only = kind.has_id() && self.variant == Variant::IntentAtEntityOnly;
        (kind.has_id(), (!at_entity_only).then_some(kind.dep()))
    }

    /// What a writer may do next.
    pub(super) fn writer_actions(&self, state: &State, who: usize, actions: &mut Vec<Action>) {
        let kind = self.writers[who];
        let may_hold_back = self.has_late_message && state.network == Network::Quiet;
        // The readers live in the first writer's process.
        let may_die = kind.is_crash_safe() && who == 1;
        match state.writers[who].step {
            Writing::Idle if kind.is_crash_safe() => actions.push(Action::Intend(who)),
            Writing::Idle => {
                actions.push(Action::Commit(who));
                if self.has_errors {
                    actions.push(Action::Fail(who));
                }
            }
            Writing::Intended => {
                actions.push(Action::Commit(who));
                if may_hold_back {
                    actions.push(Action::SendRenewal(who));
                }
            }
            Writing::Uncertain => actions.push(Action::Commit(who)),
            Writing::Committed { .. } => {
                actions.push(match kind {
                    Kind::Whole => Action::Bump(who),
                    Kind::Row => Action::Kill(who),
                    Kind::CrashSafeWhole | Kind::CrashSafeRow => Action::Withdraw(who),
                });
                if may_hold_back {
                    actions.push(Action::TakeBack(who));
                }
                if may_die {
                    actions.push(Action::Die(who));
                }
            }
            Writing::Halfway { .. } => actions.push(Action::Bump(who)),
            Writing::Pending { .. } => {
                actions.push(Action::Deliver(who));
                if may_die {
                    actions.push(Action::Die(who));
                }
            }
            Writing::Dead { .. } => actions.push(Action::Expire(who)),
            Writing::Expired | Writing::Done => {}
        }
    }

    /// What happens by itself.
    pub(super) fn environment_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if let Network::HoldsBack(_) = state.network {
            actions.push(Action::Arrive);
        }
        let store = &state.store;
        let expired = state.expired_intents();
        for dep in [Dep::Whole, Dep::Derived] {
            if store.intents(dep).meets(expired) {
                actions.push(Action::Prune(dep));
            }
        }
        if store.entity_intents().meets(expired) {
            actions.push(Action::PruneEntity);
        }
        if state.evictions < self.evictions {
            for key in [Key::Entity, Key::List] {
                let intents = match key {
                    Key::Entity => store.entity_intents(),
                    Key::Other | Key::List => Intents::NONE,
                };
                if store.entry(key).is_some() && !intents.any() {
                    actions.push(Action::Evict(key));
                }
            }
            if self.has_copies {
                for (from, to) in [(Key::Entity, Key::Other), (Key::Other, Key::Entity)] {
                    actions.push(Action::Copy(from, to));
                }
            }
            for dep in [Dep::Whole, Dep::Derived] {
                if store.generation(dep).is_some() && !store.intents(dep).any() {
                    actions.push(Action::EvictGeneration(dep));
                }
            }
        }
    }

    fn promise(&self, state: &mut State, version: Version) {
        state.promised = state.promised.max(version);
    }

    /// All of one writer's invalidation at once.
    fn invalidate(&self, state: &mut State, who: usize) {
        let kind = self.writers[who];
        let nonce = Nonce::FRESH;
        if kind.is_crash_safe() {
            let own = Intents::of(who);
            let (at_entity, _) = self.intent_places(who);
            if at_entity {
                state.store.withdraw_entity(own, self.variant);
            }
            state.store.withdraw(kind.dep(), own, nonce, self.variant);
            return;
        }
        if kind.has_id() {
            state.store.kill(Key::Entity);
        }
        state.store.bump(kind.dep(), nonce, self.variant);
    }

    fn intend(&self, state: &mut State, who: usize, only_if_missing: bool) {
        let own = Intents::of(who);
        let (at_entity, dep) = self.intent_places(who);
        if at_entity && !(only_if_missing && state.store.entity_intents().meets(own)) {
            state.store.intend_entity(own);
        }
        if let Some(dep) = dep
            && !(only_if_missing && state.store.intents(dep).meets(own))
        {
            state.store.intend(dep, own, Nonce::FRESH);
        }
    }

    /// A writer's step, or one of nobody's.
    pub(super) fn write(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Intend(who) => {
                self.intend(state, who, false);
                state.writers[who].step = Writing::Intended;
            }
            Action::Commit(who) => {
                let was_uncertain = state.writers[who].step == Writing::Uncertain;
                state.database += 1;
                let version = state.database;
                state.writers[who].step =
                    if was_uncertain && self.variant == Variant::ErrorInvalidatesOnce {
                        self.promise(state, version);
                        Writing::Done
                    } else {
                        Writing::Committed { version }
                    };
            }
            Action::Fail(who) => {
                self.invalidate(state, who);
                state.writers[who].step = Writing::Uncertain;
            }
            Action::Kill(who) => {
                let Writing::Committed { version } = state.writers[who].step else {
                    return None;
                };
                state.store.kill(Key::Entity);
                state.writers[who].step = Writing::Halfway { version };
            }
            Action::Bump(who) => {
                let (Writing::Committed { version } | Writing::Halfway { version }) =
                    state.writers[who].step
                else {
                    return None;
                };
                let dep = self.writers[who].dep();
                state.store.bump(dep, Nonce::FRESH, self.variant);
                self.promise(state, version);
                state.writers[who].step = Writing::Done;
            }
            Action::Withdraw(who) | Action::Deliver(who) => {
                let (Writing::Committed { version } | Writing::Pending { version }) =
                    state.writers[who].step
                else {
                    return None;
                };
                self.invalidate(state, who);
                self.promise(state, version);
                state.writers[who].step = Writing::Done;
            }
            Action::TakeBack(who) => {
                let Writing::Committed { version } = state.writers[who].step else {
                    return None;
                };
                if who == 0 {
                    // Whoever reads in this process reads past the cache from here on.
                    self.promise(state, version);
                }
                state.network = Network::HoldsBack(Message::Invalidate(who));
                state.writers[who].step = Writing::Pending { version };
            }
            Action::SendRenewal(who) => {
                state.network = Network::HoldsBack(Message::Renew(who));
            }
            Action::Arrive => {
                let Network::HoldsBack(message) = state.network else {
                    return None;
                };
                match message {
                    Message::Invalidate(who) => self.invalidate(state, who),
                    Message::Renew(who) => self.intend(state, who, true),
                }
                state.network = Network::HasDelivered;
            }
            Action::Die(who) => {
                let (Writing::Committed { version } | Writing::Pending { version }) =
                    state.writers[who].step
                else {
                    return None;
                };
                state.writers[who].step = Writing::Dead { version };
            }
            Action::Expire(who) => {
                let Writing::Dead { version } = state.writers[who].step else {
                    return None;
                };
                self.promise(state, version);
                state.writers[who].step = Writing::Expired;
            }
            Action::Prune(dep) => {
                let expired = state.expired_intents();
                state.store.prune(dep, expired, Nonce::FRESH);
            }
            Action::PruneEntity => {
                let expired = state.expired_intents();
                state.store.prune_entity(expired);
            }
            Action::Evict(key) => {
                state.store.evict(key);
                state.evictions += 1;
            }
            Action::EvictGeneration(dep) => {
                state.store.evict_generation(dep);
                state.evictions += 1;
            }
            Action::Copy(from, to) => {
                state.store.copy(from, to)?;
                state.evictions += 1;
            }
            _ => return None,
        }
        Some(())
    }
}
