use cache_runtime::{cached, invalidates};

#[cached(resource = "users", ttl_secs = 60, size = 100, convert = { id })]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

#[invalidates("users", key = "#id")]
async fn remove(id: i64) {
    let _ = id;
}

fn main() {}
