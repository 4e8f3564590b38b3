use cache_runtime::{Cache, cached};

struct Users {
    cache: Cache,
}

impl Users {
    #[cached(resource = "users", cache = "self.cache")]
    async fn get(&self, id: i64) -> Option<String> {
        let _ = &self.cache;
        Some(id.to_string())
    }
}

fn main() {}
