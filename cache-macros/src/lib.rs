//! The attribute macros of `cache-runtime`, which re-exports them: depend on that crate.
//!
//! Each reads the signature of one function and writes one short call into its body; all behaviour
//! is in `cache-runtime`. A mistake never takes the function away: all mistakes are reported
//! together, followed by the function as it was written.

// Mistakes.
mod defaults;
mod diag;
mod tokens;
// Options and function as written.
mod args;
mod item;
// What they mean together.
mod check;
mod model;
// The function that comes out, and what the map says of it.
mod expand;
mod words;

#[cfg(test)]
mod testing;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as TokenStream2;

use crate::diag::Errors;
use crate::item::Item;

/// Answers a call from the cache, or runs the function and keeps what it returns.
///
/// ```
/// use cache_runtime::cached;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)] pub struct User { id: i64 }
/// # pub struct DbError;
/// # pub struct UserService { tenant: i64 }
///
/// impl UserService {
///     /// Kept under `users:1` for five minutes.
///     #[cached(resource = "users", ttl = 300)]
///     pub async fn get(&self, id: i64) -> Result<Option<User>, DbError> {
///         Ok(Some(User { id }))
///     }
///
///     /// Kept under `users:list:<hash of skip and limit>` for the default time, `CACHE_TTL`.
///     #[cached(resource = "users")]
///     pub async fn list(&self, skip: u32, limit: u32) -> Result<Vec<User>, DbError> {
///         Ok(Vec::new())
///     }
/// }
/// # fn main() {}
/// ```
///
/// It goes on any `async fn` with a body: free functions, methods with any `self`, methods of traits and
/// their implementations, also under `#[async_trait]`; generic or not, with borrowed arguments and with
/// patterns as parameters; and on functions that return `impl Future<Output = T>` or a boxed future. The
/// function stays what it was, with its documentation, visibility and other attributes.
///
/// # What is returned
///
/// `T`, `Option<T>`, `Result<T, E>` or `Result<Option<T>, E>`, also by way of type aliases, and
/// `Arc<T>` in place of `T`, also `Arc<str>` and `Arc<[T]>`. `T` is `Clone + Send + Sync + 'static` and
/// implements serde's `Serialize` and `Deserialize`. `E` is any type: an error is returned and never kept.
/// `None` is kept like a value, but shorter: see `none_ttl`. `Option<Result<T, E>>` is refused: an error in
/// there would be a value.
///
/// # What is in the key
///
/// | attribute and parameters | key |
/// |---|---|
/// | no `op`; the only parameter is named `id`, or `id = ..` is given | `users:<id>` |
/// | `op = "avatar"`; the only parameter is named `id`, or `id = ..` is given | `users:avatar:<id>` |
/// | anything else | `users:<op>:<hash of the parameters>` |
///
/// All parameters are in the key, and so are the function's own type and const parameters where the
/// key is a hash. **`self` is not.** If two values of the service give different answers to the same
/// arguments, say what tells them apart, with `include(self.tenant)` or in `id`:
/// otherwise one is given what belongs to the other.
///
/// A parameter `_` is not in the key, since the body has no means to read it. An argument in a key
/// implements `Serialize`. Of a float, `-0.0` and `0.0` are the same, and a call with NaN bypasses
/// the cache. A `HashSet` has another order each time: take a `BTreeSet`.
///
/// A function with a parameter that is a transaction, or a connection or an executor that may be in one, is refused:
/// what it reads may never be committed. See `autocommit`.
///
/// # By hand
///
/// `cache_runtime::key_of(users.get(1))` is the key of a call, `bypass(users.get(1)).await` runs it without the
/// cache, `refresh(users.get(1)).await` loads anew and stores, and `cache_runtime::map()` lists all annotated
/// functions.
///
/// # Options
///
/// ## `resource` — required
///
/// What the data is, and what [`#[invalidates]`](macro@invalidates) names: a string of lower-case
/// letters, digits, `-` and `_`, or the path of a constant.
///
/// ```
/// # use cache_runtime::cached;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)] pub struct Row;
/// # pub struct Crud<T>(T);
/// pub trait Entity {
///     const RESOURCE: &'static str;
/// }
///
/// impl<T: Entity> Crud<T> {
///     #[cached(resource = T::RESOURCE)]
///     pub async fn get(&self, id: i64) -> Option<Row> {
/// #       let _ = id;
///         None
///     }
/// }
/// # fn main() {}
/// ```
///
/// ## `ttl`
///
/// For how long a value is served: seconds, a string such as `"90s"`, `"5m"`, `"1h30m"`, `"1d"` or
/// `"500ms"`, or an expression (a whole number of seconds or a `Duration`) that may use `self` and the
/// parameters. By default `CACHE_TTL`; `CACHE_TTL_<RESOURCE>` wins over the attribute.
///
/// ```
/// # use cache_runtime::cached;
/// # use std::time::Duration;
/// # struct Prices { fresh_for: Duration }
/// # impl Prices {
/// #[cached(resource = "prices", ttl = self.fresh_for)]
/// async fn price(&self, id: i64) -> u64 {
/// #   let _ = id;
///     42
/// }
///
/// #[cached(resource = "prices", ttl = "1h30m")]
/// async fn average(&self) -> u64 {
///     42
/// }
/// # }
/// # fn main() {}
/// ```
///
/// ## `op`
///
/// Names the operation in the key of what is derived from a resource; by default the function's
/// name. Segments are joined by `:`. An op belongs to one function.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "users", op = "count:by-country")]
/// async fn count_by_country(country: &str) -> u64 {
/// #   let _ = country;
///     7
/// }
/// # fn main() {}
/// ```
///
/// ## `id`
///
/// The primary identity of the one row that is returned, where it is not simply a parameter named
/// `id`. Each other parameter is in the expression or skipped. A text that names a parameter is refused.
///
/// ```
/// # use cache_runtime::cached;
/// # struct Users { tenant: i64 }
/// # impl Users {
/// /// Kept under `users:7,1`.
/// #[cached(resource = "users", id = (self.tenant, user_id))]
/// async fn get(&self, user_id: i64) -> Option<String> {
/// #   let _ = user_id;
///     None
/// }
/// # }
/// # fn main() {}
/// ```
///
/// ## `skip(..)`, `include(..)`, `key(..)`
///
/// `skip` leaves parameters out of the key, `include` adds expressions to it, and `key` replaces the
/// parameters by the expressions it lists. They are expressions and not texts of a language of their own:
/// `key(id)`, where others write `key = "#id"`. A literal among them is refused, for it is the same for every call.
///
/// ```
/// # use cache_runtime::cached;
/// # pub struct Pool;
/// # pub struct Users { tenant: i64 }
/// # impl Users {
/// #[cached(resource = "users", skip(pool), include(self.tenant))]
/// async fn list(&self, pool: &Pool, skip: u32, limit: u32) -> Vec<String> {
/// #   let _ = (pool, skip, limit);
///     Vec::new()
/// }
///
/// #[cached(resource = "users", key(name.to_lowercase()))]
/// async fn find(&self, pool: &Pool, name: &str) -> Option<String> {
/// #   let _ = (pool, name);
///     None
/// }
/// # }
/// # fn main() {}
/// ```
///
/// ## `autocommit`
///
/// `autocommit(executor)`, or several names: a parameter that is left out of the key like one in `skip`, and of which no
/// caller passes a transaction, nor a connection that is in one. Without it a parameter is refused whose type or trait
/// bound is named like a transaction, a connection or an executor of SQLx, SeaORM, Diesel or a driver (`Transaction`,
/// `&mut PgConnection`, `PoolConnection`, `impl PgExecutor<'_>`, `C: ConnectionTrait`), and a `&mut` that is not in the key, but for
/// types such as `String` and `Vec`.
/// A pool by reference is allowed, with `skip(pool)`. Nothing checks what callers pass.
///
/// ```
/// # use cache_runtime::cached;
/// # pub trait Executor {}
/// #[cached(resource = "users", autocommit(executor))]
/// async fn name(executor: impl Executor, id: i64) -> Option<String> {
/// #   let _ = (executor, id);
///     None
/// }
/// # fn main() {}
/// ```
///
/// ## `none_ttl`, `cache_none`
///
/// For how long `None` is served: written as `ttl` is, by default `ttl`, but no more than 30
/// seconds. With `cache_none = false` it is not kept.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "users", ttl = "1h", none_ttl = 5)]
/// async fn get(id: i64) -> Option<String> {
/// #   let _ = id;
///     None
/// }
///
/// #[cached(resource = "sessions", ttl = "1h", cache_none = false)]
/// async fn session(id: &str) -> Option<String> {
/// #   let _ = id;
///     None
/// }
/// # fn main() {}
/// ```
///
/// ## `stale_if_error`, `swr`, `timeout`
///
/// What is served while the source is slow or fails: an entry past its time that has not been invalidated. Each is a
/// time, written as `ttl` is, and off unless said.
///
/// * `stale_if_error = 600`: for 600 seconds past its time an entry is served in place of an `Err`. The default is the
///   configuration's (`CACHE_STALE_IF_ERROR`), which is off.
/// * `swr = 60` (stale-while-revalidate): for 60 seconds past its time an entry is served at once, while one caller's
///   run of the function goes on in the background. `swr` by itself takes the configuration's time (`CACHE_SWR`).
/// * `timeout = "2s"`: a load that takes longer is answered by the entry past its time, if there is one, and goes on.
///   Without one, or at the first load, callers wait. `timeout` by itself takes the configuration's
///   (`CACHE_LOAD_TIMEOUT_MS`). How long an entry is kept past its time is what the other two say.
///
/// With `swr` and `timeout` the function may run on when its caller has been answered. So it owns what it uses: `self`
/// and arguments behind `&` are cloned when it runs (not for a hit), and its future is `Send`. What runs on has none of
/// its caller's task-local values.
///
/// ```
/// # use cache_runtime::cached;
/// #[derive(Clone)]
/// struct Rates; // holds a client, which is cheap to clone
///
/// impl Rates {
///     #[cached(resource = "rates", ttl = 60, swr = "5m", stale_if_error = "1h", timeout = "2s")]
///     async fn rate(&self, currency: &str) -> Result<f64, std::io::Error> {
///         self.fetch(currency).await
///     }
/// #   async fn fetch(&self, currency: &str) -> Result<f64, std::io::Error> {
/// #       Ok(currency.len() as f64)
/// #   }
/// }
/// # fn main() {}
/// ```
///
/// ## `audit`
///
/// `audit = 0.01` checks one in a hundred hits: the body runs as well, its value is what the caller gets, and it is
/// compared with the entry. What differs is looked at again before it counts as stale; see `Cache::audit`. The default
/// is the configuration's (`CACHE_AUDIT`), which is off; `audit = 0` leaves the function out. Beside `batch` each hit may
/// be checked.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "prices", ttl = 60, audit = 0.01)]
/// async fn price(id: i64) -> Option<u64> {
/// #   let _ = id;
///     None
/// }
/// # fn main() {}
/// ```
///
/// ## `early`, `jitter`
///
/// Against many loads at the same time. With `early = 1.0`, or `early` by itself, one of many callers loads anew
/// shortly before an entry's time is over, while the others are served; the more likely, the longer a load takes
/// (XFetch). `jitter = 0.1` shortens each time to live by up to a tenth, at random. Their defaults are the
/// configuration's (`CACHE_EARLY`, `CACHE_JITTER`), which are off.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "reports", ttl = "1h", early, jitter = 0.1)]
/// async fn report(month: u32) -> Vec<u64> {
/// #   let _ = month;
///     Vec::new()
/// }
/// # fn main() {}
/// ```
///
/// ## `context`
///
/// The name by which the body knows its `LoadContext`: where only the body can tell how long a value is good for
/// (`load.ttl(max_age)`), that it is not to be stored (`load.no_store()`), or on which rows and tags it depends beside
/// those that the attribute names (`load.depends_on("authors", author_id)`, `load.tag("team:7")`).
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "feeds", context = load)]
/// async fn feed(url: &str) -> String {
///     let (body, max_age) = (url.to_owned(), 90); // fetched
///     load.ttl(max_age);
///     body
/// }
/// # fn main() {}
/// ```
///
/// ## `max_loads`
///
/// How many runs of the function there may be at once in this process (a *bulkhead*): after a whole resource has been
/// invalidated, all its entries are loaded again, and most databases bear only so many at a time. The others wait for their
/// turn; where `stale_if_error` has something to serve, they are answered with that instead. A call inside another load does
/// not wait, since that load has its turn.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "reports", max_loads = 32)]
/// async fn report(month: u32) -> Vec<u64> {
/// #   let _ = month;
///     Vec::new()
/// }
/// # fn main() {}
/// ```
///
/// ## `include_context(..)`
///
/// Adds to the key what the caller has set around the call, with `Cache::with_key("tenant", id, ..)`. A call without it
/// goes past the cache and is reported, so that one omission can't show one tenant's rows to another. To say it for all
/// functions of a resource, see `CacheConfig::resource`.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "orders", op = "open", include_context("tenant"))]
/// async fn open_orders() -> Vec<String> {
///     Vec::new()
/// }
/// # fn main() {}
/// ```
///
/// ## `memo`
///
/// Within one request a second call with the same arguments is answered with what the first one got, without asking
/// anybody. A request is what runs in `Cache::request`, or behind the layer of a framework. After a write of the request
/// nothing from before is remembered.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "permissions", memo)]
/// async fn may_edit(user: i64, article: i64) -> bool {
/// #   let _ = (user, article);
///     true
/// }
/// # fn main() {}
/// ```
///
/// ## Functions that are not `async`
///
/// A plain `fn` can be cached where the process's own memory is the cache, without Redis. A hit takes no longer than a
/// look into that memory; one thread runs the function, and others that need the same value block until it has. With Redis
/// on, the function simply runs, which is reported once, since it can't wait for an answer.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "templates", ttl = "1h")]
/// fn template(name: &str) -> String {
///     format!("<p>{name}</p>")
/// }
/// # fn main() {}
/// ```
///
/// ## `tags(..)`, `depends(..)`
///
/// What else makes the entry stale. `tags` adds marks that
/// [`#[invalidates(tags(..))]`](macro@invalidates) and `Cache::invalidate_tag` name: strings with
/// expressions in braces, or expressions that implement `Display`. One of an `Option` that is `None` is no
/// tag. `depends` adds resources: whatever is written to one of them, be it a single row, reaches the
/// entry. With an `id` behind it, only writes of that row and of the whole resource do.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "users", tags("team:{team_id}"), depends("teams"))]
/// async fn members(team_id: i64) -> Vec<String> {
/// #   let _ = team_id;
///     Vec::new() // joins users and teams
/// }
///
/// #[cached(resource = "articles", depends("authors", id = author_id))]
/// async fn article(id: i64, author_id: i64) -> Option<String> {
/// #   let _ = (id, author_id);
///     None // an article with its author's name
/// }
/// # fn main() {}
/// ```
///
/// ## `when`, `unless`
///
/// `when` is asked before the call, and knows the parameters: where it is false, the call goes past the
/// cache. `unless` is asked for a value that was loaded, the one inside `Ok` and `Some`: where it is
/// true, the value is returned and not stored.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "users", when = skip < 1000, unless = |users| users.is_empty())]
/// async fn list(skip: u32, limit: u32) -> Vec<String> {
/// #   let _ = (skip, limit);
///     Vec::new()
/// }
/// # fn main() {}
/// ```
///
/// ## `batch`
///
/// The parameter that holds many ids, a slice or a `Vec`. The function returns a `HashMap` or a
/// `BTreeMap` from ids to values, or a `Result` of one. It is called with the ids that are not cached,
/// once, or not at all; each value is stored under its own `users:<id>`, which it shares with the
/// function that reads one row, and an id that is not in the map is stored as absent. Other parameters
/// are skipped.
///
/// ```
/// # use cache_runtime::cached;
/// # use std::collections::HashMap;
/// # pub struct DbError;
/// #[cached(resource = "users", batch = ids)]
/// async fn get_many(ids: &[i64]) -> Result<HashMap<i64, String>, DbError> {
///     // SELECT .. WHERE id IN (..)
///     Ok(ids.iter().map(|id| (*id, format!("user {id}"))).collect())
/// }
/// # fn main() {}
/// ```
///
/// All must be of the type that the function for one row stores. If somebody else is loading some of
/// the ids, and there are others to load, this call loads all of them and waits for nobody.
///
/// ## `shared`
///
/// The keys of an `op`, or of a resource's entities, belong to one function: another that claims them
/// is reported and runs without the cache. With `shared` on both they use the same entries; whoever
/// writes it vouches that they return the same for the same arguments.
///
/// ```
/// # use cache_runtime::cached;
/// # mod v1 { use super::*;
/// #[cached(resource = "users", shared)]
/// pub async fn get(id: i64) -> Option<String> {
/// #   let _ = id;
///     None
/// }
/// # } mod v2 { use super::*;
///
/// #[cached(resource = "users", shared)]
/// pub async fn find(id: i64) -> Option<String> {
/// #   let _ = id;
///     None
/// }
/// # }
/// # fn main() {}
/// ```
///
/// ## `strict`, `local`, `local_ttl`
///
/// With Redis on and `CACHE_LOCAL_MB` set, what was read from Redis is kept in the process as well, and follows the
/// writes of other processes as Redis tells of them: within its push's latency, and within
/// `CACHE_LOCAL_MAX_STALENESS` (1 s) however the network misbehaves. Writes of the own process are seen at once. A
/// function whose result may never be older than that of a write that has returned anywhere is `strict`: it asks Redis
/// each time. With `local = false` nothing of it is kept in the process, for values that are large and rarely read twice;
/// with `local_ttl = ..`, no copy is served for longer. Without Redis, the process's memory is the cache itself, and
/// these have no effect.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "balances", strict)]
/// async fn balance(account: i64) -> Option<i64> {
/// #   let _ = account;
///     None
/// }
///
/// #[cached(resource = "reports", local = false)]
/// async fn report(year: i32) -> String {
/// #   let _ = year;
///     String::new()
/// }
///
/// #[cached(resource = "prices", ttl = "1h", local_ttl = 5)]
/// async fn price(id: i64) -> Option<i64> {
/// #   let _ = id;
///     None
/// }
/// # fn main() {}
/// ```
///
/// ## `in_process`
///
/// Kept in this process only and never sent to Redis, be it a secret or what no other process could use. It is invalidated as
/// all else is, also by other processes, of which Redis tells. It needs `CACHE_LOCAL_MB` where Redis is on; without,
/// the function simply runs, which is reported once.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "credentials", op = "token", ttl = "10m", in_process)]
/// async fn token(account: i64) -> String {
/// #   let _ = account;
///     String::new()
/// }
/// # fn main() {}
/// ```
///
/// ## `codec`
///
/// How values are encoded in Redis: `"json"`, the default, which people can read; `"msgpack"`, with
/// cache-runtime's feature of that name; `"postcard"`, with its feature, the smallest and fastest,
/// which has no names of fields, and reads no `flatten`, untagged enums or values of any type; `"json+zstd"`, with
/// the feature `zstd`, JSON that is compressed in Redis where that makes it smaller. `CACHE_COMPRESS_OVER` compresses
/// all values over a size.
///
/// What a codec would lose is not stored: infinity in JSON, `Some(None)` in JSON and MessagePack, a field under
/// `#[serde(skip)]`, a variant that serde takes for another. The log names the function, the field and a remedy once.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "prices", codec = "postcard")]
/// async fn history(id: i64) -> Vec<f64> {
/// #   let _ = id;
///     Vec::new()
/// }
/// # fn main() {}
/// ```
///
/// ## `version`
///
/// A whole number to count up when entries of an older build must not be read, for instance because
/// a field means something else now. A type with another name or another shape is a miss by itself, in every codec: the
/// fields and variants that its `Deserialize` asks for, in all parts, are hashed into each entry. They are found by
/// reading the type once from made-up values, which does not show all; these changes need a `version`:
///
/// - of optional fields in what is flattened and in untagged enums, and of fields in internally tagged enums;
/// - of what a `with = ..`, `try_from` or hand-written `Deserialize` makes of the same text or number;
/// - of what stands behind the first part of a tuple that accepts no made-up value, such as a checksum.
///
/// ```
/// # use cache_runtime::cached;
/// #[cached(resource = "prices", version = 2)] // 1 was in euros, 2 is in cents
/// async fn price(id: i64) -> u64 {
/// #   let _ = id;
///     4200
/// }
/// # fn main() {}
/// ```
///
/// ## `cache`
///
/// An expression that gives the `Cache` to use in place of the process-wide one.
///
/// ```
/// # use cache_runtime::{Cache, cached};
/// struct Users {
///     cache: Cache,
/// }
///
/// impl Users {
///     #[cached(resource = "users", cache = self.cache)]
///     async fn get(&self, id: i64) -> Option<String> {
/// #       let _ = id;
///         None
///     }
/// }
/// # fn main() {}
/// ```
///
/// ## `crate`
///
/// Where `cache-runtime` is, if the crate is renamed or re-exported by another.
///
/// ```
/// # mod framework { pub use cache_runtime as caching; }
/// #[framework::caching::cached(resource = "users", crate = crate::framework::caching)]
/// async fn get(id: i64) -> Option<String> {
/// #   let _ = id;
///     None
/// }
/// # fn main() {}
/// ```
#[proc_macro_attribute]
pub fn cached(args: TokenStream, item: TokenStream) -> TokenStream {
    compile(
        args.into(),
        item.into(),
        args::cached,
        check::cached,
        expand::cached,
    )
    .into()
}

