//! Cached calls: `read/reader.rs`, `read/permit.rs` and `flight.rs`.

use super::store::{Dep, Entry, Generation, Key, Lease, Stamp, Store};
use super::writer::Writing;
use super::{Action, Scenario, State, Variant, Version};
use crate::nonce::{Names, Nonce, Rename};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Reader {
    pub(super) reads: u8,
    pub(super) step: Reading,
}

/// How far a cached call has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Reading {
    Idle,
    /// On its way through `Reader::turn`, with what it has read so far.
    Looking {
        since: Version,
        look: Look,
        suspect: Option<Nonce>,
    },
    /// About to ask for the lease.
    Leasing {
        since: Version,
        seen: Option<Entry>,
        stamp: Stamp,
    },
    /// Somebody's lease is there, with the stamp just read.
    MeetingLease {
        since: Version,
        token: Nonce,
    },
    /// Waits for a load of this process.
    Waiting {
        since: Version,
        token: Nonce,
    },
    /// Runs the function, under a lease or past the cache.
    Loading {
        since: Version,
        permit: Option<Lease>,
    },
    /// Has a value to store.
    Loaded {
        since: Version,
        permit: Lease,
        version: Version,
    },
    /// Has what its caller gets; `since` was promised when the call started.
    Served {
        since: Version,
        version: Version,
        outcome: Outcome,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Outcome {
    Hit,
    /// A hit on an entry that was made under another key.
    Another,
    Joined,
    Filled,
    Refused,
    Bypassed,
}

/// What a look has read: `None` is not yet, `Some(None)` is nothing there.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub(super) struct Look {
    entry: Option<Option<Entry>>,
    whole: Option<Option<Generation>>,
    derived: Option<Option<Generation>>,
}

/// What may be read by itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Part {
    Entry,
    Generation(Dep),
}

impl Rename for Reader {
    fn rename(&mut self, names: &mut Names) {
        match &mut self.step {
            Reading::Idle | Reading::Served { .. } => {}
            Reading::Looking { look, suspect, .. } => {
                look.entry.rename(names);
                look.whole.rename(names);
                look.derived.rename(names);
                suspect.rename(names);
            }
            Reading::Leasing { seen, stamp, .. } => {
                seen.rename(names);
                stamp.rename(names);
            }
            Reading::MeetingLease { token, .. } | Reading::Waiting { token, .. } => {
                token.rename(names);
            }
            Reading::Loading { permit, .. } => permit.rename(names),
            Reading::Loaded { permit, .. } => permit.rename(names),
        }
    }
}

impl Look {
    fn has(&self, part: Part) -> bool {
        match part {
            Part::Entry => self.entry.is_some(),
            Part::Generation(Dep::Whole) => self.whole.is_some(),
            Part::Generation(Dep::Derived) => self.derived.is_some(),
        }
    }

    fn read(&mut self, store: &Store, key: Key, part: Part) {
        match part {
            Part::Entry => self.entry = Some(store.entry(key)),
            Part::Generation(dep) => self.take(dep, store.generation(dep)),
        }
    }

    fn take(&mut self, dep: Dep, generation: Option<Generation>) {
        match dep {
            Dep::Whole => self.whole = Some(generation),
            Dep::Derived => self.derived = Some(generation),
        }
    }

    /// A generation that was read and is not there.
    fn missing(&self, key: Key) -> Option<Dep> {
        key.deps().iter().copied().find(|dep| match dep {
            Dep::Whole => self.whole == Some(None),
            Dep::Derived => self.derived == Some(None),
        })
    }

    /// The stamp, and whether an intent stands on a generation; `None` while something is to be
    /// read.
    fn finish(&self, key: Key, variant: Variant) -> Option<(Stamp, bool)> {
        let whole = self.whole??;
        let derived = match key {
            Key::Entity | Key::Other => None,
            Key::List => Some(self.derived??),
        };
        let stamp = Stamp {
            key: (variant != Variant::StampWithoutKey).then_some(key),
            whole: whole.nonce,
            derived: derived.map(|derived| derived.nonce),
        };
        let is_intended = whole.intents.any() || derived.is_some_and(|it| it.intents.any());
        Some((stamp, is_intended))
    }
}

fn parts(key: Key) -> impl Iterator<Item = Part> {
    let deps = key.deps().iter().copied().map(Part::Generation);
    std::iter::once(Part::Entry).chain(deps)
}

