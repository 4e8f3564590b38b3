//! An admin page for a cache. It shows live figures, the catalog, single entries, recent events,
//! the doctor's report and the audit. Whoever has the right may also invalidate and turn functions
//! off.
//!
//! It is one HTML file and a few answers in JSON. The application puts it behind its own login. An
//! [`Admin`] answers plain requests ([`Admin::answer`]) and those of the `http` crate
//! ([`Admin::respond`]), so that it fits into any framework. With the feature `axum`,
//! `Admin::into_axum` makes a service of it; with the feature `poem`, `Admin::into_poem` makes an
//! endpoint:
//!
//! ```
//! # #[cfg(feature = "poem")] {
//! # async fn example(cache: cache_runtime::Cache) {
//! use cache_runtime::admin::{Admin, Rights};
//! use poem::Route;
//!
//! let is_operator = |request: &poem::Request| request.header("x-user") == Some("operator");
//! let page = Admin::new(&cache).into_poem(move |request| match is_operator(request) {
//!     true => Rights::Change,
//!     false => Rights::None,
//! });
//! let routes = Route::new().nest("/cache/ui", page);
//! # drop(routes);
//! # } }
//! ```
//!
//! Whoever can read the page can read every cached value, so it belongs behind a login.
//! [`Rights::None`] refuses everything, and [`Rights::Figures`] shows no values.

#[cfg(feature = "axum")]
mod axum;
mod entry;
mod http;
#[cfg(feature = "poem")]
mod poem;

#[cfg(feature = "axum")]
pub use self::axum::AdminService;
#[cfg(feature = "poem")]
pub use self::poem::AdminEndpoint;

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::{Arc, LazyLock, OnceLock, Weak};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::nonce::Nonce;
use crate::cache::Cache;
use crate::invalidation::Acknowledgement;
use crate::telemetry::events::{Event, Events};

/// How many events of each kind the page remembers. So no flood of one kind takes away the others.
const REMEMBERED: usize = 100;

const PAGE: &str = include_str!("page.html");

/// The page loads nothing from other hosts, runs only its own script, and no other page may show it
/// in a frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The process. Behind a load balancer, the answers to one page come from several.
static PROCESS: LazyLock<String> = LazyLock::new(|| {
    let start = Nonce::fresh().to_string();
    format!("{}-{}", std::process::id(), &start[..8])
});

/// What a user may do on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rights {
    /// Nothing: every request is refused.
    None,
    /// Read figures and the catalog, but no entries, no events and not the doctor's report, which
    /// contain keys.
    Figures,
    /// As [`Figures`](Self::Figures). The page asks for a token, as with
    /// [`ReadUntilToken`](Self::ReadUntilToken).
    FiguresUntilToken,
    /// Read everything.
    Read,
    /// Read everything. The page asks for a token (such as `CACHE_ADMIN_TOKEN`) and sends it as a
    /// bearer token; the application then grants [`Change`](Self::Change).
    ReadUntilToken,
    /// Read everything, invalidate, and turn functions on and off.
    Change,
}

impl Rights {
    /// Whether keys and values may be read.
    fn shows_keys(self) -> bool {
        matches!(self, Self::Read | Self::ReadUntilToken | Self::Change)
    }

    /// Whether the page asks for a token.
    fn asks_for_token(self) -> bool {
        matches!(self, Self::ReadUntilToken | Self::FiguresUntilToken)
    }
}

/// A request, without the part of the path under which the page is mounted.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// `/`, or `/api/` and more.
    pub path: &'a str,
    /// The text after the `?`.
    pub query: &'a str,
    /// The header `Content-Type`.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

impl Response {
    fn json(status: u16, value: &Value) -> Self {
        Self {
            status,
            headers: vec![
                ("content-type", "application/json".into()),
                ("cache-control", "no-store".into()),
                ("x-content-type-options", "nosniff".into()),
            ],
            body: value.to_string(),
        }
    }

    fn error(status: u16, text: &str) -> Self {
        Self::json(status, &json!({ "error": text }))
    }

