use std::pin::Pin;

use cache_runtime::cached;

struct Letter {
    id: i64,
}

#[cached(resource = "users")]
fn get(id: i64) -> Pin<Box<dyn Future<Output = Option<Letter>> + Send>> {
    Box::pin(async move { Some(Letter { id }) })
}

fn main() {}
