use cache_runtime::cached;

#[cached(resource = "users", unless = |name: &i64| *name == 0)]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