    fn page() -> Self {
        // The browser runs the script that has this answer's number, and no other one.
        let number = Nonce::fresh();
        let policy = format!("{POLICY}; script-src 'nonce-{number}'");
        Self {
            status: 200,
            headers: vec![
                ("content-type", "text/html; charset=utf-8".into()),
                ("cache-control", "no-cache".into()),
                ("content-security-policy", policy),
                ("referrer-policy", "no-referrer".into()),
                ("x-content-type-options", "nosniff".into()),
            ],
            body: PAGE.replacen("<script>", &format!("<script nonce=\"{number}\">"), 1),
        }
    }
}

/// The page of one cache; cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Cache,
    /// How the application gives the right to change something.
    advice: OnceLock<String>,
    recent: Mutex<Recent>,
}

/// The last events, each with its number.
#[derive(Debug, Default)]
struct Recent {
    events: VecDeque<(u64, Event)>,
    next: u64,
    lost: u64,
}

impl Recent {
    /// Adds an event, in place of the oldest of its kind if there are enough of these.
    fn keep(&mut self, event: Event) {
        let kind = discriminant(&event.kind);
        let is_alike = |(_, it): &(u64, Event)| discriminant(&it.kind) == kind;
        if self.events.iter().filter(|it| is_alike(it)).count() >= REMEMBERED
            && let Some(oldest) = self.events.iter().position(is_alike)
        {
            self.events.remove(oldest);
        }
        self.events.push_back((self.next, event));
        self.next += 1;
    }
}

impl Admin {
    /// Makes the page of this cache. From now on it remembers the last 100 events of each kind.
    #[must_use]
    pub fn new(cache: &Cache) -> Self {
        let inner = Arc::new(Inner {
            cache: cache.clone(),
            advice: OnceLock::new(),
            recent: Mutex::default(),
        });
        if let Some(handle) = cache.handle() {
            let remember = remember(cache.events(), Arc::downgrade(&inner));
            handle.background.spawn(remember);
        }
        Self(inner)
    }

    /// Tells users who may not change anything how they get the right: on the page, and in the
    /// answers that refuse it. The first text stays.
    ///
    /// ```
    /// # fn example(cache: &cache_runtime::Cache) {
    /// use cache_runtime::admin::Admin;
    ///
    /// let page = Admin::new(cache).advise("Changes need the group `operators`.");
    /// # drop(page);
    /// # }
    /// ```
    #[must_use]
    pub fn advise(self, how: impl Into<String>) -> Self {
        let _ = self.0.advice.set(how.into());
        self
    }

    fn refused(&self, rights: Rights) -> Response {
        let mut text = String::from("this page may only be looked at here");
        if rights.asks_for_token() {
            text.push_str("; a change needs the token, as `Authorization: Bearer`");
        }
        if let Some(advice) = self.0.advice.get() {
            text = format!("{text}. {advice}");
        }
        Response::error(403, &text)
    }

    /// Answers a request of a user with these rights.
    pub async fn answer(&self, request: Request<'_>, rights: Rights) -> Response {
        match (request.method, request.path.trim_start_matches('/')) {
            _ if rights == Rights::None => Response::error(403, "this page is not for you"),
            ("GET" | "HEAD", "") => Response::page(),
            ("GET", "api/state") => Response::json(200, &self.state(rights).await),
            ("GET", "api/catalog") => Response::json(200, &self.catalog()),
            ("GET", "api/events") => {
                Response::json(200, &self.events(since(request), rights.shows_keys()))
            }
            // It may name keys, also of other programs.
            ("GET", "api/doctor") if !rights.shows_keys() => {
                Response::error(403, "the doctor's advice is not shown here, only figures")
            }
            ("GET", "api/doctor") => Response::json(200, &self.doctor().await),
            ("GET", "api/entry") if !rights.shows_keys() => {
                Response::error(403, "entries are not shown here, only figures")
            }
            ("GET", "api/entry") => match parameter(request, "key") {
                Some(key) => Response::json(200, &entry::inspect(&self.0.cache, &key).await),
                None => Response::error(400, "name a key, as in `api/entry?key=users:1`"),
            },
            ("POST", "api/act") if rights != Rights::Change => self.refused(rights),
            // A form of another site can't send this type without a preflight request (CORS).
            ("POST", "api/act") if !request.content_type.starts_with("application/json") => {
                Response::error(415, "send `application/json`")
            }
            ("POST", "api/act") => match serde_json::from_slice(request.body) {
                Ok(action) => self.act(action).await,
                Err(error) => Response::error(400, &error.to_string()),
            },
            (_, "" | "api/state" | "api/catalog" | "api/events" | "api/doctor" | "api/entry") => {
                Response::error(405, "use GET")
            }
            (_, "api/act") => Response::error(405, "use POST"),
            _ => Response::error(404, "there is no such page"),
        }
    }

