//! The operations that another cache needs for the workload: rows, pages of rows, and a write that
//! makes both stale.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::app::Common;
use crate::context::{CallContext, IDS, Mishap, Trouble};

/// How many rows a page has, and from how many of the first rows on there is one.
const PAGE: i64 = 4;
pub(crate) const PAGES: i64 = 9;
/// How many kinds of rows there are; each is a table of its own.
pub const KINDS: u8 = 5;

/// A row, with its version, which counts the writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Which row it is.
    pub of: String,
    /// Its id.
    pub id: u32,
    /// Its version.
    pub version: u64,
}

/// Four rows that follow each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Which page it is.
    pub of: String,
    /// Ids and versions.
    pub rows: Vec<(u32, u64)>,
}

/// Why a rival did not answer.
#[derive(Debug, Clone)]
pub struct Failure(pub String);

impl Failure {
    /// Anything that can be shown.
    pub fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::new(trouble)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// A cache in front of the rows, as one process has it. Bodies are [`load_row`], [`load_page`] and
/// [`commit`].
pub trait RivalCache: Sized + Send + Sync + 'static {
    /// How the table calls it.
    const NAME: &'static str;
    /// Whether processes share what it keeps. If not, there is one process.
    const SHARED: bool;
    /// Whether it keeps local entries in its processes beside what they share. These may be behind
    /// by the bound on their age.
    const HAS_LOCAL_ENTRIES: bool;

    /// Starts it, over the Redis at this loopback port. Tried again until it succeeds.
    fn start(redis: u16) -> impl Future<Output = Result<Self, Failure>> + Send;

    /// The row, from the cache or the body.
    fn row(&self, kind: u8, id: i64) -> impl Future<Output = Result<Row, Failure>> + Send;

    /// The page that begins behind this many rows.
    fn page(&self, kind: u8, skip: i64) -> impl Future<Output = Result<Page, Failure>> + Send;

    /// Writes the row, then forgets what is cached of it and the pages that it is on. When this
    /// returns without an error, that is acknowledged.
    fn write(&self, kind: u8, id: i64) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Whether it knows of this row's invalidation that it has not reached the store yet, though
    /// the write has returned.
    fn is_pending(&self, _kind: u8, _id: i64) -> impl Future<Output = bool> + Send {
        std::future::ready(false)
    }

    /// How many invalidations wait to be delivered.
    fn waiting(&self) -> impl Future<Output = u64> + Send {
        std::future::ready(0)
    }

    /// Ends it.
    fn end(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// The pages that a row is on.
pub fn pages_with(id: i64) -> impl Iterator<Item = i64> {
    (0..PAGES).filter(move |skip| wanted(*skip).contains(&id))
}

/// The ids of a page.
pub(crate) fn wanted(skip: i64) -> std::ops::RangeInclusive<i64> {
    skip + 1..=IDS.min(skip + PAGE)
}

pub(crate) fn name_of(what: &str, kind: u8, argument: i64) -> String {
    format!("{kind} {what} {argument}")
}

tokio::task_local! {
    /// What is to be noted of the call that is running, and what is to go wrong in it.
    pub(crate) static CONTEXT: CallContext;
}

static COMMON: OnceLock<Arc<Common>> = OnceLock::new();

/// The process's own: the functions that some rivals annotate are free ones, whose parameters
/// are all in the key.
pub(crate) fn install(common: &Arc<Common>) {
    let _ = COMMON.set(Arc::clone(common));
}

fn context() -> Result<(CallContext, &'static Common), Trouble> {
    let common = COMMON.get().ok_or(Trouble::Database)?;
    // A rival may load in a task of its own, where nothing goes wrong by plan.
    let usual = || CallContext::new(&common.pool, &common.recorder, 0, Mishap::None);
    let context = CONTEXT.try_with(CallContext::clone);
    Ok((context.unwrap_or_else(|_| usual()), common))
}

async fn load(
    what: &str,
    kind: u8,
    argument: i64,
    ids: std::ops::RangeInclusive<i64>,
) -> Result<Page, Trouble> {
    let (context, common) = context()?;
    common.loads.fetch_add(1, Ordering::Relaxed);
    let rows = context.rows(kind, *ids.start(), *ids.end(), None).await?;
    let of = name_of(what, kind, argument);
    Ok(Page { of, rows })
}

/// The body of a read of a row.
///
/// # Errors
/// What the database says, or was to say.
pub async fn load_row(kind: u8, id: i64) -> Result<Row, Trouble> {
    let Page { of, rows } = load("row", kind, id, id..=id).await?;
    let (id, version) = rows.first().copied().ok_or(Trouble::Database)?;
    Ok(Row { of, id, version })
}

/// The body of a read of a page.
///
/// # Errors
/// What the database says, or was to say.
pub async fn load_page(kind: u8, skip: i64) -> Result<Page, Trouble> {
    load("page", kind, skip, wanted(skip)).await
}

/// The body of a write.
///
/// # Errors
/// What the database says, or was to say.
pub async fn commit(kind: u8, id: i64) -> Result<(), Trouble> {
    let (context, _) = context()?;
    context.commit(kind, id).await
}
