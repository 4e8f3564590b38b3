use cache_runtime::cached;

#[cached(resource = "users", tll = 300)]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