    async fn state(&self, rights: Rights) -> Value {
        let cache = &self.0.cache;
        let namespace = cache
            .handle()
            .map(|cache| cache.space.namespace.clone())
            .unwrap_or_default();
        let mut audit = cache.audit();
        if !rights.shows_keys() {
            audit.stale_entries.clear();
        }
        json!({
            "rights": if rights == Rights::Change { "change" } else { "read" },
            "token_helps": rights.asks_for_token(),
            "advice": self.0.advice.get(),
            "process": *PROCESS,
            "store": cache.handle().map(|cache| cache.store.name()),
            "namespace": namespace.trim_end_matches(':'),
            "stats": cache.get_stats().await,
            "functions": cache.functions(),
            "switched_off": cache.switched_off(),
            "audit": audit,
        })
    }

    fn catalog(&self) -> Value {
        #[cfg(feature = "map")]
        {
            let known = self.0.cache.handle();
            let map = known.and_then(|cache| cache.config.map.clone());
            let map = map.map_or_else(crate::map, |map| (*map).clone());
            serde_json::to_value(map).unwrap_or_default()
        }
        #[cfg(not(feature = "map"))]
        {
            json!({})
        }
    }

    /// `missed` counts the events since the last answer that the page has already forgotten, `lost`
    /// those that it never received. Events contain keys, so without the right to see them they are
    /// only counted.
    fn events(&self, since: u64, are_shown: bool) -> Value {
        let recent = self.0.recent.lock();
        let new = || recent.events.iter().filter(|(number, _)| *number >= since);
        // A page that asks for the first time has missed nothing.
        let missed = match since {
            0 => 0,
            since => recent.next.saturating_sub(since + new().count() as u64),
        };
        let shown: Vec<_> = new().filter(|_| are_shown).map(numbered).collect();
        json!({
            "process": *PROCESS,
            "shown": are_shown,
            "next": recent.next,
            "lost": recent.lost,
            "missed": missed,
            "events": shown,
        })
    }

    async fn doctor(&self) -> Value {
        let checkup = self.0.cache.checkup().await;
        let advice: Vec<_> = checkup.advice.into_iter().map(|it| it.text).collect();
        json!({
            "advice": advice,
            "checked": checkup.checked,
            "not_checked": checkup.not_checked,
        })
    }

    async fn act(&self, action: Action) -> Response {
        let cache = &self.0.cache;
        match action {
            Action::Invalidate { resource, id } if !crate::key::is_resource(&resource) => {
                let _ = id;
                Response::error(400, &format!("`{resource}` is not the name of a resource"))
            }
            Action::Invalidate { resource, id } => {
                let id = id.trim();
                let done = match id {
                    "" => cache.invalidate_all(&resource).await,
                    id => cache.invalidate_typed(&resource, id).await,
                };
                let what = match id {
                    "" => format!("all of {resource}"),
                    id => format!("{resource}:{id} and what is computed of {resource}"),
                };
                match is_known(cache, &resource) {
                    true => said(&what, done),
                    false => said(&format!("{what}; but {}", cache.no_such(&resource)), done),
                }
            }
            Action::Tag { tag } => said(&format!("tag {tag}"), cache.invalidate_tag(&tag).await),
            Action::Switch {
                target,
                enabled,
                everywhere: false,
            } => {
                let before = cache.switched_off();
                match enabled {
                    true => cache.enable(&target),
                    false => cache.disable(&target),
                }
                match before == cache.switched_off() {
                    true => Response::error(400, "that changed nothing; is the name right?"),
                    false => {
                        let here = "in this process";
                        switched(&target, enabled, &scope(cache, &target, here))
                    }
                }
            }
            Action::Switch {
                target, enabled, ..
            } => {
                let done = match enabled {
                    true => cache.enable_everywhere(&target).await,
                    false => cache.disable_everywhere(&target).await,
                };
                match done {
                    Ok(()) => {
                        let all = "in all processes, within a second";
                        switched(&target, enabled, &scope(cache, &target, all))
                    }
                    Err(error) => Response::error(400, &error.to_string()),
                }
            }
        }
    }
}

