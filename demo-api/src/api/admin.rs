//! The admin page of the cache: everybody may look, and those with the right may change.

use cache_runtime::admin::{Admin, Rights};
use poem::{Endpoint, Request, Response};

use crate::access::{CacheAccess, Denied};

/// The page, for `/cache/ui`.
pub(super) fn page(access: CacheAccess) -> impl Endpoint<Output = Response> {
    let admin = Admin::new(&cache_runtime::cache()).advise(
        "Changes need CACHE_ADMIN_TOKEN, or a request from this machine to a loopback address.",
    );
    admin.into_poem(
        move |request| match access.check(token_of(request), request.headers()) {
            Ok(()) => Rights::Change,
            // A page of another site may have sent it (DNS rebinding): it learns no key and no
            // value, also where there is a token.
            Err(Denied::WrongToken) if access.is_strange(request.headers()) => {
                Rights::FiguresUntilToken
            }
            Err(Denied::WrongToken) => Rights::ReadUntilToken,
            Err(Denied::Always) => Rights::Read,
            Err(Denied::Forwarded) => Rights::Figures,
        },
    )
}

fn token_of(request: &Request) -> Option<&str> {
    let credentials = request.header("authorization")?;
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
