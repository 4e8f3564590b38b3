//! Changes in a cluster: scripts over single keys, each sent to the node that has the slot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value};

use super::super::address;
use super::super::connection::Connection;
use super::super::dial::dial;
use super::super::limits::{SCRIPT_SETS_IT, STEP};
use super::super::reply::{millis, miscounted};
use super::super::scripts::{self, Lua, ScriptMode};
use super::super::sent::Sent;
use super::super::slots::slot_of;
use super::routing::{ScriptCall, groups, routed};
use super::state::{Answers, Cluster, Fault, KeysApart, REDIRECT_PAUSE, fault, held, is_apart};
use crate::base::clock::{self, Instant, Millis};
use crate::base::error::{Error, ErrorKind};
use crate::base::nonce::{Nonce, hash128};
use crate::base::unserved::{Unserved, copied};
use crate::protocol::entry::Header;
use crate::protocol::generation::Dep;
use crate::store::{
    Fill, Filled, Intended, Intent, Invalidated, Invalidation, LeaseReply, LeaseRequest,
    PartlyInvalidated, Payload, Probe, Seen,
};

/// The number of generations whose last extension is remembered.
const TOUCHED: usize = 4_096;

/// The result of a step: its value, and the connection that it came over.
type StepResult = Result<(Value, Arc<Connection>), Error>;

/// What to do with a step if the slot is being moved and the key is not at its old node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnAsk {
    /// Run it at the new node. Only for steps that remove: a value that will be read must not be
    /// stored there before the node owns the slot, since a move that is aborted and started again
    /// would bring it back.
    Follow,
    /// Fail.
    Fail,
}

fn typed<T: FromRedisValue>(done: StepResult) -> Result<(T, Arc<Connection>), Error> {
    let (value, connection) = done?;
    match redis::from_redis_value(value) {
        Ok(value) => Ok((value, connection)),
        Err(error) => {
            let error = Error::new(ErrorKind::Store, error.to_string());
            Err(connection.answers_amiss(error))
        }
    }
}

/// The same for a script that answers for each key, and has one key.
fn only<T: FromRedisValue>(done: StepResult) -> Result<T, Error> {
    let (mut values, _) = typed::<Vec<T>>(done)?;
    values.pop().ok_or_else(miscounted)
}

