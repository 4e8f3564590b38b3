use cache_runtime::cached;

struct Users {
    tenant: i64,
}

impl Users {
    /// `users:list:by-age:<hash>`
    #[cached(resource = "users", op = "list:by-age", skip(pool), include(self.tenant))]
    pub async fn list(&self, pool: &str, skip: u32, limit: u32) -> Vec<String> {
        vec![format!("{pool} {skip} {limit}")]
    }
}
