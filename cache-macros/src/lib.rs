//! The attribute macros of `cache-runtime`, which re-exports them: depend on that crate.
//!
//! Each reads the signature of one function and writes one short call into its body; all behaviour
//! is in `cache-runtime`. A mistake never takes the function away: all mistakes are reported
//! together, followed by the function as it was written.

// Mistakes.
mod defaults;
mod diag;
mod tokens;
// The options and the function as they were written.
mod args;
mod item;
// The rules that combine them.
mod check;
mod model;
// The generated function, and its description for the map.
mod description;
mod expand;

#[cfg(test)]
mod testing;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as TokenStream2;

use crate::diag::Errors;
use crate::item::Item;

/// Answers a call from the cache, or runs the function and stores its result.
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
/// # Return types
///
/// `T`, `Option<T>`, `Result<T, E>` or `Result<Option<T>, E>`, also through type aliases, and
/// `Arc<T>` in place of `T`, also `Arc<str>` and `Arc<[T]>`. `T` is `Clone + Send + Sync + 'static`
/// and implements serde's `Serialize` and `Deserialize`. `E` is any type: an error is returned and
/// never stored. `None` is stored like a value, but for a shorter time: see `none_ttl`.
/// `Option<Result<T, E>>` is refused, because an error in it would be stored as a value.
///
/// # The key
///
/// | attribute and parameters | key |
/// |---|---|
/// | no `op`; the only parameter is named `id`, or `id = ..` is given | `users:<id>` |
/// | `op = "avatar"`; the only parameter is named `id`, or `id = ..` is given | `users:avatar:<id>` |
/// | anything else | `users:<op>:<hash of the parameters>` |
///
/// All parameters are in the key, and so are the function's own type and const parameters if the
/// key is a hash. **`self` is not.** If two values of the service give different answers to the
/// same arguments, add the difference to the key, with `include(self.tenant)` or in `id`. Otherwise
/// one of them gets the other one's data.
///
/// A parameter `_` is not in the key, since the body can't read it. An argument in a key implements
/// `Serialize`. `-0.0` and `0.0` are the same argument, and a call with NaN bypasses the cache. The
/// order of a `HashSet` or `HashMap` does not matter.
///
/// A function whose parameter is a transaction, or a connection or an executor that may be in one,
/// is refused: what it reads may never be committed. See `autocommit`.
///
/// # Manual operations
///
/// `cache_runtime::key_of(users.get(1))` is the key of a call, `bypass(users.get(1)).await` runs it
/// without the cache, `refresh(users.get(1)).await` runs it and stores the result, and
/// `cache_runtime::map()` lists all annotated functions.
///
/// # Options
///
/// ## `resource` — required
///
/// The name of the data, which [`#[invalidates]`](macro@invalidates) refers to: a string of
/// lower-case letters, digits, `-` and `_`, or the path of a constant.
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
/// How long a value is served: seconds, a string such as `"90s"`, `"5m"`, `"1h30m"`, `"1d"` or
/// `"500ms"`, or an expression (a whole number of seconds or a `Duration`) that may use `self` and
/// the parameters. The default is `CACHE_TTL`; `CACHE_TTL_<RESOURCE>` overrides the attribute.
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
/// Names the operation in the key of an entry that is derived from a resource. The default is the
/// function's name. Segments are joined by `:`. An op belongs to one function.
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
/// The primary identity of the one row that is returned, if it is not simply a parameter named
/// `id`. Each other parameter is used in the expression, or skipped. A text that contains the name
/// of a parameter is refused.
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
/// `skip` leaves parameters out of the key, `include` adds expressions to it, and `key` replaces
/// the parameters by the expressions that it lists. They are Rust expressions, not texts in another
/// language: `key(id)`, where other libraries write `key = "#id"`. A literal is refused, since it
/// is the same for every call.
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
/// `autocommit(executor)`, or several names: leaves a parameter out of the key like `skip`, and
/// declares that no caller passes a transaction, or a connection that is in one. Without it, a
/// parameter is refused if its type or trait bound is named like a transaction, a connection or an
/// executor of SQLx, SeaORM, Diesel or a driver (`Transaction`, `&mut PgConnection`,
/// `PoolConnection`, `impl PgExecutor<'_>`, `C: ConnectionTrait`), or if it is a `&mut` that is not
/// in the key, except for types such as `String` and `Vec`. With the feature `sqlx` the compiler
/// also looks behind aliases and the program's own traits, into containers and locks, and at
/// `self`. A pool by reference is allowed, with `skip(pool)`. Nothing checks what callers pass.
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
/// How long `None` is served, written like `ttl`. The default is `ttl`, but at most 30 seconds.
/// With `cache_none = false` it is not stored.
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
/// Serve an expired entry while the source is slow or fails. An entry that was invalidated is never
/// served. Each of them is a time, written like `ttl`, and off by default.
///
/// * `stale_if_error = 600`: for 600 seconds after it expired, an entry is served in place of an
///   `Err`. The default is that of the configuration (`CACHE_STALE_IF_ERROR`), which is off.
/// * `swr = 60` (stale-while-revalidate): for 60 seconds after it expired, an entry is served at
///   once, while one caller's run of the function goes on in the background. `swr` without a time
///   takes that of the configuration (`CACHE_SWR`).
/// * `timeout = "2s"`: if a load takes longer, callers get the expired entry, if there is one, and
///   the load goes on. Without such an entry callers wait. `timeout` without a time takes that of
///   the configuration (`CACHE_LOAD_TIMEOUT_MS`). The other two options decide how long an expired
///   entry is kept.
///
/// With `swr` and `timeout` the function may still run when its caller has the answer. So it owns
/// all that it uses: `self` and arguments behind `&` are cloned when it runs (not for a hit), and
/// its future is `Send`. A function that goes on in the background has none of its caller's
/// task-local values.
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
/// `audit = 0.01` checks one in a hundred hits: the body runs as well, its value is compared with
/// the entry, and the caller gets the body's value. A difference is checked again before it counts
/// as stale; see `Cache::audit`. The default is that of the configuration (`CACHE_AUDIT`), which is
/// off; `audit = 0` leaves the function out. With `batch`, each hit may be checked.
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
/// Spread loads over time. With `early = 1.0`, or `early` without a value, one of many callers
/// loads a new value shortly before an entry expires, while the others are served. The longer a
/// load takes, the earlier this happens (XFetch). `jitter = 0.1` shortens each TTL by up to a
/// tenth, at random. The defaults are those of the configuration (`CACHE_EARLY`, `CACHE_JITTER`),
/// which are off.
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
/// The name of the body's `LoadContext`. With it the body can set how long the value is served
/// (`load.ttl(max_age)`), refuse to store it (`load.no_store()`), or name rows and tags that the
/// value depends on, besides those in the attribute (`load.depends_on("authors", author_id)`,
/// `load.tag("team:7")`).
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
/// Limits how many runs of the function go on at once in this process (a *bulkhead*). After a whole
/// resource has been invalidated, all its entries are loaded again, and most databases can run only
/// so many queries at a time. Further callers wait for their turn. If `stale_if_error` has an
/// expired entry to serve, they get that instead. A call inside another load does not wait, since
/// that load has its turn already. If no load ends for 10 seconds, one more runs beyond the limit.
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
/// Adds a value to the key that was set around the call, with `Cache::with_key("tenant", id, ..)`.
/// A call without it bypasses the cache and is logged, so that a forgotten `with_key` can't show
/// one tenant's rows to another. For all functions of a resource, see `CacheConfig::resource`.
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
/// Within one request, a second call with the same arguments gets the result of the first one,
/// without a lookup. A request is a future in `Cache::request`, or an HTTP request behind the layer
/// of a framework. After a write in the request, nothing from before is remembered.
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
/// A plain `fn` can be cached in the process's own memory, without Redis. A hit is a lookup in that
/// memory. On a miss one thread runs the function, and other threads that need the same value block
/// until it is there. With Redis on, the function simply runs, since it can't wait for an answer;
/// the log says so once.
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
/// Name what else makes the entry stale. `tags` adds tags, which
/// [`#[invalidates(tags(..))]`](macro@invalidates) and `Cache::invalidate_tag` name: strings with
/// expressions in braces, or expressions that implement `Display`. An `Option` that is `None` gives
/// no tag. `depends` adds resources: a write to one of them, even of a single row, invalidates the
/// entry. With an `id` after it, only writes of that row and of the whole resource do.
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
/// `when` is evaluated before the call, and may use the parameters. If it is false, the call
/// bypasses the cache. `unless` is called with a loaded value, the one inside `Ok` and `Some`. If
/// it returns true, the value is returned and not stored.
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
/// The parameter with many ids, a slice or a `Vec`. The function returns a `HashMap` or a
/// `BTreeMap` from ids to values, or a `Result` of one. It is called once, with the ids that are
/// not cached, or not at all. Each value is stored under its own `users:<id>`, which it shares with
/// the function that reads one row. An id that is not in the map is stored as absent. Other
/// parameters are skipped.
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
/// The values have the type that the function for one row stores. If another caller is loading some
/// of the ids, and there are others to load, this call loads all of them and waits for nobody.
///
/// ## `shared`
///
/// The keys of an `op`, or of a resource's entities, belong to one function. Another function that
/// uses them is reported and runs without the cache. With `shared` on both, they use the same
/// entries. The author is responsible that both return the same for the same arguments.
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
/// With Redis on and `CACHE_LOCAL_MB` set, values that were read from Redis are kept in the process
/// as well. They follow the writes of other processes, which Redis reports: usually within
/// milliseconds, and within `CACHE_LOCAL_MAX_STALENESS` (1 s) whatever the network does. Writes of
/// the own process are seen at once. If the result of a function must never be older than a write
/// that has returned in any process, make it `strict`: it asks Redis each time. `local = false`
/// keeps no local entries of the function, for values that are large and rarely read twice.
/// `local_ttl = ..` serves a local entry for at most this time. Without Redis, the process's memory
/// is the cache itself, and these options have no effect.
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
/// Keeps values in this process only and never sends them to Redis, for secrets and for values that
/// no other process could use. They are invalidated as usual, also by other processes, whose writes
/// Redis reports. With Redis on it needs `CACHE_LOCAL_MB`. Without that, the function simply runs,
/// and the log says so once.
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
/// cache-runtime's feature of that name; `"postcard"`, with its feature, which is the smallest and
/// fastest, has no names of fields, and can't decode `flatten`, untagged enums or values of any
/// type; `"json+zstd"`, with the feature `zstd`, which is JSON that is compressed in Redis if that
/// makes it smaller. `CACHE_COMPRESS_OVER` compresses all values above a size.
///
/// A value that the codec would change is not stored: infinity in JSON, `Some(None)` in JSON and
/// MessagePack, a field under `#[serde(skip)]`, a variant that serde takes for another. The log
/// names the function, the field and the fix once.
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
/// A whole number to increase when entries of an older build must not be read, for instance because
/// the meaning of a field has changed. If a type's name or shape changes, its old entries are
/// misses without it, in every codec: a hash of the fields and variants that its `Deserialize` asks
/// for, in all parts, is in each entry. They are found by reading the type once from made-up
/// values, which does not show everything. These changes need a `version`:
///
/// - of optional fields in what is flattened and in untagged enums, and of fields in internally tagged enums;
/// - of the order of an untagged enum's variants, in which they are tried;
/// - of a name for `Serialize` alone (`rename(serialize = "..")`): `Deserialize` asks for the same as before;
/// - of what a `with = ..`, `try_from` or hand-written `Deserialize` makes of the same text or number;
/// - of what stands behind the first part of a tuple that accepts no made-up value, such as a checksum,
///   or deeper than 40 types inside each other or 160 steps.
///
/// A type that asks itself for the same value without end (an untagged enum with a variant
/// `B(Box<Self>)` in front of others) has no shape, and its values are not stored: to decode one could
/// exhaust the stack.
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

