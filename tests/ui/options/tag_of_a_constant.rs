use cache_runtime::cached;

#[cached(resource = "users", tags("user:{0}"))]
async fn get(id: i64) -> Option<String> {
    Some(id.to_string())
}

fn main() {}
