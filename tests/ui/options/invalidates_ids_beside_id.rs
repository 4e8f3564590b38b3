use cache_runtime::invalidates;

#[invalidates("users", id = id, ids = ids)]
async fn rename(id: i64, ids: &[i64]) {}

fn main() {}