/// Options for all annotated methods of an `impl` block.
///
/// A method's own option wins. `resource`, `cache`, `crate`, `ttl`, `none_ttl`, `codec`, `version`,
/// `stale_if_error`, `swr`, `timeout`, `early`, `jitter` and `local_ttl` apply to `#[cached]`.
/// `cache`, `crate`, `rejected`, `crash_safe` and `required` apply to `#[invalidates]`. A write
/// that names neither a resource nor tags invalidates the block's resource.
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

/// Runs the function, invalidates the entries of a resource, then returns.
///
/// A cached read in this process that starts after the function returned never gets older data. The
/// same holds for other processes once Redis has the invalidation, which it has by then unless it
/// is away (with `required` the write is then refused). A local entry in *another* process may be
/// older by `CACHE_LOCAL_MAX_STALENESS`.
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
/// It goes on any `async fn` with a body, whatever it returns. If the future is dropped before it
/// is done, or the body panics, the invalidation happens all the same, since the write may have
/// happened.
///
/// A function whose parameter is a transaction, or a connection or an executor that may be in one,
/// is refused unless it says `after_commit` or `autocommit`: it would invalidate before the caller
/// commits. A function that is also `#[cached]` with a resource that it invalidates is refused as
/// well: no call of it would be a hit.
///
/// # Options
///
/// ## Resources — required
///
/// One or more, each a string or the path of a constant. Each is invalidated as a whole, unless an
/// `id` follows.
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
/// The row of the resource before it, in the form that its readers use as `id` in their keys. It
/// may use the parameters and `result`, the value inside `Ok` and `Some`. If there is no such
/// value, the whole resource is invalidated. It is one row. A parameter that is a list of ids is
/// refused, since no reader has a row with that id; write `ids`. (If rows do have lists as ids,
/// write `id = path.as_slice()`.) A literal is allowed, for a resource with a single row, but no
/// text that contains the name of a parameter.
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
/// Many rows of the resource before it: anything that can be iterated, computed from the parameters
/// or from `result`. They are invalidated together with the entries derived from the resource. More
/// than 4,096 rows invalidate the whole resource.
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
/// Of the entries derived from the resource before it, invalidates only those cached under these
/// `op`s (for a function without an op, its name). Alone it leaves the rows as they are; with `id`
/// or `ids` it invalidates these rows as well. It costs the same for any number of entries. The
/// author is responsible that the write changes nothing else.
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
/// The entries with these tags, written as in [`#[cached]`](macro@cached). It needs no resource.
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
/// After an error the resource is invalidated too, and once more a little later, because an error
/// may hide a commit: the connection may break before the answer arrives. `rejected` tells which
/// errors wrote nothing, so that many refused writes do not empty the cache. `on = ok` says it of
/// all errors. With `rejected` the function returns a `Result`.
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
/// Announces the write before the body runs, so that a process that is killed between its commit
/// and the invalidation leaves nothing stale. The data that the write concerns is not cached until
/// the outcome is known, or the announcement has expired (10 seconds after the process has ended).
/// It costs one more round trip. It relies on two premises: nobody evicts or flushes the
/// announcement, and the process is not paused for that long right before its commit. If the store
/// is away, the write goes on as without this option.
///
/// If an `id` needs `result`, it is not known before the body runs. Then the whole resource is
/// announced, and invalidated.
///
/// ## `required`
///
/// Refuses the write, before the body runs, while the store is away. So no other process is ever
/// stale because an invalidation had to wait. The function returns a `Result` whose error is
/// `From<cache_runtime::Error>`. With the cache off nothing is refused.
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
/// The function takes part in its caller's transaction, and is called inside `Cache::after_commit`
/// or `cache_runtime::sqlx::transaction`, which invalidate when the transaction has ended. A call
/// outside of them is logged, and the data concerned is not cached until its commit must have
/// arrived.
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
/// `autocommit(executor)`, or several names: declares that no caller passes a transaction in this
/// parameter, or a connection that is in one. Each statement commits by itself before the function
/// returns. Nothing checks that. `autocommit(self)` declares it of a connection that `self` is or
/// holds.
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
/// A body that writes a row and reads it back for its response sees its own changes. Inside the
/// body, and in everything that it awaits, reads of data that the write invalidates bypass the
/// cache and store nothing. All other reads ask the store and use no local entry, so that a row is
/// not changed based on an old value (*read-modify-write*). Two concurrent writers are the
/// database's task: use a version column, `SELECT .. FOR UPDATE`, or one `UPDATE` that computes the
/// new value. Tasks that the body spawns are not part of it.
///
/// ## `cache`, `crate`
///
/// As for [`#[cached]`](macro@cached). Entries of a separate cache have to be invalidated in the
/// same cache.
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

/// Options and item are read from tokens, checked into a model, and expanded to tokens. If there
/// are mistakes, returns all of them and the item unchanged.
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
