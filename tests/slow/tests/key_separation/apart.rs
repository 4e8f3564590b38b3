//! What two processes, two types of ids and two forms of values have to tell apart.

use std::collections::HashMap;

use cache_runtime::testing::TestCache;
use cache_runtime::{Cache, CacheConfig, Key, RedisConfig, Status, cached, invalidates};
use cache_tests::RedisServer;
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::json;

use super::{is_hit, status};

#[derive(Serialize, Clone, Debug, PartialEq, Eq, Hash)]
struct UserId(u64);

#[derive(Serialize, Clone, Debug, PartialEq, Eq, Hash)]
struct TeamId(u64);

trait Named: Serialize + Clone + Eq + std::hash::Hash + Send + Sync {
    const NAME: &'static str;
}

impl Named for UserId {
    const NAME: &'static str = "user";
}

impl Named for TeamId {
    const NAME: &'static str = "team";
}

#[cached(resource = "named", batch = ids)]
async fn names<K: Named>(ids: &[K]) -> HashMap<K, String> {
    ids.iter().map(|id| (id.clone(), K::NAME.into())).collect()
}

/// The type of the ids is in no value of the map.
#[tokio::test]
async fn a_batch_by_ids_of_any_type_keeps_their_types_apart() {
    TestCache::new()
        .scope(async {
            for _ in 0..2 {
                assert_eq!(names(&[UserId(1)]).await[&UserId(1)], "user");
                assert_eq!(names(&[TeamId(1)]).await[&TeamId(1)], "team");
            }
            assert!(is_hit(status(names(&[TeamId(1)])).await));
        })
        .await;
}

trait Repository: Sync {
    fn cache(&self) -> &Cache;
    fn name(&self) -> &'static str;

    #[cached(resource = "default", cache = self.cache())]
    async fn get(&self, id: u64) -> String {
        let _ = id;
        self.name().into()
    }
}

struct Users(Cache);
struct Teams(Cache);

impl Repository for Users {
    fn cache(&self) -> &Cache {
        &self.0
    }
    fn name(&self) -> &'static str {
        "user"
    }
}

impl Repository for Teams {
    fn cache(&self) -> &Cache {
        &self.0
    }
    fn name(&self) -> &'static str {
        "team"
    }
}

struct Service<K>(Cache, K);

impl<K: Named> Service<K> {
    #[cached(resource = "service", cache = self.0)]
    async fn get(&self, id: u64) -> String {
        let _ = (id, &self.1);
        K::NAME.into()
    }

    #[cached(resource = "service", batch = ids, cache = self.0)]
    async fn many(&self, ids: &[u64]) -> HashMap<u64, String> {
        ids.iter().map(|id| (*id, K::NAME.into())).collect()
    }
}

/// Two processes: in each, another type is the first that is called.
#[tokio::test]
async fn instances_of_a_function_are_told_apart_across_processes() {
    let server = RedisServer::start();
    let cache =
        || Cache::new(CacheConfig::default().redis(RedisConfig::at("127.0.0.1", server.port())));
    let (one, other) = (cache().await, cache().await);

    assert_eq!(Users(one.clone()).get(1).await, "user");
    assert_eq!(Teams(other.clone()).get(1).await, "team");
    assert_eq!(Users(other.clone()).get(1).await, "user");
    // The same type finds its entries in any process.
    assert!(is_hit(status(Users(one.clone()).get(1)).await));

    assert_eq!(Service(one.clone(), UserId(0)).get(1).await, "user");
    assert_eq!(Service(other.clone(), TeamId(0)).get(1).await, "team");
    let many = Service(one.clone(), UserId(0));
    assert_eq!(many.many(&[1]).await[&1], "user");
    // A batch of the same type finds the entry of the other function.
    let teams = Service(one, TeamId(0));
    assert_eq!(teams.get(1).await, "team");
    assert!(is_hit(status(teams.many(&[1])).await));
}

