use cache_runtime::cached;

#[cached(resource = "users", depends("Teams", 3))]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
