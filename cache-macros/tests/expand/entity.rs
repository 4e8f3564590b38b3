use cache_runtime::cached;

struct Users;

impl Users {
    /// `users:1`
    #[cached(resource = "users", ttl = 300)]
    pub async fn get(&self, id: i64) -> Result<Option<String>, std::fmt::Error> {
        Ok(Some(id.to_string()))
    }
}
