use cache_runtime::cached;

#[cached(resource = "users", codec = "bincode")]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
