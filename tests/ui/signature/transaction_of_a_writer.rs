use cache_runtime::invalidates;

mod sqlx {
    pub struct Transaction<'a>(pub &'a ());
}

#[invalidates("users", id = id)]
async fn delete(tx: &mut sqlx::Transaction<'_>, id: i64) -> Result<(), String> {
    let _ = tx;
    Err(id.to_string())
}

fn main() {}
