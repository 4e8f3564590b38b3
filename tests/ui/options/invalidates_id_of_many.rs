use cache_runtime::invalidates;

#[invalidates("users", id = ids)]
async fn remove(ids: Vec<i64>) {
    drop(ids);
}

fn main() {}