/// The actions of the page.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
enum Action {
    Invalidate {
        resource: String,
        /// Empty: everything that the action can apply to.
        #[serde(default)]
        id: String,
    },
    Tag {
        tag: String,
    },
    Switch {
        target: String,
        enabled: bool,
        #[serde(default)]
        everywhere: bool,
    },
}

fn said(what: &str, done: Acknowledgement) -> Response {
    let said = match done {
        Acknowledgement::Delivered => format!("invalidated {what}"),
        Acknowledgement::Pending => {
            format!("the invalidation of {what} waits: the store can't be reached")
        }
        other => format!("{what}: {other:?}"),
    };
    Response::json(200, &json!({ "said": said }))
}

fn switched(target: &str, enabled: bool, scope: &str) -> Response {
    let state = if enabled { "on" } else { "off" };
    let said = format!("reads of {target} are switched {state} {scope}");
    Response::json(200, &json!({ "said": said }))
}

/// Whether one of the annotated functions reads the resource. Without any it may be one that is used
/// by hand.
fn is_known(cache: &Cache, resource: &str) -> bool {
    let known = cache.switchable();
    known.is_empty() || known.iter().any(|it| it == resource)
}

/// Where reads were switched, with a hint if the program does not know the name. Another program
/// that shares Redis may have it.
fn scope(cache: &Cache, target: &str, scope: &str) -> String {
    match cache.is_switchable(target) {
        true => scope.to_owned(),
        false => format!("{scope}; but {}", cache.no_such(target)),
    }
}

/// The number of the first event that the page has not seen. A page that knows the events of
/// another process has seen none of this one's.
fn since(request: Request<'_>) -> u64 {
    let process = parameter(request, "process");
    if process.is_some_and(|process| process != *PROCESS) {
        return 0;
    }
    let since = parameter(request, "since");
    since.and_then(|since| since.parse().ok()).unwrap_or(0)
}

/// An event with its number, by which a page knows those that it has seen.
fn numbered((number, event): &(u64, Event)) -> Value {
    let mut value = serde_json::to_value(event).unwrap_or_default();
    value["number"] = json!(number);
    value
}

/// A parameter of the query, decoded.
fn parameter(request: Request<'_>, name: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(request.query.as_bytes());
    let mut pairs = pairs.filter(|(key, _)| key == name);
    pairs.next().map(|(_, value)| value.into_owned())
}

