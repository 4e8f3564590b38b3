use cache_runtime::cached;

struct Invoice {
    id: i64,
}

#[cached(resource = "users")]
async fn get(id: i64) -> Result<Option<Invoice>, String> {
    Ok(Some(Invoice { id }))
}

fn main() {}
