use cache_runtime::cached;

#[cached(resource = "users")]
async fn get(id: i64) -> Option<Result<String, std::fmt::Error>> {
    Some(Ok(id.to_string()))
}

fn main() {}
