//! Annotated functions of every shape, compiled and run on the in-process tier.

mod calls;

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cache_runtime::{
    BypassReason, Cache, CacheConfig, LintKind, Status, cache_defaults, cached, catalog,
    invalidates,
};
use serde::{Deserialize, Serialize};

use calls::{cache, hit, miss, op_of, status};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: i64,
    name: String,
}

#[derive(Debug, PartialEq)]
enum DbError {
    Conflict,
    Broken,
}

/// A service that counts how often its bodies run.
struct Users {
    cache: Cache,
    tenant: i64,
    runs: AtomicUsize,
}

async fn users() -> Users {
    Users {
        cache: cache().await,
        tenant: 7,
        runs: AtomicUsize::new(0),
    }
}

fn user(id: i64) -> User {
    User {
        id,
        name: format!("user {id}"),
    }
}

impl Users {
    fn ran(&self) {
        self.runs.fetch_add(1, Ordering::Relaxed);
    }

    #[cached(resource = "users", cache = self.cache)]
    async fn get(&self, id: i64) -> Result<Option<User>, DbError> {
        self.ran();
        if id < 0 {
            return Err(DbError::Broken);
        }
        Ok((id > 0).then(|| user(id)))
    }

    #[cached(resource = "users", cache = self.cache, ttl = "5m")]
    async fn list(&self, skip: u32, limit: u32) -> Result<Vec<User>, DbError> {
        self.ran();
        Ok((skip..skip + limit).map(|id| user(id.into())).collect())
    }

    #[cached(resource = "users", cache = self.cache, op = "avatar")]
    async fn avatar(&self, id: &str) -> String {
        format!("{id}.png")
    }

    #[cached(resource = "users", cache = self.cache, op = "of-tenant", include(self.tenant))]
    async fn of_tenant(&self, name: &str) -> i64 {
        let _ = name;
        self.tenant
    }

    #[cached(resource = "members", cache = self.cache, id = (self.tenant, name))]
    async fn member(&self, name: String) -> Option<String> {
        Some(name)
    }

    #[invalidates("users", cache = self.cache)]
    async fn import(&self) {}

    #[invalidates("users", id = id, cache = self.cache)]
    async fn rename(&self, id: i64, name: String) -> Result<User, DbError> {
        Ok(User { id, name })
    }

    #[invalidates("users", id = result.id, cache = self.cache)]
    async fn replace(&self, new: User) -> Result<User, DbError> {
        Ok(new)
    }

    #[invalidates("members", id = (self.tenant, name), "users", id = result, cache = self.cache)]
    async fn leave(&self, name: String) -> Result<Option<i64>, DbError> {
        drop(name);
        Ok(Some(1))
    }

    #[invalidates("users", cache = self.cache, rejected = |e| *e == DbError::Conflict)]
    async fn refusing(&self, error: DbError) -> Result<User, DbError> {
        Err(error)
    }

    #[invalidates("users", cache = self.cache, on = ok)]
    async fn vouching(&self, error: DbError) -> Result<User, DbError> {
        Err(error)
    }

    #[invalidates("users", cache = self.cache)]
    async fn borrowing(&mut self) -> Result<&mut i64, DbError> {
        self.tenant += 1;
        Ok(&mut self.tenant)
    }
}

