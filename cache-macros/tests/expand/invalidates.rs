use cache_runtime::invalidates;

/// `users:1`, everything derived from `users`, and all of `teams`.
#[invalidates("users", id = id, "teams")]
pub(crate) async fn rename(id: i64, name: &str) -> Result<String, std::fmt::Error> {
    store(id, name).await
}

async fn store(id: i64, name: &str) -> Result<String, std::fmt::Error> {
    Ok([&id.to_string(), name].concat())
}