async fn remember(mut events: Events, page: Weak<Inner>) {
    while let Some(event) = events.next().await {
        let Some(page) = page.upgrade() else { return };
        let mut recent = page.recent.lock();
        recent.keep(event);
        recent.lost = events.lost();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CacheConfig;

    async fn answer(
        admin: &Admin,
        method: &str,
        path: &str,
        body: &str,
        rights: Rights,
    ) -> Response {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = Request {
            method,
            path,
            query,
            content_type: "application/json",
            body: body.as_bytes(),
        };
        admin.answer(request, rights).await
    }

    fn json(response: &Response) -> Value {
        serde_json::from_str(&response.body).expect("JSON")
    }

    #[tokio::test]
    async fn only_those_who_may_change_it_do() {
        let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
        let admin = Admin::new(&cache);
        let off = r#"{"action":"switch","target":"users","enabled":false}"#;
        for rights in [Rights::Read, Rights::ReadUntilToken] {
            let refused = answer(&admin, "POST", "/api/act", off, rights).await;
            assert_eq!(refused.status, 403);
        }
        let form = Request {
            method: "POST",
            path: "/api/act",
            query: "",
            content_type: "text/plain",
            body: off.as_bytes(),
        };
        assert_eq!(admin.answer(form, Rights::Change).await.status, 415);
        assert!(cache.switched_off().here.is_empty());
        let done = answer(&admin, "POST", "/api/act", off, Rights::Change).await;
        assert_eq!((done.status, cache.switched_off().here.len()), (200, 1));
        let again = answer(&admin, "POST", "/api/act", off, Rights::Change).await;
        assert_eq!(again.status, 400);
        let nonsense = answer(&admin, "POST", "/api/act", "{}", Rights::Change).await;
        assert_eq!(nonsense.status, 400);
        for (method, path, status) in [
            ("GET", "/", 200),
            ("GET", "", 200),
            ("POST", "/", 405),
            ("GET", "/api/act", 405),
            ("GET", "/api/nothing", 404),
            ("GET", "/api/entry", 400),
        ] {
            let answer = answer(&admin, method, path, "", Rights::Read).await;
            assert_eq!(answer.status, status, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn who_may_see_figures_sees_no_key_and_no_value_and_who_may_nothing_sees_nothing() {
        let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
        let admin = Admin::new(&cache);
        for path in ["/", "/api/state", "/api/catalog", "/api/events"] {
            let refused = answer(&admin, "GET", path, "", Rights::None).await;
            assert_eq!(refused.status, 403, "{path}");
            let shown = answer(&admin, "GET", path, "", Rights::Figures).await;
            assert_eq!(shown.status, 200, "{path}");
        }
        cache.set("users:1", &7u32, 60).await.expect("stored");
        for rights in [Rights::Figures, Rights::FiguresUntilToken] {
            for path in ["/api/entry?key=users:1", "/api/doctor"] {
                let refused = answer(&admin, "GET", path, "", rights).await;
                assert_eq!(refused.status, 403, "{path}");
            }
            let state = json(&answer(&admin, "GET", "/api/state", "", rights).await);
            let asks = rights == Rights::FiguresUntilToken;
            assert_eq!(
                (&state["rights"], &state["token_helps"]),
                (&json!("read"), &json!(asks))
            );
        }
        let _ = cache.invalidate("users", &1).await;
        let events = loop {
            let events = json(&answer(&admin, "GET", "/api/events", "", Rights::Figures).await);
            if events["next"] == 1 {
                break events;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        assert_eq!(events["events"], json!([]), "they name keys");
        assert_eq!(events["shown"], false);
    }

    #[tokio::test]
    async fn who_is_refused_learns_how_to_get_the_right() {
        let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
        let admin = Admin::new(&cache).advise("Set OPS_TOKEN.");
        let off = r#"{"action":"switch","target":"users","enabled":false}"#;
        for (rights, names_token) in [
            (Rights::Figures, false),
            (Rights::Read, false),
            (Rights::ReadUntilToken, true),
            (Rights::FiguresUntilToken, true),
        ] {
            let refused = answer(&admin, "POST", "/api/act", off, rights).await;
            let error = json(&refused)["error"].to_string();
            assert_eq!(refused.status, 403);
            assert!(error.contains("Set OPS_TOKEN."), "{error}");
            assert_eq!(error.contains("Bearer"), names_token, "{error}");
        }
        let state = json(&answer(&admin, "GET", "/api/state", "", Rights::Read).await);
        assert_eq!(state["advice"], "Set OPS_TOKEN.");
    }

    #[tokio::test]
    async fn the_browser_runs_no_script_but_the_page_s_own() {
        let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
        let admin = Admin::new(&cache);
        let mut numbers = Vec::new();
        for _ in 0..2 {
            let page = answer(&admin, "GET", "/", "", Rights::Read).await;
            let mut headers = page.headers.iter();
            let policy = headers.find(|(name, _)| *name == "content-security-policy");
            let (_, number) = policy
                .and_then(|(_, policy)| policy.split_once("script-src 'nonce-"))
                .expect("a number");
            let number = number.trim_end_matches('\'').to_owned();
            assert_eq!(page.body.matches("<script").count(), 1);
            let script = format!("<script nonce=\"{number}\">");
            assert!(page.body.contains(&script), "{script}");
            numbers.push(number);
        }
        assert_ne!(numbers[0], numbers[1], "nobody knows it beforehand");
    }

    /// Hundreds of stale hits, just when an operator wants to see why.
    #[test]
    fn many_events_of_one_kind_leave_the_others() {
        use crate::telemetry::events::EventKind;

        let mut recent = Recent::default();
        let mut keep = |kind| {
            recent.keep(Event {
                at: std::time::SystemTime::UNIX_EPOCH,
                kind,
            });
        };
        keep(EventKind::LocalFlushed { flushes: 1 });
        for waiting in 0..600 {
            keep(EventKind::InvalidationPending { waiting });
        }
        let numbers: Vec<u64> = recent.events.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers.len(), REMEMBERED + 1);
        assert_eq!((numbers[0], numbers[1]), (0, 501), "the oldest gave way");
    }

    #[tokio::test]
    async fn a_page_that_knows_another_process_has_seen_nothing_of_this_one() {
        let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
        let admin = Admin::new(&cache);
        let _ = cache.invalidate_all("users").await;
        let ask = async |path: &str| json(&answer(&admin, "GET", path, "", Rights::Read).await);
        let events = loop {
            let events = ask("/api/events").await;
            if events["next"] == 1 {
                break events;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        assert_eq!(events["events"][0]["number"], 0);
        assert_eq!(events["process"], *PROCESS);
        let same = ask(&format!("/api/events?since=1&process={}", *PROCESS)).await;
        assert_eq!(same["events"], json!([]));
        let other = ask("/api/events?since=1&process=7-abc").await;
        assert_eq!(other["events"], events["events"]);
        assert_eq!(ask("/api/state").await["process"], *PROCESS);
    }

    #[tokio::test]
    async fn a_name_that_nothing_has_is_switched_with_a_word_about_it() {
        let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
        let admin = Admin::new(&cache);
        let off = r#"{"action":"switch","target":"usres","enabled":false}"#;
        let done = answer(&admin, "POST", "/api/act", off, Rights::Change).await;
        let said = json(&done)["said"].to_string();
        assert!(said.contains("nothing here is called `usres`"), "{said}");
    }

    #[tokio::test]
    async fn an_entry_is_told_in_words_and_events_are_remembered() {
        let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
        let admin = Admin::new(&cache);
        let nothing = answer(&admin, "GET", "/api/entry?key=users%3A1", "", Rights::Read).await;
        assert_eq!(json(&nothing)["found"], "nothing");
        cache.set("users:1", &7u32, 60).await.expect("stored");
        let there = answer(&admin, "GET", "/api/entry?key=users%3A1", "", Rights::Read).await;
        let there = json(&there);
        assert_eq!(
            (&there["found"], &there["alive"]),
            (&json!("entry"), &json!(true))
        );
        let wrong = answer(&admin, "GET", "/api/entry?key=nonsense", "", Rights::Read).await;
        assert_eq!(json(&wrong)["found"], "no key");

        // An id as it is, and escaped as in keys.
        for (key, id) in [
            ("users:1", "1"),
            ("users:a%40b", "a@b"),
            ("users:a%40b", "a%40b"),
            ("users:7,1", "7,1"),
        ] {
            cache.set(key, &7u32, 60).await.expect("stored");
            let one = json!({"action": "invalidate", "resource": "users", "id": id}).to_string();
            let done = answer(&admin, "POST", "/api/act", &one, Rights::Change).await;
            assert_eq!(done.status, 200);
            assert_eq!(cache.get::<u32>(key).await, None, "{key} {id}");
        }

        let all = r#"{"action":"invalidate","resource":"users"}"#;
        let done = answer(&admin, "POST", "/api/act", all, Rights::Change).await;
        assert_eq!(json(&done)["said"], "invalidated all of users");
        let events = loop {
            let events = json(&answer(&admin, "GET", "/api/events", "", Rights::Read).await);
            if events["next"] == 5 {
                break events;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        assert_eq!(events["events"][0]["event"], "invalidated");
        let later = answer(&admin, "GET", "/api/events?since=5", "", Rights::Read).await;
        assert_eq!(json(&later)["events"], json!([]));
        // More than are remembered, before the page asks again.
        for number in 0..REMEMBERED as u64 + 7 {
            cache.set("users:1", &number, 60).await.expect("stored");
            let _ = cache.invalidate("users", &1).await;
        }
        let late = loop {
            let late = answer(&admin, "GET", "/api/events?since=5", "", Rights::Read).await;
            let late = json(&late);
            if late["next"] == REMEMBERED + 7 + 5 {
                break late;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        assert_eq!((&late["missed"], &late["lost"]), (&json!(7), &json!(0)));
        let state = json(&answer(&admin, "GET", "/api/state", "", Rights::Read).await);
        assert_eq!(state["rights"], "read");
        assert_eq!(state["stats"]["enabled"], true);
    }
}
