//! A call is known by everything that tells it apart: two calls that differ never share an entry.

mod alike;
mod apart;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;

use cache_runtime::testing::TestCache;
use cache_runtime::{Cache, Status, cached, invalidates, observe};
use serde::Serialize;

async fn status<T>(call: impl Future<Output = T>) -> Status {
    observe(call).await.1[0].status
}

fn is_hit(status: Status) -> bool {
    matches!(status, Status::Hit { .. })
}

trait By: Serialize {
    fn column(&self) -> &'static str;
}

#[derive(Serialize, Clone)]
struct Name(String);

#[derive(Serialize, Clone)]
struct Mail(String);

impl By for Name {
    fn column(&self) -> &'static str {
        "name"
    }
}

impl By for Mail {
    fn column(&self) -> &'static str {
        "mail"
    }
}

#[cached(resource = "a")]
async fn by_value(by: impl By) -> String {
    by.column().into()
}

#[cached(resource = "a")]
async fn by_reference(by: &impl By) -> String {
    by.column().into()
}

#[cached(resource = "a")]
async fn by_many(first: Option<impl By>, rest: Vec<impl By>) -> String {
    let columns = first.iter().map(By::column).collect::<Vec<_>>();
    [columns, rest.iter().map(By::column).collect()]
        .concat()
        .join(",")
}

#[cached(resource = "a", key(by))]
async fn by_key(by: impl By) -> String {
    by.column().into()
}

#[cached(resource = "rows")]
async fn row(id: impl By) -> String {
    id.column().into()
}

#[cached(resource = "rows", op = "avatar")]
async fn avatar(id: impl By) -> String {
    id.column().into()
}

#[invalidates("rows", id = id)]
async fn change(id: &str) {
    let _ = id;
}

/// The type of an `impl Trait` argument tells calls apart as a named type parameter does
/// (cashews#38).
#[tokio::test]
async fn the_type_of_an_argument_tells_calls_apart() {
    let (name, mail) = (Name("x".into()), Mail("x".into()));
    TestCache::new()
        .scope(async {
            for _ in 0..2 {
                assert_eq!(by_value(name.clone()).await, "name");
                assert_eq!(by_value(mail.clone()).await, "mail");
                assert_eq!(by_reference(&name).await, "name");
                assert_eq!(by_reference(&mail).await, "mail");
                assert_eq!(
                    by_many(Some(name.clone()), vec![mail.clone()]).await,
                    "name,mail"
                );
                assert_eq!(
                    by_many(Some(mail.clone()), vec![name.clone()]).await,
                    "mail,name"
                );
                assert_eq!(by_many(None::<Mail>, vec![name.clone()]).await, "name");
                assert_eq!(by_many(None::<Name>, vec![mail.clone()]).await, "mail");
                assert_eq!(by_key(name.clone()).await, "name");
                assert_eq!(by_key(mail.clone()).await, "mail");
                assert_eq!(row(name.clone()).await, "name");
                assert_eq!(row(mail.clone()).await, "mail");
                assert_eq!(avatar(name.clone()).await, "name");
                assert_eq!(avatar(mail.clone()).await, "mail");
            }
            assert!(is_hit(status(by_value(name.clone())).await));
            assert!(is_hit(status(by_value(mail.clone())).await));
            assert!(
                is_hit(status(row(mail.clone())).await),
                "the last that was stored"
            );
            // The key of a row is still its id, which a write finds.
            change("x").await;
            assert!(!is_hit(status(row(mail.clone())).await));
        })
        .await;
}

trait Kind: Send + Sync {
    const NAME: &'static str;
}
struct A;
struct B;
impl Kind for A {
    const NAME: &'static str = "a";
}
impl Kind for B {
    const NAME: &'static str = "b";
}

#[cached(resource = "b", batch = ids)]
async fn many<K: Kind>(ids: &[u64]) -> HashMap<u64, String> {
    ids.iter().map(|id| (*id, K::NAME.to_owned())).collect()
}

#[cached(resource = "b", batch = ids)]
async fn sorted<K: Kind>(ids: Vec<u64>) -> Result<BTreeMap<u64, String>, String> {
    Ok(ids.into_iter().map(|id| (id, K::NAME.to_owned())).collect())
}