impl Scenario {
    /// What this reader has read so far, if it is about to read on.
    fn looking(&self, state: &State, who: usize) -> Option<(Version, Look, Option<Nonce>)> {
        let reader = &state.readers[who];
        match reader.step {
            Reading::Idle if reader.reads < self.reads[who] => {
                Some((state.promised, Look::default(), None))
            }
            Reading::Looking {
                since,
                look,
                suspect,
            } => Some((since, look, suspect)),
            _ => None,
        }
    }

    /// The load under way that a reader who meets this lease finds in its process.
    fn leader(
        &self,
        state: &State,
        who: usize,
        token: Option<Nonce>,
    ) -> Option<(Nonce, Option<Version>)> {
        let key = self.readers[who];
        (0..state.readers.len())
            .filter(|&other| other != who && self.readers[other] == key)
            .filter_map(|other| match state.readers[other].step {
                Reading::Loading {
                    permit: Some(permit),
                    ..
                } => Some((permit.token, None)),
                Reading::Loaded {
                    permit, version, ..
                } => Some((permit.token, Some(version))),
                _ => None,
            })
            .find(|(flight, _)| token.is_none_or(|token| token == *flight))
    }

    /// The flight that this reader joins now.
    fn flight(&self, state: &State, who: usize) -> Option<(Nonce, Option<Version>)> {
        match state.readers[who].step {
            Reading::MeetingLease { token, .. } => self.leader(state, who, Some(token)),
            Reading::Leasing { .. } if self.variant == Variant::JoinByKey => {
                self.leader(state, who, None)
            }
            _ => None,
        }
    }

    /// `Reader::judge` and `Reader::meet_lease`: what a look means.
    fn judge(&self, who: usize, since: Version, look: Look, suspect: Option<Nonce>) -> Reading {
        let unfinished = Reading::Looking {
            since,
            look,
            suspect,
        };
        let Some((stamp, is_intended)) = look.finish(self.readers[who], self.variant) else {
            return unfinished;
        };
        let Some(seen) = look.entry else {
            return unfinished;
        };
        match seen {
            _ if is_intended => Reading::Loading {
                since,
                permit: None,
            },
            Some(Entry::Intended(_)) => Reading::Loading {
                since,
                permit: None,
            },
            Some(Entry::Filled {
                stamp: stored,
                of,
                version,
            }) if stored == stamp => Reading::Served {
                since,
                version,
                outcome: if of == self.readers[who] {
                    Outcome::Hit
                } else {
                    Outcome::Another
                },
            },
            Some(Entry::Leased(lease))
                if lease.stamp == stamp || self.variant == Variant::LeaseWithoutStamp =>
            {
                Reading::MeetingLease {
                    since,
                    token: lease.token,
                }
            }
            // It may have been taken between the reading of the generations and that of the entry.
            Some(Entry::Leased(lease)) if suspect != Some(lease.token) => Reading::Looking {
                since,
                look: Look::default(),
                suspect: Some(lease.token),
            },
            _ => Reading::Leasing { since, seen, stamp },
        }
    }

    /// What a reader may do next.
    pub(super) fn reader_actions(&self, state: &State, who: usize, actions: &mut Vec<Action>) {
        if let Some((_, look, _)) = self.looking(state, who) {
            let key = self.readers[who];
            let is_started = !matches!(state.readers[who].step, Reading::Idle);
            if is_started && parts(key).all(|part| look.has(part)) {
                actions.push(Action::Ensure(who));
            } else if self.is_torn {
                let parts = parts(key).filter(|part| !look.has(*part));
                actions.extend(parts.map(|part| Action::LookAt(who, part)));
            } else {
                actions.push(Action::Look(who));
            }
        }
        match state.readers[who].step {
            Reading::Idle | Reading::Looking { .. } => {}
            Reading::Leasing { .. } | Reading::MeetingLease { .. }
                if self.flight(state, who).is_some() =>
            {
                actions.push(Action::Join(who));
            }
            Reading::Leasing { .. } => actions.push(Action::Lease(who)),
            Reading::MeetingLease { .. } => {
                actions.extend([Action::LookAgain(who), Action::GiveUp(who)]);
            }
            Reading::Waiting { .. } => actions.push(Action::GiveUp(who)),
            Reading::Loading { permit, .. } => {
                actions.push(Action::Load(who));
                if permit.is_some() {
                    actions.extend([Action::Release(who), Action::Abandon(who)]);
                }
            }
            Reading::Loaded { .. } => actions.push(Action::Fill(who)),
            Reading::Served { .. } => actions.push(Action::Return(who)),
        }
    }

