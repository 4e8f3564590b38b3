//! An expression of the user's keeps its place.

use cache_runtime::{cached, invalidates};

enum StoreError {
    NotFound,
}

struct Member {
    id: i64,
}

#[cached(resource = USERS, include(id.count()))]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

#[invalidates("users", id = result.key, rejected = |e| matches!(e, StoreError::Missing))]
async fn update(id: i64) -> Result<Member, StoreError> {
    if id == 0 { Err(StoreError::NotFound) } else { Ok(Member { id }) }
}

fn main() {}
