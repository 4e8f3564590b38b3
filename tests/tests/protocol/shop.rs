//! A service over a database of one process, whose loads and commits can be held.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_runtime::{Cache, ErrorKind, cached, invalidates};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) name: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DbError {
    Refused,
    ConnectionLost,
    /// The cache's own word, where a write requires it.
    Cache(ErrorKind),
}

impl From<cache_runtime::Error> for DbError {
    fn from(error: cache_runtime::Error) -> Self {
        Self::Cache(error.kind())
    }
}

/// What a load or a commit meets on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    Refused,
    LostBeforeCommit,
    LostAfterCommit,
    Panic,
}

/// Holds whoever passes until it is opened, and says when somebody has come.
#[derive(Debug)]
pub(crate) struct Gate {
    arrived: Semaphore,
    open: Semaphore,
    standing: AtomicUsize,
    most: AtomicUsize,
}

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            arrived: Semaphore::new(0),
            open: Semaphore::new(0),
            standing: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    pub(crate) async fn pass(&self) {
        let standing = self.standing.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(standing, Ordering::SeqCst);
        self.arrived.add_permits(1);
        self.open.acquire().await.expect("never closed").forget();
        self.standing.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many have stood here at the same time, at most.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Returns when somebody more stands at the gate.
    pub(crate) async fn arrival(&self) {
        self.arrived.acquire().await.expect("never closed").forget();
    }

    pub(crate) fn open(&self) {
        self.open.add_permits(1);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Db {
    rows: Mutex<BTreeMap<i64, User>>,
    pub(crate) loads: AtomicU32,
    /// Which ids each run of `get_many` was given.
    pub(crate) asked: Mutex<Vec<Vec<i64>>>,
}

/// One node of a service: a database that all nodes share, and the node's own cache.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) db: Arc<Db>,
    pub(crate) cache: Cache,
    /// Where reads stand after they have read and before they return.
    pub(crate) read_gate: Option<Arc<Gate>>,
    /// Where writes stand after their commit and before they return.
    pub(crate) write_gate: Option<Arc<Gate>>,
    pub(crate) fault: Option<Fault>,
}

impl Shop {
    pub(crate) fn new(cache: &Cache) -> Self {
        let shop = Self {
            db: Arc::default(),
            cache: cache.clone(),
            read_gate: None,
            write_gate: None,
            fault: None,
        };
        for id in 1..=3 {
            shop.commit(id, &format!("user {id}"));
        }
        shop
    }

    /// The same database behind another cache.
    pub(crate) fn node(&self, cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            read_gate: None,
            write_gate: None,
            ..self.clone()
        }
    }

    pub(crate) fn with_read_gate(&self, gate: &Arc<Gate>) -> Self {
        Self {
            read_gate: Some(Arc::clone(gate)),
            ..self.clone()
        }
    }

    pub(crate) fn with_write_gate(&self, gate: &Arc<Gate>) -> Self {
        Self {
            write_gate: Some(Arc::clone(gate)),
            ..self.clone()
        }
    }

    pub(crate) fn with_fault(&self, fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..self.clone()
        }
    }

    /// Writes past the cache.
    pub(crate) fn commit(&self, id: i64, name: &str) -> User {
        let user = User {
            id,
            name: name.into(),
        };
        self.db.rows.lock().expect("sound").insert(id, user.clone());
        user
    }

    /// What the database has now.
    pub(crate) fn committed(&self, id: i64) -> String {
        self.db.rows.lock().expect("sound")[&id].name.clone()
    }

    pub(crate) fn loads(&self) -> u32 {
        self.db.loads.load(Ordering::SeqCst)
    }

    async fn read<T>(&self, read: impl FnOnce(&BTreeMap<i64, User>) -> T) -> Result<T, DbError> {
        let seen = read(&self.db.rows.lock().expect("sound"));
        self.db.loads.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.read_gate {
            gate.pass().await;
        }
        match self.fault {
            Some(Fault::Panic) => panic!("the loader panics"),
            Some(_) => Err(DbError::ConnectionLost),
            None => Ok(seen),
        }
    }

    async fn write(&self, id: i64, name: &str) -> Result<User, DbError> {
        if self.fault == Some(Fault::Refused) {
            return Err(DbError::Refused);
        }
        if self.fault == Some(Fault::LostBeforeCommit) {
            return Err(DbError::ConnectionLost);
        }
        let user = self.commit(id, name);
        if let Some(gate) = &self.write_gate {
            gate.pass().await;
        }
        match self.fault {
            Some(Fault::Panic) => panic!("the writer panics"),
            Some(_) => Err(DbError::ConnectionLost),
            None => Ok(user),
        }
    }

    #[cached(resource = "users", ttl = 300, cache = self.cache)]
    pub(crate) async fn get(&self, id: i64) -> Result<Option<User>, DbError> {
        self.read(|rows| rows.get(&id).cloned()).await
    }

    #[cached(resource = "users", ttl = 300, batch = ids, cache = self.cache)]
    pub(crate) async fn get_many(&self, ids: &[i64]) -> Result<HashMap<i64, User>, DbError> {
        self.db.asked.lock().expect("sound").push(ids.to_vec());
        self.read(|rows| {
            let found = ids.iter().filter_map(|id| rows.get(id).cloned());
            found.map(|user| (user.id, user)).collect()
        })
        .await
    }

    /// Which ids the runs of `get_many` were given since this was last asked.
    pub(crate) fn asked(&self) -> Vec<Vec<i64>> {
        std::mem::take(&mut self.db.asked.lock().expect("sound"))
    }

    #[cached(resource = "users", op = "list", cache = self.cache)]
    pub(crate) async fn list(&self, skip: usize, limit: usize) -> Result<Vec<User>, DbError> {
        self.read(|rows| rows.values().skip(skip).take(limit).cloned().collect())
            .await
    }

    #[cached(resource = "users", op = "count", ttl = "1h", cache = self.cache)]
    pub(crate) async fn count(&self) -> Result<Arc<usize>, DbError> {
        self.read(|rows| Arc::new(rows.len())).await
    }

    #[invalidates("users", cache = self.cache)]
    pub(crate) async fn rename_in_bulk(&self, id: i64, name: &str) -> Result<User, DbError> {
        self.write(id, name).await
    }

    #[invalidates("users", id = id, rejected = |error| *error == DbError::Refused, cache = self.cache)]
    pub(crate) async fn rename(&self, id: i64, name: &str) -> Result<User, DbError> {
        self.write(id, name).await
    }

    /// As in a handler with a time limit: an error of the database is inside of the `Ok`.
    #[invalidates("users", id = id, cache = self.cache)]
    pub(crate) async fn rename_in_time(
        &self,
        id: i64,
        name: &str,
    ) -> Result<Result<User, DbError>, Elapsed> {
        timeout(Duration::from_secs(60), self.write(id, name)).await
    }

    #[invalidates("users", id = id, crash_safe, rejected = |error| *error == DbError::Refused, cache = self.cache)]
    pub(crate) async fn rename_crash_safe(&self, id: i64, name: &str) -> Result<User, DbError> {
        self.write(id, name).await
    }

    #[invalidates("users", crash_safe, cache = self.cache)]
    pub(crate) async fn rename_in_bulk_crash_safe(
        &self,
        id: i64,
        name: &str,
    ) -> Result<User, DbError> {
        self.write(id, name).await
    }

    /// Takes part in its caller's transaction: nothing is committed when it returns.
    #[invalidates("users", id = id, after_commit, cache = self.cache)]
    pub(crate) async fn rename_in_transaction(&self, id: i64) -> Result<(), DbError> {
        let _ = id;
        self.fault.map_or(Ok(()), |_| Err(DbError::ConnectionLost))
    }

    #[invalidates("users", crash_safe, after_commit, cache = self.cache)]
    pub(crate) async fn rename_all_in_transaction_crash_safe(&self) -> Result<(), DbError> {
        Ok(())
    }

    #[invalidates("users", id = id, required, cache = self.cache)]
    pub(crate) async fn rename_required(&self, id: i64, name: &str) -> Result<User, DbError> {
        self.write(id, name).await
    }

    #[invalidates("users", id = id, required, crash_safe, cache = self.cache)]
    pub(crate) async fn rename_required_crash_safe(
        &self,
        id: i64,
        name: &str,
    ) -> Result<User, DbError> {
        self.write(id, name).await
    }

    #[invalidates("users", id = result.id, cache = self.cache)]
    pub(crate) async fn create(&self, name: &str) -> Result<User, DbError> {
        let next = self
            .db
            .rows
            .lock()
            .expect("sound")
            .keys()
            .max()
            .map_or(1, |id| id + 1);
        self.write(next, name).await
    }

    pub(crate) async fn name(&self, id: i64) -> String {
        self.get(id).await.expect("read").expect("there").name
    }

    /// The rows of one page, which a tag names.
    #[cached(resource = "pages", tags("page:{page}"), cache = self.cache)]
    pub(crate) async fn page(&self, page: usize) -> Result<Vec<User>, DbError> {
        self.read(|rows| rows.values().skip(page * 10).take(10).cloned().collect())
            .await
    }

    /// Writes a row whose id is only known by its result.
    #[invalidates("users", id = result.id, tags("page:{page}"), cache = self.cache)]
    pub(crate) async fn rename_on_page(&self, page: usize, name: &str) -> Result<User, DbError> {
        self.write(1, name).await
    }

    /// Its author has made a mistake: there need not be a row.
    #[invalidates("users", id = result[0].id, cache = self.cache)]
    pub(crate) async fn rename_all(&self, name: &str) -> Result<Vec<User>, DbError> {
        self.write(1, name).await?;
        Ok(Vec::new())
    }

    #[invalidates("users", id = id, rejected = |_| panic!("its author has made a mistake"), cache = self.cache)]
    pub(crate) async fn rename_misjudged(&self, id: i64, name: &str) -> Result<User, DbError> {
        self.write(id, name).await
    }
}
