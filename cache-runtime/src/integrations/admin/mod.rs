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
mod message;
#[cfg(feature = "poem")]
mod poem;
mod recent;
mod rights;

#[cfg(feature = "axum")]
pub use self::axum::AdminService;
pub use self::message::{Request, Response};
#[cfg(feature = "poem")]
pub use self::poem::AdminEndpoint;
pub use self::rights::Rights;

use std::sync::{Arc, LazyLock, OnceLock, Weak};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use self::recent::Recent;
use crate::base::nonce::Nonce;
use crate::cache::Cache;
use crate::invalidation::Acknowledgement;
use crate::telemetry::events::{Event, Events};

/// The process. Behind a load balancer, the answers to one page come from several.
static PROCESS: LazyLock<String> = LazyLock::new(|| {
    let start = Nonce::fresh().to_string();
    format!("{}-{}", std::process::id(), &start[..8])
});

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
    ///
    /// # Cancel safety
    /// If dropped, an action of the request may have taken place or not.
    pub async fn answer(&self, request: Request<'_>, rights: Rights) -> Response {
        // Whoever sends the answer leaves its body out.
        let method = match request.method {
            "HEAD" => "GET",
            method => method,
        };
        match (method, request.path.trim_start_matches('/')) {
            _ if rights == Rights::None => Response::error(403, "this page is not for you"),
            ("GET", "") => Response::page(),
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
                Response::method_not_allowed("GET, HEAD")
            }
            (_, "api/act") => Response::method_not_allowed("POST"),
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
            let map = map.map_or_else(crate::catalog, |map| (*map).clone());
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
        let report = self.0.cache.doctor().await;
        let advice: Vec<_> = report.advice.into_iter().map(|it| it.text).collect();
        json!({
            "advice": advice,
            "checked": report.checked,
            "not_checked": report.not_checked,
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
                    true => acknowledged_text(&what, done),
                    false => acknowledged_text(
                        &format!("{what}; but {}", cache.no_such(&resource)),
                        done,
                    ),
                }
            }
            Action::Tag { tag } => {
                acknowledged_text(&format!("tag {tag}"), cache.invalidate_tag(&tag).await)
            }
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

fn acknowledged_text(what: &str, done: Acknowledgement) -> Response {
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

/// Whether one of the annotated functions reads the resource. Without any it may be one that is
/// used by hand.
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
    let pairs = form_urlencoded::parse(request.query.as_bytes());
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
mod tests;
