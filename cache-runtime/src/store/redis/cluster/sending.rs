//! Scripts over keys of one slot each, sent to the node that owns the slot, also while it moves.

use std::sync::Arc;

use redis::{FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value};

use super::super::connection::Connection;
use super::super::connection::address;
use super::super::connection::dial::dial;
use super::super::limits::STEP;
use super::super::reply::miscounted;
use super::super::scripts::{Lua, ScriptMode};
use super::super::sent::Sent;
use super::super::slots::slot_of;
use super::routing::ScriptCall;
use super::state::{Answers, Cluster, Fault, KeysApart, REDIRECT_PAUSE, fault};
use crate::base::clock::{self, Instant};
use crate::base::error::{Error, ErrorKind};
use crate::base::join;
use crate::base::unserved::copied;

/// The result of a step: its value, and the connection that it came over.
pub(super) type StepResult = Result<(Value, Arc<Connection>), Error>;

/// The treatment of a step whose slot is being moved and whose key is not at the old node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnAsk {
    /// Run it at the new node. Only for steps that remove. A value that will be read must not be
    /// stored there before the node owns the slot: if the move is aborted and started again, the
    /// value would come back.
    Follow,
    /// Fail.
    Fail,
}

pub(super) fn typed<T: FromRedisValue>(done: StepResult) -> Result<(T, Arc<Connection>), Error> {
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
pub(super) fn only<T: FromRedisValue>(done: StepResult) -> Result<T, Error> {
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
        let _held = Sent::now(self.budget).held(clock::now());
        let answer = crate::base::time::timeout(self.budget, asked).await;
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
        crate::base::time::sleep(REDIRECT_PAUSE).await;
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
        let sent: Vec<Vec<Result<Result<Value, RedisError>, Error>>> = join::all(sent).await;
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
}

/// A step over one entry.
pub(super) fn step<'k>(
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