/// graphql-tools#5188.
#[tokio::test]
async fn a_generic_batch_keeps_its_types_apart() {
    TestCache::new()
        .scope(async {
            for _ in 0..2 {
                assert_eq!(many::<A>(&[1]).await[&1], "a");
                assert_eq!(many::<B>(&[1]).await[&1], "b");
                assert_eq!(sorted::<A>(vec![1]).await.expect("read")[&1], "a");
                assert_eq!(sorted::<B>(vec![1]).await.expect("read")[&1], "b");
            }
            many::<B>(&[1]).await;
            assert!(is_hit(status(many::<B>(&[1])).await));
        })
        .await;
}

trait Repository: Sync {
    fn name(&self) -> &'static str;
    fn cache(&self) -> &Cache;

    #[cached(resource = "defaults", cache = self.cache())]
    async fn get(&self, id: u64) -> String {
        format!("{} {id}", self.name())
    }

    #[cached(resource = "defaults", cache = self.cache())]
    async fn list(&self, limit: u64) -> String {
        format!("{} {limit}", self.name())
    }

    #[cached(resource = "defaults", batch = ids, cache = self.cache())]
    async fn get_many(&self, ids: &[u64]) -> HashMap<u64, String> {
        ids.iter()
            .map(|id| (*id, format!("{} {id}", self.name())))
            .collect()
    }
}

struct Users(Cache);
struct Teams(Cache);

impl Repository for Users {
    fn name(&self) -> &'static str {
        "user"
    }
    fn cache(&self) -> &Cache {
        &self.0
    }
}

impl Repository for Teams {
    fn name(&self) -> &'static str {
        "team"
    }
    fn cache(&self) -> &Cache {
        &self.0
    }
}

struct Service<K> {
    cache: Cache,
    kind: std::marker::PhantomData<K>,
}

impl<K: Kind> Service<K> {
    fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            kind: std::marker::PhantomData,
        }
    }

    #[cached(resource = "services", cache = self.cache)]
    async fn get(&self, id: u64) -> String {
        format!("{} {id}", K::NAME)
    }

    #[cached(resource = K::NAME, op = "list", cache = self.cache)]
    async fn list(&self) -> String {
        K::NAME.to_owned()
    }
}

/// One function, shared by several types, each of which has entries of its own.
#[tokio::test]
async fn the_type_of_self_tells_calls_apart() {
    let cache = TestCache::new();
    let (users, teams) = (Users(cache.clone()), Teams(cache.clone()));
    let (a, b) = (Service::<A>::new(&cache), Service::<B>::new(&cache));
    for _ in 0..3 {
        assert_eq!(users.get(1).await, "user 1");
        assert_eq!(teams.get(1).await, "team 1");
        assert_eq!(users.list(1).await, "user 1");
        assert_eq!(teams.list(1).await, "team 1");
        assert_eq!(users.get_many(&[1]).await[&1], "user 1");
        assert_eq!(teams.get_many(&[1]).await[&1], "team 1");
        assert_eq!(a.get(1).await, "a 1");
        assert_eq!(b.get(1).await, "b 1");
        assert_eq!(a.list().await, "a");
        assert_eq!(b.list().await, "b");
    }
    users.get(1).await;
    assert!(
        is_hit(status(users.get(1)).await),
        "the last that was stored"
    );
    teams.get(1).await;
    assert!(is_hit(status(teams.get(1)).await));
    assert!(
        is_hit(status(a.list()).await) && is_hit(status(b.list()).await),
        "each its resource"
    );
}

/// Two types may have one name.
#[tokio::test]
async fn types_of_one_name_do_not_share_an_entry() {
    #[cached(resource = "twins")]
    async fn read<K: Kind>(limit: u8) -> String {
        format!("{} {limit}", K::NAME)
    }
    let cache = TestCache::new();
    let first = cache.scope(async {
        struct Twin;
        impl Kind for Twin {
            const NAME: &'static str = "first";
        }
        read::<Twin>(1).await
    });
    assert_eq!(first.await, "first 1");
    let second = cache.scope(async {
        struct Twin;
        impl Kind for Twin {
            const NAME: &'static str = "second";
        }
        read::<Twin>(1).await
    });
    assert_eq!(second.await, "second 1");
}

#[derive(Serialize, Clone)]
struct Who {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<u64>,
}

#[cached(resource = "who")]
async fn who(id: Who) -> String {
    format!("{:?} {:?}", id.user, id.team)
}

#[derive(Serialize, Clone)]
struct Pair {
    x: u8,
}

#[derive(Serialize, Clone)]
struct Flat {
    #[serde(flatten)]
    first: Pair,
    #[serde(flatten)]
    second: Pair,
}

