//! Nobody waits without somebody who brings an answer or ends the wait, and no answer is older than its question.

use std::sync::Arc;
use std::time::Duration;

use shuttle::future::{self, block_on, yield_now};

use super::batcher::{WORKERS, Worker};
use super::connection::{Connection, Health};
use super::read_path::{ReadPath, read_path};
use crate::Schedule;
use crate::protocol::generation::Dep;
use crate::store::Probe;
use crate::sync::Notify;

pub const SCHEDULES: [Schedule; 4] = [
    (
        "batcher: everybody is answered, with what was asked for",
        10_000,
        all_is_well,
    ),
    (
        "batcher: after errors and delays the next one is alone again",
        10_000,
        commands_fail,
    ),
    (
        "batcher: whatever keeps the workers, nobody waits for ever",
        20_000,
        workers_are_stuck,
    ),
    (
        "batcher: those who wait when the connection ends are told",
        10_000,
        the_connection_ends,
    ),
];

const READERS: usize = 4;
/// So many go alone at least.
const ALONE: usize = 8;
const BUDGET: Duration = Duration::from_millis(8);
/// Each worker has two on their way.
const WAY: Duration = Duration::from_millis(2);

fn all_is_well() {
    reads(Health::Well, false);
}

fn commands_fail() {
    reads(Health::Late, false);
}

fn workers_are_stuck() {
    reads(Health::Stuck, false);
}

fn the_connection_ends() {
    reads(Health::Well, true);
}

fn reads(health: Health, ends: bool) {
    block_on(async move {
        let connection = Arc::new(Connection::new(health));
        // What one reader does, one worker and the watch shows in fewer steps.
        let (readers, number) = match health {
            Health::Stuck => (1, 1),
            _ => (READERS, WORKERS),
        };
        let worker = |number| {
            let worker = Worker::new(Arc::clone(&connection), number, WAY, BUDGET);
            future::spawn(worker.drive())
        };
        let mut tasks: Vec<_> = (0..number).map(worker).collect();
        let is_over = Arc::new(Notify::new());
        // Where all is well nobody has to see to it.
        if health != Health::Well {
            let (connection, is_over) = (Arc::clone(&connection), Arc::clone(&is_over));
            tasks.push(future::spawn(async move {
                tokio::select! {
                    biased;
                    () = is_over.notified() => {}
                    never = connection.batcher().watch(BUDGET, || ()) => match never {},
                }
            }));
        }
        let deps: Arc<[_]> = [Dep::new("@gen:users".into())].into();
        let probe = |reader: usize| Probe {
            // Two of them read the same.
            key: format!("users:{}", reader % 3),
            deps: Arc::clone(&deps),
        };
        let busy: Vec<_> = (0..ALONE)
            .map(|reader| read_path(&connection, &probe(reader)))
            .collect();
        assert!(busy.iter().all(|path| matches!(path, ReadPath::Direct(_))));
        let readers = (0..readers).map(|reader| {
            let (connection, probe) = (Arc::clone(&connection), probe(reader));
            future::spawn(async move {
                for _ in 0..3 {
                    read(&connection, &probe, health == Health::Well && !ends).await;
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
        if !ends && health != Health::Stuck {
            // All batcher have come back: the next one is alone again.
            while !matches!(read_path(&connection, &probe(0)), ReadPath::Direct(_)) {
                for _ in 0..50 {
                    yield_now().await;
                }
            }
        }
        connection.batcher().end();
        is_over.notify_one();
        for task in tasks {
            if health == Health::Stuck {
                task.abort();
            }
            // They end by themselves, unless they are stuck.
            let _ = task.await;
        }
    });
}

async fn read(connection: &Arc<Connection>, probe: &Probe, has_to_come: bool) {
    let oldest = connection
        .version
        .load(shuttle::sync::atomic::Ordering::SeqCst);
    match read_path(connection, probe) {
        ReadPath::Direct(_) => {}
        ReadPath::Batched(answer, _) => match answer.await {
            Ok(Ok(Some(look))) => {
                assert_eq!(look.key, probe.key);
                assert!(look.version >= oldest, "an answer from before the question");
            }
            Ok(Ok(None) | Err(_)) | Err(_) => assert!(!has_to_come, "no answer"),
        },
    }
}
