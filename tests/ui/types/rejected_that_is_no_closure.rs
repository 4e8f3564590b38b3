use cache_runtime::invalidates;

#[invalidates("users", id = id, rejected = "no")]
async fn rename(id: i64) -> Result<(), String> {
    let _ = id;
    Ok(())
}

fn main() {}