#[cached(resource = "flat")]
async fn flat(filter: &Flat) -> String {
    format!("{} {}", filter.first.x, filter.second.x)
}

/// serde#1732.
#[tokio::test]
async fn fields_that_are_left_out_keep_their_place() {
    TestCache::new()
        .scope(async {
            let user = Who {
                user: Some(1),
                team: None,
            };
            let team = Who {
                user: None,
                team: Some(1),
            };
            for _ in 0..2 {
                assert_eq!(who(user.clone()).await, "Some(1) None");
                assert_eq!(who(team.clone()).await, "None Some(1)");
            }
            assert!(is_hit(status(who(user)).await) && is_hit(status(who(team)).await));
            let of = |first, second| Flat {
                first: Pair { x: first },
                second: Pair { x: second },
            };
            assert_eq!(flat(&of(1, 2)).await, "1 2");
            assert_eq!(flat(&of(2, 1)).await, "2 1");
        })
        .await;
}

#[derive(Serialize, Debug, Clone)]
struct Scoped {
    id: u64,
    #[serde(skip)]
    tenant: u64,
}

/// The same without a text.
#[derive(Serialize, Clone)]
struct Silent {
    id: u64,
    #[serde(skip)]
    tenant: u64,
}

#[derive(Serialize, Hash, Clone)]
struct Hashed {
    id: u64,
    #[serde(skip)]
    tenant: u64,
}

#[derive(Serialize, Debug, Clone)]
enum Nested {
    Of { inner: Vec<Option<Scoped>> },
}

#[derive(Serialize, Debug, Clone)]
struct Page<T> {
    of: T,
    limit: u8,
}

#[derive(Serialize, Debug, Clone)]
#[serde(untagged)]
enum Alike {
    Id(u64),
    Rank(u64),
}

#[derive(Serialize, Debug, Clone)]
struct Flattened {
    #[serde(flatten)]
    scoped: Scoped,
}

#[derive(Debug, Clone)]
struct Lower(String);

impl Serialize for Lower {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_lowercase())
    }
}

mod lossy {
    pub(crate) const SCOPED: &str = "scoped";
    pub(crate) const SILENT: &str = "silent";
    pub(crate) const ALIKE: &str = "alike";
    pub(crate) const LOWER: &str = "lower";
    pub(crate) const BATCH: &str = "scoped-batch";
    pub(crate) const BOTH: &str = "scoped-both";
}

#[cached(resource = lossy::SCOPED)]
async fn scoped(id: Scoped) -> String {
    format!("{id:?}")
}

#[invalidates(lossy::SCOPED, id = id)]
async fn rescope(id: &Scoped) {
    let _ = id;
}

#[cached(resource = lossy::SCOPED, op = "list")]
async fn scoped_list(filter: &Nested, page: Page<Scoped>) -> String {
    format!("{filter:?} {page:?}")
}

#[cached(resource = lossy::SCOPED, op = "two")]
async fn scoped_two(first: &Scoped, second: &Scoped) -> String {
    format!("{} {}", first.tenant, second.tenant)
}

#[cached(resource = lossy::SCOPED, op = "any")]
async fn scoped_any(any: impl Serialize + std::fmt::Debug) -> String {
    format!("{any:?}")
}

#[cached(resource = lossy::SCOPED, op = "dyn", key(*any))]
async fn scoped_dyn(any: &(dyn Told + Sync)) -> String {
    any.told()
}

trait Told: erased::Erased {
    fn told(&self) -> String;
}

impl Told for Scoped {
    fn told(&self) -> String {
        format!("{self:?}")
    }
}

/// A trait object that serialises as what is behind it.
mod erased {
    pub(crate) trait Erased {
        fn id(&self) -> u64;
    }
    impl Erased for super::Scoped {
        fn id(&self) -> u64 {
            self.id
        }
    }
}

impl Serialize for dyn Told + Sync + '_ {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.id())
    }
}

impl std::fmt::Debug for dyn Told + Sync + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.told())
    }
}

#[cached(resource = lossy::SCOPED, op = "flat")]
async fn scoped_flat(filter: &Flattened) -> String {
    format!("{filter:?}")
}

#[cached(resource = lossy::SILENT)]
async fn silent(id: &Silent) -> u64 {
    id.tenant
}

#[cached(resource = lossy::SILENT, op = "hashed")]
async fn hashed(filter: &[Hashed]) -> u64 {
    filter[0].tenant
}

