use cache_runtime::cached;

#[cached(resource = "users", key(skip, limit), skip(pool))]
async fn list(pool: &str, skip: u32, limit: u32) -> Vec<String> {
    vec![format!("{pool} {skip} {limit}")]
}

fn main() {}
