use cache_runtime::cached;

struct User {
    id: i64,
}

#[cached(resource = "users")]
async fn get(id: i64) -> Result<Option<User>, String> {
    Ok(Some(User { id }))
}

fn main() {}
