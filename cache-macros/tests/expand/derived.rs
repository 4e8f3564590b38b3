use cache_runtime::cached;

struct Users {
    tenant: i64,
}

impl Users {
    /// `users:list:<hash>`
    #[cached(resource = "users", skip(pool), include(self.tenant))]
    pub async fn list(&self, pool: &str, skip: u32, limit: u32) -> Vec<String> {
        self.page(pool, skip, limit)
    }

    fn page(&self, pool: &str, skip: u32, limit: u32) -> Vec<String> {
        let page = (skip..limit).map(|row| row.to_string());
        page.chain([pool.to_owned()]).collect()
    }
}