/// By hand, the entries of the process's own instance are meant.
#[tokio::test]
async fn entries_of_a_generic_service_are_used_by_hand() {
    let cache = TestCache::new();
    let service = Service(Cache::clone(&cache), UserId(0));
    let key = Key::entity("service", 1).expect("a key");
    assert_eq!(service.get(1).await, "user");
    let found: Option<String> = cache.get(&key).await;
    assert_eq!(found.as_deref(), Some("user"));
    let stored = cache.set(&key, &"by hand".to_owned(), 60).await;
    stored.expect("stored");
    assert_eq!(service.get(1).await, "by hand");
}

/// A database, which is left out of the keys. Its type says which one it is.
trait Database: Sync {
    const NAME: &'static str;
}

struct Main;
struct Archive;

impl Database for Main {
    const NAME: &'static str = "main";
}

impl Database for Archive {
    const NAME: &'static str = "archive";
}

#[cached(resource = "skipped", skip(db))]
async fn row<D: Database>(db: &D, id: u64) -> String {
    let _ = (db, id);
    D::NAME.into()
}

#[cached(resource = "skipped", batch = ids, skip(db))]
async fn rows<D: Database>(db: &D, ids: &[u64]) -> HashMap<u64, String> {
    let _ = db;
    ids.iter().map(|id| (*id, D::NAME.into())).collect()
}

fn name_of<D: Database>(_: &D) -> String {
    D::NAME.into()
}

#[cached(resource = "skipped-unnamed", skip(db))]
async fn unnamed(db: &impl Database, id: u64) -> String {
    let _ = id;
    name_of(db)
}

#[cached(resource = "skipped-unnamed", op = "of", skip(db))]
async fn unnamed_of(db: &impl Database, id: u64) -> String {
    let _ = id;
    name_of(db)
}

#[cached(resource = "skipped-unnamed", op = "list", skip(db))]
async fn unnamed_list(db: Option<&impl Database>, limit: u64) -> String {
    let _ = limit;
    db.map(name_of).unwrap_or_default()
}

#[cached(resource = "skipped-unnamed", op = "by", key(limit))]
async fn unnamed_by(db: &impl Database, limit: u64) -> String {
    let _ = limit;
    name_of(db)
}

#[cached(resource = "skipped-many", batch = ids, skip(db))]
async fn unnamed_rows(db: &impl Database, ids: Vec<u64>) -> HashMap<u64, String> {
    ids.into_iter().map(|id| (id, name_of(db))).collect()
}

#[cached(resource = "skipped-both", skip(db))]
async fn same_row<D: Database>(db: &D, id: u64) -> String {
    let _ = id;
    name_of(db)
}

#[cached(resource = "skipped-both", batch = ids, skip(db))]
async fn same_rows(db: &impl Database, ids: Vec<u64>) -> HashMap<u64, String> {
    ids.into_iter().map(|id| (id, name_of(db))).collect()
}

/// `&D` and `&impl Database` name the same type.
#[tokio::test]
async fn a_row_and_a_batch_share_their_entries_however_the_type_is_written() {
    TestCache::new()
        .scope(async {
            assert_eq!(same_rows(&Main, vec![1]).await[&1], "main");
            assert!(is_hit(status(same_row(&Main, 1)).await));
            assert_eq!(same_row(&Archive, 1).await, "archive");
            assert_eq!(same_rows(&Archive, vec![1]).await[&1], "archive");
            assert!(is_hit(status(same_rows(&Archive, vec![1])).await));
        })
        .await;
}

/// As frameworks hand over what a handler needs.
struct State<T>(T);

#[cached(resource = "in-patterns", skip(db))]
async fn in_a_pattern(State(db): State<impl Database>, id: u64) -> String {
    let _ = id;
    name_of(&db)
}

#[cached(resource = "in-patterns", op = "list", skip(db))]
async fn list_in_a_pattern((db, _): (&impl Database, u8), limit: u64) -> String {
    let _ = limit;
    name_of(db)
}

/// Two processes, of which each has another database.
#[tokio::test]
async fn a_type_in_a_pattern_tells_processes_apart() {
    let server = RedisServer::start();
    let cache =
        || Cache::new(CacheConfig::default().redis(RedisConfig::at("127.0.0.1", server.port())));
    let (one, other) = (cache().await, cache().await);
    for _ in 0..2 {
        assert_eq!(one.scope(in_a_pattern(State(Main), 1)).await, "main");
        let row = other.scope(in_a_pattern(State(Archive), 1)).await;
        assert_eq!(row, "archive");
        assert_eq!(one.scope(list_in_a_pattern((&Main, 1), 1)).await, "main");
        let list = other.scope(list_in_a_pattern((&Archive, 1), 1)).await;
        assert_eq!(list, "archive");
    }
}

