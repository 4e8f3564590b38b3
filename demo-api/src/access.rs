//! The right to change the cache by hand, over HTTP.

use std::fmt;
use std::net::IpAddr;

use poem::http::HeaderMap;
use subtle::ConstantTimeEq;

use crate::mutation;

/// The right to call the operations that change the cache: `DELETE /cache`, and the buttons of
/// `/cache/ui`.
///
/// Emptying a cache harms nobody's data, but anyone who may do so at will can put all load on the
/// database. So a server that other machines reach keeps these operations to those with a token.
#[derive(Debug, Clone)]
pub enum CacheAccess {
    /// Anyone: only this machine reaches the server, and there is no token.
    Anyone,
    /// Those that send `Authorization: Bearer` and this token.
    Holders {
        /// The token.
        token: Token,
        /// Whether only this machine reaches the server.
        is_local: bool,
    },
    /// Nobody: other machines reach the server, and there is no token.
    Nobody,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// No token was sent, or a wrong one.
    WrongToken,
    /// No token is accepted.
    Always,
    /// A proxy forwarded it, or its `Host` is not this machine.
    Forwarded,
}

impl CacheAccess {
    /// The rule for a server that listens on `address`. A token counts on every address, also on
    /// loopback, where a proxy for other machines may be the client.
    #[must_use]
    pub fn new(address: IpAddr, token: Option<Token>) -> Self {
        let is_local = is_this_machine(address);
        match token {
            Some(token) => Self::Holders { token, is_local },
            None if is_local || mutation::is_active("demo-cache-open-to-all") => Self::Anyone,
            None => Self::Nobody,
        }
    }

    /// Whether the request has been sent to a server of this machine alone, and does not come from
    /// it: a page of another site, whose name resolves to loopback (DNS rebinding), or a proxy.
    /// Then the answer is shown to authorised clients alone, with or without a token in the
    /// settings.
    #[must_use]
    pub fn is_strange(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Anyone | Self::Holders { is_local: true, .. } => is_from_elsewhere(headers),
            // Everybody may read there.
            Self::Holders { .. } | Self::Nobody => false,
        }
    }

    /// Whether the sender of `token` may change the cache. `headers` show whether the request comes
    /// from this machine: behind a proxy all clients connect from loopback, and the name of another
    /// site can be made to resolve to loopback (DNS rebinding).
    ///
    /// # Errors
    /// When it may not.
    pub fn check(&self, token: Option<&str>, headers: &HeaderMap) -> Result<(), Denied> {
        match (self, token) {
            (Self::Anyone, _) if is_from_elsewhere(headers) => Err(Denied::Forwarded),
            (Self::Anyone, _) => Ok(()),
            (Self::Holders { token: right, .. }, Some(token)) if right.is(token) => Ok(()),
            (Self::Holders { .. }, _) => Err(Denied::WrongToken),
            (Self::Nobody, _) => Err(Denied::Always),
        }
    }
}

/// Whether a proxy forwarded the request, or its `Host` is not this machine.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let proxied = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
    if proxied.iter().any(|name| headers.contains_key(*name)) {
        return true;
    }
    let Some(host) = headers.get("host") else {
        return false;
    };
    let host = host.to_str().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |name: &str| name.parse().is_ok_and(is_this_machine);
    !(name.eq_ignore_ascii_case("localhost") || is_loopback(name))
}

/// The rule in one line, for the log.
impl fmt::Display for CacheAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anyone => {
                "DELETE /cache is open, as are the buttons of /cache/ui, since only this machine \
                 reaches this address and CACHE_ADMIN_TOKEN is unset"
            }
            Self::Holders { .. } => {
                "DELETE /cache needs the header `Authorization: Bearer` with CACHE_ADMIN_TOKEN, and \
                 /cache/ui asks for it before it changes anything"
            }
            Self::Nobody => {
                "DELETE /cache is refused, as are the buttons of /cache/ui, since other machines \
                 reach this address and CACHE_ADMIN_TOKEN is unset"
            }
        })
    }
}

/// Whether only this machine reaches `address`; `::ffff:127.0.0.1` is loopback too.
#[must_use]
pub fn is_this_machine(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// A secret that is never shown, and compared in constant time.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token, if `text` can stand in a header: visible ASCII without spaces.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_fit = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_fit.then(|| Self(text.to_owned()))
    }

    fn is(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(address: &str, token: Option<&str>) -> CacheAccess {
        CacheAccess::new(address.parse().unwrap(), token.and_then(Token::new))
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn requests_through_a_proxy_or_for_another_host_need_a_token() {
        let open = access("127.0.0.1", None);
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "127.0.0.1:8000",
            "[::1]:8000",
        ] {
            assert_eq!(open.check(None, &headers("host", host)), Ok(()), "{host}");
        }
        for (name, value) in [
            ("host", "evil.example"),
            ("host", "evil.example:8000"),
            ("host", "10.0.0.5:8000"),
            ("x-forwarded-for", "203.0.113.9"),
            ("forwarded", "for=203.0.113.9"),
            ("via", "1.1 proxy"),
        ] {
            let denied = open.check(None, &headers(name, value));
            assert_eq!(denied, Err(Denied::Forwarded), "{name}: {value}");
        }
    }

    #[test]
    fn without_a_token_only_this_machine_may() {
        for address in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            let checked = access(address, None).check(None, &headers("host", "localhost:8000"));
            assert_eq!(checked, Ok(()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "::",
            "192.0.2.1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
        ] {
            let denied = access(address, None).check(Some("guess"), &HeaderMap::new());
            assert_eq!(denied, Err(Denied::Always), "{address}");
        }
    }

    #[test]
    fn a_token_counts_everywhere_and_must_be_the_whole_one() {
        for address in ["0.0.0.0", "127.0.0.1"] {
            let access = access(address, Some("s3cret"));
            let elsewhere = headers("x-forwarded-for", "203.0.113.9");
            assert_eq!(access.check(Some("s3cret"), &elsewhere), Ok(()));
            for wrong in [
                None,
                Some(""),
                Some("s3cre"),
                Some("s3cret2"),
                Some("S3CRET"),
            ] {
                let denied = access.check(wrong, &HeaderMap::new());
                assert_eq!(denied, Err(Denied::WrongToken), "{wrong:?}");
            }
            assert!(!format!("{access:?} {access}").contains("s3cret"));
        }
    }

    #[test]
    fn a_token_does_not_make_another_site_s_request_a_familiar_one() {
        let strange = headers("host", "evil.example");
        let usual = headers("host", "localhost:8000");
        for token in [None, Some("s3cret")] {
            let local = access("127.0.0.1", token);
            assert!(local.is_strange(&strange) && !local.is_strange(&usual));
            // Its own name is not known there.
            assert!(!access("0.0.0.0", token).is_strange(&strange));
        }
    }

    #[test]
    fn a_token_can_stand_in_a_header() {
        assert!(Token::new("a-Z_0.9~+/=").is_some());
        for unfit in ["", "two words", "new\nline", "ü"] {
            assert!(Token::new(unfit).is_none(), "{unfit:?}");
        }
    }
}