    /// One part of a look, or all of it.
    pub(super) fn look(&self, state: &mut State, who: usize, only: Option<Part>) -> Option<()> {
        let key = self.readers[who];
        let is_starting = state.readers[who].step == Reading::Idle;
        let (since, mut look, suspect) = self.looking(state, who)?;
        let is_pending = matches!(state.writers[0].step, Writing::Pending { .. });
        if is_starting && is_pending && self.variant != Variant::ReadsWhilePending {
            state.readers[who].step = Reading::Loading {
                since,
                permit: None,
            };
            return Some(());
        }
        for part in parts(key).filter(|part| only.is_none_or(|only| only == *part)) {
            look.read(&state.store, key, part);
        }
        state.readers[who].step = self.judge(who, since, look, suspect);
        Some(())
    }

    /// The script `ENSURE`. Where a look is atomic, it reads all generations again.
    pub(super) fn ensure(&self, state: &mut State, who: usize) -> Option<()> {
        let key = self.readers[who];
        let (since, mut look, suspect) = self.looking(state, who)?;
        let missing = look.missing(key)?;
        for &dep in key.deps() {
            if dep == missing || !self.is_torn {
                let nonce = if dep == Dep::Whole {
                    Nonce::FRESH
                } else {
                    Nonce::FRESH_TOO
                };
                look.take(dep, Some(state.store.ensure(dep, nonce)));
            }
        }
        state.readers[who].step = self.judge(who, since, look, suspect);
        Some(())
    }

    /// Wakes those who wait for a flight: with its value, or to look again.
    fn complete(&self, state: &mut State, flight: Nonce, result: Option<Version>) {
        for reader in &mut state.readers {
            let Reading::Waiting { since, token } = reader.step else {
                continue;
            };
            if token == flight {
                reader.step = match result {
                    Some(version) => Reading::Served {
                        since,
                        version,
                        outcome: Outcome::Joined,
                    },
                    None => look_again(since),
                };
            }
        }
    }

    pub(super) fn read(&self, state: &mut State, who: usize, action: Action) -> Option<()> {
        let key = self.readers[who];
        state.readers[who].step = match (action, state.readers[who].step) {
            (Action::Lease(_), Reading::Leasing { since, seen, stamp }) => {
                let token = Nonce::FRESH;
                let permit = Lease { token, stamp };
                if state.store.lease(key, seen, permit) {
                    Reading::Loading {
                        since,
                        permit: Some(permit),
                    }
                } else {
                    look_again(since)
                }
            }
            (
                Action::Join(_),
                Reading::MeetingLease { since, .. } | Reading::Leasing { since, .. },
            ) => match self.flight(state, who)? {
                (token, None) => Reading::Waiting { since, token },
                (_, Some(version)) => Reading::Served {
                    since,
                    version,
                    outcome: Outcome::Joined,
                },
            },
            (Action::LookAgain(_), Reading::MeetingLease { since, .. }) => look_again(since),
            (
                Action::GiveUp(_),
                Reading::MeetingLease { since, .. } | Reading::Waiting { since, .. },
            ) => Reading::Loading {
                since,
                permit: None,
            },
            (Action::Load(_), Reading::Loading { since, permit }) => {
                let version = state.database;
                match permit {
                    Some(permit) => {
                        self.complete(state, permit.token, Some(version));
                        Reading::Loaded {
                            since,
                            permit,
                            version,
                        }
                    }
                    None => Reading::Served {
                        since,
                        version,
                        outcome: Outcome::Bypassed,
                    },
                }
            }
            (
                Action::Fill(_),
                Reading::Loaded {
                    since,
                    permit,
                    version,
                },
            ) => {
                let stored = state.store.fill(key, permit, version, self.variant);
                Reading::Served {
                    since,
                    version,
                    outcome: if stored {
                        Outcome::Filled
                    } else {
                        Outcome::Refused
                    },
                }
            }
            (Action::Release(_) | Action::Abandon(_), Reading::Loading { permit, .. }) => {
                let permit = permit?;
                if matches!(action, Action::Release(_)) {
                    state.store.release(key, permit.token);
                }
                self.complete(state, permit.token, None);
                state.readers[who].reads += 1;
                Reading::Idle
            }
            (Action::Return(_), Reading::Served { .. }) => {
                state.readers[who].reads += 1;
                Reading::Idle
            }
            _ => return None,
        };
        Some(())
    }
}

/// A suspect need not be kept: a token that was gone does not come back.
fn look_again(since: Version) -> Reading {
    Reading::Looking {
        since,
        look: Look::default(),
        suspect: None,
    }
}