/// What is left out of a key is the value, and not its type: it may lead to another database.
#[tokio::test]
async fn the_type_of_a_skipped_parameter_tells_calls_apart() {
    TestCache::new()
        .scope(async {
            for _ in 0..2 {
                assert_eq!(row(&Main, 1).await, "main");
                assert_eq!(row(&Archive, 1).await, "archive");
                assert_eq!(rows(&Main, &[1]).await[&1], "main");
                assert_eq!(rows(&Archive, &[1]).await[&1], "archive");
                assert_eq!(unnamed(&Main, 1).await, "main");
                assert_eq!(unnamed(&Archive, 1).await, "archive");
                assert_eq!(unnamed_of(&Main, 1).await, "main");
                assert_eq!(unnamed_of(&Archive, 1).await, "archive");
                assert_eq!(unnamed_list(Some(&Main), 1).await, "main");
                assert_eq!(unnamed_list(Some(&Archive), 1).await, "archive");
                assert_eq!(unnamed_by(&Main, 1).await, "main");
                assert_eq!(unnamed_by(&Archive, 1).await, "archive");
                assert_eq!(unnamed_rows(&Main, vec![1]).await[&1], "main");
                assert_eq!(unnamed_rows(&Archive, vec![1]).await[&1], "archive");
            }
            // A row and a batch of one type share their entries.
            rows(&Main, &[1]).await;
            assert!(is_hit(status(row(&Main, 1)).await));
            assert!(is_hit(status(unnamed_by(&Archive, 1)).await));
        })
        .await;
}

/// Two processes, of which each has another database. By hand, each means its own.
#[tokio::test]
async fn the_type_of_a_skipped_parameter_tells_processes_apart() {
    let server = RedisServer::start();
    let cache =
        || Cache::new(CacheConfig::default().redis(RedisConfig::at("127.0.0.1", server.port())));
    let (one, other) = (cache().await, cache().await);
    let by_hand = async |cache: &Cache| {
        let key = Key::entity("skipped", 1).expect("a key");
        cache.get::<String>(&key).await
    };
    for _ in 0..2 {
        assert_eq!(one.scope(row(&Main, 1)).await, "main");
        assert_eq!(by_hand(&one).await.as_deref(), Some("main"));
        assert_eq!(other.scope(row(&Archive, 1)).await, "archive");
        assert_eq!(by_hand(&other).await.as_deref(), Some("archive"));
        assert_eq!(by_hand(&one).await, None);
    }
}

#[cached(resource = "from-closures", skip(load))]
async fn loaded_by<F: AsyncFn(u64) -> String>(id: u64, load: F) -> String {
    load(id).await
}

/// Each place of a program makes a closure of another type, for the same rows.
#[tokio::test]
async fn closures_that_load_a_row_share_it() {
    async fn elsewhere() -> Status {
        status(loaded_by(1, async |id| format!("row {id}"))).await
    }
    TestCache::new()
        .scope(async {
            assert_eq!(loaded_by(1, async |id| format!("row {id}")).await, "row 1");
            assert!(is_hit(elsewhere().await));
        })
        .await;
}

#[derive(Serialize, Clone, Debug)]
struct Setting {
    value: serde_json::Value,
    of: u64,
}

#[cached(resource = "settings")]
async fn setting(id: Setting) -> String {
    id.value.to_string()
}

/// A JSON value as a part of an id: a number and a text that looks like it.
#[tokio::test]
async fn a_number_and_its_text_in_a_json_value_are_two_ids() {
    TestCache::new()
        .scope(async {
            for value in [json!(1), json!("1"), json!(true), json!("true")] {
                let text = value.to_string();
                assert_eq!(setting(Setting { value, of: 2 }).await, text);
            }
        })
        .await;
}

#[cached(resource = "ordered", op = "list")]
async fn ordered(by: IndexMap<String, bool>) -> Vec<String> {
    by.keys().cloned().collect()
}

