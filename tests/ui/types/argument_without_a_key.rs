use cache_runtime::cached;

struct Pool;

#[cached(resource = "users")]
async fn get(pool: &'static Pool, id: i64) -> Option<String> {
    let _ = pool;
    Some(id.to_string())
}

fn main() {}
