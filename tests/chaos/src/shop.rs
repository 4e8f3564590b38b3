//! The service under test: cached reads and invalidating writes over rows whose versions only grow.
//!
//! Every value says which call it answers and which versions of which rows it was made of.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;

use cache_runtime::{Cache, cached, invalidates};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};

use crate::context::{CallContext, IDS, TEAMS, Trouble};
use crate::history::{ABSENT_EVERY, Step};

/// A table of its own, and a resource of its own.
pub(crate) trait Kind: Send + Sync + 'static {
    const RESOURCE: &'static str;
    const NUMBER: u8;
}

macro_rules! kinds {
    ($($kind:ident $name:literal $number:literal,)*) => {
        $(
            #[derive(Debug, Clone, Copy)]
            pub(crate) struct $kind;

            impl Kind for $kind {
                const RESOURCE: &'static str = $name;
                const NUMBER: u8 = $number;
            }
        )*
        pub(crate) const KINDS: &[&str] = &[$($name),*];
    };
}

// The last one is written in a short window of time only: see `writes::quiet_turn`.
kinds! {
    Apples "apples" 0,
    Pears "pears" 1,
    Plums "plums" 2,
    Figs "figs" 3,
    Quinces "quinces" 4,
}

/// The resource, and the table, that somebody changes behind the cache's back if that is asked for.
pub(crate) const PLANTED: &str = "planted";
/// How many rows it has.
pub(crate) const PLANTED_ROWS: i64 = 4;

/// Rows that are written by annotated functions, and by a writer that does not know them.
pub(crate) struct Planted {
    pub(crate) cache: Cache,
    pub(crate) pool: PgPool,
}

impl Planted {
    #[cached(resource = PLANTED, cache = self.cache)]
    pub(crate) async fn get(&self, id: i64) -> Result<Option<i64>, Trouble> {
        let read = sqlx::query_scalar("SELECT version FROM planted WHERE id = $1").bind(id);
        Ok(read.fetch_optional(&self.pool).await?)
    }

    #[cached(resource = PLANTED, batch = ids, cache = self.cache)]
    pub(crate) async fn get_many(&self, ids: &[i64]) -> Result<BTreeMap<i64, i64>, Trouble> {
        let read = sqlx::query_as("SELECT id, version FROM planted WHERE id = ANY($1)").bind(ids);
        let rows: Vec<(i64, i64)> = read.fetch_all(&self.pool).await?;
        Ok(rows.into_iter().collect())
    }

    #[invalidates(PLANTED, id = id, cache = self.cache)]
    pub(crate) async fn write(&self, id: i64) -> Result<(), Trouble> {
        let write = sqlx::query("UPDATE planted SET version = version + 1 WHERE id = $1").bind(id);
        write.execute(&self.pool).await?;
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) of: String,
    pub(crate) id: u32,
    pub(crate) version: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) of: String,
    pub(crate) rows: Vec<(u32, u64)>,
}

/// What half of the processes keep under a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OneType {
    pub(crate) of: String,
    pub(crate) version: u64,
}

/// What the other half keeps under the same key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OtherType {
    pub(crate) of: String,
    pub(crate) version: u64,
    pub(crate) twice: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Filter {
    pub(crate) team: i64,
    pub(crate) from: i64,
}

pub(crate) struct Shop<K> {
    pub(crate) cache: Cache,
    pub(crate) context: CallContext,
    /// Whether its reads ask for Redis's word.
    pub(crate) strict: bool,
    pub(crate) kind: PhantomData<K>,
}

impl<K> Clone for Shop<K> {
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            context: self.context.clone(),
            ..*self
        }
    }
}

impl<K> Deref for Shop<K> {
    type Target = CallContext;

    fn deref(&self) -> &CallContext {
        &self.context
    }
}

pub(crate) fn team_of(id: i64) -> i64 {
    id % TEAMS
}