/// Options for all annotated methods of an `impl` block, where the same words would stand on each.
///
/// A method's own option wins. `resource`, `cache`, `crate`, `ttl`, `none_ttl`, `codec`, `version`,
/// `stale_if_error`, `swr`, `timeout`, `early`, `jitter` and `local_ttl` are for `#[cached]`; of these
/// `cache` and `crate` are also for `#[invalidates]`, as are `rejected`, `crash_safe` and `required`; and
/// a write that names neither a resource nor tags is one of the block's resource.
///
/// ```
/// # use cache_runtime::{Cache, cache_defaults, cached, invalidates};
/// struct Users {
///     cache: Cache,
/// }
///
/// #[cache_defaults(resource = "users", cache = self.cache, ttl = "5m")]
/// impl Users {
///     #[cached]
///     async fn get(&self, id: i64) -> Option<String> {
/// #       let _ = id;
///         None
///     }
///
///     #[cached(op = "list", ttl = 30)]
///     async fn list(&self) -> Vec<String> {
///         Vec::new()
///     }
///
///     #[invalidates(id = id)]
///     async fn rename(&self, id: i64, name: &str) {
/// #       let _ = (id, name);
///     }
/// }
/// # fn main() {}
/// ```
#[proc_macro_attribute]
pub fn cache_defaults(args: TokenStream, item: TokenStream) -> TokenStream {
    defaults::cache_defaults(args.into(), item.into()).into()
}

