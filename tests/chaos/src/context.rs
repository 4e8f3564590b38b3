//! What a body has at hand: the database, where to note what it did, and what is to go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use crate::clock::now;
use crate::history::{Event, MILLISECOND, Mark, Recorder, Step, Time, WriteId};

pub(crate) const IDS: i64 = 12;
/// Rows are in teams, by their ids; what is tagged is a team's.
pub(crate) const TEAMS: i64 = 4;
pub(crate) const CONNECTIONS: u32 = 8;
/// A statement is given up by the database after this time: then a commit without a caller is
/// there, or never will be.
const STATEMENT: Duration = Duration::from_millis(1_000);

/// Within this time a process that starts has the database.
const START: Time = 20_000 * MILLISECOND;

/// The words of a planned panic, and of a planned error.
pub(crate) const PLANNED: &str = "planned";

/// Why a body has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// The database.
    Database,
    /// The answer is lost; the commit is not.
    Lost,
    /// The same, and the commit comes later.
    Later,
    /// It was to fail.
    Planned,
    /// The cache refuses the write.
    Refused,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Database => "the database",
            Self::Lost | Self::Later | Self::Planned => PLANNED,
            Self::Refused => "refused",
        })
    }
}

impl std::error::Error for Trouble {}

impl From<sqlx::Error> for Trouble {
    fn from(_: sqlx::Error) -> Self {
        Self::Database
    }
}

impl From<cache_runtime::Error> for Trouble {
    fn from(_: cache_runtime::Error) -> Self {
        Self::Refused
    }
}

/// What a body does besides its work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mishap {
    None,
    /// Lets others have their turn, between reading and returning or between commit and return.
    Pause(Duration),
    /// Keeps its thread, so that nothing is renewed meanwhile.
    Block(Duration),
    Panic,
    PanicAfter,
    Fail,
    /// Fails after the commit.
    Lose,
    /// Fails, and commits later.
    CommitLater(Duration),
}

impl Mishap {
    /// Whether whoever runs the body gets no value because of it.
    pub(crate) fn fails(self) -> bool {
        matches!(
            self,
            Self::Panic | Self::PanicAfter | Self::Fail | Self::Lose | Self::CommitLater(_)
        )
    }
}

/// The database, as each process connects to it.
pub(crate) async fn connect(url: &str) -> PgPool {
    let options: PgConnectOptions = url.parse().expect("the coordinator's database");
    let options = options.options([("statement_timeout", STATEMENT.as_millis().to_string())]);
    let end = now() + START;
    loop {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .min_connections(CONNECTIONS)
            .acquire_timeout(Duration::from_secs(3))
            .connect_with(options.clone())
            .await;
        match pool {
            Ok(pool) => return pool,
            // So many connections at once take their time where everything else is going on, too.
            Err(error) => assert!(now() < end, "no database: {error}"),
        }
    }
}

#[derive(Clone)]
pub(crate) struct CallContext {
    pub(crate) pool: PgPool,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) mishap: Mishap,
    pub(crate) write: WriteId,
    pub(crate) committed: Arc<AtomicBool>,
    /// Whether the body has returned an error behind which a commit may be.
    pub(crate) is_doubtful: Arc<AtomicBool>,
}

impl CallContext {
    pub(crate) fn new(
        pool: &PgPool,
        recorder: &Arc<Recorder>,
        write: WriteId,
        mishap: Mishap,
    ) -> Self {
        Self {
            pool: pool.clone(),
            recorder: Arc::clone(recorder),
            mishap,
            write,
            committed: Arc::default(),
            is_doubtful: Arc::default(),
        }
    }

    pub(crate) fn calm(&self) -> Self {
        Self {
            mishap: Mishap::None,
            ..self.clone()
        }
    }

    /// Some rows of a kind, with their versions.
    pub(crate) async fn rows(
        &self,
        kind: u8,
        first: i64,
        last: i64,
        team: Option<i64>,
    ) -> Result<Vec<(u32, u64)>, Trouble> {
        match self.mishap {
            Mishap::Panic => panic!("{PLANNED}"),
            Mishap::Fail => return Err(Trouble::Planned),
            _ => {}
        }
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT id, version FROM rows WHERE kind = $1 AND id BETWEEN $2 AND $3 AND ($4 IS NULL OR id % $5 = $4) ORDER BY id",
        )
        .bind(i16::from(kind))
        .bind(first)
        .bind(last)
        .bind(team)
        .bind(TEAMS)
        .fetch_all(&self.pool)
        .await?;
        match self.mishap {
            Mishap::Pause(time) => tokio::time::sleep(time).await,
            Mishap::Block(time) => tokio::task::block_in_place(|| std::thread::sleep(time)),
            Mishap::PanicAfter => panic!("{PLANNED}"),
            _ => {}
        }
        let unsigned = |(id, version): (i64, i64)| {
            Some((u32::try_from(id).ok()?, u64::try_from(version).ok()?))
        };
        Ok(rows.into_iter().filter_map(unsigned).collect())
    }

    pub(crate) fn mark(&self, step: Step) {
        let (write, at) = (self.write, now());
        self.recorder.note(&Event::Mark(Mark { write, at, step }));
    }

    /// One statement: the new version and who made it are committed together.
    pub(crate) async fn update(
        &self,
        to: &mut PgConnection,
        kind: u8,
        id: i64,
    ) -> Result<(), sqlx::Error> {
        let write = i64::try_from(self.write).unwrap_or_default();
        sqlx::query(
            "WITH changed AS (UPDATE rows SET version = version + 1 WHERE kind = $1 AND id = $2 RETURNING version) \
             INSERT INTO log SELECT $3, $1, $2, version FROM changed",
        )
        .bind(i16::from(kind))
        .bind(id)
        .bind(write)
        .execute(to)
        .await
        .map(drop)
    }

    /// The body of a write.
    pub(crate) async fn commit(&self, kind: u8, id: i64) -> Result<(), Trouble> {
        let result = self.try_to_commit(kind, id).await;
        if let Err(Trouble::Later | Trouble::Database) = &result {
            self.is_doubtful.store(true, Ordering::SeqCst);
        }
        result
    }

    async fn try_to_commit(&self, kind: u8, id: i64) -> Result<(), Trouble> {
        match self.mishap {
            Mishap::Panic => panic!("{PLANNED}"),
            Mishap::Fail => return Err(Trouble::Planned),
            Mishap::CommitLater(time) => {
                let later = self.calm();
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    // If it fails, then nothing was committed.
                    let _ = later.commit_now(kind, id).await;
                });
                return Err(Trouble::Later);
            }
            _ => {}
        }
        self.commit_now(kind, id).await?;
        match self.mishap {
            Mishap::Pause(time) => tokio::time::sleep(time).await,
            Mishap::PanicAfter => panic!("{PLANNED}"),
            Mishap::Lose => return Err(Trouble::Lost),
            _ => {}
        }
        Ok(())
    }

    /// In a task of its own, so that nobody hangs up on it: SQLx 0.9.0 then loses track of the
    /// transaction, and whoever has the connection next is in it unawares.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, Trouble> {
        let pool = self.pool.clone();
        let begun = tokio::spawn(async move { pool.begin().await }).await;
        Ok(begun.map_err(|_| Trouble::Database)??)
    }

    async fn commit_now(&self, kind: u8, id: i64) -> Result<(), Trouble> {
        let mut connection = self.pool.acquire().await?;
        self.update(&mut connection, kind, id).await?;
        self.mark(Step::Committed);
        self.committed.store(true, Ordering::SeqCst);
        Ok(())
    }
}