impl<K: Kind> Shop<K> {
    pub(crate) fn calm(&self) -> Self {
        Self {
            context: self.context.calm(),
            ..self.clone()
        }
    }

    pub(crate) fn of(call: &str, argument: i64) -> String {
        format!("{} {call} {argument}", K::RESOURCE)
    }

    // --- reads

    async fn page(
        &self,
        call: &str,
        argument: i64,
        first: i64,
        last: i64,
        team: Option<i64>,
    ) -> Result<Page, Trouble> {
        let rows = self.rows(K::NUMBER, first, last, team).await?;
        let of = Self::of(call, argument);
        Ok(Page { of, rows })
    }

    pub(crate) fn row((id, version): (u32, u64)) -> Option<Row> {
        let of = Self::of("row", id.into());
        (version % ABSENT_EVERY != 0).then_some(Row { of, id, version })
    }

    pub(crate) async fn load(&self, id: i64) -> Result<Option<Row>, Trouble> {
        let rows = self.rows(K::NUMBER, id, id, None).await?;
        Ok(rows.first().copied().and_then(Self::row))
    }

    #[cached(resource = K::RESOURCE, cache = self.cache)]
    pub(crate) async fn get(&self, id: i64) -> Result<Option<Row>, Trouble> {
        self.load(id).await
    }

    #[cached(resource = K::RESOURCE, batch = ids, cache = self.cache)]
    pub(crate) async fn get_many(&self, ids: &[i64]) -> Result<BTreeMap<i64, Row>, Trouble> {
        let rows = self.rows(K::NUMBER, 1, IDS, None).await?;
        let wanted = rows
            .into_iter()
            .filter(|(id, _)| ids.contains(&i64::from(*id)));
        Ok(wanted
            .filter_map(|row| Some((row.0.into(), Self::row(row)?)))
            .collect())
    }

    #[cached(resource = K::RESOURCE, cache = self.cache)]
    pub(crate) async fn list(&self, skip: i64, limit: i64) -> Result<Page, Trouble> {
        self.page("list", skip, skip + 1, skip + limit, None).await
    }

    #[cached(resource = K::RESOURCE, op = "filter:team", cache = self.cache)]
    pub(crate) async fn filter(&self, filter: &Filter) -> Result<Page, Trouble> {
        self.page("filter", filter.team, filter.from, IDS, Some(filter.team))
            .await
    }

    /// Nothing but the tag makes it stale.
    #[cached(resource = "boards", include(K::RESOURCE), tags("{K::RESOURCE}:{team}"), cache = self.cache)]
    pub(crate) async fn board(&self, team: i64) -> Result<Page, Trouble> {
        self.page("board", team, 1, IDS, Some(team)).await
    }

    #[cached(resource = "totals", include(K::RESOURCE), depends(K::RESOURCE), cache = self.cache)]
    pub(crate) async fn total(&self, half: i64) -> Result<Page, Trouble> {
        let first = half * IDS / 2;
        self.page("total", half, first + 1, first + IDS / 2, None)
            .await
    }

    /// Made of what other functions have cached, here or in Redis.
    #[cached(resource = "pairs", include(K::RESOURCE), depends(K::RESOURCE), cache = self.cache)]
    pub(crate) async fn nested(&self, first: i64) -> Result<Page, Trouble> {
        let mut rows = Vec::new();
        for id in first..=first + 1 {
            let version = self.get(id).await?.map_or(0, |row| row.version);
            rows.push((u32::try_from(id).unwrap_or_default(), version));
        }
        let of = Self::of("nested", first);
        Ok(Page { of, rows })
    }

    pub(crate) async fn by_hand(&self, first: i64) -> Result<Page, Trouble> {
        self.page("by hand", first, first, first + 1, None).await
    }

    #[cached(resource = K::RESOURCE, op = "typed", cache = self.cache)]
    pub(crate) async fn one_type(&self, id: i64) -> Result<OneType, Trouble> {
        let page = self.page("typed", id, id, id, None).await?;
        let version = page.rows[0].1;
        Ok(OneType {
            of: page.of,
            version,
        })
    }

