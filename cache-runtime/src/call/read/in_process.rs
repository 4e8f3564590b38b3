//! `in_process` with Redis: entries that are kept only in this process.
//!
//! Such an entry is a local entry that comes from a load and not from a read. The rules for local
//! entries apply to it. The invalidation flags of its generations are taken first. Then the
//! generations are read over the tracked connection, so that Redis reports their next change, and
//! created if they are missing. Then the function runs. A change that Redis reports from then on
//! sets the flags, and the loaded value is not kept, or is dropped. The entry itself is never sent:
//! the lookup asks for a key that nobody writes instead.
//!
//! Redis reports the removal of a key only if the key exists, so it reports none for this entry. An
//! entry of a row therefore depends on the generation of that row, which writes by id replace.
//!
//! There is no lease. In this process, callers that need the same entry wait at its load gate, and
//! get only a value whose load began after they arrived.

use std::sync::Arc;

use super::Call;
use super::answer::Answer;
use super::answer_slot::AnswerSlot;
use super::load::{Load, LoadRole};
use crate::base::clock;
use crate::call::enclosing;
use crate::call::observe::{BypassReason, Status};
use crate::call::scope::{self, Mode};
use crate::coalesce::load_gate::{self, GateLeader, GateResult, GateRole};
use crate::coalesce::single_flight::LoadResult;
use crate::coalesce::waits::WaitDecision;
use crate::key::EntryKind;
use crate::local::{ExpectedEntry, Local, ReadToken};
use crate::protocol::entry::Stamp;
use crate::protocol::fingerprint::Fingerprint;
use crate::registry::Mistake;
use crate::store::EntryRef;

/// How often the flags are taken before the value is not kept. Creating a missing generation is a
/// change as well.
const ATTEMPTS: usize = 3;

/// The next step of a caller at the gate.
enum GateOutcome {
    Run(GateLeader),
    Joined(LoadResult),
    Alone(BypassReason),
}

impl Call {
    /// Whether it is kept in this process only, beside a store elsewhere.
    pub(crate) fn is_kept_here_only(&self) -> bool {
        self.local_options.in_process && !self.cache.store.is_in_process()
    }

    /// Like `answer`, for an entry that is kept only in this process.
    pub(super) async fn answer_in_process(self: Arc<Self>, slot: &mut dyn AnswerSlot) -> Answer {
        let Some(local) = self.cache.local.clone() else {
            if let Some(site) = self.site {
                site.report(Mistake::NoLocalTier, || {
                    format!("{site} is `in_process`, and this process has no local tier, so it runs without the cache; set `CACHE_LOCAL_MB`")
                });
            }
            return self.run_alone(BypassReason::Unavailable);
        };
        if let Some(reason) = self.bypass_reason() {
            return self.run_alone(reason);
        }
        let (fingerprint, _) = self.find_fingerprint_of(slot.value_type());
        let run = match self.at_gate(fingerprint).await {
            GateOutcome::Run(run) => run,
            GateOutcome::Joined(load_result) => match slot.arrived(load_result) {
                true => {
                    self.answered(Status::Miss {
                        stored: false,
                        joined: true,
                    });
                    return Answer::Found;
                }
                false => return self.run_alone(BypassReason::OtherType),
            },
            GateOutcome::Alone(reason) => return self.run_alone(reason),
        };
        let (token, stamp) = match self.token_and_stamp(&local).await {
            Ok(both) => both,
            Err(reason) => {
                // The callers at the gate get the result.
                self.answered(Status::Bypass(reason));
                return Answer::Run(Load::new(self, LoadRole::Runner(run), None));
            }
        };
        // Another caller may have loaded it meanwhile. Inside a body only a certain answer counts.
        if scope::mode() == Mode::Usual {
            let asked = ExpectedEntry {
                type_id: slot.value_type().id,
                version: self.version,
                extras: &self.extras,
            };
            let found = local.find_under(&self.own.key, &asked, stamp);
            let found = found.and_then(|found| {
                let is_taken = match found.value {
                    Some(value) => slot.take_shared(value),
                    None => slot.take_absence(),
                };
                is_taken.then_some(found.ttl)
            });
            if let Some(ttl) = found {
                run.complete(|| slot.share());
                self.answered(Status::Hit { ttl });
                return Answer::Found;
            }
        }
        let role = LoadRole::InProcess(Box::new((run, token, stamp)));
        Answer::Run(Load::new(self, role, None))
    }

    fn run_alone(self: Arc<Self>, reason: BypassReason) -> Answer {
        self.answered(Status::Bypass(reason));
        let load = Load::new(self, LoadRole::Alone, None);
        Answer::Run(match reason {
            BypassReason::WaitLimit => load.looks_up_again(),
            _ => load,
        })
    }

    async fn at_gate(&self, fingerprint: Fingerprint) -> GateOutcome {
        let deadline = clock::now() + self.cache.config.wait;
        let (mut limit, mut reason) = (load_gate::WITHOUT_STORE, BypassReason::WaitLimit);
        loop {
            let gates = &self.cache.load_gates;
            let waiting = match gates.enter(&self.own.key, fingerprint, limit) {
                GateRole::Lead(run) => return GateOutcome::Run(run),
                GateRole::Wait(waiting) => waiting,
            };
            let WaitDecision::Fine(_noted) = enclosing::wait(&self.cache, &self.own.key) else {
                return GateOutcome::Alone(BypassReason::OwnLoad);
            };
            match waiting.wait(deadline).await {
                GateResult::Lead(run) => return GateOutcome::Run(run),
                GateResult::LoadResult(LoadResult::Failure) => {
                    limit = load_gate::AFTER_FAILURE;
                    reason = BypassReason::LoadFailed;
                }
                GateResult::TimedOut => return GateOutcome::Alone(reason),
                GateResult::LoadResult(load_result) => return GateOutcome::Joined(load_result),
                GateResult::Gone => {}
            }
        }
    }

    /// The flags, taken before the generations were read, and the stamp of these generations.
    async fn token_and_stamp(&self, local: &Local) -> Result<(ReadToken, Stamp), BypassReason> {
        let entry_ref = EntryRef {
            key: self
                .cache
                .space
                .generation(&format!("{}~in-process", self.resource.name)),
            kind: EntryKind::Derived,
            deps: Arc::clone(&self.entry_ref().deps),
        };
        let lookup = async || {
            self.lookup_generations(&entry_ref).await.map_err(|error| {
                self.fault(&error);
                BypassReason::of(&error)
            })
        };
        // Missing generations are created by this process.
        lookup().await?;
        let mut attempt = 1;
        loop {
            let token = local
                .read_token(self.entry_ref())
                .ok_or(BypassReason::Unavailable)?;
            let lookup = lookup().await?;
            if lookup.intents_until.is_some() {
                return Err(BypassReason::WriteInProgress);
            }
            if attempt == ATTEMPTS || local.is_valid(&token) {
                return Ok((token, lookup.stamp));
            }
            attempt += 1;
        }
    }
}