/// `==` of such maps ignores the order, and a function need not.
#[tokio::test]
async fn the_order_of_a_map_that_keeps_it_is_in_the_key() {
    let by = |names: [&str; 2]| names.map(|name| (name.to_owned(), true)).into();
    TestCache::new()
        .scope(async {
            for _ in 0..2 {
                assert_eq!(ordered(by(["name", "age"])).await, ["name", "age"]);
                assert_eq!(ordered(by(["age", "name"])).await, ["age", "name"]);
            }
            assert!(is_hit(status(ordered(by(["age", "name"]))).await));
        })
        .await;
}

mod own {
    use serde::Serialize;

    /// Has the name of a type that needs no look, and is another one.
    #[derive(Serialize, Clone, Debug)]
    pub(super) struct String {
        pub(super) text: u64,
        #[serde(skip)]
        pub(super) tenant: u64,
    }
}

#[cached(resource = "own", op = "list")]
async fn of_a_type_with_a_known_name(of: own::String) -> u64 {
    of.text + of.tenant
}

#[derive(Serialize, Clone, Debug)]
enum Scope {
    Everybody,
    Tenant(#[serde(skip)] u64),
}

#[cached(resource = "own", op = "scope")]
async fn of_a_scope(scope: Scope) -> String {
    format!("{scope:?}")
}

#[tokio::test]
async fn parts_left_out_by_types_of_known_names_are_told_apart() {
    TestCache::new()
        .scope(async {
            for tenant in [1, 2, 1] {
                let of = own::String { text: 1, tenant };
                assert_eq!(of_a_type_with_a_known_name(of).await, 1 + tenant);
                let scope = Scope::Tenant(tenant);
                assert_eq!(of_a_scope(scope).await, format!("Tenant({tenant})"));
            }
            assert_eq!(of_a_scope(Scope::Everybody).await, "Everybody");
        })
        .await;
}

#[derive(Serialize, Clone, Debug)]
#[serde(untagged)]
enum AnyId {
    Id(u64),
    Slug(String),
    Pair(u64, u64),
}

#[cached(resource = "articles")]
async fn article(id: AnyId) -> String {
    format!("{id:?}")
}

#[invalidates("articles", id = id)]
async fn change_article(id: AnyId) {
    let _ = id;
}

/// Variants of several forms are ids of one type; those that look alike are told apart.
#[tokio::test]
async fn an_untagged_enum_of_numbers_and_texts_is_an_id() {
    let ids = || {
        let slug = |text: &str| AnyId::Slug(text.into());
        [AnyId::Id(1), slug("ada"), slug("1"), AnyId::Pair(1, 2)]
    };
    TestCache::new()
        .scope(async {
            for _ in 0..2 {
                for id in ids() {
                    let text = format!("{id:?}");
                    assert_eq!(article(id).await, text);
                }
            }
            for id in [AnyId::Slug("ada".into()), AnyId::Pair(1, 2)] {
                assert!(is_hit(status(article(id.clone())).await), "{id:?}");
                change_article(id.clone()).await;
                assert!(!is_hit(status(article(id.clone())).await), "{id:?}");
            }
        })
        .await;
}

#[derive(Serialize, Clone, Debug)]
struct Scoped {
    id: u64,
    #[serde(skip)]
    tenant: u64,
}

/// By hand, an id of which a part is not in the key is refused: it could be another one.
#[tokio::test]
async fn by_hand_an_id_that_leaves_something_out_goes_past_the_cache() {
    let cache = TestCache::new();
    let key = |tenant| Key::entity("scoped", Scoped { id: 1, tenant }).expect("a key");
    for tenant in [1, 2] {
        let id = Scoped { id: 1, tenant };
        let load = async || Ok::<_, ()>(id.tenant);
        assert_eq!(cache.get_or_load(key(tenant), 60, load).await, Ok(tenant));
    }
    assert_eq!(cache.get::<u64>(&key(1)).await, None);
}

#[derive(Serialize, Clone, Debug, PartialEq, Eq, Hash)]
struct RowOf(u64, #[serde(skip)] u64);

#[cached(resource = "row-of")]
async fn row_of(id: RowOf) -> Option<String> {
    Some(format!("{id:?}"))
}

macro_rules! many {
    ($name:ident, $ids:ty) => {
        #[cached(resource = "row-of", batch = ids)]
        async fn $name(ids: $ids) -> HashMap<RowOf, String> {
            ids.iter()
                .map(|id| (id.clone(), format!("{id:?}")))
                .collect()
        }
    };
}
many!(rows_of, &[RowOf]);

/// A reader of one row and one of many share the entry of an id that is told apart.
#[tokio::test]
async fn readers_of_one_and_of_many_share_what_is_told_apart() {
    TestCache::new()
        .scope(async {
            let id = RowOf(1, 7);
            assert_eq!(row_of(id.clone()).await.as_deref(), Some("RowOf(1, 7)"));
            assert!(is_hit(status(rows_of(std::slice::from_ref(&id))).await));
            let other = RowOf(1, 8);
            assert_eq!(
                rows_of(std::slice::from_ref(&other)).await[&other],
                "RowOf(1, 8)"
            );
            assert!(is_hit(status(row_of(other)).await));
        })
        .await;
}

mod named_as_in_std {
    //! Types with the names of standard ones, which the macros go by.

    use std::borrow::Cow;
    use std::collections::HashMap;

    use cache_runtime::testing::TestCache;
    use cache_runtime::{BypassReason, Cache, Status, cached};
    use serde::Serialize;

    use super::{is_hit, status};

    #[derive(Serialize, Clone)]
    struct String {
        id: u8,
        #[serde(skip)]
        tenant: u8,
    }

    #[derive(Serialize, Clone)]
    struct Option<T>(T);

    #[derive(Serialize, Clone, PartialEq, Eq, Hash)]
    struct Arc<T> {
        id: T,
        #[serde(skip)]
        tenant: u8,
    }

    #[cached(resource = "named-as-in-std")]
    async fn row(id: String) -> u8 {
        id.tenant
    }

    #[cached(resource = "named-as-in-std", op = "list")]
    async fn list(of: &[(u8, std::option::Option<String>)]) -> u8 {
        of.iter()
            .filter_map(|(_, of)| of.as_ref())
            .map(|of| of.tenant)
            .sum()
    }

    #[cached(resource = "named-as-in-std", op = "nested")]
    async fn nested(of: Vec<Arc<u8>>) -> u8 {
        of.iter().map(|of| of.tenant).sum()
    }

    #[cached(resource = "named-as-in-std-rows", batch = ids)]
    async fn rows(ids: &[Arc<u8>]) -> HashMap<Arc<u8>, u8> {
        ids.iter().map(|id| (id.clone(), id.tenant)).collect()
    }

    /// One that leaves nothing out is an argument as any other.
    #[cached(resource = "named-as-in-std", op = "whole")]
    async fn whole(of: Option<u8>, cache: std::option::Option<u8>) -> u8 {
        of.0 + cache.unwrap_or_default()
    }

    #[tokio::test]
    async fn types_that_are_only_named_as_in_std_are_told_apart() {
        TestCache::new()
            .scope(async {
                let unkeyable = Status::Bypass(BypassReason::InvalidKey);
                for tenant in [1, 2, 1, 2] {
                    let id = String { id: 1, tenant };
                    assert_eq!(status(row(id.clone())).await, unkeyable);
                    assert_eq!(row(id.clone()).await, tenant);
                    assert_eq!(list(&[(1, Some(id))]).await, tenant);
                    let id = Arc { id: 1, tenant };
                    assert_eq!(nested(vec![id.clone()]).await, tenant);
                    assert_eq!(rows(std::slice::from_ref(&id)).await[&id], tenant);
                }
                assert_eq!(whole(Option(7), Some(1)).await, 8);
                assert!(is_hit(status(whole(Option(7), Some(1))).await));
                assert_eq!(whole(Option(8), None).await, 8);
            })
            .await;
    }

    #[cached(resource = "of-std", cache = cache, skip(cache))]
    async fn of_std(
        cache: &Cache,
        first: HashMap<&str, [u8; 2]>,
        second: &(u8, Vec<char>),
    ) -> usize {
        first.len() + second.1.len()
    }

    #[cached(resource = "of-std-rows", cache = cache, skip(cache))]
    async fn row_of_std(cache: &Cache, id: Cow<'_, str>) -> usize {
        id.len()
    }

    #[cached(resource = "of-std", op = "borrowed", cache = cache, skip(cache))]
    async fn borrowed(cache: &Cache, of: Cow<'_, [u8]>, all: Vec<Cow<'static, str>>) -> usize {
        of.len() + all.len()
    }

    /// Newer compilers write lifetimes in the names of types.
    #[tokio::test]
    async fn borrowed_types_of_std_are_known_without_their_debug() {
        let cache = TestCache::new();
        let row = || status(row_of_std(&cache, "a".into()));
        row().await;
        assert!(is_hit(row().await));
        let of = Cow::Borrowed(&[1][..]);
        let call = || status(borrowed(&cache, of.clone(), vec!["a".into()]));
        call().await;
        assert!(is_hit(call().await));
    }

    #[tokio::test]
    async fn types_of_std_are_known_without_their_debug() {
        let cache = TestCache::new();
        let second = (1, vec!['a']);
        let call = || status(of_std(&cache, HashMap::from([("a", [1, 2])]), &second));
        call().await;
        assert!(is_hit(call().await));
    }
}

/// A form for people, which leaves the tenant out, and one for programs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct ForPeople {
    id: u64,
    tenant: u64,
}

/// The other way round.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct ForPrograms {
    id: u64,
    tenant: u64,
}

