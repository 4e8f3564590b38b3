use cache_runtime::cached;

#[cached(resource = "users", key(skp, limit))]
async fn list(pool: &str, skip: u32, limit: u32) -> Vec<String> {
    vec![format!("{pool} {skip} {limit}")]
}

fn main() {}
