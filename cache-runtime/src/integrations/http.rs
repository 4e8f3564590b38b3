//! HTTP semantics of cached values, shared by all frameworks: conditional requests, and the headers
//! that say what the cache did.
//!
//! Names and values are strings, because the frameworks use two versions of the `http` crate.

use crate::base::mutation;
use crate::base::nonce::hash128;
#[cfg(any(feature = "actix", feature = "poem", feature = "tower", test))]
use crate::call::observe::{Outcome, Outcomes};

/// The content type of an [`Encoded`](crate::Encoded).
#[cfg(any(feature = "actix", feature = "axum", feature = "poem"))]
pub(crate) const JSON: &str = "application/json; charset=utf-8";
/// Clients must revalidate before they reuse it: an invalidation does not reach a browser.
#[cfg(any(feature = "actix", feature = "axum", feature = "poem"))]
pub(crate) const REVALIDATE: &str = "no-cache";

/// The header of RFC 9211.
#[cfg(any(feature = "actix", feature = "poem", feature = "tower", test))]
pub(crate) const CACHE_STATUS: &str = "cache-status";
/// Says whether the invalidations of a request have been delivered.
#[cfg(any(feature = "actix", feature = "poem", feature = "tower", test))]
pub(crate) const CACHE_INVALIDATION: &str = "cache-invalidation";

/// Whether the answer becomes `304 Not Modified` (RFC 9110, section 13.1.2): the client sends its
/// entity tag, or `*`, in `If-None-Match`, which may have several lines.
pub(crate) fn is_not_modified<'h>(
    method: &str,
    mut if_none_match: impl Iterator<Item = &'h str>,
    status: u16,
    etag: Option<&str>,
) -> bool {
    matches!(method, "GET" | "HEAD")
        && status == 200
        && etag.is_some_and(|etag| if_none_match.any(|line| is_known_by(etag, line)))
}

/// Whether a header of the answer is also sent with `304`: all are, except those about the body.
/// RFC 9110 requires `Cache-Control`, `Content-Location`, `Date`, `ETag`, `Expires` and `Vary` if a
/// `200` has them.
pub(crate) fn goes_with_not_modified(name: &str) -> bool {
    name == "content-location" || !(name.starts_with("content-") || name == "transfer-encoding")
}

/// How many calls get a `Cache-Status` line of their own. Clients accept a hundred lines.
#[cfg(any(feature = "actix", feature = "poem", feature = "tower", test))]
pub(crate) const SHOWN: usize = 16;

/// How many bytes these lines have at most, unless the first one alone is longer. Ids are part of
/// keys, and clients choose them. Some proxies answer `502` to more than 4 KiB of headers in all.
#[cfg(any(feature = "actix", feature = "poem", feature = "tower", test))]
const SHOWN_BYTES: usize = 2 << 10;

/// The headers that say what the cache did for a request: `Cache-Status` for each of the first
/// cached calls and the number of further ones, and `Cache-Invalidation` for a write.
#[cfg(any(feature = "actix", feature = "poem", feature = "tower", test))]
pub(crate) fn headers(outcomes: &Outcomes) -> impl Iterator<Item = (&'static str, String)> {
    let is_bounded = !mutation::is_active("cache-status-of-any-length");
    let mut bytes = 0;
    let calls = outcomes.iter().take(SHOWN).map(Outcome::cache_status);
    let mut calls: Vec<String> = calls
        .take_while(|line| {
            let is_first = bytes == 0;
            bytes += line.len();
            is_first || bytes <= SHOWN_BYTES || !is_bounded
        })
        .collect();
    let more = outcomes.len() - calls.len() + outcomes.more();
    if more > 0 {
        calls.push(format!("cache-runtime; detail=\"{more} more\""));
    }
    let calls = calls.into_iter().map(|line| (CACHE_STATUS, line));
    let write = outcomes.cache_invalidation();
    calls.chain(write.map(|became| (CACHE_INVALIDATION, became.to_owned())))
}

