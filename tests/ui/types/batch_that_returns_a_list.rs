use cache_runtime::cached;

#[cached(resource = "users", batch = ids)]
async fn many(ids: &[i64]) -> Result<Vec<String>, std::fmt::Error> {
    Ok(ids.iter().map(|id| id.to_string()).collect())
}

fn main() {}
