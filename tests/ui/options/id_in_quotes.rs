use cache_runtime::cached;

#[cached(resource = "users", id = "{user}")]
async fn get(user: i64) -> Option<String> {
    Some(user.to_string())
}

fn main() {}