fn form<S: serde::Serializer>(id: &u64, tenant: Option<&u64>, to: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeStruct as _;
    let mut form = to.serialize_struct("Form", 1 + usize::from(tenant.is_some()))?;
    form.serialize_field("id", id)?;
    if let Some(tenant) = tenant {
        form.serialize_field("tenant", tenant)?;
    }
    form.end()
}

impl Serialize for ForPeople {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let tenant = (!to.is_human_readable()).then_some(&self.tenant);
        form(&self.id, tenant, to)
    }
}

impl Serialize for ForPrograms {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let tenant = to.is_human_readable().then_some(&self.tenant);
        form(&self.id, tenant, to)
    }
}

macro_rules! forms {
    ($($row:ident $rows:ident $list:ident: $type:ident in $resource:literal;)*) => {$(
        #[cached(resource = $resource)]
        async fn $row(id: &$type) -> u64 {
            id.tenant
        }

        #[cached(resource = $resource, op = "list")]
        async fn $list(of: &$type) -> u64 {
            of.tenant
        }

        #[cached(resource = $resource, batch = ids)]
        async fn $rows(ids: &[$type]) -> HashMap<$type, u64> {
            ids.iter().map(|id| (id.clone(), id.tenant)).collect()
        }
    )*};
}
forms! {
    for_people many_for_people list_for_people: ForPeople in "for-people";
    for_programs many_for_programs list_for_programs: ForPrograms in "for-programs";
}

