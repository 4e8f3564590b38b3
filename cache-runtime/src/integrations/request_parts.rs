//! A request as the layers of all frameworks see it.

use std::borrow::Cow;
use std::fmt;

/// The parts of a request that a layer can read, in each framework: for
/// `with_key("tenant", |request| ..)`.
pub struct RequestParts<'r>(Source<'r>);

enum Source<'r> {
    #[cfg(feature = "tower")]
    Tower {
        headers: &'r ::http::HeaderMap,
        uri: &'r ::http::Uri,
        extensions: &'r ::http::Extensions,
    },
    #[cfg(feature = "actix")]
    Actix(&'r actix_web::dev::ServiceRequest),
    #[cfg(feature = "poem")]
    Poem(&'r ::poem::Request),
}

impl<'r> RequestParts<'r> {
    #[cfg(feature = "tower")]
    pub(crate) fn of_tower<B>(request: &'r ::http::Request<B>) -> Self {
        Self(Source::Tower {
            headers: request.headers(),
            uri: request.uri(),
            extensions: request.extensions(),
        })
    }

    #[cfg(feature = "actix")]
    pub(crate) fn of_actix(request: &'r actix_web::dev::ServiceRequest) -> Self {
        Self(Source::Actix(request))
    }

    #[cfg(feature = "poem")]
    pub(crate) fn of_poem(request: &'r ::poem::Request) -> Self {
        Self(Source::Poem(request))
    }

    /// The first header of this name, if its value is visible ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'r str> {
        match self.0 {
            #[cfg(feature = "tower")]
            Source::Tower { headers, .. } => headers.get(name)?.to_str().ok(),
            #[cfg(feature = "actix")]
            Source::Actix(request) => request.headers().get(name)?.to_str().ok(),
            #[cfg(feature = "poem")]
            Source::Poem(request) => request.headers().get(name)?.to_str().ok(),
        }
    }

    /// The path, such as `/teams/7/orders`, as it was sent: `/teams/%37/orders` is another text.
    #[must_use]
    pub fn path(&self) -> &'r str {
        match self.0 {
            #[cfg(feature = "tower")]
            Source::Tower { uri, .. } => uri.path(),
            #[cfg(feature = "actix")]
            Source::Actix(request) => request.uri().path(),
            #[cfg(feature = "poem")]
            Source::Poem(request) => request.uri().path(),
        }
    }

    /// The query behind the path's `?`, as it was sent.
    #[must_use]
    pub fn query(&self) -> Option<&'r str> {
        match self.0 {
            #[cfg(feature = "tower")]
            Source::Tower { uri, .. } => uri.query(),
            #[cfg(feature = "actix")]
            Source::Actix(request) => request.uri().query(),
            #[cfg(feature = "poem")]
            Source::Poem(request) => request.uri().query(),
        }
    }

    /// The host that the client names, in lower case, without its port and a dot at its end:
    /// `shop7.example.com`. So each way to write a host leads to the same key.
    #[must_use]
    pub fn host(&self) -> Option<Cow<'r, str>> {
        let of_uri = match self.0 {
            #[cfg(feature = "tower")]
            Source::Tower { uri, .. } => uri.host(),
            #[cfg(feature = "actix")]
            Source::Actix(request) => request.uri().host(),
            #[cfg(feature = "poem")]
            Source::Poem(request) => request.uri().host(),
        };
        let host = of_uri.or_else(|| self.header("host").map(without_port));
        host.and_then(normalised)
    }

    /// A value that an outer layer has put into the request's extensions, such as the user that it
    /// has authenticated. That layer has to run before this one.
    #[must_use]
    pub fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        match self.0 {
            #[cfg(feature = "tower")]
            Source::Tower { extensions, .. } => extensions.get::<T>().cloned(),
            #[cfg(feature = "actix")]
            Source::Actix(request) => {
                use actix_web::HttpMessage as _;
                request.extensions().get::<T>().cloned()
            }
            #[cfg(feature = "poem")]
            Source::Poem(request) => request.extensions().get::<T>().cloned(),
        }
    }
}

impl fmt::Debug for RequestParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold secrets.
        f.debug_struct("RequestParts")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // Not the end of an IPv6 address.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The one form of a host's name, which is the same in any case and with a dot at its end.
fn normalised(host: &str) -> Option<Cow<'_, str>> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase())
        || crate::base::mutation::is_active("hosts-as-they-are-written");
    match (name.is_empty(), is_lower) {
        (true, _) => None,
        (false, true) => Some(name.into()),
        (false, false) => Some(name.to_ascii_lowercase().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_written_in_one_way() {
        for (host, name) in [
            ("shop.example", Some("shop.example")),
            ("Shop.EXAMPLE", Some("shop.example")),
            ("shop.example.", Some("shop.example")),
            ("[FD00::5]", Some("[fd00::5]")),
            ("", None),
            (".", None),
        ] {
            assert_eq!(normalised(host).as_deref(), name, "{host}");
        }
    }

    #[test]
    fn a_host_has_no_port() {
        for (host, name) in [
            ("shop.example", "shop.example"),
            ("shop.example:8080", "shop.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }
}
