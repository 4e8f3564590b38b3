use cache_runtime::cached;

#[cached(resource = "users", ttl = 5, ttl = 6)]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
