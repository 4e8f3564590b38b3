use cache_runtime::cached;

#[cached(resource = "users")]
#[cache_runtime::invalidates("users")]
async fn replace(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