    #[cached(resource = K::RESOURCE, op = "typed", cache = self.cache)]
    pub(crate) async fn other_type(&self, id: i64) -> Result<OtherType, Trouble> {
        let OneType { of, version } =
            Self::one_type_of(self.page("typed", id, id, id, None).await?);
        Ok(OtherType {
            of,
            version,
            twice: 2 * version,
        })
    }

    fn one_type_of(page: Page) -> OneType {
        OneType {
            of: page.of,
            version: page.rows[0].1,
        }
    }

    // --- writes

    pub(crate) async fn commit(&self, id: i64) -> Result<(), Trouble> {
        self.context.commit(K::NUMBER, id).await
    }

    #[invalidates(K::RESOURCE, id = id, tags("{K::RESOURCE}:{team_of(id)}"), cache = self.cache)]
    pub(crate) async fn write_by_id(&self, id: i64) -> Result<(), Trouble> {
        self.commit(id).await
    }

    #[invalidates(K::RESOURCE, tags("{K::RESOURCE}:{team_of(id)}"), cache = self.cache)]
    pub(crate) async fn write_whole(&self, id: i64) -> Result<(), Trouble> {
        self.commit(id).await
    }

    #[invalidates(K::RESOURCE, id = id, tags("{K::RESOURCE}:{team_of(id)}"), crash_safe, cache = self.cache)]
    pub(crate) async fn write_crash_safe(&self, id: i64) -> Result<(), Trouble> {
        self.look_for_announcement(id).await;
        self.commit(id).await
    }

    #[invalidates(K::RESOURCE, tags("{K::RESOURCE}:{team_of(id)}"), crash_safe, cache = self.cache)]
    pub(crate) async fn write_whole_crash_safe(&self, id: i64) -> Result<(), Trouble> {
        self.look_for_announcement(id).await;
        self.commit(id).await
    }

    #[invalidates(K::RESOURCE, id = id, tags("{K::RESOURCE}:{team_of(id)}"), required, cache = self.cache)]
    pub(crate) async fn write_required(&self, id: i64) -> Result<(), Trouble> {
        self.commit(id).await
    }

    #[invalidates(K::RESOURCE, id = id, tags("{K::RESOURCE}:{team_of(id)}"), after_commit, cache = self.cache)]
    pub(crate) async fn touch(&self, tx: &mut PgConnection, id: i64) -> Result<(), Trouble> {
        Ok(self.update(tx, K::NUMBER, id).await?)
    }

    #[invalidates(K::RESOURCE, id = id, tags("{K::RESOURCE}:{team_of(id)}"), after_commit, crash_safe, cache = self.cache)]
    pub(crate) async fn touch_crash_safe(
        &self,
        tx: &mut PgConnection,
        id: i64,
    ) -> Result<(), Trouble> {
        Ok(self.update(tx, K::NUMBER, id).await?)
    }

    /// What a crash must not undo is worth nothing if Redis was away: a read of the row says
    /// whether it was. In a task of its own, since a read inside the body of a write that concerns
    /// it does not ask Redis.
    async fn look_for_announcement(&self, id: i64) {
        use cache_runtime::BypassReason::{
            Fenced, Pending, Unavailable, Unconfirmed, WriteInProgress,
        };
        use cache_runtime::{Status, observe};
        let calm = self.calm();
        let look = async move { observe(calm.cache.strict(calm.get(id))).await.1 };
        let Ok(outcomes) = tokio::spawn(look).await else {
            return;
        };
        for outcome in outcomes {
            match outcome.status {
                Status::Bypass(WriteInProgress) => self.mark(Step::Announced),
                Status::Bypass(Unavailable | Fenced | Unconfirmed | Pending) => {
                    self.mark(Step::Away)
                }
                _ => {}
            }
        }
    }
}
