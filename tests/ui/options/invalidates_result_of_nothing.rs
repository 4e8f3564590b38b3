use cache_runtime::invalidates;

#[invalidates("users", id = result)]
async fn remove(id: i64) -> Result<(), String> {
    let _ = id;
    Ok(())
}

fn main() {}
