use cache_runtime::{Cache, Key};

async fn read(cache: &Cache) -> Option<String> {
    let key = Key::entity("users", 1);
    cache.get(&key).await
}

fn main() {}
