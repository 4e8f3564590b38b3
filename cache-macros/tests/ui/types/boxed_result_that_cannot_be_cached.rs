use std::pin::Pin;

use cache_runtime::cached;

struct User {
    id: i64,
}

#[cached(resource = "users")]
fn get(id: i64) -> Pin<Box<dyn Future<Output = Option<User>> + Send>> {
    Box::pin(async move { Some(User { id }) })
}

fn main() {}
