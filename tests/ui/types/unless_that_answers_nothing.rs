use cache_runtime::cached;

#[cached(resource = "users", unless = |name| name.len())]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
