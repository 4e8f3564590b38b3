use std::sync::Arc;

use cache_runtime::cached;

struct User {
    id: i64,
}

#[cached(resource = "users")]
async fn get(id: i64) -> Option<Arc<User>> {
    Some(Arc::new(User { id }))
}

#[cached(resource = "users", op = "list")]
async fn list(id: i64) -> Vec<User> {
    vec![User { id }]
}

fn main() {}