#[tokio::test]
async fn a_row_is_read_once() {
    let users = users().await;
    let (key, first) = miss(users.get(1)).await;
    assert_eq!((key.as_str(), &first), ("users:1", &Ok(Some(user(1)))));
    assert_eq!(hit(users.get(1)).await, (key, first));
    miss(users.get(2)).await.1.unwrap();
    assert_eq!(users.runs.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_absence_is_kept_and_an_error_is_not() {
    let users = users().await;
    miss(users.get(0)).await.1.unwrap();
    assert_eq!(hit(users.get(0)).await.1, Ok(None));
    for _ in 0..2 {
        assert_eq!(users.get(-1).await, Err(DbError::Broken));
    }
    assert_eq!(users.runs.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn other_arguments_are_another_entry() {
    let users = users().await;
    let (first, _) = miss(users.list(0, 2)).await;
    let (second, _) = miss(users.list(0, 3)).await;
    assert_eq!(
        (op_of(&first), op_of(&second)),
        ("users:list", "users:list")
    );
    assert_ne!(first, second);
    assert_eq!(hit(users.list(0, 2)).await.1.map(|list| list.len()), Ok(2));
}

#[tokio::test]
async fn an_op_with_an_id_stays_readable() {
    let users = users().await;
    assert_eq!(miss(users.avatar("a b")).await.0, "users:avatar:a%20b");
    assert_eq!(hit(users.avatar("a b")).await.1, "a b.png");
}

#[tokio::test]
async fn parts_that_tell_owners_apart_are_included() {
    let one = users().await;
    let other = Users {
        cache: one.cache.clone(),
        tenant: 8,
        runs: AtomicUsize::new(0),
    };
    assert_eq!(miss(one.of_tenant("x")).await.1, 7);
    assert_eq!(miss(other.of_tenant("x")).await.1, 8);
    assert_eq!(hit(one.of_tenant("x")).await.1, 7);
    assert_eq!(miss(one.member("ann".into())).await.0, "members:7,ann");
    assert_eq!(miss(other.member("ann".into())).await.0, "members:8,ann");
}

#[tokio::test]
async fn a_write_makes_stale_what_it_names() {
    let users = users().await;
    for id in [1, 2] {
        miss(users.get(id)).await.1.unwrap();
    }
    miss(users.list(0, 2)).await.1.unwrap();

    users.rename(1, "ann".into()).await.unwrap();
    miss(users.get(1)).await.1.unwrap();
    hit(users.get(2)).await.1.unwrap();
    miss(users.list(0, 2)).await.1.unwrap();

    users.replace(user(2)).await.unwrap();
    hit(users.get(1)).await.1.unwrap();
    miss(users.get(2)).await.1.unwrap();

    users.import().await;
    miss(users.get(1)).await.1.unwrap();
    miss(users.list(0, 2)).await.1.unwrap();
}

#[tokio::test]
async fn an_id_may_use_arguments_and_result_together() {
    let users = users().await;
    for name in ["ann", "bob"] {
        miss(users.member(name.into())).await;
    }
    for id in [1, 2] {
        miss(users.get(id)).await.1.unwrap();
    }
    users.leave("ann".into()).await.unwrap();
    miss(users.member("ann".into())).await;
    hit(users.member("bob".into())).await;
    miss(users.get(1)).await.1.unwrap();
    hit(users.get(2)).await.1.unwrap();
}

#[tokio::test]
async fn an_error_invalidates_unless_it_wrote_nothing() {
    let mut users = users().await;
    miss(users.get(1)).await.1.unwrap();
    users.refusing(DbError::Conflict).await.unwrap_err();
    hit(users.get(1)).await.1.unwrap();
    users.vouching(DbError::Broken).await.unwrap_err();
    hit(users.get(1)).await.1.unwrap();
    users.refusing(DbError::Broken).await.unwrap_err();
    miss(users.get(1)).await.1.unwrap();
    *users.borrowing().await.unwrap() += 1;
    assert_eq!(users.tenant, 9);
    miss(users.get(1)).await.1.unwrap();
}

#[tokio::test]
async fn without_a_cache_the_functions_run() {
    let off = Cache::new(CacheConfig::default()).await;
    let users = Users {
        cache: off,
        tenant: 7,
        runs: AtomicUsize::new(0),
    };
    for _ in 0..2 {
        let (status, found) = status(users.get(1)).await;
        assert_eq!(found, Ok(Some(user(1))));
        assert_eq!(status, Status::Bypass(BypassReason::Disabled));
    }
    assert_eq!(users.runs.load(Ordering::Relaxed), 2);
    users.leave("ann".into()).await.unwrap();
}

// Parameters.

#[cached(resource = "pairs", cache = cache, skip(cache))]
async fn pattern(cache: &Cache, (a, mut b): (u8, u8), [first, ..]: [u8; 3], _: &str) -> u8 {
    b += 1;
    a + b + first
}

#[cached(resource = "sums", cache = cache, key(numbers))]
async fn borrowed(cache: &Cache, numbers: &[i64], mut seen: Vec<i64>) -> i64 {
    seen.extend(numbers);
    seen.iter().sum()
}

#[cached(resource = "names", cache = cache, skip(cache, _logger))]
async fn owned(
    cache: Cache,
    name: String,
    of: impl Into<i64> + Serialize,
    _logger: Rc<str>,
) -> String {
    drop(cache);
    tokio::task::yield_now().await;
    let of: i64 = of.into();
    name + &of.to_string()
}

#[cached(resource = "lookups", cache = cache, skip(cache, out))]
async fn written_to(
    cache: &Cache,
    by: &BTreeMap<String, f64>,
    r#type: Option<&str>,
    out: &mut u8,
) -> u8 {
    *out += 1;
    by.len() as u8 + r#type.map_or(0, |_| 1)
}

#[tokio::test]
async fn parameters_are_in_the_key_by_their_names() {
    let cache = cache().await;
    let (key, sum) = miss(pattern(&cache, (1, 2), [3, 4, 5], "x")).await;
    assert_eq!((op_of(&key), sum), ("pairs:pattern", 7));
    hit(pattern(&cache, (1, 2), [3, 9, 9], "y")).await;
    miss(pattern(&cache, (1, 3), [3, 4, 5], "x")).await;

    miss(borrowed(&cache, &[1, 2], vec![3])).await;
    assert_eq!(hit(borrowed(&cache, &[1, 2], vec![4])).await.1, 6);

    miss(owned(cache.clone(), "a".into(), 1_i32, "x".into())).await;
    assert_eq!(
        hit(owned(cache.clone(), "a".into(), 1_i32, "y".into()))
            .await
            .1,
        "a1"
    );
    miss(owned(cache.clone(), "a".into(), 2_i32, "x".into())).await;

    let (by, mut out) = (BTreeMap::from([("a".to_owned(), 1.5)]), 0);
    miss(written_to(&cache, &by, Some("x"), &mut out)).await;
    hit(written_to(&cache, &by, Some("x"), &mut out)).await;
    miss(written_to(&cache, &by, None, &mut out)).await;
    assert_eq!(out, 2);
}

// Generics.

trait Row: Serialize + for<'de> Deserialize<'de> + Clone + Send + Sync + 'static {
    const RESOURCE: &'static str;
    fn of(id: i64) -> Self;
}

impl Row for User {
    const RESOURCE: &'static str = "users";
    fn of(id: i64) -> Self {
        user(id)
    }
}

impl Row for i64 {
    const RESOURCE: &'static str = "numbers";
    fn of(id: i64) -> Self {
        id
    }
}

struct Crud<T> {
    cache: Cache,
    row: std::marker::PhantomData<T>,
}

impl<T: Row> Crud<T> {
    #[cached(resource = T::RESOURCE, cache = self.cache)]
    async fn get(&self, id: i64) -> Result<Option<T>, DbError> {
        Ok(Some(T::of(id)))
    }

    #[cached(resource = T::RESOURCE, cache = self.cache)]
    async fn list<const N: usize>(&self) -> Vec<T> {
        (0..N as i64).map(T::of).collect()
    }

    #[invalidates(T::RESOURCE, id = id, cache = self.cache)]
    async fn delete(&self, id: i64) {}
}

#[cached(resource = "sizes", cache = cache, skip(cache))]
async fn size_of<'a, T: ?Sized, U>(cache: &Cache, of: &'a U) -> usize
where
    U: Serialize + 'a,
{
    let _ = of;
    std::any::type_name::<T>().len()
}

#[tokio::test]
async fn a_generic_service_is_annotated_once() {
    let cache = cache().await;
    let users = Crud {
        cache: cache.clone(),
        row: std::marker::PhantomData::<User>,
    };
    let numbers = Crud {
        cache: cache.clone(),
        row: std::marker::PhantomData::<i64>,
    };
    assert_eq!(miss(users.get(1)).await.0, "users:1");
    assert_eq!(
        miss(numbers.get(1)).await,
        ("numbers:1".into(), Ok(Some(1)))
    );
    assert_eq!(miss(numbers.list::<2>()).await.1, [0, 1]);
    assert_eq!(miss(numbers.list::<3>()).await.1, [0, 1, 2]);
    assert_eq!(hit(numbers.list::<2>()).await.1, [0, 1]);
    numbers.delete(1).await;
    miss(numbers.get(1)).await.1.unwrap();
    hit(users.get(1)).await.1.unwrap();

    assert_eq!(miss(size_of::<u8, _>(&cache, &1_u8)).await.1, 2);
    assert_eq!(miss(size_of::<str, _>(&cache, &1_u8)).await.1, 3);
    assert_eq!(hit(size_of::<u8, _>(&cache, &1_u8)).await.1, 2);
}

// Receivers and traits.

struct Held(Cache, u64);

trait Service {
    async fn of_trait(&self, id: i64) -> Option<i64>;
    fn sendable(&self, id: u8) -> impl Future<Output = u8> + Send;
}

impl Service for Held {
    #[cached(resource = "trait", cache = self.0)]
    async fn of_trait(&self, id: i64) -> Option<i64> {
        Some(id)
    }

    #[cached(resource = "trait", op = "sendable", cache = self.0)]
    async fn sendable(&self, id: u8) -> u8 {
        tokio::task::yield_now().await;
        id
    }
}

impl Held {
    #[cached(resource = "held", op = "mut", cache = self.0)]
    async fn by_mut(&mut self) -> u64 {
        self.1 += 1;
        self.1
    }

    #[cached(resource = "held", op = "arc", cache = self.0)]
    async fn by_arc(self: Arc<Self>, by: u64) -> u64 {
        self.1 + by
    }

    #[cached(resource = "held", op = "value", cache = self.0)]
    async fn by_value(mut self) -> u64 {
        self.1 += 5;
        self.1
    }

    #[cached(resource = "fib", cache = self.0)]
    async fn fib(&self, n: u64) -> u64 {
        if n < 2 {
            n
        } else {
            Box::pin(self.fib(n - 1)).await + Box::pin(self.fib(n - 2)).await
        }
    }

    #[cached(resource = "held", op = "both", cache = self.0)]
    #[invalidates("fib", cache = self.0)]
    async fn reads_and_writes(&self, n: u8) -> u8 {
        n
    }
}

#[tokio::test]
async fn every_receiver_works() {
    let cache = cache().await;
    let held = || Held(cache.clone(), 1);
    let mut service = held();
    assert_eq!(miss(service.by_mut()).await.1, 2);
    assert_eq!(hit(service.by_mut()).await.1, 2);
    assert_eq!(miss(Arc::new(held()).by_arc(3)).await.1, 4);
    assert_eq!(hit(Arc::new(held()).by_arc(3)).await.1, 4);
    assert_eq!(miss(held().by_value()).await.1, 6);
    assert_eq!(hit(held().by_value()).await.1, 6);

    let service = Arc::new(held());
    assert_eq!(miss(service.of_trait(3)).await, ("trait:3".into(), Some(3)));
    let spawned = Arc::clone(&service);
    let found = cache_tests::spawn(async move { hit(spawned.of_trait(3)).await.1 });
    assert_eq!(found.await.unwrap(), Some(3));
    assert_eq!(service.sendable(1).await, 1);

    assert_eq!(service.fib(40).await, 102_334_155);
    hit(service.fib(39)).await;
    assert_eq!(miss(service.reads_and_writes(1)).await.1, 1);
    miss(service.fib(39)).await;
}

// What is returned.

type Aliased<T> = Result<Option<T>, Box<dyn Error + Send + Sync>>;

#[cached(resource = "aliases", cache = cache, skip(cache))]
async fn aliased(cache: &Cache, text: &str) -> Aliased<u8> {
    if text.is_empty() {
        return Err(Box::new(std::fmt::Error));
    }
    match text.parse()? {
        0 => Ok(None),
        number => Ok(Some(number)),
    }
}

#[cached(resource = "shared", cache = cache, skip(cache))]
async fn shared(cache: &Cache, id: i64) -> Option<Arc<User>> {
    Some(Arc::new(user(id)))
}

#[cached(resource = "units", cache = cache, skip(cache))]
async fn unit(cache: &Cache, id: i64) -> Result<(), DbError> {
    let _ = id;
    Ok(())
}

#[cached(resource = "tuples", cache = cache, skip(cache), op = "tuple")]
async fn tuple(cache: &Cache) -> (u8, String, Option<[u8; 2]>) {
    (1, "x".into(), None)
}

#[cached(resource = "inferred", cache = cache, skip(cache), op = "inferred")]
async fn inferred(cache: &Cache, from: u8) -> Vec<String> {
    (from..3).map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn every_return_type_works() {
    let cache = cache().await;
    assert_eq!(miss(aliased(&cache, "5")).await.1.unwrap(), Some(5));
    assert_eq!(hit(aliased(&cache, "5")).await.1.unwrap(), Some(5));
    assert_eq!(miss(aliased(&cache, "0")).await.1.unwrap(), None);
    assert_eq!(hit(aliased(&cache, "0")).await.1.unwrap(), None);
    aliased(&cache, "").await.unwrap_err();
    aliased(&cache, "x").await.unwrap_err();

    let (_, first) = miss(shared(&cache, 1)).await;
    let (_, second) = hit(shared(&cache, 1)).await;
    assert_eq!(
        (first, second),
        (Some(Arc::new(user(1))), Some(Arc::new(user(1))))
    );

    assert_eq!(miss(unit(&cache, 1)).await, ("units:1".into(), Ok(())));
    hit(unit(&cache, 1)).await.1.unwrap();
    miss(tuple(&cache)).await;
    assert_eq!(hit(tuple(&cache)).await.1, (1, "x".into(), None));
    miss(inferred(&cache, 1)).await;
    assert_eq!(hit(inferred(&cache, 1)).await.1, ["1", "2"]);
}

// Policy.

#[cached(resource = "policies", cache = cache, skip(cache), cache_none = false)]
async fn no_absence(cache: &Cache, id: i64) -> Option<i64> {
    (id > 0).then_some(id)
}

mod first {
    use super::*;

    #[cached(resource = "versions", cache = cache, skip(cache), op = "get", version = 1)]
    pub(super) async fn get(cache: &Cache, by: i64) -> i64 {
        by
    }
}

#[cached(resource = "ttls", cache = cache, skip(cache, seconds), ttl = *seconds, none_ttl = "2s")]
async fn lasting(cache: &Cache, id: i64, seconds: &u64) -> Option<i64> {
    (id > 0).then_some(id)
}

#[tokio::test]
async fn policies_reach_the_cache() {
    let cache = cache().await;
    miss(no_absence(&cache, 1)).await;
    hit(no_absence(&cache, 1)).await;
    for _ in 0..2 {
        let (status, _) = status(no_absence(&cache, 0)).await;
        assert_eq!(
            status,
            Status::Miss {
                stored: false,
                joined: false
            }
        );
    }
    miss(first::get(&cache, 1)).await;
    hit(first::get(&cache, 1)).await;

    miss(lasting(&cache, 1, &1000)).await;
    miss(lasting(&cache, 0, &1000)).await;
    for (id, at_most) in [(1, 1000), (0, 2)] {
        let (Status::Hit { ttl }, _) = status(lasting(&cache, id, &1000)).await else {
            panic!("the entry of {id} is gone")
        };
        assert!(
            ttl.as_secs() <= at_most && ttl.as_secs() + 2 >= at_most,
            "{ttl:?}"
        );
    }
}

#[tokio::test]
async fn a_shared_text_or_list_is_kept_as_it_is() {
    #[cached(resource = "names", cache = cache, skip(cache))]
    async fn name(cache: &Cache, id: i64) -> Arc<str> {
        format!("name {id}").into()
    }

    #[cached(resource = "names", op = "all", cache = cache, skip(cache))]
    async fn names(cache: &Cache, of: Arc<str>) -> Result<Option<Arc<[Arc<str>]>>, DbError> {
        Ok(Some([of].into()))
    }

    let cache = cache().await;
    let (_, kept) = miss(name(&cache, 1)).await;
    assert_eq!(
        (&*kept, hit(name(&cache, 1)).await.1),
        ("name 1", kept.clone())
    );
    assert!(Arc::ptr_eq(
        &hit(name(&cache, 1)).await.1,
        &hit(name(&cache, 1)).await.1
    ));
    miss(names(&cache, "a".into())).await.1.unwrap();
    miss(names(&cache, "b".into())).await.1.unwrap();
    let all = hit(names(&cache, "a".into())).await.1.unwrap().unwrap();
    assert_eq!(&*all, [Arc::from("a")]);
}

/// Options about `None`, with a return type that has none, and on a block.
struct Absences(Cache);

type Maybe = Option<u8>;

#[cache_defaults(resource = "absences", cache = self.0, none_ttl = 5)]
impl Absences {
    #[cached(op = "idle", none_ttl = 2)]
    async fn idle_none_ttl(&self, id: u8) -> Result<Vec<u8>, String> {
        Ok(vec![id])
    }

    #[cached(op = "idle-too", cache_none = false)]
    async fn idle_cache_none(&self, id: u8) -> u8 {
        id
    }

    #[cached(op = "useful", none_ttl = 2)]
    async fn useful(&self, id: u8) -> Result<Maybe, String> {
        Ok(Some(id))
    }

    #[cached(op = "of-the-block")]
    async fn of_the_block(&self, id: u8) -> u8 {
        id
    }
}

#[tokio::test]
async fn options_about_none_that_have_no_effect_are_found() {
    let absences = Absences(cache().await);
    assert_eq!(absences.idle_none_ttl(1).await, Ok(vec![1]));
    assert_eq!(absences.idle_cache_none(1).await, 1);
    assert_eq!(absences.useful(1).await, Ok(Some(1)));
    assert_eq!(absences.of_the_block(1).await, 1);
    let findings = catalog().check();
    let idle = ["idle_none_ttl", "idle_cache_none", "useful", "of_the_block"].map(|function| {
        findings.iter().any(|finding| {
            finding.kind == LintKind::NoEffect && finding.text.contains(&format!("`{function}`"))
        })
    });
    assert_eq!(idle, [true, true, false, false], "{findings:?}");
}