/// The value of `Cache-Invalidation` where a layer inside of this one has written one already: the
/// worse of both. Between the two layers, a middleware may have invalidated something else.
#[cfg(any(feature = "actix", feature = "poem", feature = "tower", test))]
pub(crate) fn worse(written: Option<&str>, value: String) -> String {
    let rank = |text: &str| {
        ["delivered", "pending", "lost"]
            .iter()
            .position(|it| *it == text)
    };
    match written {
        Some(written) if rank(written) > rank(&value) => written.to_owned(),
        _ => value,
    }
}

/// The weak comparison of RFC 9110 (8.8.3.2): `*`, or one of the tags in a list, without `W/`. A tag
/// of an [`Encoded`](crate::Encoded) with the suffix of a compression equals the tag of the
/// uncompressed answer.
pub(crate) fn is_known_by(etag: &str, if_none_match: &str) -> bool {
    let own = plain(etag.strip_prefix("W/").unwrap_or(etag));
    if_none_match.trim() == "*" || opaque_tags(if_none_match).any(|tag| plain(tag) == own)
}

/// The text between the quotes. For the tag of an `Encoded` it is without the suffix that servers
/// add for each encoding: `"x-gzip"` (Apache), `"x;br"`, `"x--gzip"` (Jetty). Any other tag is the
/// handler's own, and its end may mean something: `"home-br"` is another page than `"home"`.
fn plain(tag: &str) -> &str {
    let tag = tag.trim_matches('"');
    let added = ["gzip", "br", "zstd", "deflate"]
        .into_iter()
        .find_map(|encoding| {
            let rest = tag.strip_suffix(encoding)?;
            let rest = rest
                .strip_suffix("--")
                .or_else(|| rest.strip_suffix(['-', ';']))?;
            let is_of_encoded = is_hash(rest) || mutation::is_active("suffixes-of-any-tag");
            (is_of_encoded && !rest.is_empty()).then_some(rest)
        });
    added.unwrap_or(tag)
}

/// The tag of these bytes, with its quotes.
pub(crate) fn etag_of(bytes: &[u8]) -> String {
    format!("\"{:016x}\"", hash128(&[0; 16], bytes) as u64)
}

/// Whether [`etag_of`] may have made this text.
fn is_hash(text: &str) -> bool {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 16 && text.bytes().all(is_digit)
}

