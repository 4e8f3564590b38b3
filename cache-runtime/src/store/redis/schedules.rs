//! The batcher in many orders: every read gets an answer from after it began, or is told that there
//! is none.

use std::sync::Arc;
use std::time::Duration;

use shuttle::future::{self, block_on, yield_now};

use super::reads::batcher::{WORKERS, Worker};
use super::reads::read_path::{ReadPath, read_path};
use super::stand_ins::{Answers, Connection, GENERATION, GenerationSet};
use crate::base::sync::{Notify, many_orders};
use crate::key::EntryKind;
use crate::protocol::generation::Dependency;
use crate::store::EntryRef;

const READERS: usize = 4;
/// With so many reads in flight, the next one is batched.
const ALONE: usize = 8;
const BUDGET: Duration = Duration::from_millis(8);
/// With it each worker has two batches in flight.
const ROUND_TRIP: Duration = Duration::from_millis(2);

#[test]
fn every_read_is_answered_with_what_it_asked_for() {
    many_orders(10_000, || reads(Answers::InTime, false));
}

#[test]
fn after_errors_and_delays_reads_are_sent_alone_again() {
    many_orders(10_000, || reads(Answers::Late, false));
}

#[test]
fn no_read_waits_for_ever_whatever_delays_the_workers() {
    many_orders(20_000, || reads(Answers::Never, false));
}

#[test]
fn waiting_reads_are_told_when_the_connection_ends() {
    many_orders(10_000, || reads(Answers::InTime, true));
}

fn reads(answers: Answers, ends: bool) {
    block_on(async move {
        let connection = Arc::new(Connection::new(answers));
        // One reader, one worker and the watch show it in fewer steps.
        let (readers, number) = match answers {
            Answers::Never => (1, 1),
            _ => (READERS, WORKERS),
        };
        let worker = |number| {
            let worker = Worker::new(Arc::clone(&connection), number, ROUND_TRIP, BUDGET);
            future::spawn(worker.drive())
        };
        let mut tasks: Vec<_> = (0..number).map(worker).collect();
        let is_over = Arc::new(Notify::new());
        // Where every answer comes in time, no watch is needed.
        if answers != Answers::InTime {
            let (connection, is_over) = (Arc::clone(&connection), Arc::clone(&is_over));
            tasks.push(future::spawn(async move {
                tokio::select! {
                    biased;
                    () = is_over.notified() => {}
                    never = connection.batcher().watch(BUDGET, || ()) => match never {},
                }
            }));
        }
        let deps: Arc<[_]> = [Dependency::new("@gen:users".into())].into();
        let entry_ref = |reader: usize| EntryRef {
            // Two of them read the same key.
            key: format!("users:{}", reader % 3),
            kind: EntryKind::Entity,
            deps: Arc::clone(&deps),
        };
        let busy: Vec<_> = (0..ALONE)
            .map(|reader| read_path(&connection, &entry_ref(reader)))
            .collect();
        assert!(busy.iter().all(|path| matches!(path, ReadPath::Direct(_))));
        let readers = (0..readers).map(|reader| {
            let (connection, entry_ref) = (Arc::clone(&connection), entry_ref(reader));
            future::spawn(async move {
                for _ in 0..3 {
                    read(&connection, &entry_ref, answers == Answers::InTime && !ends).await;
                }
            })
        });
        let readers: Vec<_> = readers.collect();
        connection.write();
        if ends {
            yield_now().await;
            connection.batcher().end();
        }
        for reader in readers {
            reader.await.expect("it ends");
        }
        drop(busy);
        if !ends && answers != Answers::Never {
            // All batches have ended: the next read is sent alone again.
            while !matches!(read_path(&connection, &entry_ref(0)), ReadPath::Direct(_)) {
                for _ in 0..50 {
                    yield_now().await;
                }
            }
        }
        connection.batcher().end();
        is_over.notify_one();
        for task in tasks {
            if answers == Answers::Never {
                task.abort();
            }
            // They end by themselves, unless they are stuck.
            let _ = task.await;
        }
    });
}

async fn read(connection: &Arc<Connection>, entry_ref: &EntryRef, must_be_answered: bool) {
    let oldest = connection.version();
    let generations = entry_ref.deps.iter().map(|_| GENERATION);
    let generation_set = GenerationSet::of(connection.identity(), generations);
    match read_path(connection, entry_ref) {
        ReadPath::Direct(_) => {}
        ReadPath::Batched(read) => match read.answer.await {
            Ok(Ok(Some(lookup))) => {
                assert_eq!(lookup.stamp, generation_set.stamp(&entry_ref.key));
                assert!(lookup.now >= oldest, "an answer from before the read");
            }
            Ok(Ok(None) | Err(_)) | Err(_) => assert!(!must_be_answered, "no answer"),
        },
    }
}
