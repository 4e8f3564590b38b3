//! An expression of the user's keeps its place.

use cache_runtime::{cached, invalidates};

enum DbError {
    NotFound,
}

struct User {
    id: i64,
}

#[cached(resource = USERS, include(id.count()))]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

#[invalidates("users", id = result.key, rejected = |e| matches!(e, DbError::Missing))]
async fn update(id: i64) -> Result<User, DbError> {
    if id == 0 { Err(DbError::NotFound) } else { Ok(User { id }) }
}

fn main() {}