impl Cluster {
    /// Sends steps over one connection, in one pipeline.
    pub(super) async fn send(
        &self,
        connection: &Connection,
        steps: &[&ScriptCall<'_>],
    ) -> Result<Answers, Error> {
        let mode = connection.capabilities.scripts;
        let mut commands = Pipeline::with_capacity(steps.len());
        for step in steps {
            commands.add_command(
                step.script
                    .command(mode, &step.keys, step.args.iter().cloned()),
            );
        }
        commands.ignore_errors();
        let mut answers: Answers = connection
            .ask(self.budget, async |multiplexed| {
                commands.query_async(multiplexed).await
            })
            .await?;
        answers = connection.counted(answers, steps.len())?;
        for (step, answer) in steps.iter().zip(&mut answers) {
            if mode == ScriptMode::ByHash && answer.as_ref().is_err_and(is_forgotten) {
                *answer = self.run_again(connection, step).await?;
            }
        }
        Ok(answers)
    }

    /// Runs a script that the server has forgotten.
    async fn run_again(
        &self,
        connection: &Connection,
        step: &ScriptCall<'_>,
    ) -> Result<Result<Value, RedisError>, Error> {
        let keys = step.keys.iter().copied();
        let args = step.args.iter().cloned();
        connection
            .ask(self.budget, async |multiplexed| {
                Ok(step
                    .script
                    .run(multiplexed, ScriptMode::ByHash, keys, args)
                    .await)
            })
            .await
    }

    /// Runs a step at the node that the slot is being moved to.
    async fn send_asking(
        &self,
        address: &str,
        step: &ScriptCall<'_>,
    ) -> Result<(Value, Arc<Connection>), Fault> {
        let map = self.map.load_full();
        let known = map.nodes().iter().find(|node| node.address() == address);
        let Some(node) = known else {
            // A node that has no slots yet, or has another name here.
            let value = self.send_asking_stranger(address, step).await?;
            let connection = map.connection(step.slot).map_err(Fault::Failed)?;
            return Ok((value, connection));
        };
        let connection = node.connections.current().map_err(Fault::Failed)?;
        let mut commands = redis::pipe();
        commands.cmd("ASKING");
        let mode = connection.capabilities.scripts;
        commands.add_command(
            step.script
                .command(mode, &step.keys, step.args.iter().cloned()),
        );
        commands.ignore_errors();
        let answers: Result<Answers, Error> = connection
            .ask(self.budget, async |multiplexed| {
                commands.query_async(multiplexed).await
            })
            .await;
        let answer = answers.map_err(Fault::Failed)?.pop();
        let answer = answer.ok_or_else(|| Fault::Failed(connection.answers_amiss(miscounted())))?;
        match answer {
            Ok(value) => Ok((value, connection)),
            Err(error) if is_forgotten(&error) => {
                let _ = connection
                    .ask(self.budget, async |multiplexed| {
                        step.script.load(multiplexed).await
                    })
                    .await;
                Err(Fault::Moving(Some(address.to_owned())))
            }
            Err(error) => Err(fault(&connection, error)),
        }
    }

    /// The same at a node without a connection: over a connection of its own, with the script's
    /// text.
    async fn send_asking_stranger(
        &self,
        address: &str,
        step: &ScriptCall<'_>,
    ) -> Result<Value, Fault> {
        let unknown = || {
            let text = format!("the key's slot is on its way to {address}, which can't be reached");
            Fault::Failed(Error::unavailable(text))
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(unknown)?;
        let host = host.trim_matches(['[', ']']);
        let port = port.parse().map_err(|_| unknown())?;
        let config = self.redis.settings_at(host, port);
        let asked = async {
            let addresses = address::of(&config).await.ok()?;
            let (mut multiplexed, _) = dial(&config, *addresses.first()?, |_| {}).await.ok()?;
            let mut commands = redis::pipe();
            commands.cmd("ASKING");
            let args = step.args.iter().cloned();
            let command = step.script.command(ScriptMode::ByText, &step.keys, args);
            commands.add_command(command);
            commands.ignore_errors();
            let answers: Answers = commands.query_async(&mut multiplexed).await.ok()?;
            answers.into_iter().next_back()?.ok()
        };
        let _held = held(Sent::now(self.budget), clock::now());
        let answer = tokio::time::timeout(self.budget, asked).await;
        answer.ok().flatten().ok_or_else(unknown)
    }

    /// Runs all steps, those of different nodes at the same time. The answers are in the order of
    /// the steps.
    pub(super) async fn run(&self, steps: &[ScriptCall<'_>], on_its_way: OnAsk) -> Vec<StepResult> {
        let deadline = clock::now() + self.budget;
        let mut done: Vec<Option<StepResult>> = steps.iter().map(|_| None).collect();
        let mut left: Vec<usize> = (0..steps.len()).collect();
        while !left.is_empty() {
            let (moved, asked) = self.run_once(steps, &left, &mut done).await;
            left = moved;
            let is_redirected = !left.is_empty();
            for (at, address) in asked {
                let sent = match (on_its_way, &address) {
                    (OnAsk::Fail, _) => Err(Fault::Failed(Error::unavailable(
                        "the key's slot is being moved",
                    ))),
                    (OnAsk::Follow, Some(address)) => self.send_asking(address, &steps[at]).await,
                    (OnAsk::Follow, None) => Err(Fault::Moving(None)),
                };
                match sent {
                    Ok(answer) => done[at] = Some(Ok(answer)),
                    Err(Fault::Failed(error)) => done[at] = Some(Err(error)),
                    Err(Fault::Split) => done[at] = Some(Err(apart())),
                    Err(Fault::Moved | Fault::Moving(_)) => left.push(at),
                }
            }
            if left.is_empty() {
                break;
            }
            let waited = match is_redirected {
                true => self.refreshed(deadline).await,
                false => self.pause(deadline).await,
            };
            if let Err(error) = waited {
                for at in left.drain(..) {
                    done[at] = Some(Err(copied(&error)));
                }
            }
        }
        let unanswered = || Err(Error::unavailable("the cluster did not answer"));
        done.into_iter()
            .map(|it| it.unwrap_or_else(unanswered))
            .collect()
    }

    async fn pause(&self, deadline: Instant) -> Result<(), Error> {
        if clock::now() + REDIRECT_PAUSE >= deadline {
            return Err(Error::unavailable("the key's slot is being moved"));
        }
        tokio::time::sleep(REDIRECT_PAUSE).await;
        Ok(())
    }

    /// Sends each of these steps once. Returns the steps that another node has to run, and those
    /// whose slot is being moved.
    async fn run_once(
        &self,
        steps: &[ScriptCall<'_>],
        which: &[usize],
        done: &mut [Option<StepResult>],
    ) -> (Vec<usize>, Vec<(usize, Option<String>)>) {
        let mut by_node: Vec<(Arc<Connection>, Vec<usize>)> = Vec::new();
        {
            let map = self.map.load();
            for at in which {
                let connection = match map.nodes().is_empty() {
                    true => Err(self.unknown()),
                    false => map.connection(steps[*at].slot),
                };
                match connection {
                    Ok(connection) => match by_node
                        .iter_mut()
                        .find(|(it, _)| Arc::ptr_eq(it, &connection))
                    {
                        Some((_, of_node)) => of_node.push(*at),
                        None => by_node.push((connection, vec![*at])),
                    },
                    Err(error) => done[*at] = Some(Err(error)),
                }
            }
        }
        let (mut moved, mut asked) = (Vec::new(), Vec::new());
        let sent = by_node.iter().map(|(connection, of_node)| async move {
            let mut answers = Vec::with_capacity(of_node.len());
            for part in of_node.chunks(STEP) {
                let part: Vec<_> = part.iter().map(|at| &steps[*at]).collect();
                match self.send(connection, &part).await {
                    Ok(part) => answers.extend(part.into_iter().map(Ok)),
                    Err(error) => answers.extend(part.iter().map(|_| Err(copied(&error)))),
                }
            }
            answers
        });
        let sent: Vec<Vec<Result<Result<Value, RedisError>, Error>>> = join_all(sent).await;
        for ((connection, of_node), answers) in by_node.iter().zip(sent) {
            for (at, answer) in of_node.iter().zip(answers) {
                match answer.map(|answer| answer.map_err(|error| fault(connection, error))) {
                    Ok(Ok(value)) => done[*at] = Some(Ok((value, Arc::clone(connection)))),
                    Ok(Err(Fault::Moved)) => moved.push(*at),
                    Ok(Err(Fault::Moving(address))) => asked.push((*at, address)),
                    Ok(Err(Fault::Split)) => done[*at] = Some(Err(apart())),
                    Ok(Err(Fault::Failed(error))) | Err(error) => done[*at] = Some(Err(error)),
                }
            }
        }
        (moved, asked)
    }

    /// Changes the list of switches at the node that has its slot, and returns it.
    pub(in crate::store::redis) async fn switch(
        &self,
        key: &str,
        args: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<String, Error> {
        let steps = [step(&scripts::SWITCH, key, args)];
        let done = self.run(&steps, OnAsk::Fail).await.pop();
        let (list, _) = typed(done.ok_or_else(miscounted)?)?;
        Ok(list)
    }

    pub(in crate::store::redis) async fn lease_many(
        &self,
        requests: &[(&Probe, LeaseRequest)],
    ) -> Result<Vec<LeaseReply>, Error> {
        let steps = requests.iter().map(|(probe, request)| {
            let (mode, seen) = match &request.seen {
                Seen::Nothing => ("nothing", String::new()),
                Seen::Entry(header) => ("entry", header.encode()),
                Seen::Past(header) => ("past", header.encode()),
                Seen::Leased => ("leased", String::new()),
                Seen::Anything => ("anything", String::new()),
            };
            let lease = request.header(probe.kind, SCRIPT_SETS_IT);
            let args = [mode.into(), seen.into_bytes(), lease.encode().into_bytes()];
            step(
                &scripts::LEASE,
                &probe.key,
                std::iter::once(millis(request.length)).chain(args),
            )
        });
        let steps: Vec<_> = steps.collect();
        let done = self.run(&steps, OnAsk::Fail).await;
        self.changed(&steps);
        let replies = done.into_iter().map(|done| {
            let reply: Vec<u8> = only(done)?;
            Ok(match reply.as_slice() {
                b"" => LeaseReply::Granted,
                b"intended" => LeaseReply::Intended,
                reply => Header::parse(reply)
                    .map_or(LeaseReply::Foreign, |(header, _)| LeaseReply::Taken(header)),
            })
        });
        replies.collect()
    }

    pub(in crate::store::redis) async fn renew_many(
        &self,
        leases: &[(&str, Nonce)],
        length: Duration,
    ) -> Result<Vec<bool>, Error> {
        let steps = leases.iter().map(|(key, token)| {
            step(
                &scripts::RENEW,
                key,
                [millis(length), token.to_string().into_bytes()],
            )
        });
        let steps: Vec<_> = steps.collect();
        let done = self.run(&steps, OnAsk::Fail).await;
        done.into_iter().map(only::<bool>).collect()
    }

    pub(in crate::store::redis) async fn release(
        &self,
        key: &str,
        token: Nonce,
    ) -> Result<(), Error> {
        let step = step(&scripts::RELEASE, key, [token.to_string().into_bytes()]);
        let done = self.run(&[step], OnAsk::Fail).await;
        done.into_iter().try_for_each(|done| done.map(drop))
    }

    pub(in crate::store::redis) async fn fill_many(
        &self,
        fills: Vec<(&Probe, Fill)>,
    ) -> Result<Vec<Filled>, Error> {
        let ttl = fills.iter().map(|(_, fill)| fill.generation_ttl).max();
        let ttl = ttl.unwrap_or(self.default_generation_ttl);
        let deps = fills.first().map(|(probe, _)| Arc::clone(&probe.deps));
        let mut steps = Vec::with_capacity(fills.len());
        for (probe, fill) in fills {
            let header = fill.header(probe.kind, SCRIPT_SETS_IT);
            let payload = match fill.payload {
                Payload::Encoded(bytes) => Vec::from(bytes),
                // For readers with `redis-cli`: an absence is shown as null.
                Payload::Empty => b"null".to_vec(),
                Payload::Decoded(_) => {
                    return Err(Error::new(ErrorKind::Unstorable, "Redis keeps bytes only"));
                }
            };
            let args = [
                b"1".to_vec(),
                millis(ttl),
                fill.token.to_string().into_bytes(),
                header.encode().into_bytes(),
                payload,
                millis(fill.fresh_for),
                millis(fill.stale_for),
            ];
            steps.push(step(&scripts::FILL, &probe.key, args));
        }
        let mut filled = Vec::with_capacity(steps.len());
        let done = self.run(&steps, OnAsk::Fail).await;
        self.changed(&steps);
        for done in done {
            filled.push(match only::<bool>(done)? {
                true => Filled::Stored,
                false => Filled::Refused,
            });
        }
        if let Some(deps) = deps
            && filled.contains(&Filled::Stored)
        {
            self.touch(&deps, ttl).await;
        }
        Ok(filled)
    }

    /// Extends the generations at intervals, so that they outlive the entries that depend on them.
    /// If it fails, those entries become misses.
    async fn touch(&self, deps: &[Arc<Dep>], ttl: Duration) {
        let now = clock::now();
        let mut due = Vec::new();
        {
            let mut touched = self.touched.lock();
            if touched.len() > TOUCHED {
                touched.clear();
            }
            for dep in deps {
                let last = touched.entry(hash128(&[0; 16], dep.key().as_bytes()));
                let is_due = match &last {
                    std::collections::hash_map::Entry::Occupied(last) => {
                        now.saturating_duration_since(*last.get()) > ttl / 4
                    }
                    std::collections::hash_map::Entry::Vacant(_) => true,
                };
                if is_due {
                    last.insert_entry(now);
                    due.push(Arc::clone(dep));
                }
            }
        }
        if due.is_empty() {
            return;
        }
        let groups = groups(&due);
        let steps = groups.iter().map(|group| ScriptCall {
            slot: group.slot,
            script: &scripts::TOUCH,
            keys: group.keys(),
            args: vec![millis(ttl)],
        });
        let steps: Vec<_> = steps.collect();
        drop(self.run(&steps, OnAsk::Fail).await);
    }

    /// Announces everything at once. If a row's key holds a foreign value, a second step announces
    /// the whole resource.
    pub(in crate::store::redis) async fn announce(
        &self,
        mode: &str,
        intent: &Intent,
    ) -> Result<Intended, Error> {
        let step_of = |slot: u16, keys: Vec<_>, rows: usize| {
            let nonces = keys[rows..]
                .iter()
                .map(|_| Nonce::fresh().to_string().into_bytes());
            let args = [
                rows.to_string().into_bytes(),
                millis(self.default_generation_ttl),
                intent.token.to_string().into_bytes(),
                // Deadlines follow the clocks of several nodes, which may differ by a second.
                millis(intent.length + Duration::from_secs(1)),
                mode.into(),
            ];
            ScriptCall {
                slot,
                script: &scripts::INTEND,
                args: args.into_iter().chain(nonces).collect(),
                keys,
            }
        };
        let rows = intent.rows.iter().map(|row| {
            let key = row.key.as_str();
            step_of(slot_of(key), vec![key], 1)
        });
        let of_deps = groups(&intent.deps);
        let on_deps = of_deps
            .iter()
            .map(|group| step_of(group.slot, group.keys(), 0));
        let steps: Vec<_> = rows.chain(on_deps).collect();
        let (mut at, mut wholes) = (Millis(0), Vec::new());
        let done = self.run(&steps, OnAsk::Follow).await;
        self.changed(&steps);
        let mut apart = Vec::new();
        for (number, done) in done.into_iter().enumerate() {
            if done.as_ref().is_err_and(is_apart) {
                let step = &steps[number];
                apart.extend(
                    step.keys
                        .iter()
                        .map(|key| step_of(step.slot, vec![*key], 0)),
                );
                continue;
            }
            let ((node_at, on_whole), _) = typed::<(u64, bool)>(done)?;
            at = at.max(Millis(node_at));
            if let Some(row) = intent.rows.get(number)
                && on_whole
            {
                wholes.push(Arc::clone(&row.whole));
            }
        }
        let of_wholes = groups(&wholes);
        let keys = of_wholes
            .iter()
            .flat_map(|group| group.deps.iter().map(|(key, _)| (group.slot, *key)));
        // One step per key, since the slot may be moving.
        apart.extend(keys.map(|(slot, key)| step_of(slot, vec![key], 0)));
        if !apart.is_empty() {
            let done = self.run(&apart, OnAsk::Follow).await;
            self.changed(&apart);
            for done in done {
                let ((node_at, _), _) = typed::<(u64, bool)>(done)?;
                at = at.max(Millis(node_at));
            }
        }
        let slots: Vec<_> = steps.iter().chain(&apart).map(|step| step.slot).collect();
        self.fences.passed(&slots).await;
        self.confirmed()?;
        Ok(Intended {
            at,
            on_whole: !wholes.is_empty(),
        })
    }

    pub(in crate::store::redis) async fn prune(&self, probe: &Probe) -> Result<(), Error> {
        let ttl = millis(self.default_generation_ttl);
        let groups = groups(probe.deps.iter());
        let on_deps = groups.iter().map(|group| {
            // The script reads the first key as an entry, and a generation is not an entry.
            let first = group.deps.first().map(|(key, _)| *key);
            let nonces = group
                .deps
                .iter()
                .map(|_| Nonce::fresh().to_string().into_bytes());
            ScriptCall {
                slot: group.slot,
                script: &scripts::PRUNE,
                keys: first.into_iter().chain(group.keys()).collect(),
                args: std::iter::once(ttl.clone()).chain(nonces).collect(),
            }
        });
        let entry = step(&scripts::PRUNE, &probe.key, [ttl.clone()]);
        let steps: Vec<_> = std::iter::once(entry).chain(on_deps).collect();
        let done = self.run(&steps, OnAsk::Fail).await;
        self.changed(&steps);
        done.into_iter().try_for_each(|done| done.map(drop))
    }

    pub(in crate::store::redis) async fn invalidate(
        &self,
        invalidation: &Invalidation,
    ) -> PartlyInvalidated {
        // First, so that a task that repeats recent invalidations at a new owner includes this one.
        self.recent.remember(invalidation);
        self.invalidate_again(invalidation).await
    }

    pub(super) async fn invalidate_again(&self, invalidation: &Invalidation) -> PartlyInvalidated {
        let withdraws: Vec<_> = invalidation
            .withdraws
            .iter()
            .map(Nonce::to_string)
            .collect();
        let mut by_slot: HashMap<u16, (Vec<usize>, Vec<usize>)> = HashMap::new();
        for (at, key) in invalidation.kills.iter().enumerate() {
            by_slot.entry(slot_of(key)).or_default().0.push(at);
        }
        for (at, dep) in invalidation.bumps.iter().enumerate() {
            by_slot.entry(routed(dep).1).or_default().1.push(at);
        }
        let mut parts: Vec<SlotPart<'_>> = Vec::new();
        for (slot, (kills, bumps)) in &by_slot {
            let kills = kills.chunks(STEP).map(|kills| (*slot, kills, &[][..]));
            let bumps = bumps.chunks(STEP).map(|bumps| (*slot, &[][..], bumps));
            parts.extend(kills.chain(bumps));
        }
        let mut done = self.run_parts(invalidation, &withdraws, &parts).await;
        // If a slot is being moved, its keys may be on two nodes: then each gets a step of its own.
        let apart: Vec<_> = done
            .extract_if(.., |(_, done)| done.as_ref().is_err_and(is_apart))
            .collect();
        if !apart.is_empty() && !crate::base::mutation::is_active("tryagain-as-a-whole") {
            let parts = apart.iter().flat_map(|((slot, kills, bumps), _)| {
                let kills = kills.chunks(1).map(|kills| (*slot, kills, &[][..]));
                let bumps = bumps.chunks(1).map(|bumps| (*slot, &[][..], bumps));
                kills.chain(bumps)
            });
            let parts: Vec<_> = parts.collect();
            done.extend(self.run_parts(invalidation, &withdraws, &parts).await);
        } else {
            done.extend(apart);
        }
        let mut invalidated = Invalidated {
            at: Millis(0),
            removed: 0,
        };
        let slots: Vec<_> = by_slot.keys().copied().collect();
        let fenced = self.fences.active(&slots).await;
        let confirmed = self.confirmed();
        let mut undone = Invalidation::default();
        let mut fault = None;
        for ((slot, kills, bumps), done) in done {
            let done = match &confirmed {
                Err(error) => Err(copied(error)),
                Ok(()) if fenced.contains(&slot) => Err(Unserved::Fenced.into()),
                Ok(()) => typed::<(u64, u64)>(done),
            };
            match done {
                Ok(((at, removed), _)) => {
                    invalidated.at = invalidated.at.max(Millis(at));
                    invalidated.removed += removed;
                }
                Err(error) => {
                    fault = Some(error);
                    let kills = kills.iter().map(|at| invalidation.kills[*at].clone());
                    undone.kills.extend(kills);
                    let bumps = bumps.iter().map(|at| Arc::clone(&invalidation.bumps[*at]));
                    undone.bumps.extend(bumps);
                }
            }
        }
        match fault {
            None => PartlyInvalidated::whole(invalidated),
            Some(error) => {
                undone.kills.dedup();
                undone.bumps.dedup();
                undone.withdraws.clone_from(&invalidation.withdraws);
                PartlyInvalidated::partly(invalidated, undone, error)
            }
        }
    }

    /// Invalidates each of these parts. Each is returned with its answers, one for each round of
    /// tokens.
    async fn run_parts<'i>(
        &self,
        invalidation: &'i Invalidation,
        withdraws: &[String],
        parts: &[SlotPart<'i>],
    ) -> Vec<(SlotPart<'i>, StepResult)> {
        // Without tokens there is still one round.
        let rounds = withdraws.len().div_ceil(STEP).max(1);
        let mut steps = Vec::with_capacity(parts.len() * rounds);
        let mut concerned = Vec::with_capacity(parts.len() * rounds);
        for (slot, kills, bumps) in parts {
            for round in 0..rounds {
                let withdraws = withdraws.iter().skip(round * STEP).take(STEP);
                let withdraws = withdraws.map(String::as_str).collect::<Vec<_>>().join(" ");
                let keys = kills.iter().map(|at| invalidation.kills[*at].as_str());
                let bumps_of = || bumps.iter().map(|at| &invalidation.bumps[*at]);
                let args = [
                    kills.len().to_string().into_bytes(),
                    millis(self.default_generation_ttl),
                    withdraws.into(),
                ];
                let nonces = bumps_of().map(|dep| scripts::fresh_nonce(dep));
                steps.push(ScriptCall {
                    slot: *slot,
                    script: &scripts::INVALIDATE,
                    keys: keys.chain(bumps_of().map(|dep| routed(dep).0)).collect(),
                    args: args.into_iter().chain(nonces).collect(),
                });
                concerned.push((*slot, *kills, *bumps));
            }
        }
        let done = self.run(&steps, OnAsk::Follow).await;
        self.changed(&steps);
        concerned.into_iter().zip(done).collect()
    }
}

/// A part of an invalidation: its slot, and the indexes of its entries and generations.
type SlotPart<'i> = (u16, &'i [usize], &'i [usize]);

/// A step over one entry.
fn step<'k>(
    script: &'static Lua,
    key: &'k str,
    args: impl IntoIterator<Item = Vec<u8>>,
) -> ScriptCall<'k> {
    ScriptCall {
        slot: slot_of(key),
        script,
        keys: vec![key],
        args: args.into_iter().collect(),
    }
}

fn apart() -> Error {
    Error::unavailable("the key's slot is being moved").with_source(KeysApart)
}

fn is_forgotten(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}