/// Runs the function, then makes what is cached of a resource stale, then returns.
///
/// A cached read of this process that starts after the function returned never gets older data; nor does one of another process
/// once Redis has the invalidation, which it has by then unless it is away (`required` refuses to write then). Copies in *another*
/// process may be behind by `CACHE_LOCAL_MAX_STALENESS`.
///
/// ```
/// use cache_runtime::invalidates;
/// # pub struct User { id: i64 }
/// # pub enum DbError { NotFound, Conflict }
/// # pub struct UserService;
///
/// impl UserService {
///     /// Everything cached of `users`.
///     #[invalidates("users")]
///     pub async fn import(&self, users: Vec<User>) -> Result<usize, DbError> {
///         Ok(users.len())
///     }
///
///     /// `users:1`, and everything derived from `users`: lists, counts.
///     #[invalidates("users", id = id)]
///     pub async fn rename(&self, id: i64, name: &str) -> Result<User, DbError> {
/// #       let _ = name;
///         Ok(User { id })
///     }
/// }
/// # fn main() {}
/// ```
///
/// It goes on any `async fn` with a body, whatever that returns. If the future is dropped before it
/// is done, or the body panics, the invalidation happens all the same: the write may have.
///
/// A function with a parameter that is a transaction, or a connection or an executor that may be in one, is refused unless
/// it says `after_commit` or `autocommit`: it would invalidate before the caller commits. So is one that is `#[cached]` as well and
/// made of a resource it invalidates: no call of it would be a hit.
///
/// # Options
///
/// ## Resources — required
///
/// One or more, each a string or the path of a constant, each as a whole unless an `id` follows.
///
/// ```
/// # use cache_runtime::invalidates;
/// # const AUDIT: &str = "audit";
/// # struct Teams;
/// # impl Teams {
/// #   const RESOURCE: &str = "teams";
/// #[invalidates("users", id = user, Self::RESOURCE, id = team, AUDIT)]
/// async fn join(&self, user: i64, team: i64) {
/// #   let _ = (user, team);
/// }
/// # }
/// # fn main() {}
/// ```
///
/// ## `id`
///
/// The row of the resource before it, as its readers name it: what they have as `id` in their keys.
/// It may use the parameters and `result`, the value inside `Ok` and `Some`. Where there is no such
/// value, the whole resource is made stale. It is one row: a parameter that is a list of ids is refused, for no
/// reader has a row of that id; write `ids`.
/// (If rows do have lists as ids, write `id = path.as_slice()`.) A literal may stand here, for a resource of a
/// single row, but no text that names a parameter.
///
/// ```
/// # use cache_runtime::invalidates;
/// # pub struct User { id: i64 }
/// # pub struct DbError;
/// # struct Users { tenant: i64 }
/// # impl Users {
/// #[invalidates("users", id = (self.tenant, result.id))]
/// async fn create(&self, name: String) -> Result<User, DbError> {
/// #   let _ = name;
///     Ok(User { id: 1 })
/// }
/// # }
/// # fn main() {}
/// ```
///
/// ## `ids`
///
/// Many rows of the resource before it: anything that can be iterated, of the parameters or of `result`. They
/// are invalidated together, with what is derived from the resource; more than 4,096 rows are the
/// whole resource.
///
/// ```
/// # use cache_runtime::invalidates;
/// # pub struct User { id: i64 }
/// #[invalidates("users", ids = ids)]
/// async fn block(ids: &[i64]) {
/// #   let _ = ids;
/// }
///
/// #[invalidates("users", ids = result.iter().map(|user| user.id))]
/// async fn import(file: &str) -> Vec<User> {
/// #   let _ = file;
///     Vec::new()
/// }
/// # fn main() {}
/// ```
///
/// ## `ops(..)`
///
/// Of what is derived from the resource before it, only what is cached under these `op`s (of a function
/// without one, its name). Alone it leaves the rows as they are; with `id` or `ids` these rows are made
/// stale as well. It costs the same whatever there is. The author vouches that the write changes
/// nothing else.
///
/// ```
/// # use cache_runtime::invalidates;
/// #[invalidates("users", ops("list", "filter"))]
/// async fn reorder(order: &[i64]) {
/// #   let _ = order;
/// }
///
/// #[invalidates("users", id = id, ops("count:online"))]
/// async fn log_in(id: i64) {
/// #   let _ = id;
/// }
/// # fn main() {}
/// ```
///
/// ## `tags(..)`
///
/// The entries that carry these tags; written as in [`#[cached]`](macro@cached). It may stand alone.
///
/// ```
/// # use cache_runtime::invalidates;
/// #[invalidates(tags("team:{team_id}"))]
/// async fn rename_team(team_id: i64, name: &str) {
/// #   let _ = (team_id, name);
/// }
/// # fn main() {}
/// ```
///
/// ## `rejected`, `on = ok`
///
/// After an error the resource is made stale, too, and once more a little later, because an error
/// may hide a commit: think of a connection that breaks before the answer. `rejected` tells the
/// errors that wrote nothing, so that a stream of refused writes does not empty the cache; `on = ok`
/// vouches for all of them. With `rejected` the function returns a `Result`.
///
/// ```
/// # use cache_runtime::invalidates;
/// # pub enum DbError { NotFound, Conflict, Io }
/// #[invalidates("users", id = id, rejected = |e| matches!(e, DbError::NotFound | DbError::Conflict))]
/// async fn delete(id: i64) -> Result<(), DbError> {
/// #   let _ = id;
///     Ok(())
/// }
///
/// #[invalidates("settings", on = ok)]
/// async fn store(path: &str) -> std::io::Result<()> {
/// #   let _ = path;
///     Ok(())
/// }
/// # fn main() {}
/// ```
///
/// ## `crash_safe`
///
/// Announces the write before the body runs, so that a process which is killed between its commit and the
/// invalidation leaves nothing stale: what the write concerns is not cached until it is known how it ended,
/// or the announcement is over (10 seconds after the process has ended). It costs two round trips, and needs
/// that nobody evicts or flushes the announcement and that the process is not paused for that long right
/// before its commit. If the store is away, the write goes on as if it had not asked for it.
///
/// An `id` that needs `result` is not known before: then the whole resource is announced, and invalidated.
///
/// ## `required`
///
/// Refuses the write, before the body runs, while the store is away: no other process is ever stale because
/// an invalidation had to wait. The function returns a `Result` whose error is `From<cache_runtime::Error>`.
/// With the cache off nothing is refused.
///
/// ```
/// # use cache_runtime::invalidates;
/// # pub enum DbError { Cache(cache_runtime::Error) }
/// # impl From<cache_runtime::Error> for DbError {
/// #   fn from(error: cache_runtime::Error) -> Self { Self::Cache(error) }
/// # }
/// #[invalidates("prices", id = id, crash_safe, required)]
/// async fn reprice(id: i64, cents: u64) -> Result<(), DbError> {
/// #   let _ = (id, cents);
///     Ok(())
/// }
/// # fn main() {}
/// ```
///
/// ## `after_commit`
///
/// The function takes part in its caller's transaction, and is called inside `Cache::after_commit` or
/// `cache_runtime::sqlx::transaction`, which invalidate when the transaction has ended. Called outside of
/// them it is reported, and what it concerns is not cached until its commit must have arrived.
///
/// ```
/// # use cache_runtime::invalidates;
/// # pub struct Transaction;
/// #[invalidates("users", id = id, after_commit)]
/// async fn rename(tx: &mut Transaction, id: i64, name: &str) {
/// #   let _ = (tx, id, name);
/// }
/// # fn main() {}
/// ```
///
/// ## `autocommit`
///
/// `autocommit(executor)`, or several names, says of a parameter that no caller passes a transaction in it, nor a connection
/// that is in one: each statement commits by itself before the function returns. Nothing checks that.
///
/// ```
/// # use cache_runtime::invalidates;
/// # pub trait Executor {}
/// #[invalidates("users", id = id, autocommit(executor))]
/// async fn rename(executor: impl Executor, id: i64, name: &str) {
/// #   let _ = (executor, id, name);
/// }
/// # fn main() {}
/// ```
///
/// ## Reads inside the body
///
/// A body that writes a row and reads it back for its response sees what it has written: inside it, and in all that it
/// awaits, reads of what the write invalidates go past the cache and store nothing. All other reads ask the store and
/// take no local entry, so that a row is not changed on the strength of a copy that may be behind
/// (*read-modify-write*). Two writers at once are the database's part: a version column, `SELECT .. FOR UPDATE`, or one
/// `UPDATE` that computes the new value. Tasks that the body spawns are not part of it.
///
/// ## `cache`, `crate`
///
/// As for [`#[cached]`](macro@cached). What a function caches in an instance of its own has to be
/// invalidated in the same instance.
#[proc_macro_attribute]
pub fn invalidates(args: TokenStream, item: TokenStream) -> TokenStream {
    compile(
        args.into(),
        item.into(),
        args::invalidates,
        check::invalidates,
        expand::invalidates,
    )
    .into()
}

/// Tokens to options and item, these to a model, the model to tokens; or all mistakes and the item
/// untouched.
fn compile<A, M>(
    args: TokenStream2,
    item: TokenStream2,
    read: fn(TokenStream2, &mut Errors) -> A,
    check: fn(A, Item, &mut Errors) -> Option<M>,
    expand: fn(M) -> TokenStream2,
) -> TokenStream2 {
    match model(args, item.clone(), read, check) {
        Ok(model) => expand(model),
        Err(errors) => errors.beside(item),
    }
}

fn model<A, M>(
    args: TokenStream2,
    item: TokenStream2,
    read: fn(TokenStream2, &mut Errors) -> A,
    check: fn(A, Item, &mut Errors) -> Option<M>,
) -> Result<M, Errors> {
    let mut errors = Errors::default();
    let args = read(args, &mut errors);
    let item = syn::parse2(item).map_err(|error| errors.absorb(error)).ok();
    let model = item.and_then(|item| check(args, item, &mut errors));
    errors.verdict(model)
}
