use cache_runtime::cached;

struct Users {
    tenant: i64,
}

impl Users {
    #[cached(resource = "users", include("tenant"))]
    async fn count(&self, active: bool) -> i64 {
        self.tenant + i64::from(active)
    }
}

fn main() {}
