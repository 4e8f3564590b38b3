use cache_runtime::cached;

trait Users {
    #[cached(resource = "users")]
    async fn get(&self, id: i64) -> Option<String>;
}

fn main() {}
