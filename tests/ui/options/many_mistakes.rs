//! All mistakes are shown at once, and the function is still there for its callers.

use cache_runtime::{cached, invalidates};

#[cached(op = "Get One", tll = 300, skip(dbb), none_ttl = "5min" version = "2")]
fn get(db: &str, id: i64) -> Option<String> {
    Some(format!("{db} {id}"))
}

#[invalidates("Users", id = idd, rejected(e), ttl = 5)]
async fn update(id: i64) -> Result<i64, String> {
    Ok(id)
}

async fn calls() {
    let _: Option<String> = get("db", 1);
    let _: Result<i64, String> = update(1).await;
}

fn main() {
    drop(calls());
}
