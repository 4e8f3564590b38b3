use cache_runtime::cached;

#[cached(resource = "users")]
async fn get(id: i64) {
    drop(id.to_string());
}

fn main() {}