/// An id is written for people and an argument for programs, and each is examined as it is written.
#[tokio::test]
async fn a_part_that_one_of_two_forms_leaves_out_tells_calls_apart() {
    let cache = TestCache::new();
    cache
        .scope(async {
            for tenant in [1, 2, 1, 2] {
                let id = ForPeople { id: 1, tenant };
                assert_eq!(for_people(&id).await, tenant);
                assert_eq!(list_for_people(&id).await, tenant);
                assert_eq!(
                    many_for_people(std::slice::from_ref(&id)).await[&id],
                    tenant
                );
                let id = ForPrograms { id: 1, tenant };
                assert_eq!(for_programs(&id).await, tenant);
                assert_eq!(list_for_programs(&id).await, tenant);
                assert_eq!(
                    many_for_programs(std::slice::from_ref(&id)).await[&id],
                    tenant
                );
            }
            let whole = ForPrograms { id: 1, tenant: 2 };
            assert!(is_hit(status(for_programs(&whole)).await));
        })
        .await;
    // By hand, too, one id would be another one.
    for tenant in [1, 2] {
        let key = Key::entity("for-people", ForPeople { id: 1, tenant }).expect("a key");
        let load = async || Ok::<_, ()>(tenant);
        assert_eq!(cache.get_or_load(key, 60, load).await, Ok(tenant));
    }
}
