//! The methods that a path allows, listed in `Allow` (RFC 9110, sections 9.3.7 and 15.5.6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use poem::error::MethodNotAllowedError;
use poem::http::header::{ALLOW, HeaderValue};
use poem::http::{Method, StatusCode};
use poem::{Endpoint, PathPattern, Request, Response};
use serde_json::Value;

use super::error;
use crate::mutation;

/// The value of `Allow` for each pattern of paths. Poem knows the pattern of a path whose method it
/// refuses, but not the methods that it would have accepted.
#[derive(Debug)]
pub(super) struct Methods {
    by_pattern: BTreeMap<String, HeaderValue>,
    all: HeaderValue,
}

impl Methods {
    /// The methods of the operations in an OpenAPI `document`, and `GET` for `pages` beside them.
    pub(super) fn new(document: &Value, pages: &[&str]) -> Self {
        let mut methods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let operations = document["paths"].as_object().into_iter().flatten();
        for (path, operations) in operations {
            let names = operations.as_object().into_iter().flatten();
            let names = names.map(|(name, _)| name.to_ascii_uppercase());
            methods.entry(nameless(path)).or_default().extend(names);
        }
        for page in pages {
            methods
                .entry((*page).to_owned())
                .or_default()
                .insert("GET".to_owned());
        }
        for names in methods.values_mut() {
            if names.contains("GET") {
                names.insert("HEAD".to_owned());
            }
            names.insert("OPTIONS".to_owned());
        }
        let all: BTreeSet<String> = methods.values().flatten().cloned().collect();
        Self {
            all: allow(&all),
            by_pattern: methods
                .iter()
                .map(|(pattern, names)| (pattern.clone(), allow(names)))
                .collect(),
        }
    }

    /// Answers errors in the one JSON form, answers `OPTIONS` for every path, and adds `Allow` if a
    /// method is refused.
    pub(super) async fn answer<E>(
        self: Arc<Self>,
        endpoint: Arc<E>,
        request: Request,
    ) -> poem::Result<Response>
    where
        E: Endpoint<Output = Response>,
    {
        let asks = request.method() == Method::OPTIONS;
        if asks && request.uri().path() == "*" {
            return Ok(options(&self.all));
        }
        let error = match endpoint.call(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let allow = match error.data::<PathPattern>() {
            Some(pattern) if error.is::<MethodNotAllowedError>() => {
                self.by_pattern.get(&nameless(&pattern.0))
            }
            _ => None,
        };
        match allow {
            Some(allow) if asks => Ok(options(allow)),
            allow => {
                let is_told = !mutation::is_active("demo-405-without-allow");
                let allow = allow.filter(|_| is_told).cloned();
                let mut response = error::to_response(error).await;
                if let Some(allow) = allow {
                    response.headers_mut().insert(ALLOW, allow);
                }
                Ok(response)
            }
        }
    }
}

/// A path of the document or a pattern of Poem's, without the names of its parameters: `/users/{}`.
/// poem-openapi uses other names in Poem than in the document.
fn nameless(path: &str) -> String {
    let segments = path.trim_end_matches('/').split('/');
    let segments = segments.map(|segment| match segment.as_bytes().first() {
        Some(b':' | b'{') => "{}",
        _ => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

fn allow(names: &BTreeSet<String>) -> HeaderValue {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // Names of methods are tokens, which can always stand in a header.
    HeaderValue::try_from(names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn options(allow: &HeaderValue) -> Response {
    Response::builder()
        .status(StatusCode::NO_CONTENT)
        .header(ALLOW, allow)
        .finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_pattern_has_its_methods_and_those_that_come_with_them() {
        let document = json!({"paths": {
            "/users": {"get": {}, "post": {}},
            "/users/{id}": {"delete": {}},
        }});
        let methods = Methods::new(&document, &["", "/docs"]);
        let of = |pattern: &str| {
            methods
                .by_pattern
                .get(&nameless(pattern))
                .and_then(|allow| allow.to_str().ok())
        };
        assert_eq!(of("/users"), Some("GET, HEAD, OPTIONS, POST"));
        assert_eq!(of("/users/:param0"), Some("DELETE, OPTIONS"));
        assert_eq!(of(""), Some("GET, HEAD, OPTIONS"));
        assert_eq!(of("/docs"), of(""));
        assert_eq!(of("/nowhere"), None);
        assert_eq!(methods.all, "DELETE, GET, HEAD, OPTIONS, POST");
    }
}
