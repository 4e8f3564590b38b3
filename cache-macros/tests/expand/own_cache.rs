use cache_runtime::cached;

struct Users {
    cache: cache_runtime::Cache,
    tenant: i64,
}

impl Users {
    /// `users:7,1`
    #[cached(resource = "users", id = (self.tenant, user), cache = self.cache)]
    async fn get(&self, user: &str) -> Option<String> {
        Some(user.to_owned())
    }
}
