use cache_runtime::invalidates;

#[invalidates("users", id = id, crashsafe)]
async fn update(id: i64, name: String) -> Result<i64, String> {
    if name.is_empty() { Err(name) } else { Ok(id) }
}

fn main() {}
