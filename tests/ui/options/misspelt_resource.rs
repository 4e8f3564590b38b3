use cache_runtime::cached;

#[cached(resorce = "users")]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
