use cache_runtime::cached;

#[cached(resource = "users", ttl = 5m, version = 2x, jitter = 0.1x)]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
