use cache_runtime::cached;

#[cached(resource = "users", cache_none = false, none_ttl = 5)]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
