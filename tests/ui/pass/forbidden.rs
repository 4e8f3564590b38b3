//! What a crate forbids, the attributes don't allow: `#[allow]` would be an error there.

#![forbid(
    unused_variables,
    unused_mut,
    unused_must_use,
    unused_lifetimes,
    unreachable_code,
    dead_code,
    missing_docs,
    let_underscore_drop,
    elided_lifetimes_in_paths,
    clippy::diverging_sub_expression,
    reason = "none of them may be allowed again"
)]

use cache_runtime::{cached, invalidates};

/// A service.
#[derive(Clone)]
pub struct Prices {
    source: String,
}

impl Prices {
    /// Uses `self`, and one of what it borrows.
    #[cached(resource = "prices", swr = 60, timeout = 1)]
    pub async fn price(&self, mut market: &str, unused: &str, id: i64) -> Option<String> {
        if id == 0 {
            market = "none";
        }
        Some(format!("{} {market}", self.source))
    }

    /// Returns early.
    #[cached(resource = "prices", op = "early")]
    pub async fn early(&self, id: i64) -> Result<i64, String> {
        if id == 0 {
            return Err(String::new());
        }
        Ok(id)
    }

    /// Returns nothing.
    #[invalidates("prices", id = id)]
    pub async fn change(&self, id: i64) {}
}

pub(crate) fn main() {
    let prices = Prices {
        source: String::new(),
    };
    std::mem::drop((prices.price("", "", 1), prices.early(1), prices.change(1)));
}