#[cached(resource = lossy::SILENT, op = "generic", skip(tell))]
async fn generic<T: Serialize>(any: T, tell: fn(&T) -> String) -> String {
    tell(&any)
}

#[cached(resource = lossy::ALIKE)]
async fn alike(id: Alike) -> String {
    format!("{id:?}")
}

#[cached(resource = lossy::LOWER)]
async fn lower(id: Lower) -> String {
    id.0
}

#[derive(Serialize, Debug, Clone, PartialEq, Eq, Hash)]
struct RowOf(u64, #[serde(skip)] u64);

#[cached(resource = lossy::BATCH, batch = ids)]
async fn rows_of(ids: &[RowOf]) -> HashMap<RowOf, u64> {
    ids.iter().map(|id| (id.clone(), id.1)).collect()
}

#[cached(resource = lossy::BOTH)]
async fn both(id: &RowOf) -> Option<String> {
    Some(id.1.to_string())
}

/// A field that is skipped, look-alike variants, a `Serialize` that rounds (cashews#38).
#[tokio::test]
async fn parts_left_out_of_a_key_tell_calls_apart() {
    let of = |tenant| Scoped { id: 1, tenant };
    let nested = |tenant| Nested::Of {
        inner: vec![None, Some(of(tenant))],
    };
    let page = |tenant| Page {
        of: of(tenant),
        limit: 1,
    };
    TestCache::new()
        .scope(async {
            for _ in 0..3 {
                for tenant in [1, 2] {
                    let expected = format!("{:?}", of(tenant));
                    assert_eq!(scoped(of(tenant)).await, expected);
                    let list = scoped_list(&nested(tenant), page(1)).await;
                    assert_eq!(list, format!("{:?} {:?}", nested(tenant), page(1)));
                    let list = scoped_list(&nested(1), page(tenant)).await;
                    assert_eq!(list, format!("{:?} {:?}", nested(1), page(tenant)));
                    assert_eq!(scoped_any(of(tenant)).await, expected);
                    assert_eq!(scoped_any(&of(tenant)).await, expected);
                    assert_eq!(scoped_dyn(&of(tenant)).await, expected);
                    let flat = Flattened { scoped: of(tenant) };
                    assert_eq!(scoped_flat(&flat).await, format!("{flat:?}"));
                    assert_eq!(scoped_two(&of(tenant), &of(3)).await, format!("{tenant} 3"));
                    assert_eq!(scoped_two(&of(3), &of(tenant)).await, format!("3 {tenant}"));
                    let silence = Silent { id: 1, tenant };
                    assert_eq!(silent(&silence).await, tenant);
                    assert_eq!(hashed(&[Hashed { id: 1, tenant }]).await, tenant);
                    let tell = |of: &Silent| of.tenant.to_string();
                    assert_eq!(generic(silence, tell).await, tenant.to_string());
                    let ids = [RowOf(1, tenant), RowOf(2, tenant)];
                    let rows = rows_of(&ids).await;
                    assert_eq!((rows[&ids[0]], rows[&ids[1]]), (tenant, tenant));
                    let twins = [RowOf(3, tenant), RowOf(3, tenant + 1)];
                    let rows = rows_of(&twins).await;
                    assert_eq!(
                        (rows[&twins[0]], rows[&twins[1]]),
                        (tenant, tenant + 1),
                        "in one batch"
                    );
                    assert_eq!(both(&RowOf(1, tenant)).await, Some(tenant.to_string()));
                }
                assert_eq!(alike(Alike::Id(1)).await, "Id(1)");
                assert_eq!(alike(Alike::Rank(1)).await, "Rank(1)");
                assert_eq!(lower(Lower("bob".into())).await, "bob");
                assert_eq!(lower(Lower("BOB".into())).await, "BOB");
            }
            // The last one that was stored is there, and a write by its key reaches it.
            assert!(is_hit(status(scoped(of(2))).await));
            assert!(is_hit(status(alike(Alike::Rank(1))).await));
            rescope(&of(1)).await;
            assert!(!is_hit(status(scoped(of(2))).await));
            // Nothing tells these apart.
            let silence = Silent { id: 1, tenant: 1 };
            assert_eq!(
                status(silent(&silence)).await,
                Status::Bypass(cache_runtime::BypassReason::InvalidKey)
            );
        })
        .await;
    let findings = cache_runtime::catalog().check();
    let of = |name: &str| {
        let name = format!("`{name}`");
        let mut found = findings.iter().map(|finding| finding.to_string());
        found.find(|text| text.contains("serialised") && text.contains(&name))
    };
    let text = of("scoped").expect("found");
    assert!(text.contains("the field `tenant`"), "{text}");
    assert!(of("silent").expect("found").contains("8 bytes"));
    assert!(of("who").is_none() && of("lower").is_none());
}

/// What was not left out keeps its keys and entries, which can be used by hand.
#[tokio::test]
async fn whole_values_are_there_by_hand() {
    use cache_runtime::Key;

    #[derive(Serialize, Debug, Clone)]
    struct ById {
        tenant: u32,
        name: String,
        by: External,
    }
    #[cached(resource = "by-hand", skip(cache), cache = cache)]
    async fn get(cache: &Cache, id: ById) -> String {
        id.name
    }
    #[cached(resource = "by-hand", op = "list", skip(cache), cache = cache)]
    async fn list(cache: &Cache, filter: &ById, limit: u32) -> String {
        format!("{} {limit}", filter.name)
    }
    let cache = TestCache::new();
    let by = External::User { id: 1 };
    let id = ById {
        tenant: 7,
        name: "a b".into(),
        by,
    };
    let key = Key::entity("by-hand", &id).expect("a key");
    assert_eq!(get(&cache, id.clone()).await, "a b");
    assert_eq!(cache.get::<String>(&key).await, Some("a b".into()));
    assert_eq!(list(&cache, &id, 3).await, "a b 3");
    let key = Key::args("by-hand", "list", &(&id, 3)).expect("a key");
    assert_eq!(cache.get::<String>(&key).await, Some("a b 3".into()));
    assert!(cache.delete(&key).await.expect("deleted"));
}

mod names {
    pub(crate) const EXTERNAL: &str = "external";
    pub(crate) const INTERNAL: &str = "internal";
    pub(crate) const ADJACENT: &str = "adjacent";
}

#[derive(Serialize, Clone, Debug)]
enum External {
    Everybody,
    User { id: u64 },
    Team(u64, String),
}

#[derive(Serialize, Clone, Debug)]
#[serde(tag = "kind")]
enum Internal {
    Everybody,
    User { id: u64 },
    Team { id: u64, part: String },
}

#[derive(Serialize, Clone, Debug)]
#[serde(tag = "kind", content = "of")]
enum Adjacent {
    Everybody,
    User { id: u64 },
    Team(u64, String),
}

#[cached(resource = names::EXTERNAL)]
async fn external(id: External) -> String {
    format!("{id:?}")
}

#[cached(resource = names::INTERNAL)]
async fn internal(id: Internal) -> String {
    format!("{id:?}")
}

#[cached(resource = names::ADJACENT)]
async fn adjacent(id: Adjacent) -> String {
    format!("{id:?}")
}

#[tokio::test]
async fn the_variants_of_an_enum_are_ids_of_one_form() {
    TestCache::new()
        .scope(async {
            for _ in 0..2 {
                for id in [
                    External::Everybody,
                    External::User { id: 1 },
                    External::Team(1, "x".into()),
                ] {
                    assert_eq!(external(id.clone()).await, format!("{id:?}"));
                }
                for id in [
                    Internal::Everybody,
                    Internal::User { id: 1 },
                    Internal::Team {
                        id: 1,
                        part: "x".into(),
                    },
                ] {
                    assert_eq!(internal(id.clone()).await, format!("{id:?}"));
                }
                for id in [
                    Adjacent::Everybody,
                    Adjacent::User { id: 1 },
                    Adjacent::Team(1, "x".into()),
                ] {
                    assert_eq!(adjacent(id.clone()).await, format!("{id:?}"));
                }
            }
            assert!(is_hit(status(external(External::Everybody)).await));
            assert!(is_hit(status(external(External::User { id: 1 })).await));
            assert!(is_hit(status(internal(Internal::Everybody)).await));
            assert!(is_hit(status(internal(Internal::User { id: 1 })).await));
            assert!(is_hit(status(adjacent(Adjacent::Everybody)).await));
            assert!(is_hit(
                status(adjacent(Adjacent::Team(1, "x".into()))).await
            ));
        })
        .await;
}

#[derive(Serialize, Clone)]
struct Tagged {
    tags: HashSet<u32>,
    limit: u8,
}

#[cached(resource = "tagged")]
async fn tagged(filter: &Tagged) -> usize {
    filter.tags.len() + usize::from(filter.limit)
}

#[cached(resource = "with-roles")]
async fn with_roles(roles: &HashSet<String>, limit: Option<HashSet<u8>>) -> usize {
    roles.len() + limit.map_or(0, |limit| limit.len())
}

#[tokio::test]
async fn equal_sets_as_parameters_are_one_key() {
    TestCache::new()
        .scope(async {
            let roles = |names: &mut dyn Iterator<Item = u32>| -> HashSet<String> {
                names.map(|name| name.to_string()).collect()
            };
            let limit = HashSet::from([1, 2]);
            assert_eq!(with_roles(&roles(&mut (0..50)), Some(limit)).await, 52);
            for _ in 0..5 {
                let limit = Some(HashSet::from([2, 1]));
                assert!(is_hit(
                    status(with_roles(&roles(&mut (0..50).rev()), limit)).await
                ));
            }
            let other = roles(&mut (1..51));
            assert!(!is_hit(
                status(with_roles(&other, Some(HashSet::from([1, 2])))).await
            ));
            assert!(!is_hit(
                status(with_roles(&roles(&mut (0..50)), None)).await
            ));
        })
        .await;
}

/// A set has no order, so its elements are sorted in the key.
#[tokio::test]
async fn equal_sets_inside_an_argument_are_one_key() {
    TestCache::new()
        .scope(async {
            let set = |tags: Vec<u32>| Tagged {
                tags: tags.into_iter().collect(),
                limit: 1,
            };
            assert_eq!(tagged(&set((0..50).collect())).await, 51);
            for _ in 0..5 {
                assert!(is_hit(status(tagged(&set((0..50).rev().collect()))).await));
            }
            assert!(!is_hit(status(tagged(&set((1..51).collect()))).await));
        })
        .await;
}

#[cached(resource = "long")]
async fn long(id: &str) -> usize {
    id.len()
}

/// The key of a long id is a beginning and a hash; a write finds it.
#[tokio::test]
async fn a_long_id_has_a_short_key() {
    #[invalidates("long", id = id)]
    async fn change(id: &str) {
        let _ = id;
    }
    TestCache::new()
        .scope(async {
            let (id, other) = ("x".repeat(100_000), format!("{}y", "x".repeat(99_999)));
            let (_, outcomes) = observe(long(&id)).await;
            assert!(outcomes[0].key.len() < 300, "{}", outcomes[0].key.len());
            assert!(is_hit(status(long(&id)).await) && !is_hit(status(long(&other)).await));
            change(&id).await;
            assert!(!is_hit(status(long(&id)).await) && is_hit(status(long(&other)).await));
        })
        .await;
}

macro_rules! reader {
    ($name:ident, $id:ident: $ty:ty, $body:block) => {
        #[cached(resource = "generated")]
        async fn $name($id: $ty) -> $ty $body
    };
}
reader!(from_a_macro, number: u8, { 7 });

/// A body and types that a macro hands over are in groups that nobody sees (tokio#4513).
#[tokio::test]
async fn a_block_from_a_macro_is_a_body() {
    TestCache::new()
        .scope(async {
            assert_eq!(from_a_macro(1).await, 7);
            assert!(is_hit(status(from_a_macro(1)).await));
        })
        .await;
}

#[cached(resource = "rows-of-maps", cache = cache, key(rows))]
async fn first_key(cache: &Cache, rows: Vec<HashMap<String, u8>>) -> Option<String> {
    rows.first()?.keys().next().cloned()
}

#[cached(resource = "rows-of-sets", cache = cache, key(rows))]
async fn first_member(cache: &Cache, rows: &[HashSet<u8>]) -> Option<u8> {
    rows.first()?.iter().next().copied()
}

/// The maps have no order; the list has.
#[tokio::test]
async fn a_list_of_maps_or_sets_keeps_its_order() {
    let cache = TestCache::new();
    let map = |key: &str| HashMap::from([(key.to_owned(), 1)]);
    let rows = vec![map("a"), map("b")];
    let back: Vec<_> = rows.iter().rev().cloned().collect();
    for _ in 0..2 {
        assert_eq!(first_key(&cache, rows.clone()).await.as_deref(), Some("a"));
        assert_eq!(first_key(&cache, back.clone()).await.as_deref(), Some("b"));
    }
    assert!(is_hit(status(first_key(&cache, rows)).await));
    let sets = [HashSet::from([1]), HashSet::from([2])];
    let back = [sets[1].clone(), sets[0].clone()];
    for _ in 0..2 {
        assert_eq!(first_member(&cache, &sets).await, Some(1));
        assert_eq!(first_member(&cache, &back).await, Some(2));
    }
}
