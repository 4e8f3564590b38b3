//! A field that is not serialised, and of which `Debug` shows only that it is there.

use cache_runtime::{Cache, cached};
use serde::{Deserialize, Serialize};

use crate::{NOT_STORED, Tiers, status};

/// What it holds is in no log.
#[derive(Clone, Default)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret([REDACTED])")
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    id: u8,
    #[serde(skip)]
    token: Secret,
}

#[cached(resource = "sessions", cache = cache, skip(cache))]
async fn sessions(cache: &Cache) -> Vec<Session> {
    let token = Secret("hash".into());
    vec![Session { id: 1, token }]
}

#[tokio::test]
async fn what_debug_hides_is_not_known_to_come_back() {
    for (tier, cache) in Tiers::new().await.all() {
        for _ in 0..2 {
            let (kept, value) = status(sessions(&cache)).await;
            assert_eq!((kept, &*value[0].token.0), (NOT_STORED, "hash"), "{tier}");
        }
    }
}
