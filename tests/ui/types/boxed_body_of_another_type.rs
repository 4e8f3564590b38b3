use std::pin::Pin;

use cache_runtime::cached;

#[cached(resource = "users")]
fn get(id: i64) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> {
    Box::pin(async move { id.to_string() })
}

#[cached(resource = "users", op = "named")]
fn named(id: i64) -> impl Future<Output = Option<String>> {
    async move { id.to_string() }
}

fn main() {}
