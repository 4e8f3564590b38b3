//! Requests and answers, independent of any framework.

use serde_json::{Value, json};

use crate::base::nonce::Nonce;

const PAGE: &str = include_str!("page.html");

/// The page loads nothing from other hosts, runs only its own script, and no other page may show it
/// in a frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

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
    pub(super) fn json(status: u16, value: &Value) -> Self {
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

    pub(super) fn error(status: u16, text: &str) -> Self {
        Self::json(status, &json!({ "error": text }))
    }

    /// The path takes other methods, which RFC 9110 (15.5.6) wants to be listed.
    pub(super) fn method_not_allowed(allowed: &str) -> Self {
        let mut response = Self::error(405, &format!("use {allowed}"));
        response.headers.push(("allow", allowed.to_owned()));
        response
    }

    pub(super) fn page() -> Self {
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