/// The tags of a list, with quotes and without `W/`, up to the first text that is not a tag. A tag
/// may contain a comma.
fn opaque_tags(mut list: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let tag = list.trim_start_matches([' ', '\t', ',']);
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        let end = tag.strip_prefix('"')?.find('"')?;
        let (tag, rest) = tag.split_at(end + 2);
        list = rest;
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::observe;
    use crate::invalidation::Acknowledgement;

    #[test]
    fn clients_know_what_they_name() {
        for (header, known) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            (" W/\"b\" ,\t W/\"a\" ", true),
            (", \"a\",", true),
            ("\"b,\", \"a\"", true),
            (" * ", true),
            ("\"b\"", false),
            ("\"a-gzip\"", false),
            ("\"A\"", false),
            ("\"b,a\"", false),
            ("\"*\"", false),
            ("w/\"a\"", false),
            ("W/W/\"a\"", false),
            ("a", false),
            ("\"a", false),
            ("", false),
        ] {
            assert_eq!(is_known_by("\"a\"", header), known, "{header}");
            assert_eq!(is_known_by("W/\"a\"", header), known, "{header}");
        }
        assert!(is_known_by("\"a,b\"", "\"c\", \"a,b\""));
    }

    #[test]
    fn a_compression_may_change_the_tag_of_an_encoded_value() {
        let tag = etag_of(b"[1]");
        let tag = tag.trim_matches('"');
        for (header, known) in [
            (format!("\"{tag}-gzip\""), true),
            (format!("\"b\", W/\"{tag}--gzip\""), true),
            (format!("\"{tag};br\""), true),
            (format!("\"{tag}-zstd\""), true),
            (format!("\"{tag}\""), true),
            ("\"-gzip\"".to_owned(), false),
            ("\"0123456789abcdef-gzip\"".to_owned(), false),
            (format!("\"{tag}-gzip-gzip\""), false),
            (format!("\"{tag}gzip\""), false),
            (format!("\"{tag}-de\""), false),
        ] {
            for own in [
                format!("\"{tag}\""),
                format!("W/\"{tag}\""),
                format!("\"{tag}-br\""),
            ] {
                assert_eq!(is_known_by(&own, &header), known, "{own} {header}");
            }
        }
    }

    /// A handler's own tags may end in anything.
    #[test]
    fn the_end_of_another_tag_means_something() {
        for (own, header) in [
            ("\"home\"", "\"home-br\""),
            ("\"home-br\"", "\"home\""),
            ("\"home-br\"", "W/\"home-gzip\""),
            ("\"v7;deflate\"", "\"v7\""),
        ] {
            assert!(!is_known_by(own, header), "{own} {header}");
            assert!(is_known_by(own, own));
        }
    }

    #[test]
    fn only_a_read_that_has_gone_well_is_not_modified() {
        let is =
            |method, status, etag| is_not_modified(method, ["\"a\""].into_iter(), status, etag);
        assert!(is("GET", 200, Some("\"a\"")));
        assert!(is("HEAD", 200, Some("W/\"a\"")));
        assert!(!is("POST", 200, Some("\"a\"")));
        assert!(!is("GET", 206, Some("\"a\"")));
        assert!(!is("GET", 404, Some("\"a\"")));
        assert!(!is("GET", 200, Some("\"b\"")));
        assert!(!is("GET", 200, None));
        assert!(!is_not_modified("GET", [].into_iter(), 200, Some("\"a\"")));
    }

    #[test]
    fn headers_about_the_body_go_with_it() {
        for name in ["etag", "vary", "cache-control", "content-location", "x-own"] {
            assert!(goes_with_not_modified(name), "{name}");
        }
        for name in [
            "content-type",
            "content-length",
            "content-encoding",
            "transfer-encoding",
        ] {
            assert!(!goes_with_not_modified(name), "{name}");
        }
    }

    /// Clients choose ids, and proxies answer `502` to long headers.
    #[tokio::test]
    async fn headers_have_a_bounded_length() {
        use crate::call::observe::{Outcome, Status};

        let of = async |calls: usize, key: &str| {
            let call = || Outcome {
                key: key.to_owned(),
                resource: "users".to_owned(),
                store: "redis",
                status: Status::Hit {
                    ttl: std::time::Duration::MAX,
                },
            };
            let calls = async { (0..calls).for_each(|_| observe::record(call)) };
            let ((), outcomes) = observe::observe(calls).await;
            headers(&outcomes).map(|(_, line)| line).collect::<Vec<_>>()
        };
        let short = of(20, "users:1").await;
        assert_eq!(short.len(), SHOWN + 1);
        assert_eq!(short[SHOWN], "cache-runtime; detail=\"4 more\"");
        assert_eq!(of(SHOWN, "users:1").await.len(), SHOWN);

        let long = of(20, &"k".repeat(360)).await;
        assert_eq!(long.len(), 6);
        assert_eq!(long[5], "cache-runtime; detail=\"15 more\"");
        let longest = of(2, &"k".repeat(3_000)).await;
        assert!(longest.len() == 2 && longest[0].len() > 3_000);
    }

    #[tokio::test]
    async fn a_write_says_what_became_of_it() {
        use Acknowledgement::{Deferred, Delivered, Disabled, Lost, Pending};
        for (seen, header) in [
            (&[][..], None),
            (&[Disabled], None),
            (&[Deferred], None),
            (&[Delivered, Delivered], Some("delivered")),
            (&[Delivered, Pending, Delivered], Some("pending")),
            (&[Lost, Pending], Some("lost")),
        ] {
            let writes = async { seen.iter().copied().for_each(observe::record_invalidation) };
            let ((), outcomes) = observe::observe(writes).await;
            let headers: Vec<_> = headers(&outcomes).collect();
            let expected = header.map(|value| (CACHE_INVALIDATION, value.to_owned()));
            assert_eq!(headers, Vec::from_iter(expected), "{seen:?}");
        }
    }
}
