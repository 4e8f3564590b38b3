use cache_runtime::cached;

struct Users {
    cache: cache_runtime::Cache,
    tenant: i64,
}

impl Users {
    const RESOURCE: &str = "users";

    /// `users:7,1`
    #[cached(
        resource = Self::RESOURCE,
        id = (self.tenant, user),
        none_ttl = "500ms",
        version = 2,
        cache = self.cache
    )]
    async fn get(&self, user: &str) -> Option<String> {
        Some(user.to_owned())
    }
}
