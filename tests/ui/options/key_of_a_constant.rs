use cache_runtime::cached;

#[cached(resource = "users", key("#id"))]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

#[cached(resource = "users", op = "named", key("name", 1))]
async fn named(name: String) -> Option<String> {
    Some(name)
}

fn main() {}
