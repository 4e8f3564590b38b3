use cache_runtime::cached;

#[cached(resource = "users")]
async fn get(id: i64) -> Option<impl Clone> {
    Some(id)
}

fn main() {}
